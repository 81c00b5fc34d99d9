"""The climb on fixed draws: ridges with known answers, densities that reject, and fits that begin on a ridge."""

import numpy as np
import pytest

import avistan as avi
from avistan.start.fixed_draws import climbed
from avistan.start.quick_fit import quick_fit
from programs import bind

GROWTH = """
data { int<lower=0> J; int<lower=0> T; vector[T] day; matrix[J, T] weight; }
parameters {
  vector[J] level; vector[J] rate; real mu_level; real mu_rate;
  real<lower=0> sigma; real<lower=0> tau_level; real<lower=0> tau_rate;
}
model {
  mu_level ~ normal(0, 1000); mu_rate ~ normal(0, 1000);
  level ~ normal(mu_level, tau_level); rate ~ normal(mu_rate, tau_rate);
  for (j in 1:J) weight[j] ~ normal(level[j] + rate[j] * (day - mean(day)), sigma);
}
"""


class Normal:
    """A normal density (D,) with a precision; where `rejects` says so it is not finite."""

    def __init__(self, mean, precision, rejects=lambda row: False):
        self.mean, self.precision, self.rejects, self.dim = mean, precision, rejects, len(mean)

    def log_density_gradient(self, theta):
        pull = (theta - self.mean) @ self.precision
        lp = -0.5 * ((theta - self.mean) * pull).sum(axis=1)
        return np.where([self.rejects(row) for row in theta], -np.inf, lp), -pull

    def why_rejected(self, theta):
        return "outside"


def tied(units):
    """Units that hang tightly on their mean and are pulled weakly to 300: precision of (mean, units)."""
    precision = np.zeros((units + 1, units + 1))
    precision[0, 0] = 1e4 * units
    precision[0, 1:] = precision[1:, 0] = -1e4
    precision[1:, 1:] = (1e4 + 1e-3) * np.eye(units)
    return Normal(np.full(units + 1, 300.0), precision)


def test_units_that_hang_on_their_mean_go_together_where_no_entry_alone_would_gain():
    density = tied(20)
    start, sd = np.zeros(21), 1 / np.sqrt(np.diag(density.precision))
    _, gradient = density.log_density_gradient(start[None])
    assert np.abs(gradient * sd).max() < 0.01  # in sds of its own, each entry seems to be at rest
    found = climbed(density, start, sd, np.random.default_rng(1))
    np.testing.assert_allclose(found.mean, 300.0, atol=40.0)
    np.testing.assert_allclose(found.gain, 0.5 * 20 * 1e-3 * 300**2, rtol=0.05)


def test_a_normal_that_is_best_already_is_left_alone():
    density = Normal(np.array([1.0, -2.0]), np.diag([4.0, 0.25]))
    found = climbed(density, density.mean, np.array([0.5, 2.0]), np.random.default_rng(1))
    assert found is None or found.gain < 0.01


def test_the_climb_keeps_to_where_the_density_is_finite():
    density = Normal(np.array([4.0]), np.array([[1.0]]), rejects=lambda row: row[0] < 0)
    found = climbed(density, np.array([8.0]), np.array([4.0]), np.random.default_rng(1))
    assert found.gain > 0
    assert 3.0 < found.mean[0] < 6.0
    assert (
        climbed(
            Normal(np.zeros(1), np.eye(1), rejects=lambda row: True),
            np.ones(1),
            np.ones(1),
            np.random.default_rng(1),
        )
        is None
    )


@pytest.fixture(scope="module")
def growth_data():
    rng = np.random.default_rng(21)
    day = np.array([5.0, 12, 19, 26, 33, 40])
    level, rate = rng.normal(310, 20, 25), rng.normal(7.5, 0.7, 25)
    weight = level[:, None] + rate[:, None] * (day - day.mean()) + rng.normal(0, 5, (25, 6))
    return {"J": 25, "T": 6, "day": day, "weight": weight}


def test_growth_curves_in_grams_start_where_their_levels_are(growth_data):
    with bind(GROWTH, growth_data) as model:
        fits = [quick_fit(model, seed=seed) for seed in (1, 2, 3)]
    own = growth_data["weight"].mean(axis=1)
    for fit in fits:
        np.testing.assert_allclose(fit.mean[:25], own, atol=10)
        assert abs(fit.mean[52] - np.log(5)) < 0.3  # sigma


def test_fits_of_growth_curves_end_in_one_place_whatever_the_seed(growth_data):
    model = avi.Model(stan_code=GROWTH, data=growth_data)
    elbos = [model.fit(method="fvi", seed=seed).elbo for seed in (1, 2)]
    assert max(elbos) - min(elbos) < 1
