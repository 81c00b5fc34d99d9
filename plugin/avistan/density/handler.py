"""The compiled XLA FFI handler: finding it, loading it, and its C functions as Python calls.

The shared library is optional. It is absent when it was not built (no C++ compiler, or AVISTAN_NO_NATIVE=1 during
installation), and ignored when AVISTAN_NO_NATIVE=1 is set at run time; `density.log_density` then evaluates through
`jax.pure_callback`. Pointers cross into C as plain integers.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from stan_adapters.errors import notify_once

_STALE = (
    "was built from other sources than this avistan: install again (`make test` does, or `pip install -e .`), or set "
    "AVISTAN_NO_NATIVE=1."
)
TARGET = "avistan_log_density"
BLOCK_TARGET = "avistan_block_log_density"
_ABI_VERSION = 8  # of handler.cpp
_NAMES = ("_handler.so", "_handler.dylib", "_handler.dll")


def disabled() -> bool:
    """True when AVISTAN_NO_NATIVE asks to do without the handler ("" and "0" do not)."""
    return os.environ.get("AVISTAN_NO_NATIVE", "") not in ("", "0")


def _candidates() -> Iterator[Path]:
    # In an editable installation the sources stay in the checkout and the handler lies in site-packages.
    folders = [
        Path(__file__).parent / "native",
        *(Path(sysconfig.get_path(key), "avistan", "density", "native") for key in ("platlib", "purelib")),
    ]
    yield from (folder / name for folder in folders for name in _NAMES)


@functools.cache
def _load() -> ctypes.CDLL | None:
    path = next((path for path in _candidates() if path.is_file()), None)
    if path is None:
        return None
    lib = ctypes.CDLL(str(path))
    if not hasattr(lib, "avistan_abi_version") or lib.avistan_abi_version() != _ABI_VERSION:
        raise RuntimeError(f"{path} {_STALE}")
    i64, address = ctypes.c_int64, ctypes.c_size_t
    handles = ctypes.POINTER(address)
    lib.avistan_register.argtypes = [i64, address, address, handles, i64, i64, i64, ctypes.c_int]
    lib.avistan_register.restype = ctypes.c_int
    lib.avistan_release.argtypes = [i64, ctypes.c_int]
    lib.avistan_release.restype = ctypes.c_int
    lib.avistan_set_layout.argtypes = [i64] * 4 + [address] * 3
    lib.avistan_set_layout.restype = ctypes.c_int
    for target in (TARGET, BLOCK_TARGET):  # names of the library's functions too
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(lib, target)), platform="cpu")
    return lib


def library() -> ctypes.CDLL | None:
    """The loaded handler with its FFI targets registered, or None where it is disabled or was not built.

    Raises:
        RuntimeError: the handler was built from other sources than this Python code.
    """
    return None if disabled() else _load()


def tell_of_its_absence() -> None:
    """An `EngineNotice`, once, where the handler was not built; switching it off is known to whoever did it."""
    if not disabled():
        notify_once(
            "avistan was installed without its compiled handler, so Stan is called through Python, which is "
            "slower. Install a C++17 compiler and reinstall avistan to get it; AVISTAN_NO_NATIVE=1 does without "
            "this message."
        )


def loaded() -> bool:
    """True once the handler has been loaded, switched off since or not: slots may be registered with it."""
    return _load.cache_info().currsize > 0 and _load() is not None


def _required() -> ctypes.CDLL:
    lib = _load() if loaded() else library()
    if lib is None:
        raise RuntimeError(
            "avistan's compiled handler is not available: it is switched off by AVISTAN_NO_NATIVE, or the package was "
            "installed without a C++ compiler. Install one and reinstall avistan to use it."
        )
    return lib


def register(
    index: int,
    gradient: int,
    free_error: int,
    handles: tuple[int, ...],
    dim: int,
    threads: int,
    *,
    thread_safe: bool,
) -> None:
    """Register a model with the handler under an index that was never used before.

    Args:
        gradient: address of `bs_log_density_gradient`.
        free_error: address of `bs_free_error_msg` of the same library.
        handles: addresses of `bs_model` objects of one model; threads share them only when there are too few.
        dim: number of unconstrained coordinates.
        threads: most threads that one call may use.
        thread_safe: False: no two calls of such libraries may overlap.
    Raises:
        ValueError: an address is null, there is no handle, or the index is taken.
    """
    array = (ctypes.c_size_t * len(handles))(*handles)
    done = _required().avistan_register(
        index, gradient, free_error, array, len(handles), dim, threads, int(thread_safe)
    )
    if not done:
        raise ValueError(
            f"slot {index} needs non-null addresses and a new index; got {len(handles)} handles."
        )


def acquire_exclusive() -> None:
    """Keep the handler from calling libraries that are not thread-safe, until this thread calls `release_exclusive`."""
    _exclusive("acquire")()


def release_exclusive() -> None:
    """Let the handler call libraries that are not thread-safe again."""
    _exclusive("release")()


def _exclusive(what: str) -> Any:
    function = getattr(_required(), f"avistan_{what}_exclusive", None)
    if function is None:
        raise RuntimeError(f"the compiled handler {_STALE}")
    return function


def release(index: int, *, wait: bool) -> bool:
    """Close an index to new calls; True once no running call uses the model, after which its handles may be freed."""
    return bool(_required().avistan_release(index, int(wait)))


def set_layout(
    index: int,
    global_at: NDArray[np.int64],
    local_at: NDArray[np.int64],
    rest: NDArray[np.float64] | None = None,
) -> None:
    """Say where a slot's globals (G,) and locals (d, M) lie in its vector.

    Args:
        rest: values (D,) of the coordinates that draws leave, where the locals stay as they are.
    Raises:
        ValueError: the slot is closed or has a layout.
    """
    global_at, local_at = (np.ascontiguousarray(part, dtype=np.int64) for part in (global_at, local_at))
    at_rest = 0 if rest is None else rest.ctypes.data
    block, units = local_at.shape
    done = _required().avistan_set_layout(
        index, len(global_at), block, units, global_at.ctypes.data, local_at.ctypes.data, at_rest
    )
    if not done:
        raise ValueError(f"slot {index} is closed, or has a layout already.")
