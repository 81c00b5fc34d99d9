"""The files of a saved fit: JSON header, arrays without pickle, the program and its data. Written all or none.

The header holds a digest of every file and of itself: what was changed since is named. Nothing in a folder chooses a
path, a module or a command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avistan.files.digests import bytes_of, digest_of, text_digest
from avistan.files.outputs import whole_file, whole_folder
from avistan.files.records import RecordError, read_record
from avistan.runtime.errors import FitError
from avistan.runtime.limits import check_path
from avistan.runtime.progress import begin_stage
from avistan.runtime.versions import versions
from avistan.saved.arrays import Array, ArrayError, read_arrays, write_arrays
from avistan.saved.header import SavedFile, SavedHeader
from avistan.saved.sizes import SizeError
from stan_adapters.data.declared_memory import declared_numbers
from stan_adapters.data.stan_data import StanData, read_data
from stan_adapters.errors import AvistanError
from stan_adapters.language.program import Program

FORMAT = 8
_HEADER, _ARRAYS = "fit.json", "arrays.npz"
_PROGRAM, _DATA = "program.stan", "data.json"
_CORE = (_PROGRAM, _DATA, _ARRAYS)
_MOST_BYTES_OF_HEADER = 1 << 28
_MOST_BYTES_OF_EXTRAS = 1 << 28  # of what others added, whose digests a load looks at; of more at their bytes

DIAGNOSIS, UNITS = "diagnosis.json", "diagnosis.npz"
FIT_FILES = (
    _HEADER,
    _ARRAYS,
    _PROGRAM,
    _DATA,
    DIAGNOSIS,
    UNITS,
    "posterior.nc",
    "posterior.zarr",
)  # the command line's last


class ChangedFileWarning(UserWarning):
    """A file that lies with a fit and is not part of it, such as its draws, is not what was written."""


class DamageError(Exception):
    """What is wrong with a file of a saved fit: its name and a reason."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedParts:
    """What a folder holds, and how many bytes its arrays take."""

    header: SavedHeader
    arrays: dict[str, Array]
    program: Program
    data: StanData
    bytes_of_arrays: int


def write_fit(
    path: str | os.PathLike[str],
    *,
    header: Mapping[str, Any],
    arrays: Mapping[str, Array],
    program: Program,
    data: StanData,
    asked: Mapping[str, Any] | None = None,
) -> None:
    """Write a fit's parts to a folder.

    Args:
        header: the fields of `SavedHeader` but for format, program, versions, parameters, files and asked.
        asked: plain JSON that says how the fit was asked for; it decides nothing when the fit is loaded.
    """
    begin_stage("writing the fit")
    with whole_folder(path, FIT_FILES) as folder:
        (folder / _PROGRAM).write_text(program.source, encoding="utf-8", newline="")
        (folder / _DATA).write_text(data.to_json(), encoding="utf-8")
        write_arrays(folder / _ARRAYS, arrays)
        fixed = {
            "format": FORMAT,
            "program": program.name,
            "program_digest": program.digest,
            "versions": versions(),
            "parameters": _num_parameters(program, data),
            "asked": dict(asked or {}),
            "files": {name: dataclasses.asdict(_saved(folder / name)) for name in _CORE},
        }
        _write_header(folder / _HEADER, {**fixed, **header})


def record_file(folder: str | os.PathLike[str], name: str) -> None:
    """Say in `fit.json` what a file or folder is that was added to a saved fit, such as "posterior.nc".

    Raises:
        FitError: there is no saved fit, `fit.json` was changed, or the file is none that lies with a fit.
    """
    place = Path(folder)
    _refuse_other_files(place, name)
    if not (place / name).exists():
        raise FitError(f"there is no {place / name} to record.")
    _change_files(place, lambda files: files | {name: dataclasses.asdict(_saved(place / name))})


def forget_file(folder: str | os.PathLike[str], name: str) -> None:
    """Drop from `fit.json` what it says of an added file, before that is replaced; nothing if it says nothing.

    Raises:
        FitError: as `record_file`.
    """
    _refuse_other_files(Path(folder), name)
    _change_files(Path(folder), lambda files: {known: of for known, of in files.items() if known != name})


def is_as_recorded(folder: str | os.PathLike[str], name: str) -> bool:
    """Whether an added file is there and what `record_file` recorded. Raises FitError as that."""
    place = Path(folder)
    _refuse_other_files(place, name)
    with _one_error(place):
        known = _read_header(place)["files"].get(name)
        return (place / name).exists() and known == dataclasses.asdict(_saved(place / name))


def read_asked(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What `Fit.save(.., asked=)` was given; empty if nothing. Raises FitError."""
    with _one_error(Path(folder)):
        asked = _read_header(Path(folder)).get("asked")
        if not isinstance(asked, dict):
            raise DamageError(_HEADER, "`asked` is no object")
    return asked


def _refuse_other_files(place: Path, name: str) -> None:
    if name not in FIT_FILES or name in (_HEADER, *_CORE):
        raise FitError(f"{place / name} is no file that lies with a saved fit.")


def _change_files(place: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with _one_error(place):
        header = _read_header(place)
        files = change(header["files"])
    if files != header["files"]:
        with whole_file(place / _HEADER) as file:
            _write_header(file, header | {"files": files})


@contextlib.contextmanager
def open_fit(path: str | os.PathLike[str]) -> Iterator[SavedParts]:
    """The parts of a saved fit. What goes wrong within the block is reported as a damaged folder.

    Raises:
        FitError: no saved fit, another format, a changed file, or damage; names the file.

    Warns:
        ChangedFileWarning: a file that was added later, such as the draws, was changed.
    """
    check_path("path", path)
    folder = Path(path)
    with _one_error(folder):
        raw = _read_header(folder)
        with damage(_HEADER):
            header = read_record(SavedHeader, raw, "it")
        _check_files(folder, header.files)
        program = _read_program(folder, header)
        with damage(_ARRAYS):
            arrays = read_arrays(folder / _ARRAYS)
        yield SavedParts(
            header=header,
            arrays=arrays,
            program=program,
            data=_read_data(folder, program, header),
            bytes_of_arrays=header.files[_ARRAYS].bytes,
        )


@contextlib.contextmanager
def _one_error(folder: Path) -> Iterator[None]:
    """Whatever a damaged folder leads to is a `FitError`; what avistan says of a sound one passes."""
    try:
        yield
    except AvistanError:
        raise
    except (DamageError, SizeError) as error:
        raise FitError(f"{folder} is damaged: {error}. Restore the folder, or fit and save again.") from error
    except Exception as error:  # the net under all readers, whose inputs may hold anything
        raise FitError(
            f"{folder} is damaged: {type(error).__name__}: {error}. Restore the folder, or fit and save again."
        ) from error


# --- fit.json -----------------------------------------------------------------------------------------------


def _write_header(file: Path, header: Mapping[str, Any]) -> None:
    """The digest first, which is that of the text after it."""
    text = json.dumps({name: value for name, value in header.items() if name != "digest"}, indent=2)[1:]
    file.write_text(f'{{\n  "digest": "{text_digest(text)}",{text}', encoding="utf-8")


def _read_header(folder: Path) -> dict[str, Any]:
    """All of `fit.json` but its digest, which it has."""
    file = folder / _HEADER
    if not file.is_file():
        raise FitError(f"{folder} is not a saved fit: it has no {_HEADER}. Save one with fit.save(path).")
    if file.stat().st_size > _MOST_BYTES_OF_HEADER:
        raise DamageError(_HEADER, f"it has {file.stat().st_size} bytes")
    try:
        text = file.read_bytes().decode()
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamageError(_HEADER, f"it is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise DamageError(_HEADER, "it is no JSON object")
    if "format" not in header:
        raise DamageError(_HEADER, "it has no `format`")
    if header["format"] != FORMAT:
        raise FitError(
            f"{folder} has format {str(header['format'])[:20]}, this version of avistan reads {FORMAT}: fit and save "
            "again."
        )
    start, _, rest = text.partition(",")
    if start != f'{{\n  "digest": "{text_digest(rest)}"' or header.pop("digest", None) is None:
        raise DamageError(_HEADER, "it was changed after it was saved")
    return header


# --- files --------------------------------------------------------------------------------------------------


def _saved(path: Path) -> SavedFile:
    return SavedFile(bytes=bytes_of(path), sha256=digest_of(path))


def _check_files(folder: Path, files: Mapping[str, SavedFile]) -> None:
    for name in _CORE:
        path = folder / name
        if name not in files:
            raise DamageError(_HEADER, f"it knows nothing of {name}")
        if not path.exists():
            raise DamageError(name, "it is missing")
        if not path.is_file():
            raise DamageError(name, "it is no file")
        if path.stat().st_size != files[name].bytes or digest_of(path) != files[name].sha256:
            raise DamageError(name, "it was changed after it was saved")
    for name, saved in files.items():
        if name in _CORE:
            continue
        if name not in FIT_FILES:
            raise DamageError(_HEADER, f"it knows of a file {name[:40]!r}, which is none of a fit's")
        path = folder / name
        if path.is_file() or path.is_dir():  # who deletes the draws knows it
            same = bytes_of(path) == saved.bytes
            if same and saved.bytes <= _MOST_BYTES_OF_EXTRAS:
                same = digest_of(path) == saved.sha256
            if not same:
                warnings.warn(
                    f"{path} was changed after it was saved with this fit. The fit itself is as it was: write the "
                    "file anew from it.",
                    ChangedFileWarning,
                    stacklevel=6,
                )


def _read_program(folder: Path, header: SavedHeader) -> Program:
    source = (folder / _PROGRAM).read_bytes().decode()
    with damage(_PROGRAM):
        program = Program.from_source(source, name=header.program)
    if program.digest != header.program_digest:
        raise DamageError(_PROGRAM, "it is not the program of this fit: its text was changed")
    return program


def _read_data(folder: Path, program: Program, header: SavedHeader) -> StanData:
    file = folder / _DATA
    with file.open("rb") as opened:
        if opened.read(1) != b"{":
            raise DamageError(_DATA, "it is no JSON object")
    with damage(_DATA):
        data = read_data(program, file)
    found = _num_parameters(program, data)
    if found != header.parameters:
        raise DamageError(
            _DATA, f"its sizes give the parameters {found} numbers, and this fit has {header.parameters}"
        )
    return data


def _num_parameters(program: Program, data: StanData) -> int:
    """How many numbers the parameters have, constrained."""
    return sum(declared_numbers(declaration, data) for declaration in program.parameters)


@contextlib.contextmanager
def damage(file: str) -> Iterator[None]:
    """What is wrong with the content of a file is a `DamageError` of it."""
    try:
        yield
    except (AvistanError, ArrayError, RecordError) as error:
        raise DamageError(file, str(error)) from error
