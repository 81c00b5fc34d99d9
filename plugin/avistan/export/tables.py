"""Draws as one table, a row for each draw, and units as another, a row for each number of a unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from avistan.export.columns import flat, r_names
from avistan.export.parts import Outgoing
from avistan.files.outputs import check_room, whole_file
from avistan.fitting.fitted import Fitted
from avistan.posterior.summaries import ASIDE, QUANTILES, Draws, statistics
from avistan.posterior.unit_distance import isolation
from avistan.posterior.unit_entries import entry_labels, unit_of_entry
from avistan.runtime.errors import FitError
from avistan.runtime.progress import begin_stage, report_step
from avistan.runtime.types import FloatArray, StrPath

_SUFFIXES = (".parquet", ".csv")
_BYTES_OF_A_NUMBER = {".parquet": 8, ".csv": 19}


def check_table_path(path: StrPath) -> str:
    """The suffix of a table's path. Raises FitError where it is none, or parquet can't be written."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise FitError(
            f"{path}: a table is written as parquet or CSV. Give a path that ends in .parquet or .csv."
        )
    if suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401  whether it is there
        except ImportError:
            raise FitError(
                f"{path}: parquet needs pyarrow. Install it (pip install 'avistan[tables]'), or give a path that ends "
                "in .csv."
            ) from None
    return suffix


def write_draws(drawn: Outgoing, path: StrPath) -> int:
    """Write draws as R's posterior has them (`draws_df`): `.chain`, `.iteration`, `.draw` and a column for each number.

    Returns: the number of rows.

    Raises:
        FitError: the path is no table's, can't be written, or its disk has no room.
    """
    suffix = check_table_path(path)
    begin_stage(f"writing {path}")
    with whole_file(path) as file:
        needed = _BYTES_OF_A_NUMBER[suffix] * drawn.numbers * drawn.each * drawn.chains
        check_room(file.parent, needed, str(path))
        if suffix == ".csv":
            for number, table in enumerate(_draw_tables(drawn)):
                table.to_csv(file, index=False, mode="a" if number else "w", header=not number)
        else:
            import pyarrow as pa
            from pyarrow.parquet import ParquetWriter

            writer = None
            for table in _draw_tables(drawn):
                rows = pa.Table.from_pandas(table, preserve_index=False)
                writer = writer or ParquetWriter(file, rows.schema)
                writer.write_table(rows)
            if writer is not None:
                writer.close()
    return drawn.chains * drawn.each


def _draw_tables(drawn: Outgoing) -> Iterator[pd.DataFrame]:
    names = ["lp__", *r_names(drawn)]
    for part in drawn.parts:
        iteration = part.start + np.arange(len(part.lp)) + 1
        table = pd.DataFrame(np.column_stack([part.lp, flat(drawn, part)]), columns=names)
        where = {
            ".chain": part.chain + 1,
            ".iteration": iteration,
            ".draw": part.chain * drawn.each + iteration,
        }
        yield pd.concat([pd.DataFrame(where, index=table.index), table], axis=1)


def write_table(table: pd.DataFrame, path: StrPath) -> None:
    """Write a table as parquet or CSV. Raises FitError as `write_draws`."""
    suffix = check_table_path(path)
    begin_stage(f"writing {path}")
    with whole_file(path) as file:
        table.to_csv(file, index=False) if suffix == ".csv" else table.to_parquet(file, index=False)


def unit_table(
    fit: Fitted,
    draws: Draws,
    *,
    diagnosed: Mapping[str, npt.ArrayLike] | None = None,
    quantiles: Sequence[float] = QUANTILES,
) -> pd.DataFrame:
    """Every number of every unit in a row.

    Columns: `level`, `unit` (counted from 1, as in Stan), `variable`, `entry` (further indices, such as "2,1"), `mean`,
    `sd`, quantiles, `inputs_distance` (of a unit's inputs to those of its nearest other unit, where 1 is far among the
    fitted units), and what a diagnosis says of the unit.

    Args:
        diagnosed: numbers of single units, each (N,), by name.

    Raises:
        FitError: the fit has no units.
    """
    levels = [level for level in (fit.level, fit.second) if level is not None]
    if not levels:
        raise FitError("every parameter of this fit is global: it has no units to make a table of.")
    begin_stage("table of units")
    chosen = [name for name in draws.values if name in draws.of_units and name not in ASIDE]
    tables = []
    for done, name in enumerate(chosen):
        for level in levels:
            found = unit_of_entry(fit, level, name, draws.values[name].shape[2:])
            if found is not None:
                tables.append(_of_variable(level.name, name, found, draws.values[name], quantiles))
                break
        report_step(done + 1, len(chosen))
    table = pd.concat(tables, ignore_index=True)
    numbers: dict[str, FloatArray] = {}
    distance = isolation(fit)
    if distance is not None:
        numbers["inputs_distance"] = distance
    numbers |= {name: np.asarray(value, dtype=np.float64) for name, value in (diagnosed or {}).items()}
    first = np.asarray(table["level"] == levels[0].name)
    unit = np.asarray(table["unit"]) - 1
    for column, values in numbers.items():
        if values.shape == (levels[0].num_units,):
            table[column] = np.where(first, values[np.where(first, unit, 0)], np.nan)
    return table


def _of_variable(
    level: str, name: str, unit: npt.NDArray[np.int64], values: Any, quantiles: Sequence[float]
) -> pd.DataFrame:
    """Rows of a variable.

    Args:
        unit: the unit of each entry, -1 of none, in the variable's shape.
    """
    entries = entry_labels(unit)
    table = pd.DataFrame(
        {"level": level, "unit": unit.ravel() + 1, "variable": name, "entry": entries}
        | statistics(values, quantiles)
    )
    return table[np.asarray(table["unit"] > 0)]
