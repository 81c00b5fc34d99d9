"""How operations call Stan: through the compiled handler, or through Python where that was not built."""

from __future__ import annotations

from typing import Literal

import jax

from avistan.density import handler

Backend = Literal["native", "callback"]
_traced_for: Backend | None = None


def native_available() -> bool:
    """True when the compiled handler was built and AVISTAN_NO_NATIVE does not switch it off."""
    return handler.library() is not None


def backend() -> Backend:
    """How operations traced now will call Stan: "native" (compiled handler) or "callback" (`jax.pure_callback`)."""
    if native_available():
        return "native"
    handler.tell_of_its_absence()
    return "callback"


def trace_for_backend() -> None:
    """Forget what JAX traced for the other backend: it keeps programs by their arguments alone."""
    global _traced_for
    present: Backend = "native" if native_available() else "callback"
    if _traced_for not in (None, present):
        jax.clear_caches()
    _traced_for = present
