"""64-bit JAX for what Stan sees, its programs kept, without touching anybody's global configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax

from avistan.runtime.compile_cache import compile_cache


def in_float64[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with 64-bit types enabled and avistan's compile cache, and restore the caller's settings."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.enable_x64(True), compile_cache():
            return function(*args, **kwargs)

    return wrapped
