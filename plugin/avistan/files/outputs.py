"""Where results go: checked before long work, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO

from avistan.files.locks import take
from avistan.runtime.errors import FitError
from avistan.runtime.limits import check_path
from avistan.runtime.types import StrPath
from stan_adapters.files.memory import in_bytes


def check_file_place(path: StrPath) -> None:
    """That a file can be written at `path`; leaves nothing behind.

    Raises:
        FitError: it can't, with the reason.
    """
    check_path("output", path)
    place = Path(path)
    if place.is_dir():
        raise FitError(f"{path} is a folder: give the path of a file, such as {place / 'new.nc'}.")
    _check_writable(place)


def check_apart(output: StrPath, inputs: Iterable[StrPath]) -> None:
    """That writing `output`, a file or a folder, replaces nothing that is read.

    Raises:
        FitError: it would, with the file.
    """
    place = Path(output).resolve()
    for given in inputs:
        read = Path(given).resolve()
        if read == place:
            raise FitError(f"{output} is read and would be replaced: give another path for the output.")
        if place in read.parents:
            raise FitError(
                f"{given} lies in {output} and would be lost with what is there: give another folder for the output."
            )


def check_folder_place(path: StrPath, names: Collection[str], *, mark: str = "") -> None:
    """That a folder can be made at `path`, or an older one with nothing but `names` replaced; leaves nothing behind.

    What a killed process left, hidden, beside the place or in it is cleared away.

    Args:
        mark: a file that every such folder has: what is without it is somebody else's.

    Raises:
        FitError: it can't, with the reason.
    """
    check_path("output", path)
    place = Path(path).resolve()
    if place.exists() and not place.is_dir():
        raise FitError(f"{path} is a file: give the path of a folder.")
    if place == Path.cwd() or place == place.parent:
        raise FitError(
            f"can't replace the folder {place} while working in it: give the path of a folder inside it."
        )
    clear_leftovers(place)
    for name in names if place.is_dir() else ():
        clear_leftovers(place / name)
    others = (
        sorted(entry.name for entry in place.iterdir() if entry.name not in names) if place.is_dir() else []
    )
    if others:
        more = ", ..." if len(others) > 3 else ""
        raise FitError(
            f"{path} holds other files ({', '.join(others[:3])}{more}): give a new or empty folder."
        )
    if mark and place.is_dir() and any(place.iterdir()) and not (place / mark).exists():
        raise FitError(
            f"{path} holds files and no {mark}, so nothing of ours is to be replaced there: give a new or empty folder."
        )
    _check_writable(Path(path))


@contextlib.contextmanager
def whole_folder(path: StrPath, names: Collection[str]) -> Iterator[Path]:
    """A folder to fill, which appears at `path` only when the block ends well; `names` as in `check_folder_place`.

    Raises:
        FitError: `path` holds something else, or can't be written.
    """
    check_folder_place(path, names)
    place = Path(path).resolve()
    with _made_beside(place) as temporary:
        new = temporary / _NEW
        new.mkdir()
        yield new
        if place.exists():
            place.rename(temporary / _OLDER)
        new.rename(place)


@contextlib.contextmanager
def whole_file(path: StrPath) -> Iterator[Path]:
    """A path to write to, whose file appears at `path` only when the block ends well.

    Raises:
        FitError: `path` can't be written.
    """
    check_file_place(path)
    place = Path(path).resolve()
    with _made_beside(place) as temporary:
        new = temporary / place.name
        yield new
        new.replace(place)


def remove_folder(path: StrPath) -> None:
    """Delete a folder, if it is there, which is none from the first moment on."""
    place = Path(path).resolve()
    if place.is_dir():
        with _made_beside(place) as temporary:
            place.rename(temporary / "dropped")


def clear_leftovers(path: StrPath) -> None:
    """Delete what a process that was killed while it wrote `path` left beside it; what a running one writes stays."""
    place = Path(path).resolve()
    for leftover in _hidden_beside(place):
        lock = None
        with contextlib.suppress(OSError):
            if (leftover / _LOCK).exists():
                lock = take(leftover / _LOCK)
            else:
                leftover.rmdir()  # of a process that came no further; one that holds files without a lock is not ours
        if lock is not None:
            with lock:
                _settle(leftover, place)


def check_room(folder: Path, needed: int, name: str) -> None:
    """That a disk has room for so many bytes more.

    Raises:
        FitError: it has not, with both numbers.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FitError(
            f"{name} takes {in_bytes(needed)}, and its disk has {in_bytes(free)} free: make room, ask for fewer "
            "draws, or give a place on another disk."
        )


@contextlib.contextmanager
def new_folders(folder: Path) -> Iterator[None]:
    """A folder made for the block, and those above it; of those that were made, what is empty at the end is gone."""
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the first that holds something ends it
            for each in made:
                each.rmdir()


# ---- Hidden folders ----------------------------------------------------------------------------------------

_LOCK, _NEW, _OLDER = "lock", "new", "older"
_PROBE = "avistan-probe"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def _made_beside(place: Path) -> Iterator[Path]:
    """A hidden folder beside a place, for what is not whole yet. It is gone in the end, or after the next run."""
    clear_leftovers(place)
    try:
        with new_folders(place.parent):
            temporary, lock = _locked_folder(place)
            with lock:
                try:
                    yield temporary
                finally:
                    _settle(temporary, place)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise FitError(
            f"can't write {place}: {os.strerror(error.errno)}. Make room, or give another place."
        ) from error


def _locked_folder(place: Path) -> tuple[Path, IO[bytes]]:
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            temporary.chmod(0o755)
            lock = take(temporary / _LOCK)
        except FileNotFoundError:  # cleared by another process before it was locked
            continue
        except BaseException:
            temporary.rmdir()
            raise
        if lock is not None:
            return temporary, lock


def _settle(temporary: Path, place: Path) -> None:
    """Delete a hidden folder. If it ends between two renames, what is whole goes where it belongs."""
    if (temporary / _OLDER).exists() and not place.exists():
        (temporary / _NEW).rename(place)
    shutil.rmtree(temporary, ignore_errors=True)


def _hidden_beside(place: Path) -> list[Path]:
    hidden = re.compile(re.escape(f".{place.name}-") + r"[a-z0-9_]{8}")
    if not place.parent.is_dir():
        return []
    return [entry for entry in place.parent.iterdir() if hidden.fullmatch(entry.name) and entry.is_dir()]


def _check_writable(path: Path) -> None:
    above = path.resolve().parent
    while not above.exists() and above != above.parent:
        above = above.parent
    try:
        tempfile.mkdtemp(prefix=f".{_PROBE}-", dir=above)
    except OSError as error:
        raise FitError(f"can't write {path}: {above}: {error.strerror}.") from error
    clear_leftovers(above / _PROBE)
