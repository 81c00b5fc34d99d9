"""`avistan summary` on a small fit."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from avistan.cli.app import app
from small_fits import saved_schools


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_schools(tmp_path_factory.mktemp("summary") / "fit", 200)


def run(*arguments):
    return CliRunner().invoke(app, ["summary", *map(str, arguments)])


def test_globals_are_printed_and_units_on_demand(folder):
    said = run(folder)
    assert said.exit_code == 0
    assert "mu" in said.stdout
    assert "theta[3]" not in said.stdout
    assert "8 units of J" in said.stdout
    assert "theta[3]" in run(folder, "--units").stdout


def test_the_draws_are_those_beside_the_fit(folder):
    rows = json.loads(run(folder, "--var", "mu", "--quantile", "0.5", "--json").stdout)["rows"]
    import xarray as xr

    with xr.open_datatree(folder / "posterior.nc", engine="h5netcdf") as tree:
        mu = tree["posterior"]["mu"]
        assert mu.size == 200
        assert rows == [
            {
                "variable": "mu",
                "mean": float(mu.mean()),
                "sd": pytest.approx(float(mu.std(ddof=1))),
                "q50": float(mu.median()),
            }
        ]


def test_the_whole_table_goes_to_a_file(folder, tmp_path):
    said = run(folder, "--units", "--output", tmp_path / "units.csv")
    assert "rows written to" in said.stdout
    table = pd.read_csv(tmp_path / "units.csv", index_col="variable")
    assert table.loc["theta[7]"].notna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--var", "sigma"], "no output 'sigma'"),
        (["--quantile", "95"], "give probabilities"),
        (["--output", "FIT/units.csv"], "would change it"),
        (["--output", "/proc/no/units.csv"], "can't write"),
    ],
)
def test_a_mistake_is_one_message(folder, arguments, message):
    said = run(folder, *(part.replace("FIT", str(folder)) for part in arguments))
    assert said.exit_code == 2
    assert said.stderr.count("error:") == 1
    assert message in said.stderr


def test_a_folder_without_a_fit_is_said(tmp_path):
    said = run(tmp_path)
    assert said.exit_code == 2
    assert "no saved fit" in said.stderr or "not a saved fit" in said.stderr
