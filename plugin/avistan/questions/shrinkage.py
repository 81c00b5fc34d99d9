"""How far units are drawn towards their population."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from avistan.runtime.errors import FitError
from avistan.runtime.types import FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Shrinkage:
    """How much of what units are said to be comes from their population; prints as a sentence.

    Attributes:
        name: the variable.
        table: a row for each unit, counted from 1: `mean`, `sd`, and `sd_ratio`, the posterior sd of how far it is from
            the mean of all units, over the sd of the units; near 1 the unit's own data say nothing about that, near 0
            they say all.
        population_sd: of the units themselves (not of their means), averaged over draws as a variance.
        eta_shrinkage: 1 - sd of the units' means over `population_sd`, as in pharmacometrics.
        pooling: 1 - variance of the units' means over their variance, the pooling factor.

    Source: Savic & Karlsson, "Importance of shrinkage in empirical Bayes estimates for diagnostics", AAPS Journal 2009;
        Gelman & Pardoe, "Bayesian measures of explained variance and pooling", Technometrics 2006.
    """

    name: str
    table: pd.DataFrame = field(repr=False)
    population_sd: float
    eta_shrinkage: float
    pooling: float

    def __str__(self) -> str:
        ratio = self.table["sd_ratio"]
        return (
            f"{self.name}: the units' means are spread {100 * self.eta_shrinkage:.0f} % less than the units themselves "
            f"(sd {self.population_sd:.3g}; pooling factor {self.pooling:.2f}). Posterior sds of units, "
            f"about their mean, are "
            f"{ratio.median():.2f} of that sd at the median, {ratio.min():.2f} to {ratio.max():.2f} in all."
        )


def shrinkage(name: str, draws: FloatArray) -> Shrinkage:
    """Of units that were drawn together (S, N).

    Raises:
        FitError: fewer than two units, or units that do not vary.
    """
    if draws.shape[1] < 2:
        raise FitError("shrinkage needs two units or more.")
    variance = float(draws.var(axis=1, ddof=1).mean())
    if not variance > 0:
        raise FitError(f"all units have the same {name} in every draw: there is nothing to shrink.")
    mean, sd = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    spread = float(mean.var(ddof=1))
    apart = (draws - draws.mean(axis=1, keepdims=True)).std(axis=0, ddof=1)
    table = pd.DataFrame(
        {"mean": mean, "sd": sd, "sd_ratio": apart / np.sqrt(variance)},
        index=pd.RangeIndex(1, draws.shape[1] + 1, name="unit"),
    )
    return Shrinkage(
        name=name,
        table=table,
        population_sd=float(np.sqrt(variance)),
        eta_shrinkage=1 - float(np.sqrt(spread / variance)),
        pooling=1 - spread / variance,
    )
