"""CSV files of a real CmdStan, against cmdstanpy's own reading of them and the model's density."""

import shutil

import cmdstanpy
import numpy as np
import pytest

from avistan.comparison.references import reference_from
from avistan.foreign.cmdstan_csv import read_csv_files, scan
from avistan.runtime.errors import CompetitorError
from prophet_series import bind_prophet, flat

PARAMETERS = ["k", "m", "sigma_obs", "beta"]


def lp_against_the_model(tree, reference, model):
    """What the file's log density has more than the model's, at each draw (C, S)."""
    density = np.stack([model.log_density_gradient(points)[0] for points in reference.theta])
    return np.asarray(tree["sample_stats"]["lp"]) - density


def read(files, *names):
    folder, model = files
    paths = [folder / name for name in names]
    return read_csv_files(paths, PARAMETERS, "r"), reference_from(paths, model)


def test_two_chains_are_those_that_cmdstanpy_reads(files):
    tree, reference = read(files, "nuts_1.csv", "nuts_2.csv")
    theirs = cmdstanpy.from_csv([str(files[0] / f"nuts_{chain}.csv") for chain in (1, 2)])
    for name in PARAMETERS:
        ours = tree["posterior"][name].values
        np.testing.assert_allclose(ours.reshape(400, *ours.shape[2:]), theirs.stan_variable(name), rtol=1e-13)
    assert reference.theta.shape == (2, 200, 5)
    assert reference.divergences == int(theirs.divergences.sum())
    assert reference.seconds > 0
    assert reference.doubt == ""
    assert reference.max_rhat < 1.1


def test_the_warm_up_is_left_out(files):
    tree, reference = read(files, "warm.csv")
    assert scan(files[0] / "warm.csv").warmup == 75
    assert reference.theta.shape == (1, 101, 5)
    theirs = cmdstanpy.from_csv(str(files[0] / "warm.csv"))
    np.testing.assert_allclose(tree["posterior"]["beta"].values[0], theirs.stan_variable("beta"), rtol=1e-13)
    assert reference.divergences == int(theirs.divergences.sum())


@pytest.mark.parametrize(
    ("name", "draws", "constants", "called"),
    [
        ("nuts_1.csv", 200, False, ""),
        ("laplace.csv", 300, False, "Laplace's approximation, which approximates"),
        ("advi.csv", 300, True, "ADVI, which approximates"),
        ("pathfinder.csv", 300, True, "Pathfinder, which approximates"),
    ],
)
def test_each_method_has_its_draws_and_its_density(files, name, draws, constants, called):
    tree, reference = read(files, name)
    assert reference.theta.shape == (1, draws, 5)
    assert called in reference.caveat
    assert "log densities" not in reference.caveat
    more = lp_against_the_model(tree, reference, files[1])
    assert np.ptp(more) < 1e-4
    assert (abs(more.mean()) > 1) == constants  # 140 normals have constants; both programs drop them or not


def test_advis_first_row_is_a_mean_and_no_draw(files):
    tree, _ = read(files, "advi.csv")
    theirs = cmdstanpy.from_csv(str(files[0] / "advi.csv"))
    np.testing.assert_allclose(tree["posterior"]["beta"].values[0], theirs.stan_variable("beta", mean=False))


@pytest.mark.parametrize("kind", ["folder", "pattern", "list", "one"])
def test_files_may_be_named_in_any_way(files, tmp_path, kind):
    for chain in (1, 2):
        shutil.copy(files[0] / f"nuts_{chain}.csv", tmp_path)
    (tmp_path / "profile.csv").write_text("name,thread_id\n")
    paths = {
        "folder": tmp_path,
        "pattern": str(tmp_path / "nuts_*.csv"),
        "list": [str(tmp_path / "nuts_1.csv"), tmp_path / "nuts_2.csv"],
        "one": tmp_path / "nuts_1.csv",
    }
    reference = reference_from(paths[kind], files[1])
    assert reference.theta.shape == (1 if kind == "one" else 2, 200, 5)


def test_other_data_are_noticed_by_the_density(files, require):
    other = flat() | {"y": flat()["y"] + np.linspace(0, 3, 140)}
    with bind_prophet(require("prophet"), other) as model:
        assert (
            "not those of this program and these data"
            in reference_from(files[0] / "nuts_1.csv", model).caveat
        )


def cut(files, name, lines):
    text = (files[0] / name).read_text().splitlines(keepends=True)
    return "".join(text[:lines])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda files: (files[0] / "optimum.csv").read_text(), "output of optimization: a single point"),
        (lambda files: "a,b\n1,2\n", "no output of CmdStan: its columns are a, b"),
        (lambda files: "# only a comment\n", "no output of CmdStan: it has no columns"),
        (lambda files: cut(files, "nuts_1.csv", 49), "has no draws: the run ended early"),
        (lambda files: cut(files, "warm.csv", 70), "only the 2. rows of its warm-up"),
        (lambda files: cut(files, "nuts_1.csv", 120).replace("0.", "zero", 40), "is damaged"),
        (
            lambda files: (files[0] / "nuts_1.csv").read_text().replace("sigma_obs", "sigma"),
            "no parameter 'sigma_obs'",
        ),
    ],
)
def test_a_wrong_file_is_one_message(files, tmp_path, make, message):
    file = tmp_path / "draws.csv"
    file.write_text(make(files))
    with pytest.raises(CompetitorError, match=message):
        reference_from(file, files[1])


def test_files_that_do_not_belong_together_are_told(files, tmp_path):
    with pytest.raises(CompetitorError, match=r"several methods: .*laplace.*optimize|several methods"):
        reference_from([files[0] / "nuts_1.csv", files[0] / "advi.csv"], files[1])
    with pytest.raises(
        CompetitorError, match=r"different numbers of draws \(nuts_1.csv: 200, warm.csv: 101\)"
    ):
        reference_from([files[0] / "nuts_1.csv", files[0] / "warm.csv"], files[1])
    renamed = tmp_path / "other.csv"
    renamed.write_text(
        (files[0] / "nuts_2.csv").read_text().replace("# model = prophet_model", "# model = other")
    )
    with pytest.raises(CompetitorError, match=r"several models: prophet_model .*other"):
        reference_from([files[0] / "nuts_1.csv", renamed], files[1])
