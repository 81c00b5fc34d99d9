"""Rows that belong to units: in any order, or in consecutive stretches told by starts, ends, sizes or offsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from stan_adapters.data.layout import IndexArray


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Unit n has the rows start[n] to start[n] + size[n] - 1, which count from `base` (1, or 0 in some data)."""

    start: IndexArray  # (N,)
    size: IndexArray  # (N,)
    base: int = 1

    @classmethod
    def in_order(cls, size: IndexArray, base: int = 1) -> Self:
        """Stretches one after the other."""
        return cls(base + np.cumsum(size) - size, size, base)

    @classmethod
    def from_owner(cls, owner: IndexArray, units: int) -> Self | None:
        """The stretches of an index (0-based) that never returns to a unit; None of any other."""
        if owner.size and (owner.min() < 0 or owner.max() >= units or (np.diff(owner) < 0).any()):
            return None
        return cls.in_order(np.bincount(owner, minlength=units).astype(np.int64))

    def covers(self, rows: int) -> bool:
        """Whether the stretches are disjoint and cover all rows."""
        if (self.size < 0).any() or self.size.sum() != rows:
            return False
        used = self.size > 0
        order = np.argsort(self.start[used], kind="stable")
        start, size = self.start[used][order], self.size[used][order]
        return bool(np.array_equal(start, self.base + np.cumsum(size) - size))

    def owner(self, rows: int) -> IndexArray:
        """The unit (0-based) of every row, -1 for rows outside all stretches.

        Raises:
            ValueError: stretches overlap or leave the rows.
        """
        owner = np.full(rows, -1, dtype=np.int64)
        row = ranges(self.start - self.base, self.size)
        if row.size and (row.min() < 0 or row.max() >= rows):
            beyond = np.repeat(np.arange(len(self.size)), self.size)[(row < 0) | (row >= rows)][0]
            raise ValueError(f"unit {beyond + 1} would have rows beyond the {rows} that there are")
        owner[row] = np.repeat(np.arange(len(self.size)), self.size)
        if np.count_nonzero(owner >= 0) < row.size:
            first = int(np.argmax(np.bincount(row) > 1))
            raise ValueError(f"row {first + 1} would belong to two units")
        return owner


@dataclass(frozen=True, slots=True, eq=False)
class OwnedRows:
    """Rows by owner.

    Attributes:
        owner: the unit (0-based) of every row, -1 for rows of no unit; shape (R,).
        grouped: whether rows of a unit must stay together, in the order of the units.
        by_unit: rows sorted by owner, within a unit in order; (R,), ownerless ones first.
        first, size: where a unit's rows are in `by_unit`; (N,). Where rows of no unit are shared out, with these.
    """

    name: str
    owner: IndexArray
    grouped: bool
    by_unit: IndexArray
    first: IndexArray
    size: IndexArray

    @classmethod
    def make(
        cls, name: str, owner: IndexArray, units: int, *, grouped: bool, shared_out: bool = False
    ) -> Self:
        """Rows by owner; `shared_out`: rows of no unit go with the units in turn, and are not kept in every part."""
        goes_with = owner
        if shared_out:
            free = np.flatnonzero(owner < 0)
            goes_with = owner.copy()
            goes_with[free] = np.arange(len(free)) % max(units, 1)
        by_unit = np.argsort(goes_with, kind="stable")
        size = np.bincount(goes_with[goes_with >= 0], minlength=units).astype(np.int64)
        first = len(owner) - int(size.sum()) + np.cumsum(size) - size
        return cls(name, owner, grouped, by_unit, first, size)

    def rows(self, units: IndexArray) -> IndexArray:
        """The rows of the given units, and those of no unit, in the order they are written."""
        ownerless = self.by_unit[: len(self.owner) - int(self.size.sum())]
        owned = self.by_unit[ranges(self.first[units], self.size[units])]
        if self.grouped:
            return np.concatenate([owned, ownerless])
        return np.sort(np.concatenate([owned, ownerless]))


def ranges(start: IndexArray, size: IndexArray) -> IndexArray:
    """start[0], start[0] + 1, .. (size[0] of them), then those of the next stretch: shape (sum(size),)."""
    before = np.cumsum(size) - size
    return np.asarray(np.arange(int(size.sum())) + np.repeat(start - before, size), dtype=np.int64)


def spans_of(parts: Mapping[str, IndexArray], rows: int) -> Spans:
    """The stretches that arrays named by their role ("start", "end", "sizes", "offsets") describe.

    Raises:
        ValueError: they describe none; the message is the end of a sentence.
    """
    start, end, sizes, offsets = (parts.get(word) for word in ("start", "end", "sizes", "offsets"))
    if offsets is not None:
        return _checked(Spans(offsets[:-1], np.diff(offsets), int(offsets[0])))
    if start is not None:
        size = sizes
        if size is None:
            size = _until_next(start, rows) if end is None else end - start + 1
        used = start[size > 0]
        return _checked(Spans(start, size, 0 if used.size and used.min() == 0 else 1))
    if sizes is not None:
        return _checked(Spans.in_order(sizes))
    if end is not None:
        return _checked(Spans.in_order(np.diff(end, prepend=0)))
    raise ValueError("no start, end, sizes or offsets are given")


def write_spans(word: str, spans: Spans) -> IndexArray:
    """The array of that role ("start", "end", "sizes", "offsets") for stretches in order."""
    if word == "start":
        return spans.start
    if word == "end":
        return spans.start + spans.size - 1
    if word == "sizes":
        return spans.size
    return np.append(spans.base, spans.base + np.cumsum(spans.size))


def label_spans(
    candidates: Mapping[str, IndexArray], rows: int, units: int, known: Spans | None = None
) -> dict[str, str]:
    """Which of some integer arrays (N,) or (N + 1,) cut `rows` rows into stretches, and in which role.

    Args:
        units: N.
        known: the stretches, where an index tells them already.
    """
    spans = known or _find_spans(candidates, rows, units)
    if spans is None:
        return {}
    found = {}
    for name, value in candidates.items():
        for word in ("sizes", "start", "end", "offsets"):
            for base in {spans.base, 1}:
                shifted = Spans(spans.start - spans.base + base, spans.size, base)
                if name not in found and np.array_equal(value, write_spans(word, shifted)):
                    found[name] = word
    return found


def _find_spans(candidates: Mapping[str, IndexArray], rows: int, units: int) -> Spans | None:
    plain = [value for value in candidates.values() if len(value) == units]
    proposals = [{"start": a, "end": b} for a in plain for b in plain if a is not b]
    proposals += [{"start": a, "sizes": b} for a in plain for b in plain if a is not b]
    proposals += [{"offsets": value} for value in candidates.values() if len(value) == units + 1]
    proposals += [{"sizes": value} for value in plain]
    proposals += [{"end": value} for value in plain if value.size > 1 and (value[1:] > value[0]).any()]
    proposals += [{"start": value} for value in plain if value.size > 1 and value.min() == 1]
    for parts in proposals:
        try:
            spans = spans_of(parts, rows)
        except ValueError:
            continue
        if spans.covers(rows) and (len(parts) > 1 or spans.size.max(initial=0) > 1 or rows == 0):
            return spans
    return None


def _until_next(start: IndexArray, rows: int) -> IndexArray:
    order = np.argsort(start, kind="stable")
    base = 0 if start.size and start.min() == 0 else 1
    size = np.empty_like(start)
    size[order] = np.diff(start[order], append=rows + base)
    return size


def _checked(spans: Spans) -> Spans:
    if (spans.size < 0).any():
        unit = int(np.argmax(spans.size < 0))
        raise ValueError(f"unit {unit + 1} would have {spans.size[unit]} rows")
    return spans
