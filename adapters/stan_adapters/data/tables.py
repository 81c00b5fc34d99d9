"""Data in tables: a row of a parquet file per observation or unit, columns named as the data entries; zarr groups.

Declared sizes say what a column is. In a table with a row for each of N observations, a column of an `array[N]` or
`vector[N]` entry is taken as it stands; a column of an entry of J groups must be constant within the groups that an
index, an integer array declared with `upper=J`, gives to the rows. Sizes are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stan_adapters.data.checks import Array
from stan_adapters.data.stan_data import StanData, read_data, read_values
from stan_adapters.data.table_files import (
    Column,
    DataTable,
    Labels,
    is_group,
    is_table,
    read_group,
    read_table_files,
)
from stan_adapters.errors import DataError
from stan_adapters.language.program import Declaration, Program


def read_tables(program: Program, files: Sequence[Path]) -> StanData:
    """One data set from parquet tables, zarr groups and JSON files; the latter two hold whole entries.

    Tables with the same columns are put under each other in the order given. A table of groups gives them in the
    order of their numbers, or has the index as a column, as a key. Columns and arrays that the program does not declare
    are not read; `x.1`, `x.2` .. are the columns of a matrix x. Sizes may be left out. An index holds 1..G, or labels
    (strings, categories), which are numbered in sorted order and kept in the result's `labels`.

    Raises:
        DataError: an entry given twice or nowhere, columns whose rows no index gives to their groups, values that
            differ within a group, missing values; pyarrow is not installed.
    """
    entries: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    for file in files:
        if not is_table(file):
            values = read_group(file, program) if is_group(file) else read_values(file)
            for name in values:
                if name in origin:
                    raise DataError(f"`{name}` is in {origin[name]} and in {file}. Keep one.")
                origin[name] = file
            entries |= values
    tables = read_table_files([file for file in files if is_table(file)], program)
    source = ", ".join(map(str, files))
    found = _Tables(program, tables, entries, source)
    data = read_data(program, found.values(), source=source)
    return replace(data, labels=found.labels)


# ---- From columns to entries -------------------------------------------------------------------------------


@dataclass(eq=False)
class _Tables:
    """The entries of a program from tables and from what stands beside them.

    A *space* is what an index numbers: the declared size J of an `array[N] int<upper=J>`.
    """

    program: Program
    tables: Sequence[DataTable]
    entries: Mapping[str, Any]
    source: str
    labels: dict[str, Array] = field(default_factory=dict, init=False)
    counts: dict[str, int] = field(default_factory=dict, init=False)  # of groups, by space

    def __post_init__(self) -> None:
        self.declared: dict[str, Declaration] = {d.name: d for d in self.program.data}
        sizes = {size.text for d in self.program.declarations for size in d.type.dims}
        self.spaces: dict[str, str] = {
            name: d.type.upper.text
            for name, d in self.declared.items()
            if _is_index_like(d) and d.type.upper is not None and d.type.upper.text in sizes
        }
        self.keys = [self._key(table) for table in self.tables]
        self.rows = [
            self._size_of_rows(table) if key is None else None
            for table, key in zip(self.tables, self.keys, strict=True)
        ]

    def values(self) -> dict[str, Any]:
        """Values of all entries that were found; sizes that arrays or indices give are added. Raises DataError."""
        numbers = self._number()
        values = {name: numbers.get(("", name), value) for name, value in self.entries.items()}
        origin = dict.fromkeys(values, "a file beside the tables")
        for table, key, size in zip(self.tables, self.keys, self.rows, strict=True):
            for name in table.columns:
                if name == key:
                    continue
                if name in origin:
                    raise DataError(f"`{name}` is in {origin[name]} and in {table.name}. Keep one.")
                origin[name] = table.name
                values[name] = self._entry(table, name, size, numbers)
        for name, count in self._sizes(values).items():
            values.setdefault(name, count)
        return values

    # -- whose rows ---------------------------------------------------------------------------------------------

    def _key(self, table: DataTable) -> str | None:
        """The index that says which group a row of a table of groups describes: the one it shares with another."""
        for key in table.columns:
            shared = any(key in other.columns for other in self.tables if other is not table)
            if key in self.spaces and shared:
                own = {self.spaces[key]} | {
                    self.spaces[name] for name in table.columns if name in self.spaces
                }
                others = {_leading(self.declared[name]) for name in table.columns if name != key}
                if self.spaces[key] in others and others <= {None, *own}:
                    return key
        return None

    def _size_of_rows(self, table: DataTable) -> str | None:
        """The declared size that the rows of a table count."""
        leading = {name: _leading(self.declared[name]) for name in table.columns}
        sizes = {size for size in leading.values() if size is not None}
        reached = {self.spaces[name] for name in table.columns if name in self.spaces}
        roots = sizes - reached if len(sizes) > 1 else sizes
        if not sizes:
            return None
        if len(roots) == 1:
            return roots.pop()
        examples = {size: name for name, size in leading.items() if size in (roots or sizes)}
        listed = " and of ".join(f"{size} ({name})" for size, name in examples.items())
        raise DataError(
            f"{table.name} has columns of {listed}, and no column says to which of them a row belongs. Add an index "
            "that the program declares, as in `array[N] int<lower=1, upper=J>`, or put them in different tables."
        )

    # -- numbers of groups --------------------------------------------------------------------------------------

    def _number(self) -> dict[tuple[str, str], Array]:
        """Index columns and labels as numbers from 1, by table ("" for entries beside them) and name."""
        spaces: dict[str, dict[tuple[str, str], Column]] = {}
        beside = {
            name: column for name, v in self.entries.items() if (column := self._beside(name, v)) is not None
        }
        for table, columns in [("", beside), *((t.name, t.columns) for t in self.tables)]:
            for name, column in columns.items():
                if name in self.spaces or isinstance(column, Labels):
                    declared = self.declared[name]
                    if isinstance(column, Labels) and (
                        not _is_index_like(declared) or (declared.type.upper and name not in self.spaces)
                    ):
                        raise DataError(
                            f"`{name}` holds words such as {str(column.words[0])!r}, and it is declared `{declared}`: "
                            f"expected numbers. Data: {table or self.source}."
                        )
                    spaces.setdefault(self.spaces.get(name, f"{name}:"), {})[table, name] = column
        numbers: dict[tuple[str, str], Array] = {}
        for space, held in spaces.items():
            labelled = {key: column for key, column in held.items() if isinstance(column, Labels)}
            plain = {key: _whole(key, c) for key, c in held.items() if not isinstance(c, Labels)}
            if labelled and plain:
                words, integers = next(iter(labelled))[1], next(iter(plain))[1]
                raise DataError(
                    f"`{words}` holds labels and `{integers}` numbers, and both say which of {space}. "
                    f"Data: {self.source}."
                )
            if labelled:
                numbers |= self._number_labels(space, labelled)
            else:
                self._count_groups(space, plain)
                numbers |= plain
        return numbers

    def _beside(self, name: str, value: object) -> Column | None:
        """An entry beside the tables, where it is an index."""
        if name not in self.declared or not _is_index_like(self.declared[name]):
            return None
        try:
            array = np.asarray(value)
        except ValueError:  # ragged: the check of data says where
            return None
        if array.ndim != 1:
            return None
        if array.dtype.kind in "UT" and array.size:
            words, codes = np.unique(array.astype(str), return_inverse=True)
            return Labels(codes, words)
        return array if array.dtype.kind in "iuf" and name in self.spaces else None

    def _number_labels(
        self, space: str, columns: Mapping[tuple[str, str], Labels]
    ) -> dict[tuple[str, str], Array]:
        words = np.unique(np.concatenate([column.used for column in columns.values()]))
        names = sorted({name for _, name in columns})
        for table, size in zip(self.tables, self.rows, strict=True):
            if size == space:
                raise DataError(
                    f"{table.name} has a row for each of {space}, which have labels elsewhere. Add `{names[0]}` to it "
                    "as a column, to say which row is whose."
                )
        given = self.entries.get(space)
        if given is not None and np.shape(given) == () and given != len(words):
            raise DataError(
                f"`{space}` is {given}, and `{', '.join(names)}` has {len(words)} labels. Leave {space} out, or name "
                f"the others in a table of {space}. Data: {self.source}."
            )
        self.counts[space] = len(words)
        self.labels |= dict.fromkeys(names, words)
        return {
            key: np.searchsorted(words, column.words)[column.codes] + 1 for key, column in columns.items()
        }

    def _count_groups(self, space: str, columns: Mapping[tuple[str, str], Array]) -> None:
        """How many groups integers number: a size that is given or counted elsewhere, or their own 1..G."""
        given = self.entries.get(space)
        lengths = [t.rows for t, size in zip(self.tables, self.rows, strict=True) if size == space]
        for name, value in self.entries.items():
            if name in self.declared and _leading(self.declared[name]) == space:
                lengths += _shape(value)[:1]
        if given is not None and _shape(given) == ():
            self.counts[space] = int(given)
        elif lengths:
            self.counts[space] = lengths[0]
        else:
            present = np.unique(np.concatenate(list(columns.values())))
            if not np.array_equal(present, np.arange(1, len(present) + 1)):
                names = ", ".join(sorted({name for _, name in columns}))
                raise DataError(
                    f"`{names}` holds {len(present)} different numbers from {present[0]} to {present[-1]}, not 1 to "
                    f"{len(present)}. Give `{space}` if some of them have no rows, or make them strings if they are "
                    f"labels. Data: {self.source}."
                )
            self._refuse_restarted_numbers(space, columns)
            self.counts[space] = len(present)

    def _refuse_restarted_numbers(self, space: str, columns: Mapping[tuple[str, str], Array]) -> None:
        for table in self.tables:
            for name in table.columns:
                if len(table.files) > 1 and (table.name, name) in columns:
                    pieces = np.split(columns[table.name, name], np.cumsum(table.files)[:-1])
                    numbers = [np.unique(piece) for piece in pieces]
                    if all(np.array_equal(n, np.arange(1, len(n) + 1)) for n in numbers):
                        raise DataError(
                            f"`{name}` counts from 1 in each of {table.name}. If a number means the same group in all "
                            f"of them, give `{space}`; if not, make the groups' names strings, different in each file."
                        )

    # -- entries ------------------------------------------------------------------------------------------------

    def _entry(
        self, table: DataTable, name: str, size: str | None, numbers: Mapping[tuple[str, str], Array]
    ) -> Array:
        column = numbers.get((table.name, name), table.columns[name])
        assert not isinstance(column, Labels)  # these have numbers
        own = _leading(self.declared[name])
        if own is None:
            return self._constant(table, name, column)
        if own == size:
            return column
        keys = [key for key in table.columns if self.spaces.get(key) == own]
        if len(keys) != 1:
            raise DataError(
                f"{table.name} has `{name}`, an entry of {own}, and {len(keys)} indices of {own} "
                f"({', '.join(keys) or 'none'}): give what {own} have in a table of their own."
            )
        return self._of_groups(table, name, column, keys[0], numbers[table.name, keys[0]])

    def _of_groups(self, table: DataTable, name: str, values: Array, key: str, number: Array) -> Array:
        """The value of each group, (G, ...), from those of its rows, (R, ...)."""
        groups = self.counts[self.spaces[key]]
        if number.size and (number.min() < 1 or number.max() > groups):
            raise DataError(f"column {key} of {table.name} holds numbers that are not of 1 to {groups}.")
        first = np.full(groups, -1, dtype=np.int64)
        first[number[::-1] - 1] = np.arange(len(number))[::-1]
        if (first < 0).any():
            missing = int(np.argmax(first < 0))
            raise DataError(
                f"{table.name} has no row of {key} {self._name(key, missing)}, and so no `{name}` of it."
            )
        differs = (values[first[number - 1]] != values).reshape(len(values), -1).any(axis=1)
        if differs.any():
            row = int(np.argmax(differs))
            raise DataError(
                f"`{name}` is declared `{self.declared[name]}`, one for each {key}, and differs within {key} "
                f"{self._name(key, number[row] - 1)} in {table.name}: rows {first[number[row] - 1] + 1} and {row + 1}."
            )
        return np.asarray(values[first])

    def _constant(self, table: DataTable, name: str, values: Array) -> Array:
        if len(values) == 0 or (values != values[0]).any():
            raise DataError(
                f"`{name}` is declared `{self.declared[name]}`, one number, and column {name} of {table.name} "
                + ("has no rows." if len(values) == 0 else "holds several.")
            )
        return np.asarray(values[0])

    def _name(self, key: str, group: int) -> str:
        return repr(str(self.labels[key][group])) if key in self.labels else str(group + 1)

    def _sizes(self, values: Mapping[str, Any]) -> dict[str, int]:
        """Declared sizes that stand for themselves, counted."""
        found = dict(self.counts)
        for name, value in values.items():
            if name in self.declared:
                for size, count in zip(self.declared[name].type.dims, _shape(value), strict=False):
                    found.setdefault(size.text, count)
        return {
            name: count
            for name, count in found.items()
            if name in self.declared and not self.declared[name].type.dims
        }


def _leading(declaration: Declaration) -> str | None:
    """The declared size of an entry's first axis; None of a single number."""
    dims = declaration.type.dims
    return dims[0].text if dims else None


def _is_index_like(declaration: Declaration) -> bool:
    return declaration.type.is_integer and len(declaration.type.dims) == 1


def _shape(value: object) -> tuple[int, ...]:
    try:
        return np.asarray(value).shape
    except ValueError:  # ragged: the check of data says where
        return ()


def _whole(key: tuple[str, str], column: Array) -> Array:
    if column.dtype.kind == "f" and (column == np.trunc(column)).all():
        return column.astype(np.int64)
    if column.dtype.kind not in "iu" or column.ndim != 1:
        table, name = key
        raise DataError(
            f"`{name}` numbers groups, and column {name} of {table} holds {column.dtype}: expected integers."
        )
    return column
