"""Which of many data entries feed the units of a level, with few bindings: several entries are changed in each.

First every entry is changed at units of its own, so that one binding tells which entries move the scores of theirs.
Those that moved none, because they feed nothing or too few units, are then changed together at all places: mostly
nothing moves, and if something does, halves of them are changed again. An entry of which the program refuses every
change counts as one that feeds: it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stan_adapters.data.layout import IndexArray
from stan_adapters.language.program import Declaration
from stan_adapters.levels.probes import BoolArray
from stan_adapters.unit_data.checks import TOLERANCE
from stan_adapters.unit_data.trials import Array, Trials, variants

_FEWEST = 2  # units whose parts of an entry can be exchanged
_SMALLEST = 2  # entries that are changed one by one where the program refuses them together


@dataclass(frozen=True, slots=True, eq=False)
class Owned:
    """A data entry, the axis along which it has parts (None: all of it in row-major order), and whose each part is."""

    declaration: Declaration
    axis: int | None
    owner: IndexArray

    def places(self, units: BoolArray) -> IndexArray:
        """Where the parts of some units are."""
        within = (self.owner >= 0) & (self.owner < len(units))
        return np.flatnonzero(within & units[np.where(within, self.owner, 0)])


def feeding(trials: Trials, entries: Sequence[Owned], units: BoolArray) -> tuple[set[str], float]:
    """The entries whose parts feed the scores of some of the units, or of others.

    Args:
        units: (N,) whose parts are changed.

    Returns: their names, and the largest change of the scores of a unit none of whose parts had changed.
    """
    some = [
        _apart(trials, [entry for entry in entries if entry.declaration.type.is_integer is is_integer], units)
        for is_integer in (
            False,
            True,
        )  # a program rather refuses counts that are exchanged than real numbers
    ]
    found = some[0].found | some[1].found
    statistic = max(some[0].statistic, some[1].statistic)
    refused = [[entry] for part in some for entry in part.refused]
    for rest in ([*some[0].rest, *some[1].rest], *refused):
        more, largest = _jointly(trials, rest, units, 0)
        found |= more
        statistic = max(statistic, largest)
    return found, statistic


@dataclass(frozen=True, slots=True, kw_only=True)
class _Apart:
    found: set[str] = field(default_factory=set)
    rest: list[Owned] = field(default_factory=list)
    refused: list[Owned] = field(default_factory=list)
    statistic: float = 0.0


def _apart(trials: Trials, entries: list[Owned], units: BoolArray) -> _Apart:
    """Each entry changed at units of its own: those that feed these, the rest, and those that the program refuses."""
    chosen = trials.rng.permutation(np.flatnonzero(units))
    if len(entries) < 2:
        return _Apart(rest=entries)
    if len(chosen) < _FEWEST * len(entries):
        return _halves(trials, entries, units)
    shares = []
    for group in np.array_split(chosen, len(entries)):
        share = np.zeros(len(units), dtype=bool)
        share[group] = True
        shares.append(share)
    values = {}
    for entry, share in zip(entries, shares, strict=True):
        if (value := _variant(trials, entry, share, 0)) is not None:
            values[entry.declaration.name] = value
    if not values:
        return _Apart(rest=entries)
    change = trials.together(values)
    if change is None:
        return _halves(trials, entries, units)
    found = {
        entry.declaration.name
        for entry, share in zip(entries, shares, strict=True)
        if entry.declaration.name in values and (change[share] > TOLERANCE).any()
    }
    rest = [entry for entry in entries if entry.declaration.name not in found]
    return _Apart(found=found, rest=rest, statistic=float(change[~units].max(initial=0.0)))


def _halves(trials: Trials, entries: list[Owned], units: BoolArray) -> _Apart:
    half = len(entries) // 2
    one, other = (
        _apart(trials, some, units) if len(some) > _SMALLEST else _Apart(refused=some)
        for some in (entries[:half], entries[half:])
    )
    return _Apart(
        found=one.found | other.found,
        rest=[*one.rest, *other.rest],
        refused=[*one.refused, *other.refused],
        statistic=max(one.statistic, other.statistic),
    )


def _jointly(trials: Trials, entries: list[Owned], units: BoolArray, turn: int) -> tuple[set[str], float]:
    """All entries changed at once; halves of them where something moves or the program refuses the values."""
    values = {}
    for entry in entries:
        if (value := _variant(trials, entry, units, turn)) is not None:
            values[entry.declaration.name] = value
    left = [entry for entry in entries if entry.declaration.name in values]
    if not left:  # refused in every way: the program reads it
        return {entry.declaration.name for entry in entries if turn}, 0.0
    change = trials.together(values)
    if change is not None:
        moved = float(change[~units].max(initial=0.0))
        if not (change > TOLERANCE).any():
            return set(), moved
        if len(left) == 1:
            return set(values), moved
    elif len(left) == 1:
        return _jointly(trials, left, units, turn + 1)
    half = len(left) // 2
    parts = [_jointly(trials, some, units, turn) for some in (left[:half], left[half:])]
    return parts[0][0] | parts[1][0], max(parts[0][1], parts[1][1])


def _variant(trials: Trials, entry: Owned, units: BoolArray, turn: int) -> Array | None:
    """The entry changed at the parts of some units, in one way after the other; None when there is no further one."""
    places = entry.places(units)
    if not len(places):
        return None
    value = np.asarray(trials.model.data[entry.declaration.name])
    ways = variants(entry.declaration, value, entry.axis, places, trials.rng)
    for number, way in enumerate(ways):
        if number == turn:
            return way
    return None
