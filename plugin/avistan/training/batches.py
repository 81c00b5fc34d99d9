"""What each step of training evaluates: the whole model, or one batch of units after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from avistan.density.log_density import block_log_density
from avistan.density.slots import set_layout
from avistan.family.family import Family
from avistan.family.functions import MLP, DistinctInputs
from avistan.objective.gradient import Density
from avistan.runtime.device import on_device
from avistan.runtime.types import IntArray

MANY = 4096  # units from which on the time of steps counts more than that of compiling them
_SHARED = 4  # units an input, from which on they share it
_LOOKED_AT = 10_000  # units that are looked at first


class Terms(NamedTuple):
    """What estimates the log density of all units from some: weight U_batch(theta, z) + sum_k weights_k U_k(theta).

    Attributes:
        weight: of the batch's log density.
        slots: of densities of the globals alone.
        weights: of those.
    """

    weight: Float[Array, ""]
    slots: Int[Array, " T"]
    weights: Float[Array, " T"]

    def density(self, slot: Int[Array, ""]) -> Density:
        """The estimate by the batch in a slot; a draw that Stan rejects in any of the terms is rejected."""

        def density(theta: Float[Array, "S G"], z: Float[Array, "S d N"]) -> tuple[Array, Array]:
            lp, status = block_log_density(slot, theta, z)
            lp = self.weight * lp
            for term in range(self.slots.shape[0]):
                alone, rejected = block_log_density(self.slots[term], theta, z[:, :, :0])
                lp, status = lp + self.weights[term] * alone, status | rejected
            return lp, status

        return density


class Units(NamedTuple):
    """Units of K batches, each padded to B of them.

    Attributes:
        numbers: of the units in their level, which choose their normals.
        inputs: single precision; each distinct one once where a network reads them and they are few.
        weight: what each counts in log q: 0 of padding.
    """

    numbers: Int[Array, "K B"]
    inputs: Float[Array, "K B R"] | DistinctInputs
    weight: Float[Array, "K B"]

    def batch(self, number: Int[Array, ""]) -> Units:
        """Batch `number` alone, without the axis of batches."""
        alone = len(self.numbers) == 1
        units: Units = jax.tree.map(lambda part: part[0] if alone else part[number], self)
        return units


class Steps(NamedTuple):
    """What the steps of a chunk read: of each step the slot of its batch and, where there are several, its number."""

    terms: Terms
    units: Units
    slots: Int[Array, " steps"]
    which: Int[Array, " steps"]


@runtime_checkable
class Batches(Protocol):
    """Batches of units for the steps of a chunk.

    Attributes:
        dim: parameters of the whole model, where a batch is a part of it.
    """

    dim: int | None

    def chunk(self, first: int, steps: int) -> Steps:
        """What steps `first` to `first + steps - 1` read."""
        ...

    def example(self, steps: int) -> Steps:
        """Arrays of the right shapes for chunks of that many steps."""
        ...


class WholeModel:
    """Every step evaluates all units of the model in a slot.

    Args:
        inputs: of the units (N, R).
        size: of the batch, at least N: units that are not there count for nothing.
    """

    dim: int | None = None

    def __init__(self, slot: int, family: Family, inputs: Float[Array, "N R"], size: int) -> None:
        place = family.placement
        set_layout(slot, np.asarray(place.global_index), np.asarray(place.local_index).T)
        self._slot = slot
        self._terms = Terms(on_device(1.0), *map(on_device, (np.zeros(0, np.int64), np.zeros(0))))
        units = np.arange(int(inputs.shape[0]))
        rows = np.asarray(inputs)
        self._units = padded([(units, rows)], size, weight=1.0)
        if isinstance(family.inference, MLP) and size >= MANY:
            self._units = self._units._replace(inputs=distinct(rows, size) or self._units.inputs)

    def chunk(self, first: int, steps: int) -> Steps:
        """As of `Batches`."""
        slots, which = np.full(steps, self._slot, dtype=np.int64), np.zeros(steps, dtype=np.int32)
        return Steps(self._terms, self._units, on_device(slots), on_device(which))

    def example(self, steps: int) -> Steps:
        """As of `Batches`."""
        return self.chunk(0, steps)


def distinct(inputs: Float[np.ndarray, "N R"], size: int) -> DistinctInputs | None:
    """Inputs of one batch, padded to so many units; None where most are distinct."""
    some = inputs[:: max(1, len(inputs) // _LOOKED_AT)]
    if _SHARED * max(1, len(np.unique(some, axis=0))) > len(some):
        return None
    rows, which = np.unique(inputs.astype(np.float32), axis=0, return_inverse=True)
    more = (1 << (len(rows) - 1).bit_length()) - len(rows)  # programs are compiled for few sizes
    rows, which = np.pad(rows, ((0, more), (0, 0))), np.pad(which.reshape(-1), (0, size - len(inputs)))
    return DistinctInputs(on_device(rows[None]), on_device(which[None], np.int32))


def padded(
    batches: Iterable[tuple[IntArray, npt.NDArray[np.floating]]], size: int, weight: ArrayLike
) -> Units:
    """Batches as numbers of units (n,) and their inputs (n, R), brought to one size; each unit of them counts alike."""
    numbers, inputs, weights = [], [], []
    for units, rows in batches:
        more = size - len(units)
        numbers.append(np.pad(units.astype(np.int32), (0, more)))
        inputs.append(np.pad(rows.astype(np.float32), ((0, more), (0, 0))))
        weights.append(np.pad(np.full(len(units), weight, dtype=np.float64), (0, more)))
    return Units(*(on_device(np.stack(part)) for part in (numbers, inputs, weights)))
