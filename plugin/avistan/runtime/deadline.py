"""A limit of time for what runs inside it: training looks at chunk ends whether it has passed, a diagnosis before each
check.

The limit holds for the calls in its block, however deep, in this thread alone; of limits within limits the first to
pass counts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from avistan.runtime.errors import FitError

clock: Callable[[], float] = time.monotonic
_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


@contextlib.contextmanager
def time_limit(seconds: float | int | None) -> Iterator[None]:
    """Limit the calls in the block to some seconds from now; None sets no limit.

    Raises:
        FitError: not a positive number of seconds.
    """
    if seconds is None:
        yield
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise FitError(f"max_seconds={seconds!r}: give a positive number of seconds.")
    token = _deadline.set(min(_deadline.get(), clock() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Until the first limit passes; infinite without one."""
    return _deadline.get() - clock()


def out_of_time() -> bool:
    """Whether a limit has passed."""
    return seconds_left() <= 0
