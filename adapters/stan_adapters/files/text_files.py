"""The text of a file that somebody else wrote, packed or not: what can be wrong with it is one exception."""

from __future__ import annotations

import gzip
import io
import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

from stan_adapters.errors import DataError
from stan_adapters.files.memory import available_memory, in_bytes
from stan_adapters.files.names import nearest

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_COPIES = 2  # of a text that is being read: its bytes and its characters
_AT_ONCE = 1 << 20


class UnreadableFile(Exception):
    """Why a file can't be read and what to do, as a sentence."""


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark, gzipped, the only file in a zip, or neither.

    Its lines end in one way.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFile: a folder or a device, a damaged or truncated archive, one with several files, bytes that are no
            UTF-8, more than the memory holds, or what the system says.
    """
    try:
        content = _content(file)
    except FileNotFoundError:
        raise
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UnreadableFile(
            f"its gzip content is damaged or incomplete ({error}). Copy or compress it again."
        ) from error
    except OSError as error:
        raise UnreadableFile(f"{error.strerror or error}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        seen = "it looks like UTF-16" if content[:2] in _UTF16 else f"byte {error.start + 1} is no UTF-8"
        raise UnreadableFile(misnamed(file) or f"{seen}. Save it as UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def misnamed(file: Path) -> str:
    """What to do about a file that is called a packed one and is none; empty for any other."""
    kinds = {".gz": ("gzip", _GZIP), ".zip": ("zip", _ZIP)}
    kind, magic = kinds.get(file.suffix.lower(), ("", b""))
    with file.open("rb") as opened:
        if not kind or opened.read(len(magic)) == magic:
            return ""
    return f"it is called {file.suffix}, and is no {kind} file. Pack it again, or take {file.suffix} off its name."


def data_text(file: Path) -> str:
    """The text of a file of data. Raises DataError, also where it is a Stan program."""
    if file.suffix == ".stan":
        raise DataError(
            f"{file} is a Stan program, and data were expected: give one program, and then its data."
        )
    try:
        return read_text(file)
    except FileNotFoundError:
        names = [path.name for path in file.parent.iterdir()] if file.parent.is_dir() else []
        near = nearest(file.name, names)
        raise DataError(
            f"there is no data file {file}." + (f" Did you mean {file.parent / near}?" if near else "")
        ) from None
    except UnreadableFile as error:
        raise DataError(f"can't read the data file {file}: {error}") from error


def _content(file: Path) -> bytes:
    try:
        mode = file.stat().st_mode
    except ValueError as error:  # a null character in the path
        raise UnreadableFile(f"{error}.") from error
    if stat.S_ISDIR(mode):
        raise UnreadableFile("it is a folder. Give the path of a file in it.")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise UnreadableFile("it is a device. Give the path of a file.")
    with file.open("rb") as opened:
        content = _all_of(opened)
    if content[:4] == _ZIP:
        return _unzipped(content)
    if content[:2] != _GZIP:
        return content
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
        return _all_of(unpacked)


def _unzipped(content: bytes) -> bytes:
    """The only file in a zip archive, leaving aside what macOS adds."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [
                info.filename
                for info in archive.infolist()
                if not info.is_dir() and not info.filename.startswith("__MACOSX/")
            ]
            if len(names) != 1:
                raise UnreadableFile(
                    f"the zip archive holds {len(names)} files ({', '.join(names[:3])}), expected one. Unpack it."
                )
            with archive.open(names[0]) as unpacked:
                return _all_of(unpacked)
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:  # an encrypted one is a RuntimeError
        raise UnreadableFile(
            f"its zip archive can't be unpacked ({error}). Unpack it, or pack it again."
        ) from error


def _all_of(opened: BinaryIO | gzip.GzipFile | IO[bytes]) -> bytes:
    """What is left of a file, as long as the memory holds it: a gzip file of a megabyte can hold a thousand."""
    most = available_memory() // _COPIES
    parts, length = [], 0
    while part := opened.read(_AT_ONCE):
        parts.append(part)
        length += len(part)
        if length > most:
            raise UnreadableFile(
                f"its text is longer than {in_bytes(most)}, half of the memory that is left. Give tables "
                "(*.parquet), or use a machine with more memory."
            )
    return b"".join(parts)
