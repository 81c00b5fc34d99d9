"""The command line, through typer's runner and in processes of its own."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import arviz_base  # noqa: F401  imported here, so that its warnings are not the commands'
import numpy as np
import pytest
import typer
import xarray as xr
from typer.testing import CliRunner

import avistan as avi
from avistan.cli import app as cli
from avistan.cli import console
from avistan.cli.app import app
from avistan.cli.options import split_methods
from avistan.files import outputs as places
from avistan.model import Model
from avistan.posterior.predict import NewUnitsWarning
from avistan.report import write as files
from avistan.runtime.errors import FitError

SCHOOLS = avi.models_root() / "eight_schools"
PROGRAM, DATA = SCHOOLS / "eight_schools.stan", SCHOOLS / "data.json"
QUICK = ["--steps", "20", "--elbo-draws", "200", "--draws", "50"]
NO_JAX = [
    "jax",
    "equinox",
    "optax",
    "matplotlib",
    "xarray",
    "arviz_base",
    "arviz_stats",
    "scipy",
    "pandas",
    "numpy",
    "stanli",
]

LEVEL_KEYS = {"name", "units", "latents", "block", "inputs", "data_inputs", "sliceable"}
INSPECT_KEYS = {
    "engine",
    "program",
    "unconstrained_dim",
    "verdict",
    "reason",
    "level",
    "levels",
    "globals",
    "certificate",
}
PROBE_KEYS = {"probe", "holds", "statistic", "tolerance", "evaluations"}
COMPARE_KEYS = {"program", "units", "unconstrained_dim", "seed", "reference", "methods"}
FIT_KEYS = {
    "engine",
    "program",
    "method",
    "verdict",
    "reason",
    "outcome",
    "elbo",
    "elbo_se",
    "seconds",
    "seconds_compile",
    "steps",
    "gradient_evaluations",
    "variational_parameters",
    "khat",
    "output",
}
ROW_KEYS = {
    "method",
    "outcome",
    "elbo",
    "elbo_se",
    "gap_to_fvi",
    "gap_se",
    "seconds",
    "seconds_compile",
    "steps",
    "gradient_evaluations",
    "variational_parameters",
    "khat",
    "reference_mean_error",
    "reference_sd_ratio",
}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_process(*arguments, code="from avistan.cli.app import main; main()", cwd=None):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


def strict_json(text):
    """Exactly one object, without the NaN and Infinity that Python's parser lets pass."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def assert_refused(result, *helpful):
    """One message on standard error, nothing on standard output, exit status 2."""
    status = result.exit_code if hasattr(result, "exit_code") else result.returncode
    assert status == 2, (status, result.stdout, result.stderr)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.lower().startswith("error:")]) == 1
    for words in helpful:
        assert words in result.stderr


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder of a short A-VI fit, and what the command printed."""
    folder = tmp_path_factory.mktemp("fitted") / "fit"
    return folder, run("fit", PROGRAM, DATA, "--seed", 3, "--output", folder, *QUICK, "--json")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a short comparison in a process of its own, and what the command printed."""
    folder = tmp_path_factory.mktemp("compared") / "deep" / "report"
    reference = ["--reference", "nuts", "--reference-warmup", 100, "--reference-draws", 100]
    return folder, run_process("compare", PROGRAM, DATA, "--output", folder, *reference, *QUICK, "--json")


# ---- Answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["fit", "--help"],
        ["--version"],
        ["models"],
        ["models", "lsat_2pl"],
        ["fit", "--no-such-option"],
        ["fitt"],
        ["fit", "no.stan", "--output", "new"],
        ["fit", PROGRAM, "no.json", "--output", "new"],
        ["fit", PROGRAM, DATA, "--output", "new", "--method", "avii"],
        ["inspect", "no.stan"],
        ["compare", PROGRAM, "no.json", "--output", "new"],
        ["sbc", "no.stan", "no.stan", "--output", "new"],
        ["diagnose", "no_fit"],
        ["posterior", "no_fit"],
        ["predict", "no_fit", DATA, "--output", "new.nc"],
        [],
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_help_models_and_usage_errors_never_load_jax(arguments):
    code = (
        "import sys\nfrom avistan.cli.app import main\ntry:\n    main()\nfinally:\n"
        f"    sys.stderr.write(str([name for name in {NO_JAX} if name in sys.modules]))"
    )
    assert run_process(*arguments, code=code).stderr.endswith("[]")


def test_inspect_prints_one_json_object_with_the_promised_keys():
    result = run_process("inspect", PROGRAM, DATA, "--json")
    assert result.returncode == 0, result.stderr
    structure = strict_json(result.stdout)
    assert structure.keys() >= INSPECT_KEYS
    assert structure["verdict"] == "closable"
    assert structure["level"].keys() >= LEVEL_KEYS
    assert structure["level"]["name"] == "J"
    assert structure["level"]["units"] == 8
    assert structure["level"]["latents"] == ["theta_raw"]
    assert structure["globals"] == ["mu", "tau"]
    assert structure["levels"]
    assert all(level.keys() >= LEVEL_KEYS | {"separable", "chosen"} for level in structure["levels"])
    assert structure["certificate"]
    assert all(probe.keys() >= PROBE_KEYS for probe in structure["certificate"])


def test_inspect_without_json_prints_what_python_prints():
    result = run("inspect", PROGRAM, DATA)
    assert result.stdout == f"{Model(PROGRAM, data=DATA).inspect()}\n"


def test_fit_prints_a_summary_and_writes_a_fit_that_loads(fitted):
    folder, result = fitted
    assert result.exit_code == 0, result.stderr
    summary = strict_json(result.stdout)
    assert summary.keys() >= FIT_KEYS
    assert summary["method"] == "avi"
    assert summary["verdict"] == "closable"
    assert summary["steps"] == 20
    assert summary["output"] == str(folder)
    loaded = avi.load(folder)
    assert loaded.elbo == summary["elbo"]
    assert loaded.seed == 3


def test_the_posterior_of_a_fit_is_netcdf_that_xarray_and_arviz_read(fitted):
    folder, _ = fitted
    tree = xr.open_datatree(folder / "posterior.nc")
    assert tree["posterior"].sizes["draw"] == 50
    assert tree["posterior"]["theta_raw"].dims == ("chain", "draw", "J")
    assert set(tree.children) >= {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "observed_data",
        "constant_data",
    }
    assert tree.attrs["seed"] == 3
    assert tree.attrs["method"] == "avi"
    expected = avi.load(folder).posterior(50)
    np.testing.assert_array_equal(tree["posterior"]["mu"], expected["posterior"]["mu"])
    tree.close()


def test_a_fit_replaces_an_earlier_fit_in_the_same_place(tmp_path):
    for seed in (1, 2):
        result = run(
            "fit",
            PROGRAM,
            DATA,
            "--method",
            "fvi",
            "--seed",
            seed,
            "--output",
            tmp_path / "fit",
            *QUICK,
        )
        assert result.exit_code == 0, result.stderr
    assert avi.load(tmp_path / "fit").seed == 2
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]


def test_data_of_no_units_are_fitted_by_free_factors_with_the_reason(tmp_path):
    data = tmp_path / "none.json"
    data.write_text('{"J": 0, "y": [], "sigma": []}')
    result = run("fit", PROGRAM, data, "--output", tmp_path / "fit", *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    summary = strict_json(result.stdout)
    assert summary["method"].partition(":")[0] == "fvi"
    assert summary["verdict"] == "nothing-to-amortize"
    assert summary["units"] == 0
    tree = xr.open_datatree(tmp_path / "fit" / "posterior.nc").load()
    assert tree["posterior"]["theta"].shape == (1, 50, 0)


def test_predict_writes_the_latents_of_new_units(fitted, tmp_path):
    folder, _ = fitted
    new = tmp_path / "new.json"
    new.write_text('{"J": 3, "y": [30, 0, -30], "sigma": [5, 5, 5]}')
    result = run(
        "predict", folder, new, "--output", tmp_path / "new.nc", "--draws", 40, "--seed", 5, "--json"
    )
    assert result.exit_code == 0, result.stderr
    summary = strict_json(result.stdout)
    assert summary["units"] == 3
    assert summary["draws"] == 40
    tree = xr.open_datatree(tmp_path / "new.nc").load()
    assert tree["predictions"]["theta_raw"].shape == (1, 40, 3)
    assert "lie far from the fitted units" in result.stderr
    with pytest.warns(NewUnitsWarning, match="unit 3 is the worst"):
        expected = avi.load(folder).predict(new, 40, seed=5)
    np.testing.assert_array_equal(tree["predictions"]["theta_raw"], expected["predictions"]["theta_raw"])


def test_compare_prints_one_json_object_with_the_promised_keys(compared):
    _, result = compared
    assert result.returncode == 0, result.stderr
    comparison = strict_json(result.stdout)
    assert comparison.keys() >= COMPARE_KEYS
    assert comparison["reference"] == "nuts"
    assert [row["method"] for row in comparison["methods"]] == ["auto", "avi", "fvi", "constant"]
    for row in comparison["methods"]:
        assert row.keys() >= ROW_KEYS
        assert isinstance(row["elbo"], float)
        assert isinstance(row["reference_mean_error"], float)
    for row in comparison["methods"][1:]:  # `auto` may train richer families too
        assert row["steps"] == 20
        assert row["gradient_evaluations"] == 160
    assert comparison["methods"][2]["gap_to_fvi"] == 0


def test_compare_writes_a_whole_report(compared):
    folder, result = compared
    assert {path.name for path in folder.iterdir()} == set(files.REPORT)
    assert json.loads((folder / "comparison.json").read_text()) == strict_json(result.stdout)
    for name in files.PICTURES:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    tree = xr.open_datatree(folder / "posterior.nc")
    assert tree.attrs["method"] == "avi"
    tree.close()
    assert [path.name for path in folder.parent.iterdir()] == ["report"]


def test_compare_takes_the_first_row_with_a_fit_where_no_method_is_amortized(tmp_path):
    result = run("compare", PROGRAM, DATA, "--methods", "constant", "--output", tmp_path / "report", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert "constant" in result.stdout
    tree = xr.open_datatree(tmp_path / "report" / "posterior.nc")
    assert tree.attrs["method"] == "constant"
    tree.close()


def test_models_lists_every_example_and_says_what_it_is():
    result = run("models")
    for folder in (path for path in avi.models_root().iterdir() if path.is_dir()):
        assert folder.name in result.stdout
    assert "Counts in 400 groups" in result.stdout


def test_models_with_a_name_prints_paths_of_files_that_exist_one_a_line():
    paths = [Path(line) for line in run("models", "lsat_2pl").stdout.splitlines()]
    assert [path.name for path in paths[:2]] == ["lsat_2pl.stan", "data.json"]
    assert all(path.is_absolute() and path.is_file() for path in paths)
    assert "new_persons.json" in [path.name for path in paths]
    listed = strict_json(run("models", "lsat_2pl", "--json").stdout)["models"]
    assert listed[0]["files"] == [str(path) for path in paths]


def test_an_unknown_example_is_answered_with_the_nearest():
    assert_refused(run("models", "eight_school"), "'eight_school'", "Did you mean 'eight_schools'?")


def test_the_version_is_printed():
    assert run("--version").stdout == f"avistan {avi.__version__}\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("avi,fvi,constant", ["avi", "fvi", "constant"]),
        ("avi:data(x,y), fvi:full", ["avi:data(x,y)", "fvi:full"]),
        ("avi:mlp(8):data(x, y):full", ["avi:mlp(8):data(x, y):full"]),
    ],
)
def test_methods_are_split_at_commas_outside_parentheses(text, names):
    assert split_methods(text) == names


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_every_option_of_a_fit_is_on_the_command_line_with_its_default_shown(command):
    parameters = {
        parameter.name: parameter for parameter in typer.main.get_command(app).commands[command].params
    }
    for field in fields(avi.FitOptions):
        assert parameters[field.name].default is None
        shown = "until it no longer pays" if field.name == "steps" else str(field.default)
        assert parameters[field.name].show_default == shown


def test_only_the_answer_reaches_standard_output(capfd):
    @console.answers
    def noisy():
        os.write(1, b"from a library\n")
        print("from Python")
        return "answer"

    noisy()
    printed = capfd.readouterr()
    assert printed.out == "answer\n"
    assert "from a library" in printed.err
    assert "from Python" in printed.err


# ---- Bad input ---------------------------------------------------------------------------------------------


BAD_DATA = {
    "missing name": (
        {"J": 2, "Y": [1, 2], "sigma": [1, 1]},
        ["`y`", "did you mean `Y`", "eight_schools.stan:4"],
    ),
    "wrong shape": ({"J": 3, "y": [1, 2], "sigma": [1, 1, 1]}, ["`y`", "J = 3"]),
    "not an integer": ({"J": 2.5, "y": [1, 2], "sigma": [1, 1]}, ["`J`", "2.5"]),
    "NaN": ({"J": 2, "y": [1, "NaN"], "sigma": [1, 1]}, ["`y`", "NaN"]),
    "out of bounds": ({"J": 2, "y": [1, 2], "sigma": [1, -1]}, ["`sigma`", "-1"]),
}


@pytest.mark.parametrize(("values", "helpful"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_are_refused_and_nothing_is_written(values, helpful, tmp_path):
    data = tmp_path / "bad.json"
    data.write_text(json.dumps(values))
    assert_refused(run("fit", PROGRAM, data, "--output", tmp_path / "fit", *QUICK), *helpful)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.json"]


BAD_CALLS = {
    "missing data file": (["inspect", PROGRAM, "no_such.json"], ["no_such.json"]),
    "no data file": (["inspect", PROGRAM], ["`J`", "a file after the program"]),
    "nearly the data file": (["inspect", PROGRAM, SCHOOLS / "dat.json"], ["Did you mean", "data.json"]),
    "a program as data": (
        ["inspect", PROGRAM, PROGRAM],
        ["eight_schools.stan is a Stan program", "then its data"],
    ),
    "missing program": (["inspect", "no_such.stan", DATA], ["no_such.stan"]),
    "unknown level": (["inspect", PROGRAM, DATA, "--level", "K"], ["'K'", "J (theta_raw)"]),
    "unknown engine": (["inspect", PROGRAM, DATA, "--engine", "cmdstan"], ["'cmdstan'", "stanli"]),
    "unknown method": (["fit", PROGRAM, DATA, "--output", "out", "--method", "avy"], ["Did you mean 'avi'"]),
    "bad part of a method": (
        ["fit", PROGRAM, DATA, "--output", "out", "--method", "avi:mpl(3)"],
        ["mlp(WIDTH)"],
    ),
    "value out of range": (
        ["fit", PROGRAM, DATA, "--output", "out", "--learning-rate", "-1"],
        ["learning_rate"],
    ),
    "unknown estimator": (
        ["fit", PROGRAM, DATA, "--output", "out", "--estimator", "x"],
        ["--estimator", "entropy"],
    ),
    "unknown option": (["fit", PROGRAM, DATA, "--output", "out", "--step", "3"], ["--steps"]),
    "option of a wrong type": (
        ["fit", PROGRAM, DATA, "--output", "out", "--steps", "many"],
        ["--steps", "integer"],
    ),
    "nothing to resume named": (["fit", PROGRAM, DATA, "--resume"], ["--output"]),
    "unknown command": (["infer", PROGRAM, DATA], ["infer"]),
    "unknown reference": (["compare", PROGRAM, DATA, "--output", "out", "--reference", "nut"], ["'nuts'"]),
    "empty method name": (
        ["compare", PROGRAM, DATA, "--output", "out", "--methods", "avi,,fvi"],
        ["empty name"],
    ),
    "one unknown among methods": (
        ["compare", PROGRAM, DATA, "--output", "out", "--methods", "avi,fv"],
        ["'fvi'"],
    ),
    "no saved fit": (["predict", SCHOOLS, DATA, "--output", "out"], ["not a saved fit"]),
    "output below a file": (
        ["fit", PROGRAM, DATA, "--output", "mine/notes.txt/fit"],
        ["can't write", "notes.txt"],
    ),
    "output is a file": (["fit", PROGRAM, DATA, "--output", "mine/notes.txt"], ["is a file"]),
    "output with other files": (
        ["fit", PROGRAM, DATA, "--output", "mine"],
        ["holds other files", "notes.txt"],
    ),
    "report with other files": (["compare", PROGRAM, DATA, "--output", "mine"], ["holds other files"]),
    "output is this folder": (["fit", PROGRAM, DATA, "--output", "."], ["while working in it"]),
}


@pytest.mark.parametrize(("arguments", "helpful"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_is_refused_and_nothing_is_written(arguments, helpful, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*arguments), *helpful)
    assert list(tmp_path.rglob("*")) == [mine, mine / "notes.txt"]
    assert (mine / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("model { target += 1; }", "no parameters with free values"),
        ("parameters { real x; } model { target += x; }", "is improper"),
    ],
    ids=["no parameters", "improper"],
)
def test_a_program_that_cannot_be_fitted_is_not_told_to_resume_a_checkpoint_beside_it(code, reason, tmp_path):
    program, output = tmp_path / "a.stan", tmp_path / "fit"
    program.write_text(code)
    (tmp_path / "fit.checkpoint" / "chain-0" / "25").mkdir(parents=True)
    result = run("fit", str(program), "--output", str(output))
    assert_refused(result, reason)
    assert "--resume" not in result.stderr
    program.write_text("parameters { real x; } model { x ~ normal(0, 1); }")
    assert_refused(run("fit", str(program), "--output", str(output)), "--resume")


def test_a_malformed_program_is_refused_with_file_line_and_column(tmp_path):
    program = tmp_path / "broken.stan"
    program.write_text("data {\n  int N\n}\n")
    assert_refused(run("inspect", program, DATA), f"{program}:3:1")


def test_bad_input_in_a_process_of_its_own_leaves_standard_output_empty(tmp_path):
    result = run_process("fit", PROGRAM, "no_such.json", "--output", "out", "--json", cwd=tmp_path)
    assert_refused(result, "no_such.json")
    assert list(tmp_path.iterdir()) == []


def test_extra_names_are_one_warning_on_standard_error(tmp_path):
    data = tmp_path / "extra.json"
    data.write_text(json.dumps(json.loads(DATA.read_text()) | {"tua": 1}))
    result = run_process("inspect", PROGRAM, data, "--json")
    assert result.returncode == 0
    assert strict_json(result.stdout)["program"] == "eight_schools"
    warnings = [line for line in result.stderr.splitlines() if line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: ")
    assert "`tua`" in warnings[0]


def test_predict_from_a_free_factor_fit_is_refused_with_the_way_out(tmp_path):
    fitted = run("fit", PROGRAM, DATA, "--method", "fvi", "--output", tmp_path / "fit", *QUICK)
    assert fitted.exit_code == 0
    result = run("predict", tmp_path / "fit", DATA, "--output", tmp_path / "new.nc")
    assert_refused(result, "avi")
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]


def test_predict_refuses_bad_new_data_and_writes_nothing(fitted, tmp_path):
    new = tmp_path / "new.json"
    new.write_text('{"J": 2, "y": [1, 2]}')
    assert_refused(run("predict", fitted[0], new, "--output", tmp_path / "new.nc"), "`sigma`")
    assert [path.name for path in tmp_path.iterdir()] == ["new.json"]


def test_a_comparison_without_any_fit_is_an_error_with_the_reasons(tmp_path):
    result = run(
        "compare", PROGRAM, DATA, "--methods", "avi:data(x)", "--output", tmp_path / "report", *QUICK
    )
    assert_refused(result, "avi:data(x)", "every method failed")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_no_half_written_report(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("avistan.report.figures.save", full)
    result = run("compare", PROGRAM, DATA, "--methods", "fvi", "--output", tmp_path / "report", *QUICK)
    assert_refused(result, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_with_a_message_and_status_130(tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "fit", interrupt)
    result = run("fit", PROGRAM, DATA, "--output", tmp_path / "fit")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert list(tmp_path.iterdir()) == []


# ---- Places ------------------------------------------------------------------------------------------------


def test_a_folder_is_replaced_whole_only_if_it_holds_nothing_else(tmp_path):
    place = tmp_path / "out"
    with places.whole_folder(place, ["a"]) as folder:
        (folder / "a").write_text("1")
    with places.whole_folder(place, ["a"]) as folder:
        (folder / "a").write_text("2")
    assert (place / "a").read_text() == "2"
    (place / "notes").write_text("mine")
    with pytest.raises(FitError, match="holds other files"), places.whole_folder(place, ["a"]):
        pass
    assert (place / "notes").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_block_that_fails_leaves_the_earlier_folder_and_file_as_they_were(tmp_path):
    folder, file = tmp_path / "out", tmp_path / "new.nc"
    folder.mkdir()
    (folder / "a").write_text("1")
    file.write_text("1")
    with contextlib.suppress(RuntimeError), places.whole_folder(folder, ["a"]) as place:
        (place / "a").write_text("2")
        raise RuntimeError
    with contextlib.suppress(RuntimeError), places.whole_file(file) as place:
        place.write_text("2")
        raise RuntimeError
    assert (folder / "a").read_text() == "1"
    assert file.read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.nc", "out"]


def test_netcdf_keeps_attributes_and_carries_booleans_and_complex_numbers(tmp_path):
    values = np.array([[1 + 2j, 3 - 4j]])
    posterior = xr.Dataset(
        {"c": (("chain", "draw"), values), "flag": (("chain", "draw"), np.array([[True, False]]))},
        attrs={"sample_dims": ["chain", "draw"]},
    )
    tree = xr.DataTree.from_dict({"/posterior": posterior})
    tree.attrs = {"done": True, "note": None, "elbo": 1.5}
    files.write_netcdf(tree, tmp_path / "x.nc")
    back = xr.open_datatree(tmp_path / "x.nc").load()
    assert dict(back.attrs) == {"done": 1, "note": "", "elbo": 1.5}
    assert back["posterior"].attrs["sample_dims"] == ["chain", "draw"]
    np.testing.assert_array_equal(back["posterior"]["flag"], [[1, 0]])
    np.testing.assert_array_equal(back["posterior"]["c"].sel(part="imag"), values.imag)


def test_the_entry_point_is_the_command_line():
    assert callable(cli.main)
    result = run_process("--version", code="import runpy; runpy.run_module('avistan', run_name='__main__')")
    assert result.stdout.startswith("avistan ")


def test_modernize_prints_an_old_program_in_todays_syntax(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "data.stan").write_text("int y[2]; # counts\n")
    program = tmp_path / "old.stan"
    program.write_text(
        "data {\n#include /data.stan\n}\nparameters { real x; }\nmodel { y ~ poisson(fabs(x)); }\n"
    )
    done = CliRunner().invoke(app, ["modernize", str(program), "--include-path", str(tmp_path / "lib")])
    assert done.exit_code == 0
    assert done.stdout == (
        "data {\narray[2] int y; // counts\n\n}\nparameters { real x; }\nmodel { y ~ poisson(abs(x)); }\n"
    )


def test_modernize_says_where_it_can_not(tmp_path):
    program = tmp_path / "old.stan"
    program.write_text("parameters { real x; }\nmodel { lp__ <- x; }\n")
    done = CliRunner().invoke(app, ["modernize", str(program)])
    assert done.exit_code == 2
    assert "old.stan:2:9: `lp__` can't be set" in " ".join(done.stderr.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell):
    """As the shells' own functions ask, which `avistan --install-completion` installs."""
    asked = {
        "_AVISTAN_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "avistan dia",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "avistan dia",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    command = [sys.executable, "-m", "avistan"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert "diagnose" in done.stdout
    assert "inspect" not in done.stdout
