"""One thread at a time in libraries that were built without STAN_THREADS.

Such a library has one autodiff stack for the whole process: calls from any thread are right as long as no two overlap
(Stan Math, `rev/core/autodiffstackstorage.hpp`). Libraries of older builds even share that stack, so there is one lock
for all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class LibraryLock:
    """A lock that the thread which holds it may take again, for use in `with`.

    Code outside of Python that calls such libraries too, from threads of its own, has a mutex; `share` makes both one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._outside: tuple[Callable[[], None], Callable[[], None]] | None = None
        self._taken: tuple[Callable[[], None], Callable[[], None]] | None = None

    def share(self, acquire: Callable[[], None], release: Callable[[], None]) -> None:
        """From now on take the mutex behind these functions too. They are called in pairs, from one thread, without
        nesting.
        """
        with self._lock:
            self._outside = acquire, release

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1 and self._outside is not None:
            self._outside[0]()
            self._taken = self._outside

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and self._taken is not None:
            taken, self._taken = self._taken, None
            taken[1]()
        self._lock.release()


ONE_AT_A_TIME = LibraryLock()


def is_thread_safe(info: str) -> bool:
    """Whether a library may be called from several threads at once, by the text of `bs_model_info`."""
    return "STAN_THREADS=true" in info
