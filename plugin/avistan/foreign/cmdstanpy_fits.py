"""cmdstanpy's fits, in memory: CmdStanMCMC, CmdStanVB, CmdStanPathfinder, CmdStanLaplace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from avistan.foreign.cmdstan_csv import DENSITY, LAPLACE, PATHFINDER, SAMPLE, VARIATIONAL
from avistan.foreign.tables import dotted, to_tree
from avistan.runtime.errors import CompetitorError
from avistan.runtime.types import FloatArray

METHODS = {
    "CmdStanMCMC": SAMPLE,
    "CmdStanVB": VARIATIONAL,
    "CmdStanPathfinder": PATHFINDER,
    "CmdStanLaplace": LAPLACE,
}


def is_cmdstanpy(source: object) -> bool:
    """Whether an object is a fit of cmdstanpy."""
    kind = type(source)
    return kind.__module__.partition(".")[0] == "cmdstanpy" and kind.__name__.startswith("CmdStan")


def tree_of_fit(fit: Any, wanted: Sequence[str], name: str) -> xr.DataTree:
    """The draws of a fit, without warm-up.

    Raises:
        CompetitorError: it is one without draws of the parameters, such as CmdStanMLE.
    """
    kind = type(fit).__name__
    if kind not in METHODS:
        raise CompetitorError(
            f"the reference is a {kind}, which has no draws of the parameters' posterior. Give one of "
            f"{', '.join(METHODS)}."
        )
    method = METHODS[kind]
    columns = [dotted(column) for column in fit.column_names]
    values = _draws(fit, method)
    where = {column: place for place, column in enumerate(columns)}
    stats: dict[str, Any] = {}
    if DENSITY[method] in where:
        stats["lp"] = values[..., where[DENSITY[method]]]
    if "divergent__" in where:
        stats["diverging"] = values[..., where["divergent__"]] != 0
    attrs = {"inference_library": "cmdstanpy", "method": name, "algorithm": method}
    return to_tree(columns, values, wanted, name, sample_stats=stats, attrs=attrs)


def _draws(fit: Any, method: str) -> FloatArray:
    """(C, S, K)."""
    if method == SAMPLE:
        return np.asarray(fit.draws(), dtype=np.float64).transpose(1, 0, 2)
    draws = fit.variational_sample if method == VARIATIONAL else fit.draws()
    return np.asarray(draws, dtype=np.float64)[None]
