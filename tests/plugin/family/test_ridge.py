"""Ridge regression and functions that start near given parameters."""

import jax.numpy as jnp
import numpy as np
import pytest

from avistan.family.functions import LocalNu, make_mlp, make_polynomial
from avistan.family.ridge import ridge


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_a_linear_target_is_found_through_its_noise(rng):
    features = rng.normal(size=(2000, 4)) * [1, 10, 0.1, 1]
    truth, intercept = np.array([[1.0], [0.3], [-20.0], [0.0]]), 5.0
    targets = features @ truth + intercept + 0.1 * rng.normal(size=(2000, 1))
    coefficients, found = ridge(features, targets)
    np.testing.assert_allclose((coefficients - truth) * features.std(axis=0)[:, None], 0, atol=0.05)
    np.testing.assert_allclose(found, intercept, atol=0.05)


def test_columns_that_never_vary_get_no_coefficient(rng):
    features = np.column_stack([np.ones(50), rng.normal(size=50)])
    coefficients, _ = ridge(features, features[:, 1:] * 2)
    assert coefficients[0, 0] == 0
    assert np.isclose(coefficients[1, 0], 2, rtol=0.05)
    assert (ridge(np.ones((5, 2)), np.arange(5.0)[:, None])[0] == 0).all()


def test_pure_noise_is_shrunk(rng):
    features, noise = rng.normal(size=(60, 20)), rng.normal(size=(60, 1))
    free, *_ = np.linalg.lstsq(features, noise, rcond=None)
    assert np.linalg.norm(ridge(features, noise)[0]) < 0.5 * np.linalg.norm(free)


def test_heavier_rows_are_met_more_closely(rng):
    x = rng.normal(size=(200, 1))
    targets = np.where(np.arange(200)[:, None] < 100, x, -x)
    weights = np.where(np.arange(200) < 100, 10.0, 1.0)
    assert ridge(x, targets, weights)[0][0, 0] > 0.5


@pytest.mark.parametrize("kind", ["mlp", "polynomial"])
def test_a_projected_function_gives_each_unit_nearly_its_own_parameters(kind, rng):
    inputs = rng.normal(size=(500, 2))
    nu = LocalNu(
        jnp.asarray([np.sin(inputs[:, 0]) + inputs[:, 1]]),
        jnp.asarray([-1 + 0.2 * inputs[:, 0]]),
        jnp.zeros((0, 500)),
        jnp.zeros((0, 500)),
        jnp.zeros((0, 500)),
        jnp.zeros((0, 500)),
        jnp.zeros((0, 500)),
    )
    start = LocalNu(jnp.zeros((1, 1)), jnp.zeros((1, 1)), *[jnp.zeros((0, 1))] * 5)
    made = make_mlp(np.random.default_rng(1), 2, 64, start) if kind == "mlp" else make_polynomial(2, 3, start)
    found = made.projected(inputs, nu)(jnp.asarray(inputs, dtype=jnp.float32))
    assert np.sqrt(np.mean((found.loc - nu.loc) ** 2)) < 0.15 * np.std(nu.loc)
    np.testing.assert_allclose(found.log_sd, nu.log_sd, atol=0.15)
    assert np.std(made(jnp.asarray(inputs, dtype=jnp.float32)).loc) == 0
