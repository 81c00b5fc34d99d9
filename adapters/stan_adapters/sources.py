"""Where data come from: a mapping, a file, several files that each hold some units, tables. The front door to data.

| given | read as |
| --- | --- |
| a mapping, or one file: JSON, an R dump (`*.R`), gzipped or zipped too | the entries (`data`) |
| a folder `*.zarr` | a zarr group whose arrays are the entries; sizes may be left out (`tables`) |
| several of these files, or a pattern: "parts/*.json" | units, file after file (`unit_data.joining`) |
| parquet or CSV, and beside it JSON files and zarr groups | columns and whole entries: one data set (`tables`) |
"""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from stan_adapters.data.stan_data import DataWarning, RawData, StanData, read_data, read_values
from stan_adapters.data.table_files import is_group, is_table
from stan_adapters.data.tables import read_tables
from stan_adapters.errors import DataError
from stan_adapters.language.program import Program, StrPath
from stan_adapters.unit_data.joining import join
from stan_adapters.unit_data.rules import Rule

type DataSource = RawData | Sequence[StrPath]


def read(
    program: Program,
    data: DataSource,
    *,
    level: str | None = None,
    rules: Mapping[str, str | Rule] | None = None,
) -> StanData:
    """Checked data of a program from wherever they are.

    Args:
        data: a mapping, a path or a pattern, or a list of paths and patterns, as the table above says. Files that a
            pattern finds are in natural order (part2 before part10), others in the order given.
        level, rules: only for several files that hold some units each: which units, and hand-given slicing rules.

    Raises:
        DataError: no such file, a file given twice, and all that is wrong with its content.
        StructureError: a hand-given rule names no data entry or is no rule.

    Warns (DataWarning): entries that the program does not declare; NaN, which Stan reads as a number.
    """
    found = _read(program, data, level=level, rules=rules)
    if found.undefined:
        counts = ", ".join(f"`{name}` ({count})" for name, count in found.undefined.items())
        warnings.warn(
            f"data entries hold NaN: {counts}. Stan reads them, and a density that uses one is NaN; where they stand "
            f"for missing values, the program has to leave them out. Data: {found.source}.",
            DataWarning,
            stacklevel=2,
        )
    return found


def _read(
    program: Program,
    data: DataSource,
    *,
    level: str | None,
    rules: Mapping[str, str | Rule] | None,
) -> StanData:
    if isinstance(data, list | tuple):
        files = _listed(data)
    elif isinstance(data, str | os.PathLike) and (_is_pattern(data) or is_table(data) or is_group(data)):
        files = _listed([data])
    else:
        return read_data(program, data)  # type: ignore[arg-type]
    if any(map(is_table, files)):
        return read_tables(program, files)
    declared = {declaration.name for declaration in program.data}
    parts: list[StanData] = []
    warned: set[str] = set()
    for file in files:
        if is_group(file):
            parts.append(read_tables(program, [file]))
            continue
        values = read_values(file)
        # what the program does not declare is warned about once, not for every file
        kept = {name: value for name, value in values.items() if name not in warned}
        warned |= set(values) - declared
        parts.append(read_data(program, kept, source=str(file)))
    return join(parts, level, rules)


def _listed(data: Sequence[object]) -> list[Path]:
    """The files of a list, patterns replaced by what they find."""
    if not data:
        raise DataError("data is an empty list: give the path of one file at least.")
    files: list[Path] = []
    for item in data:
        if not isinstance(item, str | os.PathLike):
            raise DataError(
                f"data is a list that holds a {type(item).__name__}, expected paths of files. Data in memory are one "
                "dict of all units."
            )
        files += _found(item) if _is_pattern(item) else [Path(item)]
    seen: dict[Path, Path] = {}
    for file in files:
        if file.resolve() in seen:
            raise DataError(
                f"the data file {file} is given twice: its units would count twice. Give it once."
            )
        seen[file.resolve()] = file
    return files


def _is_pattern(path: StrPath) -> bool:
    text = os.fspath(path)
    return glob.has_magic(text) and not text.lstrip().startswith("{") and not os.path.exists(text)


def _found(pattern: StrPath) -> list[Path]:
    found = glob.glob(os.fspath(pattern), recursive=True)
    if not found:
        raise DataError(f"no file matches {os.fspath(pattern)} in {Path.cwd()}.")
    return [Path(file) for file in sorted(found, key=_natural)]


def _natural(path: str) -> list[tuple[int, str]]:
    """Sorts part2 before part10."""
    words: list[str] = re.findall(r"\d+|\D+", path)
    return [(int(word), word) if word.isdecimal() else (-1, word) for word in words]
