"""Streams of random numbers: every purpose its own, and no bare number in the sources."""

import ast
from pathlib import Path

import jax
import numpy as np

import avistan
from avistan.runtime.streams import Stream, derived_seeds, generator, stream_key

ROOT = Path(avistan.__file__).parent


def bare_streams(source: str) -> list[str]:
    """Calls that make random numbers from numbers written in place, or from a seed alone."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        folded = name == "fold_in" and any(isinstance(arg, ast.Constant) for arg in node.args)
        if folded or name in ("default_rng", "SeedSequence"):
            found.append(ast.unparse(node))
    return found


def test_every_purpose_has_a_number_and_a_sentence_of_its_own():
    assert len(set(Stream)) == len(Stream.__members__)  # an alias is a number given twice
    assert len({stream.__doc__ for stream in Stream}) == len(Stream)
    assert min(Stream) > 0  # numpy takes [seed] and [seed, 0] as the same


def test_streams_of_one_seed_differ_and_follow_from_it():
    first = [generator(7, stream).integers(2**62) for stream in Stream]
    assert len(set(first)) == len(Stream)
    assert first == [generator(7, stream).integers(2**62) for stream in Stream]
    numbered = [generator(7, Stream.SHARD, number).integers(2**62) for number in range(1, 5)]
    assert len({*numbered, *first}) == len(Stream) + 4


def test_keys_of_streams_differ():
    key = jax.random.key(7)
    keys = [stream_key(key, stream) for stream in (Stream.ELBO, Stream.TRAINING)]
    keys += [stream_key(key, Stream.TRAINING, number) for number in (0, 1)]
    assert len({tuple(np.asarray(jax.random.key_data(k))) for k in keys}) == 4


def test_derived_seeds_are_seeds():
    seeds = derived_seeds(3, Stream.SIMULATIONS, count=50)
    assert len(set(seeds)) == 50
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds == derived_seeds(3, Stream.SIMULATIONS, count=50)


def test_no_random_number_comes_from_a_bare_number():
    bare = {str(path.relative_to(ROOT)): bare_streams(path.read_text()) for path in ROOT.rglob("*.py")}
    del bare["runtime/streams.py"]
    assert {name: calls for name, calls in bare.items() if calls} == {}


def test_every_stream_is_used():
    sources = "".join(path.read_text() for path in ROOT.rglob("*.py"))
    assert [stream.name for stream in Stream if f"Stream.{stream.name}" not in sources] == []


def test_bare_numbers_are_found():
    source = (
        "default_rng([s, 8]); np.random.default_rng(0); jax.random.fold_in(k, 3); fold_in(k, Stream.ELBO)"
    )
    assert len(bare_streams(source)) == 3
