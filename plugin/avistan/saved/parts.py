"""A fit as the parts of a saved folder, and back: every part is checked against the others before it is used."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from avistan.density.slots import register
from avistan.family.family import Family
from avistan.family.functions import Refined
from avistan.family.globals import LevelGlobals
from avistan.family.method import Method, parse_method
from avistan.fitting.chains import Chain, best_of
from avistan.fitting.fitted import Fitted
from avistan.objective.elbo import Evaluation, evaluate
from avistan.runtime.device import on_device
from avistan.runtime.errors import FitError
from avistan.runtime.streams import Stream, stream_key
from avistan.saved.arrays import Array
from avistan.saved.folder import DamageError, SavedParts, damage, open_fit, write_fit
from avistan.saved.header import ENGINES, LIBRARY, SavedChain, SavedHeader, SavedLevel, SavedMember
from avistan.saved.sizes import SizeError, fewest_bytes, refuse_beyond_memory
from avistan.start.preparation import skeleton, split
from avistan.start.unit_inputs import DataInput, SignatureInput, UnitInput, read_unit_input
from avistan.training.loop import Trace
from avistan.training.stopping import Ending
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.errors import AvistanError, StructureError
from stan_adapters.levels.levels import Level, Member, make_level

_TRACE = tuple(Trace.__dataclass_fields__)
_ARRAYS, _HEADER = "arrays.npz", "fit.json"
# Of its log weights, nats and a part of their size, which another machine's single precision explains; of the
# difference between its two draws, where what all units have in common cancels, less.
_SLACK, _SLACK_OF_DIFFERENCE = (1e-4, 1e-6), (1e-4, 1e-8)


def write(fit: Fitted, path: str | os.PathLike[str], asked: Mapping[str, Any] | None = None) -> None:
    """Write a fit to a folder. Raises FitError."""
    choice = fit.model.engine_choice
    named = choice in ENGINES
    header = {
        "engine": choice if named else LIBRARY,
        "library": "" if named else Path(choice).name,
        "method": fit.method.name,
        "options": asdict(fit.options),
        "seed": fit.seed,
        "reason": fit.reason,
        "outcome": fit.outcome.name,
        "elbo": fit.elbo,
        "elbo_se": fit.elbo_se,
        "level": fit.level and asdict(_level_header(fit.level)),
        "second": fit.second and asdict(_level_header(fit.second, _second_inputs(fit.family))),
        "unit_input": None if fit.unit_input is None else fit.unit_input.kind,
        "timing": asdict(fit.timing),
        "chains": [asdict(_chain_header(fit.model, chain, fit.seed)) for chain in fit.chains],
        "certificate": [asdict(probe) for probe in fit.certificate],
    }
    arrays: dict[str, Array] = {"inputs": fit.inputs}
    for number, chain in enumerate(fit.chains):
        arrays |= {f"chain_{number}_{name}": values for name, values in _chain_arrays(chain).items()}
    if fit.unit_input is not None:
        arrays |= {f"input_{name}": values for name, values in fit.unit_input.arrays().items()}
    write_fit(
        path,
        header=header,
        arrays=arrays,
        program=fit.model.program,
        data=fit.model.data,
        asked=asked,
    )


def read(path: str | os.PathLike[str], engine: str | None) -> Fitted:
    """The fit in a folder.

    Raises:
        FitError: the folder is no saved fit, or damaged, or names an engine that only a caller may name.
    """
    with open_fit(path) as saved:
        header = saved.header
        with damage(_HEADER):
            method = parse_method(header.method)
        refuse_beyond_memory(saved.program, saved.data)
        model = _bound(path, saved, engine)
        try:
            return _fitted(saved, method, model, same_engine=engine in (None, header.engine))
        except BaseException:
            model.close()
            raise


def _fitted(saved: SavedParts, method: Method, model: BoundModel, *, same_engine: bool) -> Fitted:
    header, arrays = saved.header, _Arrays(saved.arrays)
    level, second = (_read_level(model, found) for found in (header.level, header.second))
    index, globals_index = split(model, level)
    inputs = arrays.take("inputs", (len(index), None))
    unit_input = _read_unit_input(header, method, arrays, index, globals_index, inputs)
    chains = _read_chains(saved, method, arrays, (index, globals_index), inputs, second)
    arrays.refuse_more()
    if header.elbo != (found := chains[best_of(chains)].evaluation.elbo) and not math.isnan(header.elbo):
        raise DamageError(_HEADER, f"its `elbo` is {header.elbo}, and the log weights give {found}")
    if header.outcome != (ended := chains[best_of(chains)].outcome.name):
        raise DamageError(_HEADER, f"its `outcome` is {header.outcome[:40]!r}, and the traces end {ended!r}")
    for number, (chain, told) in enumerate(zip(chains, header.chains, strict=True), start=1):
        _recognise(model, chain, told.witness, header.seed, number, same_engine=same_engine)
    return Fitted(
        model=model,
        level=level,
        method=method,
        options=header.options,
        seed=header.seed,
        reason=header.reason,
        unit_input=unit_input,
        chains=chains,
        timing=header.timing,
        certificate=header.certificate,
        second=second,
    )


# --- engine -------------------------------------------------------------------------------------------------


def _bound(path: str | os.PathLike[str], saved: SavedParts, engine: str | None) -> BoundModel:
    """The program bound to its data, by an engine that the caller or, of those without a path, the folder names."""
    program, data, named = saved.program, saved.data, saved.header.engine
    if engine is not None:
        return BoundModel(program, data, engine=engine)
    if named != LIBRARY:
        return BoundModel(program, data, engine=named)
    library = saved.header.library
    try:
        BoundModel(program, data, engine="stanli").close()
        instead = ' The engine stanli takes this program too: with engine="auto" (--engine auto) no library is needed.'
    except AvistanError:
        instead = ""
    raise FitError(
        f"{path} is a fit with the prebuilt library {library!r}. A folder is data and can't choose which library is "
        f'loaded: name it yourself, as avistan.load({str(path)!r}, engine="path/to/{library}") (command line: '
        f"--engine path/to/{library}).{instead}"
    )


# --- levels and inputs --------------------------------------------------------------------------------------


def _level_header(level: Level, inputs: int = 0) -> SavedLevel:
    return SavedLevel(
        name=level.name,
        members=tuple(SavedMember(**asdict(member)) for member in level.members),
        inputs=inputs,
    )


def _read_level(model: BoundModel, saved: SavedLevel | None) -> Level | None:
    """The inverse of `_level_header`."""
    if saved is None:
        return None
    layout = model.layout
    known = {container.name: container for container in (*layout.containers, *layout.components)}
    names = [member.name for member in saved.members]
    for member in saved.members:
        if member.name not in known or member.axis >= len(known[member.name].axes):
            raise DamageError(
                _HEADER, f"the program has no parameter {member.name[:80]!r} with an axis {member.axis}"
            )
    if len(set(names)) < len(names):
        raise DamageError(_HEADER, f"{', '.join(names)[:200]} are not the parameters of one level")
    try:
        return make_level(model.layout, saved.name, [Member(**asdict(member)) for member in saved.members])
    except (StructureError, ValueError):
        reason = f"{', '.join(names)[:200]} are not the parameters of one level"
    raise DamageError(_HEADER, reason)


def _second_inputs(family: Family) -> int:
    """How many inputs each unit of the second level has."""
    return family.globals.inputs.shape[1] if isinstance(family.globals, LevelGlobals) else 0


def _read_unit_input(
    header: SavedHeader,
    method: Method,
    arrays: _Arrays,
    index: IndexArray,
    globals_index: IndexArray,
    inputs: Array,
) -> UnitInput | None:
    wanted = None if not method.amortized else DataInput.kind if method.data else SignatureInput.kind
    if header.unit_input != wanted:
        raise DamageError(
            _HEADER, f"`unit_input` is {header.unit_input!r}, and {method.name} reads {wanted!r}"
        )
    names = {None: (), SignatureInput.kind: _SIGNATURE, DataInput.kind: _COLUMNS}[wanted]
    parts = {name: arrays.take(f"input_{name}") for name in names}
    if wanted == SignatureInput.kind:
        count, block = parts["theta"].shape[:1], index.shape[1]
        features = (count[0] * block,) if count else ()
        rank = parts["components"].shape[1:]
        shapes: dict[str, tuple[int, ...]] = {
            "theta": (*count, len(globals_index)),
            "z": (*count, block),
            "components": (*features, *rank[:1]),
            "neighbours": (),
            "knee": (),
        } | dict.fromkeys(("center", "scale", "heavy", "mean"), features)
        beside = 2 * method.neighbours
        columns = sum(rank) * (1 + beside) + beside
        sound = int(parts["neighbours"].sum()) == method.neighbours and bool((parts["scale"] >= 0).all())
        sound = sound and bool((parts["knee"] > 0).all())
    elif wanted == DataInput.kind:
        width = parts["mean"].shape
        shapes = dict.fromkeys(names, width)
        columns = sum(width) + int(parts["marked"].sum())
        sound = len(width) == 1 and bool((parts["sd"] > 0).all())
    else:
        shapes, columns, sound = {}, 0, True
    for name, shape in shapes.items():
        if parts[name].shape != shape:
            raise DamageError(_ARRAYS, f"'input_{name}' has shape {parts[name].shape}, expected {shape}")
    if not sound or inputs.shape[1] != columns:
        raise DamageError(_ARRAYS, f"what units are read by does not give inputs of shape {inputs.shape}")
    return read_unit_input(wanted, parts, method.data)


_SIGNATURE = ("theta", "z", "neighbours", "knee", "center", "scale", "heavy", "mean", "components")
_COLUMNS = ("mean", "sd", "marked")
_FLAGS = ("input_heavy", "input_marked")


class _Arrays:
    """Arrays by name, of which each is taken once and looked at then."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._left = dict(arrays)

    def take(
        self,
        name: str,
        shape: Sequence[int | None] | None = None,
        *,
        finite: bool = True,
        dtype: np.dtype[Any] | None = None,
    ) -> Array:
        """An array, of a type, and of a shape, if one is given (None: any size). Raises DamageError."""
        if name not in self._left:
            raise DamageError(_ARRAYS, f"it has no {name!r}")
        values = self._left.pop(name)
        kinds = "b" if name in _FLAGS else "iu" if name.endswith(_WHOLE) else "f"
        if values.dtype != dtype if dtype is not None else values.dtype.kind not in kinds:
            raise DamageError(_ARRAYS, f"{name!r} has the type {values.dtype}")
        if shape is not None:
            same = len(values.shape) == len(shape) and all(
                size is None or size == there for size, there in zip(shape, values.shape, strict=True)
            )
            if not same:
                raise DamageError(_ARRAYS, f"{name!r} has shape {values.shape}, expected {tuple(shape)}")
        if finite and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DamageError(_ARRAYS, f"{name!r} holds numbers that are not finite")
        return values

    def take_leaves(self, start: str, like: Any) -> Any:
        """A tree with the shapes and types of `like`. Raises DamageError."""
        leaves, form = jax.tree.flatten(like)
        read = [self.take(f"{start}{n}", leaf.shape, dtype=leaf.dtype) for n, leaf in enumerate(leaves)]
        return jax.tree.unflatten(form, map(on_device, read))

    def refuse_more(self) -> None:
        if self._left:
            raise DamageError(_ARRAYS, f"it has an array {next(iter(self._left))[:80]!r}, which no fit has")


_WHOLE = ("_num_rejected", "_chunk_steps", "_ended", "_neighbours")


# --- chains -------------------------------------------------------------------------------------------------


def _chain_header(model: BoundModel, chain: Chain, seed: int) -> SavedChain:
    from avistan.posterior.refine_locals import num_refined  # here, because it takes long to load

    return SavedChain(
        stages=len(chain.traces),
        refined=num_refined(chain.family),
        growth=chain.growth,
        gradient_evaluations=chain.gradient_evaluations,
        seconds_train=chain.seconds_train,
        seconds_compile=chain.seconds_compile,
        seconds_evaluate=chain.seconds_evaluate,
        witness=_witness(model, chain, seed),
    )


def _chain_arrays(chain: Chain) -> dict[str, Array]:
    arrays: dict[str, Array] = {"log_weights": chain.evaluation.log_weights}
    arrays |= {f"leaf_{n}": np.asarray(leaf) for n, leaf in enumerate(jax.tree.leaves(_leaves(chain.family)))}
    for stage, trace in enumerate(chain.traces):
        arrays |= {f"trace_{stage}_{name}": np.asarray(getattr(trace, name)) for name in _TRACE}
    return arrays


def _read_chains(
    saved: SavedParts,
    method: Method,
    arrays: _Arrays,
    index: tuple[IndexArray, IndexArray],
    inputs: Array,
    second: Level | None,
) -> tuple[Chain, ...]:
    from avistan.posterior.refine_locals import with_rows

    header, (local_index, globals_index) = saved.header, index
    units, block = local_index.shape
    read: dict[str, Any] = {}
    if header.second is not None:
        read = {"second": second, "num_second_inputs": header.second.inputs}
        if 4 * header.second.inputs * max(1, second.num_units if second else 1) > saved.bytes_of_arrays:
            raise SizeError(f"{_HEADER}: the second level has more `inputs` than {_ARRAYS} has room for")
    refined = [chain.refined for chain in header.chains]
    num_inputs = max(inputs.shape[1], header.second.inputs if header.second else 0)
    least = fewest_bytes(
        method, units, block, len(globals_index), num_inputs, len(header.chains), sum(refined)
    )
    if least > saved.bytes_of_arrays or max(refined) > units:
        raise SizeError(
            f"{_HEADER}: {method.name} with {len(header.chains)} chains needs {least} bytes at least, and {_ARRAYS} "
            f"has {saved.bytes_of_arrays}"
        )
    empty = skeleton(method, local_index, globals_index, inputs.shape[1], **read)
    return tuple(
        _read_chain(number, chain, arrays, with_rows(empty, chain.refined), inputs)
        for number, chain in enumerate(header.chains)
    )


def _read_chain(number: int, saved: SavedChain, arrays: _Arrays, like: Family, inputs: Array) -> Chain:
    start = f"chain_{number}_"
    traces = [_read_trace(f"{start}trace_{stage}_", arrays) for stage in range(saved.stages)]
    log_weights = arrays.take(f"{start}log_weights", (None,), finite=False)
    pairs = len(log_weights) > 0 and len(log_weights) % 2 == 0
    if not pairs or np.isnan(log_weights).any() or log_weights.max() == np.inf:
        raise DamageError(_ARRAYS, f"'{start}log_weights' are no log weights of pairs of draws")
    leaves = arrays.take_leaves(f"{start}leaf_", _leaves(like))
    family = eqx.tree_at(_leaves, like, leaves, is_leaf=lambda leaf: leaf is None)
    _check_places(family, like)
    return Chain(
        family=family,
        inputs=inputs,
        traces=tuple(traces),
        evaluation=Evaluation(log_weights),
        growth=saved.growth,
        gradient_evaluations=saved.gradient_evaluations,
        seconds_train=saved.seconds_train,
        seconds_compile=saved.seconds_compile,
        seconds_evaluate=saved.seconds_evaluate,
    )


def _read_trace(start: str, arrays: _Arrays) -> Trace:
    elbo = arrays.take(f"{start}elbo", (None,), finite=False)
    rejected = arrays.take(f"{start}num_rejected", elbo.shape)
    stamps = arrays.take(f"{start}chunk_steps", (None,))
    seconds = arrays.take(f"{start}seconds", stamps.shape)
    compiling = float(arrays.take(f"{start}seconds_compile", ()))
    ended = int(arrays.take(f"{start}ended", ()))
    if not len(elbo) or not len(stamps) or ended not in set(map(int, Ending)):
        raise DamageError(_ARRAYS, f"'{start}elbo' is the trace of no training")
    return Trace(elbo, rejected, stamps, seconds, compiling, Ending(ended))


def _check_places(family: Family, like: Family) -> None:
    """Whole numbers in a family say which coordinate is whose: they follow from the program, but for refined units."""
    inference = family.inference
    if isinstance(inference, Refined):
        units, count = np.asarray(inference.units), family.placement.local_index.shape[0]
        if (np.diff(units) <= 0).any() or units.min(initial=0) < 0 or units.max(initial=0) >= count:
            raise DamageError(_ARRAYS, "refined units are no units")
    for one, other in zip(jax.tree.leaves(family.globals), jax.tree.leaves(like.globals), strict=True):
        if one.dtype.kind in "iu" and not np.array_equal(np.asarray(one), np.asarray(other)):
            raise DamageError(_ARRAYS, "globals are in other places than the program has them")


def _leaves(family: Family) -> tuple[Any, ...]:
    """What a saved fit holds of its family; the rest follows from the program."""
    return family.globals, family.inference, family.frame, family.directions, family.curve


# --- witness ------------------------------------------------------------------------------------------------


def _witness(model: BoundModel, chain: Chain, seed: int) -> tuple[float, float]:
    """Log weights of a pair of draws: they depend on program, data, engine, seed, unit inputs and all of the family."""
    key = stream_key(jax.random.key(seed), Stream.WITNESS)
    with register(model) as slot:
        inputs = on_device(chain.inputs, np.float32)
        weights = evaluate(chain.family, inputs, slot.index, key, 2).log_weights
    return float(weights[0]), float(weights[1])


def _recognise(
    model: BoundModel, chain: Chain, told: tuple[float, float], seed: int, number: int, *, same_engine: bool
) -> None:
    """That the parts together give the log weights that they gave when they were saved.

    Engines may differ by a constant, so that with another one only the difference of two draws counts.

    Raises:
        FitError: they do not.
    """
    found, expected = np.array(_witness(model, chain, seed)), np.array(told)
    if not same_engine:
        found, expected = found - found[0], expected - expected[0]
    kept = np.isfinite(expected) | np.isfinite(found)
    apart = np.abs(found - expected)[kept]
    size = np.abs(np.array(told))[kept]
    size = np.where(np.isfinite(size), size, 0.0)
    alike = bool((apart <= _SLACK[0] + _SLACK[1] * size).all())
    if alike and np.isfinite([*found, *expected]).all():
        difference = abs(float(np.diff(found)[0] - np.diff(expected)[0]))
        alike = difference <= _SLACK_OF_DIFFERENCE[0] + _SLACK_OF_DIFFERENCE[1] * float(size.max())
    if alike:
        return
    if not same_engine:
        raise FitError(
            f"the engine {model.engine} gives this fit's draws other densities than the engine that it was made with: "
            "it is another program, or has its parameters on another unconstrained scale. Load the fit with the engine "
            "that it was made with, or fit again."
        )
    raise DamageError(
        _HEADER,
        f"draws of chain {number} have the log weights {found[0]:.6g} and {found[1]:.6g}, and had {told[0]:.6g} and "
        f"{told[1]:.6g} when it was saved: parts of the folder were changed, or another version of the engine computes "
        "another density",
    )
