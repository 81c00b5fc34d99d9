"""The parameters that training moves as one vector, on which an optimizer is a few operations in all, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avistan.runtime.types import FloatArray


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the leaves of a tree lie in a vector (P,) of double precision: one after the other, row by row.

    Attributes:
        leaves: shapes and names of the types.
    """

    structure: jax.tree_util.PyTreeDef
    leaves: tuple[tuple[tuple[int, ...], str], ...]

    @classmethod
    def of(cls, tree: Any) -> Layout:
        """The layout of a tree's arrays."""
        leaves, structure = jax.tree.flatten(tree)
        return cls(structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves))

    def vector(self, tree: Any) -> FloatArray:
        """The leaves of a tree in a row."""
        parts = [np.ravel(np.asarray(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(tree)]
        return np.concatenate([np.empty(0), *parts])

    def tree(self, vector: Any) -> Any:
        """The tree with the leaves that a vector holds, each of its own type; of a JAX array, or numpy's."""
        xp: Any = np if isinstance(vector, np.ndarray) else jnp
        ends = np.cumsum([int(np.prod(shape)) for shape, _ in self.leaves])
        parts = zip(xp.split(vector, ends[:-1].tolist()), self.leaves, strict=True)
        return jax.tree.unflatten(
            self.structure, [part.reshape(shape).astype(kind) for part, (shape, kind) in parts]
        )
