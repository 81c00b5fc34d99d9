"""The loop that every method shares: fused steps in `lax.scan` chunks, progress between chunks.

A step draws normals, evaluates Stan once per draw, and moves the family by Adam. Nothing of it returns to Python
within a chunk. The same seed gives the same bytes on the same machine.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .checkpoints import ChainCheckpoint
from .families import Family, trainable
from .log_density import backend, log_density
from .objective import Estimator, StepInfo, neg_elbo
from .optimizer import guarded_adam, learning_rates
from .provenance import Arrays, digest

Progress = Callable[[int, int, float], None]  # steps done, steps in all, current elbo in nats

_NOISE_BLOCK = (
    1 << 18
)  # normals drawn at once: amortizes the generator's start on small models, stays in cache


_KEPT = 32  # compiled chunks, the latest used


class TrainState(NamedTuple):
    """What the next step needs."""

    family: Family  # trainable leaves only
    opt_state: optax.OptState
    key: PRNGKeyArray
    step: Int[Array, ""]  # steps done


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How to train; one record for every method of a comparison.

    Attributes:
        steps: the step budget.
        draws_per_step: Stan gradients a step.
        learning_rate: Adam's, on the standardized scale; falls along a cosine.
        estimator: see `objective.neg_elbo`.
        chunk: steps between two looks at the trace.
    """

    steps: int = 4000
    draws_per_step: int = 8
    learning_rate: float = 0.02
    estimator: Estimator = "path"
    chunk: int = 250


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What training saw: one entry a step, and a time stamp for the start and the end of each chunk."""

    elbo: npt.NDArray[np.float64]  # (steps,) nats, nan where every draw was rejected
    num_rejected: npt.NDArray[np.int64]  # (steps,)
    chunk_steps: npt.NDArray[np.int64]  # (chunks + 1,) steps done at each time stamp
    seconds: npt.NDArray[np.float64]  # (chunks + 1,) since the first step, compilation excluded
    seconds_compile: float


_Compiled = Callable[..., tuple[TrainState, StepInfo]]
_compiled: OrderedDict[Hashable, _Compiled] = OrderedDict()


def joined(traces: Sequence[Trace]) -> Trace:
    """Runs one after the other as one."""
    first, *rest = traces
    for trace in rest:
        first = Trace(
            elbo=np.concatenate([first.elbo, trace.elbo]),
            num_rejected=np.concatenate([first.num_rejected, trace.num_rejected]),
            chunk_steps=np.concatenate([first.chunk_steps, first.chunk_steps[-1] + trace.chunk_steps[1:]]),
            seconds=np.concatenate([first.seconds, first.seconds[-1] + trace.seconds[1:]]),
            seconds_compile=first.seconds_compile + trace.seconds_compile,
        )
    return first


class Trainer:
    """A family on its way: compiled chunks of steps and the state that they move.

    Args:
        family: where to start.
        inputs: unit inputs (N, R); the table and the constant use only their number.
        slot: index of the registered model (`log_density.register`); must stay open while the trainer runs.
    """

    def __init__(
        self,
        family: Family,
        inputs: Float[Array, "N R"],
        slot: int,
        options: TrainingOptions,
        key: PRNGKeyArray,
    ) -> None:
        self.options = options
        self._optimizer = guarded_adam()
        moved, self._fixed = eqx.partition(family, trainable(family))
        self._state = TrainState(moved, self._optimizer.init(moved), key, jnp.zeros((), dtype=jnp.int32))
        self._arguments = (self._fixed, inputs, jnp.asarray(slot, dtype=jnp.int64))

    @property
    def family(self) -> Family:
        """The family as it stands."""
        family: Family = eqx.combine(self._state.family, self._fixed)
        return family

    def arrays(self) -> Arrays:
        """The state by name, for a checkpoint."""
        return _named(self._state)

    def restore(self, arrays: Arrays) -> None:
        """Go on from a state that `arrays` gave; what was compiled stays as it is."""
        leaves, structure = jax.tree.flatten(self._state)
        named = zip(leaves, _names(self._state), strict=True)
        self._state = jax.tree.unflatten(structure, [_as_leaf(arrays[name], leaf) for leaf, name in named])

    def start_digest(self) -> str:
        """Digest of the state, the fixed parts and the unit inputs: before the first step, of all that was prepared."""
        fixed, inputs, _ = self._arguments
        return digest(
            {**_named(self._state), **_named(eqx.filter(fixed, eqx.is_array)), "inputs": np.asarray(inputs)}
        )

    def compile(self, steps: int) -> _Compiled:
        """The compiled chunk of `steps` steps, shared by all trainers of the same shapes and options."""
        arrays, structure = jax.tree.flatten((self._state, self._arguments))
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in arrays)
        key = (steps, self.options, structure, shapes, backend())
        if key not in _compiled:
            block = _noise_block(steps, self.options.draws_per_step * self._fixed.dim)
            run: Any = eqx.filter_jit(_make_run(self._optimizer, self.options, steps, block))
            _compiled[key] = run.lower(self._state, *self._arguments).compile()
            while len(_compiled) > _KEPT:
                _compiled.popitem(last=False)
        _compiled.move_to_end(key)
        return _compiled[key]

    def run(self, steps: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Run a chunk and wait for it. Returns the ELBO (nats) and the rejected draws of each step."""
        self._state, info = self.compile(steps)(self._state, *self._arguments)
        return np.asarray(info.elbo), np.asarray(info.num_rejected).astype(np.int64)


def train(
    family: Family,
    inputs: Float[Array, "N R"],
    slot: int,
    options: TrainingOptions,
    key: PRNGKeyArray,
    progress: Progress | None = None,
    checkpoint: ChainCheckpoint | None = None,
) -> tuple[Family, Trace]:
    """Train a family against one registered model, `options.steps` steps; `progress` is called between chunks.

    With a checkpoint, training goes on from its last save, to the same bytes as without the interruption; the times of
    the trace are those of both runs together.

    Raises:
        CheckpointError: the save is damaged or of another training.
    """
    trainer = Trainer(family, inputs, slot, options, key)
    whole, rest = divmod(options.steps, options.chunk)
    sizes = [options.chunk] * whole + [rest] * (rest > 0)
    chunk_steps = np.cumsum([0, *sizes])
    saved = None
    if checkpoint is not None:
        saved = checkpoint.load({"training": asdict(options), "start of training": trainer.start_digest()})
    elbos, rejected, seconds, seconds_compile = _seen(saved)
    left = sizes[len(seconds) - 1 :]
    started = time.perf_counter()
    for size in sorted(set(left)):
        trainer.compile(size)
    seconds_compile += time.perf_counter() - started
    if saved is not None:
        trainer.restore(saved)
        if progress is not None:
            progress(int(chunk_steps[len(seconds) - 1]), options.steps, float(elbos[0][-1]))
    started = time.perf_counter() - seconds[-1]
    for size in left:
        elbo, num_rejected = trainer.run(size)
        elbos.append(elbo)
        rejected.append(num_rejected)
        seconds.append(time.perf_counter() - started)
        done = int(chunk_steps[len(seconds) - 1])
        if checkpoint is not None and checkpoint.due(finished=done == options.steps):
            seen = _to_save(elbos, rejected, seconds, seconds_compile)
            checkpoint.save(done, {**trainer.arrays(), **seen})
            started = time.perf_counter() - seconds[-1]  # saving is no training
        if progress is not None:
            progress(done, options.steps, float(elbo[-1]))
    trace = Trace(
        elbo=np.concatenate(elbos),
        num_rejected=np.concatenate(rejected),
        chunk_steps=chunk_steps,
        seconds=np.array(seconds),
        seconds_compile=seconds_compile,
    )
    return trainer.family, trace


_Seen = tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[np.int64]], list[float], float]


def _seen(saved: Arrays | None) -> _Seen:
    """ELBOs, rejected draws, time stamps and seconds of compilation up to a save; those of a start without one."""
    if saved is None:
        return [], [], [0.0], 0.0
    seconds = saved["trace.seconds"].tolist()
    return (
        [saved["trace.elbo"]],
        [saved["trace.num_rejected"]],
        seconds,
        float(saved["trace.seconds_compile"]),
    )


def _to_save(
    elbos: list[npt.NDArray[np.float64]],
    rejected: list[npt.NDArray[np.int64]],
    seconds: list[float],
    seconds_compile: float,
) -> Arrays:
    return {
        "trace.elbo": np.concatenate(elbos),
        "trace.num_rejected": np.concatenate(rejected),
        "trace.seconds": np.array(seconds),
        "trace.seconds_compile": np.array(seconds_compile),
    }


def _names(tree: Any) -> list[str]:
    """Names of the leaves, such as `family.globals.loc`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]


def _named(tree: Any) -> Arrays:
    """The leaves by name, as numpy arrays; a key as its data."""
    leaves = (jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree))
    return {name: np.asarray(leaf) for name, leaf in zip(_names(tree), leaves, strict=True)}


def _as_leaf(values: npt.NDArray[Any], like: Array) -> Array:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(values), impl=jax.random.key_impl(like))
    return jnp.asarray(values, dtype=like.dtype)


def _is_key(leaf: Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _noise_block(steps: int, numbers_per_step: int) -> int:
    """Steps whose normals are drawn together: a divisor of `steps`."""
    most = max(1, min(steps, _NOISE_BLOCK // max(1, numbers_per_step)))
    return max(block for block in range(1, most + 1) if steps % block == 0)


_Carry = tuple[Family, optax.OptState]


def _make_run(
    optimizer: optax.GradientTransformation, options: TrainingOptions, steps: int, block: int
) -> Callable[..., tuple[TrainState, StepInfo]]:
    def run(
        state: TrainState, fixed: Family, inputs: Float[Array, "N R"], slot: Int[Array, ""]
    ) -> tuple[TrainState, StepInfo]:
        key, subkey = jax.random.split(state.key)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes step numbers and rates
            number = state.step + jnp.arange(steps, dtype=jnp.int32)
        rates = learning_rates(number, options.learning_rate, options.steps)

        def one_step(carry: _Carry, given: tuple[Array, Array]) -> tuple[_Carry, StepInfo]:
            return _step(optimizer, options.estimator, carry, *given, fixed, inputs, slot)

        def one_block(carry: _Carry, given: tuple[Array, Array]) -> tuple[_Carry, StepInfo]:
            flat = jax.random.normal(
                given[0], (block * options.draws_per_step * fixed.dim,), dtype=jnp.float32
            )
            noise = flat.reshape(block, options.draws_per_step, fixed.dim)
            return jax.lax.scan(one_step, carry, (noise, given[1]))

        blocks = (jax.random.split(subkey, steps // block), rates.reshape(-1, block))
        carry, infos = jax.lax.scan(one_block, (state.family, state.opt_state), blocks)
        return TrainState(*carry, key, state.step + steps), jax.tree.map(lambda leaf: leaf.reshape(-1), infos)

    return run


def _step(
    optimizer: optax.GradientTransformation,
    estimator: Estimator,
    carry: _Carry,
    noise: Float[Array, "S D"],
    rate: Float[Array, ""],
    fixed: Family,
    inputs: Float[Array, "N R"],
    slot: Int[Array, ""],
) -> tuple[_Carry, StepInfo]:
    moved, opt_state = carry

    def loss(moved: Family) -> tuple[Float[Array, ""], StepInfo]:
        family = eqx.combine(moved, fixed)
        return neg_elbo(family, lambda theta: log_density(slot, theta), noise, inputs, estimator)

    gradient, info = jax.grad(loss, has_aux=True)(moved)
    directions, new_opt_state = optimizer.update(gradient, opt_state)
    # Without an accepted draw the gradient says nothing: rejected draws never reach the parameters.
    rate = jnp.where(info.num_rejected < noise.shape[0], rate, 0.0)
    moved = jax.tree.map(lambda p, d: p - rate.astype(p.dtype) * d, moved, directions)
    return (moved, new_opt_state), info
