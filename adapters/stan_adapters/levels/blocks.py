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
_ROUNDS = 3
_COLUMNS, _MOST_UNITS = 3, 0.5  # of the units, in which an entry must move another one: some may have no data
_LARGEST = 8  # entries of a unit whose places follow no rule
_MOST_PLACES = 20_000
_MOST_STRETCHES = 3
_PROBES, _FIRST_PROBES = 8, 2
_SPARE_BITS = 8  # of a signature, beyond those that tell all pairs of entries apart


def find_blocks(
    prober: Prober, layout: Layout, member: Member, how: Coupling, *, anywhere: bool = True
) -> list[tuple[Level, Separability]]:
    """The units that coupled entries of a parameter form, with the test that they are separable; none in most.

    Args:
        member: one parameter with an entry per proposed unit.
        how: what moves of single entries of it moved.
        anywhere: also look for stretches of several groupings, and for sets of coordinates at any places.

    A level has the parameter's name; it is the caller who knows what the units are called. There are several where the
    container holds the latents of several groupings, one after the other.
    """
    seen = [(int(unit), np.flatnonzero(moved)) for unit, moved in zip(how.probed, how.moved, strict=True)]
    container, count = layout[member.name], how.moved.shape[1]
    for regular in _regular(member, count, seen):
        level = make_level(layout, member.name, [regular])
        found = separability(prober, level, _ROUNDS)
        if found.holds and _alike(prober, level):
            return [(level, found)]
    if not anywhere:
        return []
    flat = container.size == count
    if flat and (stretches := _stretches(prober, layout, member, seen)):
        return stretches
    places = _scattered(prober, container, seen if flat else None)
    if places is None:
        return []
    level = _listed(layout, member, places)
    found = separability(prober, level, _ROUNDS)
    return [(level, found)] if found.holds and _alike(prober, level) else []


def _alike(prober: Prober, level: Level) -> bool:
    """Whether the entries of most units move with each other, so that it is not a few that are coupled at all.

    Weights of basis functions, for one, can look as if only the first of them mattered, all others being independent.
    """
    for column in range(min(level.block, _COLUMNS) if level.block > 1 else 0):
        change = prober.move(level.index[:, column], column)
        others = np.delete(level.index, column, axis=1)
        if change is None or (change[others] > TOLERANCE).any(axis=1).mean() < _MOST_UNITS:
            return False
    return True


def _listed(layout: Layout, member: Member, places: IndexArray) -> Level:
    """The level of coordinates (N, width) within a container."""
    listed = tuple(places.ravel().tolist())
    size = layout[member.name].size
    units = Member(member.name, member.axis, places.shape[1], places=listed, size=size)
    return make_level(layout, member.name, [units])


def _stretches(
    prober: Prober, layout: Layout, member: Member, seen: list[tuple[int, IndexArray]]
) -> list[tuple[Level, Separability]]:
    """The units of several groupings that lie one after the other in one vector, which they share without rest.

    Given all other entries the units of each stretch are independent, like persons given items.
    """
    container = layout[member.name]
    found: list[tuple[Level, Separability]] = []
    start = 0
    while start < container.size:
        if len(found) == _MOST_STRETCHES:
            return []
        here = [(at, moved) for at, moved in seen if at > start]
        own = _moved(prober, container, np.array([start]), 0)
        stop = _end_of_stretch(prober, container, [(start, np.flatnonzero(own)), *here])
        if stop - start in (0, container.size):
            return []
        within = [(at - start, moved[(moved >= start) & (moved < stop)] - start) for at, moved in here]
        within = [(at, moved) for at, moved in within if at < stop - start]
        stretch = _stretch(prober, layout, member, (start, stop), within)
        if stretch is None:
            return []
        found.append(stretch)
        start = stop
    return found


def _stretch(
    prober: Prober,
    layout: Layout,
    member: Member,
    ends: tuple[int, int],
    seen: list[tuple[int, IndexArray]],
) -> tuple[Level, Separability] | None:
    """Blocks side by side in one stretch of a vector, the smallest that are separable."""
    places = np.arange(*ends)
    tried = 0
    for width in range(1, len(places) // FEWEST_UNITS + 1):
        if len(places) % width or any((moved // width != at // width).any() for at, moved in seen):
            continue
        if tried == _TRIES:
            break
        tried += 1
        level = _listed(layout, member, places.reshape(-1, width))
        found = separability(prober, level, _ROUNDS)
        if found.holds and _alike(prober, level):
            return level, found
    return None


def _end_of_stretch(prober: Prober, container: Container, here: list[tuple[int, IndexArray]]) -> int:
    """Where the entries end that do not move with each other, except within a block.

    Args:
        here: the first entry of the stretch and later ones, each with the entries that move with it.
    """
    start, moved = here[0]
    _, last = _run(start, moved)
    limit = int(moved[moved > last].min(initial=container.size))
    first = last + 1
    for at, with_it in here[1:]:
        begin, _ = _run(at, with_it)
        if at < limit and not ((with_it >= start) & (with_it < begin)).any():
            first, last = begin, begin - 1  # what comes next may touch the block, which does not move itself
    changed = np.flatnonzero(_moved(prober, container, np.arange(start, max(first, start + 1)), 0))
    return int(changed[changed > last].min(initial=container.size))


def _run(at: int, moved: IndexArray) -> tuple[int, int]:
    """The first and the last of the entries next to one that move with it without a gap."""
    begin = end = at
    known = set(moved.tolist())
    while begin - 1 in known:
        begin -= 1
    while end + 1 in known:
        end += 1
    return begin, end


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
