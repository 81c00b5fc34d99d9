"""Coordinates in which skewed and heavy-tailed parameters are nearly Gaussian: a sinh-arcsinh map of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avistan.correction.proposals import Proposal
from avistan.runtime.types import FloatArray

_NORMALS = np.array([-1.645, -0.674, 0.0, 0.674, 1.645])  # whose quantiles are matched
_FIRM = 0.1  # pull of a map towards none
_MOST_SKEW, _MOST_TAIL = 1.0, 0.5  # of epsilon and log delta
_STRONG = 0.02  # from which on a map is worth having


@dataclass(frozen=True, slots=True, eq=False)
class Bends:
    """theta = center + scale (sinh(delta asinh(u) + epsilon) - sinh(epsilon)), parameter by parameter.

    Attributes:
        center, scale, epsilon, delta: (G,).

    Source: Jones & Pewsey, "Sinh-arcsinh distributions", Biometrika 2009.
    """

    center: FloatArray
    scale: FloatArray
    epsilon: FloatArray
    delta: FloatArray

    def outward(self, u: FloatArray) -> FloatArray:
        """theta (S, G)."""
        return np.asarray(self.center + self.scale * (np.sinh(self._inner(u)) - np.sinh(self.epsilon)))

    def inward(self, theta: FloatArray) -> FloatArray:
        """u (S, G)."""
        risen = np.arcsinh((theta - self.center) / self.scale + np.sinh(self.epsilon))
        return np.asarray(np.sinh((risen - self.epsilon) / self.delta))

    def slopes(self, u: FloatArray) -> FloatArray:
        """d theta / d u (S, G)."""
        return np.asarray(self.scale * self.delta * np.cosh(self._inner(u)) / np.sqrt(1 + u**2))

    def log_volume(self, u: FloatArray) -> FloatArray:
        """Log of the determinant of d theta / d u (S,)."""
        return np.asarray(np.log(self.slopes(u)).sum(axis=1))

    def pulled(self, u: FloatArray, gradient: FloatArray) -> FloatArray:
        """The gradient (S, G) of a log density of u, given that of theta's."""
        root = np.sqrt(1 + u**2)
        grown = np.tanh(self._inner(u)) * self.delta / root - u / root**2
        return np.asarray(gradient * self.slopes(u) + grown)

    def proposal(self, of: Proposal) -> Proposal:
        """Of theta, where u has this distribution."""

        def log_density(theta: FloatArray) -> FloatArray:
            u = self.inward(theta)
            return np.asarray(of.log_density(u) - self.log_volume(u))

        return Proposal(lambda rng, count: self.outward(of.draw(rng, count)), log_density)

    def _inner(self, u: FloatArray) -> FloatArray:
        return np.asarray(self.delta * np.arcsinh(u) + self.epsilon)


def no_bends(size: int) -> Bends:
    """theta itself."""
    return Bends(np.zeros(size), np.ones(size), np.zeros(size), np.ones(size))


def fit_bends(theta: FloatArray, weights: FloatArray) -> Bends | None:
    """The map by which five quantiles of each parameter of weighted draws (S, G) are those of a normal; None where
    theirs nearly are.
    """
    from scipy.optimize import least_squares
    from scipy.stats import norm

    shares = norm.cdf(_NORMALS) * weights.sum()

    def of_one(values: FloatArray) -> FloatArray:
        order = np.argsort(values)
        reached = np.cumsum(weights[order]) - 0.5 * weights[order]
        found = np.interp(shares, reached, values[order])
        median, width = found[2], (found[4] - found[0]) / (_NORMALS[4] - _NORMALS[0])
        wanted = (found - median) / max(width, 1e-300)

        def missed(numbers: FloatArray) -> FloatArray:
            log_scale, epsilon, log_delta = numbers
            made = np.sinh(np.exp(log_delta) * np.arcsinh(_NORMALS) + epsilon) - np.sinh(epsilon)
            return np.concatenate([np.exp(log_scale) * made - wanted, _FIRM * numbers])

        limits = np.array([2.0, _MOST_SKEW, _MOST_TAIL])
        log_scale, epsilon, log_delta = least_squares(missed, np.zeros(3), bounds=(-limits, limits)).x
        return np.array([median, width * np.exp(log_scale), epsilon, np.exp(log_delta)])

    made = Bends(*np.stack([of_one(column) for column in theta.T], axis=1))
    if max(np.abs(made.epsilon).max(), np.abs(np.log(made.delta)).max()) < _STRONG:
        return None
    return made
