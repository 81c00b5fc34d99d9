"""Newton's steps to a mode that a start does not know, and the curvature there."""

import numpy as np

from avistan.correction.laplace import Gaussian, laplace


class Known:
    """A density with its gradient."""

    evaluations = 0

    def __init__(self, size, log_p_gradient):
        self.size, self.log_p_gradient = size, log_p_gradient


def test_a_ridge_is_found_from_a_start_that_is_far_too_narrow():
    precision = np.array([[1.0, 0.9999], [0.9999, 1.0]])
    mean = np.array([30.0, -20.0])

    def log_p_gradient(theta):
        away = theta - mean
        return -0.5 * np.einsum("si,ij,sj->s", away, precision, away), -away @ precision

    found = laplace(Known(2, log_p_gradient), Gaussian(np.zeros(2), np.eye(2)))
    np.testing.assert_allclose(found.mean, mean, atol=1e-3)
    np.testing.assert_allclose(found.factor @ found.factor.T, np.linalg.inv(precision), rtol=1e-4)


def test_a_density_without_a_mode_has_none():
    def log_p_gradient(theta):
        return theta[:, 0], np.ones_like(theta)

    assert laplace(Known(1, log_p_gradient), Gaussian(np.zeros(1), np.eye(1))) is None


def test_steps_are_shortened_where_the_curvature_changes_fast():
    def log_p_gradient(theta):
        x = theta[:, 0]
        return -np.exp(3 * x) + 3 * x, (-3 * np.exp(3 * x) + 3)[:, None]

    found = laplace(Known(1, log_p_gradient), Gaussian(np.array([2.0]), np.eye(1)))
    np.testing.assert_allclose(found.mean, 0, atol=0.02)
    np.testing.assert_allclose(found.factor, 1 / 3, rtol=0.05)
