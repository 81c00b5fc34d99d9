"""Draws of all parameters from a correction: rows of the globals, and the units given each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from avistan.correction.approximation import approximation
from avistan.correction.correct import Correction, Way, budget
from avistan.correction.marginal import Marginal, marginal_density
from avistan.fitting.fitted import Fitted
from avistan.runtime.precision import in_float64
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray, Rng

_ROWS = 64  # draws of the globals at which units' conditional densities are looked at
_NUMBERS = 32_000_000  # of units there
_FEWEST_ROWS = 16
_SHIFT, _LOG_SD = 0.12, 0.08  # sds and log sds (root mean squares) by which the units' places may be off


@dataclass(frozen=True, slots=True, eq=False)
class UnitDraws:
    """How units are drawn given the globals.

    Attributes:
        standardized: (M, d, N) draws of each unit at M draws of the globals, in coordinates in which its conditional
            density hardly depends on these: they serve all draws.
        shift, log_sd: (N,) means over draws of how far it does: of conditional means, in sds, and of log sds.
        exact: whether each draw has conditional densities of its own instead.
        evaluations: gradients of all data that this took.
    """

    standardized: FloatArray
    shift: FloatArray
    log_sd: FloatArray
    exact: bool
    evaluations: int


@in_float64
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def prepare_units(fit: Fitted, correction: Correction, seed: int) -> UnitDraws | None:
    """What draws of units given corrected globals take; None where all parameters are drawn together."""
    if correction.whole or correction.way is Way.none:
        return None
    assert correction.adjustment is not None
    rng = generator(seed, Stream.CORRECTED_UNITS)
    q = approximation(fit.family, fit.inputs)
    with marginal_density(fit.model, q, correction.adjustment) as density:
        units = max(1, q.family.num_units * density.block)
        count = int(
            np.clip(
                min(_NUMBERS // units, budget(fit.model.dim) // (4 * density.evaluations_each)),
                _FEWEST_ROWS,
                _ROWS,
            )
        )
        e, shift, log_sd = density.standardized(correction.rows(count, rng)[0], rng)
        usable = np.isfinite(e).all(axis=(1, 2))
        far = any(
            np.sqrt(np.mean(off[usable] ** 2)) > most for off, most in ((shift, _SHIFT), (log_sd, _LOG_SD))
        )
        return UnitDraws(
            standardized=e[usable],
            shift=shift[usable].mean(axis=0),
            log_sd=log_sd[usable].mean(axis=0),
            exact=far and 1000 * density.evaluations_each <= 2 * budget(fit.model.dim),
            evaluations=density.evaluations,
        )


@contextmanager
def corrected_rows(
    fit: Fitted, correction: Correction, units: UnitDraws | None, draws: int, seed: int, size: int
) -> Iterator[Iterator[tuple[int, int, FloatArray]]]:
    """Chain, number of the first draw in it, and unconstrained points (S, D) in Stan's order, at most `size` at a time.

    Args:
        draws: of all chains together.
    """
    rows = correction.rows(draws, generator(seed, Stream.CORRECTION, 1))
    if units is None:
        yield _slices(rows, size)
        return
    q = approximation(fit.family, fit.inputs)
    with marginal_density(fit.model, q, correction.adjustment) as density:
        yield _with_units(density, rows, units, seed, size)


def _slices(rows: FloatArray, size: int) -> Iterator[tuple[int, int, FloatArray]]:
    for chain, of_chain in enumerate(rows):
        for start in range(0, len(of_chain), size):
            yield chain, start, of_chain[start : start + size]


def _with_units(
    density: Marginal, rows: FloatArray, units: UnitDraws, seed: int, size: int
) -> Iterator[tuple[int, int, FloatArray]]:
    placement = density.q.family.placement
    at_globals, at_units = np.asarray(placement.global_index), np.asarray(placement.local_index).T
    step = max(1, size // density.rows * density.rows)
    for chain, start, theta in _slices(rows, step):
        points = np.empty((len(theta), density.q.family.dim))
        points[:, at_globals] = theta
        for first in range(0, len(theta), density.rows):
            some = slice(first, first + density.rows)
            rng = generator(seed, Stream.CORRECTED_UNITS, 1, chain, start + first)
            points[np.arange(len(theta))[some][:, None, None], at_units] = _units(
                density, theta[some], units, rng
            )
        yield chain, start, points


@in_float64
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def _units(density: Marginal, theta: FloatArray, units: UnitDraws, rng: Rng) -> FloatArray:
    """Draws (S, d, N)."""
    shape = len(theta), density.q.family.num_units
    chosen = rng.integers(len(units.standardized), size=shape)
    e = np.moveaxis(units.standardized[chosen, :, np.arange(shape[1])], 2, 1)
    rough = density.restored(theta, e)
    if not units.exact:
        return rough
    drawn = density.units(theta, rng)
    return np.where(np.isfinite(drawn).all(axis=(1, 2), keepdims=True), drawn, rough)
