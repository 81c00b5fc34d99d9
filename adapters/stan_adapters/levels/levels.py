"""Candidate levels: which unconstrained coordinates could be the blocks of N units.

Parameters that share a declared size share a unit axis: `vector[J] alpha; matrix[J, 2] beta` propose one level `J` of
J units with three latents each. A candidate is a proposal only; `certificate` tests it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stan_adapters.data.layout import IndexArray, Layout


@dataclass(frozen=True, slots=True)
class Member:
    """A parameter that has an entry per unit: container `name`, split along its axis number `axis`."""

    name: str
    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A family of N units.

    Attributes:
        name: the declared size, as written ("J", "N - 1").
        members: the parameters with an entry per unit.
        index: (N, d) positions in the unconstrained vector; row n is the block z_n of unit n.
    """

    name: str
    members: tuple[Member, ...]
    index: IndexArray

    @property
    def num_units(self) -> int:
        return int(self.index.shape[0])

    @property
    def block(self) -> int:
        """d, the number of unconstrained latents of one unit."""
        return int(self.index.shape[1])

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the parameters, in declaration order."""
        return tuple(member.name for member in self.members)

    def member_columns(self, layout: Layout) -> dict[str, slice]:
        """Which columns of `index` belong to each parameter."""
        columns, start = {}, 0
        for member in self.members:
            width = layout[member.name].size // self.num_units
            columns[member.name] = slice(start, start + width)
            start += width
        return columns

    def only(self, layout: Layout, names: Sequence[str]) -> Level:
        """The same units with some of the parameters only; the others count as globals."""
        return make_level(layout, self.name, [member for member in self.members if member.name in names])

    def globals_index(self, dim: int) -> IndexArray:
        """Positions (G,) of everything else, ascending."""
        is_global = np.ones(dim, dtype=bool)
        is_global[self.index.ravel()] = False
        return np.flatnonzero(is_global)


def make_level(layout: Layout, name: str, members: Sequence[Member]) -> Level:
    """The level of the given parameters; their axes must have one size."""
    blocks = [layout[member.name].positions(member.axis) for member in members]
    return Level(name, tuple(members), np.concatenate(blocks, axis=1))


def candidate_levels(layout: Layout) -> tuple[Level, ...]:
    """Every declared size that parameters share as an axis, most latents first, then most units.

    A parameter with several axes of the same size joins through its first one. Levels of fewer than two units have
    nothing to compare and are left out.
    """
    groups: dict[tuple[str, int], list[Member]] = {}
    for container in layout.containers:
        seen = set()
        for number, axis in enumerate(container.axes):
            key = (axis.symbol, axis.size)
            if axis.size >= 2 and container.size and key not in seen:
                groups.setdefault(key, []).append(Member(container.name, number))
                seen.add(key)
    levels = [make_level(layout, symbol, members) for (symbol, _), members in groups.items()]
    return tuple(sorted(levels, key=lambda level: (-level.index.size, -level.num_units)))


def shared_levels(layout: Layout) -> tuple[Level, ...]:
    """Levels whose entries share free coordinates: a `sum_to_zero_vector[J]` has J entries and J - 1 of those.

    No unit owns a coordinate, so `index` has shape (J, 0).
    """
    return tuple(
        Level(
            axis.symbol,
            (Member(container.name, len(container.axes) + number),),
            np.zeros((axis.size, 0), np.int64),
        )
        for container in layout.containers
        for number, axis in enumerate(container.whole)
        if axis.kind.startswith("sum_to_zero") and axis.size >= 2
    )
