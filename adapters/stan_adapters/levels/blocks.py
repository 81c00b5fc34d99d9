"""Units among the entries of one parameter, found from their couplings.

Programs keep several latents of a unit in one flat container: side by side (intercept and slope of each group),
strided (all intercepts, then all slopes), or at places that only the program knows (the two directions of a pair).
Entries whose scores move with each other belong together. Where such sets are many, small and alike, they are units:
what they look like is read from moves of single entries and of random subsets, and bit splits then test the level like
any other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from stan_adapters.data.layout import Container, IndexArray, Layout
from stan_adapters.levels.levels import Level, Member, make_level
from stan_adapters.levels.probes import TOLERANCE, BoolArray, Coupling, Prober, Separability, separability

FEWEST_UNITS = 5  # that are called many
_TRIES = 4  # widths that are tested, each way
_ROUNDS = 2
_LARGEST = 8  # entries of a unit whose places follow no rule
_MOST_PLACES = 20_000
_PROBES, _FIRST_PROBES = 8, 2
_SPARE_BITS = 8  # of a signature, beyond those that tell all pairs of entries apart


def find_blocks(
    prober: Prober, layout: Layout, member: Member, how: Coupling, *, anywhere: bool = True
) -> tuple[Level, Separability] | None:
    """The units that coupled entries of a parameter form, with the test that they are separable; None without any.

    Args:
        member: one parameter with an entry per proposed unit.
        how: what moves of single entries of it moved.
        anywhere: also look for sets of coordinates whose places follow no rule.

    The level has the parameter's name; it is the caller who knows what the units are called.
    """
    seen = [(int(unit), np.flatnonzero(moved)) for unit, moved in zip(how.probed, how.moved, strict=True)]
    for regular in _regular(member, how.moved.shape[1], seen):
        level = make_level(layout, member.name, [regular])
        found = separability(prober, level, _ROUNDS)
        if found.holds:
            return level, found
    container = layout[member.name]
    flat = seen if container.size == how.moved.shape[1] else None
    places = _scattered(prober, container, flat) if anywhere else None
    if places is None:
        return None
    width = places.shape[1]
    listed = tuple(places.ravel().tolist())
    level = make_level(
        layout, member.name, [Member(member.name, member.axis, width, places=listed, size=container.size)]
    )
    found = separability(prober, level, _ROUNDS)
    return (level, found) if found.holds else None


def _regular(member: Member, count: int, seen: list[tuple[int, IndexArray]]) -> Iterator[Member]:
    """Blocks side by side and strided ones that agree with the entries seen to move together, smallest first."""
    if max((len(moved) for _, moved in seen), default=0) < 2:
        return
    tried = {False: 0, True: 0}
    for width in range(2, count // FEWEST_UNITS + 1):
        units, left = divmod(count, width)
        if left:
            continue
        for apart in (False, True):
            together = all(
                (moved % units == unit % units if apart else moved // width == unit // width).all()
                for unit, moved in seen
            )
            if together and tried[apart] < _TRIES:
                tried[apart] += 1
                yield Member(member.name, member.axis, width, apart)


def _scattered(
    prober: Prober, container: Container, seen: list[tuple[int, IndexArray]] | None
) -> IndexArray | None:
    """Places (N, width) within a container of coordinates that move each other's scores and no others'.

    The sets must be whole: every coordinate moves with every other of its set, as two directions of a pair do. Then all
    of a set answer alike to a move of any random subset, and no two sets do so again and again.
    """
    count = container.size
    if not 2 * FEWEST_UNITS <= count <= _MOST_PLACES:
        return None
    if seen is None:
        seen = []
        for at in prober.rng.permutation(count)[:_PROBES]:
            seen.append((int(at), np.flatnonzero(_moved(prober, container, np.array([at]), 0))))
            if len(seen) == _FIRST_PROBES and _as_declared(container, seen):
                return None
    sets = [(at, moved) for at, moved in seen if len(moved) > 1]
    if 2 * len(sets) < len(seen) or max((len(moved) for _, moved in sets), default=0) > _LARGEST:
        return None
    if _as_declared(container, sets):
        return None
    for at, moved in sets[:: max(1, len(sets) // 2)][:2]:
        other = int(moved[moved != at][0])
        if not np.array_equal(np.flatnonzero(_moved(prober, container, np.array([other]), 0)), moved):
            return None
    width = Counter(len(moved) for _, moved in sets).most_common(1)[0][0]
    share = 1 - 0.5 ** (1 / width)  # of the coordinates: half of the sets hold one of them
    answers = []
    for turn in range(2 * math.ceil(math.log2(count)) + _SPARE_BITS):
        subset = prober.rng.uniform(size=count) < share
        answers.append(_moved(prober, container, np.flatnonzero(subset), turn) | subset)
    _, which, sizes = np.unique(np.array(answers), axis=1, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(sizes == width)
    if len(alike) < FEWEST_UNITS or 2 * width * len(alike) < count:
        return None
    members = np.flatnonzero(np.isin(which, alike))
    ordered = members[np.argsort(which[members], kind="stable")].reshape(-1, width)
    return ordered[np.argsort(ordered[:, 0])]


def _as_declared(container: Container, sets: list[tuple[int, IndexArray]]) -> bool:
    """Whether every set lies in one block of some axis: the declarations propose these units already."""
    axes = range(len(container.axes))
    return any(_along(container.positions(axis), container.offset, sets) for axis in axes)


def _along(rows: IndexArray, offset: int, sets: list[tuple[int, IndexArray]]) -> bool:
    if rows.shape[1] == 1:
        return False
    owner = np.empty(rows.size, dtype=np.int64)
    owner[rows - offset] = np.arange(len(rows))[:, None]
    return all((owner[moved] == owner[at]).all() for at, moved in sets)


def _moved(prober: Prober, container: Container, places: IndexArray, point: int) -> BoolArray:
    """Which of a container's coordinates have scores that move with those at some places."""
    change = prober.move(container.offset + places, point)
    if change is None:
        return np.zeros(container.size, dtype=bool)
    return np.asarray(change[container.offset : container.offset + container.size] > TOLERANCE)
