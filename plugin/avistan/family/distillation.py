"""A network is brought near the parameters that units are known to have, before training asks Stan for anything.

A quick fit gives every unit a rough normal. The divergence of a network's normals from these is a sum of squares, to
second order, and cheap: its descent takes a network's passes alone, where a step of training also takes Stan's
gradients, and noise. What training then has to learn is little.

Source: Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32

from avistan.runtime.device import on_device

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
    enough = on_device(ENOUGH * len(some) / len(inputs), np.float32)
    return _descended(outputs, parameters, inputs[some], y, w, enough)


@eqx.filter_jit
def _descended[Parameters](
    outputs: Callable[[Parameters, Array], Array],
    start: Parameters,
    x: Array,
    y: Array,
    w: Array,
    enough: Array,
) -> Parameters:
    warm_up = optax.linear_schedule(1 / _WARM_UP, 1.0, _WARM_UP - 1)
    cosine = optax.cosine_decay_schedule(_RATE, _STEPS)
    adam = optax.adam(lambda step: warm_up(step) * cosine(step), b1=0.9, b2=0.99)

    def divergence(parameters: Parameters) -> Array:
        return jnp.sum(w * (outputs(parameters, x) - y) ** 2)

    def step(carry: tuple[Parameters, Any], _: None) -> tuple[tuple[Parameters, Any], None]:
        parameters, state = carry
        updates, state = adam.update(jax.grad(divergence)(parameters), state)
        return (optax.apply_updates(parameters, updates), state), None

    def descent(start: Parameters) -> Parameters:
        (end, _), _ = jax.lax.scan(step, (start, adam.init(start)), None, length=_STEPS)
        nearer: Parameters = optax.tree.where(divergence(end) < divergence(start), end, start)
        return nearer

    with jax.numpy_dtype_promotion("standard"):  # optax mixes precisions
        near: Parameters = jax.lax.cond(divergence(start) > enough, descent, lambda start: start, start)
    return near
