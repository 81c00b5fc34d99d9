"""Interrupted training: killed at random moments and resumed to the same bytes; what does not belong is refused."""

import json
import shutil
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import jax
import numpy as np
import pytest

import avistan as avi
from avistan.density.slots import register
from avistan.family.method import parse_method
from avistan.files.digests import record_digest
from avistan.fitting.options import FitOptions
from avistan.runtime.errors import FitError
from avistan.start.preparation import prepare, start_family
from avistan.training import checkpoint_saves, checkpoints
from avistan.training.checkpoints import (
    Checkpoint,
    CheckpointError,
    CheckpointWarning,
    beside,
    check_checkpoint_place,
    interruptible,
    remove,
)
from avistan.training.fingerprint import describe_fit, differences, digest
from avistan.training.loop import TrainingOptions, train
from avistan.training.steps import Training
from interrupted_fits import InterruptedFits, bytes_that_matter
from programs import bundled, simulator
from stan_adapters.levels.levels import candidate_levels

OPTIONS = TrainingOptions(steps=60, draws_per_step=4, chunk=20)
METHODS = ["fvi", "avi:mlp(8)"]
FIT = {"program": "p", "data": {"y": "1"}, "seed": np.int64(1)}


class Stop(Exception):
    """In place of a kill."""


def begin(model, name="fvi", seed=3):
    (level,) = candidate_levels(model.layout)
    preparation = prepare(model, level, seed=seed, num_references=6, max_rank=4)
    return *start_family(preparation, parse_method(name)), jax.random.key(seed)


def run(model, started, chain=None, options=OPTIONS, stop_after=None):
    """Train; a stop comes when that many steps are done. Everything that must be the same, as bytes."""

    def progress(done, total, elbo):
        if done == stop_after:
            raise Stop

    family, inputs, key = started
    with register(model) as slot:
        family, trace = train(family, inputs, slot.index, options, key, progress, chain)
    leaves = jax.tree.leaves((family.globals, family.inference))
    assert (np.diff(trace.seconds) > 0).all()
    assert len(trace.seconds) == len(trace.chunk_steps)
    return [np.asarray(leaf).tobytes() for leaf in leaves if hasattr(leaf, "dtype")] + [
        trace.elbo.tobytes(),
        trace.num_rejected.tobytes(),
        trace.chunk_steps.tobytes(),
    ]


@pytest.fixture(scope="module")
def whole():
    """Bytes of training without a checkpoint, which is done once for each kind."""
    done = {}

    def train_once(model, name="fvi", seed=3, options=OPTIONS):
        key = (name, seed, options)
        if key not in done:
            done[key] = run(model, begin(model, name, seed), options=options)
        return done[key]

    return train_once


def stopped(model, started, folder, after, fit=FIT, options=OPTIONS, chain=0):
    """A checkpoint of training that stopped after some steps."""
    with Checkpoint(folder, fit, seconds=0) as checkpoint, pytest.raises(Stop):
        run(model, started, checkpoint.chain(chain), options, stop_after=after)
    return folder


def resumed(model, started, folder, fit=FIT, options=OPTIONS, chain=0):
    with Checkpoint(folder, fit, resume=True, seconds=0) as checkpoint:
        return run(model, started, checkpoint.chain(chain), options)


TRAINING = {"training": {"steps": 70}, "start of training": "d"}


def write(folder, *steps, fit=FIT):
    """Saves of made-up arrays, all different, by steps."""
    rng = np.random.default_rng(1)
    arrays = {}
    with Checkpoint(folder, fit, seconds=0) as checkpoint:
        chain = checkpoint.chain()
        assert chain.load(TRAINING) is None
        for step in steps:
            assert chain.due()
            arrays[step] = {
                "state.loc": rng.normal(size=(3, 2)),
                "state.weights": rng.normal(size=5).astype(np.float32),
                "state.below": np.empty((0, 4)),
                "state.key": rng.integers(0, 2**32, 2, dtype=np.uint32),
                "state.step": np.array(step, dtype=np.int32),
                "trace.elbo": np.array([np.nan, -0.0, -np.inf]),
            }
            chain.save(step, arrays[step])
    return arrays


def read(folder, fit=FIT, training=TRAINING):
    with Checkpoint(folder, fit, resume=True) as checkpoint:
        return checkpoint.chain().load(training)


def assert_same(one, two):
    assert list(one) == list(two)
    for name, values in one.items():
        assert values.dtype == two[name].dtype
        assert values.shape == two[name].shape
        assert values.tobytes() == two[name].tobytes()


# --- in processes that are killed ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arguments():
    schools = avi.models_root() / "eight_schools"
    return [
        str(schools / "eight_schools.stan"),
        str(schools / "data.json"),
        *("--steps", "4000", "--elbo-draws", "200", "--draws", "50", "--seed", "3"),
    ]


def kill_and_resume(fits, kills, seed):
    """One fit after another, each killed and resumed until it is whole, until there were so many kills.

    Every other kill comes at a moment drawn over the time that a whole fit takes, from its start to its last file; the
    others come while a save is under way.
    """
    rng = np.random.default_rng(seed)
    fits.run("first")  # which compiles
    seconds = fits.run("whole")
    expected = bytes_that_matter(fits.output("whole"))
    killed = number = went_on = 0
    while killed < kills:
        number += 1
        name, status = f"fit-{number}", -signal.SIGKILL
        while status != 0:
            went_on += bool(fits.saves(name))
            process = fits.start(name, "--resume")
            if killed % 2:
                process.join(rng.uniform(0, seconds))
            else:
                fits.wait_for_saves(process, name, int(rng.integers(1, 7)))
            status = fits.stop(process)
            killed += status == -signal.SIGKILL
            assert status in (0, -signal.SIGKILL), fits.log(name).read_text()
        assert bytes_that_matter(fits.output(name)) == expected
        assert not fits.checkpoint(name).exists()
    return killed, went_on


@pytest.mark.parametrize(
    ("methods", "kills"), [(["fvi"], 2), pytest.param(METHODS, 10, marks=pytest.mark.slow)]
)
def test_fits_killed_at_random_moments_and_resumed_have_the_bytes_of_fits_left_alone(
    arguments, tmp_path, methods, kills
):
    cases = [
        (InterruptedFits(tmp_path / method, [*arguments, "--method", method]), kills, seed)
        for seed, method in enumerate(methods)
    ]
    with ThreadPoolExecutor(len(cases)) as pool:
        results = list(pool.map(lambda case: kill_and_resume(*case), cases))
    assert all(killed >= kills for killed, _ in results)
    assert all(went_on for _, went_on in results)  # not each time from the beginning


def test_ctrl_c_keeps_what_was_saved_and_says_how_to_go_on(arguments, tmp_path):
    fits = InterruptedFits(tmp_path / "fits", [*arguments, "--method", "fvi"])
    process = fits.start("fit")
    fits.wait_for_saves(process, "fit", 3)
    assert fits.stop(process, signal.SIGINT) == 130
    told = fits.log("fit").read_text()
    assert "interrupted:" in told
    assert "--resume" in told
    assert "Traceback" not in told
    assert not fits.output("fit").exists()
    again = fits.start("fit")
    again.join()
    assert again.exitcode == 2
    assert "holds an interrupted fit" in fits.log("fit").read_text()
    fits.run("fit", "--resume")
    fits.run("whole")
    assert bytes_that_matter(fits.output("fit")) == bytes_that_matter(fits.output("whole"))
    with np.load(fits.output("fit") / "arrays.npz") as arrays:
        assert (np.diff(arrays["chain_0_trace_0_seconds"]) > 0).all()


# --- training goes on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_training_stopped_again_and_again_goes_on_to_the_same_bytes(rejecting, tmp_path, whole, name):
    options = replace(OPTIONS, steps=70)
    started, folder = begin(rejecting, name), tmp_path / "fit"
    stopped(rejecting, started, folder, 20, options=options)
    for after in (60, 70):
        with Checkpoint(folder, FIT, resume=True, seconds=0) as checkpoint, pytest.raises(Stop):
            run(rejecting, started, checkpoint.chain(), options, stop_after=after)
    assert resumed(rejecting, started, folder, options=options) == whole(rejecting, name, options=options)


def test_training_that_was_done_is_not_done_again(rejecting, tmp_path, whole, monkeypatch):
    started = begin(rejecting)
    folder = stopped(rejecting, started, tmp_path / "done", 60)
    expected = whole(rejecting)
    monkeypatch.setattr(Training, "compile", lambda self: pytest.fail("nothing is left to compile"))
    assert resumed(rejecting, started, folder) == expected


def test_chains_of_one_fit_are_kept_apart(rejecting, tmp_path, whole):
    first, second = begin(rejecting, seed=3), begin(rejecting, seed=4)
    folder = tmp_path / "chains"
    with Checkpoint(folder, FIT, seconds=0) as checkpoint:
        run(rejecting, first, checkpoint.chain(0))
        with pytest.raises(Stop):
            run(rejecting, second, checkpoint.chain(1), stop_after=40)
    with Checkpoint(folder, FIT, resume=True, seconds=0) as checkpoint:
        assert run(rejecting, first, checkpoint.chain(0)) == whole(rejecting, seed=3)
        assert run(rejecting, second, checkpoint.chain(1)) == whole(rejecting, seed=4)
        with pytest.raises(CheckpointError, match="start of training"):
            run(rejecting, first, checkpoint.chain(1))


def test_a_fit_in_python_goes_on_and_its_checkpoint_stays(eight_schools, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    given = {"method": "fvi", "seed": 2, "steps": 600, "elbo_draws": 100}
    whole = eight_schools.fit(**given)
    folder = tmp_path / "deep" / "checkpoint"
    kept = eight_schools.fit(**given, checkpoint=folder)
    with pytest.raises(CheckpointError, match=r"600 steps.*resume=True"):
        eight_schools.fit(**given, checkpoint=folder)
    again = eight_schools.fit(**given, checkpoint=folder, resume=True)
    for fit in (kept, again):
        assert fit.evaluation.log_weights.tobytes() == whole.evaluation.log_weights.tobytes()
        assert fit.trace.elbo.tobytes() == whole.trace.elbo.tobytes()
    with pytest.raises(CheckpointError, match=r"seed: 2 in the checkpoint, 3 now"):
        eight_schools.fit(**given | {"seed": 3}, checkpoint=folder, resume=True)
    with pytest.raises(FitError, match="give its folder"):
        eight_schools.fit(**given, resume=True)


def test_a_leftover_of_a_killed_save_is_cleared_away(tmp_path):
    folder = tmp_path / "killed"
    arrays = write(folder, 20)
    leftover = folder / "chain-0" / "000000040.partial"
    leftover.mkdir()
    (leftover / "half").write_bytes(b"half")
    assert_same(read(folder), arrays[20])
    assert [path.name for path in sorted((folder / "chain-0").iterdir())] == ["000000020"]


def test_nothing_to_resume_is_told_and_no_error(rejecting, tmp_path, whole):
    started = begin(rejecting)
    with pytest.warns(CheckpointWarning, match="starts from the beginning"):
        assert resumed(rejecting, started, tmp_path / "new") == whole(rejecting)


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"program": "q"}, "program: p in the checkpoint, q now"),
        ({"data": {"y": "2"}}, "data y: 1 in the checkpoint, 2 now"),
        ({"data": {"y": "1", "x": "3"}}, "data x: none in the checkpoint, 3 now"),
        ({"data": {}}, "data y: 1 in the checkpoint, none now"),
        ({"seed": 2}, "seed: 1 in the checkpoint, 2 now"),
    ],
)
def test_another_fit_is_an_error_that_names_the_difference(tmp_path, change, words):
    write(tmp_path / "fit", 20)
    with pytest.raises(CheckpointError, match=words) as error:
        read(tmp_path / "fit", FIT | change)
    assert str(error.value).count(" in the checkpoint, ") == 1
    assert "delete the folder" in str(error.value)


def test_another_training_is_an_error_that_names_the_difference(rejecting, tmp_path):
    started = begin(rejecting, "avi:mlp(8)")
    folder = stopped(rejecting, started, tmp_path / "fit", 20)
    with pytest.raises(CheckpointError, match=r"training learning_rate: 0.02 in the checkpoint, 0.1 now"):
        resumed(rejecting, started, folder, options=replace(OPTIONS, learning_rate=0.1))
    with pytest.raises(CheckpointError, match=r"training chunk: 20 in the checkpoint, 10 now"):
        resumed(rejecting, started, folder, options=replace(OPTIONS, chunk=10))
    family, inputs, key = started
    with pytest.raises(CheckpointError, match="start of training"):
        resumed(rejecting, (family, inputs + 1e-6, key), folder)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (lambda: bundled("eight_schools", program="eight_schools_centered"), {"chains": 2, "steps": 500}),
        (
            lambda: bundled("linear", simulator("linear")(N=9000)),
            {"steps": 2400},
        ),  # minibatches, in rounds of 1000
    ],
    ids=["restarts", "minibatches"],
)
def test_restarts_and_growing_families_go_on_to_the_same_bytes(model, options, tmp_path, monkeypatch):
    model = model()
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 1.0)
    given = {
        "method": "avi:mlp(8)",
        "family": "auto",
        "seed": 2,
        "elbo_draws": 100,
        **options,
    }
    whole = model.fit(**given)
    assert any(step.kept for step in whole.growth)
    plain, done = Training.run, []

    def run(training, state, rates):
        done.append(len(rates))
        if len(done) % 3 == 0:
            raise Stop
        return plain(training, state, rates)

    monkeypatch.setattr(Training, "run", run)
    stops, fit = 0, None
    while fit is None:
        try:
            fit = model.fit(**given, checkpoint=tmp_path / "saves", resume=stops > 0)
        except Stop:
            stops += 1
    assert stops >= 2
    assert fit.growth == whole.growth
    for one, other in zip(fit.chains, whole.chains, strict=True):
        assert one.trace.elbo.tobytes() == other.trace.elbo.tobytes()
        assert one.evaluation.log_weights.tobytes() == other.evaluation.log_weights.tobytes()


def test_all_that_decides_a_fit_is_described(eight_schools, monkeypatch):
    level = eight_schools.inspect().level
    given = {"method": "fvi", "options": asdict(FitOptions()), "seed": 1}
    one = describe_fit(eight_schools.bound, level, **given)
    assert differences(one, describe_fit(eight_schools.bound, level, **given)) == []
    other = bundled("eight_schools", dict(eight_schools.data) | {"y": np.arange(8.0)})
    changes = [
        (describe_fit(other.bound, level, **given), "data y"),
        (describe_fit(eight_schools.bound, None, **given), "level"),
        (describe_fit(eight_schools.bound, level, **given | {"method": "constant"}), "method"),
        (
            describe_fit(
                eight_schools.bound, level, **given | {"options": asdict(FitOptions(draws_per_step=9))}
            ),
            "options draws_per_step",
        ),
        (describe_fit(bundled("lsat_2pl").bound, level, **given), "program"),
    ]
    for found, name in changes:
        assert any(line.strip().startswith(name) for line in differences(one, found)), name
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")
    monkeypatch.setattr("avistan.runtime.versions.__version__", "0")
    found = differences(one, describe_fit(eight_schools.bound, level, **given))
    for name in ("avistan", "jax", "jaxlib", "orbax-checkpoint", "stanli", "numpy"):
        assert any(f"versions {name}:" in line for line in found)


def test_digests_tell_names_types_shapes_and_values_apart():
    values = np.arange(4.0)
    records = [
        {"a": values},
        {"b": values},
        {"a": values.astype(np.float32)},
        {"a": values.reshape(2, 2)},
        {"a": -values},
        {"a": values, "b": np.empty(0)},
        {"a": values, "b": np.empty((0, 2))},
    ]
    assert len({digest(record) for record in records}) == len(records)
    assert digest({"a": np.asfortranarray(np.eye(3))}) == digest({"a": np.eye(3)})


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


DAMAGES = {
    "flipped bit": flip,
    "half of it": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "nothing": lambda file: file.write_bytes(b""),
    "other bytes": lambda file: file.write_bytes(b"\x80" * file.stat().st_size),
    "no file": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_save_is_one_clear_error(tmp_path, damage):
    folder = tmp_path / "fit"
    expected = write(folder, 20, 40)[40]
    save = folder / "chain-0" / "000000040"
    contents = {file: file.read_bytes() for file in save.rglob("*") if file.is_file()}
    assert {file.name for file in contents} > {"header.json", "manifest.ocdbt"}
    for file, content in contents.items():
        damage(file)
        with pytest.raises(
            CheckpointError, match=r"000000040 is damaged.*continue from the save at 20 steps"
        ):
            read(folder)
        file.write_bytes(content)
    assert_same(read(folder), expected)
    (save / "arrays" / "more").write_text("more")
    with pytest.raises(CheckpointError, match=r"1 of .* files changed"):
        read(folder)


def places(header):
    for name in header:
        yield {key: value for key, value in header.items() if key != name}
        for wrong in (None, [], "x", -1, 10**9, {"a": 1}):
            yield header | {name: wrong}
    for kind, shape in (("O", [2]), ("V8", [2]), ("<f8", [10**9, 0]), ("<f8", "x"), ("<f8", [-1]), (1, [1])):
        yield header | {"arrays": {name: [kind, shape] for name in header["arrays"]}}


def test_a_save_that_was_edited_on_purpose_is_one_clear_error_too(rejecting, tmp_path):
    folder = tmp_path / "fit"
    started = begin(rejecting)

    def resumed():
        with Checkpoint(folder, FIT, seconds=0, resume=True) as checkpoint:
            return run(rejecting, started, checkpoint.chain())

    with pytest.raises(Stop), Checkpoint(folder, FIT, seconds=0) as checkpoint:
        run(rejecting, started, checkpoint.chain(), stop_after=40)
    save = max(folder.glob("chain-0/*"))
    kept = (save / "header.json").read_text()
    headers = list(places({name: of for name, of in json.loads(kept).items() if name != "digest"}))
    for header in headers:
        text = json.dumps({"digest": record_digest(header), **header})  # put right by who edits on purpose
        (save / "header.json").write_text(text)
        try:
            resumed()
        except CheckpointError:
            (save / "header.json").write_text(kept)
        else:
            raise AssertionError(str(header)[:300])
    assert len(headers) > 40


def test_a_save_holds_no_links(tmp_path):
    folder = tmp_path / "fit"
    write(folder, 20)
    file = next((folder / "chain-0" / "000000020" / "arrays").rglob("manifest.ocdbt"))
    shutil.move(file, tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="links to files elsewhere"):
        read(folder)


def test_a_damaged_save_can_be_deleted_to_continue_from_the_one_before(tmp_path):
    folder = tmp_path / "fit"
    arrays = write(folder, 20, 40, 60)
    assert sorted(path.name for path in (folder / "chain-0").iterdir()) == ["000000040", "000000060"]
    last = folder / "chain-0" / "000000060"
    (last / "header.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"000000060 is damaged.*continue from the save at 40 steps"):
        read(folder)
    shutil.rmtree(last)
    assert_same(read(folder), arrays[40])


def test_a_save_of_another_format_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "fit"
    monkeypatch.setattr(checkpoint_saves, "FORMAT", 99)
    write(folder, 20)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has format 99"):
        read(folder)


def test_a_checkpoint_in_use_is_refused_to_others(tmp_path):
    folder = tmp_path / "fit"
    write(folder, 20)
    with Checkpoint(folder, FIT, resume=True), pytest.raises(CheckpointError, match="in use"):
        read(folder)
    assert read(folder) is not None


def test_folders_with_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FitError, match=r"other files \(thesis.txt\)"):
        Checkpoint(tmp_path, FIT)
    (tmp_path / "chain-0").mkdir()
    remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("deleted", range(4))
def test_a_checkpoint_whose_removal_was_killed_can_be_resumed(tmp_path, monkeypatch, deleted):
    folder = tmp_path / "fit"
    arrays = write(folder, 20, 40)
    calls = []
    real = shutil.rmtree

    def killed(path, **rest):
        if len(calls) == deleted:
            raise Stop
        calls.append(path)
        real(path, **rest)

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed)
    if deleted < 3:
        with pytest.raises(Stop):
            remove(folder)
    else:
        remove(folder)
    monkeypatch.undo()
    if deleted == 0:
        assert_same(read(folder), arrays[40])
    else:
        with pytest.warns(CheckpointWarning, match="starts from the beginning"):
            assert read(folder) is None
    remove(folder)
    assert not folder.exists()


def test_the_checkpoint_lies_beside_the_output(tmp_path):
    place = beside(tmp_path / "fit")
    assert place == tmp_path / "fit.checkpoint"
    remove(place)
    check_checkpoint_place(place, resume=False)
    assert not place.exists()


# --- saving -------------------------------------------------------------------------------------------------


def test_saves_are_seldom_enough_to_cost_little(tmp_path, monkeypatch):
    clock = [0.0]
    written = []

    def slow(path, about, arrays):
        written.append(clock[0])
        clock[0] += 2.0  # a save takes two seconds

    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoints, "write_save", slow)
    with Checkpoint(tmp_path / "fit", FIT, seconds=5.0) as checkpoint:
        chain = checkpoint.chain()
        assert chain.load({}) is None
        for _ in range(1000):
            clock[0] += 0.5
            if chain.due():
                chain.save(1, {})
        assert written[0] == 5.0
        assert 0.9 * 0.05 < 2.0 * len(written) / clock[0] < 0.05
        assert (np.diff(written) > 2.0 / 0.05).all()


def test_training_that_ended_is_saved_sooner_than_training_under_way(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    with Checkpoint(tmp_path / "fit", FIT, seconds=5.0) as checkpoint:
        chain = checkpoint.chain()
        assert chain.load(TRAINING) is None
        for seconds, ended, under_way in [(0.9, False, False), (1.1, True, False), (5.1, True, True)]:
            clock[0] = seconds
            assert chain.due(finished=True) is ended
            assert chain.due() is under_way


def test_short_fits_write_nothing(rejecting, tmp_path):
    with Checkpoint(tmp_path / "fit", FIT, seconds=60.0) as checkpoint:
        run(rejecting, begin(rejecting), checkpoint.chain())
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_training_goes_on(
    rejecting, tmp_path, whole, monkeypatch
):
    def full(path, about, arrays):
        raise OSError(28, "No space left on device")

    started = begin(rejecting)
    monkeypatch.setattr(checkpoints, "write_save", full)
    with (
        Checkpoint(tmp_path / "fit", FIT, seconds=0) as checkpoint,
        pytest.warns(CheckpointWarning, match="No space left") as told,
    ):
        assert run(rejecting, started, checkpoint.chain()) == whole(rejecting)
    assert len(told) == 1


def test_ctrl_c_waits_for_the_end_of_a_save(rejecting, tmp_path, whole, monkeypatch):
    real = checkpoints.write_save

    def interrupted(path, about, arrays):
        signal.raise_signal(signal.SIGINT)
        real(path, about, arrays)

    started = begin(rejecting)
    monkeypatch.setattr(checkpoints, "write_save", interrupted)
    folder = tmp_path / "fit"
    with (
        pytest.raises(KeyboardInterrupt, match=r"20 steps are kept.*--resume"),
        interruptible(folder),
        Checkpoint(folder, FIT, seconds=0) as checkpoint,
    ):
        run(rejecting, started, checkpoint.chain())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr(checkpoints, "write_save", real)
    assert resumed(rejecting, started, folder) == whole(rejecting)


def test_an_interruption_before_the_first_save_has_no_message(tmp_path):
    with pytest.raises(KeyboardInterrupt) as interrupt, interruptible(tmp_path / "fit"):
        raise KeyboardInterrupt
    assert str(interrupt.value) == ""


def test_ctrl_c_is_not_lost_when_the_save_fails(rejecting, tmp_path, monkeypatch):
    def interrupted(path, about, arrays):
        signal.raise_signal(signal.SIGINT)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_save", interrupted)
    with Checkpoint(tmp_path / "fit", FIT, seconds=0) as checkpoint:
        chain = checkpoint.chain()
        chain.load(TRAINING)
        with pytest.raises(KeyboardInterrupt):
            chain.save(20, {})


def test_training_in_a_thread_is_saved_too(rejecting, tmp_path, whole):
    started = begin(rejecting)
    results = []
    with Checkpoint(tmp_path / "fit", FIT, seconds=0) as checkpoint, jax.enable_x64(True):
        thread = threading.Thread(target=lambda: results.append(run_in_x64(rejecting, started, checkpoint)))
        thread.start()
        thread.join()
    assert results == [whole(rejecting)]
    assert len(list((tmp_path / "fit" / "chain-0").iterdir())) == 2


def run_in_x64(model, started, checkpoint):
    with jax.enable_x64(True), warnings.catch_warnings():
        return run(model, started, checkpoint.chain())
