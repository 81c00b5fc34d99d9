"""Monomials: values, slopes, and those that gradients show among very many."""

import numpy as np

from avistan.correction.laplace import Gaussian
from avistan.correction.surface import fit_surface
from avistan.correction.terms import (
    all_factors,
    is_complete,
    slopes_of_terms,
    strongest_factors,
    values_of_terms,
)

SIZE = 60  # whose monomials up to the third degree are 39,711


def planted(x):
    """A function of 60 variables with three terms, and its slopes."""
    value = 0.3 * x[:, 0] * x[:, 1] ** 2 - 0.2 * x[:, 2] * x[:, 3] * x[:, 4] + 0.4 * x[:, 5] * x[:, 6]
    slope = np.zeros_like(x)
    slope[:, 0], slope[:, 1] = 0.3 * x[:, 1] ** 2, 0.6 * x[:, 0] * x[:, 1]
    slope[:, 2], slope[:, 3] = -0.2 * x[:, 3] * x[:, 4], -0.2 * x[:, 2] * x[:, 4]
    slope[:, 4] = -0.2 * x[:, 2] * x[:, 3]
    slope[:, 5], slope[:, 6] = 0.4 * x[:, 6], 0.4 * x[:, 5]
    return value, slope


def test_slopes_are_the_derivatives_of_values():
    factors = all_factors(3, 3)
    x = np.random.default_rng(1).normal(size=(5, 3))
    for variable in range(3):
        step = np.eye(3)[variable] * 1e-5
        ahead, behind = (values_of_terms(x + sign * step, factors) for sign in (1, -1))
        np.testing.assert_allclose(
            slopes_of_terms(x, factors)[:, variable], (ahead - behind) / 2e-5, atol=1e-8
        )


def test_all_terms_are_complete_where_they_are_few():
    assert is_complete(all_factors(10, 3), 10)
    assert not is_complete(all_factors(25, 3), 25)
    assert all_factors(SIZE, 3) is None


def test_the_terms_of_a_function_are_found_among_tens_of_thousands():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, SIZE))
    _, slope = planted(x)
    noisy = slope + 0.05 * rng.normal(size=slope.shape)
    found = strongest_factors(x, noisy, rng.gamma(4, size=400), 1 + SIZE + 3)
    assert {tuple(row) for row in found[1 + SIZE :]} == {(0, 1, 1), (2, 3, 4), (5, 6, SIZE)}


def test_noise_shows_few_terms():
    rng = np.random.default_rng(5)
    found = strongest_factors(rng.normal(size=(400, SIZE)), rng.normal(size=(400, SIZE)), np.ones(400), 10**6)
    assert len(found) - 1 - SIZE < 0.04 * 39_711  # 2.5 standard errors are passed by one in eighty


def test_of_too_many_variables_none_are_shown():
    assert strongest_factors(np.zeros((2, 200)), np.zeros((2, 200)), np.ones(2), 10) is None


def test_a_surface_of_60_variables_has_the_terms_that_count():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(500, SIZE))
    value, slope = planted(x)
    around = Gaussian(np.zeros(SIZE), np.eye(SIZE))
    found = fit_surface(x, value - 0.5 * (x**2).sum(axis=1), slope - x, np.zeros(500), around)
    assert value.std() > 0.5
    assert found.error < 0.02
