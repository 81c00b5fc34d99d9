"""ArviZ's own functions on a posterior, and on what comes back from netCDF and zarr."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import arviz as az
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import avistan as avi
from avistan.comparison.references import nuts
from avistan.posterior import draws as drawing
from avistan.posterior.datatree import to_datatree
from avistan.posterior.draws import DrawsWarning
from avistan.posterior.fit_datatree import is_large
from avistan.posterior.zarr_store import write_batches
from avistan.report.write import write_netcdf
from avistan.runtime.errors import FitError
from programs import bundled

mpl.use("agg")
SUPPORT = Path(__file__).parents[1] / "support"

# A normal mean with its log likelihood and, as brms writes it, its log prior.
POWER_SCALED = """
data { int<lower=0> N; vector[N] y; real centre; array[N] int<lower=0> k; }
parameters { real mu; real<lower=0> s; }
transformed parameters { real lprior = normal_lpdf(mu | centre, 0.3) + exponential_lpdf(s | 1); }
model { target += lprior; y ~ normal(mu, s); k ~ poisson(s); }
generated quantities {
  vector[N] log_lik;
  array[N] int k_rep;
  for (n in 1 : N) {
    log_lik[n] = normal_lpdf(y[n] | mu, s) + poisson_lpmf(k[n] | s);
    k_rep[n] = poisson_rng(s);
  }
}
"""


@pytest.fixture(scope="module")
def schools_fit(eight_schools):
    return eight_schools.fit(method="avi", seed=1, steps=2000, chains=2)


@pytest.fixture(scope="module")
def schools(schools_fit):
    return schools_fit.posterior(
        1000, resample="none", unconstrained=True, posterior_predictive={"y": "y_rep"}
    )


def scaled(centre):
    rng = np.random.default_rng(1)
    data = {"N": 40, "y": rng.normal(1, 1, 40), "k": rng.poisson(1, 40), "centre": centre}
    return avi.Model(stan_code=POWER_SCALED, data=data).fit(method="fvi", steps=1500)


@pytest.fixture(scope="module")
def scaled_fit():
    return scaled(6.0)


# -- summaries and pictures -----------------------------------------------------------------------------------------


def test_summary_has_a_row_for_every_scalar_and_rhat_of_the_restarts(schools):
    table = az.summary(schools)
    assert set(table.index) >= {"mu", "tau", "theta[0]", "theta[7]"}
    assert table["r_hat"].astype(float).max() < 1.05


def test_rhat_sees_restarts_that_disagree(schools_fit):
    tree = schools_fit.posterior(500, resample="none")
    tree["posterior"]["mu"] = tree["posterior"]["mu"] + 10 * tree["posterior"]["chain"]
    assert float(az.rhat(tree)["mu"]) > 1.5


def test_forest_and_predictive_plots_are_drawn(schools, scaled_fit):
    forest = az.plot_forest(schools, var_names=["mu", "theta"], combined=True)
    assert len(forest.viz["point_estimate"].data_vars) == 2
    predictive = az.plot_ppc_dist(schools)
    assert "y" in predictive.viz["predictive_dist"].data_vars
    counts = scaled_fit.posterior(200, resample="none", posterior_predictive={"k": "k_rep"})
    assert counts["posterior_predictive"]["k"].dtype == np.int64
    assert "k" in az.plot_ppc_rootogram(counts, var_names=["k"]).viz["predictive_markers"].data_vars


# -- leave-one-out --------------------------------------------------------------------------------------------------


def nuts_tree(model):
    bound = model.bound
    chains = nuts(bound, seed=1, warmup=500, draws=500).theta
    flat = chains.reshape(-1, bound.dim)
    values, _ = bound.constrain(flat)
    lp, _ = bound.log_density_gradient(flat)
    return to_datatree(model.program, model.data, values, sample_stats={"lp": lp}, num_chains=len(chains))


@pytest.mark.parametrize(
    ("name", "method"),
    [("eight_schools", "avi"), pytest.param("random_slopes", "avi:full", marks=pytest.mark.slow)],
)
@pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")
def test_loo_is_that_of_nuts_within_a_standard_error_or_flagged(name, method):
    model = bundled(name)
    expected = az.loo(nuts_tree(model))
    tree = model.fit(method=method, seed=1).posterior(1000, resample="none")
    plain = az.loo(tree)
    assert abs(plain.elpd - expected.elpd) < expected.se
    stats = tree["sample_stats"]
    corrected = az.loo_approximate_posterior(tree, stats["lp"], stats["log_q"])
    assert corrected.approx_posterior
    assert abs(corrected.elpd - expected.elpd) < expected.se or corrected.warning


@pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")
def test_compare_prefers_the_model_that_made_the_data():
    code = """
    data {{ int<lower=0> N; vector[N] x; vector[N] y; }}
    parameters {{ real a; real b; }}
    model {{ a ~ normal(0, 2); b ~ normal(0, 2); y ~ normal({mean}, 1); }}
    generated quantities {{
      vector[N] log_lik;
      for (n in 1 : N) log_lik[n] = normal_lpdf(y[n] | {point}, 1);
    }}
    """
    x = np.linspace(-2, 2, 50)
    data = {"N": 50, "x": x, "y": 0.5 + 1.5 * x + np.random.default_rng(3).normal(size=50)}
    trees = {
        name: avi.Model(stan_code=code.format(mean=mean, point=point), data=data)
        .fit(method="fvi", steps=1000)
        .posterior(500, resample="none")
        for name, mean, point in (("line", "a + b * x", "a + b * x[n]"), ("level", "a", "a"))
    }
    table = az.compare(trees)
    assert list(table.index) == ["line", "level"]
    assert -table["elpd_diff"].iloc[1] > 4 * table["dse"].iloc[1]


# -- power scaling --------------------------------------------------------------------------------------------------


def test_power_scaling_sees_a_prior_against_the_data(scaled_fit):
    conflict = az.psense_summary(scaled_fit.posterior(2000, resample="none"), var_names=["mu"])
    agreement = az.psense_summary(scaled(1.0).posterior(2000, resample="none"), var_names=["mu"])
    assert conflict.loc["mu", "prior"] > 0.05
    assert agreement.loc["mu", "prior"] < 0.5 * conflict.loc["mu", "prior"]


def test_lprior_is_the_log_prior_unless_named_otherwise(scaled_fit):
    tree = scaled_fit.posterior(20, resample="none")
    assert set(tree["log_prior"].data_vars) == {"lprior"}
    assert "lprior" not in tree["posterior"]
    assert "lprior" in scaled_fit.posterior(20, resample="none", log_prior=False)["posterior"]
    renamed = scaled_fit.posterior(20, resample="none", log_prior={"all": "lprior"})
    assert set(renamed["log_prior"].data_vars) == {"all"}
    with pytest.raises(FitError, match=r"log_prior='prior'.*lprior"):
        scaled_fit.posterior(20, resample="none", log_prior="prior")


# -- files ----------------------------------------------------------------------------------------------------------


def plain(attrs):
    """Attributes with lists for arrays, which netCDF makes of lists."""
    return {name: np.asarray(value).tolist() for name, value in attrs.items()}


def assert_same(read, tree):
    assert dict(read.attrs) == dict(tree.attrs)
    assert set(read.children) == set(tree.children)
    for group in tree.children:
        assert plain(read[group].attrs) == plain(tree[group].attrs), group
        xr.testing.assert_equal(read[group].to_dataset(), tree[group].to_dataset())


@pytest.fixture(scope="module")
def full_tree(schools_fit):
    return schools_fit.posterior(
        60,
        resample="none",
        unconstrained=True,
        coords={"J": list("ABCDEFGH")},
        posterior_predictive={"y": "y_rep"},
        unit_diagnostics={"khat": np.linspace(0, 1, 8), "gap": np.arange(16.0).reshape(8, 2)},
    )


def test_every_group_comes_back_from_netcdf_with_its_attributes(full_tree, tmp_path):
    write_netcdf(full_tree, tmp_path / "posterior.nc")
    with xr.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf") as read:
        assert_same(read, full_tree)
    assert_same(az.from_netcdf(tmp_path / "posterior.nc"), full_tree)


def write_chains(tree, path):
    """A store of a tree, one chain after the other."""
    chains, draws = (tree["posterior"].sizes[dim] for dim in ("chain", "draw"))

    def only(chain):
        return tree.map_over_datasets(lambda data: data.isel(chain=[chain]) if "draw" in data.dims else data)

    write_batches(((chain, 0, only(chain)) for chain in range(chains)), path, chains=chains, draws=draws)


def test_every_group_comes_back_from_zarr_with_its_attributes(full_tree, tmp_path):
    write_chains(full_tree, tmp_path / "posterior.zarr")
    with xr.open_datatree(tmp_path / "posterior.zarr", engine="zarr") as read:
        assert_same(read, full_tree)
    assert_same(az.from_zarr(tmp_path / "posterior.zarr"), full_tree)


def test_a_store_replaces_an_older_one_and_nothing_else(full_tree, tmp_path):
    for _ in range(2):
        write_chains(full_tree, tmp_path / "posterior.zarr")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(FitError, match="other files"):
        write_chains(full_tree, tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


# -- written batch by batch -----------------------------------------------------------------------------------------


@pytest.fixture
def small_batches(monkeypatch):
    """Seven draws of the eight schools, or twenty of two parameters, at a time."""
    monkeypatch.setattr(drawing, "_NUMBERS_AT_ONCE", 70)


@pytest.mark.parametrize("resample", ["auto", "none"])
def test_what_is_written_in_batches_is_what_posterior_returns(resample, schools_fit, small_batches, tmp_path):
    options = {
        "resample": resample,
        "unconstrained": True,
        "coords": {"J": list("ABCDEFGH")},
        "posterior_predictive": {"y": "y_rep"},
        "unit_diagnostics": {"khat": np.linspace(0, 1, 8)},
    }
    schools_fit.write_posterior(tmp_path / "posterior.zarr", 33, **options)
    expected = schools_fit.posterior(33, **options)
    with xr.open_datatree(tmp_path / "posterior.zarr", engine="zarr") as read:
        if resample == "none":
            assert read["posterior"]["theta"].encoding["chunks"] == (1, 7, 8)
        assert set(read.children) == set(expected.children)
        assert dict(read.attrs) == dict(expected.attrs)
        for group in expected.children:
            xr.testing.assert_equal(read[group].to_dataset(), expected[group].to_dataset())
    assert [path.name for path in tmp_path.iterdir()] == ["posterior.zarr"]


def test_batches_are_independent_draws(schools_fit, small_batches):
    mu = schools_fit.posterior(400, resample="none")["posterior"]["mu"].values
    assert len(np.unique(mu)) == mu.size
    rep = schools_fit.posterior(40, resample="none")["posterior"]["y_rep"].values
    assert len(np.unique(rep)) == rep.size


def test_draws_in_batches_are_those_on_the_unconstrained_scale(schools_fit, small_batches):
    chain = schools_fit.chains[0]
    theta, log_q = drawing.unconstrained_draws(replace(schools_fit, chains=(chain,)), 33, seed=1)
    tree = schools_fit.posterior(33, resample="none")
    np.testing.assert_array_equal(tree["sample_stats"]["log_q"].values[0], log_q)
    lp, _ = schools_fit.model.log_density_gradient(theta)
    np.testing.assert_array_equal(tree["sample_stats"]["lp"].values[0], lp)


def test_a_posterior_is_large_by_its_numbers(schools_fit):
    per_draw = 2 * (10 + 24)  # two chains; ten parameters, and theta, log_lik and y_rep of eight schools
    assert not is_large(schools_fit, 2**27 // per_draw)
    assert is_large(schools_fit, 2**27 // per_draw + 1)


def test_arviz_reads_what_was_written_in_batches(schools_fit, small_batches, tmp_path):
    schools_fit.write_posterior(tmp_path / "posterior.zarr", 100, resample="none")
    tree = az.from_zarr(tmp_path / "posterior.zarr")
    assert "mu" in az.summary(tree, var_names=["mu"]).index


def test_rejected_draws_of_an_integer_are_nan_in_a_store_too(small_batches, tmp_path):
    code = """
    parameters { real x; real z; }
    model { x ~ std_normal(); z ~ std_normal(); }
    generated quantities { if (x > 1) reject("x is ", x); int k = poisson_rng(3); }
    """
    fit = avi.Model(stan_code=code).fit(method="fvi", steps=50, elbo_draws=50)
    with pytest.warns(DrawsWarning, match=r"Stan rejected \d+ of 200 draws"):
        fit.write_posterior(tmp_path / "posterior.zarr", 200)
    with pytest.warns(DrawsWarning, match=r"Stan rejected \d+ of 200 draws"):
        expected = fit.posterior(200)["posterior"]["k"].values
    with xr.open_datatree(tmp_path / "posterior.zarr", engine="zarr") as read:
        found = read["posterior"]["k"].values
    assert 0 < np.isnan(found).sum() < 100
    np.testing.assert_array_equal(found, expected)


def test_an_interrupted_store_leaves_nothing(schools_fit, small_batches, tmp_path, monkeypatch):
    bound = schools_fit.model
    constrain, calls = bound.constrain, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return constrain(*args, **kwargs)

    monkeypatch.setattr(bound, "constrain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        schools_fit.write_posterior(tmp_path / "posterior.zarr", 30, resample="none")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_million_units_are_written_in_less_than_two_gibibytes(tmp_path):
    run = subprocess.run(
        [sys.executable, SUPPORT / "large_posterior.py", tmp_path / "posterior.zarr"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.split()[-1]) < 2048  # MiB, of which the draws alone would take 763
    with xr.open_datatree(tmp_path / "posterior.zarr", engine="zarr") as tree:
        assert tree["posterior"]["z"].sizes == {"chain": 1, "draw": 100, "N": 1_000_000}
        last = tree["posterior"]["z"].isel(draw=[0, 99], N=slice(None, None, 1000)).values
        x = tree["observed_data"]["x"].isel(N=slice(None, None, 1000)).values
    assert np.isfinite(last).all()
    for draw in last[0]:
        assert 0.2 < np.corrcoef(draw, x)[0, 1] < 0.7
    shutil.rmtree(tmp_path / "posterior.zarr")
