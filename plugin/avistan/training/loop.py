"""The loop that every method shares: fused steps in chunks, progress between chunks.

A step draws normals, evaluates Stan once per draw, and moves the family by Adam. Nothing of it returns to Python
within a chunk. The same seed gives the same bytes on the same machine. A table is trained by `table_training`, a
network by `network_training` where that serves; every other family by XLA, with `path_gradient` inside where that
covers the family.
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
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt64

from avistan.density.common_numbers import fold_in, key_as_number
from avistan.density.log_density import backend, log_density, set_layout
from avistan.family.family import Family, trainable
from avistan.family.functions import Table
from avistan.family.normals import Noise
from avistan.objective.elbo import Evaluation, evaluate
from avistan.objective.gradient import Estimator, StepInfo, neg_elbo
from avistan.objective.step import Batch, Form, elbo_estimate, form_of, frame_of, parts_of
from avistan.runtime.deadline import out_of_time
from avistan.runtime.device import on_device, zeros
from avistan.runtime.errors import FitError
from avistan.runtime.progress import Progress, report_step
from avistan.runtime.types import FloatArray
from avistan.training.batches import Batches, one_batch
from avistan.training.checkpoints import ChainCheckpoint, going_on
from avistan.training.fingerprint import Arrays, digest
from avistan.training.network_training import NetworkSteps, serves
from avistan.training.optimizer import GuardedAdamState, Optimizer, guarded_adam
from avistan.training.safeguard import Safeguard
from avistan.training.stopping import MEASURE_DRAWS, Ending, FixedBudget, Measure, StoppingRule
from avistan.training.table_training import TableSteps

NO_SLOT = -1  # in place of the whole model, where batches are given
_NOISE_BLOCK = 1 << 18  # normals drawn at once where XLA draws them
_KEPT = 32  # compiled chunks, the latest used
_MEASURE = 11  # folded into the key of training for the draws on which the stopping rule compares ELBOs


class TrainState(NamedTuple):
    """What the next step needs."""

    family: Family  # trainable leaves only
    opt_state: GuardedAdamState
    key: PRNGKeyArray
    step: Int[Array, ""]  # steps done


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How to train; one record for every method of a comparison.

    Attributes:
        steps: None trains until it no longer pays (`stopping.StoppingRule`); a number, that many steps, the learning
            rate falling along a cosine.
        draws_per_step: Stan gradients a step.
        learning_rate: Adam's, on the standardized scale, before it falls.
        estimator: see `objective.neg_elbo`.
        chunk: steps between two looks at the trace, of a given number of steps.
    """

    steps: int | None = None
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
    ended: Ending = Ending.given


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
            ended=trace.ended,
        )
    return first


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """What a chunk of steps saw. Attributes:

    elbo: estimates in nats, (steps,); NaN where every draw was rejected.
    num_rejected: draws, (steps,).
    mean: the family at the mean of the parameters over the chunk.
    """

    elbo: FloatArray
    num_rejected: npt.NDArray[np.int64]
    mean: Callable[[], Family]


class Trainer:
    """A family on its way: chunks of steps and the state that they move.

    Args:
        family: where to start.
        inputs: unit inputs (N, R); the table and the constant use only their number.
        slot: index of the registered model (`log_density.register`); must stay open while the trainer runs.
        batches: of units, in place of the whole model in that slot; the family and `inputs` are then for as many units
            as a batch has at most.
    """

    def __init__(
        self,
        family: Family,
        inputs: Float[Array, "N R"],
        slot: int,
        options: TrainingOptions,
        key: PRNGKeyArray,
        batches: Batches | None = None,
    ) -> None:
        self.options = options
        form = form_of(family) if options.estimator == "path" else None
        if batches is not None and form is None:
            raise FitError(
                "minibatches serve the path estimator and the families that `path_gradient` covers."
            )
        if form is not None and batches is None:
            place = family.placement
            set_layout(slot, np.asarray(place.global_index), np.asarray(place.local_index).T)
        self._steps: TableSteps | NetworkSteps | _XlaSteps
        if form is not None and isinstance(family.inference, Table):
            self._steps = TableSteps(family, form, slot, options.draws_per_step, key_as_number(key))
        else:
            batches = batches or one_batch(slot, inputs)
            if form is not None and serves(family):
                self._steps = NetworkSteps(family, form, batches, options.draws_per_step, key_as_number(key))
            else:
                self._steps = _XlaSteps(family, form, batches, options, key)
        self._inputs = inputs

    @property
    def family(self) -> Family:
        """The family as it stands."""
        return self._steps.family()

    def arrays(self) -> Arrays:
        """The state by name, for a checkpoint."""
        return self._steps.arrays()

    def restore(self, arrays: Arrays) -> None:
        """Go on from a state that `arrays` gave; what was compiled stays as it is."""
        self._steps.restore(arrays)

    def start_digest(self) -> str:
        """Digest of the state, the fixed parts and the unit inputs: before the first step, of all that was prepared."""
        fixed = _named(eqx.filter(self.family, eqx.is_array))
        return digest({**self.arrays(), **fixed, "inputs": np.asarray(self._inputs)})

    def compile(self, steps: int) -> None:
        """Make ready for chunks of `steps` steps."""
        self._steps.compile(steps)

    def run(self, rates: FloatArray) -> Chunk:
        """A chunk of steps with these learning rates (steps,)."""
        elbo, rejected, mean = self._steps.run(np.asarray(rates, dtype=np.float64), backend())
        return Chunk(elbo, rejected.astype(np.int64), lambda: self._steps.family(mean))


class _XlaSteps:
    """Steps compiled by XLA: `lax.scan` over chunks. Arguments as of `Trainer`."""

    def __init__(
        self,
        family: Family,
        form: Form | None,
        batches: Batches,
        options: TrainingOptions,
        key: PRNGKeyArray,
    ) -> None:
        self._form, self._batches, self._options = form, batches, options
        self._optimizer = guarded_adam()
        moved, self._fixed = eqx.partition(family, trainable(family))
        self._state = TrainState(moved, self._optimizer.init(moved), key, zeros(dtype=np.int32))

    def family(self, moved: Any = None) -> Family:
        family: Family = eqx.combine(self._state.family if moved is None else moved, self._fixed)
        return family

    def arrays(self) -> Arrays:
        return _named(self._state)

    def restore(self, arrays: Arrays) -> None:
        leaves, structure = jax.tree.flatten(self._state)
        named = zip(leaves, _names(self._state), strict=True)
        self._state = jax.tree.unflatten(structure, [_as_leaf(arrays[name], leaf) for leaf, name in named])

    def compile(self, steps: int) -> _Compiled:
        """The compiled chunk of `steps` steps, shared by all trainers of the same shapes and options."""
        given = (self._state, self._fixed, *self._batches.example(steps), zeros(steps))
        arrays, structure = jax.tree.flatten(given)
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in arrays)
        options = (self._options.draws_per_step, self._options.estimator, self._form)
        key = (steps, options, structure, shapes, backend())
        if key not in _compiled:
            run: Any = eqx.filter_jit(_make_run(self._optimizer, self._options, self._form, steps))
            _compiled[key] = run.lower(*given).compile()
            while len(_compiled) > _KEPT:
                _compiled.popitem(last=False)
        _compiled.move_to_end(key)
        return _compiled[key]

    def run(self, rates: FloatArray, how: str) -> tuple[FloatArray, npt.NDArray[np.int32], Family]:
        compiled = self.compile(len(rates))
        given = self._batches.chunk(int(self._state.step), len(rates))
        self._state, info, mean = compiled(self._state, self._fixed, *given, on_device(rates))
        return np.asarray(info.elbo), np.asarray(info.num_rejected).astype(np.int32), mean


_Compiled = Callable[..., tuple[TrainState, StepInfo, Family]]
_compiled: OrderedDict[Hashable, _Compiled] = OrderedDict()


def train(
    family: Family,
    inputs: Float[Array, "N R"],
    slot: int,
    options: TrainingOptions,
    key: PRNGKeyArray,
    progress: Progress | None = None,
    checkpoint: ChainCheckpoint | None = None,
    batches: Batches | None = None,
    measure: Measure | None = None,
) -> tuple[Family, Trace]:
    """Train a family against one registered model; `progress` is called between chunks.

    Where a limit of time (`deadline`) passes, it ends at the end of a chunk, saved, with the best state so far.

    With a checkpoint, training goes on from its last save, to the same bytes as without the interruption; the times of
    the trace are those of both runs together.

    Args:
        measure: ELBOs that the stopping rule compares; by default of the model in the slot, with batches none.

    Raises:
        CheckpointError: the save is damaged or of another training.
    """
    trainer = Trainer(family, inputs, slot, options, key, batches)
    if measure is None and batches is None:
        measure = _measure_of(inputs, slot, fold_in(key, _MEASURE))
    plan: FixedBudget | StoppingRule
    if options.steps is None:
        dim = None if batches is None else batches.dim
        plan = StoppingRule(family, inputs, measure, options.learning_rate, dim=dim)
    else:
        plan = FixedBudget(options.steps, options.chunk, options.learning_rate)
    saved = None
    if checkpoint is not None:
        saved = checkpoint.load({"training": asdict(options), "start of training": trainer.start_digest()})
    guard = Safeguard(trainer, measure)
    with going_on(checkpoint):
        elbos, rejected, chunk_steps, seconds, seconds_compile = _seen(saved)
        if saved is not None:
            plan.restore(saved)
            guard.restore(saved)
    started = time.perf_counter()
    plan.compile(trainer.compile, chunk_steps[-1])
    seconds_compile += time.perf_counter() - started
    if saved is not None:
        with going_on(checkpoint):
            trainer.restore(saved)
        if progress is not None:
            progress(chunk_steps[-1], plan.most_steps, float(elbos[0][-1]))
    started, cut, lost = time.perf_counter() - seconds[-1], False, False
    while (rates := plan.rates(chunk_steps[-1])).size:
        chunk = trainer.run(rates)
        done = chunk_steps[-1] + len(rates)
        if guard.went_wrong(chunk.elbo):
            plan.retreat(done)
        else:
            plan.see(done, chunk.elbo, chunk.mean)
        elbos.append(chunk.elbo)
        rejected.append(chunk.num_rejected)
        chunk_steps.append(done)
        seconds.append(time.perf_counter() - started)
        report_step(done, options.steps, float(chunk.elbo[-1]))
        lost = guard.left_the_numbers(chunk.elbo)
        finished = lost or not plan.rates(done).size
        cut = not finished and out_of_time()
        if checkpoint is not None and (cut or checkpoint.due(finished=finished)):
            seen = _to_save(elbos, rejected, chunk_steps, seconds, seconds_compile)
            checkpoint.save(done, {**trainer.arrays(), **plan.arrays(), **guard.arrays(), **seen})
            started = time.perf_counter() - seconds[-1]  # saving is no training
        if progress is not None:
            progress(done, done if finished else plan.most_steps, float(chunk.elbo[-1]))
        if cut or lost:
            break
    trace = Trace(
        elbo=np.concatenate(elbos),
        num_rejected=np.concatenate(rejected),
        chunk_steps=np.array(chunk_steps),
        seconds=np.array(seconds),
        seconds_compile=seconds_compile,
        ended=Ending.diverged if lost else Ending.out_of_time if cut else plan.ended,
    )
    return guard.best_of((plan.so_far if cut else plan.result)(trainer.family)), trace


def _measure_of(inputs: Float[Array, "N R"], slot: int, key: PRNGKeyArray) -> Measure:
    def measure(family: Family, number: int) -> Evaluation:
        return evaluate(family, inputs, slot, fold_in(key, number), MEASURE_DRAWS)

    return measure


_Seen = tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[np.int64]], list[int], list[float], float]


def _seen(saved: Arrays | None) -> _Seen:
    """ELBOs, rejected draws, ends of chunks, when they were, and seconds of compilation up to a save, or at a start."""
    if saved is None:
        return [], [], [0], [0.0], 0.0
    seconds = saved["trace.seconds"].tolist()
    return (
        [saved["trace.elbo"]],
        [saved["trace.num_rejected"]],
        saved["trace.chunk_steps"].tolist(),
        seconds,
        float(saved["trace.seconds_compile"]),
    )


def _to_save(
    elbos: list[npt.NDArray[np.float64]],
    rejected: list[npt.NDArray[np.int64]],
    chunk_steps: list[int],
    seconds: list[float],
    seconds_compile: float,
) -> Arrays:
    return {
        "trace.elbo": np.concatenate(elbos),
        "trace.num_rejected": np.concatenate(rejected),
        "trace.chunk_steps": np.array(chunk_steps, dtype=np.int64),
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


_Carry = tuple[Family, GuardedAdamState, Family]
_Given = tuple[Array, ...]


def _make_run(
    optimizer: Optimizer, options: TrainingOptions, form: Form | None, steps: int
) -> Callable[..., tuple[TrainState, StepInfo, Family]]:
    """A chunk of steps. Of `batches`, the arrays are explained in `Batches`."""
    draws, how = options.draws_per_step, backend()

    def run(
        state: TrainState,
        fixed: Family,
        inputs: Float[Array, "B N R"],
        base: Batch,
        slots: Int[Array, " steps"],
        which: Int[Array, " steps"],
        rates: Float[Array, " steps"],
    ) -> tuple[TrainState, StepInfo, Family]:
        def moved_by(carry: _Carry, loss: Callable[..., Any], rate: Array) -> tuple[_Carry, StepInfo]:
            moved, opt_state, total = carry
            gradient, info = jax.grad(loss, has_aux=True)(moved)
            directions, opt_state = optimizer.update(gradient, opt_state)
            # Without an accepted draw the gradient says nothing: rejected draws never reach the parameters.
            rate = jnp.where(info.num_rejected < draws, rate, 0.0)
            moved = jax.tree.map(lambda p, d: p - rate.astype(p.dtype) * d, moved, directions)
            return (moved, opt_state, jax.tree.map(jnp.add, total, moved)), info

        def read(number: Array) -> Float[Array, "N R"]:
            return inputs[0] if inputs.shape[0] == 1 else inputs[number]

        def by_path(carry: _Carry, given: _Given) -> tuple[_Carry, StepInfo]:
            number, slot, batch, rate = given

            def loss(moved: Family) -> tuple[Float[Array, ""], StepInfo]:
                family = eqx.combine(moved, fixed)
                terms = Batch(jnp.concatenate([slot[None], base.slots]), base.weights)
                key = jnp.stack([seed, number.astype(jnp.uint64)])
                parts = parts_of(family, read(batch))
                elbo, rejected = elbo_estimate(how, form, draws, terms, key, frame_of(family), parts)
                return -elbo, StepInfo(jax.lax.stop_gradient(elbo), rejected)

            return moved_by(carry, loss, rate)

        def by_density(carry: _Carry, given: _Given) -> tuple[_Carry, StepInfo]:
            noise, slot, rate = given

            def loss(moved: Family) -> tuple[Float[Array, ""], StepInfo]:
                family = eqx.combine(moved, fixed)
                of_units = jax.random.split(key, family.num_units)

                def density(theta: Array, z: Array) -> tuple[Array, Array]:
                    return log_density(slot, jax.vmap(family.placement)(theta, z))

                given = Noise(*family.split(noise), of_units)
                return neg_elbo(family, density, given, inputs[0], estimator=options.estimator)

            return moved_by(carry, loss, rate)

        def one_block(carry: _Carry, given: _Given) -> tuple[_Carry, StepInfo]:
            flat = jax.random.normal(given[0], (block * draws * fixed.dim,), dtype=jnp.float32)
            return jax.lax.scan(by_density, carry, (flat.reshape(block, draws, fixed.dim), *given[1:]))

        start = state.family, state.opt_state, jax.tree.map(jnp.zeros_like, state.family)
        key = state.key
        if form is not None:
            seed = _key_as_number(key)
            numbers = state.step + jnp.arange(steps, dtype=jnp.int32)
            carry, infos = jax.lax.scan(by_path, start, (numbers, slots, which, rates))
        else:
            block = _noise_block(steps, draws * fixed.dim)
            key, subkey = jax.random.split(key)
            blocks = (
                jax.random.split(subkey, steps // block),
                slots.reshape(-1, block),
                rates.reshape(-1, block),
            )
            carry, infos = jax.lax.scan(one_block, start, blocks)
            infos = jax.tree.map(lambda leaf: leaf.reshape(-1), infos)
        moved, opt_state, total = carry
        mean = jax.tree.map(lambda leaf: leaf / jnp.asarray(steps, dtype=leaf.dtype), total)
        return TrainState(moved, opt_state, key, state.step + steps), infos, mean

    return run


def _key_as_number(key: PRNGKeyArray) -> UInt64[Array, ""]:
    high, low = (word.astype(jnp.uint64) for word in jax.random.key_data(key).ravel()[-2:])
    return high << jnp.uint64(32) | low
