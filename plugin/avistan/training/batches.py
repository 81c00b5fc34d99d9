"""What each step of training evaluates: the whole model, or one batch of units after the other."""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int

from avistan.objective.step import Batch
from avistan.runtime.device import on_device, zeros

# Unit inputs (B, N, R) of B batches; the slots beside the batch's own, and all weights, the batch's first; and of each
# step the slot and the number of its batch.
StepArrays = tuple[Float[Array, "B N R"], Batch, Int[Array, " steps"], Int[Array, " steps"]]


class Places(NamedTuple):
    """Where steps find their batches.

    Attributes:
        slots: of each step's batch.
        inputs: of its units, float32, in rows (N, R); the same array for the same batch.
        base: the slots beside the batch's own, and all weights, the batch's first.
    """

    slots: Sequence[int]
    inputs: Sequence[npt.NDArray[np.float32]]
    base: Batch


class Batches(abc.ABC):
    """Batches of units for the steps of a chunk."""

    dim: int | None = None  # parameters of the whole model, where a batch is a part of it

    @abc.abstractmethod
    def chunk(self, first: int, steps: int) -> StepArrays:
        """What steps `first` to `first + steps - 1` read."""

    @abc.abstractmethod
    def places(self, first: int, steps: int) -> Places:
        """The same without copies."""

    def example(self, steps: int) -> StepArrays:
        """Arrays of the right shapes for chunks of that many steps."""
        return self.chunk(0, steps)


class _OneBatch(Batches):
    def __init__(self, slot: int, inputs: Float[Array, "N R"]) -> None:
        self._slot, self._inputs = slot, inputs
        self._rows = np.ascontiguousarray(inputs, dtype=np.float32)

    def chunk(self, first: int, steps: int) -> StepArrays:
        slots = on_device(np.full(steps, self._slot, dtype=np.int64))
        return self._all, self._alone(), slots, zeros(steps, dtype=np.int32)

    def places(self, first: int, steps: int) -> Places:
        return Places([self._slot] * steps, [self._rows] * steps, self._alone())

    @functools.cached_property
    def _all(self) -> Float[Array, "1 N R"]:
        return on_device(np.asarray(self._inputs)[None])

    def _alone(self) -> Batch:
        return Batch(zeros(0, dtype=np.int64), on_device(np.ones(1)))


def one_batch(slot: int, inputs: Float[Array, "N R"]) -> Batches:
    """The whole model in one slot, with the inputs of all units."""
    return _OneBatch(slot, inputs)
