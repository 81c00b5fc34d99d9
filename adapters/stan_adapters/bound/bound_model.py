"""`BoundModel`: a program and its data behind one handle, on the unconstrained scale.

Densities are Stan's `target` up to the program's constant (propto) with the Jacobian of the constraints.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stan_adapters.data.declared_memory import check_declared_memory
from stan_adapters.data.layout import Layout, build_layout, declared_shape
from stan_adapters.data.stan_data import StanData
from stan_adapters.engine.abi import FloatArray, give_back_freed_memory
from stan_adapters.engine.columns import Output
from stan_adapters.engine.empty_means import refuse_empty_means
from stan_adapters.engine.engines import COMPILED_ENGINE_HINT, is_library_path
from stan_adapters.engine.instances import Instance, close_all, construct
from stan_adapters.engine.library_check import check_library
from stan_adapters.engine.library_lock import LibraryLock
from stan_adapters.errors import BindingError, UnsupportedError
from stan_adapters.language.program import Program
from stan_adapters.language.switches import settled

ConstrainedDraws = dict[str, npt.NDArray[Any]]

# Below this gradient time threads that share a handle slow each other down, so each gets its own.
_SHARE_HANDLE_FROM_SECONDS = 50e-6
_CLEAR_SECONDS = 0.1  # no interruption takes so long: a gradient that does need not be timed again


# A thread is worth its start for work of some length: of data of so many bytes every gradient is.
_SECONDS_PER_THREAD, _SLOW_TEXT = 0.5e-3, 1 << 18
_LARGE_TEXT = 1 << 24  # bytes of data, after which memory is worth giving back


@functools.cache
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """Threads that evaluate gradients, made once: a process that was forked has none of its parent's."""
    return ThreadPoolExecutor(count, thread_name_prefix="gradients")


class BoundModel:
    """Program + data, loaded through the BridgeStan ABI.

    Thread-safe. Handles are freed exactly once: by `close`, on leaving a `with` block, or with the object.

    Args:
        program: the program. Densities come from it without its generated quantities where the engine allows that.
        data: checked data of that program.
        engine: "auto", "stanli", "bridgestan" or the path of a prebuilt library.
        seed: for random numbers in transformed data.

    Raises:
        EngineError: see `stan_adapters.engine.engines`; or the memory does not hold what the program declares.
        BindingError: the declared parameters do not match the engine's.
    """

    def __init__(self, program: Program, data: StanData, *, engine: str = "auto", seed: int = 1) -> None:
        self.program = program
        self.data = data
        self.seed = seed
        self.engine_choice = engine  # as asked for: binds other data of the program the same way
        self._lock = threading.Lock()
        check_declared_memory(program, data)
        compiles = engine not in ("auto", "stanli")  # then one library serves densities and draws
        if not compiles:
            refuse_empty_means(program, data)
        density_program = program if compiles else program.without_generated_quantities()
        text = data.to_json()
        self._density = construct(density_program, engine, text, seed, outputs=False, whole=program)
        if is_library_path(engine):
            check_library(self._density, program, data, text, seed)
        self._slow = len(text) > _SLOW_TEXT
        if len(text) > _LARGE_TEXT:
            del text
            give_back_freed_memory()
        self._whole: Instance | None = None
        self._instances = [self._density]
        self._close = weakref.finalize(self, close_all, self._instances)
        self._gradient_seconds: float | None = None
        self.dim: int = self._density.abi.unconstrained_dim(self._density.handles[0])
        shapes: dict[str, tuple[int, ...]] = {}
        if any(declared_shape(declaration.type, data) is None for declaration in program.parameters):
            shapes = {output.name: output.shape for output in self._density.outputs(False, False)}
        self.layout: Layout = build_layout(settled(program, data).parameters, data, shapes, self.dim)

    # -- life ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the handles. Any later use is a `BindingError`."""
        self._close()

    @property
    def closed(self) -> bool:
        return not self._close.alive

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"BoundModel({self.program.name}, dim={self.dim}, engine={self.engine}{state})"

    @property
    def engine(self) -> str:
        """The engine that runs the program: "stanli", "bridgestan" or the name of a prebuilt library."""
        return self._density.library.engine

    @property
    def exclusive(self) -> LibraryLock | None:
        """The lock of every call of a library built without STAN_THREADS; None where threads may call at once."""
        return self._density.abi.exclusive

    @property
    def engine_info(self) -> str:
        """Versions and build flags, in the engine's words."""
        return self._density.abi.info(self._first())

    # -- density ------------------------------------------------------------------------------------------------

    def log_density_gradient(self, theta: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Log densities (S,) and gradients (S, D) at unconstrained points (S, D), or (), (D,) at one point (D,).

        A point that Stan rejects, or where a number is not finite, has -inf and a zero gradient.
        """
        points = np.ascontiguousarray(theta, dtype=np.float64)
        batch = self._checked(points)
        lp, gradient = np.empty(len(batch)), np.empty_like(batch)
        workers = self._threads_for(len(batch))
        handles = self.handles(workers) if workers > 1 else (self._first(),)
        abi = self._density.abi

        def work(part: int) -> None:
            rows = slice(part * len(batch) // workers, (part + 1) * len(batch) // workers)
            abi.log_density_gradient(handles[part % len(handles)], batch[rows], lp[rows], gradient[rows])

        if workers == 1:
            work(0)
        else:
            list(_threads(workers, os.getpid()).map(work, range(workers)))
        return (lp, gradient) if points.ndim == 2 else (lp[0], gradient[0])

    def why_rejected(self, theta: npt.ArrayLike) -> str:
        """Stan's message at one unconstrained point (D,), with data that hold infinity; empty where the density is
        finite.
        """
        batch = self._checked(np.ascontiguousarray(theta, dtype=np.float64))
        lp, gradient = np.empty(len(batch)), np.empty_like(batch)
        reason = self._density.abi.log_density_gradient(self._first(), batch, lp, gradient)
        infinite = ", ".join(f"`{name}`" for name in self.data.infinite)
        return f"{reason} (data hold infinity: {infinite})" if reason and infinite else reason

    def handles(self, count: int) -> tuple[int, ...]:
        """Raw model handles for `count` threads: one each for small models, one shared for large ones."""
        handle, pointers = self._first(), self._density.handles
        count = count if self.exclusive is None else 1
        with self._lock:
            if count > len(pointers) and self._time_gradient(handle) < _SHARE_HANDLE_FROM_SECONDS:
                text = self.data.to_json()
                while len(pointers) < count:
                    pointers.append(self._density.library.construct(text, self.seed, outputs=False))
            return tuple(pointers[:count])

    @property
    def log_density_gradient_address(self) -> int:
        """Address of `bs_log_density_gradient`, for callers in C."""
        return self._density.abi.address("bs_log_density_gradient")

    @property
    def free_error_address(self) -> int:
        """Address of `bs_free_error_msg`, for callers in C."""
        return self._density.abi.address("bs_free_error_msg")

    # -- constrained draws --------------------------------------------------------------------------------------

    def constrain(
        self,
        theta: npt.ArrayLike,
        *,
        transformed_parameters: bool = True,
        generated_quantities: bool = True,
        seed: int = 1,
    ) -> tuple[ConstrainedDraws, int]:
        """Constrained draws by name, each of shape (S, *declared shape), of unconstrained draws (S, D).

        Returns: the draws, and how many rows are NaN because Stan rejected them.

        Raises:
            UnsupportedError: the engine can't evaluate declared transformed parameters or generated quantities.
        """
        transformed = transformed_parameters and bool(self.program.transformed_parameters)
        generated = generated_quantities and bool(self.program.generated_quantities)
        self._first()
        batch = self._checked(np.ascontiguousarray(theta, dtype=np.float64))
        instance = self._with_generated_quantities() if generated else self._density
        outputs = instance.outputs(transformed, generated)
        empty = self._not_listed(outputs, transformed, generated)
        batch = self._on_scale_of(instance, batch)
        flat = np.empty((len(batch), max((output.columns.stop for output in outputs), default=0)))
        failed, _ = instance.abi.constrain(
            instance.handles[0],
            batch,
            flat,
            transformed_parameters=transformed,
            generated_quantities=generated,
            seed=seed,
        )
        draws: ConstrainedDraws = {output.name: output.take(flat) for output in outputs}
        return draws | {name: np.empty((len(batch), *shape)) for name, shape in empty.items()}, failed

    def unconstrain(self, values: Mapping[str, npt.ArrayLike]) -> FloatArray:
        """The unconstrained point (D,) of constrained parameter values by name; every parameter must be there.

        Raises:
            BindingError: names are missing or unknown, or a value lies outside its support (Stan's words).
        """
        names = [declaration.name for declaration in self.program.parameters]
        missing, unknown = set(names) - set(values), set(values) - set(names)
        if missing or unknown:
            raise BindingError(
                f"every parameter needs a value: missing {sorted(missing) or 'none'}, "
                f"unknown {sorted(unknown) or 'none'}."
            )
        if not names:
            return np.empty(0)
        draw = {name: np.asarray(values[name], dtype=np.float64)[None] for name in names}
        return np.asarray(self.unconstrain_draws(draw)[0])

    def unconstrain_draws(self, draws: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        """Unconstrained points (S, D) of constrained parameter draws by name, each (S, *declared shape)."""
        handle = self._first()
        count = len(next(iter(draws.values()), ()))
        columns = [np.empty((count, 0))]
        for output in self._density.outputs(False, False):
            if output.is_complex or ":" in output.name:
                raise BindingError(
                    f"{output.name}: complex and tuple parameters can't be unconstrained from draws."
                )
            if output.name not in draws:
                raise BindingError(f"draws have no entry {output.name!r}: every parameter is needed.")
            values = np.asarray(draws[output.name], dtype=np.float64)
            if values.shape[1:] != output.shape:
                raise BindingError(
                    f"{output.name} has shape {values.shape[1:]} a draw, the program declares {output.shape}."
                )
            columns.append(values.reshape(len(values), -1, order="F"))
        return self._density.abi.unconstrain(handle, np.concatenate(columns, axis=1), self.dim)

    # -- inside -------------------------------------------------------------------------------------------------

    def _first(self) -> int:
        if self.closed:
            raise BindingError(f"the bound model of {self.program.name} is closed: bind the program again.")
        return self._density.handles[0]

    def _checked(self, theta: FloatArray) -> FloatArray:
        if theta.ndim not in (1, 2) or theta.shape[-1] != self.dim:
            raise BindingError(
                f"unconstrained points of {self.program.name} have shape ({self.dim},) or (S, {self.dim}), "
                f"got {theta.shape}."
            )
        return theta if theta.ndim == 2 else theta[None]

    def _with_generated_quantities(self) -> Instance:
        """An instance of the whole program: the density's, unless generated quantities were left out of that."""
        if self._density.library.program.generated_quantities:
            return self._density
        with self._lock:
            if self._whole is None:
                text = self.data.to_json()
                self._whole = construct(self.program, self.engine_choice, text, self.seed, outputs=True)
                self._instances.append(self._whole)
            return self._whole

    def _on_scale_of(self, instance: Instance, theta: FloatArray) -> FloatArray:
        """Points (S, D) on the scale of another engine: versions of Stan transform simplexes differently.

        Rows that the density's engine can't constrain become NaN.
        """
        if instance.library.engine == self._density.library.engine:
            return theta
        width = max((output.columns.stop for output in self._density.outputs(False, False)), default=0)
        flat = np.empty((len(theta), width))
        self._density.abi.constrain(
            self._first(), theta, flat, transformed_parameters=False, generated_quantities=False, seed=1
        )
        moved = np.full_like(theta, np.nan)
        usable = np.isfinite(flat).all(axis=1)
        moved[usable] = instance.abi.unconstrain(instance.handles[0], flat[usable], self.dim)
        return moved

    def _not_listed(
        self, outputs: Sequence[Output], transformed: bool, generated: bool
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the declared outputs that the engine does not list because they have no elements.

        Raises:
            UnsupportedError: it should list them.
        """
        listed = {output.name.partition(":")[0].partition(".")[0] for output in outputs}
        declared = (
            *self.program.parameters,
            *(self.program.transformed_parameters if transformed else ()),
            *(self.program.generated_quantities if generated else ()),
        )
        shapes = {d.name: declared_shape(d.type, self.data) for d in declared if d.name not in listed}
        lost = [name for name, shape in shapes.items() if shape is not None and 0 not in shape]
        if lost:
            raise UnsupportedError(
                f"{self.engine} does not return {', '.join(lost)} of {self.program.name}. {COMPILED_ENGINE_HINT}"
            )
        return {name: shape for name, shape in shapes.items() if shape is not None}

    def _threads_for(self, points: int) -> int:
        """How many threads a batch of so many points is worth; its numbers are the same with any."""
        most = min(os.cpu_count() or 1, points)
        if most < 2 or self.exclusive is not None:
            return 1
        if self._slow:
            return most
        with self._lock:
            seconds = points * self._time_gradient(self._first())
        return max(min(most, int(seconds / _SECONDS_PER_THREAD)), 1)

    def _time_gradient(self, handle: int) -> float:
        """Seconds of a gradient, measured once; the caller holds the lock."""
        if self._gradient_seconds is None:
            theta, lp, gradient = np.zeros((1, self.dim)), np.empty(1), np.empty((1, self.dim))
            best = np.inf
            for _ in range(3):
                start = time.perf_counter()
                self._density.abi.log_density_gradient(handle, theta, lp, gradient)
                best = min(best, time.perf_counter() - start)
                if best > _CLEAR_SECONDS:
                    break
            self._gradient_seconds = float(best)
        return self._gradient_seconds
