"""A network brought near known parameters: its gradient against finite differences, and what the descent reaches."""

from __future__ import annotations

import jax
import numpy as np
import numpy.typing as npt
import pytest

from avistan.family.distillation import ENOUGH, _divergence, distil
from avistan.family.functions import LOG_SD_RANGE, LocalNu, make_mlp

FloatArray = npt.NDArray[np.float64]


def known_units(units: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], LocalNu]:
    """Inputs (N, 2) and parameters that no linear map of them gives."""
    inputs = rng.normal(size=(units, 2)).astype(np.float32)
    x = inputs.astype(np.float64)
    loc = np.stack([np.sin(3 * x[:, 0]) * x[:, 1]])
    log_sd = np.stack([-1 + 0.3 * np.cos(x[:, 1])])
    nothing = np.zeros((0, units))
    return inputs, LocalNu(loc, log_sd, nothing, nothing, nothing, nothing)  # type: ignore[arg-type]


def divergence_from(outputs: LocalNu, nu: LocalNu) -> float:
    """KL of normals from those of nu, to second order, nats."""
    errors = (np.asarray(outputs.loc) - nu.loc) * np.exp(-np.asarray(nu.log_sd))
    return float(0.5 * (errors**2).sum() + ((np.asarray(outputs.log_sd) - nu.log_sd) ** 2).sum())


@pytest.mark.parametrize("skip", [True, False])
def test_the_gradient_is_that_of_finite_differences(skip: bool) -> None:
    rng = np.random.default_rng(3)
    shapes = [(3, 4), (4,), (4, 5), (5,), (5, 2), (2,)] + ([(3, 2)] if skip else [])
    parameters = [rng.normal(size=shape) for shape in shapes]
    given = (
        rng.normal(size=(7, 3)),
        rng.normal(size=(7, 2)),
        rng.uniform(0.5, 2, size=(7, 2)),
        slice(1, 2),
        1.5,
    )

    _, gradient = _divergence(parameters, skip, *given)

    for part, slope in zip(parameters, gradient, strict=True):
        for at in np.ndindex(part.shape):
            ends = []
            for side in (1e-6, -1e-6):
                part[at] += side
                ends.append(_divergence(parameters, skip, *given)[0])
                part[at] -= side
            np.testing.assert_allclose(slope[at], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7)


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


def test_a_network_that_is_near_stays() -> None:
    rng = np.random.default_rng(2)
    layers = [
        (rng.normal(size=s).astype(np.float32), np.zeros(s[1], np.float32)) for s in [(2, 8), (8, 8), (8, 2)]
    ]
    inputs = rng.normal(size=(50, 2)).astype(np.float32)
    hidden = inputs
    for weights, _ in layers[:-1]:
        raw = hidden @ weights
        hidden = raw / (1 + np.exp(-raw))
    outputs = hidden @ layers[-1][0]
    outputs[:, 1] = LOG_SD_RANGE * np.tanh(outputs[:, 1] / LOG_SD_RANGE)
    far = np.sqrt(0.5 * ENOUGH / outputs.size)
    given = inputs, outputs + far, np.ones(outputs.shape), slice(1, 2), LOG_SD_RANGE

    kept, linear = distil(layers, None, *given)
    moved, _ = distil(layers, None, inputs, outputs + 2 * far, *given[2:])

    assert linear is None
    assert all(
        np.array_equal(a, b)
        for one, other in zip(kept, layers, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert not np.array_equal(moved[0][0], layers[0][0])
