"""What each step of training evaluates: the whole model, or one batch of units after the other."""

from __future__ import annotations

import abc

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .path_gradient import Batch

# Unit inputs (B, N, R) of B batches; the slots beside the batch's own, and all weights, the batch's first; and of each
# step the slot and the number of its batch.
StepArrays = tuple[Float[Array, "B N R"], Batch, Int[Array, " steps"], Int[Array, " steps"]]


class Batches(abc.ABC):
    """Batches of units for the steps of a chunk."""

    @abc.abstractmethod
    def chunk(self, first: int, steps: int) -> StepArrays:
        """What steps `first` to `first + steps - 1` read."""

    def example(self, steps: int) -> StepArrays:
        """Arrays of the right shapes for chunks of that many steps."""
        return self.chunk(0, steps)


class _OneBatch(Batches):
    def __init__(self, slot: int, inputs: Float[Array, "N R"]) -> None:
        self._slot, self._inputs = slot, inputs[None]

    def chunk(self, first: int, steps: int) -> StepArrays:
        alone = Batch(jnp.zeros(0, dtype=jnp.int64), jnp.ones(1))
        slots = jnp.full(steps, self._slot, dtype=jnp.int64)
        return self._inputs, alone, slots, jnp.zeros(steps, dtype=jnp.int32)


def one_batch(slot: int, inputs: Float[Array, "N R"]) -> Batches:
    """The whole model in one slot, with the inputs of all units."""
    return _OneBatch(slot, inputs)
