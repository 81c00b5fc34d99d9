"""One thread for numpy's matrix products while a fit trains.

The products of a fit are small, and between them OpenBLAS' threads spin: they would take the processors from the
threads that evaluate Stan's gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from threadpoolctl import ThreadpoolController


def one_blas_thread[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with BLAS on one thread, and restore the caller's setting."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return wrapped


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
