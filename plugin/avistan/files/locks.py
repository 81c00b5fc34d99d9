"""Locks on files that die with the process that holds them, however it ends."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO

_SHARED: ContextVar[frozenset[Path]] = ContextVar("shared", default=frozenset())


def take(path: Path) -> IO[bytes] | None:
    """The lock file at `path`, locked until it is closed or this process ends; None while somebody else holds it.

    Whoever lets go of the lock may delete the file first: what is locked is always the file that lies there.
    """
    while True:
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                _sign(file)
                return file
        file.close()


def holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        told = path.read_text()
    except (OSError, UnicodeDecodeError):
        told = ""
    return told or "another process"


@contextlib.contextmanager
def held(path: Path, *, share: bool = False) -> Iterator[bool]:
    """Hold the lock at `path` during the block; says whether that worked.

    The lock file's folder must be there; the file is deleted in the end.

    Args:
        share: with whoever asks for it in the block, in this thread.
    """
    place = path.resolve()
    if place in _SHARED.get():
        yield True
        return
    file = take(place)
    if file is None:
        yield False
        return
    shared = _SHARED.get()
    if share:
        _SHARED.set(shared | {place})
    try:
        yield True
    finally:
        _SHARED.set(shared)
        place.unlink(missing_ok=True)
        file.close()


def _sign(file: IO[bytes]) -> None:
    """Write who holds the lock into it; on a full disk the lock is held all the same."""
    since = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.pwrite(
            file.fileno(), f"process {os.getpid()} on {socket.gethostname()}, since {since}".encode(), 0
        )
