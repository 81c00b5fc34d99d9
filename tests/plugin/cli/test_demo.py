"""The demonstration, with fewer steps than `make demo` takes."""

import json

import numpy as np
import pytest
import xarray as xr

from avistan.cli import demo
from avistan.report.write import REPORT
from avistan.runtime.errors import FitError


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The output folder of a short run."""
    folder = tmp_path_factory.mktemp("demo") / "demo-output"
    reference = {"chains": 2, "warmup": 100, "draws": 50}
    demo.run(folder, reference_options=reference, steps=150, draws_per_step=4, elbo_draws=200)
    return folder


def test_the_demonstration_writes_what_it_promises(shown):
    assert {path.name for path in shown.iterdir()} == {*REPORT, "new_persons.nc"}
    assert "Amortization can be lossless here" in (shown / "report.html").read_text(encoding="utf-8")
    comparison = json.loads((shown / "comparison.json").read_text())
    assert comparison["units"] == 1000
    assert comparison["reference"] == "nuts"
    assert [row["method"] for row in comparison["methods"]] == ["auto", "avi", "fvi", "constant"]
    assert all(row["reference_mean_error"] is not None for row in comparison["methods"])


def test_new_persons_with_more_right_answers_are_abler(shown):
    tree = xr.open_datatree(shown / "new_persons.nc").load()
    ability = tree["predictions"]["theta"].mean(("chain", "draw")).to_numpy()
    right = tree["observed_data"]["y"].sum("I").to_numpy()
    assert ability.shape == (7,)
    assert np.corrcoef(ability, right)[0, 1] > 0.9
    assert ability[right == 0] < -1 < 0 < ability[right == 5]


def test_the_demonstration_says_what_it_does(tmp_path, capsys, monkeypatch):
    def stop(*arguments, **options):
        raise FitError("stopped by the test")

    monkeypatch.setattr("avistan.model.Model.compare", stop)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        demo.main()
    printed = capsys.readouterr()
    assert exit_.value.code == 2
    assert printed.err == "error: stopped by the test\n"
    assert "lsat_2pl.stan" in printed.out
    assert "verdict   closable" in printed.out
    assert "separability of N" in printed.out
    assert list(tmp_path.iterdir()) == []


def test_abilities_are_printed_for_every_person_with_the_answers(shown):
    lines = demo._abilities(xr.open_datatree(shown / "new_persons.nc").load()).splitlines()
    assert len(lines) == 8
    assert lines[1].startswith("00000")
    assert lines[7].startswith("11111")


def test_the_demonstration_does_not_replace_a_folder_with_other_files(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FitError, match=r"holds other files \(mine.txt\)"):
        demo.run(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"
