"""One save of a checkpoint as files: arrays, as orbax writes them, and a header with a digest of every file.

Saves lie in a subfolder for each training run, named by the steps done, and appear when they are whole.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avistan.files.digests import folder_digests, record_digest
from avistan.files.records import RecordError, read_record
from avistan.runtime.errors import AvistanError
from avistan.training.fingerprint import Arrays, differences

FORMAT = 3
CHAIN, STEPS = re.compile(r"chain-\d+"), re.compile(r"\d+")
_HEADER, _ARRAYS = "header.json", "arrays"
_AROUND = 1 << 17  # bytes on disk beside the arrays themselves


class CheckpointError(AvistanError):
    """A checkpoint is damaged, in use, of another fit, or in the way."""


@dataclass(frozen=True, slots=True)
class Save:
    """A complete save: where it is, of which chain, after how many steps."""

    path: Path
    chain: int
    steps: int


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def saves_in(folder: Path) -> list[Save]:
    """All complete saves, by chain and steps."""
    found = [
        Save(entry, int(chain.name.partition("-")[2]), int(entry.name))
        for chain in entries(folder)
        if CHAIN.fullmatch(chain.name) and chain.is_dir()
        for entry in chain.iterdir()
        if STEPS.fullmatch(entry.name)
    ]
    return sorted(found, key=lambda save: (save.chain, save.steps))


def drop(save: Save) -> None:
    """Delete a save, which is none from the first moment on: a kill leaves no half of it."""
    dropped = save.path.with_name(f"{save.path.name}.dropped")
    save.path.rename(dropped)
    shutil.rmtree(dropped, ignore_errors=True)


def newest_of(saves: list[Save]) -> list[Save]:
    """The last save of each chain."""
    return list({save.chain: save for save in saves}.values())


@dataclass(frozen=True, slots=True)
class _Header:
    """What `header.json` says besides its digest; `arrays` have a type and a shape each."""

    format: int
    fit: Mapping[str, Any]
    training: Mapping[str, Any]
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]
    files: Mapping[str, str]


def write_save(path: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a save next to its place and put it there when it is whole."""
    import orbax.checkpoint as orbax  # here, because most fits end before their first save

    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        needed = _AROUND + sum(values.nbytes for values in arrays.values())
        if shutil.disk_usage(partial).free < needed:  # on a full disk orbax leaves threads behind that fail
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        filled = {name: values for name, values in arrays.items() if values.size}  # orbax takes no empty ones
        with orbax.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(partial / _ARRAYS, args=orbax.args.PyTreeSave(filled))
        header = {
            "format": FORMAT,
            **about,
            "arrays": {name: [values.dtype.str, list(values.shape)] for name, values in arrays.items()},
            "files": folder_digests(partial / _ARRAYS),
        }
        (partial / _HEADER).write_text(json.dumps({"digest": record_digest(header), **header}, indent=1))
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_header(save: Save) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads((save.path / _HEADER).read_text())
        known = header.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise _damaged(save, f"{_HEADER}: {type(error).__name__}: {error}") from error
    if known != record_digest(header):
        raise _damaged(save, f"{_HEADER} changed since the save")
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{save.path} has format {header.get('format')}, this version of avistan reads {FORMAT}. {_ways_out(save)}"
        )
    try:
        read_record(_Header, header, _HEADER)
    except RecordError as error:
        raise _damaged(save, str(error)) from error
    return header


def read_arrays(save: Save, header: Mapping[str, Any]) -> Arrays:
    """The arrays of a save whose files are what was written: a reader of damaged files may fail in any way."""
    import orbax.checkpoint as orbax

    if any(path.is_symlink() for path in save.path.rglob("*")):
        raise _damaged(save, "it holds links to files elsewhere")
    differing = differences(header["files"], folder_digests(save.path / _ARRAYS))
    if differing:
        raise _damaged(
            save, f"{_ARRAYS}: {len(differing)} of {len(header['files'])} files changed since the save"
        )
    try:
        kinds = {name: (np.dtype(kind), tuple(shape)) for name, (kind, shape) in header["arrays"].items()}
        wanted = {
            name: orbax.RestoreArgs(restore_type=np.ndarray)
            for name, (_, shape) in kinds.items()
            if 0 not in shape
        }
        with orbax.PyTreeCheckpointer() as checkpointer:
            restored = checkpointer.restore(
                save.path / _ARRAYS, args=orbax.args.PyTreeRestore(restore_args=wanted)
            )
        return {
            name: np.asarray(restored[name], kind) if name in wanted else np.empty(shape, kind)
            for name, (kind, shape) in kinds.items()
        }
    except Exception as error:
        raise _damaged(save, f"{_ARRAYS}: {type(error).__name__}: {error}") from error


def _damaged(save: Save, reason: str) -> CheckpointError:
    return CheckpointError(f"{save.path} is damaged: {reason}. {_ways_out(save)}")


def _ways_out(save: Save) -> str:
    folder = save.path.parents[1]
    of_chain = [other.steps for other in saves_in(folder) if other.chain == save.chain]
    if of_chain[0] < save.steps:
        return f"Delete it to continue from the save at {of_chain[-2]} steps, or {folder} to start over."
    return f"Delete {folder} to start over."
