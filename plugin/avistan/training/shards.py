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
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from avistan.density.slots import Slot, default_threads, register, set_layout
from avistan.family.family import Family
from avistan.family.method import Method
from avistan.family.normals import normals
from avistan.family.placement import make_placement
from avistan.objective.elbo import Evaluation
from avistan.objective.gradient import neg_elbo
from avistan.runtime.device import on_device
from avistan.runtime.streams import Stream, derived_seeds, generator, stream_key
from avistan.runtime.types import FloatArray
from avistan.start.preparation import Preparation, start_family
from avistan.training.batches import Steps, Terms, UnitInputs
from avistan.training.loop import TrainingOptions
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
            MethodError: as of `preparation.start_family`.
        """
        family, inputs = start_family(self.start, method)
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
        units = generator(self.seed, Stream.MEASURED_UNITS).permutation(self.num_units)[: count * self.size]
        with ExitStack() as stack:
            shards = [self.maker(part) for part in np.array_split(units, count)]
            for shard in shards:
                stack.callback(shard.model.close)
            terms = self._terms(stack, self.num_units * count / len(units))
            slots = []
            for shard in shards:
                slot = stack.enter_context(register(shard.model))
                set_layout(slot.index, shard.globals_index, shard.index.T)
                slots.append(slot.index)
            given = UnitInputs(inputs, self.size)
            parts = given.padded([shard.units for shard in shards], self.size, terms.weight)
            steps = Steps(terms, parts, *(on_device(np.array(part)) for part in (slots, range(count))))

            def measured(family: Family, number: int) -> Evaluation:
                small = eqx.tree_at(lambda f: f.placement, family, None)
                found = _estimates(small, steps, stream_key(key, Stream.STOPPING, number))
                return Evaluation(np.repeat(np.asarray(found), 2))  # each as a pair of draws

            yield measured

    def _terms(self, stack: ExitStack, weight: float) -> Terms:
        """What makes a shard's log density with this weight an estimate of the whole's, open as long as the stack."""
        slots = [stack.enter_context(register(term.model)).index for term in self.base.terms]
        for slot, term in zip(slots, self.base.terms, strict=True):
            set_layout(slot, term.globals_index, np.zeros((0, 0), dtype=np.int64), term.template)
        weights = [(1 - weight) * term.coefficient for term in self.base.terms]
        return Terms(
            on_device(weight),
            on_device(np.array(slots, dtype=np.int64)),
            on_device(np.array(weights, dtype=float)),
        )

    @contextmanager
    def batches(self, inputs: FloatArray, number: int = 0) -> Iterator[ShardBatches]:
        """The shards of a chain, bound ahead of their use.

        Args:
            inputs: of all units (N, R).
            number: of the chain; each has its own sequence of shards.
        """
        threads = default_threads()
        (seed,) = derived_seeds(self.seed, Stream.SHARD, number)
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
            terms = self._terms(stack, float(pool.schedule.num_batches))
            found = ShardBatches(pool, terms, self.size, inputs, self.maker.model.dim)
            stack.callback(found.close)
            yield found


@jax.jit
def _estimates(family: Family, steps: Steps, key: PRNGKeyArray) -> Float[Array, " K"]:
    """An estimate of the ELBO from each shard, nats."""
    size, block = family.frame.global_center.shape[0], family.local.block

    def one(_: None, given: tuple[Array, ...]) -> tuple[None, Array]:
        slot, number = given
        numbers, inputs, weight = steps.units.batch(number)
        noise = normals(key, numbers, _MEASURED_DRAWS, size, block)
        return None, neg_elbo(family, steps.terms.density(slot), noise, inputs, weight)[1].elbo

    return jax.lax.scan(one, None, (steps.slots, steps.which))[1]


class ShardBatches:
    """Shards in the order of their rounds; a round lasts some chunks.

    One training after the other can use them: the next begins with the round in which the last one ended.
    """

    places = 25  # each takes memory for a batch

    def __init__(self, pool: ShardPool, terms: Terms, size: int, inputs: FloatArray, dim: int) -> None:
        self.dim: int | None = dim
        self._pool, self._terms, self._size = pool, terms, size
        self._inputs = UnitInputs(inputs, size)
        self._first_round = 0
        self._held = pool.schedule.held
        self.steps_per_round = _MULTIPLE * math.ceil(max(self._held, _STEPS_PER_ROUND) / _MULTIPLE)
        self._ready: dict[Shard, Slot] = {}
        self.shards: tuple[Shard, ...] = ()  # of the present round, in its order
        self._round = -1

    def chunk(self, first: int, steps: int) -> Steps:
        """As of `Batches`; rounds are asked for in their order, and end between chunks.

        Raises:
            AvistanError: a shard does not bind, or its units have no inputs.
        """
        number, at = divmod(first, self.steps_per_round)
        self._turn_to(self._first_round + number, at + steps)
        return self._read([self.shards[step % self._held] for step in range(at, at + steps)])

    def example(self) -> Steps:
        """As of `Batches`, without moving on."""
        return self._read([self.shards[0]]) if self.shards else self.chunk(0, 1)

    def passed(self, steps: int) -> None:
        """A training of so many steps is over, here or before an interruption."""
        self._first_round += max(0, steps - 1) // self.steps_per_round

    def close(self) -> None:
        """Release all slots; the pool frees the models."""
        for slot in self._ready.values():
            slot.close()
        self._ready.clear()

    def _read(self, shards: Sequence[Shard]) -> Steps:
        shards = [*shards, *[shards[-1]] * (self.places - len(shards))]
        weight = float(self._terms.weight)
        units = self._inputs.padded([shard.units for shard in shards], self._size, weight)
        slots = np.array([self._ready[shard].index for shard in shards], dtype=np.int64)
        return Steps(self._terms, units, on_device(slots), on_device(np.arange(len(shards), dtype=np.int32)))

    def _turn_to(self, number: int, needed: int) -> None:
        """Make a round's shards ready; of the first round only as many as are `needed` so far."""
        if number == self._round and len(self.shards) >= min(needed, self._held):
            return
        if number == 0 and needed < self._held:
            self.shards = self._pool.first(needed)
        else:
            staying = set(self._pool.staying(number))
            for shard in [shard for shard in self._ready if shard not in staying]:
                self._ready.pop(shard).close()  # the pool closes the models of shards that leave
            self.shards = self._pool.epoch(number)
        self._round = number
        for shard in self.shards:
            if shard not in self._ready:
                slot = register(shard.model)
                set_layout(slot.index, shard.globals_index, shard.index.T)
                self._ready[shard] = slot
