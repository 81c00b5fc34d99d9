"""Importance ratios of a fit: of its globals with the local latents integrated out, and draws corrected by them.

The joint ratio p(theta, z, x) / q(theta, z) of all parameters varies the more, the more units there are, so its weights
are useless long before q is bad. For separable units the marginal p(theta, x) is a product of one integral for each
unit (`units.conditional_density`), and the ratio p(theta, x) / q(theta) judges, and corrects, what is global.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from avistan.fitting.fitted import Fitted
from avistan.objective.psis import pareto_smoothed
from avistan.posterior.approximation import Approximation, approximation
from avistan.posterior.unit_marginals import log_marginals, unit_density
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray, Rng
from stan_adapters.units.conditional_density import UnitDensity, cholesky

_ROUNDS = 2  # of adapted proposals, each of half as many draws as there are of q
_FREEDOM, _WIDER = 5.0, 1.1  # t proposals, a little wider than what the weights say
_NEARLY_EQUAL = 0.5  # share of effective draws
_EQUAL = 0.9  # share at which even q's own weights leave nothing to a tail
_FIRST, _FEWEST = 4, 200  # a quarter of the draws are looked at first, but not fewer than k-hat takes
_LIGHT = 0.5  # k-hat of weights with a variance
_HOPELESS = 0.05  # share below which more of q's draws won't help
_MOST_ADAPTED, _LEAST_PER_DIMENSION = (
    60,
    5,
)  # dimensions, and draws for each, with which a covariance is found


def khat_threshold(draws: int) -> float:
    """Above which k-hat says that importance weights of so many draws can't be relied on.

    Source: Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", JMLR 2024.
    """
    return float(min(1 - 1 / np.log10(max(draws, 11)), 0.7))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GlobalsImportance:
    """Importance weights of draws of the globals.

    Attributes:
        theta: (S, G) draws of q(theta), or of it and of proposals adapted to the weights.
        log_p: (S,) log p(theta, x), nats; nan where there is none.
        log_q: (S,) log density of what `theta` was drawn from, nats.
        smoothed: (S,) Pareto smoothed and normalized log weights; -inf where there is none.
        khat: tail index of the weights.
        threshold: above which they can't be relied on.
        marginal: whether locals are integrated out; else these are weights of all parameters together.
        adapted: whether there are proposals beside q.
    """

    theta: FloatArray
    log_p: FloatArray
    log_q: FloatArray
    smoothed: FloatArray
    khat: float
    threshold: float
    marginal: bool
    adapted: bool = False

    @property
    def num_usable(self) -> int:
        return int(np.isfinite(self.log_p).sum())

    @property
    def reliable(self) -> bool:
        """Whether the weights can be used: their k-hat says so, or proposals with heavy tails left them nearly equal.

        The tail index of nearly equal weights is that of a tail in which nothing lies; of q's own draws k-hat decides
        unless they are worth nine tenths of their number.
        """
        enough = _NEARLY_EQUAL if self.adapted else _EQUAL
        nearly_equal = self.num_usable > 0 and self.effective_draws >= enough * self.num_usable
        return self.khat <= self.threshold or nearly_equal

    @property
    def effective_draws(self) -> float:
        """Independent draws of the posterior that the weighted draws are worth."""
        squares = float(np.exp(2 * self.smoothed[np.isfinite(self.smoothed)]).sum())
        return 1 / squares if squares else 0.0

    def mean_sd(self) -> tuple[FloatArray, FloatArray]:
        """Weighted means and sds (G,) of the globals on the unconstrained scale."""
        mean, covariance = _moments(self.theta, np.exp(self.smoothed))
        return mean, np.sqrt(np.diag(covariance))


def globals_importance(
    fit: Fitted, draws: int = 1000, *, seed: int | None = None, adapted: bool = False
) -> GlobalsImportance:
    """Importance weights of draws of the fit's globals, with the locals integrated out.

    Without separable units the weights are those of all parameters together, and `theta` holds all of them.

    Args:
        draws: of q(theta).
        adapted: add draws of proposals that follow the weights, see `adapt`.
    """
    density, q = unit_density(fit), approximation(fit.family, fit.inputs)
    rng = generator(fit.seed if seed is None else seed, Stream.IMPORTANCE)
    weights = weigh(fit, density, q, draws, rng)
    return adapt(fit, density, q, weights, rng) if adapted else weights


def weigh(
    fit: Fitted, density: UnitDensity | None, q: Approximation, draws: int, rng: Rng
) -> GlobalsImportance:
    """Weights of `draws` draws of q, from parts that are at hand."""
    theta = q.draw_globals(rng, draws)
    log_q = q.log_q_globals(theta)
    if density is None and fit.level is not None:
        theta, log_p, log_q = _all_parameters(fit, q, theta, log_q, rng)
    else:
        log_p = _target(fit, density, q, theta, rng)
    return _weighted(theta, log_p, log_q, marginal=density is not None)


def weigh_enough(
    fit: Fitted, density: UnitDensity | None, q: Approximation, draws: int, rng: Rng
) -> GlobalsImportance:
    """Weights of `draws` draws of q, or, where each takes integrals, of a quarter of them if these tell enough: they
    are nearly equal and their tail is light, or so few of them count that only proposals of another place can help.
    """
    if density is None:
        return weigh(fit, density, q, draws, rng)
    first = weigh(fit, density, q, min(draws, max(_FEWEST, draws // _FIRST)), rng)
    share = first.effective_draws / max(1, first.num_usable)
    enough = first.num_usable >= 2 * _LEAST_PER_DIMENSION * first.theta.shape[1]
    hopeless = share < _HOPELESS and not first.reliable and enough
    if len(first.theta) == draws or (share >= _EQUAL and first.khat <= _LIGHT) or hopeless:
        return first
    more = weigh(fit, density, q, draws - len(first.theta), rng)
    together = (
        np.concatenate(parts)
        for parts in ((first.theta, more.theta), (first.log_p, more.log_p), (first.log_q, more.log_q))
    )
    return _weighted(*together, marginal=first.marginal)


def adapt(
    fit: Fitted,
    density: UnitDensity | None,
    q: Approximation,
    weights: GlobalsImportance,
    rng: Rng,
    *,
    last: int = 0,
) -> GlobalsImportance:
    """More draws, from t distributions with the weighted draws' means and covariances, and the weights of all together.

    Each round sees what the ones before found, and all draws weigh by the mixture of what they came from: where q is
    too narrow, its neighbours make up for it. Weights that are good already are left as they are, and so are draws in
    many dimensions.

    Args:
        last: draws of the last round, if more than half as many as there are of q.

    Source: adaptive multiple importance sampling, Cornuet, Marin, Mira & Robert, Scandinavian Journal of Statistics
    2012.
    """
    size = weights.theta.shape[1]
    if weights.reliable and weights.effective_draws >= _NEARLY_EQUAL * weights.num_usable:
        return weights
    if not 0 < size <= _MOST_ADAPTED or weights.num_usable < _LEAST_PER_DIMENSION * size:
        return weights
    parts: list[tuple[FloatArray, FloatArray]] = []
    draws = len(weights.theta) // 2
    theta, log_p, counts = weights.theta, weights.log_p, [len(weights.theta)]
    log_densities = [weights.log_q]
    for number in range(_ROUNDS):
        if number == _ROUNDS - 1:
            draws = max(draws, last)
        log_mixture = _mixture(log_densities, counts)
        tempered = _tempered(np.where(np.isfinite(log_p), log_p - log_mixture, -np.inf), size)
        mean, covariance = _moments(theta, tempered)
        factor = cholesky(_WIDER**2 * covariance)
        parts.append((mean, factor))
        normal = rng.standard_normal((draws, size))
        scale = np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, (draws, 1)))
        fresh = mean + (scale * normal) @ factor.T
        log_p = np.concatenate([log_p, _target(fit, density, q, fresh, rng)])
        own = q.log_q_globals(fresh)
        theta = np.concatenate([theta, fresh])
        log_densities[0] = np.concatenate([log_densities[0], own])
        counts.append(draws)
        log_densities = [log_densities[0], *(_log_student(theta, *part) for part in parts)]
    log_mixture = _mixture(log_densities, counts)
    return replace(_weighted(theta, log_p, log_mixture, marginal=weights.marginal), adapted=True)


def _target(
    fit: Fitted, density: UnitDensity | None, q: Approximation, theta: FloatArray, rng: Rng
) -> FloatArray:
    """log p(theta, x) (S,) nats, nan where there is none."""
    if density is None:
        log_p = fit.model.log_density_gradient(theta)[0]
        return np.where(np.isfinite(log_p), log_p, np.nan)
    return log_marginals(density, q, theta, rng).values


def _all_parameters(
    fit: Fitted, q: Approximation, theta: FloatArray, log_q: FloatArray, rng: Rng
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draws (S, D) of all parameters of coupled units, their log densities and log q."""
    assert fit.level is not None
    parts = UnitDensity(fit.model, fit.level.index, fit.level.globals_index(fit.model.dim))
    points, log_p = np.empty((len(theta), fit.model.dim)), np.empty(len(theta))
    for rows in parts.batches(len(theta)):
        z, log_q_units = q.draw_units(rng, theta[rows])
        points[rows] = parts.points(theta[rows], z)
        log_p[rows] = fit.model.log_density_gradient(points[rows])[0]
        log_q[rows] += log_q_units.sum(axis=1)
    return points, np.where(np.isfinite(log_p), log_p, np.nan), log_q


def _weighted(
    theta: FloatArray, log_p: FloatArray, log_q: FloatArray, *, marginal: bool
) -> GlobalsImportance:
    smoothed, khat = pareto_smoothed(log_p - log_q)
    return GlobalsImportance(
        theta=theta,
        log_p=log_p,
        log_q=log_q,
        smoothed=smoothed,
        khat=khat,
        threshold=khat_threshold(int(np.isfinite(log_p).sum())),
        marginal=marginal,
    )


def _moments(theta: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (G,) and covariance (G, G) of draws (S, G) with weights (S,) of any sum."""
    weights = weights / weights.sum()
    mean = weights @ theta
    away = theta - mean
    return mean, (weights[:, None] * away).T @ away


def _mixture(log_densities: list[FloatArray], counts: list[int]) -> FloatArray:
    """Log density (S,) of the mixture that draws came from, each component by its share of them."""
    shares = np.log(np.array(counts) / sum(counts))
    stacked = np.stack(log_densities) + shares[: len(log_densities), None]
    return np.asarray(np.logaddexp.reduce(stacked, axis=0))


def _tempered(log_weights: FloatArray, size: int) -> FloatArray:
    """Weights (S,), flattened just so far that they are worth enough draws for a covariance of this size."""
    wanted = min(_LEAST_PER_DIMENSION * size, 0.5 * np.isfinite(log_weights).sum())
    for power in (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.0):
        flat = np.where(np.isfinite(log_weights), power * log_weights, -np.inf)
        weights = np.exp(flat - np.max(flat))
        if weights.sum() ** 2 / (weights**2).sum() >= wanted:
            break
    return np.asarray(weights)


def _log_student(theta: FloatArray, mean: FloatArray, factor: FloatArray) -> FloatArray:
    """Log density (S,) of a t distribution with lower factor (G, G) of its scale matrix."""
    from scipy.special import gammaln

    size = len(mean)
    away = np.linalg.solve(factor, (theta - mean).T)
    whole = gammaln(0.5 * (_FREEDOM + size)) - gammaln(0.5 * _FREEDOM) - 0.5 * size * np.log(np.pi * _FREEDOM)
    tail = 0.5 * (_FREEDOM + size) * np.log1p((away**2).sum(axis=0) / _FREEDOM)
    return np.asarray(whole - np.log(np.diagonal(factor)).sum() - tail)
