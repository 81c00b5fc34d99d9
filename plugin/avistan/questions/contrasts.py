"""Posteriors of differences and other weighted sums of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avistan.runtime.errors import FitError
from avistan.runtime.text import shortened
from avistan.runtime.types import FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast:
    """The posterior of a weighted sum of units; prints as a sentence.

    Attributes:
        name: what is summed.
        draws: (S,).
        mean, sd: of the draws.
        interval: the central 90 %.
        positive: the probability that it is above 0.
    """

    name: str
    draws: FloatArray = field(repr=False)
    mean: float
    sd: float
    interval: tuple[float, float]
    positive: float

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.name}: {self.mean:.3g}, sd {self.sd:.3g}, 90 % from {low:.3g} to {high:.3g}; above 0 with "
            f"probability {self.positive:.3g} ({len(self.draws)} draws)"
        )


def contrast(name: str, draws: FloatArray, weights: Any) -> Contrast:
    """A weighted sum of units.

    Args:
        draws: (S, N).
        weights: {unit: weight}, units counted from 1; or two units, the first minus the second.

    Raises:
        FitError: no such unit, or no weights.
    """
    units = draws.shape[1]
    given = dict(weights) if isinstance(weights, Mapping) else _difference(weights)
    for unit, weight in given.items():
        whole = isinstance(unit, int | np.integer) and not isinstance(unit, bool)
        if not whole or not 1 <= unit <= units:
            raise FitError(f"unit {unit!r} of a contrast: units are numbered from 1 to {units}.")
        number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
        if not number or not np.isfinite(weight):
            raise FitError(f"the weight of unit {unit} is {weight!r}, expected a number.")
    if not any(given.values()):
        raise FitError("a contrast needs weights other than 0: {unit: weight}, or two units.")
    places = np.array([int(unit) - 1 for unit in given])
    values = draws[:, places] @ np.array([float(weight) for weight in given.values()])
    terms = "".join(_term(name, int(unit), float(weight)) for unit, weight in given.items())
    low, high = np.quantile(values, [0.05, 0.95])
    return Contrast(
        name=shortened(terms.removeprefix(" + ").replace(" - ", "-", terms.startswith(" - ")), 100),
        draws=values,
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)),
        interval=(float(low), float(high)),
        positive=float((values > 0).mean()),
    )


def _term(name: str, unit: int, weight: float) -> str:
    size = "" if abs(weight) == 1 else f"{abs(weight):g} "
    return f" {'-' if weight < 0 else '+'} {size}{name}[{unit}]"


def _difference(units: object) -> dict[Any, float]:
    if not isinstance(units, Sequence) or isinstance(units, str) or len(units) != 2 or units[0] == units[1]:
        raise FitError(
            f"contrast of {units!r}: give {{unit: weight}}, or two different units, such as (3, 7)."
        )
    return {units[0]: 1.0, units[1]: -1.0}
