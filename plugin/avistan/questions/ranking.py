"""Units in order, with the probabilities of their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from avistan.runtime.errors import FitError
from avistan.runtime.progress import begin_stage, report_step
from avistan.runtime.types import FloatArray

_NUMBERS_AT_ONCE = 2**22


def rank(draws: FloatArray, *, top: Any, largest: bool, quantiles: Sequence[float]) -> pd.DataFrame:
    """Units by their expected ranks.

    Args:
        draws: (S, N), of units that were drawn together.
        top: k of the column `top_k`; None takes a tenth of the units.
        largest: whether rank 1 is the largest.

    Returns: a row for each unit, counted from 1, best expected rank first: `mean` and `sd` of what is ranked, `rank`
        (expected), its quantiles, the probabilities `best` of rank 1 and `top_k` of rank k or better. Units that are
        equal in a draw share their ranks there.

    Raises:
        FitError: `top` is no number of units.
    """
    units = draws.shape[1]
    chosen = max(1, units // 10) if top is None else top
    if isinstance(chosen, bool) or not isinstance(chosen, int | np.integer) or not 1 <= chosen <= units:
        raise FitError(f"top={top!r}: give a whole number from 1 to {units}, the number of units.")
    begin_stage("ranking the units")
    ranks = np.empty(draws.shape, dtype=np.float32)
    rows = max(1, _NUMBERS_AT_ONCE // units)
    for start in range(0, len(draws), rows):
        part = draws[start : start + rows]
        ranks[start : start + rows] = rankdata(-part if largest else part, axis=1, method="average")
        report_step(min(len(draws), start + rows), len(draws))
    table = pd.DataFrame(
        {
            "mean": draws.mean(axis=0),
            "sd": draws.std(axis=0, ddof=1),
            "rank": ranks.mean(axis=0, dtype=np.float64),
            **{f"rank_q{100 * p:g}": np.quantile(ranks, p, axis=0).astype(np.float64) for p in quantiles},
            "best": (ranks == 1).mean(axis=0),
            f"top_{chosen}": (ranks <= chosen).mean(axis=0),
        },
        index=pd.RangeIndex(1, units + 1, name="unit"),
    )
    return table.sort_values("rank", kind="stable")
