"""Rules put to work on parts of the data of a program: the data of all their units, or why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stan_adapters.data.checks import Array, Entry
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData, read_data
from stan_adapters.errors import DataError, StructureError
from stan_adapters.unit_data.plan import Plan
from stan_adapters.unit_data.ragged import OwnedRows
from stan_adapters.unit_data.rules import SPANS, Role, Rule, Rules


class Unreadable(Exception):
    """Why one reading of the parts fails; `conflicts` counts entries that would have to agree and do not."""

    def __init__(self, message: str, conflicts: int = 0) -> None:
        super().__init__(message)
        self.conflicts = conflicts


class JoinPlan:
    """One set of rules on the parts of one program.

    Args:
        level: the declared size of the units.
        counts: how many units each part has.
        rules: of every data entry.
        given: those of them that were given by hand, and are not doubted.
        named: whether the level was named, so that parts that look like the same units are others.

    Raises:
        Unreadable: the rules do not fit the parts, or the parts do not fit together by them.
    """

    def __init__(
        self,
        parts: Sequence[StanData],
        level: str,
        counts: Sequence[int],
        rules: Rules,
        given: Rules,
        *,
        named: bool,
    ) -> None:
        self.parts, self.level, self.counts, self.rules = parts, level, counts, rules
        self.program = parts[0].program
        self.declared = {declaration.name: declaration for declaration in self.program.data}
        self.plans: list[Plan] = []
        self._refuse_conflicts()
        self._refuse_fixed_size()
        by_number = [name for name in self._by_number() if name not in given]
        if by_number and len(set(counts)) == 1:
            raise Unreadable(
                f"only the number of entries of {', '.join(by_number)} says that they belong to units.",
                len(parts[0]),
            )
        for part, units in zip(parts, counts, strict=True):
            try:
                self.plans.append(Plan(part, rules, level, units))
            except StructureError as error:
                conflicts = len(part) if by_number else 0
                raise Unreadable(f"in {part.source}, {error}", conflicts) from None
        self._family = self.plans[0]._row_family
        self._refuse_rows_of_no_unit()
        self._refuse_unsure_spans(given)
        self._refuse_unclear_numbers(given)
        self._refuse_growth_along_two_axes()
        self.units_before = _before(counts)
        self.rows_before = {
            family: _before([len(plan.families[family].owner) for plan in self.plans])
            for family in self.plans[0].families
        }
        if not named:
            self._refuse_repeated_units()

    def joined(self) -> StanData:
        """The data of all units, from which slicing gives every part back. Raises Unreadable."""
        values = {name: self._entry(name, rule) for name, rule in self.rules.items()}
        try:
            data = read_data(self.program, values, source=listed(self.parts))
        except DataError as error:
            raise Unreadable(f"together they are no data of the program: {error}") from None
        self._verify(data)
        return replace(data, labels=self._labels())

    # -- entries ------------------------------------------------------------------------------------------------

    def _entry(self, name: str, rule: Rule) -> object:
        if rule.role is Role.SHARED:
            return self.parts[0][name]
        values = [np.asarray(part[name]) for part in self.parts]
        if rule.role is Role.SIZE_UNITS:
            return int(values[0]) + rule.times * (sum(self.counts) - self.counts[0])
        family = self._family[name]
        if rule.role is Role.SIZE_ROWS:
            return sum(len(plan.families[family].owner) for plan in self.plans)
        if rule.role is Role.INDEX:
            shifts = self.units_before if rule.into is None else self.rows_before[rule.into]
            return np.concatenate([v + shift for v, shift in zip(values, shifts, strict=True)])
        if rule.role in (Role.START, Role.END, Role.PLACE):
            shifts = self.rows_before[family]
            return np.concatenate([v + shift for v, shift in zip(values, shifts, strict=True)])
        if rule.role is Role.OFFSETS:
            shifts = self.rows_before[family]
            tails = [v[1:] + shift for v, shift in zip(values, shifts, strict=True)]
            return np.concatenate([values[0][:1], *tails])
        return np.concatenate(values, axis=rule.axis)

    def _labels(self) -> dict[str, Array]:
        found = {}
        for name in sorted({name for part in self.parts for name in part.labels}):
            labels = [part.labels.get(name) for part in self.parts]
            known = [label for label in labels if label is not None]
            rule = self.rules[name]
            if len(known) < len(self.parts):
                raise Unreadable(f"`{name}` has labels in some of the files only.")
            if rule.role is Role.INDEX and rule.into is None:
                found[name] = np.concatenate(known)
                words, times = np.unique(found[name], return_counts=True)
                if (times > 1).any():
                    raise Unreadable(
                        f"unit {str(words[times > 1][0])!r} of `{name}` is in two of them. Put it in one."
                    )
            elif rule.role is Role.INDEX or any(not np.array_equal(label, known[0]) for label in known):
                raise Unreadable(
                    f"`{name}` has other labels in every file, so that its numbers mean other things: use numbers."
                )
            else:
                found[name] = known[0]
        return found

    # -- what does not fit --------------------------------------------------------------------------------------

    def _refuse_conflicts(self) -> None:
        conflicts = []
        for name, rule in self.rules.items():
            if rule.role is Role.SHARED:
                first = self.parts[0]
                other = next((part for part in self.parts if not same(part[name], first[name])), None)
                if other is not None:
                    conflicts.append((name, first, other))
        if conflicts:
            name, first, other = conflicts[0]
            places = " and ".join(f"{part.source}{_shown(part[name])}" for part in (first, other))
            raise Unreadable(
                f"`{name}` differs between {places}. It belongs to no unit of {self.level}, so that all files "
                "must give the same.",
                len(conflicts),
            )

    def _refuse_fixed_size(self) -> None:
        sizes = [name for name, rule in self.rules.items() if rule.role is Role.SIZE_UNITS]
        if not sizes:
            raise Unreadable(
                f"their number, {self.level}, is not set by one size of the data.", len(self.parts[0])
            )

    def _by_number(self) -> list[str]:
        """Entries of units by their number alone: their declared size is another."""
        return [
            name
            for name, rule in self.rules.items()
            if rule.role is Role.UNIT and self.declared[name].type.dims[rule.axis].text != self.level
        ]

    def _refuse_rows_of_no_unit(self) -> None:
        for part, plan in zip(self.parts, self.plans, strict=True):
            for rows, family in plan.families.items():
                if (family.owner < 0).any():
                    row = int(np.argmax(family.owner < 0)) + 1
                    raise Unreadable(
                        f"row {row} of {rows} in {part.source} belongs to no unit, and nothing says whether the rows "
                        "of no unit are the same in all files."
                    )

    def _refuse_unsure_spans(self, given: Rules) -> None:
        """Spans that the rows of some part contradict, or that nothing confirms."""
        for name, rule in self.rules.items():
            if rule.role not in SPANS:
                continue
            rows, upper = self._family[name], self.declared[name].type.upper
            others = [
                n for n, r in self.rules.items() if n != name and r.role in SPANS and self._family[n] == rows
            ]
            if rule.role is Role.START and not others and name not in given and str(upper) != rows:
                raise Unreadable(
                    f"nothing but `{name}` may say which rows of {rows} are whose. If it is the first row of each "
                    f"unit, declare `array[{self.level}] int<lower=1, upper={rows}> {name}`, or pass "
                    f"slicing={{{name!r}: 'start'}}."
                )
            for part, plan in zip(self.parts, self.plans, strict=True):
                if not _agrees(rule.role, np.asarray(part[name]), plan.families[rows]):
                    raise Unreadable(
                        f"in {part.source}, `{name}` as '{rule}' is not where the rows of {rows} are."
                    )

    def _refuse_unclear_numbers(self, given: Rules) -> None:
        """Integers up to a size that grows: numbers of units, to be shifted, or counts, to be kept."""
        grown = {self.level, *self.plans[0].families, *self._grown_sizes()}
        for name, rule in self.rules.items():
            upper = self.declared[name].type.upper
            kept = rule.role in (Role.UNIT, Role.ROW) and name not in given
            if kept and self.declared[name].type.is_integer and upper is not None and upper.text in grown:
                raise Unreadable(
                    f"`{self.declared[name]}` may hold numbers of {upper}, which change when files are joined, or "
                    f"counts, which do not. Say so: slicing={{{name!r}: '{rule}'}} for counts, 'index', 'start' or "
                    "'end' for numbers."
                )

    def _refuse_growth_along_two_axes(self) -> None:
        grown = self._grown_sizes()
        for name, rule in self.rules.items():
            dims = self.declared[name].type.dims
            if rule.role in (Role.UNIT, Role.ROW):
                others = [size for axis, size in enumerate(dims) if axis != rule.axis and size.names & grown]
                if others:
                    raise Unreadable(
                        f"`{self.declared[name]}` grows along two axes, {dims[rule.axis]} and {others[0]}: the files "
                        "do not hold what stands there between units of different files."
                    )

    def _refuse_repeated_units(self) -> None:
        """Files of rows of the same units look like files of units that happen to agree in all that units have."""
        own = [name for name, rule in self.rules.items() if rule.role is Role.UNIT]
        first = self.parts[0]
        if not own or not self.plans[0].families or len(set(self.counts)) > 1 or self.counts[0] < 2:
            return
        if all(same(part[name], first[name]) for part in self.parts[1:] for name in own):
            raise Unreadable(
                f"all give their {self.counts[0]} units the same {', '.join(own)}, so these seem to be rows of the "
                "same units, which can't be joined. If they are different units, say so: "
                f"level={self.level!r} (--level {self.level})."
            )

    def _grown_sizes(self) -> set[str]:
        return {name for name, rule in self.rules.items() if rule.role in (Role.SIZE_UNITS, Role.SIZE_ROWS)}

    def _verify(self, data: StanData) -> None:
        """Slicing must give back every part; where its rows are in another order than slicing writes, in that order."""
        try:
            whole = Plan(data, self.rules, self.level, sum(self.counts))
        except StructureError as error:
            raise Unreadable(f"joined, {error}") from None
        for part, plan, first in zip(self.parts, self.plans, self.units_before, strict=True):
            cut = whole.subset(np.arange(first, first + plan.units))
            if differing(cut, part) is not None:
                name = differing(cut, plan.subset(np.arange(plan.units)))
                if name is not None:
                    raise Unreadable(f"slicing {part.source} out of the joined data changes `{name}`.")


def _agrees(role: Role, value: IndexArray, family: OwnedRows) -> bool:
    """Whether spans in one role (N,) are those of the rows, counted from 0 or 1."""
    used = family.size > 0
    first = family.by_unit[family.first[used]]
    if role is Role.OFFSETS:
        return int(value[0]) in (0, 1) and np.array_equal(np.diff(value), family.size)
    if role is Role.SIZES:
        return np.array_equal(value, family.size)
    expected = first if role is Role.START else first + family.size[used] - 1
    return any(np.array_equal(value[used], expected + base) for base in (0, 1))


def _before(sizes: Sequence[int]) -> IndexArray:
    """How many come before each part."""
    return np.cumsum(np.asarray([0, *sizes[:-1]], dtype=np.int64))


def _shown(value: Entry) -> str:
    return f" ({value.item()})" if isinstance(value, np.ndarray) and value.ndim == 0 else ""


def same(one: Entry, other: Entry) -> bool:
    """Whether two entries are equal, tuples part by part."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other))
    return len(one) == len(other) and all(map(same, one, other))


def differing(one: StanData, other: StanData) -> str | None:
    """The first entry that differs."""
    return next((name for name in one if not same(one[name], other[name])), None)


def listed(parts: Sequence[StanData]) -> str:
    """Where parts come from, for messages and as the source of what they make."""
    if len(parts) == 2:
        return f"{parts[0].source} and {parts[1].source}"
    return f"{len(parts)} files ({parts[0].source} to {parts[-1].source})"
