"""ELBO against steps and seconds, of any method: what training saw, smoothed, and when it came near the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avistan.runtime.types import FloatArray
from avistan.training.loop import Trace

_SMOOTH_SHARE = 0.01  # of all steps, half the window over which a trace is averaged


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A method's ELBO on its way: steps done (T,), seconds since the first step (T,), ELBO in nats (T,).

    Of avistan's own methods it is smoothed; one from outside gives estimates at some steps.
    """

    steps: FloatArray
    seconds: FloatArray
    elbo: FloatArray


@dataclass(frozen=True, slots=True)
class Reached:
    """Steps and seconds of training until an ELBO was reached."""

    steps: int
    seconds: float


def curve(trace: Trace) -> Curve:
    """The curve of a training run; seconds are interpolated between the ends of its chunks."""
    steps = np.arange(1, len(trace.elbo) + 1, dtype=float)
    return Curve(steps, np.interp(steps, trace.chunk_steps, trace.seconds), smooth(trace.elbo))


def first_at(curve: Curve, elbo: float) -> Reached | None:
    """Where a curve first is at `elbo` nats or above; None if never."""
    there = np.flatnonzero(curve.elbo >= elbo)
    if not there.size:
        return None
    first = int(there[0])
    return Reached(int(curve.steps[first]), float(curve.seconds[first]))


def smooth(values: FloatArray) -> FloatArray:
    """Running mean under a bell-shaped window of 2 % of the steps; what is not finite is left out."""
    half = max(12, int(_SMOOTH_SHARE * len(values)))
    window = np.hanning(2 * half + 3)[1:-1]
    finite = np.isfinite(values)
    padded = np.pad(np.where(finite, values, 0.0), half), np.pad(finite.astype(float), half)
    sums, weights = (np.convolve(part, window, mode="valid") for part in padded)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(weights > 0, sums / weights, np.nan))
