"""Whether q's means and sds are right, for posteriors that are known in closed form."""

import equinox as eqx
import numpy as np
import pytest

import avistan as avi
from avistan.diagnosis import global_checks
from avistan.diagnosis.checked_fit import CheckedFit
from avistan.diagnosis.global_curvature import local_gaussian
from avistan.diagnosis.verdict import Trust
from gaussian_families import gaussian

# The years of measurements: intercept and slope nearly determine each other.
REGRESSION = """
data { int N; vector[N] x; vector[N] y; }
parameters { real a; real b; }
model { a ~ normal(0, 100); b ~ normal(0, 10); y ~ normal(a + b * x, 1); }
"""
SKEWED = "parameters { real x; } model { target += -exp(2 * x) + 3 * x; }"


def measured(first_year):
    rng = np.random.default_rng(5)
    x = np.arange(first_year, first_year + 60.0)
    return {"N": 60, "x": x, "y": 4 + 0.02 * (x - x.mean()) + rng.normal(size=60)}


def regression_posterior(data):
    """Mean (2,) and covariance (2, 2) of intercept and slope."""
    x = np.column_stack([np.ones(60), data["x"]])
    covariance = np.linalg.inv(x.T @ x + np.diag([100.0**-2, 10.0**-2]))
    return covariance @ x.T @ data["y"], covariance


@pytest.mark.parametrize("shift", [0.0, 2.2])
def test_gradients_say_how_far_a_mean_field_fit_of_a_ridge_is_off(shift):
    data = measured(1960)
    mean, covariance = regression_posterior(data)
    ridge = np.linalg.eigh(covariance)[1][:, -1]
    along = shift * np.sqrt(ridge @ covariance @ ridge) * ridge
    conditional_sd = np.diag(np.linalg.inv(covariance)) ** -0.5  # those of the best mean-field q
    model = avi.Model(stan_code=REGRESSION, data=data).bound
    found = local_gaussian(model, gaussian(mean - along, conditional_sd), np.random.default_rng(1))
    assert found is not None
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found.sd_ratio, sd / conditional_sd, rtol=1e-4)
    np.testing.assert_allclose(found.shift, np.abs(along) / sd, atol=1e-3)
    assert not found.flat


def test_gradients_find_a_full_rank_fit_right():
    data = measured(1960)
    mean, covariance = regression_posterior(data)
    model = avi.Model(stan_code=REGRESSION, data=data).bound
    found = local_gaussian(model, gaussian(mean, np.linalg.cholesky(covariance)), np.random.default_rng(1))
    np.testing.assert_allclose(found.sd_ratio, 1, rtol=1e-4)
    np.testing.assert_allclose(found.shift, 0, atol=1e-4)


def test_a_flow_that_makes_the_posterior_normal_is_seen_through():
    """The log of a gamma variable, whose mean-field optimum with a flow is close to it."""
    fit = avi.Model(stan_code=SKEWED).fit(seed=1, method="fvi:flow")
    q = CheckedFit(fit=fit, seed=1).q
    found = local_gaussian(fit.model, q, np.random.default_rng(1))
    assert found.sd_ratio == pytest.approx(1, abs=0.1)
    assert found.shift == pytest.approx(0, abs=0.1)
    narrow = eqx.tree_at(lambda q: q.family.globals.log_sd, q, q.family.globals.log_sd - np.log(3))
    bad = local_gaussian(fit.model, narrow, np.random.default_rng(1))
    assert bad.sd_ratio == pytest.approx(3, rel=0.25)


def test_a_mean_field_fit_of_a_ridge_is_a_no():
    model = avi.Model(stan_code=REGRESSION, data=measured(1960))
    diagnosis = model.fit(method="fvi", seed=1).diagnose()
    assert not diagnosis.passed
    assert diagnosis["globals' means and sds"].passed is False
    assert diagnosis.outcome in (Trust.globals_misfit, Trust.globals_biased)


def test_a_right_fit_of_a_regression_passes():
    model = avi.Model(stan_code=REGRESSION, data=measured(-30))
    diagnosis = model.fit(method="fvi:full-rank", seed=1).diagnose()
    assert diagnosis.passed, str(diagnosis)
    assert diagnosis["globals' means and sds"].value < 1.1


def test_where_neither_weights_nor_gradients_decide_the_answer_is_no(eight_schools, monkeypatch):
    fit = eight_schools.fit(method="avi:full-rank:conditional", seed=1, steps=600)
    monkeypatch.setattr(global_checks, "_FEWEST_EFFECTIVE", 1e9)
    *_, moments = global_checks.check_globals(CheckedFit(fit=fit, seed=1))
    assert moments.passed is False
    assert moments.trouble is Trust.not_judged
    assert "could not be made" in moments.finding
