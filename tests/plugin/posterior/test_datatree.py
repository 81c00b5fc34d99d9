"""The DataTree: groups, dims, names; what ArviZ does with it is in `test_arviz`."""

import numpy as np
import pytest

import avistan as avi
from avistan.posterior.datatree import elbo_trace, to_datatree, unit_diagnostics
from avistan.posterior.draws import DrawsWarning
from avistan.runtime.errors import FitError
from avistan.training.loop import Trace
from programs import bundled
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program


@pytest.fixture(scope="module")
def fit(eight_schools):
    return eight_schools.fit(method="avi", seed=1, steps=1000)


@pytest.fixture(scope="module")
def tree(fit):
    return fit.posterior(draws=400, posterior_predictive="y_rep", resample="none")


def test_groups_follow_the_roles_of_the_variables(tree):
    assert set(tree.children) == {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "posterior_predictive",
        "observed_data",
        "constant_data",
        "elbo_trace",
        "certificate",
    }
    assert set(tree["posterior"].data_vars) == {"mu", "tau", "theta_raw", "theta"}
    assert set(tree["sample_stats"].data_vars) == {"lp", "log_q", "log_weight"}
    assert set(tree["observed_data"].data_vars) == {"y"}
    assert set(tree["constant_data"].data_vars) == {"sigma"}  # J is the size of its dim


def test_dims_are_chain_draw_and_the_declared_sizes(tree):
    assert tree["posterior"]["theta"].dims == ("chain", "draw", "J")
    assert tree["posterior"].sizes == {"chain": 1, "draw": 400, "J": 8}
    assert tree["observed_data"]["y"].dims == ("J",)
    assert tree["log_likelihood"]["log_lik"].dims == ("chain", "draw", "J")


def test_a_declared_size_with_a_slash_is_a_dim_without_one():
    """No name in a tree may have a slash, and `N / 2` is a level like any other."""
    program = Program.from_code(
        "data { int N; } parameters { vector[N / 2] z; matrix[N / 2, N / 2] m; } model { }"
    )
    data = read_data(program, {"N": 4})
    values = {"z": np.zeros((5, 2)), "m": np.zeros((5, 2, 2))}
    tree = to_datatree(program, data, values, sample_stats={"lp": np.zeros(5)}, unit_size="N / 2")
    assert tree["posterior"]["z"].dims == ("chain", "draw", "N over 2")
    assert tree["posterior"]["m"].dims == ("chain", "draw", "N over 2", "m_dim_1")
    assert unit_diagnostics("N / 2", {"khat": np.zeros(2)}).sizes == {"N over 2": 2}


def test_settings_and_seed_are_written_beside_the_draws(tree, fit):
    assert tree.attrs["seed"] == 1
    assert tree.attrs["method"] == fit.method.name
    assert tree.attrs["steps"] == 1000
    assert tree.attrs["elbo"] == fit.elbo


def test_lp_and_log_q_belong_to_the_draws(fit, tree):
    names = [d.name for d in fit.model.program.parameters]
    draws = {name: tree["posterior"][name].values[0] for name in names}
    lp, _ = fit.model.log_density_gradient(fit.model.unconstrain_draws(draws))
    np.testing.assert_allclose(tree["sample_stats"]["lp"].values[0], lp, rtol=1e-10)
    weights = tree["sample_stats"]["log_weight"].values
    np.testing.assert_allclose(
        weights, (tree["sample_stats"]["lp"] - tree["sample_stats"]["log_q"]).values, rtol=1e-12
    )
    assert abs(weights.mean() - fit.elbo) < 5 * weights.std() / np.sqrt(weights.size) + 5 * fit.elbo_se


def test_the_same_seed_repeats_generated_quantities_too(fit, tree):
    again = fit.posterior(draws=400, posterior_predictive="y_rep", resample="none")
    other = fit.posterior(draws=400, posterior_predictive="y_rep", seed=2, resample="none")
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


def test_given_dims_are_never_dropped_in_silence(fit):
    with pytest.raises(FitError, match="sigma, there are more dims"):
        fit.posterior(draws=5, dims={"theta": ["school"], "sigma": ["school", "place"]})
    tree = fit.posterior(draws=5, dims={"y": ["school"]}, coords={"school": list("ABCDEFGH")})
    assert tree["observed_data"]["y"].dims == ("school",)
    assert tree["posterior"]["theta"].dims == ("chain", "draw", "J")


@pytest.mark.slow
def test_the_trace_of_every_restart_is_kept(fit, eight_schools):
    two = eight_schools.fit(seed=1, steps=300, elbo_draws=50, chains=2)
    group = two.posterior(5)["elbo_trace"]
    assert group.sizes["chain"] == 2
    for number, chain in enumerate(two.chains):
        steps = len(chain.trace.elbo)
        np.testing.assert_array_equal(group["elbo"].values[number, :steps], chain.trace.elbo)
        assert np.isnan(group["elbo"].values[number, steps:]).all()
        stages = group["stage"].values[number, :steps]
        assert np.bincount(stages).tolist() == [len(trace.elbo) for trace in chain.traces]
    assert group["step"].values[0] == 1


def test_traces_of_unequal_length_stand_side_by_side():
    group = elbo_trace([[trace_of(3)], [trace_of(2), trace_of(3)]])
    np.testing.assert_array_equal(group["elbo"], [[0, 1, 2, np.nan, np.nan], [0, 1, 0, 1, 2]])
    np.testing.assert_array_equal(group["stage"], [[0, 0, 0, -1, -1], [0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(group["num_rejected"], [[7, 7, 7, 0, 0], [7, 7, 7, 7, 7]])


def trace_of(steps):
    return Trace(
        elbo=np.arange(float(steps)),
        num_rejected=np.full(steps, 7),
        chunk_steps=np.array([0, steps]),
        seconds=np.array([0.0, 1.0]),
        seconds_compile=0.0,
    )


def test_the_certificate_is_the_evidence_that_inspection_shows(tree, eight_schools):
    probes = eight_schools.inspect().certificate
    found = tree["certificate"]
    assert found["probe"].values.tolist()[0] == probes[0].probe
    assert found["holds"].values[0] == probes[0].holds
    assert found["statistic"].values[0] == probes[0].statistic
    assert found["tolerance"].values[0] == probes[0].tolerance
    assert found["evaluations"].values[0] == probes[0].evaluations


def test_unit_diagnostics_have_the_levels_dim(fit):
    values = {"khat": np.linspace(0, 1, 8), "quantiles": np.zeros((8, 3))}
    tree = fit.posterior(5, unit_diagnostics=values, coords={"J": list("ABCDEFGH")})
    group = tree["unit_diagnostics"]
    assert group["khat"].sel(J="H").item() == 1
    assert group["quantiles"].dims == ("J", "quantiles_dim_0")
    with pytest.raises(FitError, match="khat: 8, gap: 7"):
        fit.posterior(5, unit_diagnostics={"khat": np.zeros(8), "gap": np.zeros(7)})
    flat = avi.Model(stan_code="parameters { real x; } model { x ~ std_normal(); }").fit(
        method="fvi", steps=5
    )
    with pytest.raises(FitError, match="need a level of units"):
        flat.posterior(5, unit_diagnostics={"khat": np.zeros(8)})


UNCONSTRAINED = """
data { int<lower=1> J; int<lower=1> K; }
parameters {
  real<lower=0> s;
  array[J] simplex[K] p;
  matrix[2, K] m;
  array[J] real<lower=0> r;
  corr_matrix[3] omega;
  array[2, J] vector[K] v;
}
model {
  s ~ lognormal(0, 1); r ~ lognormal(0, 1); to_vector(m) ~ std_normal(); omega ~ lkj_corr(2);
  for (j in 1 : J) { p[j] ~ dirichlet(rep_vector(2, K)); v[1, j] ~ std_normal(); v[2, j] ~ std_normal(); }
}
"""


def test_the_unconstrained_posterior_has_each_parameter_with_its_own_dims():
    fit = avi.Model(stan_code=UNCONSTRAINED, data={"J": 4, "K": 3}).fit(method="fvi", steps=20, elbo_draws=20)
    tree = fit.posterior(6, unconstrained=True, resample="none")
    found = tree["unconstrained_posterior"]
    assert {name: array.dims[2:] for name, array in found.data_vars.items()} == {
        "s": (),
        "p": ("J", "p_free"),
        "m": ("m_dim_0", "K"),
        "r": ("J",),
        "omega": ("omega_free",),
        "v": ("v_dim_0", "J", "K"),
    }
    assert dict(found.sizes) == {
        "chain": 1,
        "draw": 6,
        "J": 4,
        "K": 3,
        "p_free": 2,
        "m_dim_0": 2,
        "omega_free": 3,
        "v_dim_0": 2,
    }
    posterior = tree["posterior"]
    np.testing.assert_allclose(np.exp(found["s"]), posterior["s"])
    np.testing.assert_allclose(np.exp(found["r"]), posterior["r"])
    for name in ("m", "v"):  # unbounded: the two are the same numbers in the same places
        np.testing.assert_array_equal(found[name], posterior[name])
    theta, _ = fit.unconstrained_draws(6)
    place = fit.model.layout["p"].positions(0)
    np.testing.assert_array_equal(found["p"].values[0], theta[:, place])


def test_declared_integers_are_integers():
    code = """
    data { int N; }
    parameters { real x; }
    model { x ~ std_normal(); }
    generated quantities { array[N] int k; real y = 1; for (n in 1 : N) k[n] = poisson_rng(2); }
    """
    posterior = avi.Model(stan_code=code, data={"N": 3}).fit(method="fvi", steps=5).posterior(20)["posterior"]
    assert posterior["k"].dtype == np.int64
    assert posterior["y"].dtype == np.float64


def test_expressions_and_repeated_sizes_get_arviz_names_and_units_the_levels():
    code = """
    data { int N; vector[N] y; }
    parameters { vector[N - 1] z; matrix[2, 2] m; real<lower=0> s; }
    model { z ~ std_normal(); to_vector(m) ~ std_normal(); s ~ std_normal(); y[2:N] ~ normal(z, s); }
    """
    model = avi.Model(stan_code=code, data={"N": 5, "y": np.arange(5.0)})
    posterior = model.fit(method="fvi", steps=20, elbo_draws=100).posterior(draws=10)["posterior"]
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
    fit = avi.Model(stan_code=code).fit(method="fvi", steps=50, elbo_draws=50)
    with pytest.warns(DrawsWarning, match=r"Stan rejected \d+ of 200 draws"):
        tree = fit.posterior(draws=200)
    rejected = np.isnan(tree["posterior"]["y"].values)
    assert 0 < rejected.sum() < 100
    assert (tree["posterior"]["y"].values[~rejected] <= 1).all()
