"""A smooth surface through values and gradients of a log density that are dear: a polynomial of low degree."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from avistan.correction.laplace import Gaussian
from avistan.runtime.types import BoolArray, FloatArray, IntArray

_DEGREES = (1, 2, 3)
_MOST_TERMS = 1000
_SPARE = 2.0  # equations for each coefficient
_GRADIENTS = 0.5  # weight of a gradient's equations, which hold approximately, beside a value's
_FOLDS = 6
_RIDGE = 1e-8
_VALUES = 0.3  # weight of a value's equation beside a gradient's, where a Gaussian is sought
_FLATTEST = 1e-4  # share of the largest curvature
_LONGEST = 8.0  # sds of a step
_INSIDE = 0.98  # of the density, beyond which a polynomial is not trusted
_FEWEST = 10  # values
_LIGHTEST, _HEAVIEST = 1e-5, 0.2  # weight of values far below the highest; share of values that count alike


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A log density up to a constant.

    Attributes:
        error: nats (sd over the density) by which values are missed that the surface did not see.
    """

    around: Gaussian
    factors: IntArray
    coefficients: FloatArray
    lowest: float
    highest: float
    radius: float
    error: float

    def log_density(self, theta: FloatArray) -> FloatArray:
        """(S,) at rows (S, G); beyond the values that were known the polynomial is constant along rays."""
        x = _standardized(theta, self.around)
        square = (x**2).sum(axis=1)
        near = x * np.minimum(1.0, self.radius / np.sqrt(np.maximum(square, 1e-12)))[:, None]
        risen = np.clip(_terms(near, self.factors) @ self.coefficients, self.lowest, self.highest)
        return np.asarray(risen - 0.5 * square)

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
        around: in whose coordinates the polynomial is one, of what the density lacks of this Gaussian.
    """
    kept = np.isfinite(log_p) & np.isfinite(log_weights) & np.isfinite(gradient).all(axis=1)
    if kept.sum() < _FEWEST:
        return None
    x = _standardized(theta[kept], around)
    value = log_p[kept] + 0.5 * (x**2).sum(axis=1)
    slope = gradient[kept] @ around.factor + x
    weights = np.exp(log_weights[kept] - log_weights[kept].max())
    worth = weights.sum() ** 2 / (weights**2).sum()
    heavy = np.maximum(np.minimum(weights, np.quantile(weights, 1 - _HEAVIEST)), _LIGHTEST * weights.max())
    root = np.sqrt(heavy)
    away = np.sqrt((x**2).sum(axis=1))
    order = np.argsort(away)
    radius = float(away[order][np.searchsorted(np.cumsum(weights[order]), _INSIDE * weights.sum())])
    inside = away <= radius
    best: Surface | None = None
    for degree in _DEGREES:
        factors = _factors(x.shape[1], degree)
        if factors is None or len(factors) * _SPARE > worth * (1 + x.shape[1]):
            break
        of_values = root[:, None] * _terms(x, factors)
        of_slopes = _GRADIENTS * root[:, None, None] * _slopes(x, factors)
        right, right_slopes = root * value, _GRADIENTS * root[:, None] * slope
        rows = np.concatenate([of_values[:, None], of_slopes], axis=1)
        told = np.concatenate([right[:, None], right_slopes], axis=1)
        folds = np.arange(len(x)) % _FOLDS
        parts = [_products(rows[folds == fold], told[folds == fold]) for fold in range(_FOLDS)]
        square, product = (sum(part) for part in zip(*parts, strict=True))
        missed = np.empty(len(x))
        for fold, (own, of_own) in enumerate(parts):
            out = folds == fold
            missed[out] = (right[out] - of_values[out] @ _solved(square - own, product - of_own)) / root[out]
        error = float(np.sqrt(np.cov(missed, aweights=heavy)))
        if best is None or error < best.error:
            found = _solved(square, product)
            seen = (of_values @ found / root)[inside]
            best = Surface(around, factors, found, float(seen.min()), float(seen.max()), radius, error)
    return best


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
    factors = _factors(size, 2)
    if factors is None or kept.sum() * (1 + size) < len(factors):
        return None
    x, root = _standardized(theta[kept], around), np.sqrt(weights[kept])
    value, slope = root * log_p[kept], root[:, None] * (gradient[kept] @ around.factor)
    rows = np.concatenate(
        [_VALUES * (root[:, None] * _terms(x, factors))[:, None], root[:, None, None] * _slopes(x, factors)],
        axis=1,
    )
    found = _solved(*_products(rows, np.concatenate([_VALUES * value[:, None], slope], axis=1)))
    curvature = np.zeros((size, size))
    for (one, other, _), coefficient in zip(factors[1 + size :], found[1 + size :], strict=True):
        curvature[one, other] -= coefficient
        curvature[other, one] -= coefficient
    values, vectors = np.linalg.eigh(curvature)
    if not values[0] > _FLATTEST * max(1.0, values[-1]):
        return None
    step = vectors @ ((vectors.T @ found[1 : 1 + size]) / values)
    step *= min(1.0, _LONGEST / max(float(np.linalg.norm(step)), 1e-12))
    turned = np.linalg.cholesky((vectors / values) @ vectors.T)
    return Gaussian(around.mean + around.factor @ step, around.factor @ turned)


def _products(rows: FloatArray, told: FloatArray) -> tuple[FloatArray, FloatArray]:
    """X'X and X'y of rows (S, 1 + G, T) and what they should give (S, 1 + G)."""
    flat = rows.reshape(-1, rows.shape[2])
    return flat.T @ flat, flat.T @ told.ravel()


def _solved(square: FloatArray, product: FloatArray) -> FloatArray:
    from scipy.linalg import cho_factor, cho_solve

    ridge = _RIDGE * np.diag(np.diag(square) + np.diag(square).max() * _RIDGE)
    return np.asarray(cho_solve(cho_factor(square + ridge), product))


def _factors(size: int, degree: int) -> IntArray | None:
    """The three factors (T, 3) of all terms up to a degree, `size` for 1; None where they are too many."""
    count = {1: 1 + size, 2: (size + 1) * (size + 2) // 2, 3: (size + 1) * (size + 2) * (size + 3) // 6}
    if count[degree] > _MOST_TERMS:
        return None
    rows = np.full((count[degree], 3), size)
    chosen = [c for d in range(degree + 1) for c in combinations_with_replacement(range(size), d)]
    for row, variables in zip(rows, chosen, strict=True):
        row[: len(variables)] = variables
    return rows


def _terms(x: FloatArray, factors: IntArray) -> FloatArray:
    """Values (S, T)."""
    with_one = np.column_stack([x, np.ones(len(x))])
    first, second, third = factors.T
    return np.asarray(with_one[:, first] * with_one[:, second] * with_one[:, third])


def _slopes(x: FloatArray, factors: IntArray) -> FloatArray:
    """Derivatives (S, G, T)."""
    with_one = np.column_stack([x, np.ones(len(x))])
    made = np.zeros((len(x), x.shape[1] + 1, len(factors)))
    at = np.arange(len(factors))
    for place in range(3):
        one, other = (factors[:, k] for k in range(3) if k != place)
        made[:, factors[:, place], at] += with_one[:, one] * with_one[:, other]
    return made[:, :-1]


def _standardized(theta: FloatArray, around: Gaussian) -> FloatArray:
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(around.factor, (theta - around.mean).T, lower=True).T)
