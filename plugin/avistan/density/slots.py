"""Bound models under small integers, their slots, so that compiled programs can evaluate them.

A slot is a run-time value, so one compiled program can switch between models (minibatches), and a model that was closed
is an error instead of freed memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avistan.density import handler
from avistan.density.backend import native_available, trace_for_backend
from avistan.density.handles import DensityHandles
from stan_adapters.engine.library_lock import LibraryLock
from stan_adapters.errors import BindingError


class SlotLayout(NamedTuple):
    """Where globals (G,) and locals (d, M) lie in a slot's vector; `rest` (D,) holds what steps never set."""

    global_at: NDArray[np.int64]
    local_at: NDArray[np.int64]
    rest: NDArray[np.float64] | None


_NoLock = contextlib.nullcontext[None]


@dataclass(slots=True)
class Record:
    """A registered model as the callback backend sees it; keeps the model alive."""

    model: DensityHandles
    dim: int
    handle: int
    gradient: Any  # ctypes function pointers
    free_error: Any
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while a callback evaluates this slot
    native: bool = False  # the compiled handler knows it too
    exclusive: LibraryLock | _NoLock = field(default_factory=_NoLock)  # held while Stan evaluates
    layout: SlotLayout | None = None


_GRADIENT = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_bool,
    ctypes.c_bool,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
)
_FREE_ERROR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_indices = itertools.count()
_records: dict[int, Record] = {}  # open slots; single dict operations only, which are atomic
_retired: list[tuple[int, Record]] = []  # dropped while a call was running: kept until it ends


def _retire(index: int, *, wait: bool) -> None:
    record = _records.pop(index, None)
    if record is None:
        return
    if handler.loaded() and not handler.release(index, wait=wait):
        _retired.append((index, record))
    if wait:
        with record.lock:
            pass


def _drop_retired() -> None:
    for _ in range(len(_retired)):
        index, record = _retired.pop(0)
        if not handler.release(index, wait=False):
            _retired.append((index, record))


class Slot:
    """A registered model: `log_density` accepts it, or its `index` as a JAX integer.

    Closes on `close()`, at the end of a `with` block, or when it is garbage collected; it keeps the model alive until
    then. JAX computes asynchronously: keep the slot open until the results that use it are ready
    (`jax.block_until_ready`), else they are errors. `close()` waits for running calls and may be called again.
    """

    def __init__(self, index: int, dim: int) -> None:
        self.index = index
        self.dim = dim
        self._finalizer = weakref.finalize(self, _retire, index, wait=False)
        self._finalizer.atexit = False

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def close(self) -> None:
        """Release the model; later use of the slot, in compiled programs too, is an error."""
        if self._finalizer.detach() is not None:
            _retire(self.index, wait=True)

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Slot(index={self.index}, dim={self.dim}{', closed' if self.closed else ''})"


def default_threads() -> int:
    """Threads per call: AVISTAN_NUM_THREADS, else the processors that this process may use.

    Raises:
        ValueError: AVISTAN_NUM_THREADS is not a positive integer.
    """
    given = os.environ.get("AVISTAN_NUM_THREADS")
    if given is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if not given.strip().isdecimal() or int(given) < 1:
        raise ValueError(f"AVISTAN_NUM_THREADS is {given!r}: give a positive number of threads, or unset it.")
    return int(given)


def register(model: DensityHandles, *, threads: int | None = None) -> Slot:
    """Register a bound model so that compiled programs can evaluate it.

    Args:
        model: stays alive and must stay open until the slot is closed.
        threads: most threads that one call may use (1 where the library has a lock); default `default_threads()`.
            Results do not depend on it.
    Raises:
        ValueError: `threads` is not positive, or the model gives no handle.
    """
    _drop_retired()
    trace_for_backend()
    count = default_threads() if threads is None else threads
    if count < 1:
        raise ValueError(f"threads is {count}: give a positive number, or None for one per processor.")
    handles = model.handles(count)[:count]
    if not handles:
        raise ValueError("the model gives no handle: is it closed?")
    gradient, free_error = model.log_density_gradient_address, model.free_error_address
    lock, index = model.exclusive, next(_indices)
    count = count if lock is None else 1
    if native_available():
        if lock is not None:
            lock.share(handler.acquire_exclusive, handler.release_exclusive)
        handler.register(index, gradient, free_error, handles, model.dim, count, thread_safe=lock is None)
    functions, held = (_GRADIENT(gradient), _FREE_ERROR(free_error)), lock or _NoLock()
    _records[index] = Record(
        model, model.dim, handles[0], *functions, native=native_available(), exclusive=held
    )
    return Slot(index, model.dim)


def set_layout(
    index: int,
    global_at: NDArray[np.int64],
    local_at: NDArray[np.int64],
    rest: NDArray[np.float64] | None = None,
) -> None:
    """Say where globals (G,) and locals (d, M) lie in a slot's vector, for `block_log_density`.

    Args:
        rest: values (D,) of the coordinates that are never set, for a model whose locals stay where they are; then
            `local_at` is empty.

    Raises:
        BindingError: the slot is closed, has another layout, or these are not the positions of its coordinates.
    """
    record, layout = open_record(index), SlotLayout(np.asarray(global_at), np.asarray(local_at), rest)
    _check_positions(index, record.dim, layout)
    with record.lock:
        if record.layout is None:
            if record.native:
                handler.set_layout(index, layout.global_at, layout.local_at, rest)
            record.layout = layout
    if not all(_equal(one, other) for one, other in zip(record.layout, layout, strict=True)):
        raise BindingError(f"slot {index} has another layout: register the model again.")


def _check_positions(index: int, dim: int, layout: SlotLayout) -> None:
    taken = np.concatenate([layout.global_at, layout.local_at.reshape(-1)])
    once = taken.min(initial=0) >= 0 and taken.max(initial=-1) < dim
    once = once and not (np.bincount(taken, minlength=dim) > 1).any()
    complete = len(taken) == dim if layout.rest is None else layout.rest.shape == (dim,)
    if not (once and complete and layout.local_at.ndim == 2):
        raise BindingError(
            f"avistan: the layout of slot {index} must name each of its {dim} coordinates once, or some of them once "
            "and values for all."
        )


def _equal(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def open_record(index: int, dim: int | None = None) -> Record:
    """The model behind a slot number, for evaluation on the host.

    Raises:
        BindingError: the slot is closed, or of another dimension.
    """
    record = _records.get(index)
    if record is None:
        raise BindingError(
            f"avistan: slot {index} is closed: its bound model was released before this computation ran. Keep the Slot "
            "open until the last result is ready."
        )
    if dim is not None and record.dim != dim:
        raise BindingError(
            f"avistan: slot {index} takes {record.dim} unconstrained coordinates, theta has {dim} in its last axis."
        )
    return record


def layout_for(index: int, record: Record, theta: tuple[int, ...], z: tuple[int, ...]) -> SlotLayout:
    """The layout of a slot that draws of these shapes fit.

    Raises:
        BindingError: they do not, or there is no layout.
    """
    layout = record.layout
    if layout is None:
        raise BindingError(
            f"avistan: slot {index} has no layout: call set_layout before it is evaluated by blocks."
        )
    (block, units), num_globals = layout.local_at.shape, len(layout.global_at)
    if theta[1] != num_globals or (units and (z[1] != block or z[2] < units)):
        columns = f" and z of shape {(z[0], block, units)} or with more columns" if units else ""
        raise BindingError(
            f"avistan: slot {index} takes theta of shape {(theta[0], num_globals)}{columns}; given are {theta} and {z}."
        )
    return layout
