"""Monomials of several variables up to the third degree: all of them, or those that gradients show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np

from avistan.runtime.types import FloatArray, IntArray

MOST_TERMS = 1500
_SHOWN = 2.5  # standard errors from zero, of a coefficient that is shown
_MOST_SCREENED = 150  # variables


def all_factors(size: int, degree: int) -> IntArray | None:
    """The three factors (T, 3) of all terms up to a degree, `size` for 1; of degree 3 without products of three
    variables if these are too many; None where all are.
    """
    chosen = [c for d in range(min(degree, 2) + 1) for c in combinations_with_replacement(range(size), d)]
    if degree == 3:
        all_of_them = size * (size + 1) * (size + 2) // 6 + len(chosen) <= MOST_TERMS
        if all_of_them:
            chosen += combinations_with_replacement(range(size), 3)
        else:
            chosen += [(one, one, other) for one in range(size) for other in range(size)]
    return None if len(chosen) > MOST_TERMS else _rows(chosen, size)


def is_complete(factors: IntArray, size: int) -> bool:
    """Whether products of three variables are among the terms, or there are none."""
    return len(factors) == (size + 1) * (size + 2) * (size + 3) // 6


def strongest_factors(x: FloatArray, slope: FloatArray, weights: FloatArray, most: int) -> IntArray | None:
    """The constant, all variables, and those terms of degree 2 and 3 that gradients show most clearly; None of too many
    variables.

    A coefficient is the mean of a slope times the Hermite polynomial of the other factors, which is what it would be
    were the variables normal; it is judged by its standard error.

    Args:
        x, slope, weights: variables (S, G) with sds near one, a function's derivatives by them (S, G), and what each
            row counts (S,).
        most: terms.

    Source: Stein's identity; the choice is sure independence screening, Fan & Lv, JRSS B 2008.
    """
    size = x.shape[1]
    if size > _MOST_SCREENED:
        return None
    weights = weights / weights.sum()
    worth = 1 / (weights**2).sum()
    away = x - weights @ x
    away = away / np.sqrt(weights @ away**2)
    steep = slope - weights @ slope
    inverse = np.linalg.pinv((weights[:, None] * away).T @ away, hermitian=True)
    linear = inverse @ ((weights[:, None] * away).T @ steep)
    rest = steep - away @ linear
    noise = np.sqrt((weights[:, None] * away**2).T @ rest**2 / worth)
    clear = np.abs(linear + linear.T) / (noise + noise.T + 1e-300)
    shown: list[tuple[float, tuple[int, ...]]] = [
        (float(clear[one, other]), (one, other))
        for one, other in combinations_with_replacement(range(size), 2)
    ]
    mean, variance = np.empty((size, size, size)), np.empty((size, size, size))
    for k in range(size):
        mean[k] = (away * (weights * rest[:, k])[:, None]).T @ away
        variance[k] = (away**2 * (weights * rest[:, k] ** 2)[:, None]).T @ away**2 / worth
    half = 1 / (1 + np.eye(size))  # a square's Hermite polynomial has twice the variance of a product
    mean, variance = mean * half, variance * half**2
    together = mean + mean.transpose(1, 0, 2) + mean.transpose(2, 1, 0)
    doubt = variance + variance.transpose(1, 0, 2) + variance.transpose(2, 1, 0)
    triple = np.abs(together) / np.sqrt(3 * doubt + 1e-300)
    places = np.argwhere(triple > _SHOWN)
    ordered = places[(np.diff(places, axis=1) >= 0).all(axis=1)]
    shown += [(triple[tuple(place)], tuple(place)) for place in ordered]
    best = sorted((pair for pair in shown if pair[0] > _SHOWN), key=lambda pair: (-pair[0], pair[1]))
    chosen: list[tuple[int, ...]] = [(), *((one,) for one in range(size)), *(place for _, place in best)]
    return _rows(chosen[: max(most, 1 + size)], size)


def _rows(chosen: Sequence[Sequence[int]], size: int) -> IntArray:
    rows = np.full((len(chosen), 3), size)
    for row, variables in zip(rows, chosen, strict=True):
        row[: len(variables)] = variables
    return rows


def values_of_terms(x: FloatArray, factors: IntArray) -> FloatArray:
    """Values (S, T)."""
    with_one = np.column_stack([x, np.ones(len(x))])
    first, second, third = factors.T
    return np.asarray(with_one[:, first] * with_one[:, second] * with_one[:, third])


def slopes_of_terms(x: FloatArray, factors: IntArray) -> FloatArray:
    """Derivatives (S, G, T)."""
    with_one = np.column_stack([x, np.ones(len(x))])
    made = np.zeros((len(x), x.shape[1] + 1, len(factors)))
    at = np.arange(len(factors))
    for place in range(3):
        one, other = (factors[:, k] for k in range(3) if k != place)
        made[:, factors[:, place], at] += with_one[:, one] * with_one[:, other]
    return made[:, :-1]
