"""A fit is put in place in steps: what interrupts one costs that one alone, and `--resume` does it."""

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app
from avistan.cli.fit_folder import put_diagnosis, read_diagnosis
from avistan.diagnosis import improvement
from avistan.diagnosis.verdict import Check, Diagnosis, Trust, Variable
from avistan.model import Model
from avistan.runtime.errors import FitError
from avistan.training.checkpoints import beside, in_use
from interrupted_fits import InterruptedFits, bytes_that_matter

SCHOOLS = avi.models_root() / "eight_schools"
CALL = [str(SCHOOLS / "eight_schools.stan"), str(SCHOOLS / "data.json")]
OPTIONS = ["--method", "avi", "--steps", "300", "--elbo-draws", "200", "--draws", "50", "--seed", "3"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fit(output, *more):
    return run("fit", *CALL, *OPTIONS, "--output", output, *more)


class Whole:
    """A fit that nothing interrupted: its folder, its bytes and the answer."""

    def __init__(self, folder):
        result = fit(folder, "--json")
        assert result.exit_code == 0, result.stderr
        self.folder, self.bytes, self.answer = folder, bytes_that_matter(folder), json.loads(result.stdout)

    def copy(self, folder, *without):
        shutil.copytree(self.folder, folder)
        for name in without:
            (folder / name).unlink()
        return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Whole(tmp_path_factory.mktemp("whole") / "fit")


def answer(result):
    """A fit's answer without what differs from run to run."""
    found = json.loads(result.stdout) if hasattr(result, "stdout") else dict(result)
    found["diagnosis"] = {name: value for name, value in found["diagnosis"].items() if name != "seconds"}
    return {
        name: value for name, value in found.items() if name not in ("output", "seconds", "seconds_compile")
    }


def no_training(*arguments, **options):
    pytest.fail("what is trained is not trained again")


@pytest.mark.parametrize(
    ("place", "left"),
    [
        ("avistan.diagnosis.improvement.diagnose", set()),
        ("avistan.cli.fit_folder.put_draws", {"diagnosis.json", "diagnosis.npz"}),
        ("avistan.cli.fit_folder.write_netcdf", {"diagnosis.json", "diagnosis.npz"}),
    ],
    ids=["diagnosis", "draws", "writing"],
)
def test_an_interrupted_step_is_the_only_one_to_do_again(place, left, whole, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    output = tmp_path / "fit"
    with monkeypatch.context() as patched:
        patched.setattr(place, interrupted)
        result = fit(output)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert f"The fit itself is in {output}" in result.stderr
    assert set(names(output)) - {"fit.json", "arrays.npz", "program.stan", "data.json"} == left
    assert names(tmp_path) == ["fit"]
    monkeypatch.setattr(Model, "fit", no_training)
    resumed = fit(output, "--resume", "--json")
    assert resumed.exit_code == 0, resumed.stderr
    assert bytes_that_matter(output) == whole.bytes
    assert answer(resumed) == answer(whole.answer)
    assert names(tmp_path) == ["fit"]


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (FitError("no."), 2, "error: no.\nThe fit itself is in"),
        (
            OSError(28, "No space left on device", "x"),
            2,
            "error: x: No space left on device.\nThe fit itself",
        ),
    ],
    ids=["ours", "disk"],
)
def test_an_error_after_training_says_where_the_fit_is(raised, status, words, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise raised

    monkeypatch.setattr(improvement, "diagnose", fails)
    result = fit(tmp_path / "fit")
    assert result.exit_code == status
    assert words in result.stderr
    assert f"`avistan diagnose {tmp_path / 'fit'}`" in result.stderr
    assert avi.load(tmp_path / "fit").seed == 3


def test_the_verbs_make_what_is_missing_and_the_same_of_it(whole, tmp_path, monkeypatch):
    output = whole.copy(tmp_path / "fit", "diagnosis.json", "diagnosis.npz", "posterior.nc")
    monkeypatch.setattr(Model, "fit", no_training)
    early = run("posterior", output, "--draws", 50, "--json")
    assert early.exit_code == 0, early.stderr
    assert json.loads(early.stdout)["trusted"] is None
    with xr.open_datatree(output / "posterior.nc") as tree:
        assert "trusted" not in tree.attrs  # nothing has judged them
    found = run("diagnose", output, "--json")
    assert found.exit_code in (0, 3)
    assert found.exit_code == (0 if whole.answer["diagnosis"]["passed"] else 3)
    told = json.loads(found.stdout)
    assert told.pop("output") == str(output)
    assert answer({"diagnosis": told}) == answer({"diagnosis": whole.answer["diagnosis"]})
    drawn = run("posterior", output, "--draws", 50, "--json")
    assert drawn.exit_code == 0, drawn.stderr
    assert json.loads(drawn.stdout)["written"] == str(output / "posterior.nc")
    assert bytes_that_matter(output) == whole.bytes
    (output / "notes.txt").write_text("mine")  # no reason to refuse
    monkeypatch.chdir(output)
    again = run("posterior", ".", "--draws", 20, "--seed", 9)
    assert again.exit_code == 0, again.stderr
    with xr.open_datatree(output / "posterior.nc") as tree:
        assert tree["posterior"].sizes["draw"] == 20
        assert tree.attrs["seed"] == 9
    assert names(tmp_path) == ["fit"]


def test_resuming_a_complete_fit_says_so_and_fits_nothing(whole, tmp_path, monkeypatch):
    output = whole.copy(tmp_path / "fit")
    before = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    monkeypatch.setattr(Model, "fit", no_training)
    monkeypatch.setattr(improvement, "diagnose", no_training)
    result = fit(output, "--resume", "--json")
    assert result.exit_code == 0, result.stderr
    assert f"{output} is complete: nothing was left to do." in result.stderr
    assert answer(result) == answer(whole.answer)
    assert {path.name: path.stat().st_mtime_ns for path in output.iterdir()} == before


def test_resuming_another_fit_is_refused_with_the_difference(whole, tmp_path, monkeypatch):
    output, other = whole.copy(tmp_path / "fit"), tmp_path / "other.json"
    other.write_text((SCHOOLS / "data.json").read_text().replace("28", "29"))
    monkeypatch.setattr(Model, "fit", no_training)
    for call, words in [
        ([*CALL, *OPTIONS, "--seed", "4"], "seed: 3 in that fit, 4 now"),
        ([*CALL, *OPTIONS, "--steps", "301"], "options steps: 300 in that fit, 301 now"),
        ([CALL[0], other, *OPTIONS], "data y: "),
        ([SCHOOLS / "eight_schools_centered.stan", CALL[1], *OPTIONS], "program: "),
    ]:
        result = run("fit", *call, "--output", output, "--resume")
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stderr.count(" in that fit, ") == 1
        assert "fit without --resume to replace it" in result.stderr
    avi.load(output).save(output)
    assert "does not say how it was asked for" in fit(output, "--resume").stderr


# A mode with 0.001 of the mass at 0.3, where quick fits begin, and one with the rest at -1.5.
LESSER_MODE = """
parameters { real x; }
model { target += log_mix(0.001, normal_lpdf(x | 0.3, 0.1), normal_lpdf(x | -1.5, 0.1)); }
"""


@pytest.mark.parametrize("step", ["another diagnosis", "training from a better optimum"])
def test_going_on_from_a_better_optimum_goes_on_itself(step, tmp_path, monkeypatch):
    program = tmp_path / "modes.stan"
    program.write_text(LESSER_MODE)
    call = ["fit", program, "--steps", "1000", "--draws", "50", "--json"]
    expected = run(*call, "--output", tmp_path / "whole")
    assert expected.exit_code == 0, expected.stderr
    assert [made["taken"] for made in json.loads(expected.stdout)["improvement"]] == [True]
    diagnose, diagnosed = improvement.diagnose, []

    def second_interrupted(fit, **options):
        diagnosed.append(fit)
        if len(diagnosed) == 2:
            raise KeyboardInterrupt
        return diagnose(fit, **options)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    output = tmp_path / "fit"
    with monkeypatch.context() as patched:
        if step == "another diagnosis":
            patched.setattr(improvement, "diagnose", second_interrupted)
        else:
            patched.setattr("avistan.diagnosis.improvement._trained_from", interrupted)
        assert run(*call, "--output", output).exit_code == 130
    better = json.loads(expected.stdout)["elbo"]
    assert (avi.load(output).elbo == better) is (step == "another diagnosis")
    monkeypatch.setattr(Model, "fit", no_training)
    resumed = run(*call, "--output", output, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert answer(resumed) == answer(expected)
    assert bytes_that_matter(output) == bytes_that_matter(tmp_path / "whole")


def test_a_new_fit_takes_the_place_of_everything_that_belonged_to_the_older_one(whole, tmp_path, monkeypatch):
    output = whole.copy(tmp_path / "fit")
    monkeypatch.setattr(improvement, "diagnose", lambda fit: (_ for _ in ()).throw(KeyboardInterrupt))
    assert fit(output, "--seed", 4).exit_code == 130
    assert avi.load(output).seed == 4
    assert not {"diagnosis.json", "diagnosis.npz", "posterior.nc"} & set(names(output))


def test_a_second_fit_to_one_place_is_refused_at_the_start_and_told_who_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "__init__", no_training)
    output = tmp_path / "fit"
    with in_use(beside(output)):
        result = fit(output)
    assert result.exit_code == 2
    assert f"in use by a fit that is still running: process {os.getpid()} on " in result.stderr
    assert names(tmp_path) == []


# ---- Diagnoses as files ------------------------------------------------------------------------------------

FAILED = Check(
    name="globals",
    passed=False,
    finding="Off.",
    value=2.0,
    threshold=1.5,
    unit="sds",
    trouble=Trust.globals_misfit,
)
PASSED = Check(name="units", passed=True, finding="Fine.", trouble=Trust.units_misfit)


def diagnosis(*checks):
    units = {"conditional_error": np.array([0.25, np.nan, 0.75])}
    variables = (
        Variable(name="mu", holds=True, error=0.02),
        Variable(name="tau", holds=False, error=np.inf),
    )
    return Diagnosis(
        program="p", method="avi", checks=checks, units=units, variables=variables, level="J", seconds=1.5
    )


def test_a_diagnosis_reads_back_as_it_was_written(tmp_path, monkeypatch):
    for name in ("record_file", "forget_file"):  # there is no fit
        monkeypatch.setattr(f"avistan.cli.fit_folder.{name}", lambda folder, name: None)
    monkeypatch.setattr("avistan.cli.fit_folder.is_as_recorded", lambda folder, name: True)
    one = diagnosis(FAILED, PASSED)
    put_diagnosis(one, tmp_path)
    other = read_diagnosis(tmp_path)
    assert other.to_json() == one.to_json()
    assert str(other) == str(one)
    np.testing.assert_array_equal(other.units["conditional_error"], one.units["conditional_error"])
    (tmp_path / "diagnosis.json").write_text("{}")
    assert read_diagnosis(tmp_path) is None


# ---- Draws and their marks ---------------------------------------------------------------------------------


@pytest.fixture
def doubted(whole, tmp_path, monkeypatch):
    """A fit without a diagnosis and draws, of which every diagnosis finds that `mu` holds and `tau` does not."""
    found = replace(diagnosis(FAILED), units={"conditional_error": np.zeros(8)})
    monkeypatch.setattr(improvement, "diagnose", lambda fit, **options: found)
    monkeypatch.setattr("avistan.diagnosis.checks.diagnose", lambda fit, **options: found)
    monkeypatch.setattr(Model, "fit", no_training)
    return whole.copy(tmp_path / "fit", "diagnosis.json", "diagnosis.npz", "posterior.nc")


def marks(folder):
    with xr.open_datatree(folder / "posterior.nc") as tree:
        return {name: tree.attrs[name] for name in ("trusted", "not_holding") if name in tree.attrs}


def test_draws_that_do_not_hold_are_written_and_marked_with_status_3(doubted):
    result = fit(doubted, "--resume")
    assert result.exit_code == 3, result.stderr
    assert "hold: mu" in result.stdout
    assert "do not hold: tau" in result.stdout
    assert marks(doubted) == {"trusted": 0, "not_holding": "tau"}
    again = run("posterior", doubted, "--draws", 20, "--json")
    assert again.exit_code == 3
    assert json.loads(again.stdout)["trusted"] is False
    assert marks(doubted) == {"trusted": 0, "not_holding": "tau"}


def test_only_what_must_hold_decides(doubted):
    fine = fit(doubted, "--resume", "--must-hold", "mu")
    assert fine.exit_code == 0, fine.stderr
    assert marks(doubted) == {"trusted": 0, "not_holding": "tau"}
    assert fit(doubted, "--resume", "--must-hold", "mu,tau").exit_code == 3
    assert run("diagnose", doubted, "--must-hold", "mu").exit_code == 0
    assert run("diagnose", doubted, "--must-hold", "tau, mu").exit_code == 3


@pytest.mark.parametrize("name", ["sigma", "theta_raw", "tau,", "mu;tau"])
def test_what_must_hold_is_a_global(name, doubted):
    before = names(doubted)
    for command in (["fit", *CALL, *OPTIONS, "--output", doubted, "--resume"], ["diagnose", doubted]):
        result = run(*command, "--must-hold", name)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "the program's globals are mu, tau" in result.stderr
    assert names(doubted) == before


def test_another_fault_of_a_fit_leaves_nothing_that_holds():
    assert diagnosis(FAILED, PASSED).holds(["mu"])
    assert not diagnosis(FAILED, replace(PASSED, passed=False)).holds(["mu"])


def test_draws_of_q_itself_can_be_asked_for(whole, tmp_path):
    output = whole.copy(tmp_path / "fit")
    result = run("posterior", output, "--draws", 50, "--resample", "none", "--json")
    assert result.exit_code == (0 if whole.answer["diagnosis"]["passed"] else 3)
    assert json.loads(result.stdout)["resample"] == "none"
    expected = avi.load(output).posterior(50, resample="none")
    with xr.open_datatree(output / "posterior.nc") as tree:
        assert tree.attrs["correction"] == "none"
        np.testing.assert_array_equal(tree["posterior"]["mu"], expected["posterior"]["mu"])
        assert "log_q" in tree["sample_stats"]
    assert run("posterior", output, "--resample", "psis").exit_code == 2


SEVERAL_MODES = """
parameters { real x; }
model { target += log_mix(0.5, normal_lpdf(x | -1.5, 0.05), normal_lpdf(x | 1.5, 0.05)); }
"""


def test_a_fit_of_one_mode_of_two_is_kept_and_its_draws_are_marked(tmp_path):
    program = tmp_path / "modes.stan"
    program.write_text(SEVERAL_MODES)
    output = tmp_path / "fit"
    command = ["fit", program, "--method", "fvi", "--steps", 300, "--draws", 50, "--output", output, "--json"]
    refused = run(*command)
    assert refused.exit_code == 3, refused.stderr
    found = json.loads(refused.stdout)["diagnosis"]
    assert not found["passed"]
    assert found["advice"]
    assert json.loads((output / "diagnosis.json").read_text()) == found
    assert marks(output)["trusted"] == 0
    told = run("posterior", output, "--draws", 50)
    assert told.exit_code == 3
    assert "What to do:" in told.stdout


# ---- Killed ------------------------------------------------------------------------------------------------


MOMENTS = {  # the place that the process waits at, and the file that tells that it is there
    "putting the fit in place": ("fit", ".fit-*"),
    "diagnosis": ("", "fit/fit.json"),
    "numbers of units": ("diagnosis.npz", "fit/.diagnosis.npz-*"),
    "the diagnosis itself": ("diagnosis.json", "fit/.diagnosis.json-*"),
    "draws": ("posterior.nc", "fit/.posterior.nc-*"),
}


@pytest.mark.parametrize(
    "moments",
    [["putting the fit in place", "numbers of units"], pytest.param(list(MOMENTS), marks=pytest.mark.slow)],
    ids=["two", "all"],
)
def test_a_fit_killed_at_steps_after_training_goes_on_to_the_same_bytes(moments, whole, tmp_path):
    fits = InterruptedFits(tmp_path / "fits", [*CALL, *OPTIONS])
    for moment in moments:
        place, pattern = MOMENTS[moment]
        process = fits.start("fit", "--resume", wait_at=place)
        fits.wait_for_file(process, pattern)
        assert fits.stop(process) == -signal.SIGKILL, moment
        if moment == "putting the fit in place":
            assert fits.saves("fit")
        else:
            assert avi.load(fits.output("fit")).seed == 3
    fits.run("fit", "--resume")
    assert bytes_that_matter(fits.output("fit")) == whole.bytes
    assert not [path for path in fits.folder.rglob(".*") if path.is_dir()]
    assert names(fits.folder) == ["fit", "fit.log"]


@pytest.mark.slow
def test_fits_killed_at_twenty_random_moments_lose_nothing_that_was_trained(whole, tmp_path):
    fits = InterruptedFits(tmp_path / "fits", [*CALL, *OPTIONS])
    rng = np.random.default_rng(18)
    seconds, killed, after_training = fits.run("warm-up"), 0, 0
    while killed < 20:
        name = f"fit-{killed}"
        process = fits.start(name)
        if killed % 3 == 0:  # a third of them after training
            fits.wait_for_file(process, f"{name}/fit.json")
            process.join(rng.uniform(0, seconds / 2))
        else:
            process.join(rng.uniform(0, seconds))
        if fits.stop(process) != -signal.SIGKILL:
            shutil.rmtree(fits.output(name))  # it was done before
            continue
        trained = fits.output(name).exists()
        after_training += trained
        killed += 1
        if trained:
            assert avi.load(fits.output(name)).seed == 3
        fits.run(name, "--resume")
        assert bytes_that_matter(fits.output(name)) == whole.bytes
        assert not fits.checkpoint(name).exists()
    assert after_training >= 6
    assert not [path for path in fits.folder.rglob(".*") if path.is_dir()]
