"""`avistan compare` without a folder, and with references in files."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app
from small_fits import schools

SCHOOLS = avi.models_root() / "eight_schools"
GIVEN = [str(SCHOOLS / "eight_schools.stan"), str(SCHOOLS / "data.json")]
QUICK = ["--methods", "fvi", "--steps", "20", "--elbo-draws", "100"]


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *GIVEN, *map(str, arguments)])


def test_the_table_alone_is_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run(*QUICK)
    assert said.exit_code == 0
    assert "What each method reached:" in said.stdout
    assert "Nothing was written" in said.stdout
    assert json.loads(run(*QUICK, "--json").stdout)["methods"][0]["method"] == "fvi"
    assert not list(tmp_path.iterdir())


def test_references_of_every_kind_give_the_same_accuracy(tmp_path):
    fit = schools()
    tree = fit.posterior(200)
    fit.to_cmdstan(tmp_path / "csv", 200)
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    names = ["mu", "tau", *(f"theta_raw[{i + 1}]" for i in range(8))]
    flat = {name: tree["posterior"][name.partition("[")[0]] for name in names}
    chains = [
        {
            name: np.asarray(
                values[chain] if "[" not in name else values[chain, :, int(name[10:-1]) - 1]
            ).tolist()
            for name, values in flat.items()
        }
        for chain in range(tree["posterior"].sizes["chain"])
    ]
    (tmp_path / "draws.json").write_text(json.dumps(chains))
    found = []
    several = [part for path in sorted((tmp_path / "csv").iterdir()) for part in ("--reference", path)]
    for reference in (
        ["--reference", tmp_path / "csv"],
        ["--reference", tmp_path / "csv" / "*.csv"],
        several,
        ["--reference", tmp_path / "draws.nc"],
        ["--reference", tmp_path / "draws.json"],
    ):
        said = run(*QUICK, *reference, "--json")
        assert said.exit_code == 0, said.stderr
        (row,) = json.loads(said.stdout)["methods"]
        found.append(row["reference_mean_error"])
    assert found == pytest.approx([found[0]] * 5, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variables", "mu"], "give --output too"),
        (["--reference", "nuts", "--reference", "x.csv"], "nuts is a reference of its own"),
        (["--reference", "x.csv"], "unknown reference 'x.csv', and no such file"),
        (["--reference", str(SCHOOLS / "data.json")], "looks like data of a program"),
        (["--reference", GIVEN[0]], "a Stan program, not draws"),
    ],
)
def test_a_mistake_is_one_message(arguments, message):
    said = run(*QUICK, *arguments)
    assert said.exit_code == 2
    assert message in said.stderr
    assert said.stderr.count("error:") == 1
