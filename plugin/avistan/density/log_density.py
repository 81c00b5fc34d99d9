"""Stan's log density and gradient as one differentiable JAX operation over registered models.

A *slot* is the small integer under which a bound model is registered; it is a run-time value, so one compiled
program can switch between models (minibatches), and a model that was closed is an error instead of freed memory.
Draws of one call are spread over threads by the compiled handler (`native`); without it, `jax.pure_callback` gives the
same numbers.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from avistan.density import native
from avistan.density.handles import DensityHandles
from stan_adapters.engine.library_lock import LibraryLock
from stan_adapters.errors import BindingError
from stan_adapters.files.message_paths import in_users_words

Backend = Literal["native", "callback"]
_chosen_backend: contextvars.ContextVar[Backend | None] = contextvars.ContextVar(
    "avistan_backend", default=None
)


def native_available() -> bool:
    """True when the compiled handler was built and AVISTAN_NO_NATIVE does not switch it off."""
    return native.library() is not None


def backend() -> Backend:
    """How operations traced now will call Stan: "native" (compiled handler) or "callback" (`jax.pure_callback`)."""
    if chosen := _chosen_backend.get():
        return chosen
    if native_available():
        return "native"
    native.tell_of_its_absence()
    return "callback"


@contextlib.contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Choose the backend of operations traced inside the block; what was compiled before keeps its own.

    Raises:
        RuntimeError: "native" is asked for and the handler is not available.
    """
    if name == "native" and not native_available():
        raise RuntimeError(
            "the compiled handler is not available: unset AVISTAN_NO_NATIVE, or reinstall with a compiler."
        )
    token = _chosen_backend.set(name)
    try:
        yield
    finally:
        _chosen_backend.reset(token)


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


# --- registration -------------------------------------------------------------------------------------------


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
    message: str | None = None
    native: bool = False  # the compiled handler knows it too
    handles: tuple[int, ...] = ()  # threads use one each, and share them where there are fewer
    threads: int = 1  # most that may call at once
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
    if native.loaded() and not native.release(index, wait=wait):
        _retired.append((index, record))
    if wait:
        with record.lock:
            pass


def _drop_retired() -> None:
    for _ in range(len(_retired)):
        index, record = _retired.pop(0)
        if not native.release(index, wait=False):
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

    @property
    def last_rejection(self) -> str | None:
        """What Stan said when it last rejected a draw; None where it said nothing or the slot is closed."""
        record = _records.get(self.index)
        if record is None:
            return None
        said = (native.last_message(self.index) if native.loaded() else None) or record.message
        return said and in_users_words(said)

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
            lock.share(native.acquire_exclusive, native.release_exclusive)
        native.register(
            index,
            gradient=gradient,
            free_error=free_error,
            handles=handles,
            dim=model.dim,
            threads=count,
            thread_safe=lock is None,
        )
    functions = _GRADIENT(gradient), _FREE_ERROR(free_error)
    _records[index] = Record(
        model,
        model.dim,
        handles[0],
        *functions,
        native=native_available(),
        handles=handles,
        threads=count,
        exclusive=lock or _NoLock(),
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
                native.set_layout(index, layout.global_at, layout.local_at, rest)
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


# --- evaluation ---------------------------------------------------------------------------------------------


def _closed_message(index: int) -> str:
    return (
        f"avistan: slot {index} is closed: its bound model was released before this computation ran. "
        "Keep the Slot open until the last result is ready."
    )


def _dim_message(index: int, dim: int, given: int) -> str:
    return f"avistan: slot {index} takes {dim} unconstrained coordinates, theta has {given} in its last axis."


def open_record(index: int, dim: int | None = None) -> Record:
    """The model behind a slot number, for evaluation on the host.

    Raises:
        BindingError: the slot is closed, or of another dimension.
    """
    record = _records.get(index)
    if record is None:
        raise BindingError(_closed_message(index))
    if dim is not None and record.dim != dim:
        raise BindingError(_dim_message(index, record.dim, dim))
    return record


def evaluate_rows(
    record: Record,
    theta: NDArray[np.float64],
    lp: NDArray[np.float64],
    grad: NDArray[np.float64],
    status: NDArray[np.int32],
) -> None:
    """Fill lp (S,), grad (S, D) and status (S,) from theta (S, D) through raw ctypes calls."""
    with record.lock, record.exclusive:
        _evaluate_with(record, record.handle, theta, lp, grad, status)


def _evaluate_with(
    record: Record,
    handle: int,
    theta: NDArray[np.float64],
    lp: NDArray[np.float64],
    grad: NDArray[np.float64],
    status: NDArray[np.int32],
) -> None:
    error = ctypes.c_void_p()
    stride = theta.shape[1] * theta.itemsize
    at_theta, at_grad, at_lp = theta.ctypes.data, grad.ctypes.data, lp.ctypes.data
    for row in range(len(theta)):
        code = record.gradient(
            handle,
            True,
            True,
            at_theta + row * stride,
            at_lp + row * lp.itemsize,
            at_grad + row * stride,
            ctypes.byref(error),
        )
        if error.value is not None:
            record.message = ctypes.string_at(error.value).decode(errors="replace")
            record.free_error(error)
            error.value = None
        if code != 0 or not np.isfinite(lp[row]) or not np.isfinite(grad[row]).all():
            lp[row], grad[row], status[row] = -np.inf, 0.0, 1


def densities(slot: int, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log densities (S,) of points (S, D) as of `log_density`, on the host: each thread takes some of the rows.

    Raises:
        BindingError: the slot is closed, or of another dimension.
    """
    record = open_record(slot, theta.shape[1])
    theta = np.ascontiguousarray(theta)
    lp, grad, status = np.empty(len(theta)), np.empty_like(theta), np.zeros(len(theta), np.int32)
    workers = max(1, min(record.threads, len(theta)))

    def work(part: int) -> None:
        rows = slice(part * len(theta) // workers, (part + 1) * len(theta) // workers)
        handle = record.handles[part % len(record.handles)]
        _evaluate_with(record, handle, theta[rows], lp[rows], grad[rows], status[rows])

    with record.lock, record.exclusive:
        threads = [threading.Thread(target=work, args=(part,)) for part in range(1, workers)]
        for thread in threads:
            thread.start()
        work(0)
        for thread in threads:
            thread.join()
    return lp


def _evaluate_on_host(
    slot: NDArray[np.int64], theta: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """(lp, grad, status) of points (..., D); the axes of `slot` lead."""
    slots, rows, dim = slot.reshape(-1), theta.shape[:-1], theta.shape[-1]
    lp, grad, status = np.empty(rows), np.empty_like(theta), np.zeros(rows, np.int32)
    if lp.size:
        flat = (slots.size, lp.size // slots.size)
        blocks = theta.reshape(*flat, dim), lp.reshape(flat), grad.reshape(*flat, dim), status.reshape(flat)
        for i, index in enumerate(slots.tolist()):
            record = open_record(index, dim)
            evaluate_rows(record, blocks[0][i], blocks[1][i], blocks[2][i], blocks[3][i])
    return lp, grad, status


def _evaluate_blocks_on_host(
    slot: NDArray[np.int64], theta: NDArray[np.float64], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """(lp, gradients like theta and z, status) of draws theta (S, G) and z (S, d, N)."""
    record = open_record(int(slot))
    layout = _checked_layout(int(slot), record, theta.shape, z.shape)
    points, units = np.empty((len(theta), record.dim)), layout.local_at.shape[1]
    if layout.rest is not None:
        points[:] = layout.rest
    points[:, layout.global_at] = theta
    if units:
        points[:, layout.local_at] = z[:, :, :units]
    lp, gradient, status = np.empty(len(points)), np.empty_like(points), np.zeros(len(points), np.int32)
    evaluate_rows(record, points, lp, gradient, status)
    z_gradient = np.zeros_like(z)
    if units:
        z_gradient[:, :, :units] = gradient[:, layout.local_at]
    return lp, np.ascontiguousarray(gradient[:, layout.global_at]), z_gradient, status


def _checked_layout(index: int, record: Record, theta: tuple[int, ...], z: tuple[int, ...]) -> SlotLayout:
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


# --- through a callback -------------------------------------------------------------------------------------
# JAX runs callbacks on a thread of its own, where 64-bit types may be off and float64 would be rounded on the way:
# 64-bit numbers travel as pairs of uint32.


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _through_callback(
    body: Callable[..., Any], results: tuple[jax.ShapeDtypeStruct, ...], vmap_method: str, *arguments: Array
) -> tuple[Array, ...]:
    """What `body` computes of numpy arrays on the host."""
    dtypes = tuple(argument.dtype for argument in arguments)

    def on_host(*carried: Any) -> tuple[NDArray[Any], ...]:
        given = [
            np.asarray(value, order="C").view(dtype)[..., 0] if dtype.itemsize == 8 else np.asarray(value)
            for value, dtype in zip(carried, dtypes, strict=True)
        ]
        return tuple(value[..., None].view(np.uint32) if _wide(value) else value for value in body(*given))

    carried_results = [
        jax.ShapeDtypeStruct((*result.shape, 2), jnp.uint32) if _wide(result) else result
        for result in results
    ]
    words = [jax.lax.bitcast_convert_type(a, jnp.uint32) if _wide(a) else a for a in arguments]
    found = jax.pure_callback(on_host, carried_results, *words, vmap_method=vmap_method)
    return tuple(
        jax.lax.bitcast_convert_type(value, result.dtype) if _wide(result) else value
        for value, result in zip(found, results, strict=True)
    )


def _wide(value: Any) -> bool:
    return bool(value.dtype.itemsize == 8)


@_through_callback.defjvp
def _no_second_order(*_: Any) -> Any:
    """Words have no derivative, and JAX would take it for zero."""
    raise TypeError("log densities have first derivatives only, in reverse mode: Stan gives no second ones.")


# --- the operations -----------------------------------------------------------------------------------------


def _call(
    how: Backend,
    target: str,
    body: Callable[..., Any],
    results: tuple[jax.ShapeDtypeStruct, ...],
    vmap_method: str,
    *arguments: Array,
) -> tuple[Array, ...]:
    through_callback = functools.partial(_through_callback, body, results, vmap_method)
    if how == "callback":
        return through_callback(*arguments)
    handler = jax.ffi.ffi_call(target, results, vmap_method=vmap_method)
    # On an accelerator the handler does not exist: the callback brings the draws to the host.
    return tuple(jax.lax.platform_dependent(*arguments, cpu=handler, default=through_callback))


def _evaluate(how: Backend, slot: Array, theta: Array) -> tuple[Array, ...]:
    """(lp, grad, status) for slot () and theta (..., D); under vmap both get the same leading batch axes."""
    rows = theta.shape[:-1]
    results = (
        jax.ShapeDtypeStruct(rows, jnp.float64),
        jax.ShapeDtypeStruct(theta.shape, jnp.float64),
        jax.ShapeDtypeStruct(rows, jnp.int32),
    )
    return _call(how, native.TARGET, _evaluate_on_host, results, "broadcast_all", slot, theta)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _log_density(how: Backend, slot: Array, theta: Array) -> tuple[Array, Array]:
    lp, _, status = _evaluate(how, slot, theta)
    return lp, status


def _forward(how: Backend, slot: Array, theta: Array) -> tuple[tuple[Array, Array], Array]:
    lp, grad, status = _evaluate(how, slot, theta)
    return (lp, status), grad


def _backward(how: Backend, grad: Array, cotangents: tuple[Array, Any]) -> tuple[None, Array]:
    return None, cotangents[0][..., None] * grad


_log_density.defvjp(_forward, _backward)


def log_density(
    slot: Slot | int | Int[Array, ""], theta: Float[Array, "*draws D"]
) -> tuple[Float[Array, "*draws"], Int[Array, "*draws"]]:
    """Stan's log density of each row of `theta`, differentiable with respect to `theta`.

    Reverse mode and first order only (`jax.grad`, `jax.vjp`): the gradient is Stan's own, saved by the forward pass.
    Works under `jit`, `lax.scan` and `vmap`, over `theta` and over `slot`.

    Args:
        slot: which model; a `Slot` is fixed in the compiled program, an integer array is read at run time.
        theta: float64 points on the unconstrained scale.
    Returns:
        lp: float64, Jacobian included and constants dropped, so only differences within one program mean something;
            -inf, with gradient zero, where Stan rejects the point or the density or its gradient is not finite.
        status: int32, 0 accepted, 1 rejected.
    Raises:
        BindingError: while tracing, if theta is not float64, has no last axis of the slot's dimension, or the slot is
            closed. With `slot` traced, these are `jax.errors.JaxRuntimeError` or ValueError of the run.
    """
    _check_float64("log_density", theta)
    if theta.ndim == 0:
        raise BindingError("log_density needs theta of shape (..., D), got a scalar.")
    which = slot.index if isinstance(slot, Slot) else slot
    if not isinstance(which, jax.core.Tracer):
        open_record(int(which), theta.shape[-1])
    return _log_density(backend(), jnp.asarray(which, dtype=jnp.int64), theta)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _block_log_density(how: Backend, slot: Array, theta: Array, z: Array) -> tuple[Array, Array]:
    return _blocks_forward(how, slot, theta, z)[0]


def _blocks_forward(
    how: Backend, slot: Array, theta: Array, z: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    results = (
        jax.ShapeDtypeStruct(theta.shape[:1], jnp.float64),
        jax.ShapeDtypeStruct(theta.shape, jnp.float64),
        jax.ShapeDtypeStruct(z.shape, jnp.float64),
        jax.ShapeDtypeStruct(theta.shape[:1], jnp.int32),
    )
    lp, of_theta, of_z, status = _call(
        how, native.BLOCK_TARGET, _evaluate_blocks_on_host, results, "sequential", slot, theta, z
    )
    return (lp, status), (of_theta, of_z)


def _blocks_backward(
    how: Backend, gradient: tuple[Array, Array], cotangents: tuple[Array, Any]
) -> tuple[None, Array, Array]:
    of_lp = cotangents[0]
    return None, of_lp[:, None] * gradient[0], of_lp[:, None, None] * gradient[1]


_block_log_density.defvjp(_blocks_forward, _blocks_backward)


def block_log_density(
    slot: Slot | int | Int[Array, ""], theta: Float[Array, "S G"], z: Float[Array, "S d N"]
) -> tuple[Float[Array, " S"], Int[Array, " S"]]:
    """Stan's log density of draws given as globals and the latents of units; `set_layout` says where those lie.

    Differentiable in `theta` and `z`, once and in reverse mode, as `log_density`; what it says of `lp` and `status`
    holds here.

    Args:
        slot: which model; a `Slot` is fixed in the compiled program, an integer array is read at run time.
        theta: float64 globals on the unconstrained scale.
        z: float64 latents. Columns beyond the slot's units are not read and get gradient zero: all of them where the
            slot's layout has no units.
    Raises:
        BindingError: while tracing, if theta or z is not float64 or of other shapes than the slot takes, or the slot
            is closed or has no layout. With `slot` traced, these are `jax.errors.JaxRuntimeError` or ValueError of the
            run.
    """
    _check_float64("block_log_density", theta, z)
    if theta.ndim != 2 or z.ndim != 3 or len(theta) != len(z):
        raise BindingError(
            f"block_log_density needs theta of shape (S, G) and z (S, d, N), got {theta.shape} and {z.shape}."
        )
    which = slot.index if isinstance(slot, Slot) else slot
    if not isinstance(which, jax.core.Tracer):
        _checked_layout(int(which), open_record(int(which)), theta.shape, z.shape)
    return _block_log_density(backend(), jnp.asarray(which, dtype=jnp.int64), theta, z)


def _check_float64(name: str, *points: Array) -> None:
    for point in points:
        if point.dtype != jnp.float64 or jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
            raise BindingError(
                f"{name} needs float64 points with 64-bit types enabled, got {point.dtype}: call it, and make the "
                "points, inside `with jax.enable_x64(True):`."
            )
