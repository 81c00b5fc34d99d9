"""Distributions that draws of the globals come from before they are weighed, and mixtures of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avistan.correction.laplace import Gaussian
from avistan.runtime.types import FloatArray, Rng


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What draws rows (S, G), and its log density (S,) at such."""

    draw: Callable[[Rng, int], FloatArray]
    log_density: Callable[[FloatArray], FloatArray]


def student(of: Gaussian, freedom: float = np.inf, wider: float = 1.0) -> Proposal:
    """The t distribution with this location and scale, `wider` times; normal by default."""
    from scipy.special import gammaln

    size, factor = len(of.mean), wider * of.factor
    half = 0.5 * (freedom + size)

    def draw(rng: Rng, count: int) -> FloatArray:
        normals = rng.standard_normal((count, size))
        if np.isfinite(freedom):
            normals *= np.sqrt(freedom / rng.chisquare(freedom, (count, 1)))
        return of.mean + normals @ factor.T

    def log_density(theta: FloatArray) -> FloatArray:
        from scipy.linalg import solve_triangular

        away = solve_triangular(factor, (theta - of.mean).T, lower=True)
        square, volume = (away**2).sum(axis=0), np.log(np.abs(np.diag(factor))).sum()
        if not np.isfinite(freedom):
            return np.asarray(-0.5 * square - volume - 0.5 * size * np.log(2 * np.pi))
        whole = gammaln(half) - gammaln(0.5 * freedom) - 0.5 * size * np.log(np.pi * freedom)
        return np.asarray(whole - volume - half * np.log1p(square / freedom))

    return Proposal(draw, log_density)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Proposals with their shares, which sum to one."""

    parts: tuple[Proposal | Mixture, ...]
    shares: tuple[float, ...]

    def draw(self, rng: Rng, count: int) -> FloatArray:
        """Rows (S, G), as many of each part as its share says."""
        ends = np.round(np.cumsum(self.shares) * count).astype(int)
        counts = np.diff(ends, prepend=0)
        drawn = [
            part.draw(rng, int(number)) for part, number in zip(self.parts, counts, strict=True) if number
        ]
        return rng.permutation(np.concatenate(drawn))

    def log_density(self, theta: FloatArray) -> FloatArray:
        """(S,) nats."""
        each = [
            np.log(share) + part.log_density(theta)
            for part, share in zip(self.parts, self.shares, strict=True)
            if share
        ]
        return np.asarray(np.logaddexp.reduce(np.stack(each)))
