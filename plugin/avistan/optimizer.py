"""The optimizer: Adam with a warm-up and a cosine decay, guarded against wild gradients.

The guards work on each entry alone: a global norm would cost another pass over all parameters in every step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jaxtyping import Array, Float, Int

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
    """Adam's moments in single precision; the second one as its root, which the guard and the step both need."""

    steps: Int[Array, ""]
    first: optax.Updates
    second_root: optax.Updates


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


def guarded_adam() -> optax.GradientTransformation:
    """Directions of Adam, at most 1 in every entry (`NETWORK_RATE` in float32 leaves, which are networks).

    An entry of the gradient beyond `LIMIT` times its running root mean square is shortened to that, and one that is not
    finite counts as zero: a single wild draw moves neither the parameters nor the moments far. native/step.cpp does the
    same for a table.

    Source: Kingma & Ba, "Adam", ICLR 2015.
    """

    def init(params: optax.Params) -> GuardedAdamState:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype=jnp.float32), params)
        return GuardedAdamState(jnp.zeros((), dtype=jnp.int32), zeros, zeros)

    def update(
        updates: optax.Updates, state: GuardedAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, GuardedAdamState]:
        scales = (s.astype(jnp.float32) for s in adam_scales((state.steps + 1).astype(jnp.float64)))
        first_scale, root_scale, bound_scale = scales

        def guard(g: Float[Array, ...], root: Float[Array, ...]) -> Float[Array, ...]:
            g = g.astype(jnp.float32)
            bound = jnp.where(root > 0, bound_scale * root, jnp.inf)
            return jnp.clip(jnp.where(jnp.isfinite(g), g, 0), -bound, bound)

        def next_root(root: Float[Array, ...], g: Float[Array, ...]) -> Float[Array, ...]:
            return jnp.sqrt(SECOND_DECAY * root**2 + (1 - SECOND_DECAY) * g**2)

        def direction(
            m: Float[Array, ...], root: Float[Array, ...], g: Float[Array, ...]
        ) -> Float[Array, ...]:
            rate = NETWORK_RATE if g.dtype == jnp.float32 else 1.0
            return (rate * jnp.clip(m * first_scale / (root * root_scale + 1e-8), -1.0, 1.0)).astype(g.dtype)

        gradient = jax.tree.map(guard, updates, state.second_root)
        first = jax.tree.map(lambda m, g: FIRST_DECAY * m + (1 - FIRST_DECAY) * g, state.first, gradient)
        second_root = jax.tree.map(next_root, state.second_root, gradient)
        directions = jax.tree.map(direction, first, second_root, updates)
        return directions, GuardedAdamState(state.steps + 1, first, second_root)

    return optax.GradientTransformation(init, update)
