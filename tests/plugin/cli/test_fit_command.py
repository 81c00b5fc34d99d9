"""`avistan fit` without a folder: the answer is printed, and nothing is kept."""

import json

import pytest
from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app

SCHOOLS = avi.models_root() / "eight_schools"
GIVEN = [str(SCHOOLS / "eight_schools.stan"), str(SCHOOLS / "data.json")]
QUICK = ["--method", "avi", "--steps", "300", "--elbo-draws", "200"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["fit", *GIVEN, *arguments])


def test_the_fit_its_diagnosis_and_a_summary_are_printed(here):
    said = run(*QUICK)
    assert said.exit_code in (0, 3)
    assert said.stdout.startswith("avi fit of eight_schools")
    for words in ("avi fit of eight_schools: ", "hold: ", "q95", "8 units of J", "Nothing was written"):
        assert words in said.stdout
    assert not list(here.iterdir())


def test_json_has_the_keys_of_a_fit_that_is_kept(here):
    told = json.loads(run(*QUICK, "--json").stdout)
    assert told["output"] is None
    assert {"program", "verdict", "elbo", "diagnosis", "steps"} <= told.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume goes on from what an earlier fit left: give its --output"),
        (["--method", "avy"], "avy"),
        (["--must-hold", "theta_rw", *QUICK], "theta_rw"),
    ],
)
def test_a_mistake_is_one_message(here, arguments, message):
    said = run(*arguments)
    assert said.exit_code == 2
    assert message in said.stderr
    assert said.stdout == ""
