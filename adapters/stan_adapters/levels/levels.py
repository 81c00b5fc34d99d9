"""Candidate levels: which unconstrained coordinates could be the blocks of N units.

Parameters that share a declared size share a unit axis: `vector[J] alpha; matrix[J, 2] beta` propose one level `J` of
J units with three latents each. A candidate is a proposal only; `certificate` tests it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stan_adapters.data.layout import IndexArray, Layout
from stan_adapters.errors import StructureError


@dataclass(frozen=True, slots=True)
class Member:
    """A parameter that has entries of each unit: container `name`, split along its axis number `axis`.

    Attributes:
        width: how many entries along the axis belong to one unit.
        apart: whether these lie as far apart as there are units (entries n, n + N, n + 2 N, ...) and not side by side.
        places: coordinates within the container, `width` for each unit after unit, where no rule gives them. Those that
            are not listed are globals.
        size: of the container, where places are given: they say nothing of another one.
    """

    name: str
    axis: int
    width: int = 1
    apart: bool = False
    places: tuple[int, ...] = ()
    size: int = 0

    def blocks(self, layout: Layout) -> IndexArray:
        """Positions (N, d) of the units' coordinates in the unconstrained vector.

        Raises:
            StructureError: the parameter has another number of entries than whole units would.
        """
        container = layout[self.name]
        if self.places:
            if container.size != self.size:
                raise StructureError(
                    f"{self.name} has {container.size} coordinates, and which of them belong to a unit is known of "
                    f"data with {self.size}."
                )
            return container.offset + np.array(self.places, dtype=np.int64).reshape(-1, self.width)
        rows = container.positions(self.axis)
        units, left = divmod(len(rows), self.width)
        if left:
            raise StructureError(f"{self.name} has {len(rows)} entries, and each unit has {self.width}.")
        ordered = rows.reshape(self.width, units, -1).swapaxes(0, 1) if self.apart else rows
        return ordered.reshape(units, container.size // max(units, 1))


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

    def refuse_other_data(self) -> None:
        """Raises StructureError where no declared pattern says which entries belong to a unit of other data."""
        listed = [member.name for member in self.members if member.places]
        if listed:
            raise StructureError(
                f"which entries of {listed[0]} belong to one unit was found in the fitted data, and no declared "
                "pattern says where they would lie in others: fit the new data instead."
            )

    def member_columns(self, layout: Layout) -> dict[str, slice]:
        """Which columns of `index` belong to each parameter."""
        columns, start = {}, 0
        for member in self.members:
            width = member.blocks(layout).shape[1]
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
    """The level of the given parameters; they must have one number of units.

    Raises:
        StructureError: a parameter's entries are not those of whole units.
    """
    blocks = [member.blocks(layout) for member in members]
    return Level(name, tuple(members), np.concatenate(blocks, axis=1))


def candidate_levels(layout: Layout) -> tuple[Level, ...]:
    """Every declared size that parameters share as an axis, most latents first, then most units.

    A parameter with several axes of the same size joins through its first one. Levels of fewer than two units have
    nothing to compare and are left out.
    """
    groups: dict[tuple[str, int], list[Member]] = {}
    for container in (*layout.containers, *layout.components):
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
        for container in (*layout.containers, *layout.components)
        for number, axis in enumerate(container.whole)
        if axis.kind.startswith("sum_to_zero") and axis.size >= 2
    )
