"""The learning rule: Adam, guarded against wild gradients, with smaller steps for the weights of networks."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jaxtyping import Array

from avistan.family.functions import MLP
from avistan.training.unit_rows import Rows, along_rows

NETWORK_RATE = 0.25  # of the learning rate: one weight of a network moves all units
LIMIT = 10.0  # of an entry of the gradient, in running root mean squares
WARM_UP_STEPS = 100
FINAL_RATE = 1e-3  # of the learning rate, at the last step


def learning_rule(rows: Rows | None = None) -> optax.GradientTransformationExtraArgs:
    """Updates of parameters (P,) from gradients; `update` takes the learning rates of the step as `rate`, () or (P,),
    the most that entries move.

    Args:
        rows: entries that take natural-gradient steps instead, see `unit_rows`.

    Example:
        >>> rule, parameters = learning_rule(), jnp.zeros(2)
        >>> state = rule.init(parameters)
        >>> updates, state = rule.update(jnp.array([3.0, -1e9]), state, rate=jnp.array(0.02))
        >>> print(updates.round(3))
        [-0.02  0.02]

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """
    rule = optax.with_extra_args_support(
        optax.chain(
            scale_by_guarded_adam(b1=0.9, b2=0.99, limit=LIMIT),
            optax.clip(1.0),
            scale_by_rate(),
        )
    )
    return rule if rows is None else along_rows(rule, rows)


def scale_by_guarded_adam(b1: float, b2: float, limit: float) -> optax.GradientTransformation:
    """`optax.scale_by_adam` on gradients that are bounded entry by entry.

    An entry beyond `limit` times its root mean square so far, by Adam's second moment, is shortened to that, and one
    that is not finite counts as zero: a wild draw moves neither the parameters nor the moments far. Unlike a bound on
    the norm of the gradient this leaves the other entries as they are.
    """
    adam = optax.scale_by_adam(b1=b1, b2=b2)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        mean_square = optax.tree.bias_correction(state.nu, b2, jnp.maximum(state.count, 1))
        scaled, moments = adam.update(jax.tree.map(bounded, updates, mean_square), state, params)
        return scaled, moments

    def bounded(entries: Array, mean_square: Array) -> Array:
        most = float(np.finfo(entries.dtype).max) ** 0.5  # whose square is a number
        bound = jnp.where(mean_square > 0, jnp.minimum(limit * jnp.sqrt(mean_square), most), most)
        return jnp.clip(jnp.where(jnp.isfinite(entries), entries, 0.0), -bound, bound)

    return optax.GradientTransformation(adam.init, update)


def scale_by_rate() -> optax.GradientTransformationExtraArgs:
    """Steps against the gradient, of the length `rate` that `update` is given: it changes without a compilation."""

    def update(updates: Any, state: Any, params: Any = None, *, rate: Array, **_: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda entries: -rate.astype(entries.dtype) * entries, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def relative_rates(parameters: Any) -> npt.NDArray[np.float64]:
    """Shares of the learning rate, of all entries of a tree's leaves in a row: `NETWORK_RATE` for the weights of
    networks, but not for the outputs that all units start with, and 1 elsewhere; () where there are no networks.
    """

    def rates(node: Any) -> Any:
        shares = jax.tree.map(lambda _: NETWORK_RATE if isinstance(node, MLP) else 1.0, node)
        return eqx.tree_at(lambda network: network.start, shares, 1.0) if isinstance(node, MLP) else shares

    shares = jax.tree.map(rates, parameters, is_leaf=lambda node: isinstance(node, MLP))
    found = np.array(jax.tree.leaves(shares))
    sizes = [leaf.size for leaf in jax.tree.leaves(parameters)]
    return np.repeat(found, sizes) if (found != 1).any() else np.ones(())


def learning_rates(peak: float, steps: int) -> npt.NDArray[np.float64]:
    """The rates (steps,) of a given number of steps: a short linear warm-up, then a cosine down to `FINAL_RATE` of the
    peak.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.1 * peak,
        peak_value=peak,
        warmup_steps=min(WARM_UP_STEPS, steps // 10),
        decay_steps=steps,
        end_value=FINAL_RATE * peak,
    )
    return np.asarray(jax.jit(schedule)(np.arange(steps, dtype=np.float64)))
