"""The optimizer: Adam with a warm-up and a cosine decay, guarded against wild gradients.

The guards work on each entry alone: a global norm would cost another pass over all parameters in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Float32, Int

from avistan.runtime.device import zeros

NETWORK_RATE = (
    0.25  # learning rate of a network relative to that of free parameters: one weight moves all units
)
WARM_UP_STEPS = 100
FINAL_RATE = 1e-3  # of the learning rate, at the last step


def learning_rates(step: npt.NDArray[np.int64], peak: float, steps: int) -> npt.NDArray[np.float64]:
    """The rates of some of `steps` steps: a short linear warm-up, then a cosine down to `FINAL_RATE` of the peak."""
    warm_up = min(WARM_UP_STEPS, steps // 10)
    rising = 0.1 + 0.9 * step / max(warm_up, 1)
    turn = np.clip((step - warm_up) / max(steps - warm_up, 1), 0.0, 1.0)
    falling = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + np.cos(np.pi * turn))
    return np.asarray(peak * np.where(step < warm_up, rising, falling))


class GuardedAdamState(NamedTuple):
    """Adam's moments in single precision; the second one as its root, which the guard and the step both need.

    All parameters lie in one row: the fewer arrays, the fewer loops to compile.
    """

    steps: Int[Array, ""]
    first: Float32[Array, " P"]
    second_root: Float32[Array, " P"]


FIRST_DECAY, SECOND_DECAY = 0.9, 0.99
LIMIT = 10.0  # of an entry of the gradient, in running root mean squares


class AdamScales(NamedTuple):
    """What a step needs of its number: corrections for the start, and the guard's bound."""

    first: npt.NDArray[np.float64] | Float[Array, ""]
    root: npt.NDArray[np.float64] | Float[Array, ""]
    bound: npt.NDArray[np.float64] | Float[Array, ""]


def adam_scales(number: Any) -> AdamScales:
    """Scales of step `number`, counted from 1; numpy or JAX, float64."""
    return AdamScales(
        1 / (1 - FIRST_DECAY**number),
        (1 - SECOND_DECAY**number) ** -0.5,
        LIMIT * (1 - SECOND_DECAY ** (number - 1).clip(1.0)) ** -0.5,
    )


class Optimizer(NamedTuple):
    """A rule as pure functions: parameters -> state; gradients and state -> directions and the next state."""

    init: Callable[[Any], GuardedAdamState]
    update: Callable[[Any, GuardedAdamState], tuple[Any, GuardedAdamState]]


def guarded_adam() -> Optimizer:
    """Directions of Adam, at most 1 in every entry (`NETWORK_RATE` in float32 leaves, which are networks).

    An entry of the gradient beyond `LIMIT` times its running root mean square is shortened to that, and one that is not
    finite counts as zero: a single wild draw moves neither the parameters nor the moments far.
    native/training.cpp does the same for tables and networks.

    Source: Kingma & Ba, "Adam", ICLR 2015.
    """

    def init(params: Any) -> GuardedAdamState:
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        return GuardedAdamState(
            zeros(dtype=np.int32), zeros(size, dtype=np.float32), zeros(size, dtype=np.float32)
        )

    def update(updates: Any, state: GuardedAdamState) -> tuple[Any, GuardedAdamState]:
        scales = (s.astype(jnp.float32) for s in adam_scales((state.steps + 1).astype(jnp.float64)))
        first_scale, root_scale, bound_scale = scales
        leaves, structure = jax.tree.flatten(updates)
        flat = jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in leaves])
        bound = jnp.where(state.second_root > 0, bound_scale * state.second_root, jnp.inf)
        g = jnp.clip(jnp.where(jnp.isfinite(flat), flat, 0), -bound, bound)
        first = FIRST_DECAY * state.first + (1 - FIRST_DECAY) * g
        second_root = jnp.sqrt(SECOND_DECAY * state.second_root**2 + (1 - SECOND_DECAY) * g**2)
        direction = jnp.clip(first * first_scale / (second_root * root_scale + 1e-8), -1.0, 1.0)
        ends = np.cumsum([leaf.size for leaf in leaves]).tolist()
        parts = []
        for leaf, end in zip(leaves, ends, strict=True):
            rate = NETWORK_RATE if leaf.dtype == jnp.float32 else 1.0
            part = rate * direction[end - leaf.size : end]
            parts.append(part.reshape(leaf.shape).astype(leaf.dtype))
        return jax.tree.unflatten(structure, parts), GuardedAdamState(state.steps + 1, first, second_root)

    return Optimizer(init, update)
