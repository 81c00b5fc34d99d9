"""Training on minibatches of units, for levels of so many units that a step on all of them is too much.

A step sees one shard: the program bound to the data of some units (`shards.shard`), weighted so that the ELBO
and its gradient are unbiased for the whole. Only functions of the units' inputs can be trained so; a table would see
each of its rows once in a long while.

The latents of a second level are globals of every shard. Where a function gives their parameters too, its gradient is a
linear map of theirs, and as unbiased; its inputs are fixed before training, signatures that all data decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt64

from avistan.density.common_numbers import fold_in, key_as_number
from avistan.density.log_density import Backend, Slot, backend, default_threads, register, set_layout
from avistan.family.family import Family
from avistan.family.method import Method
from avistan.family.placement import make_placement
from avistan.objective.elbo import Evaluation
from avistan.objective.step import Batch, elbo_estimate, form_of, frame_of, parts_of
from avistan.runtime.device import on_device
from avistan.runtime.errors import MethodError
from avistan.runtime.types import FloatArray
from avistan.start.preparation import Preparation, start_family
from avistan.training.batches import Batches, Places, StepArrays
from avistan.training.loop import TrainingOptions
from avistan.training.network_training import NetworkSteps, serves
from avistan.training.stopping import Measure
from stan_adapters.data.layout import IndexArray
from stan_adapters.shards.base import Base
from stan_adapters.shards.pool import DEFAULT_BUDGET, ShardPool
from stan_adapters.shards.shard import Shard, ShardMaker

_MULTIPLE = 250  # steps of which chunks are parts: rounds of shards change between chunks
_STEPS_PER_ROUND = 1000  # at least: binding the next round's shards takes longer than many cheap steps
_MOST_RENEWED, _RENEWED = 0.1, 20  # shards of a round that the next exchanges: a share, and at most so many
_FEWER_DRAWS, _SMALLER_STEPS, _SMALLEST_STEPS = 4, 2, 8  # than on all units; see `Minibatches.training`
_MEASURED_SHARDS, _MEASURED_DRAWS = 64, 2  # on which families are compared


@dataclass(frozen=True, kw_only=True, eq=False)
class Minibatches:
    """What all methods on minibatches of one level and seed share.

    Attributes:
        maker: binds shards of the whole.
        start: the preparation on the units of one shard, from which the whole starts.
        units: (M,) of that shard, in the order of its blocks.
        base: the log density without units.
        size: most units in a shard.
        memory_budget: bytes of bound shards.
        of_all: the fit where `start` begins is one of all units, and not of the shard alone.
    """

    maker: ShardMaker
    start: Preparation
    units: IndexArray
    base: Base
    size: int
    seed: int
    memory_budget: int = DEFAULT_BUDGET
    of_all: bool = False

    @property
    def num_units(self) -> int:
        return self.maker.level.num_units

    def start_family(self, method: Method) -> tuple[Family, Float[Array, "M R"]]:
        """The family of a method for the units of a shard, and the inputs of those where it starts.

        Its globals start at the quick fit of one shard, with sds for as many data as there are in all, or at a fit of
        all units.

        Raises:
            MethodError: a family that minibatches do not serve, or as `preparation.start_family`.
        """
        family, inputs = start_family(self.start, method)
        if form_of(family) is None:
            raise MethodError(
                f"{method.name}: on minibatches the globals' factor is mean-field or full-rank. Leave out :low-rank."
            )
        if self.of_all:
            return family, inputs
        narrower = 0.5 * math.log(self.size / self.num_units)
        log_sd = on_device(np.asarray(family.globals.log_sd) + narrower)
        moved: Family = eqx.tree_at(lambda f: f.globals.log_sd, family, log_sd)
        return moved, inputs

    def unit_inputs(self, method: Method) -> FloatArray:
        """Inputs of all units (N, R), as they are read where the shard starts."""
        given, _ = self.start.unit_input(method)
        if given is None:
            return np.empty((self.num_units, 0))
        level, model = self.maker.level, self.maker.model
        return given(model, level.index, level.globals_index(model.dim))

    def training(
        self, options: TrainingOptions, *, richer: bool = False, shaped: bool = False
    ) -> TrainingOptions:
        """Options of steps on shards, for the method's own family, or for a richer one, maybe with shapes.

        The noise is mostly that of the units: more draws do little against it. A richer family begins near an optimum,
        and what shapes gain is small against that noise: they take small steps.
        """
        draws = max(1, options.draws_per_step // _FEWER_DRAWS)
        slower = _SMALLEST_STEPS if shaped else _SMALLER_STEPS if richer else 1
        return replace(options, draws_per_step=draws, learning_rate=options.learning_rate / slower)

    def whole_family(self, family: Family) -> Family:
        """The same family for all units."""
        level = self.maker.level
        placement = make_placement(level.globals_index(self.maker.model.dim), level.index)
        return replace(family, placement=placement)

    @contextmanager
    def measure(self, inputs: FloatArray, key: PRNGKeyArray) -> Iterator[Measure]:
        """ELBOs of the whole, estimated from some shards, the same for all families, to compare families by.

        Args:
            inputs: of all units (N, R).
        """
        count = min(_MEASURED_SHARDS, -(-self.num_units // self.size))
        units = np.random.default_rng([self.seed, 8]).permutation(self.num_units)[: count * self.size]
        with ExitStack() as stack:
            shards = [self.maker(part) for part in np.array_split(units, count)]
            for shard in shards:
                stack.callback(shard.model.close)
            weight = self.num_units * count / len(units)
            weights = np.array([weight, *((1 - weight) * c for c in self._coefficients)])
            alone = Batch(self._register_base(stack), on_device(weights))
            slots, rows = [], np.zeros((count, self.size, inputs.shape[1]), dtype=np.float32)
            for number, shard in enumerate(shards):
                slot = stack.enter_context(register(shard.model))
                set_layout(slot.index, shard.globals_index, shard.index.T)
                rows[number, : shard.num_units] = inputs[shard.units]
                slots.append(slot.index)
            given = _Measured(slots, rows, alone)

            def measured(family: Family, number: int) -> Evaluation:
                found = _estimates(family, given, fold_in(key, number))
                return Evaluation(np.repeat(found, 2))  # each as a pair of draws

            yield measured

    @property
    def _coefficients(self) -> tuple[float, ...]:
        return tuple(term.coefficient for term in self.base.terms)

    def _register_base(self, stack: ExitStack) -> Int[Array, " terms"]:
        """Slots of the density without units."""
        slots = [stack.enter_context(register(term.model)) for term in self.base.terms]
        for slot, term in zip(slots, self.base.terms, strict=True):
            set_layout(slot.index, term.globals_index, np.zeros((0, 0), dtype=np.int64), term.template)
        return on_device(np.array([slot.index for slot in slots], dtype=np.int64))

    @contextmanager
    def batches(self, inputs: FloatArray, number: int = 0) -> Iterator[ShardBatches]:
        """The shards of a chain, bound ahead of their use.

        Args:
            inputs: of all units (N, R).
            number: of the chain; each has its own sequence of shards.
        """
        threads = default_threads()
        seed = int(np.random.SeedSequence([self.seed, 7, number]).generate_state(1)[0])
        with ExitStack() as stack:
            pool = stack.enter_context(
                ShardPool(
                    self.maker,
                    size=self.size,
                    seed=seed,
                    memory_budget=self.memory_budget,
                    renew=min(_MOST_RENEWED, _RENEWED * self.size / self.num_units),
                    threads=threads,
                )
            )
            weight = float(pool.schedule.num_batches)
            weights = np.array([weight, *((1 - weight) * c for c in self._coefficients)])
            alone = Batch(self._register_base(stack), on_device(weights))
            found = ShardBatches(pool, alone, self.size, inputs)
            found.dim = self.maker.model.dim
            stack.callback(found.close)
            yield found


class _Measured(Batches):
    """Shards that stay: a step for each."""

    def __init__(self, slots: list[int], inputs: npt.NDArray[np.float32], alone: Batch) -> None:
        self._slots, self._inputs, self._alone = slots, inputs, alone

    def __len__(self) -> int:
        return len(self._slots)

    def chunk(self, first: int, steps: int) -> StepArrays:
        some = slice(first, first + steps)
        slots, which = np.array(self._slots[some], dtype=np.int64), np.arange(steps, dtype=np.int32)
        return on_device(self._inputs[some]), self._alone, on_device(slots), on_device(which)

    def places(self, first: int, steps: int) -> Places:
        some = slice(first, first + steps)
        return Places(self._slots[some], list(self._inputs[some]), self._alone)


def _estimates(family: Family, shards: _Measured, key: PRNGKeyArray) -> FloatArray:
    """An estimate of the ELBO from each shard, nats."""
    form = form_of(family)
    if form is not None and serves(family):
        steps = NetworkSteps(family, form, shards, _MEASURED_DRAWS, key_as_number(key))
        return steps.run(np.zeros(len(shards)), backend())[0]
    words = jax.random.key_data(key).astype(np.uint64)
    return np.asarray(_estimates_by_xla(backend(), family, words, *shards.chunk(0, len(shards))))


@eqx.filter_jit
def _estimates_by_xla(
    how: Backend,
    family: Family,
    key: UInt64[Array, " 2"],
    inputs: Float[Array, "B M R"],
    alone: Batch,
    slots: Int[Array, " B"],
    which: Int[Array, " B"],
) -> Float[Array, " B"]:
    form, frame = form_of(family), frame_of(family)
    assert form is not None

    def one(_: None, given: tuple[Array, ...]) -> tuple[None, Array]:
        slot, number = given
        batch = Batch(jnp.concatenate([slot[None], alone.slots]), alone.weights)
        parts = parts_of(family, inputs[number])
        return None, elbo_estimate(how, form, _MEASURED_DRAWS, batch, key, frame, parts)[0]

    return jax.lax.scan(one, None, (slots, which))[1]


class ShardBatches(Batches):
    """Shards in the order of their rounds; a round lasts some chunks.

    One training after the other can use them: the next begins with the round in which the last one ended.
    """

    def __init__(self, pool: ShardPool, alone: Batch, columns: int, inputs: FloatArray) -> None:
        self._pool, self._alone, self._columns, self._inputs = pool, alone, columns, inputs
        self._first_round = 0
        self._held = pool.schedule.held
        self.steps_per_round = _MULTIPLE * math.ceil(max(self._held, _STEPS_PER_ROUND) / _MULTIPLE)
        self._ready: dict[Shard, tuple[Slot, npt.NDArray[np.float32]]] = {}
        self.shards: tuple[Shard, ...] = ()  # of the present round, in its order
        self._round = -1

    def chunk(self, first: int, steps: int) -> StepArrays:
        """As `Batches.chunk`; rounds are asked for in their order, and end between chunks.

        Raises:
            AvistanError: a shard does not bind, or its units have no inputs.
        """
        return self._arrays(self._shards_of(first, steps))

    def places(self, first: int, steps: int) -> Places:
        """As `chunk`, without copies of the inputs."""
        ready = [self._ready[shard] for shard in self._shards_of(first, steps)]
        return Places([slot.index for slot, _ in ready], [inputs for _, inputs in ready], self._alone)

    def example(self, steps: int) -> StepArrays:
        """Arrays of the right shapes, without moving on."""
        return self._arrays([self.shards[0]] * steps) if self.shards else self.chunk(0, steps)

    def passed(self, steps: int) -> None:
        """A training of so many steps is over, here or before an interruption."""
        self._first_round += max(0, steps - 1) // self.steps_per_round

    def close(self) -> None:
        """Release all slots; the pool frees the models."""
        for slot, _ in self._ready.values():
            slot.close()
        self._ready.clear()

    def _shards_of(self, first: int, steps: int) -> list[Shard]:
        """The shard of each step."""
        number, at = divmod(first, self.steps_per_round)
        self._turn_to(self._first_round + number, at + steps)
        return [self.shards[step % self._held] for step in range(at, at + steps)]

    def _arrays(self, shards: Sequence[Shard]) -> StepArrays:
        slots = np.array([self._ready[shard][0].index for shard in shards], dtype=np.int64)
        inputs = np.stack([self._ready[shard][1] for shard in shards])
        which = np.arange(len(shards), dtype=np.int32)
        return on_device(inputs), self._alone, on_device(slots), on_device(which)

    def _turn_to(self, number: int, needed: int) -> None:
        """Make a round's shards ready; of the first round only as many as are `needed` so far."""
        if number == self._round and len(self.shards) >= min(needed, self._held):
            return
        if number == 0 and needed < self._held:
            self.shards = self._pool.first(needed)
        else:
            staying = set(self._pool.staying(number))
            for shard in [shard for shard in self._ready if shard not in staying]:
                self._ready.pop(shard)[0].close()  # the pool closes the models of shards that leave
            self.shards = self._pool.epoch(number)
        self._round = number
        for shard in self.shards:
            if shard not in self._ready:
                slot = register(shard.model)
                set_layout(slot.index, shard.globals_index, shard.index.T)
                self._ready[shard] = slot, self._padded(self._inputs[shard.units])

    def _padded(self, values: FloatArray) -> npt.NDArray[np.float32]:
        row = np.zeros((self._columns, values.shape[1]), dtype=np.float32)
        row[: len(values)] = values
        return row
