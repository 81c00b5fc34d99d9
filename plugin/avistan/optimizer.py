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
    """Adam's moments; the second one as its square root, which the guard and the step both need."""

    steps: Int[Array, ""]
    first: optax.Updates
    second_root: optax.Updates


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
        root_scale = jnp.sqrt(1 / (1 - second_decay**steps))
        bound_scale = limit * jnp.sqrt(1 / (1 - second_decay ** jnp.maximum(steps - 1, 1.0)))

        def guard(g: Float[Array, ...], root: Float[Array, ...]) -> Float[Array, ...]:
            bound = jnp.where(root > 0, bound_scale.astype(g.dtype) * root, jnp.inf)
            return jnp.clip(jnp.where(jnp.isfinite(g), g, 0), -bound, bound)

        def next_root(root: Float[Array, ...], g: Float[Array, ...]) -> Float[Array, ...]:
            return jnp.sqrt(second_decay * root**2 + (1 - second_decay) * g**2)

        def direction(m: Float[Array, ...], root: Float[Array, ...]) -> Float[Array, ...]:
            rate = NETWORK_RATE if m.dtype == jnp.float32 else 1.0
            scaled = m * first_scale.astype(m.dtype) / (root * root_scale.astype(m.dtype) + 1e-8)
            return rate * jnp.clip(scaled, -1.0, 1.0)

        gradient = jax.tree.map(guard, updates, state.second_root)
        first = jax.tree.map(lambda m, g: first_decay * m + (1 - first_decay) * g, state.first, gradient)
        second_root = jax.tree.map(next_root, state.second_root, gradient)
        return jax.tree.map(direction, first, second_root), GuardedAdamState(
            state.steps + 1, first, second_root
        )

    return optax.GradientTransformation(init, update)
