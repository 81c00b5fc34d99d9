"""Polynomials through values and gradients: what they predict, and what they say of themselves."""

import numpy as np
import pytest

from avistan.correction.laplace import Gaussian
from avistan.correction.surface import fit_surface, quadratic

AROUND = Gaussian(np.array([1.0, -2.0]), np.array([[2.0, 0.0], [0.5, 1.0]]))


def points(count, seed=1):
    normals = np.random.default_rng(seed).normal(size=(count, 2))
    return AROUND.mean + normals @ AROUND.factor.T


def cubic(theta):
    x = np.linalg.solve(AROUND.factor, (theta - AROUND.mean).T).T
    value = -0.5 * (x**2).sum(axis=1) + 0.1 * x[:, 0] ** 3 - 0.2 * x[:, 0] * x[:, 1] ** 2 + 0.3 * x[:, 1]
    slope = -x + np.column_stack([0.3 * x[:, 0] ** 2 - 0.2 * x[:, 1] ** 2, 0.3 - 0.4 * x[:, 0] * x[:, 1]])
    return value, slope @ np.linalg.inv(AROUND.factor)


def test_a_cubic_is_met_exactly_from_few_values():
    theta = points(40)
    value, slope = cubic(theta)
    surface = fit_surface(theta, value, slope, np.zeros(40), AROUND)
    assert surface.error < 1e-5
    inside = points(200, seed=2)
    away = np.linalg.norm(np.linalg.solve(AROUND.factor, (inside - AROUND.mean).T), axis=0)
    inside = inside[away < 0.9 * surface.radius]
    square = (np.linalg.solve(AROUND.factor, (inside - AROUND.mean).T) ** 2).sum(axis=0)
    risen = cubic(inside)[0] + 0.5 * square
    known = np.clip(risen, surface.lowest, surface.highest)  # no value that was known lies beyond
    np.testing.assert_allclose(surface.log_density(inside), known - 0.5 * square, atol=1e-4)


def test_what_no_polynomial_meets_is_told_by_its_error():
    theta = points(60)
    rough = np.random.default_rng(4).normal(size=60)
    value, slope = cubic(theta)
    surface = fit_surface(theta, value + rough, slope, np.zeros(60), AROUND)
    assert surface.error == pytest.approx(1.0, abs=0.35)


def test_too_few_values_give_none():
    theta = points(8)
    assert fit_surface(theta, *cubic(theta), np.zeros(8), AROUND) is None


def test_a_gaussian_is_found_from_values_far_from_it():
    precision = np.array([[4.0, 1.0], [1.0, 0.5]])
    mean = np.array([3.0, 1.0])
    theta = points(12)
    away = theta - mean
    value, slope = -0.5 * np.einsum("si,ij,sj->s", away, precision, away), -away @ precision
    found = quadratic(theta, value, slope, np.ones(12), AROUND)
    np.testing.assert_allclose(found.mean, mean, atol=1e-4)
    np.testing.assert_allclose(found.factor @ found.factor.T, np.linalg.inv(precision), rtol=1e-4)
    assert quadratic(theta[:1], value[:1], slope[:1], np.ones(1), AROUND) is None
    assert quadratic(theta, -value, -slope, np.ones(12), AROUND) is None  # a valley


def test_gradients_that_are_all_off_by_the_same_do_not_tilt_it():
    rng = np.random.default_rng(4)
    theta = rng.normal(size=(150, 2))
    log_p = -0.5 * (theta**2).sum(axis=1) + 0.1 * theta[:, 0] ** 3
    gradient = -theta + np.column_stack([0.3 * theta[:, 0] ** 2, np.zeros(150)])
    found = fit_surface(theta, log_p, gradient + 0.7, np.zeros(150), Gaussian(np.zeros(2), np.eye(2)))
    assert found is not None
    assert found.error < 1e-3
    some = rng.normal(size=(20, 2)) * 0.5
    right = -0.5 * (some**2).sum(axis=1) + 0.1 * some[:, 0] ** 3
    np.testing.assert_allclose(
        found.log_density(some) - found.log_density(some)[0], right - right[0], atol=5e-3
    )


def test_a_gaussian_of_very_many_parameters_is_found_from_few_slopes():
    size, count = 80, 150
    rng = np.random.default_rng(7)
    theta = rng.normal(size=(count, size))
    mixed = 0.3 * rng.normal(size=(size, size)) / np.sqrt(size)
    precision = np.eye(size) + 0.5 * (mixed + mixed.T)
    mean = 0.5 * rng.normal(size=size)
    away = theta - mean
    value, slope = -0.5 * np.einsum("si,ij,sj->s", away, precision, away), -away @ precision
    around = Gaussian(np.zeros(size), np.eye(size))
    found = quadratic(theta, value, slope, np.ones(count), around)
    np.testing.assert_allclose(found.mean, mean, atol=0.01)
    np.testing.assert_allclose(found.factor @ found.factor.T, np.linalg.inv(precision), atol=0.01)
    noisy = quadratic(theta, value, slope + rng.normal(size=slope.shape), np.ones(count), around)
    of_mean_slope = np.sqrt(size / count)  # what noise in the slopes' mean alone moves, about
    assert np.linalg.norm(noisy.mean - mean) < 2 * of_mean_slope
    spread = noisy.factor @ noisy.factor.T - np.linalg.inv(precision)
    assert np.linalg.norm(spread) < np.linalg.norm(np.eye(size) - np.linalg.inv(precision))
