"""The files of a saved fit: JSON header, arrays without pickle, the program and its data. Written all or none."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt

from stan_adapters.data import StanData, read_data
from stan_adapters.program import Program

from .errors import FitError
from .places import whole_folder
from .progress import begin_stage

FORMAT = 4
_HEADER, _LEAVES, _ARRAYS = "fit.json", "family.eqx", "arrays.npz"
_PROGRAM, _DATA = "program.stan", "data.json"

FIT_FILES = (
    _HEADER,
    _LEAVES,
    _ARRAYS,
    _PROGRAM,
    _DATA,
    "diagnosis.json",
    "posterior.nc",
    "posterior.zarr",
)  # the command line's last


def versions() -> dict[str, str]:
    """Versions of what computes a result."""
    return {
        name: importlib.metadata.version(name)
        for name in ("avistan", "jax", "equinox", "stanli", "bridgestan")
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedFit:
    """What a folder holds. `read_leaves(like)` fills a tree of arrays of the right shapes."""

    header: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]
    program: Program
    data: StanData
    read_leaves: Callable[[Any], Any]


def write_fit(
    path: str | os.PathLike[str],
    *,
    header: dict[str, Any],
    arrays: dict[str, npt.NDArray[Any]],
    leaves: Any,
    program: Program,
    data: StanData,
) -> None:
    """Write a fit's parts to a folder, with the format, the program's digest and the versions in its header."""
    begin_stage("writing the fit")
    with whole_folder(path, FIT_FILES) as folder:
        (folder / _PROGRAM).write_text(program.source)
        (folder / _DATA).write_text(data.to_json())
        np.savez(folder / _ARRAYS, **arrays)  # type: ignore[arg-type]
        eqx.tree_serialise_leaves(folder / _LEAVES, leaves)
        fixed = {
            "format": FORMAT,
            "program": program.name,
            "program_digest": program.digest,
            "versions": versions(),
        }
        (folder / _HEADER).write_text(json.dumps(fixed | header, indent=2))


@contextlib.contextmanager
def open_fit(path: str | os.PathLike[str]) -> Iterator[SavedFit]:
    """The parts of a saved fit. What goes wrong within the block is reported as a damaged folder.

    Raises:
        FitError: no saved fit, a changed program, another format, or damage.
    """
    folder = Path(path)
    if not (folder / _HEADER).is_file():
        raise FitError(f"{folder} is not a saved fit: it has no {_HEADER}. Save one with fit.save(path).")
    try:
        header = json.loads((folder / _HEADER).read_text())
        if header["format"] != FORMAT:
            raise FitError(f"{folder} has format {header['format']}, this version of avistan reads {FORMAT}.")
        with np.load(folder / _ARRAYS, allow_pickle=False) as file:
            arrays = dict(file)
        program = Program.from_code((folder / _PROGRAM).read_text(), name=header["program"])
        if program.digest != header["program_digest"]:
            raise FitError(f"{folder / _PROGRAM} is not the program of this fit: its text was changed.")
        yield SavedFit(
            header=header,
            arrays=arrays,
            program=program,
            data=read_data(program, folder / _DATA),
            read_leaves=lambda like: eqx.tree_deserialise_leaves(folder / _LEAVES, like),
        )
    except (OSError, KeyError, ValueError, TypeError, EOFError, RuntimeError) as error:
        raise FitError(
            f"{folder} is damaged: {type(error).__name__}: {error}. Fit and save again."
        ) from error
