"""CSV files that cmdstanpy, ArviZ and R read: the same numbers come back."""

import shutil
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace

import arviz_base
import cmdstanpy
import numpy as np
import pytest

import small_fits
from avistan.comparison.references import reference_from
from avistan.export.cmdstan import write_cmdstan
from avistan.export.parts import Outgoing, Part, of_tree
from avistan.files import outputs
from avistan.runtime.errors import FitError
from small_fits import schools


@pytest.fixture(scope="module")
def fit():
    return schools()


@pytest.fixture(scope="module")
def tree(fit):
    return fit.posterior(200)


@pytest.fixture(scope="module")
def folder(fit, tmp_path_factory):
    place = tmp_path_factory.mktemp("export") / "csv"
    fit.to_cmdstan(place, 200)
    return place


def test_a_file_for_each_chain_that_cmdstanpy_reads(fit, tree, folder):
    posterior = tree["posterior"]
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    assert sorted(path.name for path in folder.iterdir()) == [
        f"eight_schools_{c + 1}.csv" for c in range(chains)
    ]
    read = cmdstanpy.from_csv(sorted(map(str, folder.iterdir())))
    assert (read.chains, read.num_draws_sampling) == (chains, draws)
    for name in ("mu", "theta", "theta_raw"):
        values = posterior[name].values
        np.testing.assert_array_equal(
            read.stan_variable(name), values.reshape(chains * draws, *values.shape[2:])
        )
    log_lik = tree["log_likelihood"]["log_lik"].values
    np.testing.assert_array_equal(read.stan_variable("log_lik"), log_lik.reshape(chains * draws, 8))
    np.testing.assert_array_equal(
        read.draws()[..., read.column_names.index("lp__")].T, tree["sample_stats"]["lp"].values
    )


def test_arviz_reads_what_cmdstanpy_reads(tree, folder):
    read = arviz_base.from_cmdstanpy(
        cmdstanpy.from_csv(sorted(map(str, folder.iterdir()))), log_likelihood="log_lik"
    )
    for name in ("mu", "tau", "theta", "theta_raw", "y_rep"):
        np.testing.assert_array_equal(read["posterior"][name].values, tree["posterior"][name].values)
    np.testing.assert_array_equal(
        read["log_likelihood"]["log_lik"].values, tree["log_likelihood"]["log_lik"].values
    )


def test_the_files_are_a_reference_of_their_own_program(fit, tree, folder):
    reference = reference_from(folder, fit.model)
    np.testing.assert_allclose(reference.theta[..., 0], tree["posterior"]["mu"].values)
    assert "log densities" not in reference.caveat


def test_the_files_say_where_they_come_from(folder):
    text = next(iter(folder.iterdir())).read_text()
    assert "# written_by = avistan" in text
    assert "# avistan_method = avi" in text
    assert "# avistan_correction = " in text
    assert "algorithm = fixed_param" in text


def test_draws_beside_a_fit_give_the_same_files(fit, tree, folder, tmp_path):
    write_cmdstan(of_tree(tree, fit.model), tmp_path / "csv")
    for path in folder.iterdir():
        assert (tmp_path / "csv" / path.name).read_bytes() == path.read_bytes()


def made(values, lp=None, chains=1):
    shapes = {name: value.shape[1:] for name, value in values.items()}
    is_complex = frozenset(name for name, value in values.items() if value.dtype.kind == "c")
    draws = len(next(iter(values.values())))
    lp = np.zeros(draws) if lp is None else lp
    parts = [
        Part(
            chain=chain,
            start=start,
            values={n: v[start : start + 3] for n, v in values.items()},
            lp=lp[start : start + 3],
        )
        for chain in range(chains)
        for start in range(0, draws, 3)
    ]
    return Outgoing(program="p", chains=chains, each=draws, shapes=shapes, is_complex=is_complex, parts=parts)


def test_every_kind_of_variable_has_stans_columns(tmp_path):
    rng = np.random.default_rng(1)
    values = {
        "x": rng.normal(size=7) * 1e-300,
        "a": rng.normal(size=(7, 2, 3)),
        "t.2:1": rng.normal(size=(7, 2)),
        "none": np.empty((7, 0)),
        "z": rng.normal(size=(7, 2)) + 1j * rng.normal(size=(7, 2)),
        "n": rng.integers(-5, 5, size=7),
    }
    values["x"][4], values["a"][5, 0, 0], values["a"][5, 1, 0] = np.nan, np.inf, -np.inf
    (file,) = write_cmdstan(made(values), tmp_path / "csv")
    header = next(line for line in file.read_text().splitlines() if not line.startswith("#"))
    assert header == (
        "lp__,accept_stat__,x,a.1.1,a.2.1,a.1.2,a.2.2,a.1.3,a.2.3,t.2:1.1,t.2:1.2,"
        "z.1.real,z.1.imag,z.2.real,z.2.imag,n"
    )
    read = cmdstanpy.from_csv(str(file))
    for name in ("x", "a", "z", "n"):
        np.testing.assert_array_equal(read.stan_variable(name), values[name])


def test_several_chains_in_parts_are_in_order(tmp_path):
    values = {"x": np.arange(7.0)}
    files = write_cmdstan(made(values, chains=2), tmp_path / "csv")
    read = cmdstanpy.from_csv([str(file) for file in files])
    np.testing.assert_array_equal(read.draws()[..., 2].T, np.stack([values["x"]] * 2))


def test_a_full_disk_leaves_nothing(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(FitError, match=r"takes .* and its disk has 1000 bytes free|free"):
        fit.to_cmdstan(tmp_path / "csv", 50)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_left_alone(fit, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FitError, match=r"holds other files \(notes.txt\)"):
        fit.to_cmdstan(tmp_path, 50)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def r_says(files):
    """What R's rstan, posterior, bayesplot and loo find in the files."""
    program = shutil.which("Rscript")
    if program is None:
        pytest.skip("there is no Rscript: install r-cran-rstan, -posterior, -bayesplot and -loo to run it")
    script = Path(small_fits.__file__).with_name("read_csv.R")
    done = subprocess.run([program, str(script), *map(str, files)], capture_output=True, text=True)
    if "there is no package called" in done.stderr:
        pytest.skip(f"R lacks a package: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


def test_r_reads_the_same_numbers(tree, folder):
    said = r_says(sorted(folder.iterdir()))
    posterior = tree["posterior"]
    assert (int(said["chains"]), int(said["draws"])) == (posterior.sizes["chain"], posterior.sizes["draw"])
    assert said["plot"] == "TRUE"
    for name, values in (
        ("mu", posterior["mu"]),
        ("tau", posterior["tau"]),
        ("theta[3]", posterior["theta"][..., 2]),
    ):
        assert float(said[f"mean_{name}"]) == pytest.approx(float(values.mean()), rel=1e-12)
        assert float(said[f"sd_{name}"]) == pytest.approx(float(values.std(ddof=1)), rel=1e-12)
    import arviz_stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert float(said["elpd"]) == pytest.approx(arviz_stats.loo(tree).elpd, abs=0.05)
