"""A network is brought near the parameters that units are known to have, before training asks Stan for anything.

A quick fit gives every unit a rough normal. The divergence of a network's normals from these is a sum of squares, to
second order, and cheap: its descent takes a network's passes alone, where a step of training also takes Stan's
gradients, and noise. What training then has to learn is little.

Source: Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32

ENOUGH = 1.0  # nats of divergence in all, below which nothing is done
_UNITS = 1000  # that are looked at
_MOST = 1e18  # of a target or a weight: single precision holds their products with a square
_STEPS, _RATE, _WARM_UP = 400, 0.02, 50


def distil[Parameters](
    outputs: Callable[[Parameters, Array], Array],
    parameters: Parameters,
    inputs: Float32[np.ndarray, "N R"],
    targets: Float[np.ndarray, "N P"],
    weights: Float[np.ndarray, "N P"],
) -> Parameters:
    """Parameters whose outputs are near some targets, after a descent of the weighted squares of the errors.

    Full-batch Adam along a cosine, on an even selection of the units where these are many. The parameters stay as they
    are where their divergence is below `ENOUGH`, or is no smaller in the end.

    Args:
        outputs: (N, P), of parameters and inputs (N, R).
        parameters: a tree of arrays in single precision.
        weights: of the squares, so that their sum is a divergence in nats.
    """
    some = np.unique(np.linspace(0, len(inputs) - 1, min(_UNITS, len(inputs))).astype(int))
    y, w = (np.clip(part[some], -_MOST, _MOST).astype(np.float32) for part in (targets, weights))
    given = inputs[some], y, w
    begun = float(_divergence(outputs, parameters, *given))
    if not begun > ENOUGH * len(some) / len(inputs):
        return parameters
    end = _descended(outputs, parameters, *given)
    return end if float(_divergence(outputs, end, *given)) < begun else parameters


@functools.partial(jax.jit, static_argnums=0)
def _divergence[Parameters](
    outputs: Callable[[Parameters, Array], Array], parameters: Parameters, x: Array, y: Array, w: Array
) -> Float32[Array, ""]:
    return jnp.sum(w * (outputs(parameters, x) - y) ** 2)


@functools.partial(jax.jit, static_argnums=0)
def _descended[Parameters](
    outputs: Callable[[Parameters, Array], Array], start: Parameters, x: Array, y: Array, w: Array
) -> Parameters:
    warm_up = optax.linear_schedule(1 / _WARM_UP, 1.0, _WARM_UP - 1)
    cosine = optax.cosine_decay_schedule(_RATE, _STEPS)
    adam = optax.adam(lambda step: warm_up(step) * cosine(step), b1=0.9, b2=0.99)

    def step(carry: tuple[Parameters, Any], _: None) -> tuple[tuple[Parameters, Any], None]:
        parameters, state = carry
        gradient = jax.grad(_divergence, argnums=1)(outputs, parameters, x, y, w)
        updates, state = adam.update(gradient, state)
        return (optax.apply_updates(parameters, updates), state), None

    with jax.numpy_dtype_promotion("standard"):  # optax mixes precisions
        (end, _), _ = jax.lax.scan(step, (start, adam.init(start)), None, length=_STEPS)
    return end
