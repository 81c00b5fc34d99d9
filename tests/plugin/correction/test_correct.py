"""The posterior that is handed out, against posteriors in closed form."""

import numpy as np
import pytest
from scipy import stats

import avistan as avi
from avistan.correction import correct as deciding
from avistan.correction.correct import Correction, Way, correct
from programs import bundled, simulator

# The years of measurements: intercept and slope nearly determine each other.
REGRESSION = """
data { int N; vector[N] x; vector[N] y; }
parameters { real a; real b; }
model { a ~ normal(0, 100); b ~ normal(0, 10); y ~ normal(a + b * x, 1); }
"""
BANANA = "parameters { real x; real y; } model { x ~ normal(0, 2); y ~ normal(x^2, 0.3); }"
WALK = """
data { int T; vector[T] y; }
parameters { vector[T] h; real<lower=0> s; }
model { s ~ normal(0, 1); h[1] ~ normal(0, 1); h[2:T] ~ normal(h[1:T-1], s); y ~ normal(h, 0.5); }
"""


def weighted(correction):
    weights = np.exp(correction.log_weights[0])
    mean = weights @ correction.theta[0]
    return mean, np.sqrt(weights @ (correction.theta[0] - mean) ** 2)


def test_a_mean_field_fit_of_a_ridge_is_corrected():
    x = np.arange(1960.0, 2020.0)
    y = 4 + 0.02 * (x - x.mean()) + np.random.default_rng(5).normal(size=60)
    fit = avi.Model(stan_code=REGRESSION, data={"N": 60, "x": x, "y": y}).fit(method="fvi", seed=1)
    design = np.column_stack([np.ones(60), x])
    covariance = np.linalg.inv(design.T @ design + np.diag([100.0**-2, 10.0**-2]))
    right, mean = np.sqrt(np.diag(covariance)), covariance @ design.T @ y
    assert fit.unconstrained_draws(2000)[0].std(axis=0)[1] < 0.1 * right[1]
    found = correct(fit)
    assert (found.way, found.reliable, found.whole) == (Way.weights, True, True)
    center, sd = weighted(found)
    np.testing.assert_allclose((center - mean) / right, 0, atol=0.05)
    np.testing.assert_allclose(sd / right, 1, atol=0.05)


def test_globals_of_units_get_the_sds_that_mean_field_lacks(linear_answers):
    data = simulator("linear")(200)
    fit = bundled("linear", data).fit(method="avi:polynomial(1)", seed=1, steps=2000)
    right, expected = linear_answers["posterior_sd"](data), linear_answers["posterior_mean"](data)
    assert fit.unconstrained_draws(4000)[0][:, 0].std() < 0.5 * right[0]
    found = correct(fit)
    assert found.reliable
    assert not found.whole
    center, sd = weighted(found)
    assert abs(center[0] - expected[0]) < 0.1 * right[0]
    assert abs(sd[0] / right[0] - 1) < 0.05
    draws = fit.posterior(4000, unconstrained=True)["unconstrained_posterior"]
    z = draws["z"].values[0]
    sds = z.std(axis=0) / right[1:]
    assert abs(np.sqrt((sds**2).mean()) - 1) < 0.03
    assert np.abs((z.mean(axis=0) - expected[1:]) / right[1:]).max() < 0.15
    # A unit's latent follows the globals: the posterior correlates them.
    theta = draws["theta"].values[0]
    slope = np.array([np.polyfit(theta, unit, 1)[0] for unit in z.T])
    expected_slope = data["sigma"] ** 2 / (data["sigma"] ** 2 + data["tau"] ** 2)
    assert abs(slope.mean() - expected_slope) < 0.05


def test_a_curved_ridge_is_sampled_by_chains():
    fit = avi.Model(stan_code=BANANA).fit(seed=1, steps=400)
    found = correct(fit)
    assert (found.way, found.whole) == (Way.chains, True)
    assert "Importance weights of all parameters" in found.reason
    rows = found.theta.reshape(-1, 2)
    assert abs(rows[:, 0].mean()) < 0.4
    assert abs(rows[:, 1].mean() - 4) < 0.8
    np.testing.assert_allclose(rows.std(axis=0), [2, np.sqrt(32.09)], rtol=0.15)


def test_too_many_coupled_parameters_leave_draws_of_q_that_are_called_so():
    y = np.cumsum(np.random.default_rng(7).normal(0, 0.3, 3100))
    fit = avi.Model(stan_code=WALK, data={"T": 3100, "y": y}).fit(method="fvi", seed=1, steps=20)
    found = correct(fit)
    assert (found.way, found.reliable) == (Way.none, False)
    tree = fit.posterior(5)
    assert tree.attrs["correction"] == "none"
    assert "log_q" in tree["sample_stats"]


def test_the_same_seed_repeats_and_another_does_not():
    code = "parameters { vector[3] x; } model { x ~ student_t(4, 1, 2); }"
    fit = avi.Model(stan_code=code, data={}).fit(seed=1, steps=300)
    one, two, other = (correct(fit, seed=seed) for seed in (5, 5, 6))
    assert one.theta.tobytes() == two.theta.tobytes()
    assert one.theta.tobytes() != other.theta.tobytes()
    assert np.abs(weighted(one)[1] / stats.t(4, 1, 2).std() - 1).max() < 0.1
    few, many = (fit.posterior(draws)["posterior"]["x"].values for draws in (50, 200))
    np.testing.assert_array_equal(few[0], many[0, :50])


def found(way, *, reliable=True, sure=True, reason=""):
    theta = np.zeros((1, 10, 2))
    weights, whole = np.full((1, 10), -np.log(10)), way is Way.chains
    effective, rhat = np.full(2, 500.0), np.full(2, np.nan)
    return Correction(
        way=way,
        whole=whole,
        theta=theta,
        log_weights=weights,
        effective=effective,
        rhat=rhat,
        reliable=reliable,
        sure=sure,
        reason=reason,
    )


@pytest.mark.parametrize(
    ("weights", "mixed", "most", "way"),
    [
        ({"sure": True}, True, 500, Way.weights),
        ({"sure": False}, True, 500, Way.chains),
        ({"sure": False}, False, 500, Way.weights),
        ({"sure": False}, True, 1, Way.weights),  # of a program with more parameters than that
        ({"reliable": False}, True, 1, Way.chains),
        ({"reliable": False}, False, 500, Way.chains),
    ],
)
def test_weights_that_may_miss_tails_are_confirmed_by_chains(monkeypatch, weights, mixed, most, way):
    code = "parameters { vector[2] x; } model { x ~ std_normal(); }"
    fit = avi.Model(stan_code=code, data={}).fit(seed=1, steps=20)
    chains = found(Way.chains, reliable=mixed, reason="" if mixed else "R-hat 1.3.")
    monkeypatch.setattr(deciding, "_MOST_DOUBTED", most)
    monkeypatch.setattr(deciding, "_unitless", lambda *_: found(Way.weights, **weights))
    monkeypatch.setattr(deciding, "_chains", lambda *_: chains)
    made = correct(fit)
    assert (made.way, made.reliable) == (way, way is Way.weights or mixed)
    if way is Way.weights and not mixed:
        assert "R-hat 1.3" in made.reason  # that chains did not mix is not kept back
