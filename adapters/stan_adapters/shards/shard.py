"""Minibatches of units: the program bound to the data of some units.

For separable units U(theta, z) = U_0(theta) + sum_n u_n(z_n, theta), where U_0 is the log density of the program bound
to no units. With a random partition of the N units into batches B of one size,

    U_0(theta) + (N / |B|) (U_B(theta, z_B) - U_0(theta))

is an unbiased estimate of U, and its mean over the batches is U. `shard_base` has U_0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError, StructureError
from stan_adapters.levels.levels import Level
from stan_adapters.unit_data import Slicing, make_part, rebind

_NUMBERS_PER_BATCH = 20_000  # data of a batch, at most: a gradient then takes 10 to 400 us
_FEWEST, _MOST = 200, 1000  # units in a batch, for all of which an inference function is evaluated too
_BATCHES_THAT_PAY = 8
FEWEST_UNITS = _FEWEST * _BATCHES_THAT_PAY  # below, minibatches do not pay whatever the data


# ---- sizes ---------------------------------------------------------------------------------------------------


def data_numbers(slicing: Slicing, data: StanData) -> int:
    """How many numbers of the data belong to single units, all units together."""
    plan = slicing.plan(data)
    owned = (name for name in slicing.rules if plan.owner(name) is not None)
    return sum(np.asarray(plan.data[name]).size for name in owned)


def batch_size(slicing: Slicing, data: StanData) -> int:
    """Units in a minibatch: about 20000 numbers of data, between 200 and 1000 units, at most all of them.

    It follows from counts alone, so a fit of the same data has the same batches on every machine.
    """
    units = slicing.num_units(data)
    wanted = round(_NUMBERS_PER_BATCH / max(1.0, data_numbers(slicing, data) / max(units, 1)))
    return min(units, max(_FEWEST, min(_MOST, wanted)))


def minibatches_pay(slicing: Slicing, data: StanData) -> bool:
    """Whether there are so many units that steps on minibatches of `batch_size` are worth their noise (by counts)."""
    return slicing.num_units(data) >= _BATCHES_THAT_PAY * batch_size(slicing, data)


def partition(rng: np.random.Generator, num_units: int, size: int) -> list[IndexArray]:
    """All units in random order, cut into ceil(N / size) batches whose sizes differ by one at most.

    Each batch stands for the whole with the weight ceil(N / size), the number of batches.
    """
    if not 1 <= size <= num_units:
        raise StructureError(f"a minibatch has 1 to {num_units} units, not {size}.")
    batches = np.array_split(rng.permutation(num_units), math.ceil(num_units / size))
    return [batch.astype(np.int64) for batch in batches]


# ---- shards --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """The program bound to the data of M units.

    Attributes:
        units: (M,) their numbers in the whole.
        model: its unconstrained vector holds the globals and the M blocks.
        index: (M, d) positions of the units' blocks there, in the order of `units`.
        globals_index: (G,) positions of the globals there, in the order of the whole level's `globals_index`.
    """

    units: IndexArray
    model: BoundModel
    index: IndexArray
    globals_index: IndexArray

    @property
    def num_units(self) -> int:
        return len(self.units)

    def place(self, theta: FloatArray, z: FloatArray) -> FloatArray:
        """Points (.., D) of this model from globals (.., G) and blocks (.., M, d)."""
        point = np.empty((*theta.shape[:-1], self.model.dim))
        point[..., self.globals_index] = theta
        point[..., self.index] = z
        return point


@dataclass(slots=True, eq=False)
class ShardMaker:
    """Binds shards of one model; safe in several threads. Shards of the same number of units share their positions.

    Args:
        model: the whole.
        level: its units.
        slicing: verified rules for the data of some of them.
    """

    model: BoundModel
    level: Level
    slicing: Slicing
    _rows: IndexArray | None = field(init=False, repr=False)
    _places: dict[tuple[object, ...], tuple[IndexArray, IndexArray]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._rows = self.slicing.rows_per_unit(self.model.data)

    def __call__(self, units: IndexArray) -> Shard:
        """The shard of the given units. Where units have rows, one that has some is put last.

        Raises:
            DataError, EngineError: the program refuses the data of these units.
            StructureError: bound to them, it has other globals than the whole.
        """
        units = self._with_rows_last(units)
        model = rebind(self.model, self.slicing.subset(self.model.data, units))
        try:
            index, globals_index = self._find(model, units)
        except AvistanError:
            model.close()
            raise
        return Shard(units, model, index, globals_index)

    def everyone(self) -> Shard:
        """The whole model as the shard of all units."""
        units = np.arange(self.level.num_units)
        return Shard(units, self.model, self.level.index, self.level.globals_index(self.model.dim))

    def _find(self, model: BoundModel, units: IndexArray) -> tuple[IndexArray, IndexArray]:
        key = (len(units), *((c.name, c.offset, c.shape) for c in model.layout.containers))
        if key not in self._places:
            part = make_part(self.model, self.level, model, units)
            self._places.setdefault(key, (part.locals, part.globals))
        return self._places[key]

    def _with_rows_last(self, units: IndexArray) -> IndexArray:
        """Some programs refuse data whose last unit has no rows."""
        rows = self._rows
        if rows is None or not len(units) or rows[units[-1]] > 0 or not rows[units].any():
            return units
        last = int(np.flatnonzero(rows[units])[-1])
        return np.append(np.delete(units, last), units[last])
