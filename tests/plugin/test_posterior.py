"""The DataTree: groups, dims, names, and ArviZ's own functions on it."""

import warnings

import arviz
import arviz_stats
import numpy as np
import pytest
import xarray as xr

import avistan as avi
from avistan.errors import FitError
from avistan.files import write_netcdf
from avistan.fit import DrawsWarning
from programs import bundled


@pytest.fixture(scope="module")
def fit(eight_schools):
    return eight_schools.fit(seed=1, steps=1000)


@pytest.fixture(scope="module")
def tree(fit):
    return fit.posterior(draws=400, posterior_predictive="y_rep")


def test_groups_follow_the_roles_of_the_variables(tree):
    assert set(tree.children) == {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "posterior_predictive",
        "observed_data",
        "constant_data",
    }
    assert set(tree["posterior"].data_vars) == {"mu", "tau", "theta_raw", "theta"}
    assert set(tree["sample_stats"].data_vars) == {"lp", "log_q"}
    assert set(tree["observed_data"].data_vars) == {"y"}
    assert set(tree["constant_data"].data_vars) == {"sigma"}  # J is the size of its dim


def test_dims_are_chain_draw_and_the_declared_sizes(tree):
    assert tree["posterior"]["theta"].dims == ("chain", "draw", "J")
    assert tree["posterior"].sizes == {"chain": 1, "draw": 400, "J": 8}
    assert tree["observed_data"]["y"].dims == ("J",)
    assert tree["log_likelihood"]["log_lik"].dims == ("chain", "draw", "J")


def test_settings_and_seed_are_written_beside_the_draws(tree, fit):
    assert tree.attrs["seed"] == 1
    assert tree.attrs["method"] == "avi"
    assert tree.attrs["steps"] == 1000
    assert tree.attrs["elbo"] == fit.elbo


def test_lp_and_log_q_belong_to_the_draws(fit, tree):
    names = [d.name for d in fit.model.program.parameters]
    draws = {name: tree["posterior"][name].values[0] for name in names}
    lp, _ = fit.model.log_density_gradient(fit.model.unconstrain_draws(draws))
    np.testing.assert_allclose(tree["sample_stats"]["lp"].values[0], lp, rtol=1e-10)
    weights = (tree["sample_stats"]["lp"] - tree["sample_stats"]["log_q"]).values
    assert abs(weights.mean() - fit.elbo) < 5 * weights.std() / np.sqrt(weights.size) + 5 * fit.elbo_se


def test_the_same_seed_repeats_generated_quantities_too(fit, tree):
    again = fit.posterior(draws=400, posterior_predictive="y_rep")
    other = fit.posterior(draws=400, posterior_predictive="y_rep", seed=2)
    assert again["posterior_predictive"].equals(tree["posterior_predictive"])
    assert not other["posterior_predictive"].equals(tree["posterior_predictive"])
    assert not other["posterior"].equals(tree["posterior"])


def test_users_name_coords_dims_and_groups(fit):
    schools = list("ABCDEFGH")
    tree = fit.posterior(
        draws=50,
        coords={"school": schools},
        dims={"theta": ["school"], "y": ["school"]},
        log_likelihood={"y": "log_lik"},
        posterior_predictive=["y_rep"],
    )
    assert tree["posterior"]["theta"].sel(school="C").shape == (1, 50)
    assert set(tree["log_likelihood"].data_vars) == {"y"}
    kept = fit.posterior(draws=50, log_likelihood=False)
    assert "log_lik" in kept["posterior"]
    assert "log_likelihood" not in kept
    with pytest.raises(FitError, match="log_lik, y_rep"):
        fit.posterior(draws=50, posterior_predictive="y_hat")


def test_arviz_reads_it(tree):
    assert {"mu", "tau"} <= set(arviz_stats.summary(tree, var_names=["mu", "tau"]).index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pareto k of a school left out
        loo = arviz_stats.loo(tree, var_name="log_lik")
    assert np.isfinite(loo.elpd)


def test_netcdf_round_trip_keeps_every_group_and_attribute(tree, tmp_path):
    path = tmp_path / "posterior.nc"
    write_netcdf(tree, path)
    for read in (arviz.from_netcdf(path), xr.open_datatree(path, engine="h5netcdf")):
        assert set(read.children) == set(tree.children)
        for name in tree.children:
            for variable in tree[name].data_vars:
                np.testing.assert_array_equal(read[name][variable].values, tree[name][variable].values)
        assert read.attrs["seed"] == 1
        read.close()


def test_expressions_and_repeated_sizes_get_arviz_names_and_units_the_levels():
    code = """
    data { int N; vector[N] y; }
    parameters { vector[N - 1] z; matrix[2, 2] m; real<lower=0> s; }
    model { z ~ std_normal(); to_vector(m) ~ std_normal(); s ~ std_normal(); y[2:N] ~ normal(z, s); }
    """
    model = avi.Model(stan_code=code, data={"N": 5, "y": np.arange(5.0)})
    posterior = model.fit(steps=20, elbo_draws=100).posterior(draws=10)["posterior"]
    assert posterior["z"].dims == ("chain", "draw", "N - 1")
    assert posterior["m"].dims == ("chain", "draw", "m_dim_0", "m_dim_1")


@pytest.mark.parametrize("name", ["random_slopes", "linear"])
def test_outcomes_are_what_the_model_block_gives_a_distribution(name):
    tree = bundled(name).fit(method="fvi", steps=10, elbo_draws=10).posterior(draws=5)
    expected = {"random_slopes": {"y"}, "linear": {"x"}}[name]
    assert set(tree["observed_data"].data_vars) == expected


def test_draws_that_generated_quantities_reject_are_nan_and_told():
    code = """
    parameters { real x; }
    model { x ~ std_normal(); }
    generated quantities { if (x > 1) reject("x is ", x); real y = x; }
    """
    fit = avi.Model(stan_code=code).fit(steps=50, elbo_draws=50)
    with pytest.warns(DrawsWarning, match=r"Stan rejected \d+ of 200 draws"):
        tree = fit.posterior(draws=200)
    rejected = np.isnan(tree["posterior"]["y"].values)
    assert 0 < rejected.sum() < 100
    assert (tree["posterior"]["y"].values[~rejected] <= 1).all()
