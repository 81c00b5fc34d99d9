"""Joining: data of one program in parts, each the data of some of the units, as one data set. The inverse of slicing.

No model is bound: declared sizes and the parts themselves say what grows. A reading of the parts counts only if slicing
gives every part back from the joined data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from stan_adapters.data.stan_data import StanData
from stan_adapters.errors import DataError
from stan_adapters.language.expressions import Expression, Unevaluable
from stan_adapters.language.program import Program
from stan_adapters.levels.levels import Level, Member
from stan_adapters.unit_data.join_plan import JoinPlan, Unreadable, differing, listed, same
from stan_adapters.unit_data.proposals import rule_sets
from stan_adapters.unit_data.rules import SPANS, Role, Rule, Rules, parse_rules

_MAX_PROPOSALS = 8
_MAX_ASKED = (
    5  # parts that propose rules, largest first; a small one may suggest some that fit it by accident
)
_ENOUGH_STARTS = (
    3  # an undeclared array of starts that agrees with the rows so many times does not by accident
)
_OTHER_SPANS = {
    Role.SIZES: (Role.END, Role.START),
    Role.END: (Role.SIZES,),
    Role.START: (Role.UNIT,),
}


def join(
    parts: Sequence[StanData], level: str | None = None, rules: Mapping[str, str | Rule] | None = None
) -> StanData:
    """The data of all units of the parts, in their order: units of the second part come after those of the first.

    Entries of units and of their rows are put one after the other, sizes added, unit and row numbers shifted; all other
    entries are shared and must agree.

    Args:
        parts: checked data of one program, one at least. No unit is in two of them.
        level: whose units the parts hold, by declared size or latent; needed only where several readings hold.
        rules: slicing rules given by hand, as in `find_slicing`.

    Raises:
        DataError: parts that do not fit together, with the entry and the two parts that disagree, or that fit in
            several ways.
        StructureError: a hand-given rule names no data entry or is no rule.
    """
    if len(parts) == 1:
        return parts[0]
    program = parts[0].program
    given = parse_rules(program, rules or {})
    readings: dict[str, StanData] = {}
    latents: dict[str, str] = {}
    refusals: list[tuple[str, Unreadable]] = []
    for name, members, size in _levels(program, level):
        latents[name] = ", ".join(member.name for member in members)
        named = level in (name, *(member.name for member in members))
        try:
            readings[name] = _read_as(parts, name, members, size, given, named=named)
        except Unreadable as refusal:
            refusals.append((name, refusal))
    if len(readings) > 1:
        chosen = {n: r for n, r in readings.items() if level == n or level in latents[n].split(", ")}
        if len(chosen) != 1:
            ways = " or of ".join(f"{name} ({latents[name]})" for name in readings)
            raise DataError(
                f"{listed(parts)} can be joined as units of {ways}, and all of that would be valid data. Say whose "
                f"units the files hold, as in level={next(iter(readings))!r} (--level {next(iter(readings))})."
            )
        readings = chosen
    if readings:
        return next(iter(readings.values()))
    if not refusals:
        raise DataError(
            f"{listed(parts)} can't be joined: no parameter of {program.name} has a size that the data give, so there "
            "are no units of which each file could hold some. Give one file."
        )
    name, reason = min(refusals, key=lambda refused: (refused[0] != level, refused[1].conflicts))
    raise DataError(f"{listed(parts)} can't be joined as units of {name} ({latents[name]}): {reason}")


def _levels(program: Program, named: str | None) -> Iterator[tuple[str, tuple[Member, ...], Expression]]:
    """Declared sizes that parameters have, with those parameters; and one that a user named, of data alone.

    Such a one counts units that hold several entries of a parameter, so that no parameter has its size.
    """
    members: dict[str, dict[str, Member]] = {}
    sizes: dict[str, Expression] = {}
    for declaration in program.parameters:
        for axis, size in enumerate(declaration.type.dims):
            if size.names:
                members.setdefault(size.text, {}).setdefault(declaration.name, Member(declaration.name, axis))
                sizes[size.text] = size
    for text, found in members.items():
        yield text, tuple(found.values()), sizes[text]
    if named is not None and named not in sizes:
        given = [d.type for d in program.data if d.name == named and d.type.is_integer and not d.type.dims]
        bounds = (bound for d in program.data for bound in (*d.type.dims, d.type.upper) if bound is not None)
        counted = next((bound for bound in bounds if bound.text == named), None)
        if given and counted is not None:
            yield named, (), counted


def _read_as(
    parts: Sequence[StanData],
    name: str,
    members: tuple[Member, ...],
    size: Expression,
    given: Rules,
    *,
    named: bool,
) -> StanData:
    """The parts as units of one level. Raises Unreadable."""
    try:
        counts = [max(int(np.asarray(size.evaluate(part))), 0) for part in parts]
    except Unevaluable:
        raise Unreadable("their number is computed in transformed data.", len(parts[0])) from None
    refusals: list[Unreadable] = []
    filled = [k for k in range(len(parts)) if counts[k]]
    if not filled and all(differing(part, parts[0]) is None for part in parts):
        return parts[0]
    for part in sorted(filled, key=lambda k: -counts[k])[:_MAX_ASKED]:
        level = Level(name, members, np.zeros((counts[part], 0), np.int64))
        found: tuple[Rules, StanData] | None = None
        for rules in _proposals(parts[part], level, given):
            if found is not None and not _rivals(parts[0].program, name, found[0], rules, given):
                continue
            try:
                joined = JoinPlan(parts, name, counts, rules, given, named=named).joined()
            except Unreadable as refusal:
                refusals.append(refusal)
                continue
            if found is not None:
                one, other = _indices(found[0]), _indices(rules)
                raise _two_indices(parts, name, min(one - other), min(other - one))
            found = rules, joined
        if found is not None:
            _refuse_other_spans(parts, name, counts, *found, given)
            return found[1]
    none = Unreadable("no file has a unit, and yet they differ.")
    raise min(refusals, key=lambda refusal: refusal.conflicts, default=none)


def _proposals(part: StanData, level: Level, given: Rules) -> list[Rules]:
    """Rules that a part suggests, those first that find the fewest entries of units: what need not grow is shared."""
    proposals = [
        _without_accidents(part.program, rules, given)
        for rules in islice(rule_sets(part.program, part, level, given), _MAX_PROPOSALS)
    ]
    plain = min(proposals, key=lambda rules: sum(rule.role is not Role.SHARED for rule in rules.values()))
    return [plain, *(rules for rules in proposals if rules is not plain)]


def _without_accidents(program: Program, rules: Rules, given: Rules) -> Rules:
    """Hand-given roles kept, and no spans of "rows" whose number, J + 1, is the number of units in another guise."""
    units = {name for name, rule in rules.items() if rule.role is Role.SIZE_UNITS}
    sizes = {size.text for d in program.data for size in d.type.dims if size.names & units}
    kept = dict(rules)
    for name, rule in rules.items():
        if name in given and given[name].role is not rule.role:
            kept[name] = given[name]
        elif rule.role in SPANS and rule.rows in sizes:
            kept[name] = Rule(Role.UNIT)
    return kept


def _two_indices(parts: Sequence[StanData], level: str, one: str, other: str) -> DataError:
    declared = parts[0].program.declaration(one)
    sizes = ", ".join(map(str, declared.type.dims))
    return DataError(
        f"{listed(parts)} can't be joined: `{one}` and `{other}` could both hold the numbers of the units of {level}. "
        f"Declare which, as in `array[{sizes}] int<lower=1, upper={level}> {one}`, or pass "
        f"slicing={{{one!r}: 'index'}}."
    )


def _refuse_other_spans(
    parts: Sequence[StanData], level: str, counts: Sequence[int], rules: Rules, joined: StanData, given: Rules
) -> None:
    """Arrays of which the parts do not tell how they cut rows: with one unit in each, its rows end at their number."""
    confirmed = sum(
        count - 1 for count in counts if count
    )  # the first start of a file is 1 whatever it means
    for name, rule in rules.items():
        upper = parts[0].program.declaration(name).type.upper
        known_start = rule.role is Role.START and (confirmed >= _ENOUGH_STARTS or str(upper) == rule.rows)
        for other in () if name in given or known_start else _OTHER_SPANS.get(rule.role, ()):
            try:
                changed = rules | {name: replace(rule, role=other)}
                again = JoinPlan(parts, level, counts, changed, given, named=True).joined()
            except Unreadable:
                continue
            if not same(again[name], joined[name]):
                raise DataError(
                    f"{listed(parts)} can't be joined: for each unit of {level}, `{name}` could be its '{rule}' of "
                    f"rows or its '{other}'. Say which: slicing={{{name!r}: '{rule}'}}."
                )


def _indices(rules: Rules) -> set[str]:
    return {name for name, rule in rules.items() if rule.role is Role.INDEX and rule.into is None}


def _rivals(program: Program, level: str, one: Rules, other: Rules, given: Rules) -> bool:
    """Whether two proposals guess different indices of the same rows."""

    def guesses(rules: Rules, instead_of: Rules) -> set[str | None]:
        return {
            rules[name].rows
            for name in _indices(rules) - _indices(instead_of)
            if name not in given and str(program.declaration(name).type.upper) != level
        }

    return bool(guesses(one, other) & guesses(other, one))
