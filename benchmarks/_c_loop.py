"""The floor of every step: bare gradients in a C loop, without Python or JAX in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from avistan.density import handler
from avistan.density.handles import DensityHandles


def gradient_microseconds(
    model: DensityHandles, theta: ArrayLike, *, window: float = 0.05, windows: int = 9
) -> float:
    """Microseconds that one gradient of `model` at `theta` (D,) takes: the fastest of several windows of calls.

    Args:
        window: seconds that one window lasts, about.
        windows: how many; the fastest is the least disturbed by other programs.

    Raises:
        ValueError: Stan rejects `theta`.
        RuntimeError: avistan's compiled handler is not available.
    """
    point = np.asarray(theta, dtype=np.float64)
    addresses = model.log_density_gradient_address, model.free_error_address, model.handles(1)[0]
    repeats = 1
    while (seconds := handler.gradient_loop(*addresses, point, repeats)) < window / 4:
        repeats *= 2
    repeats = max(1, round(repeats * window / seconds))
    return 1e6 * min(handler.gradient_loop(*addresses, point, repeats) for _ in range(windows)) / repeats
