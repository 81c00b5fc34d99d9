"""How operations call Stan: through the compiled handler, or through Python where that was not built."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import jax

from avistan.density import handler

Backend = Literal["native", "callback"]
_chosen_backend: contextvars.ContextVar[Backend | None] = contextvars.ContextVar(
    "avistan_backend", default=None
)
_traced_for: Backend | None = None


def native_available() -> bool:
    """True when the compiled handler was built and AVISTAN_NO_NATIVE does not switch it off."""
    return handler.library() is not None


def backend() -> Backend:
    """How operations traced now will call Stan: "native" (compiled handler) or "callback" (`jax.pure_callback`)."""
    if not (_chosen_backend.get() or native_available()):
        handler.tell_of_its_absence()
    return _present()


def _present() -> Backend:
    return _chosen_backend.get() or ("native" if native_available() else "callback")


def trace_for_backend() -> None:
    """Forget what JAX traced for the other backend: it keeps programs by their arguments alone."""
    global _traced_for
    if _traced_for not in (None, _present()):
        jax.clear_caches()
    _traced_for = _present()


@contextlib.contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Choose the backend of all operations inside the block; what JAX compiled for the other one is compiled again.

    Raises:
        RuntimeError: "native" is asked for and the handler is not available.
    """
    if name == "native" and not native_available():
        raise RuntimeError(
            "the compiled handler is not available: unset AVISTAN_NO_NATIVE, or reinstall with a compiler."
        )
    token = _chosen_backend.set(name)
    try:
        trace_for_backend()
        yield
    finally:
        _chosen_backend.reset(token)
        trace_for_backend()
