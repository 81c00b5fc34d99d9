"""Whether two approximations say the same of the units' latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avistan.comparison.results import Comparison
from avistan.comparison.rows import Row, free_factors
from avistan.runtime.entries import evenly
from avistan.runtime.types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class RowMarginals:
    """Means and sds (D,) on the unconstrained scale. `number`: the row's; None for a reference."""

    label: str
    number: int | None
    mean: FloatArray
    sd: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """One latent of all units, or of some: what the two say of it.

    Attributes:
        means, sds: (2, n): first those to measure against, then the others.
        error: |difference of means| in sds of the one to measure against (N,), for all units.
        ratio: sd over sd (N,).
    """

    label: str
    means: FloatArray
    sds: FloatArray
    error: FloatArray
    ratio: FloatArray


def agreements(
    comparison: Comparison, of: RowMarginals, against: RowMarginals, *, points: int = 1500, most: int = 3
) -> list[Agreement]:
    """One for each of the first latents of a unit.

    Args:
        points: most units kept in `means` and `sds`, spread evenly.
        most: latents.
    """
    level = comparison.level
    if level is None:
        return []
    units = evenly(level.num_units, points)
    found = []
    for column in range(min(level.block, most)):
        where = level.index[:, column]
        shown = where[units]
        found.append(
            Agreement(
                label=_latent_label(comparison, column),
                means=np.stack([against.mean[shown], of.mean[shown]]),
                sds=np.stack([against.sd[shown], of.sd[shown]]),
                error=np.abs(of.mean[where] - against.mean[where]) / against.sd[where],
                ratio=of.sd[where] / against.sd[where],
            )
        )
    return found


def marginals(comparison: Comparison, row: Row) -> RowMarginals | None:
    """A row's; None where it failed."""
    if row.mean is None or row.sd is None:
        return None
    number = next(n for n, other in enumerate(comparison.rows) if other is row)
    return RowMarginals(row.method, number, row.mean, row.sd)


def pairs(comparison: Comparison) -> Sequence[tuple[RowMarginals, RowMarginals]]:
    """What to set against what: the first amortized method against F-VI and the reference, else F-VI against that."""
    of = next((row for row in comparison.rows if row.amortized), None)
    fvi = free_factors(comparison.rows, of)
    reference = comparison.reference
    truth = None if reference is None else RowMarginals(reference.name, None, reference.mean, reference.sd)
    first, free = (None if row is None else marginals(comparison, row) for row in (of, fvi))
    wanted = [(first, free), (first or free, truth)]
    return [(one, other) for one, other in wanted if one is not None and other is not None]


def _latent_label(comparison: Comparison, column: int) -> str:
    """The parameter, with the place within a unit where it has several: "beta[,2]"."""
    level = comparison.level
    assert level is not None
    for name, columns in level.member_columns(comparison.model.layout).items():
        if columns.start <= column < columns.stop:
            size = columns.stop - columns.start
            return name if size == 1 else f"{name}, {column - columns.start + 1} of {size}"
    return f"latent {column + 1}"
