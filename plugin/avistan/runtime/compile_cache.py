"""Compiled programs, kept between processes in the user's cache folder: where one process compiled, the next loads.

It is JAX's persistent cache, switched on while avistan works and off again, and only where the user has not set one up:
one that is configured serves avistan too. AVISTAN_CACHE_DIR chooses another folder, AVISTAN_NO_CACHE=1 does without.
JAX's key is the program with its compiler's version and options; a subfolder adds what the key leaves out, versions
and the machine, because programs for one processor may crash on another. Anything amiss with the folder is a warning.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import stat
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from avistan.runtime.machine import num_processors, processor, processor_features
from avistan.runtime.versions import versions
from stan_adapters.files.cache_folder import FOLDER, SWITCH, cache_folder

_MOST_BYTES = 2**28  # of a subfolder; the least recently used programs go
_MOST_FOLDERS = 4  # subfolders: the least recently used ones go
_DIRECTORY = "jax_compilation_cache_dir"
_lock = threading.Lock()
_inside = 0  # blocks that are running; the first sets JAX's options, the last sets them back
_before: dict[str, object] = {}


class CompileCacheWarning(UserWarning):
    """Compiled programs can't be kept: every process compiles its own."""


@contextlib.contextmanager
def compile_cache() -> Iterator[None]:
    """Within the block, keep what JAX compiles and load what was kept. Blocks may be nested, and run in threads."""
    global _inside
    place = _place()
    with _lock:
        free = _inside > 0 or (
            getattr(jax.config, _DIRECTORY) is None and jax.config.jax_enable_compilation_cache
        )
        ours = place is not None and free
        if ours:
            _inside += 1
            if _inside == 1:
                _switch_on(str(place))
    try:
        yield
    finally:
        if ours:
            with _lock:
                _inside -= 1
                if _inside == 0:
                    _switch_off()


def _switch_on(place: str) -> None:
    wanted: dict[str, object] = {
        _DIRECTORY: place,
        "jax_compilation_cache_max_size": _MOST_BYTES,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    _before.update((name, getattr(jax.config, name)) for name in wanted)
    reset_cache()  # JAX looks at its options once, at the first compilation
    for name, value in wanted.items():
        jax.config.update(name, value)


def _switch_off() -> None:
    for name, value in _before.items():
        jax.config.update(name, value)
    reset_cache()


def _place() -> Path | None:
    """The folder for programs of this machine and these versions; None where there is to be none or can't be one."""
    root = cache_folder()
    return None if root is None else _made(root / _kind())


@functools.cache
def _kind() -> str:
    found = versions()
    libraries = [found[name] for name in ("jax", "jaxlib", "avistan")]
    machine = (processor(), processor_features(), str(num_processors()), os.environ.get("XLA_FLAGS", ""))
    digest = hashlib.sha256("\n".join((*libraries, *machine)).encode()).hexdigest()[:16]
    return f"jax-{jax.__version__}-{digest}"


@functools.cache
def _made(place: Path) -> Path | None:
    """The folder, made and tried; None with a warning where nothing can be kept."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.stat()
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
            raise OSError(f"{place} belongs to another user or may be written by others")
        with tempfile.TemporaryFile(dir=place):
            os.utime(place)
        others = (path for path in place.parent.glob("jax-*") if path != place)
        for old in sorted(others, key=lambda path: -path.stat().st_mtime)[_MOST_FOLDERS - 1 :]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        warnings.warn(
            f"compiled programs can't be kept in {place}: {error}. Every process compiles its own, which takes "
            f"seconds: choose another folder by {FOLDER}, or say {SWITCH}=1.",
            CompileCacheWarning,
            stacklevel=2,
        )
        return None
    return place
