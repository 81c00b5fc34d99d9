"""What a reference can be, and how its draws are read."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from avistan.foreign.arviz_files import is_zarr, read_groups
from avistan.foreign.cmdstan_csv import is_cmdstan_csv, read_csv_files
from avistan.foreign.cmdstanpy_fits import is_cmdstanpy, tree_of_fit
from avistan.foreign.posteriordb import read_json, tree_of_chains
from avistan.runtime.errors import CompetitorError
from avistan.runtime.text import several

FORMATS = "CmdStan's CSV (a file, several, folder, pattern), netCDF or zarr of ArviZ, posteriordb's draws (.json.zip)"
_IN_R = "In R, write CSV files (`fit$save_output_files(dir)`, or rstan's `sample_file`)"
_PICKLE = (
    "a pickle, which runs code when it is read. Write netCDF (`to_netcdf`) or CSV files (`save_csvfiles`)"
)
_WAYS_OUT = {
    ".rds": f"an R object. {_IN_R}",
    ".rdata": f"an R workspace. {_IN_R}",
    ".rda": f"an R workspace. {_IN_R}",
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".stan": "a Stan program, not draws",
    ".parquet": "a table in parquet. Write netCDF or CSV files",
}


def is_object(source: object) -> bool:
    """Whether it is something with draws in memory."""
    return (
        isinstance(source, xr.DataTree | xr.Dataset)
        or is_cmdstanpy(source)
        or (isinstance(source, list) and bool(source) and all(isinstance(chain, dict) for chain in source))
    )


def is_there(source: object) -> bool:
    """Whether a path, a pattern, or each of several, names a file or folder."""
    if isinstance(source, list | tuple):
        return bool(source) and all(isinstance(part, str | os.PathLike) and is_there(part) for part in source)
    if not isinstance(source, str | os.PathLike):
        return False
    return os.path.exists(source) or bool(glob.glob(os.fspath(source)))


def read_draws(source: Any, wanted: Sequence[str]) -> tuple[xr.DataTree, str]:
    """Draws as a DataTree with a group `posterior`, and what to call them.

    Args:
        source: an object with draws, a path, a pattern, or several paths.
        wanted: the program's parameters, with entries.

    Raises:
        CompetitorError: it can't be read or is something else, with what it is.
    """
    if isinstance(source, xr.DataTree):
        return source, str(source.attrs.get("method") or "draws")
    if isinstance(source, xr.Dataset):
        return xr.DataTree.from_dict({"posterior": source}), "draws"
    if is_cmdstanpy(source):
        return tree_of_fit(source, wanted, type(source).__name__), type(source).__name__
    if is_object(source):
        return tree_of_chains(source, wanted, "draws"), "draws"
    paths = _paths(source)
    first = paths[0]
    name = first.name if len(paths) == 1 else f"{first.name} and {several(len(paths) - 1, 'other file')}"
    if len(paths) == 1:
        if first.is_dir() and is_zarr(first):
            return read_groups(first), name
        if first.is_dir():
            inside = sorted(
                file for file in first.iterdir() if file.suffix == ".csv" and is_cmdstan_csv(file)
            )
            if not inside:
                raise CompetitorError(f"the folder {first} is no zarr group and has no CSV files of CmdStan.")
            return read_csv_files(inside, wanted, name), name
        if first.suffix.lower() in (".json", ".zip", ".gz"):
            return read_json(first, wanted, name), name
    _refuse_others(paths)
    if all(file.suffix.lower() in (".csv", ".txt") or is_cmdstan_csv(file) for file in paths):
        return read_csv_files(paths, wanted, name), name
    if len(paths) > 1:
        raise CompetitorError(
            f"the reference is {len(paths)} files ({name}): only CSV files of CmdStan can be several."
        )
    return read_groups(first), name


def _paths(source: Any) -> list[Path]:
    """The files or folders that a path, a pattern, or several of them name."""
    given = source if isinstance(source, list | tuple) else [source]
    found: list[Path] = []
    for each in given:
        text = os.fspath(each)
        if os.path.exists(text):
            found.append(Path(text))
        elif matching := sorted(glob.glob(text)):
            found += map(Path, matching)
        else:
            what = "no file matches the reference" if glob.has_magic(text) else "there is no reference file"
            raise CompetitorError(f"{what} {text}.")
    return found


def _refuse_others(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.suffix.lower() in _WAYS_OUT:
            raise CompetitorError(f"the reference {path} is {_WAYS_OUT[path.suffix.lower()]}.")
        if path.is_dir():
            raise CompetitorError(
                f"the reference {path} is a folder among files: give the files in it, or it alone."
            )
        if path.stat().st_size == 0:
            raise CompetitorError(f"the reference {path} is empty.")
