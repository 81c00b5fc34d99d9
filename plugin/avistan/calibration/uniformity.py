"""Whether ranks are uniform: simultaneous envelopes of their ECDF, with exact probabilities.

Of R ranks on 0..L, C_k is how many are below k, for k = 1..L. An envelope holds every C_k with equal pointwise tails;
its probability under uniform ranks is a sum over Poisson counts in the L + 1 cells, given that they add up to R.
Source: Säilynoja, Bürkner & Vehtari, "Graphical test for discrete uniformity", Statistics and Computing 2022.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from scipy import stats

from avistan.runtime.types import FloatArray, IntArray

_ROUNDING = 1 + 1e-9  # tails this close are equal
_HALVINGS = 50


class Shape(enum.StrEnum):
    """What the ranks of true values say about the posteriors they were ranked in."""

    TOO_NARROW = "too narrow"
    TOO_WIDE = "too wide"
    TOO_LOW = "too low"
    TOO_HIGH = "too high"
    UNEVEN = "uneven"

    @property
    def meaning(self) -> str:
        """A sentence."""
        return {
            Shape.TOO_NARROW: "true values lie in the tails of the posterior too often: it is overconfident.",
            Shape.TOO_WIDE: "true values lie in the middle of the posterior too often: it is underconfident.",
            Shape.TOO_LOW: "true values lie above the posterior too often: it is biased downwards.",
            Shape.TOO_HIGH: "true values lie below the posterior too often: it is biased upwards.",
            Shape.UNEVEN: "the ranks are not uniform, though neither their mean nor their spread is off.",
        }[self]


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """Where the ECDF of uniform ranks lies at all edges at once: shares `lower` and `upper` (L,) at `edges` (L,)."""

    edges: FloatArray
    lower: FloatArray
    upper: FloatArray


def envelope(num_ranks: int, num_draws: int, probability: float) -> Envelope:
    """The narrowest envelope of equal pointwise tails that holds uniform ranks with at least this probability."""
    edges = _edges(num_draws)
    low, high = np.log(1 - probability) - np.log(2 * num_draws), np.log(0.5)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = _probability_of(*_band(np.exp(middle), num_ranks, edges), num_ranks)
        low, high = (middle, high) if inside >= probability else (low, middle)
    lower, upper = _band(np.exp(low), num_ranks, edges)
    return Envelope(edges, lower / num_ranks, upper / num_ranks)


def p_value(ranks: IntArray, num_draws: int) -> float:
    """Probability under uniformity of an ECDF that strays at least as far, anywhere, as that of ranks (R,) on 0..L."""
    edges = _edges(num_draws)
    counts = counts_below(ranks, num_draws)
    below = stats.binom.cdf(counts, len(ranks), edges)
    above = stats.binom.sf(counts - 1, len(ranks), edges)
    furthest = float(np.minimum(below, above).min()) * _ROUNDING
    return float(np.clip(1 - _probability_of(*_band(furthest, len(ranks), edges), len(ranks)), 0, 1))


def counts_below(ranks: IntArray, num_draws: int) -> IntArray:
    """How many of the ranks (R,) are below 1, 2, ..., L: (L,)."""
    return np.cumsum(np.bincount(ranks, minlength=num_draws + 1))[:-1]


def shape(ranks: IntArray, num_draws: int) -> Shape:
    """The plainest departure from uniformity: of the mean, else of the spread."""
    u = (ranks + 0.5) / (num_draws + 1) - 0.5
    bias = float(u.mean() * np.sqrt(12 * len(u)))
    spread = float((u.var() - 1 / 12) * np.sqrt(180 * len(u)))
    if max(abs(bias), abs(spread)) < 2:
        return Shape.UNEVEN
    if abs(bias) > abs(spread):
        return Shape.TOO_LOW if bias > 0 else Shape.TOO_HIGH
    return Shape.TOO_NARROW if spread > 0 else Shape.TOO_WIDE


def _edges(num_draws: int) -> FloatArray:
    return np.arange(1, num_draws + 1) / (num_draws + 1)


def _band(tail: float, num_ranks: int, edges: FloatArray) -> tuple[IntArray, IntArray]:
    """Least and most counts whose pointwise tail probabilities exceed or equal `tail`."""
    lower = np.maximum(stats.binom.ppf(tail, num_ranks, edges), 0)
    upper = num_ranks - np.maximum(stats.binom.ppf(tail, num_ranks, 1 - edges), 0)
    return lower.astype(np.int64), upper.astype(np.int64)


def _probability_of(lower: IntArray, upper: IntArray, num_ranks: int) -> float:
    """Probability that uniform ranks have all counts within the band."""
    mean = num_ranks / (len(lower) + 1)
    cell = stats.poisson.pmf(np.arange(num_ranks + 1), mean)
    cell = cell[: int(np.flatnonzero(cell > 1e-20).max()) + 1]
    weights = np.ones(1)  # of the counts from 0 on
    for least, most in zip(lower, upper, strict=True):
        weights = np.convolve(weights, cell)[: int(most) + 1]
        weights[: int(least)] = 0.0
    last = np.convolve(weights, cell)
    total = last[num_ranks] if len(last) > num_ranks else 0.0
    return float(total / stats.poisson.pmf(num_ranks, num_ranks))
