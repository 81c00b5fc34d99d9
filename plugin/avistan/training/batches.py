"""What each step of training evaluates: the whole model, or one batch of units after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from avistan.density.log_density import block_log_density
from avistan.density.slots import set_layout
from avistan.family.family import Family
from avistan.family.functions import MLP, DistinctInputs, Inputs
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
    """What steps read: of each the slot of its batch and, where there are several, its number.

    There are as many places as a run of the program has; those beyond the steps are of no use.
    """

    terms: Terms
    units: Units
    slots: Int[Array, " steps"]
    which: Int[Array, " steps"]


@runtime_checkable
class Batches(Protocol):
    """Batches of units for some steps.

    Attributes:
        dim: parameters of the whole model, where a batch is a part of it.
        places: steps of a run of the program, at most.
    """

    dim: int | None
    places: int

    def chunk(self, first: int, steps: int) -> Steps:
        """What steps `first` to `first + steps - 1` read."""
        ...

    def example(self) -> Steps:
        """Arrays of the right shapes."""
        ...


class WholeModel:
    """Every step evaluates all units of the model in a slot.

    Args:
        inputs: of the units (N, R).
        size: of the batch, at least N: units that are not there count for nothing.
    """

    dim: int | None = None
    places = 250

    def __init__(self, slot: int, family: Family, inputs: Float[Array, "N R"], size: int) -> None:
        place = family.placement
        set_layout(slot, np.asarray(place.global_index), np.asarray(place.local_index).T)
        self._slot = slot
        self._terms = Terms(on_device(1.0), *map(on_device, (np.zeros(0, np.int64), np.zeros(0))))
        # Programs of few units are compiled for others too, and a table reads no inputs.
        given = UnitInputs(
            np.asarray(inputs), size if isinstance(family.inference, MLP) and size >= MANY else 0
        )
        self._units = given.padded([np.arange(len(inputs))], size, weight=1.0)

    def chunk(self, first: int, steps: int) -> Steps:
        """As of `Batches`."""
        slots, which = np.full(self.places, self._slot), np.zeros(self.places)
        return Steps(self._terms, self._units, on_device(slots, np.int64), on_device(which, np.int32))

    def example(self) -> Steps:
        """As of `Batches`."""
        return self.chunk(0, 1)


class UnitInputs:
    """Inputs of all units of a level, as batches read them: each distinct one once, where these are few in a batch.

    Args:
        inputs: of the units (N, R).
        size: of a batch; 0 where every unit is to have inputs of its own.
    """

    def __init__(self, inputs: npt.NDArray[np.floating], size: int) -> None:
        self._rows, self._which = inputs.astype(np.float32), None
        some = self._rows[:: max(1, len(inputs) // _LOOKED_AT)]
        if _SHARED * max(1, len(np.unique(some, axis=0))) > size:
            return
        rows, which = np.unique(self._rows, axis=0, return_inverse=True)
        padded = 1 << (len(rows) - 1).bit_length()  # programs are compiled for few sizes
        if _SHARED * padded <= size:
            self._rows, self._which = np.pad(rows, ((0, padded - len(rows)), (0, 0))), which.reshape(-1)

    def padded(self, batches: Sequence[IntArray], size: int, weight: ArrayLike) -> Units:
        """Batches of units by number (n,), brought to one size; each unit of them counts alike."""

        def stacked(parts: Iterable[npt.NDArray[Any]], dtype: type[np.generic]) -> Array:
            wide = [np.pad(part, [(0, size - len(part)), *[(0, 0)] * (part.ndim - 1)]) for part in parts]
            return on_device(np.stack(wide), dtype)

        inputs: Inputs
        if self._which is None:
            inputs = stacked((self._rows[units] for units in batches), np.float32)
        else:
            which = stacked((self._which[units] for units in batches), np.int32)
            inputs = DistinctInputs(
                on_device(np.broadcast_to(self._rows, (len(batches), *self._rows.shape))), which
            )
        weights = stacked((np.full(len(units), weight, dtype=np.float64) for units in batches), np.float64)
        return Units(stacked(batches, np.int32), inputs, weights)
