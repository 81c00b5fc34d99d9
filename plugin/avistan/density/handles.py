"""What the density operation needs of a bound model."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stan_adapters.engine.library_lock import LibraryLock


@runtime_checkable
class DensityHandles(Protocol):
    """What the operation needs of a bound model; `stan_adapters.bound.bound_model.BoundModel` has it.

    Handles are addresses of `bs_model` objects that stay valid until the slot is closed. Threads use one each and share
    them where there are fewer handles than threads.
    """

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates."""
        ...

    @property
    def log_density_gradient_address(self) -> int:
        """Address of the library's `bs_log_density_gradient`."""
        ...

    @property
    def free_error_address(self) -> int:
        """Address of the library's `bs_free_error_msg`."""
        ...

    @property
    def exclusive(self) -> LibraryLock | None:
        """The lock of a library built without STAN_THREADS, whose calls must not overlap; else None."""
        ...

    def handles(self, count: int) -> tuple[int, ...]:
        """At least one handle; `count` is how many threads could use one each."""
        ...
