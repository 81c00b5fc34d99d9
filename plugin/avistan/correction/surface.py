"""A smooth surface through values and gradients of a log density that are dear: a polynomial of low degree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from avistan.correction.laplace import Gaussian
from avistan.correction.terms import (
    MOST_TERMS,
    all_factors,
    is_complete,
    slopes_of_terms,
    strongest_factors,
    values_of_terms,
)
from avistan.runtime.types import BoolArray, FloatArray, IntArray

_DEGREES = (1, 2, 3)
_NUMBERS = 4e7  # of all equations
_SPARE = 2.0  # equations for each coefficient
_GRADIENTS = 0.5  # weight of a gradient's equations, which hold approximately, beside a value's
_FOLDS = 6
_RIDGE = 1e-8
_VALUES = 0.3  # weight of a value's equation beside a gradient's, where a Gaussian is sought
_RIDGES = np.geomspace(1e-8, 10.0, 19)  # shares of the largest squared singular value
_FLATTEST = 1e-4  # share of the largest curvature
_LONGEST = 8.0  # sds of a step
_STEEPEST = 0.5  # of a Gaussian's slope, by which a density falls less beyond known values
_INSIDE = 0.98  # of the density, beyond which a polynomial is not trusted
_FEWEST = 10  # values
_LIGHTEST, _HEAVIEST = 1e-5, 0.2  # weight of values far below the highest; share of values that count alike


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A log density up to a constant.

    Attributes:
        coefficients: (T,).
        others: (6, T) of surfaces through five sixths of the values.
        error: nats (sd over the density) by which values are missed that the surface did not see.
    """

    around: Gaussian
    factors: IntArray
    coefficients: FloatArray
    others: FloatArray
    lowest: float
    highest: float
    radius: float
    error: float

    def log_density(self, theta: FloatArray) -> FloatArray:
        """(S,) at rows (S, G); beyond the values that were known the polynomial is linear along rays."""
        return np.asarray(self._log_densities(theta, self.coefficients[None])[0])

    def uncertainty(self, theta: FloatArray, log_proposal: FloatArray) -> float:
        """By how much fewer values would move means (in sds) or log sds of a parameter: the largest standard error,
        by the jackknife, found by weighting draws (S, G) of a proposal.
        """
        log_weights = self._log_densities(theta, self.others) - log_proposal
        weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        means = weights @ theta
        sds = np.sqrt(np.maximum(weights @ theta**2 - means**2, 0.0))
        moved = np.stack([means / sds.mean(axis=0), np.log(sds)])
        return float(np.sqrt((_FOLDS - 1) * moved.var(axis=1)).max(initial=0.0))

    def _log_densities(self, theta: FloatArray, coefficients: FloatArray) -> FloatArray:
        x = _standardized(theta, self.around)
        square = (x**2).sum(axis=1)
        away = np.sqrt(np.maximum(square, 1e-12))
        terms = values_of_terms(x * np.minimum(1.0, self.radius / away)[:, None], self.factors).T
        degrees = (self.factors < x.shape[1]).sum(axis=1)
        risen = np.clip(coefficients @ terms, self.lowest, self.highest)
        steepness = np.clip(
            (coefficients * degrees) @ terms / self.radius, -self.radius, _STEEPEST * self.radius
        )
        return np.asarray(risen + steepness * np.maximum(0.0, away - self.radius) - 0.5 * square)

    def is_inside(self, theta: FloatArray) -> BoolArray:
        """Whether rows (S, G) lie where values were known."""
        return np.asarray((_standardized(theta, self.around) ** 2).sum(axis=1) <= self.radius**2)


def fit_surface(
    theta: FloatArray,
    log_p: FloatArray,
    gradient: FloatArray,
    log_weights: FloatArray,
    around: Gaussian,
) -> Surface | None:
    """The best of polynomials of degree 1 to 3, by how well values left out are predicted; None of too few values.

    Args:
        theta, log_p, gradient: (S, G), (S,), (S, G), nan where not known.
        log_weights: (S,) what they count in importance sampling.
        around: what the density lacks of this Gaussian is a polynomial.
    """
    kept = np.isfinite(log_p) & np.isfinite(log_weights) & np.isfinite(gradient).all(axis=1)
    if kept.sum() < _FEWEST:
        return None
    around = _symmetric(around)
    x = _standardized(theta[kept], around)
    value = log_p[kept] + 0.5 * (x**2).sum(axis=1)
    slope = gradient[kept] @ around.factor + x
    weights = np.exp(log_weights[kept] - log_weights[kept].max())
    heavy = np.maximum(np.minimum(weights, np.quantile(weights, 1 - _HEAVIEST)), _LIGHTEST * weights.max())
    worth = heavy.sum() ** 2 / (heavy**2).sum()
    root = np.sqrt(heavy)
    away = np.sqrt((x**2).sum(axis=1))
    order = np.argsort(away)
    radius = float(away[order][np.searchsorted(np.cumsum(weights[order]), _INSIDE * weights.sum())])
    best: Surface | None = None
    right = np.column_stack([root * value, _GRADIENTS * root[:, None] * slope])
    size, inside = x.shape[1], away <= radius
    folds = np.arange(len(x)) % _FOLDS
    for factors in _choices(x, slope, heavy):
        terms = len(factors)
        if terms * _SPARE > worth * (1 + size):
            continue
        rows = np.zeros((len(x), 1 + size, terms + size))
        rows[:, 0, :terms] = root[:, None] * values_of_terms(x, factors)
        rows[:, 1:, :terms] = _GRADIENTS * root[:, None, None] * slopes_of_terms(x, factors)
        rows[:, 1:, terms:] = _GRADIENTS * root[:, None, None] * np.eye(size)
        parts = [_products(rows[folds == fold], right[folds == fold]) for fold in range(_FOLDS)]
        square, product = (sum(part) for part in zip(*parts, strict=True))
        for used in (terms, terms + size):  # gradients as they are, or each off by a constant
            missed, others = np.empty(len(x)), np.empty((_FOLDS, terms))
            for fold, (own, of_own) in enumerate(parts):
                out = folds == fold
                others[fold] = _solved(square - own, product - of_own, used)[:terms]
                missed[out] = (right[out, 0] - rows[out, 0, :terms] @ others[fold]) / root[out]
            error = float(np.sqrt(np.cov(missed, aweights=heavy)))
            if best is None or error < best.error:
                found = _solved(square, product, used)[:terms]
                seen = (rows[:, 0, :terms] @ found / root)[inside]
                lowest, highest = float(seen.min()), float(seen.max())
                best = Surface(around, factors, found, others, lowest, highest, radius, error)
    return best


def _choices(x: FloatArray, slope: FloatArray, weights: FloatArray) -> Iterator[IntArray]:
    """Terms of polynomials: of each degree, as far as they are few; and those that gradients show, of many."""
    count, size = x.shape
    cubic = all_factors(size, 3)
    for degree in _DEGREES if cubic is not None else (1,):
        factors = all_factors(size, degree)
        if factors is not None:
            yield factors
    if cubic is None or not is_complete(cubic, size):
        most = int(min(MOST_TERMS, _NUMBERS / (count * (1 + size)) - size))
        shown = strongest_factors(x, slope, weights, most)
        if shown is not None:
            yield shown


def quadratic(
    theta: FloatArray, log_p: FloatArray, gradient: FloatArray, weights: FloatArray, around: Gaussian
) -> Gaussian | None:
    """The Gaussian whose log density is nearest to values and gradients; None of too few, or where it is none.

    Args:
        weights: (S,) of the values; arguments else as of `fit_surface`.

    Source: natural gradients of Gaussians by Stein's identity, as in Khan & Rue, "The Bayesian learning rule", JMLR
    2023, with a regression in place of means.
    """
    kept = np.isfinite(log_p) & np.isfinite(gradient).all(axis=1) & (weights > 0)
    size = theta.shape[1]
    x, root = _standardized(theta[kept], around), np.sqrt(weights[kept])
    slope = root[:, None] * (gradient[kept] @ around.factor)
    factors = all_factors(size, 2)
    if factors is None:
        return _by_slopes(x, slope, root, around)
    if kept.sum() * (1 + size) < len(factors):
        return None
    rows = np.concatenate(
        [
            _VALUES * (root[:, None] * values_of_terms(x, factors))[:, None],
            root[:, None, None] * slopes_of_terms(x, factors),
        ],
        axis=1,
    )
    told = np.concatenate([_VALUES * (root * log_p[kept])[:, None], slope], axis=1)
    found = _solved(*_products(rows, told))
    curvature = np.zeros((size, size))
    for (one, other, _), coefficient in zip(factors[1 + size :], found[1 + size :], strict=True):
        curvature[one, other] -= coefficient
        curvature[other, one] -= coefficient
    return _with_curvature(curvature, found[1 : 1 + size], around)


def _by_slopes(x: FloatArray, slope: FloatArray, root: FloatArray, around: Gaussian) -> Gaussian | None:
    """The Gaussian by a ridge regression of slopes on the variables, towards the Gaussian that there is.

    Args:
        x: (S, G) standardized.
        slope: (S, G) by these, each row times the root of its weight (S,).

    Source: the ridge by generalized cross-validation, Golub, Heath & Wahba, Technometrics 1979.
    """
    size = x.shape[1]
    mean = root @ (root[:, None] * x) / (root @ root)
    wanted = slope + root[:, None] * (x - mean)
    level = root @ wanted / (root @ root)
    wanted = wanted - root[:, None] * level
    left, lengths, right = np.linalg.svd(root[:, None] * (x - mean), full_matrices=False)
    turned = left.T @ wanted
    beyond = float((wanted**2).sum() - (turned**2).sum())

    def crossed(ridge: float) -> float:
        kept = lengths**2 / (lengths**2 + ridge)
        missed = beyond + (((1 - kept)[:, None] * turned) ** 2).sum()
        return float(missed / max(1 - (1 + kept.sum()) / len(x), 1e-3) ** 2)

    ridge = min((float(lengths[0] ** 2) * share for share in _RIDGES), key=crossed)
    slopes = right.T @ ((lengths / (lengths**2 + ridge))[:, None] * turned)
    curvature = np.eye(size) - 0.5 * (slopes + slopes.T)
    return _with_curvature(curvature, level + curvature @ mean, around)


def _with_curvature(curvature: FloatArray, slope: FloatArray, around: Gaussian) -> Gaussian | None:
    """The Gaussian with this curvature and this slope at the mean, in coordinates of another; None where it is none."""
    values, vectors = np.linalg.eigh(curvature)
    if not values[0] > _FLATTEST * max(1.0, values[-1]):
        return None
    step = vectors @ ((vectors.T @ slope) / values)
    step *= min(1.0, _LONGEST / max(float(np.linalg.norm(step)), 1e-12))
    turned = np.linalg.cholesky((vectors / values) @ vectors.T)
    return Gaussian(around.mean + around.factor @ step, around.factor @ turned)


def _products(rows: FloatArray, told: FloatArray) -> tuple[FloatArray, FloatArray]:
    """X'X and X'y of rows (S, 1 + G, T) and what they should give (S, 1 + G)."""
    flat = rows.reshape(-1, rows.shape[2])
    return flat.T @ flat, flat.T @ told.ravel()


def _solved(square: FloatArray, product: FloatArray, used: int | None = None) -> FloatArray:
    """Coefficients, of the first columns alone if some are not used."""
    from scipy.linalg import cho_factor, cho_solve

    square, product = square[:used, :used], product[:used]
    ridge = _RIDGE * np.diag(np.diag(square) + np.diag(square).max() * _RIDGE)
    return np.asarray(cho_solve(cho_factor(square + ridge), product))


def _standardized(theta: FloatArray, around: Gaussian) -> FloatArray:
    return np.asarray(np.linalg.solve(around.factor, (theta - around.mean).T).T)


def _symmetric(around: Gaussian) -> Gaussian:
    """The same Gaussian, in coordinates that are as near to the parameters as can be.

    Source: Kessy, Lewin & Strimmer, "Optimal whitening and decorrelation", The American Statistician 2018.
    """
    sds = np.sqrt((around.factor**2).sum(axis=1))
    values, vectors = np.linalg.eigh((around.factor / sds[:, None]) @ (around.factor / sds[:, None]).T)
    return Gaussian(around.mean, sds[:, None] * (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
