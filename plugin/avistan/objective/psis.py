"""Pareto smoothed importance weights: the one place that asks ArviZ for them.

Source: Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", JMLR 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avistan.runtime.types import FloatArray

FEWEST_WEIGHTS = 100  # whose tail, a fifth of them or less, a Pareto distribution can be fitted to
_EQUAL = 1e-6  # nats by which log weights differ when they are equal but for rounding


class Smoothed(NamedTuple):
    """Importance weights after smoothing.

    Attributes:
        log_weights: (S,), their exponentials sum to one; -inf where the raw ones are not finite.
        khat: tail index of the raw weights. Above 0.7 they can't be relied on; -inf where all are equal; nan where
            fewer than 100 are finite.
    """

    log_weights: FloatArray
    khat: float


def pareto_smoothed(log_weights: FloatArray) -> Smoothed:
    """Smooth importance weights, given their logarithms (S,) up to a constant; fewer than 100 stay as they are.

    Example:
        >>> import numpy as np
        >>> weights = pareto_smoothed(np.zeros(200))
        >>> float(np.exp(weights.log_weights).sum().round(12)), weights.khat
        (1.0, -inf)
    """
    finite = np.isfinite(log_weights)
    kept, khat = log_weights[finite], float("nan")
    if kept.size >= FEWEST_WEIGHTS:
        if np.ptp(kept) < _EQUAL:
            khat = -np.inf
        else:
            from arviz_stats.base import array_stats  # here, because a fit alone does not need it

            # `psislw` is made for leave-one-out: it takes log likelihoods, whose inverse weighs a draw.
            kept, khat = array_stats.psislw(kept.max() - kept)
    smoothed = np.full(log_weights.shape, -np.inf)
    if kept.size:
        smoothed[finite] = kept - np.logaddexp.reduce(kept)
    return Smoothed(smoothed, float(khat))


def pareto_khat(log_weights: FloatArray) -> float:
    """Tail index of importance weights (S,), those that are not finite left out; see `Smoothed`."""
    return pareto_smoothed(log_weights).khat
