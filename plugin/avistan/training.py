"""The loop that every method shares: fused steps in `lax.scan` chunks, progress between chunks.

A step draws normals, evaluates Stan once per draw, and moves the family by Adam. Nothing of it returns to Python
within a chunk. The same seed gives the same bytes on the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .families import Family, trainable
from .log_density import log_density
from .objective import Estimator, StepInfo, neg_elbo

Progress = Callable[[int, int, float], None]  # steps done, steps in all, current elbo in nats

NETWORK_RATE = 0.25  # learning rate of a network relative to that of free parameters
_NOISE_BLOCK = 1 << 18  # normals drawn at once: amortizes the generator's start on small models, stays in cache


class TrainState(NamedTuple):
    """What the next step needs."""

    family: Family  # trainable leaves only
    opt_state: optax.OptState
    key: PRNGKeyArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How to train; one record for every method of a comparison.

    Attributes:
        steps: the step budget.
        draws_per_step: Stan gradients a step.
        learning_rate: Adam's, on the standardized scale; falls along a cosine to 1/1000 of it.
        estimator: see `objective.neg_elbo`.
    """

    steps: int = 4000
    draws_per_step: int = 8
    learning_rate: float = 0.02
    estimator: Estimator = "path"
    chunk: int = 250

    def __post_init__(self) -> None:
        for name in ("steps", "draws_per_step", "chunk"):
            value = getattr(self, name)
            if value < 1 or value != int(value):
                raise ValueError(f"{name} is {value}: give a positive whole number.")
        if not 0 < self.learning_rate < np.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}: give a positive number.")


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What training saw: one entry a step, and a time stamp for the start and the end of each chunk."""

    elbo: npt.NDArray[np.float64]  # (steps,) nats, nan where every draw was rejected
    num_rejected: npt.NDArray[np.int64]  # (steps,)
    chunk_steps: npt.NDArray[np.int64]  # (chunks + 1,) steps done at each time stamp
    seconds: npt.NDArray[np.float64]  # (chunks + 1,) since the first step, compilation excluded
    seconds_compile: float


class Trained(NamedTuple):
    family: Family
    trace: Trace


def make_optimizer(options: TrainingOptions) -> optax.GradientTransformation:
    """Adam with a short warm-up and a cosine decay, and two guards against wild gradients.

    A gradient much longer than the recent ones is shortened before Adam sees it, and a move is at most the learning
    rate. Networks move `NETWORK_RATE` times as fast as free parameters: one weight moves all units.
    """
    warm_up = min(100, options.steps // 10)

    def moves(rate: float) -> optax.GradientTransformation:
        schedule = optax.warmup_cosine_decay_schedule(0.1 * rate, rate, warm_up, options.steps, 1e-3 * rate)
        return optax.chain(
            shorten_outliers(), optax.scale_by_adam(b2=0.99), optax.clip(1.0), optax.scale_by_learning_rate(schedule)
        )

    return optax.partition(
        {"free": moves(options.learning_rate), "network": moves(NETWORK_RATE * options.learning_rate)},
        lambda family: jax.tree.map(
            lambda leaf: "network" if leaf.dtype == jnp.float32 else "free", family
        ),
    )


class OutlierState(NamedTuple):
    """Running length of the gradients seen, 0 before the first."""

    length: Float[Array, ""]


def shorten_outliers(factor: float = 4.0, memory: float = 0.95) -> optax.GradientTransformation:
    """Scale a gradient down to `factor` times the running length of its predecessors."""

    def init(params: optax.Params) -> OutlierState:
        return OutlierState(jnp.zeros((), dtype=jnp.float64))

    def update(
        updates: optax.Updates, state: OutlierState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, OutlierState]:
        leaves = jax.tree.leaves(updates)
        if not leaves:  # a family without leaves of this group
            return updates, state
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)).astype(jnp.float64) for leaf in leaves]))
        safe = jnp.maximum(largest, 1e-300)  # squares of very long gradients would overflow
        length = safe * jnp.sqrt(sum(jnp.sum((leaf.astype(jnp.float64) / safe) ** 2) for leaf in leaves))
        limit = jnp.where(state.length > 0, factor * state.length, jnp.inf)
        shrink = jnp.minimum(1.0, limit / jnp.maximum(length, 1e-300))
        kept = jnp.minimum(length, limit)
        running = jnp.where(state.length > 0, memory * state.length + (1 - memory) * kept, kept)
        return jax.tree.map(lambda leaf: (leaf * shrink).astype(leaf.dtype), updates), OutlierState(running)

    return optax.GradientTransformation(init, update)


def train(
    family: Family,
    inputs: Float[Array, "N R"],
    slot: int,
    options: TrainingOptions,
    key: PRNGKeyArray,
    progress: Progress | None = None,
) -> Trained:
    """Train a family against one registered model.

    Args:
        inputs: unit inputs (N, R); the table and the constant use only their number.
        slot: index of the registered model (`log_density.register`).
        progress: called between chunks.
    """
    optimizer = make_optimizer(options)
    moved, fixed = eqx.partition(family, trainable(family))
    state = TrainState(moved, optimizer.init(moved), key)
    sizes = [options.chunk] * (options.steps // options.chunk)
    if options.steps % options.chunk:
        sizes.append(options.steps % options.chunk)
    index = jnp.asarray(slot, dtype=jnp.int64)
    started = time.perf_counter()
    compiled = {size: _compile(optimizer, options, size, state, fixed, inputs, index) for size in sorted(set(sizes))}
    seconds_compile = time.perf_counter() - started
    infos, seconds, done = [], [0.0], 0
    started = time.perf_counter()
    for size in sizes:
        state, info = compiled[size](state, fixed, inputs, index)
        infos.append(jax.device_get(info))
        done += size
        seconds.append(time.perf_counter() - started)
        if progress is not None:
            with np.errstate(all="ignore"):
                progress(done, options.steps, float(np.mean(infos[-1].elbo)))
    trace = Trace(
        elbo=np.concatenate([info.elbo for info in infos]),
        num_rejected=np.concatenate([info.num_rejected for info in infos]).astype(np.int64),
        chunk_steps=np.cumsum([0, *sizes]),
        seconds=np.array(seconds),
        seconds_compile=seconds_compile,
    )
    return Trained(eqx.combine(state.family, fixed), trace)


Run = Callable[[TrainState, Family, Float[Array, "N R"], Int[Array, ""]], tuple[TrainState, StepInfo]]


def _compile(
    optimizer: optax.GradientTransformation,
    options: TrainingOptions,
    steps: int,
    state: TrainState,
    fixed: Family,
    inputs: Float[Array, "N R"],
    slot: Int[Array, ""],
) -> Run:
    """A chunk of `steps` fused steps, compiled for these shapes."""
    draws, dim = options.draws_per_step, fixed.dim
    block = max(b for b in range(1, max(1, _NOISE_BLOCK // (draws * dim)) + 1) if steps % b == 0)

    def run(
        state: TrainState, fixed: Family, inputs: Float[Array, "N R"], slot: Int[Array, ""]
    ) -> tuple[TrainState, StepInfo]:
        key, subkey = jax.random.split(state.key)

        def one_step(carry: _Carry, noise: Float[Array, "S D"]) -> tuple[_Carry, StepInfo]:
            return _step(optimizer, options.estimator, carry, noise, fixed, inputs, slot)

        def one_block(carry: _Carry, block_key: PRNGKeyArray) -> tuple[_Carry, StepInfo]:
            noise = jax.random.normal(block_key, (block, draws, dim), dtype=jnp.float32)
            return jax.lax.scan(one_step, carry, noise)

        carry, infos = jax.lax.scan(
            one_block, (state.family, state.opt_state), jax.random.split(subkey, steps // block)
        )
        return TrainState(*carry, key), jax.tree.map(lambda leaf: leaf.reshape(-1), infos)

    return eqx.filter_jit(run).lower(state, fixed, inputs, slot).compile()  # type: ignore[no-any-return]


_Carry = tuple[Family, optax.OptState]


def _step(
    optimizer: optax.GradientTransformation,
    estimator: Estimator,
    carry: _Carry,
    noise: Float[Array, "S D"],
    fixed: Family,
    inputs: Float[Array, "N R"],
    slot: Int[Array, ""],
) -> tuple[_Carry, StepInfo]:
    moved, opt_state = carry

    def loss(moved: Family) -> tuple[Float[Array, ""], StepInfo]:
        family = eqx.combine(moved, fixed)
        return neg_elbo(family, lambda theta: log_density(slot, theta), noise, inputs, estimator)

    gradient, info = jax.grad(loss, has_aux=True)(moved)
    usable = jnp.isfinite(info.elbo)
    for leaf in jax.tree.leaves(gradient):
        usable &= jnp.all(jnp.isfinite(leaf))
    with jax.numpy_dtype_promotion("standard"):
        updates, new_opt_state = optimizer.update(gradient, opt_state)
    new = (eqx.apply_updates(moved, updates), new_opt_state)
    # A step without a usable draw changes nothing: rejected draws never reach the parameters.
    return jax.tree.map(lambda a, b: jnp.where(usable, a, b), new, carry), info
