"""The text of a file that somebody else wrote, gzipped or not: what can be wrong with it is one exception."""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from pathlib import Path
from typing import BinaryIO

from stan_adapters.files.memory import available_memory, in_bytes

_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_COPIES = 2  # of a text that is being read: its bytes and its characters
_AT_ONCE = 1 << 20


class UnreadableFile(Exception):
    """Why a file can't be read and what to do, as a sentence."""


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark, gzipped or not. Its lines end in one way.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFile: a folder or a device, damaged or truncated gzip, bytes that are no UTF-8, more than the memory
            holds, or what the system says.
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
        raise UnreadableFile(f"{seen}. Save it as UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


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
    if content[:2] != _GZIP:
        return content
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
        return _all_of(unpacked)


def _all_of(opened: BinaryIO | gzip.GzipFile) -> bytes:
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
