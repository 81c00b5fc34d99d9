"""Maps that make skewed parameters nearly Gaussian."""

import numpy as np
import pytest
from scipy.stats import norm, skew

from avistan.correction.bends import Bends, fit_bends, no_bends
from avistan.correction.laplace import Gaussian
from avistan.correction.proposals import student

SOME = Bends(np.array([1.0, -2.0]), np.array([0.5, 3.0]), np.array([0.4, -0.3]), np.array([1.2, 0.9]))
ROWS = np.random.default_rng(1).normal(size=(50, 2))


def test_inward_undoes_outward():
    np.testing.assert_allclose(SOME.inward(SOME.outward(ROWS)), ROWS, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(no_bends(2).outward(ROWS), ROWS, atol=1e-12)


def test_slopes_and_gradients_are_those_of_finite_differences():
    step = 1e-6
    ahead, behind = SOME.outward(ROWS + step), SOME.outward(ROWS - step)
    np.testing.assert_allclose(SOME.slopes(ROWS), (ahead - behind) / (2 * step), rtol=1e-6)
    # Of log p(theta) = -theta^2 / 2 as a density of u.
    for column in range(2):
        shift = step * np.eye(2)[column]
        up, down = (
            -0.5 * (SOME.outward(u) ** 2).sum(axis=1) + SOME.log_volume(u)
            for u in (ROWS + shift, ROWS - shift)
        )
        pulled = SOME.pulled(ROWS, -SOME.outward(ROWS))[:, column]
        np.testing.assert_allclose(pulled, (up - down) / (2 * step), rtol=1e-5, atol=1e-7)


def test_the_density_of_a_bent_proposal_integrates_to_one():
    bends = Bends(*(part[:1] for part in (SOME.center, SOME.scale, SOME.epsilon, SOME.delta)))
    made = bends.proposal(student(Gaussian(np.zeros(1), np.eye(1))))
    grid = np.linspace(-20, 40, 60_001)[:, None]
    assert np.trapezoid(np.exp(made.log_density(grid)), grid[:, 0]) == pytest.approx(1, abs=1e-6)


def test_weighted_draws_of_a_skewed_density_become_nearly_normal():
    rng = np.random.default_rng(2)
    u = 1.5 * rng.normal(size=(20_000, 1))
    weights = np.exp(norm.logpdf(u[:, 0]) - norm.logpdf(u[:, 0], scale=1.5))
    theta = np.exp(0.4 * u)
    made = fit_bends(theta, weights / weights.sum())
    assert made is not None
    straight = made.inward(np.exp(0.4 * rng.normal(size=(20_000, 1))))
    assert abs(skew(straight[:, 0])) < 0.25 * skew(np.exp(0.4 * rng.normal(size=20_000)))
    assert straight.std() == pytest.approx(1, abs=0.05)


def test_draws_of_a_normal_need_no_map():
    u = norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    assert fit_bends(u, np.full(4000, 1 / 4000)) is None
