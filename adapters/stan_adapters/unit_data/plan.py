"""Rules put to work on one data set: who owns each row, and the data of chosen units.

A *family* is a set of rows that share a declared size ("N") and have an owner each: a unit, or a row of another
family. The units are the family at the root.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Declaration
from stan_adapters.language.switches import settled
from stan_adapters.unit_data.ragged import OwnedRows, Spans, spans_of, write_spans
from stan_adapters.unit_data.rules import OWNERS, SPANS, Role, Rule, Rules


class RuleError(StructureError):
    """A rule does not fit the data entry that it is given for."""


class Plan:
    """The rules of a level on one data set.

    Raises:
        RuleError: a rule does not fit; names the entry, what it holds and what the rule needs.
    """

    def __init__(self, data: StanData, rules: Rules, level_size: str, units: int | None = None) -> None:
        self.data = data
        self.rules = rules
        self.level_size = level_size
        self.units = _count_units(data, rules) if units is None else units
        self._declared: Mapping[str, Declaration] = {d.name: d for d in settled(data.program, data).data}
        for name, rule in rules.items():
            self._check(name, rule)
        self.families = self._make_families()
        self._row_family = {name: self._family_of(name, rule) for name, rule in rules.items()}
        self._refuse_tied_entries()

    # -- use ----------------------------------------------------------------------------------------------------

    def subset(self, units: IndexArray) -> StanData:
        """The data of the given units (0-based, distinct), in that order."""
        rows = {name: family.rows(units) for name, family in self.families.items()}
        values: dict[str, object] = {}
        for name, rule in self.rules.items():
            if rule.role is not Role.SHARED:
                values[name] = self._cut(name, rule, units, rows)
        return self.data.replace(**values)

    def owner(self, name: str) -> tuple[int, IndexArray] | None:
        """The axis of an entry along which units have their parts, and the unit of each place there, or None."""
        rule = self.rules[name]
        if rule.role is Role.UNIT:
            return rule.axis, np.arange(self.units)
        if rule.role is Role.ROW:
            return rule.axis, self.families[self._row_family[name]].owner
        if rule.role is Role.PLACE:
            return 0, np.arange(self.units)
        if rule.role is Role.INDEX:
            return 0, self.families[self._row_family[name]].owner
        return None

    def rows_per_unit(self) -> IndexArray | None:
        """How many rows each unit has, summed over the families; None where there are no rows."""
        if not self.families:
            return None
        return np.asarray(sum(family.size for family in self.families.values()), dtype=np.int64)

    # -- making -------------------------------------------------------------------------------------------------

    def _array(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        value = self.data[name]
        if not isinstance(value, np.ndarray):
            raise RuleError(f"{name} is a tuple, and tuples are kept whole: its rule must be 'shared'.")
        return value

    def _check(self, name: str, rule: Rule) -> None:
        if rule.role is Role.SHARED:
            return
        value, declared = self._array(name), self._declared[name]
        if rule.role in (Role.UNIT, Role.ROW):
            if rule.axis >= value.ndim:
                raise RuleError(
                    f"{name} as '{rule}' needs an axis {rule.axis}, and it is declared `{declared}`: axes count from 0."
                )
            if rule.role is Role.UNIT and value.shape[rule.axis] != self.units:
                raise RuleError(
                    f"{name} as '{rule}' needs an entry per unit, {self.units} of {self.level_size}, and "
                    f"`{declared}` has {value.shape[rule.axis]} along axis {rule.axis}."
                )
            return
        wanted = 0 if rule.role in (Role.SIZE_UNITS, Role.SIZE_ROWS) else 1
        if value.ndim != wanted or not declared.type.is_integer:
            what = "one integer" if wanted == 0 else "a one-dimensional array of integers"
            raise RuleError(f"{name} as '{rule}' needs {what}, and it is declared `{declared}`.")
        if rule.role in (Role.PLACE, *SPANS):
            expected = self.units + (rule.role is Role.OFFSETS)
            if len(value) != expected:
                raise RuleError(
                    f"{name} as '{rule}' needs {expected} entries, and `{declared}` has {len(value)}."
                )

    def _make_families(self) -> dict[str, OwnedRows]:
        spans: dict[str, dict[str, str]] = {}
        for name, rule in self.rules.items():
            if rule.role in SPANS:
                if rule.rows is None:
                    raise RuleError(f"{name} as '{rule}' cuts no rows: no declared size fits its numbers.")
                spans.setdefault(rule.rows, {})[rule.role.value] = name
        families = {}
        for rows, names in spans.items():
            families[rows] = self._spanned_family(rows, names)
        for name, rule in self.rules.items():
            if rule.role is Role.PLACE:
                self._add_places(name, rule, families)
        waiting = [name for name, rule in self.rules.items() if rule.role is Role.INDEX]
        while waiting:
            ready = [name for name in waiting if self.rules[name].into in (None, *families)]
            if not ready:
                raise RuleError(
                    f"{waiting[0]} numbers rows of {self.rules[waiting[0]].into}, which belong to no units."
                )
            for name in ready:
                self._add_index(name, families)
                waiting.remove(name)
        return families

    def _spanned_family(self, rows: str, names: Mapping[str, str]) -> OwnedRows:
        count = self._row_count(rows)
        listed = " and ".join(names.values())
        try:
            parts = {word: self._array(name) for word, name in names.items()}
            spans = spans_of(parts, count)
            return OwnedRows.make(rows, spans.owner(count), self.units, grouped=True)
        except ValueError as error:
            words = " and ".join(f"'{word}'" for word in names)
            raise RuleError(f"With {listed} as {words} of the {count} rows of {rows}, {error}.") from None

    def _add_places(self, name: str, rule: Rule, families: dict[str, OwnedRows]) -> None:
        if rule.rows is None:
            raise RuleError(f"{name} as '{rule}' names no rows: no declared size fits its numbers.")
        value, count = self._array(name), self._row_count(rule.rows)
        owner = np.full(count, -1, dtype=np.int64)
        if value.size and (value.min() < 1 or value.max() > count or len(np.unique(value)) < len(value)):
            raise RuleError(
                f"{name} as '{rule}' needs a row of its own for each unit, of the {count} of {rule.rows}."
            )
        owner[value - 1] = np.arange(self.units)
        if rule.rows in families:
            raise RuleError(f"{name} as '{rule}' names rows of {rule.rows}, whose units another entry names.")
        families[rule.rows] = OwnedRows.make(rule.rows, owner, self.units, grouped=False, shared_out=True)

    def _add_index(self, name: str, families: dict[str, OwnedRows]) -> None:
        rule, value = self.rules[name], self._array(name)
        into = None if rule.into is None else families[rule.into]
        highest = self.units if into is None else len(into.owner)
        what = f"{highest} units of {self.level_size}" if into is None else f"{highest} rows of {rule.into}"
        if value.size and (value.max() > highest or value.min() < 0):
            worst = value.max() if value.max() > highest else value.min()
            raise RuleError(f"{name} as 'index' needs numbers of the {what}, and it holds {worst}.")
        owner = value - 1 if into is None else np.where(value > 0, into.owner[value - 1], -1)
        rows = rule.rows or self._declared[name].type.dims[0].text
        if rows in families:
            other = families[rows].owner
            if not np.array_equal(other, owner):
                row = int(np.argmax(other != owner))
                raise RuleError(
                    f"{name} gives row {row + 1} of {rows} to unit {owner[row] + 1}, and another entry gives it to "
                    f"unit {other[row] + 1}: a row that belongs to two units can't be cut."
                )
            return
        steps = np.diff(owner)
        families[rows] = OwnedRows.make(rows, owner, self.units, grouped=bool((steps >= 0).all()))

    def _row_count(self, rows: str) -> int:
        for declaration in self._declared.values():
            value = self.data[declaration.name]
            for size, count in zip(declaration.type.dims, getattr(value, "shape", ()), strict=False):
                if size.text == rows:
                    return int(count)
        raise RuleError(f"No data entry has the size {rows}.")

    def _family_of(self, name: str, rule: Rule) -> str:
        """The family of a ROW or INDEX entry, of spans or of a number of rows; "" for any other."""
        if rule.role in (Role.UNIT, Role.SIZE_UNITS, Role.SHARED):
            return ""
        value, dims = self._array(name), self._declared[name].type.dims
        wanted = rule.rows
        if wanted is None and rule.role not in (Role.SIZE_ROWS, Role.PLACE, *SPANS):
            wanted = dims[rule.axis].text
        if wanted in self.families:
            return wanted
        count = int(value) if rule.role is Role.SIZE_ROWS else value.shape[rule.axis]
        fitting = [key for key, family in self.families.items() if len(family.owner) == count]
        if len(self.families) == 1 and rule.role in SPANS:
            return next(iter(self.families))
        if name in self.families:
            return name
        if len(fitting) != 1:
            owners = [other for other, r in self.rules.items() if r.role in OWNERS]
            raise RuleError(
                f"{name} as '{rule}' needs rows with a known owner, and no index, starts or sizes speak of {count} "
                f"rows (there are: {', '.join(owners) or 'none'})."
            )
        return fitting[0]

    def _refuse_tied_entries(self) -> None:
        """Entries kept whole whose declared size changes with the units."""
        sizes = {n for n, r in self.rules.items() if r.role in (Role.SIZE_UNITS, Role.SIZE_ROWS)}
        for name, rule in self.rules.items():
            tied = [s for s in self._declared[name].type.dims if s.names & sizes]
            if rule.role is Role.SHARED and tied:
                raise RuleError(
                    f"{name} has {tied[0]} entries, a number that changes with the units, but no unit has an entry of "
                    "its own there, nor does an index say whose they are."
                )

    # -- cutting ------------------------------------------------------------------------------------------------

    def _cut(self, name: str, rule: Rule, units: IndexArray, rows: Mapping[str, IndexArray]) -> object:
        value, dims = self._array(name), self._declared[name].type.dims
        if rule.role is Role.SIZE_UNITS:
            return int(value) - rule.times * (self.units - len(units))
        if rule.role is Role.UNIT:
            for axis, size in enumerate(dims):
                if axis == rule.axis or (size == dims[rule.axis] and value.shape[axis] == self.units):
                    value = np.take(value, units, axis=axis)
            return value
        family = self._row_family[name]
        kept = rows[family]
        if rule.role is Role.SIZE_ROWS:
            return len(kept)
        if rule.role is Role.ROW:
            for axis, size in enumerate(dims):
                if axis == rule.axis or size == dims[rule.axis]:
                    value = np.take(value, kept, axis=axis)
            return value
        if rule.role is Role.PLACE:
            return _renumbered(value[units], kept)
        if rule.role is Role.INDEX:
            return _renumbered(value[kept], units if rule.into is None else rows[rule.into])
        base = int(value[0]) if rule.role is Role.OFFSETS else self._base(family)
        return write_spans(rule.role.value, Spans.in_order(self.families[family].size[units], base))

    def _base(self, family: str) -> int:
        """Whether the starts of a family count rows from 0 or from 1."""
        for name, rule in self.rules.items():
            if rule.role is Role.START and self._row_family[name] == family:
                used = self._array(name)[self.families[family].size > 0]
                return 0 if used.size and used.min() == 0 else 1
        return 1


def _renumbered(numbers: IndexArray, chosen: IndexArray) -> IndexArray:
    """Places, from 1, of numbers from 1 on among chosen ones from 0 on: 0 of those not chosen, and as they are if
    they are not positive.
    """
    if not len(chosen):
        return np.where(numbers > 0, 0, numbers)
    order = np.argsort(chosen)
    place = np.minimum(np.searchsorted(chosen, numbers - 1, sorter=order), len(chosen) - 1)
    found = order[place]
    return np.where(numbers > 0, np.where(chosen[found] == numbers - 1, found + 1, 0), numbers)


def _count_units(data: StanData, rules: Rules) -> int:
    for name, rule in rules.items():
        value = data[name]
        if not isinstance(value, np.ndarray):
            continue
        if rule.role is Role.UNIT and rule.axis < value.ndim:
            return int(value.shape[rule.axis])
        if rule.role in SPANS:
            return len(value) - (rule.role is Role.OFFSETS)
    for name, rule in rules.items():
        if rule.role is Role.SIZE_UNITS:
            return int(np.asarray(data[name])) // rule.times
    raise StructureError("no rule says how many units there are: none is 'unit' or 'size'.")
