"""The mode of a density of which values and gradients can be asked, and the Gaussian with its curvature there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from avistan.runtime.types import FloatArray

_MOST_PARAMETERS = 200  # two gradients for each, at every step
_STEPS = 15
_DIFFERENCE = 0.05  # of gradients, in sds of the density as far as they are known
_CLOSE = 0.1  # sds of a Newton step, at which the mode is found
_LONGEST = 4.0  # sds of a step
_FLATTEST, _STEEPEST = 1e-6, 1e8  # curvatures, in the scale of the start
_LENGTHS = np.array([1.0, 0.3, 0.1, 0.03, 0.01])  # of a step: the longest that leads up is taken


@runtime_checkable
class Target(Protocol):
    """A log density of rows (S, G) and its gradient, nan where there are none; it counts Stan's gradients."""

    evaluations: int

    @property
    def size(self) -> int: ...

    def log_p_gradient(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """A mean (G,) and a lower factor (G, G) of a covariance."""

    mean: FloatArray
    factor: FloatArray


def laplace(target: Target, start: Gaussian) -> Gaussian | None:
    """The mode by damped Newton steps, and the curvature there; None where there is none, or it isn't found.

    Second derivatives are differences of gradients, in coordinates that each step standardizes anew: along a ridge
    the start may be far too narrow.

    Args:
        start: where the steps begin, and what the first differences are made in.
    """
    size = target.size
    if not 0 < size <= _MOST_PARAMETERS:
        return None
    mean, factor = start.mean, start.factor
    value = -np.inf
    for _ in range(_STEPS):
        read = _curvature(target, mean, factor)
        if read is None:
            return None
        here, slope, curvature = read
        value = max(value, here)
        values, vectors = np.linalg.eigh(curvature)
        if not np.isfinite(values).all() or values[-1] > _STEEPEST:
            return None
        concave = bool(values[0] > _FLATTEST)
        sizes = np.clip(np.abs(values), _FLATTEST, None)
        along = vectors.T @ slope
        length = float(np.sqrt((along**2 / sizes).sum()))
        step = factor @ (vectors @ (along / sizes)) * min(1.0, _LONGEST / max(length, 1e-12))
        turned = factor @ (vectors / np.sqrt(sizes))
        factor = np.linalg.qr(turned.T, mode="r").T
        factor = factor * np.sign(np.diag(factor))
        if length < _CLOSE and concave:
            return Gaussian(mean + step, factor)
        steps = _LENGTHS[:, None] * step
        values_there, _ = target.log_p_gradient(mean + steps)
        better = np.flatnonzero(values_there > value)
        if not better.size:
            return Gaussian(mean, factor) if concave and length < 1.0 else None
        mean, value = mean + steps[better[0]], values_there[better[0]]
    return None


def _curvature(
    target: Target, mean: FloatArray, factor: FloatArray
) -> tuple[float, FloatArray, FloatArray] | None:
    """Value, gradient (G,) and minus the Hessian (G, G) in coordinates x with theta = mean + L x."""
    moves = _DIFFERENCE * factor.T
    values, gradients = target.log_p_gradient(np.concatenate([mean[None], mean + moves, mean - moves]))
    gradients = gradients @ factor
    if not np.isfinite(gradients).all():
        return None
    size = len(mean)
    rows = (gradients[1 + size :] - gradients[1 : 1 + size]) / (2 * _DIFFERENCE)
    return float(values[0]), gradients[0], 0.5 * (rows + rows.T)
