"""CmdStan's CSV files of NUTS, ADVI, Pathfinder and Laplace, with or without the warm-up; rstan's `sample_file` too.

Densities in them: `lp__` of NUTS and `log_p__` of Laplace lack constants, `log_p__` of ADVI and `lp__` of Pathfinder
have them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from avistan.foreign.tables import columns_of, dotted, lengths_agree, to_tree
from avistan.runtime.errors import CompetitorError
from avistan.runtime.text import shortened
from avistan.runtime.types import FloatArray

SAMPLE, VARIATIONAL, PATHFINDER, LAPLACE, OPTIMIZE = (
    "sample",
    "variational",
    "pathfinder",
    "laplace",
    "optimize",
)
CALLED = {SAMPLE: "NUTS", VARIATIONAL: "ADVI", PATHFINDER: "Pathfinder", LAPLACE: "Laplace's approximation"}
APPROXIMATE = (VARIATIONAL, PATHFINDER, LAPLACE)
DENSITY = {SAMPLE: "lp__", VARIATIONAL: "log_p__", PATHFINDER: "lp__", LAPLACE: "log_p__"}
_TELLTALE = {  # columns that only one method has
    "accept_stat__": SAMPLE,
    "log_g__": VARIATIONAL,
    "lp_approx__": PATHFINDER,
    "log_q__": LAPLACE,
}
_METHOD = re.compile(r"^#\s*method\s*=\s*(\w+)", re.M)
_MODEL = re.compile(r"^#\s*model(?:_name)?\s*=\s*(\S+)", re.M)
_SECONDS = re.compile(r"([\d.eE+-]+) seconds \(Total\)")
_SAMPLING_BEGINS = b"# Adaptation terminated"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFile:
    """What the lines of a CmdStan CSV file say before its numbers are read.

    Attributes:
        method, model: as CmdStan calls them.
        columns: dotted names.
        warmup: rows of the warm-up, before the draws.
        rows: all rows.
        seconds: of the whole run; nan where that is not said.
    """

    path: Path
    method: str
    model: str
    columns: tuple[str, ...]
    warmup: int
    rows: int
    seconds: float

    @property
    def skipped(self) -> int:
        """Rows before the draws: the warm-up, and of ADVI the mean of the approximation."""
        return self.warmup + (self.method == VARIATIONAL)


def is_cmdstan_csv(path: Path) -> bool:
    """Whether a file begins like CmdStan's output."""
    with path.open("rb") as opened:
        begin = opened.read(4096)
    return (begin.startswith(b"#") and b"stan" in begin.lower()) or b"lp__" in begin.split(b"\n", 1)[0]


def scan(path: Path) -> CsvFile:
    """The comments, columns and length of a file.

    Raises:
        CompetitorError: it is no output of CmdStan, or of no sampler, with what it is instead.
    """
    comments: list[bytes] = []
    columns: tuple[str, ...] = ()
    rows = warmup = 0
    told = False
    with path.open("rb") as opened:
        for line in opened:
            if line.startswith(b"#"):
                comments.append(line)
                if line.startswith(_SAMPLING_BEGINS):
                    warmup, told = rows, True
            elif not line.strip():
                continue
            elif not columns:
                columns = tuple(dotted(name) for name in line.decode(errors="replace").strip().split(","))
            else:
                rows += 1
    if not any(name in columns for name in ("lp__", "log_p__", "lp_approx__")):
        there = f"its columns are {shortened(', '.join(columns), 80)}" if columns else "it has no columns"
        raise CompetitorError(
            f"{path} is no output of CmdStan: {there}, and none is the log density `lp__`. Give the CSV files that a "
            "sampler wrote."
        )
    text = b"".join(comments).decode(errors="replace")
    said = _METHOD.search(text)
    found = next((method for column, method in _TELLTALE.items() if column in columns), "")
    method = found or (said.group(1) if said else "")
    if method not in DENSITY:
        what = {
            OPTIMIZE: "the output of optimization: a single point, not draws of a posterior",
            "generate_quantities": "the output of generate_quantities, without the parameters",
        }.get(
            method,
            f"the output of CmdStan's method {method!r}" if method else "output of no method that is known",
        )
        raise CompetitorError(
            f"{path} is {what}. Give the CSV files of a sampler, or of variational, pathfinder or laplace."
        )
    if method == SAMPLE and not told:  # without adaptation, or ended before it did
        warmup = min(rows, _saved_warmup(text))
    model, seconds = _MODEL.search(text), _SECONDS.findall(text)
    return CsvFile(
        path=path,
        method=method,
        model=model.group(1) if model else "",
        columns=columns,
        warmup=warmup,
        rows=rows,
        seconds=float(seconds[-1]) if seconds else np.nan,
    )


def _saved_warmup(comments: str) -> int:
    """How many rows of warm-up the settings ask for."""
    setting = dict(re.findall(r"^#\s*(save_warmup|num_warmup|thin|algorithm)\s*=\s*(\w+)", comments, re.M))
    if setting.get("save_warmup") not in ("1", "true") or setting.get("algorithm") == "fixed_param":
        return 0
    return -(-int(setting.get("num_warmup", 0)) // max(1, int(setting.get("thin", 1))))


def read_csv_files(paths: Sequence[Path], wanted: Sequence[str], name: str) -> xr.DataTree:
    """The draws of one run: a chain for each file.

    Args:
        wanted: the program's parameters; other columns are not read.
        name: of the reference, for messages.

    Raises:
        CompetitorError: a file is none of CmdStan's, they are of different methods or programs, have no draws, or
            different numbers of them.
    """
    files = [scan(path) for path in paths]
    first = files[0]
    for kind in ("method", "model"):
        found = {getattr(file, kind): file.path.name for file in files}
        if len(found) > 1:
            told = ", ".join(f"{what or 'unknown'} ({example})" for what, example in found.items())
            raise CompetitorError(
                f"the reference {name} is of several {kind}s: {told}. Give the files of one, such as "
                f"{first.path.parent / (first.path.stem[:4] + '*.csv')}."
            )
    for file in files:
        if file.rows <= file.skipped:
            what = f"only the {file.warmup} rows of its warm-up" if file.warmup else "no draws"
            raise CompetitorError(f"{file.path} has {what}: the run ended early, or is still going on.")
    draws = lengths_agree({file.path.name: file.rows - file.skipped for file in files}, "chains")
    places = columns_of(first.columns, wanted, name)
    parameters = [first.columns[place] for of_variable in places.values() for place in of_variable]
    density, divergent = DENSITY[first.method], "divergent__"
    extra = [column for column in (density, divergent) if column in first.columns]
    numbers = np.stack([_numbers(file, [*parameters, *extra]) for file in files])
    statistics = dict(zip(extra, np.moveaxis(numbers[..., len(parameters) :], -1, 0), strict=True))
    stats = {"lp": statistics[density]} if density in statistics else {}
    if divergent in statistics:
        stats["diverging"] = statistics[divergent] != 0
    assert numbers.shape[1] == draws
    return to_tree(
        parameters,
        numbers[..., : len(parameters)],
        wanted,
        name,
        sample_stats=stats,
        attrs={
            "inference_library": "cmdstan",
            "method": name,
            "algorithm": first.method,
            "sampling_time": float(np.sum([file.seconds for file in files])),
        },
    )


def _numbers(file: CsvFile, names: Sequence[str]) -> FloatArray:
    """Draws (S, K) of some columns, in the order of their names."""
    where = {column: place for place, column in enumerate(file.columns)}
    missing = [name for name in names if name not in where]
    if missing:
        raise CompetitorError(f"{file.path} has no column {missing[0]}, which the other files have.")
    try:
        table = pd.read_csv(
            file.path,
            comment="#",
            header=0,
            names=range(len(file.columns)),
            usecols=sorted(where[name] for name in names),
            skipinitialspace=True,
            dtype=np.float64,
            na_values=["nan", "NaN"],
        )
    except (ValueError, pd.errors.ParserError) as error:
        raise CompetitorError(f"{file.path} is damaged: {shortened(str(error), 200)}") from error
    return np.asarray(table[[where[name] for name in names]], dtype=np.float64)[file.skipped :]
