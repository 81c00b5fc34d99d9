"""Markov chains of all units at once, against closed forms."""

import numpy as np
from scipy import stats

from programs import bind
from stan_adapters.units.conditional_density import UnitDensity
from stan_adapters.units.conditional_hmc import sample_units

GAMMAS = """
data { int N; vector<lower=0>[N] shape; }
parameters { real m; vector[N] z; }
model { m ~ std_normal(); target += dot_product(shape, z - m) - sum(exp(z - m)); }
"""
PAIRS = """
data { int N; matrix[N, 2] y; }
parameters { real m; matrix[N, 2] z; }
model {
  m ~ std_normal();
  for (n in 1:N) {
    z[n, 1] ~ normal(m, 1);
    z[n, 2] ~ normal(0.9 * z[n, 1], 0.3);
    y[n] ~ normal(z[n], 1);
  }
}
"""


def test_chains_have_the_distribution_of_each_unit():
    shape = np.array([0.5, 3.0, 40.0])
    rng = np.random.default_rng(1)
    with bind(GAMMAS, {"N": 3, "shape": shape}) as model:
        density = UnitDensity(model, np.arange(1, 4)[:, None], np.array([0]))
        theta = np.linspace(-1, 1, 20)[:, None]
        modes = density.modes(theta, np.zeros((20, 3, 1)))
        draws, accepted = sample_units(density, theta, modes, rng, draws=150)
    assert (accepted > 0.6).all()
    gammas = np.exp(
        draws[::3, :, :, 0] - theta
    )  # every third draw: moves of a quarter turn are soon independent
    for n in range(3):
        assert stats.kstest(gammas[..., n].ravel(), stats.gamma(shape[n]).cdf).pvalue > 1e-3


def test_chains_of_correlated_pairs_have_the_right_covariances():
    y = np.array([[0.0, 1.0], [3.0, -2.0]])
    rng = np.random.default_rng(2)
    with bind(PAIRS, {"N": 2, "y": y}) as model:
        density = UnitDensity(model, np.array([[1, 3], [2, 4]]), np.array([0]))
        theta = np.zeros((20, 1))
        modes = density.modes(theta, np.zeros((20, 2, 2)))
        draws, _ = sample_units(density, theta, modes, rng, draws=200)
    slope, precision = np.array([-0.9, 1.0]), 1 / 0.3**2
    prior = np.array([[1.0, 0.0], [0.0, 0.0]]) + precision * np.outer(slope, slope)
    covariance = np.linalg.inv(prior + np.eye(2))
    for n in range(2):
        mine = draws[:, :, n].reshape(-1, 2)
        error = (mine.mean(axis=0) - covariance @ y[n]) / np.sqrt(np.diag(covariance))
        assert np.abs(error).max() < 5 * np.sqrt(3 / len(mine))
        np.testing.assert_allclose(np.cov(mine.T), covariance, rtol=0.12)
