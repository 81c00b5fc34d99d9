"""Draws of a density that can be evaluated: from proposals by importance weights, or from a surface through values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avistan.correction.laplace import Gaussian, Target
from avistan.correction.proposals import Mixture, Proposal, student
from avistan.correction.surface import fit_surface, quadratic
from avistan.objective.psis import pareto_smoothed
from avistan.runtime.progress import report_step
from avistan.runtime.types import FloatArray, Rng

KHAT = 0.7  # above which weights can't be relied on: Vehtari et al., JMLR 2024
ENOUGH = 400  # draws that weights are worth: means to a twentieth of a sd, sds to 4 %
LEAST_SHARE = (
    0.2  # of draws that they are worth: of fewer, the rest lies in tails that the proposals hardly reach
)
_SURFACE_ERROR = 0.1  # nats by which a surface may miss values: it moves means by a fraction of that in sds
_LAST_ERROR = 0.2  # where no more values can be had
_TEMPERED = 0.5  # share of draws that tempered weights are worth
_MANY, _HOPELESS = 1000, 0.1  # draws, after which a share that they are worth is too small to go on
_POOL = 8000  # draws of a surface, and
_SEEN = 96  # values before a surface through them is believed, if so many can be had
_INSIDE = 0.9  # of a surface's density where values were known
_POOL_WORTH = 1000  # what their weights must be worth
_FREEDOM, _WIDER = 5.0, 1.2  # of the proposal that looks for tails
_DRAWS_EACH = 5  # for each parameter, with which moments are found
_MOST_ADAPTED = 60  # parameters


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """Weighted draws of a density.

    Attributes:
        theta: (S, G).
        log_weights: (S,) normalized, -inf where there is no density.
        khat: tail index of the weights before they were smoothed.
        surface_error: nats by which the surface that gave the weights misses values; nan where values gave them.
        least_share: of the draws that they must be worth to be relied on.
    """

    theta: FloatArray
    log_weights: FloatArray
    khat: float
    surface_error: float = float("nan")
    least_share: float = LEAST_SHARE

    @property
    def effective(self) -> float:
        """Independent draws that they are worth."""
        squares = float(np.exp(2 * self.log_weights).sum())
        return 1 / squares if squares > 0 else 0.0

    @property
    def reliable(self) -> bool:
        share = self.effective / max(1, len(self.theta))
        enough = self.effective >= ENOUGH and share >= self.least_share
        return bool(enough and (self.khat <= KHAT or self._nearly_equal))

    @property
    def _nearly_equal(self) -> bool:
        """The tail index of nearly equal weights is that of a tail in which nothing lies."""
        return self.effective >= 0.9 * len(self.theta)


def weigh(
    target: Target,
    q: Proposal,
    center: Gaussian,
    mode: Gaussian | None,
    counts: Sequence[int],
    rng: Rng,
    *,
    least_share: float = LEAST_SHARE,
) -> Weighed:
    """Weighted draws, reliable or not, from rounds of draws and the density's values at them.

    Args:
        q: a proposal that is at hand.
        center: its mean and covariance.
        mode: of the density and its curvature there, if known.
        least_share: of the draws that weights must be worth.
        counts: draws of each round. Rounds end when weights, or a surface through the values, can be relied on.

    Source: adaptive multiple importance sampling, Cornuet, Marin, Mira & Robert, Scandinavian Journal of Statistics
    2012.
    """
    around = mode or center
    mixtures, done = [_around(around, q)], list[int]()
    theta, log_p, gradient = np.empty((0, target.size)), np.empty(0), np.empty((0, target.size))
    best: Weighed | None = None
    for number, count in enumerate(counts):
        fresh = mixtures[-1].draw(rng, count)
        values, slopes = target.log_p_gradient(fresh)
        theta, log_p = np.concatenate([theta, fresh]), np.concatenate([log_p, values])
        gradient = np.concatenate([gradient, slopes])
        done.append(count)
        report_step(sum(done), sum(counts))
        together = Mixture(tuple(mixtures), tuple(part / sum(done) for part in done))
        log_weights = log_p - together.log_density(theta)
        log_weights = np.where(np.isfinite(log_weights), log_weights, -np.inf)
        if not np.isfinite(log_weights).any():
            break
        best = Weighed(theta, *pareto_smoothed(log_weights), least_share=least_share)
        if best.reliable:
            return best
        if sum(done) >= _MANY and best.effective < _HOPELESS * len(theta):
            break
        surface = fit_surface(theta, log_p, gradient, log_weights, around)
        enough = len(theta) >= min(_SEEN, sum(counts) // 2)  # to have met tails
        allowed = _SURFACE_ERROR if number + 1 < len(counts) else _LAST_ERROR
        if enough and surface is not None and surface.error <= allowed:
            pool = together.draw(rng, _POOL)
            drawn = Weighed(
                pool,
                *pareto_smoothed(surface.log_density(pool) - together.log_density(pool)),
                surface_error=surface.error,
                least_share=least_share,
            )
            inside = float(np.exp(drawn.log_weights[surface.is_inside(pool)]).sum())
            if drawn.reliable and drawn.effective >= _POOL_WORTH and inside >= _INSIDE:
                return drawn
        if number + 1 < len(counts):
            weights = _tempered(log_weights, len(theta) * _TEMPERED)
            nearer = quadratic(theta, log_p, gradient, weights, around)
            if nearer is not None:
                around = nearer
            mixtures.append(_adapted(theta, log_weights, _around(around, q)))
    if best is None:
        return Weighed(theta, np.full(len(theta), -np.inf), float("nan"))
    return best


def _around(gaussian: Gaussian, q: Proposal) -> Mixture:
    """A Gaussian, tails around it, and q."""
    return Mixture((student(gaussian, _FREEDOM, _WIDER), q, student(gaussian)), (0.2, 0.2, 0.6))


def _adapted(theta: FloatArray, log_weights: FloatArray, before: Mixture) -> Mixture:
    """A t distribution with the weighted draws' mean and covariance beside the first proposals, if draws tell them."""
    size = theta.shape[1]
    wanted = _DRAWS_EACH * size
    if not 0 < size <= _MOST_ADAPTED or np.isfinite(log_weights).sum() < 2 * wanted:
        return before
    weights = _tempered(log_weights, wanted)
    mean = weights @ theta
    away = theta - mean
    covariance = (weights[:, None] * away).T @ away
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return before
    return Mixture((student(Gaussian(mean, factor), _FREEDOM, 1.1), before), (0.7, 0.3))


def _tempered(log_weights: FloatArray, wanted: float | int) -> FloatArray:
    """Normalized weights (S,), flattened just so far that they are worth so many draws."""
    for power in (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.0):
        flat = np.where(np.isfinite(log_weights), power * log_weights, -np.inf)
        weights = np.exp(flat - flat.max())
        if weights.sum() ** 2 / (weights**2).sum() >= wanted:
            break
    return np.asarray(weights / weights.sum())
