"""Draws of a density that can be evaluated: from proposals by importance weights, or from a surface through values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from avistan.correction.bends import Bends, fit_bends, no_bends
from avistan.correction.laplace import Gaussian, Target
from avistan.correction.proposals import Mixture, Proposal, student
from avistan.correction.surface import Surface, fit_surface, quadratic
from avistan.objective.psis import pareto_smoothed
from avistan.runtime.progress import report_step
from avistan.runtime.types import FloatArray, Rng

KHAT = 0.7  # above which weights can't be relied on: Vehtari et al., JMLR 2024
ENOUGH = 400  # draws that weights are worth: means to a twentieth of a sd, sds to 4 %
LEAST_SHARE = (
    0.2  # of draws that they are worth: of fewer, the rest lies in tails that the proposals hardly reach
)
# Nats by which a surface may miss values: of one parameter, times the root of their number, as what is missed is shared
# by all, and the most.
_SURFACE_ERROR, _MOST_ERROR = 0.07, 0.3
_UNCERTAIN = 0.05  # standard error of a mean in sds, or of a log sd, for want of values
_BIASED = 0.07  # sds of a mean, or log of a sd, by which known values say that a surface's moments are off
# Values, and for each parameter, before a surface is believed, if so many can be had; the share of these, and the
# fewest, that are enough for one that misses fewer nats.
_SEEN, _SEEN_EACH = 72, 12
_SOONER, _FEWEST_SEEN, _SMOOTH = 0.4, 64, 0.05
_PATIENCE = 0.3  # share of the values that can be had, which are enough
_GUIDING, _GUIDED = 1.5, 0.7  # nats missed by a surface that is drawn from; share of draws that are
_EVEN, _PLENTY = (
    0.85,
    2000,
)  # share of draws, or draws, that weights are worth which are sure to reach all tails
_TEMPERED = 0.5  # share of draws that tempered weights are worth
_MANY, _HOPELESS = 1000, 0.1  # draws, after which a share that they are worth is too small to go on
# Draws of a surface, and for each draw that follows: a small part is taken, so that none is taken twice.
_POOL, _POOL_FOR_EACH = 8000, 5
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
    def is_sure(self) -> bool:
        """Whether no tail can be missed: nearly equal weights, many of them, or those of a surface."""
        even = self.effective >= min(_EVEN * len(self.theta), _PLENTY)
        return bool((self.reliable and even) or np.isfinite(self.surface_error))

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
    frame = _Frame(no_bends(target.size), mode or center)
    mixtures, done = [frame.mixture(q)], list[int]()
    known = _Known(np.empty((0, target.size)), np.empty(0), np.empty((0, target.size)), np.empty(0))
    best: Weighed | None = None
    for number, count in enumerate(counts):
        known = known.with_more(target, mixtures[-1].draw(rng, count))
        done.append(count)
        report_step(sum(done), sum(counts))
        together = Mixture(tuple(mixtures), tuple(part / sum(done) for part in done))
        known = known.proposed_by(together)
        if not np.isfinite(known.log_weights).any():
            break
        best = Weighed(known.theta, *pareto_smoothed(known.log_weights), least_share=least_share)
        if best.is_sure:
            return best
        if len(known.theta) >= _MANY and best.effective < _HOPELESS * len(known.theta):
            break
        further = counts[number + 1] if number + 1 < len(counts) else 0
        drawn = together.draw(rng, max(_POOL, _POOL_FOR_EACH * further))
        frame, pool, found = _through_values(known, frame, drawn, together.log_density(drawn), sum(counts))
        if found is not None:
            return replace(found, least_share=least_share)
        if best.reliable:
            return best
        if further:
            frame = _nearer(known, frame)
            adapted = _adapted(known, frame, q)
            if pool is not None and pool.is_guide:
                guide = Proposal(pool.draw, pool.log_density)
                adapted = Mixture((guide, adapted), (_GUIDED, 1 - _GUIDED))
            mixtures.append(adapted)
    if best is None:
        return Weighed(known.theta, np.full(len(known.theta), -np.inf), float("nan"))
    return best


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """Values (S,) and gradients (S, G) of a log density at rows (S, G), and importance weights (S,)."""

    theta: FloatArray
    log_p: FloatArray
    gradient: FloatArray
    log_weights: FloatArray

    def with_more(self, target: Target, theta: FloatArray) -> _Known:
        """The same with values at further rows; weights are not known then."""
        log_p, gradient = target.log_p_gradient(theta)
        return _Known(
            np.concatenate([self.theta, theta]),
            np.concatenate([self.log_p, log_p]),
            np.concatenate([self.gradient, gradient]),
            np.full(len(self.theta) + len(theta), np.nan),
        )

    def proposed_by(self, mixture: Mixture) -> _Known:
        """The same with weights of draws of a mixture."""
        log_weights = self.log_p - mixture.log_density(self.theta)
        return replace(self, log_weights=np.where(np.isfinite(log_weights), log_weights, -np.inf))

    @property
    def weights(self) -> FloatArray:
        """(S,) normalized, flattened so far that they are worth half of their draws."""
        return _tempered(self.log_weights, len(self.theta) * _TEMPERED)


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """Coordinates u, and a Gaussian in them that is near to the density."""

    bends: Bends
    around: Gaussian

    def mixture(self, q: Proposal) -> Mixture:
        """The Gaussian, tails around it, and q."""
        tails, near = student(self.around, _FREEDOM, _WIDER), student(self.around)
        return Mixture((self.bends.proposal(tails), q, self.bends.proposal(near)), (0.2, 0.2, 0.6))

    def read(self, known: _Known) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Rows, values and gradients in these coordinates."""
        u = self.bends.inward(known.theta)
        return u, known.log_p + self.bends.log_volume(u), self.bends.pulled(u, known.gradient)


class _Pool:
    """Draws of a proposal, weighted as draws of a surface.

    Args:
        theta, proposed: draws (S, G) and their log densities (S,).
    """

    def __init__(self, surface: Surface, bends: Bends, theta: FloatArray, proposed: FloatArray) -> None:
        self.surface, self.bends = surface, bends
        self._u = bends.inward(theta)
        self._proposed = proposed + bends.log_volume(self._u)
        log_ratios = surface.log_density(self._u) - self._proposed
        self.weighed = Weighed(theta, *pareto_smoothed(log_ratios), surface_error=surface.error)
        self._log_total = float(np.logaddexp.reduce(log_ratios)) - np.log(len(theta))

    @property
    def error(self) -> float:
        """Of the surface, nats."""
        return self.surface.error

    @property
    def is_guide(self) -> bool:
        """Whether draws of the surface are worth proposing."""
        return self.error <= _GUIDING and self.weighed.effective >= _POOL_WORTH

    def is_enough(self, error: float) -> bool:
        """Whether the surface can stand for the density, if it may miss so many nats."""
        if not (self.is_guide and self.error <= error and self.weighed.reliable):
            return False
        inside = float(np.exp(self.weighed.log_weights[self.surface.is_inside(self._u)]).sum())
        return inside >= _INSIDE and self.surface.uncertainty(self._u, self._proposed) <= _UNCERTAIN

    @property
    def weights(self) -> FloatArray:
        """(S,) normalized."""
        weights = np.exp(self.weighed.log_weights)
        return np.asarray(weights / weights.sum())

    def draw(self, rng: Rng, count: int) -> FloatArray:
        """Rows (S, G)."""
        rows = rng.choice(len(self._u), count, p=self.weights, replace=False)
        return self.weighed.theta[rows]

    def log_density(self, theta: FloatArray) -> FloatArray:
        """(S,) nats."""
        u = self.bends.inward(theta)
        return np.asarray(self.surface.log_density(u) - self.bends.log_volume(u) - self._log_total)


def _through_values(
    known: _Known, frame: _Frame, theta: FloatArray, proposed: FloatArray, most: int
) -> tuple[_Frame, _Pool | None, Weighed | None]:
    """The better of surfaces in the frame's coordinates and in bent ones, these, and its draws if it can be relied on.

    Args:
        theta, proposed: draws of a proposal, and its log densities.
        most: values that can be had.
    """
    count, size = known.theta.shape
    seen = min(_SEEN + _SEEN_EACH * size, int(_PATIENCE * most))
    if count < min(seen, max(_FEWEST_SEEN, _SOONER * seen)):
        return frame, None, None
    allowed = min(_MOST_ERROR, _SURFACE_ERROR * np.sqrt(size)) if count >= seen else _SMOOTH

    def is_enough(pool: _Pool) -> bool:
        return pool.is_enough(allowed) and _bias(known, pool) <= _BIASED

    pool = _pool(known, frame, theta, proposed)
    if pool is not None and is_enough(pool):
        return frame, pool, pool.weighed
    bent = _bent(known, pool)
    other = None if bent is None else _pool(known, bent, theta, proposed)
    if bent is None or other is None or (pool is not None and pool.error <= other.error):
        return frame, pool, None
    return bent, other, other.weighed if is_enough(other) else None


def _pool(known: _Known, frame: _Frame, theta: FloatArray, proposed: FloatArray) -> _Pool | None:
    surface = fit_surface(*frame.read(known), known.log_weights, frame.around)
    return None if surface is None else _Pool(surface, frame.bends, theta, proposed)


def _bias(known: _Known, pool: _Pool) -> float:
    """By how much means (in sds) and log sds change if the known draws are weighted as the density's in place of the
    surface's: tails that it misses are seen where a draw lies in them.
    """
    proposed = known.log_p - known.log_weights
    moments = []
    for log_density in (known.log_p, pool.log_density(known.theta)):
        log_ratios = np.where(np.isfinite(known.log_weights), log_density - proposed, -np.inf)
        weights = np.exp(log_ratios - log_ratios.max())
        weights /= weights.sum()
        mean = weights @ known.theta
        moments.append((mean, np.sqrt(weights @ (known.theta - mean) ** 2)))
    (right, wide), (mean, sd) = moments
    return float(
        max(np.abs((mean - right) / wide).max(initial=0.0), np.abs(np.log(sd / wide)).max(initial=0.0))
    )


def _bent(known: _Known, pool: _Pool | None) -> _Frame | None:
    """Coordinates in which the density is nearer to a Gaussian, by draws of a surface, or by what is known."""
    guided = pool is not None and pool.is_guide
    theta, weights = (pool.weighed.theta, pool.weights) if pool and guided else (known.theta, known.weights)
    bends = fit_bends(theta, weights)
    around = None if bends is None else _moments(bends.inward(theta), weights)
    if bends is None or around is None:
        return None
    return _nearer(known, _Frame(bends, around))


def _nearer(known: _Known, frame: _Frame) -> _Frame:
    """The frame with the Gaussian that is nearest to what is known, if that tells one."""
    around = quadratic(*frame.read(known), known.weights, frame.around)
    return frame if around is None else replace(frame, around=around)


def _adapted(known: _Known, frame: _Frame, q: Proposal) -> Mixture:
    """A t distribution with the weighted draws' mean and covariance beside the frame's, if draws tell them."""
    before = frame.mixture(q)
    size = known.theta.shape[1]
    wanted = _DRAWS_EACH * size
    if not 0 < size <= _MOST_ADAPTED or np.isfinite(known.log_weights).sum() < 2 * wanted:
        return before
    found = _moments(frame.bends.inward(known.theta), _tempered(known.log_weights, wanted))
    if found is None:
        return before
    return Mixture((frame.bends.proposal(student(found, _FREEDOM, 1.1)), before), (0.7, 0.3))


def _moments(u: FloatArray, weights: FloatArray) -> Gaussian | None:
    """Of draws (S, G) with normalized weights; None where they lie in a plane."""
    mean = weights @ u
    away = u - mean
    try:
        return Gaussian(mean, np.linalg.cholesky((weights[:, None] * away).T @ away))
    except np.linalg.LinAlgError:
        return None


def _tempered(log_weights: FloatArray, wanted: float | int) -> FloatArray:
    """Normalized weights (S,), flattened just so far that they are worth so many draws."""
    for power in (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.0):
        flat = np.where(np.isfinite(log_weights), power * log_weights, -np.inf)
        weights = np.exp(flat - flat.max())
        if weights.sum() ** 2 / (weights**2).sum() >= wanted:
            break
    return np.asarray(weights / weights.sum())
