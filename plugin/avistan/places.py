"""Where results go: checked before long work, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from .errors import FitError

StrPath = str | os.PathLike[str]


def check_file_place(path: StrPath) -> None:
    """That a file can be written at `path`; leaves nothing behind.

    Raises:
        FitError: it can't, with the reason.
    """
    place = Path(path)
    if place.is_dir():
        raise FitError(f"{path} is a folder: give the path of a file, such as {place / 'new.nc'}.")
    _check_writable(place)


def check_folder_place(path: StrPath, names: Collection[str]) -> None:
    """That a folder can be made at `path`, or an older one with nothing but `names` replaced; leaves nothing behind.

    Raises:
        FitError: it can't, with the reason.
    """
    place = Path(path).resolve()
    if place.exists() and not place.is_dir():
        raise FitError(f"{path} is a file: give the path of a folder.")
    if place == Path.cwd() or place == place.parent:
        raise FitError(
            f"can't replace the folder {place} while working in it: give the path of a folder inside it."
        )
    others = (
        sorted(entry.name for entry in place.iterdir() if entry.name not in names) if place.is_dir() else []
    )
    if others:
        more = ", ..." if len(others) > 3 else ""
        raise FitError(
            f"{path} holds other files ({', '.join(others[:3])}{more}): give a new or empty folder."
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
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        if place.exists():
            older = temporary.with_name(temporary.name + "-older")
            place.rename(older)
            temporary.rename(place)
            shutil.rmtree(older)
        else:
            temporary.rename(place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def whole_file(path: StrPath) -> Iterator[Path]:
    """A path to write to, whose file appears at `path` only when the block ends well.

    Raises:
        FitError: `path` can't be written.
    """
    check_file_place(path)
    place = Path(path).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as folder:
        temporary = Path(folder) / place.name
        yield temporary
        temporary.replace(place)


def _check_writable(path: Path) -> None:
    above = path.resolve().parent
    while not above.exists() and above != above.parent:
        above = above.parent
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".avistan-", dir=above))
    except OSError as error:
        raise FitError(f"can't write {path}: {above}: {error.strerror}.") from error
