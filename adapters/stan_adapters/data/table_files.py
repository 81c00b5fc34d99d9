"""Files of tables as numpy columns: parquet and CSV (read with pyarrow, an optional requirement) and zarr groups."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from stan_adapters.data.checks import Array
from stan_adapters.errors import DataError
from stan_adapters.files.foreign_files import check_zarr
from stan_adapters.files.text_files import misnamed
from stan_adapters.language.program import Program, StrPath

_CSV = (".csv", ".csv.gz")


def is_table(path: StrPath) -> bool:
    """Whether a path names a parquet file, a folder of them, or a CSV file."""
    return os.fspath(path).endswith((".parquet", ".pq", *_CSV))


def is_group(path: StrPath) -> bool:
    """Whether a path names a zarr group."""
    return os.fspath(path).rstrip("/").endswith(".zarr")


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A column of words: row r holds words[codes[r]]."""

    codes: Array  # (R,)
    words: Array  # distinct

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def used(self) -> Array:
        return np.asarray(self.words[np.unique(self.codes)])


type Column = Array | Labels


@dataclass(frozen=True, slots=True, eq=False)
class DataTable:
    """Columns of R rows each, by data entry. `files` is how many rows came from each file; `name` is for errors."""

    name: str
    files: tuple[int, ...]
    columns: Mapping[str, Column]

    @property
    def rows(self) -> int:
        return sum(self.files)


def read_group(path: Path, program: Program) -> dict[str, Array]:
    """The arrays of a zarr group that are data entries of the program. Raises DataError."""
    import zarr

    try:
        check_zarr(Path(path))
        group = zarr.open_group(path, mode="r")
        arrays = dict(group.arrays())
        wanted = [declaration.name for declaration in program.data if declaration.name in arrays]
        entries = {name: np.asarray(arrays[name][...]) for name in wanted}
    except Exception as error:  # zarr and its codecs have no common class of errors
        raise DataError(f"can't read the zarr group {path}: {error}") from error
    return entries or _refuse_foreign(path, sorted(arrays), program)


def read_table_files(files: Sequence[Path], program: Program) -> list[DataTable]:
    """Tables, those with the same columns put under each other; only columns that the program declares are read.

    Raises:
        DataError: pyarrow is not installed; a file that is no table, or has no column of the program; missing values;
            lists of different lengths; what is no number, list of numbers or label.
    """
    if not files:
        return []
    try:
        arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ImportError:
        raise DataError(
            f"{files[0]} is a table, and reading it needs pyarrow: pip install 'avistan[tables]'."
        ) from None
    declared = {declaration.name for declaration in program.data}
    alike: dict[frozenset[str], list[tuple[Path, Any]]] = {}
    for file in files:
        try:
            if str(file).endswith(_CSV):
                names, wanted, content = _read_csv(file, declared)
            else:
                dataset = parquet.ParquetDataset(file)
                names = dataset.schema.names
                wanted = [name for name in names if name in declared or _stem(name) in declared]
                content = dataset.read(columns=wanted)
        except (OSError, arrow.ArrowException) as error:
            packed = misnamed(file) if file.is_file() else ""
            raise DataError(f"can't read the table {file}: {packed or error}") from error
        if not wanted:
            _refuse_foreign(file, names, program)
        alike.setdefault(frozenset(names), []).append((file, content))
    tables = []
    for members in alike.values():
        name = str(members[0][0]) + (f" to {members[-1][0]}" if len(members) > 1 else "")
        try:
            content = arrow.concat_tables([table for _, table in members], promote_options="permissive")
        except arrow.ArrowException as error:
            raise DataError(f"the tables {name} have columns of different types: {error}") from error
        columns = {
            column: _column(arrow, content.column(column), column, name) for column in content.column_names
        }
        rows = tuple(table.num_rows for _, table in members)
        tables.append(DataTable(name, rows, _with_matrices(columns, declared, name)))
    return tables


def _read_csv(file: Path, declared: set[str]) -> tuple[list[str], list[str], Any]:
    """The names of all columns, those that are read, and these; empty fields and NA are missing, NaN is a number."""
    csv = importlib.import_module("pyarrow.csv")
    options = csv.ConvertOptions(
        null_values=["", "NA"], strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    content = csv.read_csv(file, convert_options=options)
    names = content.column_names
    wanted = [name for name in names if name in declared or _stem(name) in declared]
    return names, wanted, content.select(wanted)


def _refuse_foreign(file: Path, names: Sequence[str], program: Program) -> NoReturn:
    entries = ", ".join(declaration.name for declaration in program.data)
    raise DataError(
        f"nothing in {file} is a data entry of {program.name}. It holds: {', '.join(names) or 'nothing'}. "
        f"Entries: {entries or 'none'}."
    )


def _stem(column: str) -> str:
    """`x` of `x.1`."""
    stem, dot, number = column.rpartition(".")
    return stem if dot and number.isdigit() else ""


def _with_matrices(columns: Mapping[str, Column], declared: set[str], table: str) -> dict[str, Column]:
    """Columns `x.1` .. `x.K` as one (R, K)."""
    found = {name: column for name, column in columns.items() if name in declared}
    for stem in {_stem(name) for name in columns if name not in declared}:
        parts = [name for name in columns if name not in declared and _stem(name) == stem]
        expected = [f"{stem}.{number}" for number in range(1, len(parts) + 1)]
        if sorted(parts) != sorted(expected) or stem in found:
            raise DataError(
                f"{table} has the columns {', '.join(parts)}: expected {', '.join(expected)} alone."
            )
        stacked = [columns[name] for name in expected]
        if any(isinstance(column, Labels) or column.ndim != 1 for column in stacked):
            raise DataError(f"columns {', '.join(expected)} of {table} hold no plain numbers.")
        found[stem] = np.stack([np.asarray(column) for column in stacked], axis=1)
    return found


def _column(arrow: Any, column: Any, name: str, table: str) -> Column:
    """A column as numbers (R,), numbers (R, K ..) of lists, or labels."""
    types = arrow.types
    if column.null_count:
        raise DataError(
            f"column {name} of {table} has {column.null_count} missing values: Stan data can't be missing, drop or "
            "impute them."
        )
    kind = column.type
    if (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_dictionary(kind)
    ):
        coded = column if types.is_dictionary(kind) else column.dictionary_encode()
        coded = coded.unify_dictionaries().combine_chunks()
        if coded.dictionary.null_count:
            raise DataError(f"column {name} of {table} has missing categories: drop or impute them.")
        words = np.asarray(coded.dictionary.to_pylist())
        if len(np.unique(words)) < len(words):
            words, again = np.unique(words, return_inverse=True)
            return Labels(again[coded.indices.to_numpy()], words)
        return Labels(coded.indices.to_numpy(), words)
    shape = [len(column)]
    values = column.combine_chunks()
    while (
        types.is_list(values.type)
        or types.is_large_list(values.type)
        or types.is_fixed_size_list(values.type)
    ):
        lengths = values.value_lengths().to_numpy(zero_copy_only=False)
        if lengths.size and (lengths != lengths[0]).any():
            row = int(np.argmax(lengths != lengths[0]))
            raise DataError(
                f"column {name} of {table} holds lists of {lengths[0]} and of {lengths[row]} entries: all rows need "
                "the same number."
            )
        shape.append(int(lengths[0]) if lengths.size else 0)
        values = values.flatten()
        if values.null_count:
            raise DataError(f"column {name} of {table} has missing values in its lists: drop or impute them.")
    if not (types.is_integer(values.type) or types.is_floating(values.type) or types.is_boolean(values.type)):
        raise DataError(
            f"column {name} of {table} holds {kind}, expected numbers, lists of numbers, or labels."
        )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)
