"""The optimizer: Adam with a warm-up and a cosine decay, guarded against wild gradients.

The guards work on each entry alone: a global norm would cost another pass over all parameters in every step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

NETWORK_RATE = (
    0.25  # learning rate of a network relative to that of free parameters: one weight moves all units
)
WARM_UP_STEPS = 100
FINAL_RATE = 1e-3  # of the learning rate, at the last step


def learning_rates(step: Int[Array, " steps"], peak: float, steps: int) -> Float[Array, " steps"]:
    """The rates of some of `steps` steps: a short linear warm-up, then a cosine down to `FINAL_RATE` of the peak."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.1 * peak, peak, min(WARM_UP_STEPS, steps // 10), steps, FINAL_RATE * peak
    )
    with jax.numpy_dtype_promotion("standard"):
        return jnp.asarray(schedule(step), dtype=jnp.float64)


class GuardedAdamState(NamedTuple):
    """Adam's moments."""

    steps: Int[Array, ""]
    first: optax.Updates
    second: optax.Updates


def guarded_adam(
    first_decay: float = 0.9, second_decay: float = 0.99, limit: float = 10.0
) -> optax.GradientTransformation:
    """Directions of Adam, at most 1 in every entry (`NETWORK_RATE` in float32 leaves, which are networks).

    An entry of the gradient beyond `limit` times its running root mean square is shortened to that, and one that is not
    finite counts as zero: a single wild draw moves neither the parameters nor the moments far.

    Source: Kingma & Ba, "Adam", ICLR 2015.
    """

    def init(params: optax.Params) -> GuardedAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return GuardedAdamState(jnp.zeros((), dtype=jnp.int32), zeros, zeros)

    def update(
        updates: optax.Updates, state: GuardedAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, GuardedAdamState]:
        steps = (state.steps + 1).astype(jnp.float64)
        first_scale = 1 / (1 - first_decay**steps)
        second_scale = 1 / (1 - second_decay**steps)
        earlier = jnp.where(state.steps > 0, limit**2 / (1 - second_decay ** (steps - 1)), jnp.inf)

        def guard(g: Float[Array, ...], v: Float[Array, ...]) -> Float[Array, ...]:
            bound = jnp.where(v > 0, jnp.sqrt(earlier.astype(g.dtype) * v), jnp.inf)
            return jnp.clip(jnp.where(jnp.isfinite(g), g, 0), -bound, bound)

        def direction(m: Float[Array, ...], v: Float[Array, ...]) -> Float[Array, ...]:
            rate = NETWORK_RATE if m.dtype == jnp.float32 else 1.0
            scaled = m * first_scale.astype(m.dtype) / (jnp.sqrt(v * second_scale.astype(m.dtype)) + 1e-8)
            return rate * jnp.clip(scaled, -1.0, 1.0)

        gradient = jax.tree.map(guard, updates, state.second)
        first = jax.tree.map(lambda m, g: first_decay * m + (1 - first_decay) * g, state.first, gradient)
        second = jax.tree.map(
            lambda v, g: second_decay * v + (1 - second_decay) * g**2, state.second, gradient
        )
        return jax.tree.map(direction, first, second), GuardedAdamState(state.steps + 1, first, second)

    return optax.GradientTransformation(init, update)
