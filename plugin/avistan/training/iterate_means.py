"""Means of the iterates of training, over blocks of steps that grow with the run."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np

from avistan.family.family import Family, trainable
from avistan.runtime.device import on_device
from avistan.runtime.types import FloatArray
from avistan.training.fingerprint import Arrays

Leaves = list[FloatArray]  # of a family's trainable part


def leaves_of(family: Family) -> Leaves:
    """The family's trainable leaves in double precision."""
    leaves = jax.tree.leaves(eqx.filter(family, trainable(family)))
    return [np.asarray(leaf, dtype=np.float64) for leaf in leaves]


def with_leaves(family: Family, leaves: Leaves) -> Family:
    """The family with other trainable leaves."""
    moved, fixed = eqx.partition(family, trainable(family))
    old, structure = jax.tree.flatten(moved)
    new = [on_device(leaf, like.dtype) for leaf, like in zip(leaves, old, strict=True)]
    changed: Family = eqx.combine(jax.tree.unflatten(structure, new), fixed)
    return changed


class BlockMeans:
    """Means of iterates over blocks of chunks, in constant memory: twice the fewest blocks become half as many of twice
    the length.

    Args:
        fewest: blocks that are kept apart.
        chunks: of a block, to begin with.
    """

    def __init__(self, fewest: int, chunks: int) -> None:
        self._fewest, self.chunks = fewest, chunks
        self.partial = 0  # chunks of the block that is not complete
        self._blocks: list[Leaves] = []
        self._sum: Leaves = []

    @property
    def count(self) -> int:
        """Complete blocks."""
        return len(self._blocks)

    def add(self, leaves: Leaves) -> None:
        """The mean of one more chunk."""
        if not self.partial and self.count == 2 * self._fewest:
            self._blocks = [_mean(self._blocks[i : i + 2]) for i in range(0, 2 * self._fewest, 2)]
            self.chunks *= 2
        if self.partial:
            leaves = [x + y for x, y in zip(self._sum, leaves, strict=True)]
        self._sum, self.partial = leaves, self.partial + 1
        if self.partial == self.chunks:
            self._blocks.append([x / self.chunks for x in self._sum])
            self._sum, self.partial = [], 0

    def last(self, number: int, before: int = 0) -> Leaves:
        """The mean over some complete blocks, that many before the end."""
        stop = self.count - before
        return _mean(self._blocks[stop - number : stop])

    def arrays(self) -> Arrays:
        sizes = np.array([self.chunks, self.partial], dtype=np.int64)
        stacked = {f"blocks.{i}": np.array(parts) for i, parts in enumerate(zip(*self._blocks, strict=True))}
        return {"sizes": sizes, **stacked} | {f"sum.{i}": leaf for i, leaf in enumerate(self._sum)}

    @classmethod
    def of(cls, fewest: int, arrays: Arrays) -> BlockMeans:
        """From what `arrays` gave."""
        chunks, partial = arrays["sizes"].tolist()
        found = cls(fewest, chunks)
        found.partial = partial
        found._blocks = [list(parts) for parts in zip(*numbered(arrays, "blocks"), strict=True)]
        found._sum = numbered(arrays, "sum")
        return found


def _mean(blocks: Sequence[Leaves]) -> Leaves:
    return [np.mean(parts, axis=0) for parts in zip(*blocks, strict=True)]


def numbered(arrays: Arrays, name: str) -> Leaves:
    """Arrays `name`.0, `name`.1 and so on."""
    count = sum(key.startswith(f"{name}.") for key in arrays)
    return [arrays[f"{name}.{i}"] for i in range(count)]
