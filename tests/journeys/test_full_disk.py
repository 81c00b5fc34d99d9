"""A disk without room: one message, what had room is kept, nothing is half-written."""

import json
import subprocess

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app
from avistan.cli.fit_folder import put_draws
from avistan.runtime.errors import FitError
from avistan.training import checkpoints
from avistan.training.checkpoints import Checkpoint, CheckpointWarning
from small_disk import small_disk

SCHOOLS = avi.models_root() / "eight_schools"
CALL = [str(SCHOOLS / "eight_schools.stan"), str(SCHOOLS / "data.json")]
QUICK = ["--method", "avi", "--steps", "40", "--elbo-draws", "200", "--draws", "500"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_one_message(result):
    assert result.exit_code == 2, (result.stdout, result.stderr, result.exception)
    assert result.stdout == ""
    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1
    assert "make room" in result.stderr.lower()


@pytest.mark.parametrize(
    ("kibibytes", "kept"),
    [
        (24, False),
        (60, True),
        (200, True),
        pytest.param(8, False, marks=pytest.mark.slow),
        pytest.param(120, True, marks=pytest.mark.slow),
    ],
)
def test_a_fit_keeps_what_there_was_room_for_and_goes_on_when_there_is_more(kibibytes, kept, tmp_path):
    with small_disk(tmp_path / "disk", kibibytes) as disk:
        result = run("fit", *CALL, *QUICK, "--output", disk / "fit")
        assert_one_message(result)
        assert names(disk) == (["fit"] if kept else [])
        if kept:
            assert f"The fit itself is in {disk / 'fit'}" in result.stderr
            assert np.isfinite(avi.load(disk / "fit").elbo)
            assert not [name for name in names(disk / "fit") if name.startswith(".")]
            assert "posterior.nc" not in names(disk / "fit")
        subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
        again = run("fit", *CALL, *QUICK, "--output", disk / "fit", "--resume", "--json")
        assert again.exit_code == 0, again.stderr
        assert ("there is nothing to resume" in again.stderr) is not kept
        with xr.open_datatree(disk / "fit" / "posterior.nc") as tree:
            assert tree.attrs["elbo"] == json.loads(again.stdout)["elbo"]
        assert names(disk) == ["fit"]


def test_predictions_and_comparisons_write_nothing_without_room(tmp_path):
    fitted = run("fit", *CALL, *QUICK, "--output", tmp_path / "fit")
    assert fitted.exit_code == 0, fitted.stderr
    with small_disk(tmp_path / "disk", 24) as disk:
        for command in (
            ["predict", tmp_path / "fit", CALL[1], "--output", disk / "new.nc", "--draws", "500"],
            ["compare", *CALL, "--methods", "fvi", *QUICK[2:], "--output", disk / "report"],
        ):
            assert_one_message(run(*command))
            assert names(disk) == []


def test_a_store_of_draws_is_refused_where_it_cannot_fit_and_removed_where_it_does_not(tmp_path, monkeypatch):
    fit = avi.Model(*CALL[:1], data=CALL[1]).fit(method="fvi", steps=20, elbo_draws=50)
    monkeypatch.setattr("avistan.posterior.fit_datatree._LARGE", 0)
    fit.save(tmp_path / "fit")
    with small_disk(tmp_path / "disk", 1000) as disk:
        fit.save(disk / "fit")
        with pytest.raises(FitError, match=r"posterior\.zarr takes .* free: make room"):
            put_draws(fit, None, disk / "fit", 100_000)
        with pytest.raises(FitError, match=r"can't write .*posterior\.zarr: No space left on device"):
            put_draws(fit, None, disk / "fit", 5_000)
        assert "posterior.zarr" not in names(disk / "fit")
        assert not [name for name in names(disk / "fit") if name.startswith(".")]
        assert put_draws(fit, None, disk / "fit", 100) == "posterior.zarr"


@pytest.mark.parametrize("known", [True, False], ids=["known before", "met while writing"])
def test_a_checkpoint_without_room_is_one_warning_and_leaves_nothing(known, tmp_path, monkeypatch):
    if not known:
        monkeypatch.setattr("avistan.training.checkpoint_saves._AROUND", -(1 << 20))
    arrays = {"state.loc": np.random.default_rng(0).normal(size=(200, 100))}  # 160 kB
    with small_disk(tmp_path / "disk", 64) as disk:
        with Checkpoint(disk / "fit.checkpoint", {"program": "p"}, seconds=0) as checkpoint:
            chain = checkpoint.chain()
            assert chain.load({}) is None
            with pytest.warns(CheckpointWarning, match="No space left on device") as told:
                chain.save(20, arrays)
            assert len(told) == 1
        assert names(disk) == []
        with pytest.warns(CheckpointWarning, match="nothing to resume"):
            Checkpoint(disk / "fit.checkpoint", {"program": "p"}, resume=True).close()
        assert not checkpoints.holds_training(disk / "fit.checkpoint")
