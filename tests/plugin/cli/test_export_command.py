"""`avistan export` on a small fit."""

import json

import cmdstanpy
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from avistan.cli.app import app
from small_fits import saved_schools


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_schools(tmp_path_factory.mktemp("export") / "fit", 120)


@pytest.fixture(scope="module")
def mu(folder):
    with xr.open_datatree(folder / "posterior.nc", engine="h5netcdf") as tree:
        return tree["posterior"]["mu"].values


def run(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cmdstan", "csv"),
        ("draws", "d.parquet"),
        ("netcdf", "p.nc"),
        ("zarr", "p.zarr"),
        ("parquet", "units.csv"),
    ],
)
def test_each_format_has_the_draws_beside_the_fit(folder, mu, tmp_path, kind, name):
    place = tmp_path / name
    said = run(folder, "--format", kind, "--output", place)
    assert said.exit_code == 0, said.stderr
    assert f"written to {place}" in said.stdout
    if kind == "cmdstan":
        assert "120 draws of 34 numbers in" in said.stdout
        found = cmdstanpy.from_csv(sorted(map(str, place.iterdir()))).stan_variable("mu")
    elif kind == "draws":
        found = pd.read_parquet(place)["mu"]
    elif kind == "parquet":
        table = pd.read_csv(place)
        assert len(table) == 24
        return
    else:
        with xr.open_datatree(place, engine="zarr" if kind == "zarr" else "h5netcdf") as tree:
            found = tree["posterior"]["mu"].values.ravel()
            assert "log_lik" in tree["log_likelihood"]
    np.testing.assert_array_equal(found, mu.ravel())


def test_new_draws_on_demand(folder, mu, tmp_path):
    said = run(folder, "--draws", 40, "--seed", 9, "--output", tmp_path / "csv", "--json")
    told = json.loads(said.stdout)
    assert told["written"].startswith("40 draws")
    assert told["bytes"] == sum(file.stat().st_size for file in (tmp_path / "csv").iterdir())
    assert not set(cmdstanpy.from_csv(str(tmp_path / "csv")).stan_variable("mu")) & set(mu.ravel())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "FIT/csv"], "would change it"),
        (["--format", "parquet", "--output", "x/units.xlsx"], "ends in .parquet or .csv"),
        (["--format", "netcdf", "--output", "x/posterior"], "ends in .nc"),
        (["--draws", "0", "--output", "x/csv"], "draws"),
        (["--format", "rds", "--output", "x/fit.rds"], "cmdstan"),
    ],
)
def test_a_mistake_is_one_message(folder, tmp_path, arguments, message):
    given = [part.replace("FIT", str(folder)).replace("x/", f"{tmp_path}/") for part in arguments]
    said = run(folder, *given)
    assert said.exit_code == 2
    assert message in said.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_fit_is_said(tmp_path):
    said = run(tmp_path, "--output", tmp_path.parent / "csv")
    assert said.exit_code == 2
    assert "not a saved fit" in said.stderr
