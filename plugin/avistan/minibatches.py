"""Training on minibatches of units, for levels of so many units that a step on all of them is too much.

A step sees one shard: the program bound to the data of some units (`stan_adapters.shards`), weighted so that the ELBO
and its gradient are unbiased for the whole. Only functions of the units' inputs can be trained so; a table would see
each of its rows once in a long while.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from stan_adapters.binding import BoundModel
from stan_adapters.levels import Level
from stan_adapters.shard_base import Base, make_base
from stan_adapters.shard_pool import DEFAULT_BUDGET, ShardPool
from stan_adapters.shards import Shard, ShardMaker, batch_size
from stan_adapters.unit_data import Slicing

from .batches import Batches, StepArrays
from .families import Family, make_placement
from .log_density import Slot, default_threads, register, set_layout
from .methods import Method
from .path_gradient import Batch
from .preparation import Preparation, prepare, start_family
from .unit_inputs import UnitInput

FloatArray = npt.NDArray[np.float64]

CHUNK = 250  # steps: rounds of shards change between chunks
_STEPS_PER_ROUND = 1000  # at least: binding the next round's shards takes longer than many cheap steps
_SAMPLE = 20_000  # units whose scores fit the transform of the signatures


@dataclass(frozen=True, kw_only=True, eq=False)
class Minibatches:
    """What all methods on minibatches of one level and seed share.

    Attributes:
        maker: binds shards of the whole.
        start: the preparation on the units of one shard, from which the whole starts.
        base: the log density without units.
        size: most units in a shard.
        memory_budget: bytes of bound shards.
    """

    maker: ShardMaker
    start: Preparation
    base: Base
    size: int
    seed: int
    memory_budget: int = DEFAULT_BUDGET

    @property
    def num_units(self) -> int:
        return self.maker.level.num_units

    def start_family(self, method: Method) -> Family:
        """The family of a method for the units of a shard.

        Its globals start at the quick fit of one shard, with sds for as many data as there are in all.
        """
        family, _ = start_family(self.start, method)
        narrower = 0.5 * math.log(self.size / self.num_units)
        moved: Family = eqx.tree_at(lambda f: f.globals.log_sd, family, family.globals.log_sd + narrower)
        return moved

    def whole_family(self, family: Family) -> Family:
        """The same family for all units."""
        level = self.maker.level
        placement = make_placement(level.globals_index(self.maker.model.dim), level.index)
        return replace(family, placement=placement)

    @contextmanager
    def batches(self, method: Method, number: int = 0) -> Iterator[ShardBatches]:
        """The shards of a training run, bound ahead of their use.

        Args:
            number: of the run; each has its own sequence of shards.
        """
        given, _ = self.start.unit_input(method)
        threads = default_threads()
        seed = int(np.random.SeedSequence([self.seed, 7, number]).generate_state(1)[0])
        with ExitStack() as stack:
            pool = stack.enter_context(
                ShardPool(
                    self.maker, size=self.size, seed=seed, memory_budget=self.memory_budget, threads=threads
                )
            )
            terms = [stack.enter_context(register(term.model)) for term in self.base.terms]
            for slot, term in zip(terms, self.base.terms, strict=True):
                nowhere = np.zeros((0, 0), dtype=np.int64)
                set_layout(slot.index, term.globals_index, nowhere, term.template)
            weight = float(pool.schedule.num_batches)
            weights = [weight, *((1 - weight) * term.coefficient for term in self.base.terms)]
            alone = Batch(jnp.asarray([slot.index for slot in terms]), jnp.asarray(weights))
            found = ShardBatches(pool, alone, self.size, self._reader(method, given))
            stack.callback(found.close)
            yield found

    def _reader(self, method: Method, given: UnitInput | None) -> Callable[[Shard], FloatArray]:
        """How a shard's unit inputs are read."""
        if given is None:
            return lambda shard: np.empty((shard.num_units, 0))
        if method.data:  # rows beside the unit's own may lie outside its shard
            level, model = self.maker.level, self.maker.model
            of_all = given(model, level.index, level.globals_index(model.dim))
            return lambda shard: of_all[shard.units]
        return lambda shard: given(shard.model, shard.index, shard.globals_index)


class ShardBatches(Batches):
    """Shards in the order of their rounds; a round lasts some chunks."""

    def __init__(
        self, pool: ShardPool, alone: Batch, columns: int, read: Callable[[Shard], FloatArray]
    ) -> None:
        self._pool, self._alone, self._columns, self._read = pool, alone, columns, read
        self._held = pool.schedule.held
        lasting = max(self._held, _STEPS_PER_ROUND)
        self._steps_per_round = CHUNK * math.ceil(lasting / CHUNK)
        self._slots: dict[int, tuple[Shard, Slot]] = {}  # by the identity of the shard
        self._inputs: npt.NDArray[np.float32] | None = None
        self._order: list[int] = []
        self._round = -1

    def chunk(self, first: int, steps: int) -> StepArrays:
        """As `Batches.chunk`; chunks are asked for in their order."""
        number, at = divmod(first, self._steps_per_round)
        self._turn_to(number, at + steps)
        assert self._inputs is not None
        which = (at + np.arange(steps)) % self._held
        slots = np.array([self._slots[self._order[i]][1].index for i in which], dtype=np.int64)
        return (
            jnp.asarray(self._inputs),
            self._alone,
            jnp.asarray(slots),
            jnp.asarray(which, dtype=jnp.int32),
        )

    @property
    def shards(self) -> tuple[Shard, ...]:
        """Those of the present round, in its order."""
        return tuple(self._slots[key][0] for key in self._order)

    def example(self, steps: int) -> StepArrays:
        """Arrays of the right shapes, without moving on."""
        if self._inputs is None:
            return self.chunk(0, steps)
        nobody = jnp.zeros(steps, dtype=jnp.int32)
        return jnp.asarray(self._inputs), self._alone, nobody.astype(jnp.int64), nobody

    def close(self) -> None:
        """Release all slots; the pool frees the models."""
        for _, slot in self._slots.values():
            slot.close()
        self._slots.clear()

    def _turn_to(self, number: int, needed: int) -> None:
        """Make a round's shards ready; of the first round only as many as are `needed` so far."""
        if number == self._round and len(self._order) == self._held:
            return
        if number == 0 and needed < self._held:
            self._take(self._pool.first(needed))
        else:
            if number != self._round:
                self._leave_for(number)
            self._take(self._pool.epoch(number))
        self._round = number

    def _leave_for(self, number: int) -> None:
        """Close the slots of shards that the next round does not hold: their models close with the round."""
        staying = {id(shard) for shard in self._pool.staying(number)}
        for key, (_, slot) in list(self._slots.items()):
            if key not in staying:
                slot.close()
                del self._slots[key]

    def _take(self, shards: tuple[Shard, ...]) -> None:
        order, before = (
            [id(shard) for shard in shards],
            dict(zip(self._order, range(self._held), strict=False)),
        )
        for shard in shards:
            if id(shard) not in self._slots:
                slot = register(shard.model)
                set_layout(slot.index, shard.globals_index, shard.index.T)
                self._slots[id(shard)] = shard, slot
        inputs: npt.NDArray[np.float32] | None = None
        for place, shard in enumerate(shards):
            if self._inputs is not None and id(shard) in before:
                row = self._inputs[before[id(shard)]]
            else:
                row = self._padded(self._read(shard))
            if inputs is None:
                inputs = np.zeros((self._held, *row.shape), dtype=np.float32)
            inputs[place] = row
        self._inputs, self._order = inputs, order

    def _padded(self, values: FloatArray) -> npt.NDArray[np.float32]:
        row = np.zeros((self._columns, values.shape[1]), dtype=np.float32)
        row[: len(values)] = values
        return row


def make_minibatches(
    model: BoundModel,
    level: Level,
    slicing: Slicing,
    *,
    seed: int,
    num_references: int,
    max_rank: int,
    size: int | None = None,
    memory_budget: int = DEFAULT_BUDGET,
) -> Minibatches:
    """Minibatches of a level's units, with the quick fit of one of them.

    Args:
        size: most units in a shard; by default `batch_size`.

    Raises:
        StartError: no point of finite density to start from.
        StructureError: the units' log densities do not add up to the whole.
        AvistanError: the program refuses the data of some units.
    """
    maker, size = ShardMaker(model, level, slicing), size or batch_size(slicing, model.data)
    rng = np.random.default_rng([seed, 6])
    units = rng.permutation(level.num_units)
    few, many = maker(units[:size]), maker(units[: max(size, _SAMPLE)])
    start = prepare(
        few.model,
        _level_of(few, level),
        seed=seed,
        num_references=num_references,
        max_rank=max_rank,
        sample=many,
    )
    center = start.quick.mean[start.index].mean(axis=0)
    base = make_base(maker, center, seed=seed)
    return Minibatches(maker=maker, start=start, base=base, size=size, seed=seed, memory_budget=memory_budget)


def _level_of(shard: Shard, level: Level) -> Level:
    return replace(level, index=shard.index)
