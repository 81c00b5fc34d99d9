"""The BridgeStan C ABI of one shared library, called through ctypes: the only module that talks C.

Contract (bridgestan.h, BridgeStan 2.9): a model handle is an opaque pointer; every call that can fail returns a
code or a null pointer and may allocate a message that we free with `bs_free_error_msg`; density, gradient and
constrain calls on one handle may run in several threads, unless the library was built without STAN_THREADS
(`library_lock`); a random number generator belongs to one thread.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stan_adapters.engine.library_lock import ONE_AT_A_TIME, LibraryLock, is_thread_safe
from stan_adapters.errors import BindingError, EngineError
from stan_adapters.files.message_paths import in_users_words

logger = logging.getLogger("stan_adapters.program_output")

FloatArray = npt.NDArray[np.float64]

_POINTER = ctypes.c_void_p
_MESSAGE = ctypes.POINTER(ctypes.c_char_p)
_PRINT_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_char), ctypes.c_int)
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "bs_model_construct": (_POINTER, [ctypes.c_char_p, ctypes.c_uint, _MESSAGE]),
    "bs_model_destruct": (None, [_POINTER]),
    "bs_free_error_msg": (None, [ctypes.c_char_p]),
    "bs_model_info": (ctypes.c_char_p, [_POINTER]),
    "bs_name": (ctypes.c_char_p, [_POINTER]),
    "bs_param_num": (ctypes.c_int, [_POINTER, ctypes.c_bool, ctypes.c_bool]),
    "bs_param_unc_num": (ctypes.c_int, [_POINTER]),
    "bs_param_names": (ctypes.c_char_p, [_POINTER, ctypes.c_bool, ctypes.c_bool]),
    "bs_param_unc_names": (ctypes.c_char_p, [_POINTER]),
    "bs_param_constrain": (
        ctypes.c_int,
        [_POINTER, ctypes.c_bool, ctypes.c_bool, _POINTER, _POINTER, _POINTER, _MESSAGE],
    ),
    "bs_param_unconstrain": (ctypes.c_int, [_POINTER, _POINTER, _POINTER, _MESSAGE]),
    "bs_log_density_gradient": (
        ctypes.c_int,
        [_POINTER, ctypes.c_bool, ctypes.c_bool, _POINTER, _POINTER, _POINTER, _MESSAGE],
    ),
    "bs_rng_construct": (_POINTER, [ctypes.c_uint, _MESSAGE]),
    "bs_rng_destruct": (None, [_POINTER]),
    "bs_set_print_callback": (ctypes.c_int, [_PRINT_CALLBACK, _MESSAGE]),
}


class _Captured(threading.local):
    """Lines that Stan printed in this thread while `Abi.construct` ran; None outside of it."""

    lines: list[str] | None = None


_captured = _Captured()


def _on_print(text: ctypes._Pointer[ctypes.c_char], length: int) -> None:
    message = ctypes.string_at(text, length).decode(errors="replace")
    if _captured.lines is None:
        logger.info(message.rstrip("\n"))
    else:
        _captured.lines.append(message)


_print_callback = _PRINT_CALLBACK(_on_print)  # kept alive here: the library stores the bare pointer


class Abi:
    """One shared library that exports the BridgeStan C ABI.

    Attributes:
        exclusive: the lock that every call holds which evaluates the program, here and elsewhere; None for a library
            that several threads may call at once. Until a handle has said which it is, it is the lock.

    Raises:
        EngineError: the file is not a loadable library or lacks a function of the ABI.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exclusive: LibraryLock | None = ONE_AT_A_TIME
        try:
            self._lib = ctypes.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(self._lib, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise EngineError(
                f"{path} is not a BridgeStan model library: {error}. "
                "Build one with `bridgestan.compile_model('model.stan', make_args=['STAN_THREADS=true'])`."
            ) from error
        message = ctypes.c_char_p()
        self._lib.bs_set_print_callback(_print_callback, ctypes.byref(message))
        self._take(message)

    def address(self, function: str) -> int:
        """Address of a function of the ABI, for callers in C."""
        return ctypes.cast(getattr(self._lib, function), ctypes.c_void_p).value or 0

    @property
    def version(self) -> str:
        parts = (ctypes.c_int.in_dll(self._lib, f"bs_{part}_version") for part in ("major", "minor", "patch"))
        return ".".join(str(part.value) for part in parts)

    def construct(self, data_json: bytes, seed: int) -> tuple[int, str]:
        """A model handle and everything Stan printed meanwhile.

        Raises:
            EngineError: with Stan's own words, when the library refuses the data or the program.
        """
        message = ctypes.c_char_p()
        _captured.lines = []
        try:
            with self._alone():
                handle = self._lib.bs_model_construct(data_json, seed, ctypes.byref(message))
            printed = "".join(_captured.lines)
        finally:
            _captured.lines = None
        if not handle:
            raise EngineError(self._take(message) or "bs_model_construct failed without a message")
        if self.exclusive is not None and is_thread_safe(self.info(handle)):
            self.exclusive = None
        return int(handle), printed

    def destruct(self, handle: int) -> None:
        """Free a handle: memory of its own, so that this needs no lock."""
        self._lib.bs_model_destruct(handle)

    def info(self, handle: int) -> str:
        return str(self._lib.bs_model_info(handle).decode())

    def name(self, handle: int) -> str:
        """The model's name as the compiler gave it: `schools_model` of `schools.stan`."""
        return str(self._lib.bs_name(handle).decode())

    def unconstrained_names(self, handle: int) -> list[str]:
        """Names of the unconstrained coordinates, such as `a.1`."""
        text = self._lib.bs_param_unc_names(handle).decode()
        return text.split(",") if text else []

    def unconstrained_dim(self, handle: int) -> int:
        return int(self._lib.bs_param_unc_num(handle))

    def names(
        self, handle: int, *, transformed_parameters: bool = False, generated_quantities: bool = False
    ) -> list[str]:
        """Constrained names such as `a.2.3`, first index fastest; empty containers have none."""
        text = self._lib.bs_param_names(handle, transformed_parameters, generated_quantities).decode()
        return text.split(",") if text else []

    def unconstrain(self, handle: int, columns: FloatArray, dim: int) -> FloatArray:
        """Unconstrained points (S, D) of rows of constrained parameters (S, P), columns as in `names`."""
        columns = np.ascontiguousarray(columns, dtype=np.float64)
        theta = np.empty((columns.shape[0], dim))
        message = ctypes.c_char_p()
        with self._alone():
            for row, out in zip(columns, theta, strict=True):
                if self._lib.bs_param_unconstrain(
                    handle, row.ctypes.data, out.ctypes.data, ctypes.byref(message)
                ):
                    raise BindingError(self._take(message))
        return theta

    def log_density_gradient(
        self,
        handle: int,
        theta: FloatArray,
        lp: FloatArray,
        gradient: FloatArray,
        *,
        jacobian: bool = True,
    ) -> str:
        """Fill `lp` (S,) and `gradient` (S, D) at the rows of `theta` (S, D), all C-contiguous float64.

        Without `jacobian` it is the density of the constrained parameters, which stanli refuses to give.
        A row that Stan rejects, or where a number is not finite, gets -inf and a zero gradient.

        Returns: the first rejection's message, or the empty string.
        """
        function, message = self._lib.bs_log_density_gradient, ctypes.c_char_p()
        reference, first = ctypes.byref(message), ""
        row_bytes = theta.strides[0] if theta.ndim == 2 else 0
        theta_at, lp_at, gradient_at = theta.ctypes.data, lp.ctypes.data, gradient.ctypes.data
        rejected = np.zeros(len(lp), dtype=bool)
        with self._alone():
            for s in range(len(lp)):
                at = s * row_bytes
                if function(
                    handle, True, jacobian, theta_at + at, lp_at + 8 * s, gradient_at + at, reference
                ):
                    rejected[s] = True
                    first = first or self._take(message)
                    message.value = None
        rejected |= ~(np.isfinite(lp) & np.isfinite(gradient).all(axis=1))
        if rejected.any():
            lp[rejected] = -np.inf
            gradient[rejected] = 0.0
            first = first or "the log density or its gradient is not finite"
        return first

    def constrain(
        self,
        handle: int,
        theta: FloatArray,
        out: FloatArray,
        *,
        transformed_parameters: bool,
        generated_quantities: bool,
        seed: int,
    ) -> tuple[int, str]:
        """Fill `out` (S, P) with constrained draws of `theta` (S, D); a row that fails is NaN.

        Returns: the number of rows that failed and the first message.
        """
        message = ctypes.c_char_p()
        failed, first = 0, ""
        with self._alone(), self._rng(seed) as rng:
            for row, target in zip(theta, out, strict=True):
                if self._lib.bs_param_constrain(
                    handle,
                    transformed_parameters,
                    generated_quantities,
                    row.ctypes.data,
                    target.ctypes.data,
                    rng,
                    ctypes.byref(message),
                ):
                    failed += 1
                    first = first or self._take(message)
                    message.value = None
                    target[:] = np.nan
        return failed, first

    def _alone(self) -> AbstractContextManager[None]:
        return nullcontext() if self.exclusive is None else self.exclusive

    @contextmanager
    def _rng(self, seed: int) -> Iterator[int]:
        message = ctypes.c_char_p()
        rng = self._lib.bs_rng_construct(seed, ctypes.byref(message))
        if not rng:
            raise EngineError(self._take(message) or "bs_rng_construct failed without a message")
        try:
            yield rng
        finally:
            self._lib.bs_rng_destruct(rng)

    def _take(self, message: ctypes.c_char_p) -> str:
        """The text of an error message, which is freed: each one exactly once."""
        if not message.value:
            return ""
        text = message.value.decode(errors="replace").strip()
        self._lib.bs_free_error_msg(message)
        return in_users_words(text)


def give_back_freed_memory() -> None:
    """Let the allocator return what was freed to the system, where it can (glibc); reading large data frees a lot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
