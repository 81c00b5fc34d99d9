"""Draws as a fit hands them out: corrected, q's own or restarts mixed, and marked by the diagnosis of what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from avistan.correction.drawing import corrected_rows
from avistan.fitting.fitted import Fitted
from avistan.posterior import fit_datatree
from avistan.posterior.corrected import corrected, num_chains, posterior_batches
from avistan.posterior.datatree import declared_dims
from avistan.posterior.draws import batch_size, joined, unconstrained_draws, warn_of_rejected
from avistan.runtime.errors import FitError
from avistan.runtime.limits import check_path, whole_number
from avistan.runtime.types import FloatArray, StrPath
from stan_adapters.bound.bound_model import ConstrainedDraws

if TYPE_CHECKING:  # a table of draws alone needs it
    import pandas as pd

    from avistan.posterior.summaries import Draws

_BY_DEFAULT = 1000  # draws of a variable


def posterior(
    fit: Fitted,
    draws: int,
    seed: int | None,
    resample: str,
    diagnosed: Mapping[str, Any],
    **options: Any,
) -> xr.DataTree:
    """Draws as a DataTree; arguments as in `Fit.posterior`.

    Args:
        diagnosed: what a diagnosis says: `units`, `trusted` and `not_holding`; empty without one.
    """
    fit_datatree.check_resample(resample)
    whole_number("draws", draws)
    given = _with_diagnosis(options, resample, diagnosed)
    if resample == "elbo":
        return fit_datatree.weighted_posterior(fit, draws, seed, **given)
    made = corrected(fit, seed) if resample == "auto" else None
    return fit_datatree.posterior(fit, made, draws, seed, **given)


def write_posterior(
    fit: Fitted,
    path: StrPath,
    draws: int,
    seed: int | None,
    diagnosed: Mapping[str, Any],
    *,
    resample: str = "auto",
    **options: Any,
) -> None:
    """The same, written a batch at a time.

    Raises:
        FitError: restarts are to be mixed, which takes all their draws at once.
    """
    fit_datatree.check_resample(resample)
    whole_number("draws", draws)
    check_path("path", path)
    if resample == "elbo":
        raise FitError(
            "resample='elbo' chooses among all draws of all restarts: make them with Fit.posterior."
        )
    made = corrected(fit, seed) if resample == "auto" else None
    given = _with_diagnosis(options, resample, diagnosed)
    fit_datatree.write_posterior(fit, made, path, draws, seed, **given)


def _with_diagnosis(
    options: Mapping[str, Any], resample: str, diagnosed: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of a DataTree, with numbers of single units and marks. Whether q's own draws hold was not looked at where
    corrected ones do: only a failure marks them.
    """
    given = dict(options)
    units = given.pop("unit_diagnostics", None)
    marks = {name: value for name, value in diagnosed.items() if name != "units"}
    if resample != "auto":
        marks = {} if marks.get("trusted", 1) else {"trusted": 0}
    return {**given, "unit_values": diagnosed.get("units") if units is None else units, "marks": marks}


def unconstrained_posterior(fit: Fitted, draws: int) -> FloatArray:
    """About so many draws (S, D) that `posterior` gives by default, unconstrained, in Stan's order."""
    made = corrected(fit)
    if made.is_q:
        return unconstrained_draws(fit, draws)[0]
    size = batch_size(fit.model)
    with corrected_rows(fit, made.correction, made.units, draws, fit.seed, size) as rows:
        return np.concatenate([theta for _, _, theta in rows])


def default_draws(fit: Fitted) -> ConstrainedDraws:
    """All variables of 1000 draws, with a warning where Stan rejected some: those rows are NaN."""
    made = corrected(fit)
    with posterior_batches(fit, made, _BY_DEFAULT // num_chains(fit, made), None) as batches:
        drawn = joined(list(batches))
    warn_of_rejected(drawn.num_rejected, len(drawn.theta), fit.model.program.name, stacklevel=6)
    return drawn.values


def to_summarize(fit: Fitted, values: ConstrainedDraws) -> Draws:
    """What `default_draws` gave, to be summarized."""
    from avistan.posterior.summaries import draws_of_fit

    made = corrected(fit)
    attrs = fit_datatree.attributes(fit, _BY_DEFAULT, None, made)
    dims = declared_dims(fit.model.program, None if fit.level is None else fit.level.name)
    return draws_of_fit(fit, values, dims, chains=num_chains(fit, made), attrs=attrs)


def as_table(draws: ConstrainedDraws) -> pd.DataFrame:
    """A column for each scalar, named as in CmdStan: `theta[3]`."""
    import pandas as pd

    columns = {}
    for name, values in draws.items():
        for place in np.ndindex(values.shape[1:]):
            label = f"{name}[{','.join(str(i + 1) for i in place)}]" if place else name
            columns[label] = values[(slice(None), *place)]
    return pd.DataFrame(columns)


def starting_values(fit: Fitted, chains: int, seed: int | None) -> list[dict[str, npt.NDArray[Any]]]:
    """One draw of q for each Markov chain: all parameters, constrained, by name."""
    theta, _ = unconstrained_draws(fit, whole_number("chains", chains), seed=seed)
    draws, _ = fit.model.constrain(theta, transformed_parameters=False, generated_quantities=False)
    return [{name: np.asarray(v[chain]) for name, v in draws.items()} for chain in range(chains)]
