"""A network brought near known parameters: its gradient against finite differences, and what the descent reaches."""

from __future__ import annotations

import jax
import numpy as np
import numpy.typing as npt

from avistan.family.distillation import ENOUGH, distil
from avistan.family.functions import LocalNu, make_mlp

FloatArray = npt.NDArray[np.float64]


def known_units(units: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], LocalNu]:
    """Inputs (N, 2) and parameters that no linear map of them gives."""
    inputs = rng.normal(size=(units, 2)).astype(np.float32)
    x = inputs.astype(np.float64)
    loc = np.stack([np.sin(3 * x[:, 0]) * x[:, 1]])
    log_sd = np.stack([-1 + 0.3 * np.cos(x[:, 1])])
    nothing = np.zeros((0, units))
    return inputs, LocalNu(loc, log_sd, *[nothing] * 5)  # type: ignore[arg-type]


def divergence_from(outputs: LocalNu, nu: LocalNu) -> float:
    """KL of normals from those of nu, to second order, nats."""
    errors = (np.asarray(outputs.loc) - nu.loc) * np.exp(-np.asarray(nu.log_sd))
    return float(0.5 * (errors**2).sum() + ((np.asarray(outputs.log_sd) - nu.log_sd) ** 2).sum())


def test_a_network_comes_near_parameters_that_its_projection_misses() -> None:
    inputs, nu = known_units(300, np.random.default_rng(1))
    start = LocalNu(*(np.zeros((len(part), 1)) for part in nu))  # type: ignore[arg-type]
    made = make_mlp(np.random.default_rng(0), 2, 32, start)
    hidden = inputs
    for weights, bias in made.layers[:-1]:
        raw = hidden @ np.asarray(weights) + np.asarray(bias)
        hidden = raw / (1 + np.exp(-raw))
    features = np.hstack([hidden, inputs, np.ones((300, 1))])
    best, *_ = np.linalg.lstsq(features, nu.loc[0])
    misses = (nu.loc[0] - features @ best) * np.exp(-np.asarray(nu.log_sd[0]))
    projection_alone = float(0.5 * (misses**2).sum())

    found = made.projected(inputs.astype(np.float64), nu)

    reached = divergence_from(found(jax.numpy.asarray(inputs)), nu)
    assert reached < 0.5 * projection_alone
    again = made.projected(inputs.astype(np.float64), nu)
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(again), strict=True)
    )


def test_parameters_that_are_near_stay() -> None:
    rng = np.random.default_rng(2)
    start = rng.normal(size=(2, 3)).astype(np.float32)
    inputs = rng.normal(size=(50, 2)).astype(np.float32)
    outputs = inputs @ start
    far = np.sqrt(0.5 * ENOUGH / outputs.size)
    ones = np.ones(outputs.shape)

    kept = distil(_line, start, inputs, outputs + far, ones)
    moved = distil(_line, start, inputs, outputs + 2 * far, ones)

    assert np.array_equal(kept, start)
    assert not np.array_equal(moved, start)


def test_the_descent_ends_at_the_weighted_least_squares() -> None:
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(200, 2)).astype(np.float32)
    targets, weights = rng.normal(size=(200, 1)), rng.uniform(0.1, 3, size=(200, 1))
    root = np.sqrt(weights)
    best, *_ = np.linalg.lstsq(root * inputs, root * targets)

    found = distil(_line, np.full((2, 1), 1.0, np.float32), inputs, targets, weights)

    np.testing.assert_allclose(found, best, atol=1e-3)


def _line(coefficients: jax.Array, inputs: jax.Array) -> jax.Array:
    return inputs @ coefficients
