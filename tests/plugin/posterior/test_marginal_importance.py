"""Importance weights of the globals: marginals in closed form, corrected draws."""

import equinox as eqx
import numpy as np
import pytest
from scipy import stats

import avistan as avi
from avistan.posterior.approximation import approximation
from avistan.posterior.marginal_importance import (
    adapt,
    globals_importance,
    khat_threshold,
    weigh_enough,
)
from avistan.posterior.resampling import corrected_draws, systematic
from avistan.posterior.unit_marginals import log_marginals, unit_density
from avistan.runtime.errors import FitError
from programs import bundled, simulator

HEAVY_UNITS = """
data { int N; vector[N] y; }
parameters { real m; real<lower=0> t; vector[N] z; }
model { m ~ normal(0, 5); t ~ normal(0, 1); z ~ student_t(1, m, t); y ~ normal(z, 8); }
"""


@pytest.fixture(scope="module")
def data():
    return simulator("linear")(200)


@pytest.fixture(scope="module")
def mean_field(data):
    return bundled("linear", data).fit(method="avi:polynomial(1)", seed=1, steps=2000)


def test_marginals_of_normal_units_are_the_closed_form(mean_field, data):
    theta = np.linspace(-1, 1, 50)[:, None] + np.mean(data["x"])
    density, q = unit_density(mean_field), approximation(mean_field.family, mean_field.inputs)
    found = log_marginals(density, q, theta, np.random.default_rng(1))
    expected = stats.norm.logpdf(np.asarray(data["x"]), theta, np.hypot(data["tau"], data["sigma"])).sum(
        axis=1
    )
    np.testing.assert_allclose(found.values - found.values[0], expected - expected[0], atol=1e-5)


@pytest.mark.slow
def test_corrected_draws_have_the_sds_that_mean_field_lacks(mean_field, data, linear_answers):
    right = linear_answers["posterior_sd"](data)
    own, _ = mean_field.unconstrained_draws(4000)
    assert own[:, 0].std() < 0.5 * right[0]
    draws, weights = corrected_draws(mean_field, 4000)
    assert weights.marginal
    assert weights.reliable
    expected = linear_answers["posterior_mean"](data)
    sds = draws.std(axis=0) / right
    assert abs(sds[0] - 1) < 0.05
    assert abs(np.sqrt((sds[1:] ** 2).mean()) - 1) < 0.02
    assert abs(draws[:, 0].mean() - expected[0]) < 0.1 * right[0]
    assert np.abs((draws.mean(axis=0) - expected) / right).max() < 5 / np.sqrt(4000) + 0.05
    # A unit's latent follows the globals: the posterior correlates them.
    slope = np.array([np.polyfit(draws[:, 0], z, 1)[0] for z in draws[:, 1:].T])
    expected_slope = data["sigma"] ** 2 / (data["sigma"] ** 2 + data["tau"] ** 2)
    assert abs(slope.mean() - expected_slope) < 0.05


def test_weights_of_an_exact_family_are_equal(data):
    fit = bundled("linear", data).fit(method="fvi:full-rank:conditional", seed=1, steps=3000)
    weights = globals_importance(fit, 500)
    assert weights.reliable
    assert weights.effective_draws > 490


def of_globals(name):
    return lambda q: getattr(q.family.globals, name)


def test_a_quarter_of_the_draws_is_enough_where_they_are_equal_or_hopeless(data):
    fit = bundled("linear", data).fit(method="fvi:full-rank:conditional", seed=1, steps=3000)
    density, q = unit_density(fit), approximation(fit.family, fit.inputs)
    equal = weigh_enough(fit, density, q, 1000, np.random.default_rng(1))
    assert (equal.num_usable, equal.reliable) == (250, True)
    factor = q.family.globals.log_sd
    astray = eqx.tree_at(of_globals("loc"), q, q.family.globals.loc + 5 * np.exp(factor))
    hopeless = weigh_enough(fit, density, astray, 1000, np.random.default_rng(1))
    assert (hopeless.num_usable, hopeless.reliable) == (250, False)
    mended = adapt(fit, density, astray, hopeless, np.random.default_rng(2), last=500)
    assert mended.reliable
    assert len(mended.theta) == 250 + 125 + 500
    assert abs(mended.mean_sd()[0] - q.center[:1])[0] < 0.2 * mended.mean_sd()[1][0]
    narrow = eqx.tree_at(of_globals("log_sd"), q, factor + np.log(0.6))
    assert weigh_enough(fit, density, narrow, 1000, np.random.default_rng(1)).num_usable == 1000


def test_the_same_seed_repeats(mean_field):
    one, two, other = (corrected_draws(mean_field, 20, seed=seed)[0] for seed in (5, 5, 6))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_a_correction_is_refused_with_its_khat():
    y = np.random.default_rng(3).normal(0, 8, 60)
    fit = avi.Model(stan_code=HEAVY_UNITS, data={"N": 60, "y": y}).fit(method="avi", seed=1, steps=1500)
    with pytest.raises(FitError, match=r"k-hat of its globals is \d.*richer families"):
        corrected_draws(fit, 200)


def test_without_units_all_parameters_are_weighted_together():
    code = "parameters { vector[3] x; } model { x ~ student_t(4, 1, 2); }"
    fit = avi.Model(stan_code=code, data={}).fit(seed=1, steps=1500)
    draws, weights = corrected_draws(fit, 4000)
    assert not weights.marginal
    right = stats.t(4, 1, 2).std()
    assert fit.unconstrained_draws(4000)[0].std() == pytest.approx(
        2.407, rel=0.03
    )  # the best normal's, 0.85 of it
    assert np.abs(draws.std(axis=0) / right - 1).max() < 0.1


def test_thresholds_grow_with_the_draws_up_to_a_limit():
    assert khat_threshold(1000) == pytest.approx(2 / 3)
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(10**6) == pytest.approx(0.7)


def test_systematic_resampling_takes_each_draw_about_as_often_as_its_weight():
    weights = np.random.default_rng(2).exponential(size=30)
    counts = np.bincount(systematic(weights, 1000, np.random.default_rng(3)), minlength=30)
    assert np.abs(counts - 1000 * weights / weights.sum()).max() < 1
