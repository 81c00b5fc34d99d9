"""Arrays of a saved fit: read without pickle, and nothing is allocated that the file does not hold."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_KINDS = "biuf"  # booleans, integers and floating-point numbers
_MOST_BYTES_OF_HEADER = 4096


class ArrayError(Exception):
    """A file does not hold the arrays that it should; says which."""


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Arrays by name, uncompressed (`.npz`)."""
    np.savez(path, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, Array]:
    """What `write_arrays` wrote. The arrays can't be written to.

    Raises:
        ArrayError: the file is no such archive, or is cut, or holds something else than plain arrays.
    """
    arrays: dict[str, Array] = {}
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name, kind = member.filename[:-4], member.filename[-4:]
                stored = member.compress_type == zipfile.ZIP_STORED and member.file_size <= size
                if kind != ".npy" or not stored or name in arrays:
                    raise ArrayError(f"{member.filename!r} is not what was saved")
                arrays[name] = _one(archive.read(member), name)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArrayError(f"{error or type(error).__name__}") from error
    return arrays


def _one(content: bytes, name: str) -> Array:
    file = io.BytesIO(content)
    shape, dtype, order = _header(file, name)
    start = file.tell()
    if len(content) - start != math.prod(shape) * dtype.itemsize:
        raise ArrayError(f"{name!r} has {len(content) - start} bytes, and its shape {shape} needs others")
    return np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape, order=order)


def _header(file: io.BytesIO, name: str) -> tuple[tuple[int, ...], np.dtype[Any], Literal["C", "F"]]:
    """Shape, type and order of the array that comes next."""
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ArrayError(f"{name} is of an unknown version {version}")
        shape, fortran, dtype = read(file, max_header_size=_MOST_BYTES_OF_HEADER)
    except ArrayError:
        raise
    except Exception as error:  # what parsing bytes that are no header may raise
        raise ArrayError(f"{name} has no readable header: {error or type(error).__name__}") from error
    sizes = all(isinstance(size, int) and size >= 0 for size in shape)
    if not sizes or dtype.kind not in _KINDS or not dtype.isnative:
        raise ArrayError(f"{name} is no plain array: shape {shape}, type {dtype}")
    return shape, dtype, "F" if fortran else "C"
