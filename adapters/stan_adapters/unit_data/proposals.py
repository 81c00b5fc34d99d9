"""Proposals: the likely rule of every data entry, read from the declarations (symbolic sizes, bounds) and, where these
are silent, from the values. A proposal is only that: `slicing` verifies it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import zip_longest

import numpy as np

from stan_adapters.data.layout import IndexArray, axis_sizes, type_of
from stan_adapters.data.stan_data import StanData
from stan_adapters.language.expressions import Unevaluable
from stan_adapters.language.numbering import numbered_sizes
from stan_adapters.language.program import Declaration, Program
from stan_adapters.language.switches import settled
from stan_adapters.levels.levels import Level
from stan_adapters.unit_data.ragged import Spans, label_spans, spans_of
from stan_adapters.unit_data.rules import OWNERS, SHARED, SPANS, Role, Rule, Rules, array_of

_LEAST_SHARE = 0.2  # of the units that an index without declared bounds names
_SPARSE = re.compile(r"\bcsr_matrix_times_vector\([^,()]+,[^,()]+,\s*(\w+)\s*,\s*(\w+)\s*,\s*(\w+)\s*,")
_FEWEST_ROWS = 10  # whose number others hardly are by chance


def propose_rules(
    program: Program, data: StanData, level: Level, given: Mapping[str, Rule] | None = None
) -> Rules:
    """The likeliest rule of every data entry; hand-given ones stay as they are."""
    return next(rule_sets(program, data, level, given))


def rule_sets(
    program: Program,
    data: StanData,
    level: Level,
    given: Mapping[str, Rule] | None = None,
    unread: Collection[str] = (),
) -> Iterator[Rules]:
    """Proposals, likeliest first: more than one where declarations leave open which entry is the index.

    Args:
        unread: entries that the program does not read, which are no indices.
    """
    program = settled(program, data)
    given = dict(given or {})
    units = level.num_units
    rules = _units_by_symbol(program, data, level) | given
    rules |= _given_spans(program, data, rules)
    spans = _spans(program, data, units, rules)
    if spans:
        yield from _finished(program, data, rules | spans | _agreeing_indices(program, data, rules | spans))
    else:
        for guess in _undeclared_indices(program, data, units, rules, unread):
            guessed = rules | guess
            yield from _finished(program, data, guessed | _spans(program, data, units, guessed))
    places = _places(program, data, units, rules)
    if places:
        yield from _finished(program, data, rules | places)
    yield from _finished(program, data, rules)
    by_number = _units_by_number(program, data, units, rules)
    if by_number:
        yield from _finished(program, data, rules | by_number | given)


def sparse_entries(program: Program, data: StanData) -> tuple[str, ...]:
    """The data that are the parts of sparse matrices, such as `w`, `v` and `u` of rstanarm; empty ones left out."""
    found = {name for call in _SPARSE.finditer(program.source) for name in call.groups()}
    return tuple(d.name for d in program.data if d.name in found and array_of(data, d.name).size)


def _dims(declaration: Declaration) -> list[str]:
    return [size.text for size in declaration.type.dims]


def _is_index_like(declaration: Declaration) -> bool:
    return declaration.type.is_integer and len(declaration.type.dims) == 1


def _units_by_symbol(program: Program, data: StanData, level: Level) -> Rules:
    """UNIT axes and declared indices: what the declarations say on their own."""
    rules: Rules = {}
    sizes = _sizes(program, level)
    for declaration in program.data:
        dims = _dims(declaration)
        if own := [axis for axis, size in enumerate(dims) if size in sizes]:
            rules[declaration.name] = Rule(Role.UNIT, own[0])
        elif _is_index_like(declaration) and _numbers(program, declaration) & sizes:
            rules[declaration.name] = Rule(Role.INDEX, rows=dims[0])
        elif (
            not dims
            and declaration.type.is_integer
            and (times := _counts(declaration.name, level, program, data))
        ):
            rules[declaration.name] = Rule(Role.SIZE_UNITS, times=times)
    return rules


def _numbers(program: Program, declaration: Declaration) -> set[str]:
    """The declared sizes that an entry may number: its upper bound, and that of what the program indexes by it."""
    upper, numbered = declaration.type.upper, numbered_sizes(program).get(declaration.name)
    return {text for text in (numbered, None if upper is None else upper.text) if text is not None}


def _sizes(program: Program, level: Level) -> set[str]:
    """The declared sizes that count the units: one, unless parameters of a level write it in several ways."""
    sizes = {level.name}
    for member in level.members:
        along = axis_sizes(type_of(program.parameters, member.name))
        if member.width == 1 and not member.places and member.axis < len(along):
            sizes.add(along[member.axis].text)
    return sizes


def _counts(name: str, level: Level, program: Program, data: StanData) -> int:
    """How many more of this number are one unit more; 0 where it does not count units."""
    value = int(array_of(data, name))
    for member in level.members:
        sizes = axis_sizes(type_of(program.parameters, member.name))
        if member.places or member.axis >= len(sizes):
            continue
        size = sizes[member.axis]
        if size.text == name:
            return member.width
        if name in size.names:
            entries = member.width * level.num_units
            try:
                more, less = (int(size.evaluate({**data, name: np.int64(value + step)})) for step in (1, -1))
            except Unevaluable:
                continue
            if more - entries == entries - less and more - entries in (1, member.width):
                return member.width // (more - entries)
    return int(name == level.name and value == level.num_units)


def _undeclared_indices(
    program: Program, data: StanData, units: int, rules: Rules, unread: Collection[str]
) -> Iterator[Rules]:
    """Indices among integer arrays without a declared bound: the likeliest for every set of rows, then single ones."""
    owned = {rule.rows for rule in rules.values() if rule.role is Role.INDEX}
    ranked: dict[str, list[tuple[bool, float, str]]] = {}
    for declaration in program.data:
        if declaration.name in rules or declaration.name in unread or not _is_index_like(declaration):
            continue
        rows = _dims(declaration)[0]
        if rows in owned or _numbers(program, declaration) & data.keys():  # it numbers something else
            continue
        values = array_of(data, declaration.name)
        if values.size and values.min() >= 1 and values.max() <= units:
            share = len(np.unique(values)) / units
            if share >= _LEAST_SHARE:
                ranked.setdefault(rows, []).append((bool(values.max() != units), -share, declaration.name))
    found = [[(rows, name) for *_, name in sorted(names)] for rows, names in ranked.items()]
    if len(found) > 1:
        yield {name: Rule(Role.INDEX, rows=rows) for rows, name in (names[0] for names in found)}
    for rows, name in (guess for guesses in zip_longest(*found) for guess in guesses if guess):
        yield {name: Rule(Role.INDEX, rows=rows)}


def _units_by_number(program: Program, data: StanData, units: int, rules: Rules) -> Rules:
    """Axes whose number of entries is the number of units, where no declared size says so."""
    found: Rules = {}
    for declaration in program.data:
        shape = array_of(data, declaration.name).shape
        if declaration.name in rules or units not in shape:
            continue
        axis = shape.index(units)
        found[declaration.name] = Rule(Role.UNIT, axis)
        symbol = _dims(declaration)[axis]
        if symbol in data:
            found[symbol] = Rule(Role.SIZE_UNITS)
    return found


def _finished(program: Program, data: StanData, rules: Rules) -> Iterator[Rules]:
    """The rules with indices of indices, rows and sizes added; everything else is shared.

    First with rows that are as many as those of units, and counted under another name, taken for the same rows.
    """
    rules = dict(rules)
    for name, rule in rules.items():
        if rule.role is Role.INDEX and rule.rows is None and _dims(program.declaration(name)):
            rules[name] = Rule(Role.INDEX, rows=_dims(program.declaration(name))[0])
    rules |= _chained(program, rules)
    owned = {rule.rows: rule.rows for rule in rules.values() if rule.role in OWNERS and rule.rows}
    twins = _twins(program, data, owned)
    for rows in (owned | twins, owned) if twins else (owned,):
        yield _with_rows(program, rules, rows)


def _with_rows(program: Program, rules: Rules, rows: Mapping[str, str]) -> Rules:
    """Args: `rows`: declared sizes that count rows of units, and the name of these rows."""
    found: Rules = {}
    for declaration in program.data:
        name, dims = declaration.name, _dims(declaration)
        axis = next((k for k, size in enumerate(dims) if size in rows), None)
        if name in rules:
            found[name] = rules[name]
        elif axis is not None:
            found[name] = Rule(Role.ROW, axis, rows=rows[dims[axis]])
        elif not dims and declaration.type.is_integer and name in rows:
            found[name] = Rule(Role.SIZE_ROWS, rows=rows[name])
        else:
            found[name] = SHARED
    return found


def _twins(program: Program, data: StanData, owned: Mapping[str, str]) -> dict[str, str]:
    """Numbers of the data that are those of some unit's rows, by the rows' name."""
    counts = {
        size: symbol
        for declaration in program.data
        for symbol, size in zip(_dims(declaration), array_of(data, declaration.name).shape, strict=False)
        if symbol in owned and size >= _FEWEST_ROWS
    }
    found = {}
    for declaration in program.data:
        if not declaration.type.dims and declaration.type.is_integer and declaration.name not in owned:
            count = int(array_of(data, declaration.name))
            if count in counts:
                found[declaration.name] = counts[count]
    return found


def _chained(program: Program, rules: Rules) -> Rules:
    """Indices into rows that have an owner themselves: answers of students of a class."""
    found: Rules = {}
    owned = {rule.rows for rule in rules.values() if rule.role in OWNERS and rule.rows}
    growing = True
    while growing:
        growing = False
        for declaration in program.data:
            if declaration.name in rules or declaration.name in found or not _is_index_like(declaration):
                continue
            rows = _dims(declaration)[0]
            into = sorted(_numbers(program, declaration) & owned)
            if into and rows not in owned:
                found[declaration.name] = Rule(Role.INDEX, rows=rows, into=into[0])
                owned.add(rows)
                growing = True
    return found


def _spans(program: Program, data: StanData, units: int, rules: Rules) -> Rules:
    """Unit-wise integers that cut rows into consecutive stretches: starts, ends, sizes, offsets."""
    candidates: dict[str, IndexArray] = {}
    for declaration in program.data:
        value, rule = array_of(data, declaration.name), rules.get(declaration.name)
        if _is_index_like(declaration):
            per_unit = len(value) == units and rule is not None and rule.role is Role.UNIT
            if per_unit or (len(value) == units + 1 and rule is None):
                candidates[declaration.name] = value.astype(np.int64)
    owners = {
        rule.rows: array_of(data, name).astype(np.int64) - 1
        for name, rule in rules.items()
        if rule.role is Role.INDEX and rule.rows and rule.into is None
    }
    found: Rules = {}
    for symbol, size in _row_sizes(program, data, rules).items():
        owner = owners.get(symbol)
        known = None if owner is None else Spans.from_owner(owner, units)
        if owner is not None and known is None:
            continue
        free = {name: value for name, value in candidates.items() if name not in found}
        for name, word in label_spans(free, size, units, known).items():
            found[name] = Rule(Role(word), rows=symbol)
    return found


def _places(program: Program, data: StanData, units: int, rules: Rules) -> Rules:
    """Unit-wise integers that name a row each, as where the missing values are."""
    sizes = _row_sizes(program, data, rules)
    found: Rules = {}
    for declaration in program.data:
        rule, value = rules.get(declaration.name), array_of(data, declaration.name)
        if rule is None or rule.role is not Role.UNIT or not _is_index_like(declaration) or not value.size:
            continue
        if value.min() < 1 or value.max() <= units or len(np.unique(value)) < len(value):
            continue
        fitting = sorted((size, symbol) for symbol, size in sizes.items() if size >= value.max())
        named = [symbol for _, symbol in fitting if symbol in _numbers(program, declaration)]
        rows = next(iter(named or [symbol for _, symbol in fitting]), None)
        if rows is not None and rows not in {other.rows for other in found.values()}:
            found[declaration.name] = Rule(Role.PLACE, rows=rows)
    return found


def _agreeing_indices(program: Program, data: StanData, rules: Rules) -> Rules:
    """Undeclared indices that say of rows what their spans say."""
    parts: dict[str, dict[str, IndexArray]] = {}
    for name, rule in rules.items():
        if rule.role in SPANS and rule.rows is not None:
            parts.setdefault(rule.rows, {})[rule.role.value] = array_of(data, name).astype(np.int64)
    found: Rules = {}
    for declaration in program.data:
        if declaration.name in rules or not _is_index_like(declaration):
            continue
        rows, value = _dims(declaration)[0], array_of(data, declaration.name)
        if rows in parts and np.array_equal(_owner(parts[rows], len(value)) + 1, value):
            found[declaration.name] = Rule(Role.INDEX, rows=rows)
    return found


def _given_spans(program: Program, data: StanData, rules: Rules) -> Rules:
    """Hand-given spans with the rows that they cut: those that they cover, or the only ones there are."""
    waiting = {name: rule for name, rule in rules.items() if rule.role in SPANS and rule.rows is None}
    parts = {rule.role.value: array_of(data, name).astype(np.int64) for name, rule in waiting.items()}
    sizes = _row_sizes(program, data, rules)
    fitting = [symbol for symbol, size in sizes.items() if parts and _covers(parts, size)]
    rows = next(iter(fitting or sizes), None)
    return {name: Rule(rule.role, rows=rows) for name, rule in waiting.items()}


def _owner(parts: Mapping[str, IndexArray], size: int) -> IndexArray:
    try:
        return spans_of(parts, size).owner(size)
    except ValueError:  # the plan says so when it is made
        return np.zeros(0, dtype=np.int64)


def _covers(parts: Mapping[str, IndexArray], size: int) -> bool:
    try:
        return spans_of(parts, size).covers(size)
    except ValueError:
        return False


def _row_sizes(program: Program, data: StanData, rules: Rules) -> dict[str, int]:
    """Declared sizes of data other than those of the units: what rows could be counted by."""
    per_unit = {
        _dims(program.declaration(name))[rule.axis]
        for name, rule in rules.items()
        if rule.role in (Role.UNIT, *SPANS) and rule.axis < len(_dims(program.declaration(name)))
    }
    sizes: dict[str, int] = {}
    for declaration in program.data:
        for symbol, size in zip(_dims(declaration), array_of(data, declaration.name).shape, strict=False):
            if symbol not in per_unit:
                sizes.setdefault(symbol, size)
    return sizes
