"""Where avistan keeps what it compiled, for this process and later ones."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path

FOLDER, SWITCH = "AVISTAN_CACHE_DIR", "AVISTAN_NO_CACHE"


def cache_folder() -> Path | None:
    """AVISTAN_CACHE_DIR, else avistan's place in the user's cache; None where AVISTAN_NO_CACHE=1 asks for none, or
    where the user has no such place.
    """
    if os.environ.get(SWITCH, "") not in ("", "0"):
        return None
    chosen = os.environ.get(FOLDER)
    if chosen:
        return Path(chosen).expanduser()
    home = os.path.expanduser("~")
    usual = os.path.join(home, "Library/Caches" if sys.platform == "darwin" else ".cache")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or usual)
    return caches / "avistan" if caches.is_absolute() else None


def library_folder() -> Path:
    """The folder of compiled programs: in the cache, or without one in a folder that ends with this process."""
    folder = cache_folder()
    return (Path(_of_this_process().name) if folder is None else folder.absolute()) / "bridgestan"


@functools.cache
def _of_this_process() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="avistan-")
