"""From draws to an ArviZ DataTree: dims (chain, draw), unit dims named after the level, data by role."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import arviz_base
import numpy as np
import numpy.typing as npt
import xarray as xr

from stan_adapters.binding import Draws
from stan_adapters.data import StanData
from stan_adapters.outcomes import outcomes
from stan_adapters.program import Declaration, Program

from .errors import FitError

_IDENTIFIER = re.compile(r"[A-Za-z]\w*")
Names = str | Sequence[str] | Mapping[str, str] | None


def to_datatree(
    program: Program,
    data: StanData,
    draws: Draws,
    *,
    sample_stats: Mapping[str, npt.NDArray[Any]],
    num_chains: int = 1,
    unit_size: str | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    log_likelihood: Names | bool = None,
    posterior_predictive: Names = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """A DataTree of constrained draws.

    Args:
        draws: by name, each (chains * draws, *declared shape).
        sample_stats: such as `lp` and `log_q`, each (chains * draws,).
        unit_size: declared size of the amortized level; the dims of that size carry its name.
        log_likelihood: names of pointwise log likelihoods, or {observed name: name}. Default: `log_lik` where the
            program has it; False keeps it in the posterior.
        posterior_predictive: names of replicated data.

    Raises:
        FitError: a name that the draws do not have.
    """
    likelihood = _selection("log_likelihood", _default_likelihood(log_likelihood, draws), draws)
    predictive = _selection("posterior_predictive", posterior_predictive, draws)
    moved = set(likelihood.values()) | set(predictive.values())

    def chained(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values.reshape(num_chains, len(values) // num_chains, *values.shape[1:])

    groups: dict[str, dict[str, Any]] = {
        "posterior": {name: chained(values) for name, values in draws.items() if name not in moved},
        "sample_stats": {name: chained(np.asarray(values)) for name, values in sample_stats.items()},
    }
    for group, chosen in (("log_likelihood", likelihood), ("posterior_predictive", predictive)):
        if chosen:
            groups[group] = {label: chained(draws[name]) for label, name in chosen.items()}
    observed, constant = _data_by_role(program, data)
    groups |= {
        name: values for name, values in (("observed_data", observed), ("constant_data", constant)) if values
    }
    all_dims = declared_dims(program, unit_size)
    for label, name in (likelihood | predictive).items():
        if name in all_dims:
            all_dims[label] = all_dims[name]
    all_dims |= {name: list(names) for name, names in (dims or {}).items()}
    kept = {name for values in groups.values() for name in values}
    used = {name: names for name, names in all_dims.items() if name in kept}
    named = _fitting(used, groups)
    for values in groups.values():  # the size `J` beside a variable of dim `J` is the length of that dim
        for dim in {dim for name in values for dim in named.get(name, ())} & set(values):
            del values[dim]
    tree = arviz_base.from_dict(groups, coords=dict(coords or {}), dims=named)
    tree.attrs |= dict(attrs or {})
    return tree


def declared_dims(program: Program, unit_size: str | None) -> dict[str, list[str]]:
    """Dimension names from declared sizes: `vector[N] z` has dim N. Sizes that are no names get ArviZ's own."""
    return {
        declaration.name: _dims(declaration, unit_size)
        for declaration in program.declarations
        if not declaration.type.is_tuple
    }


def _dims(declaration: Declaration, unit_size: str | None) -> list[str]:
    names: list[str] = []
    for number, size in enumerate(declaration.type.dims):
        usable = size.text == unit_size or _IDENTIFIER.fullmatch(size.text)
        fresh = size.text not in names and size.text not in ("chain", "draw", "sample", declaration.name)
        names.append(size.text if usable and fresh else f"{declaration.name}_dim_{number}")
    return names


def _fitting(dims: Mapping[str, list[str]], groups: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dims whose sizes agree everywhere; a variable that disagrees with an earlier one keeps ArviZ's own names."""
    sizes: dict[str, int] = {}
    fitting: dict[str, list[str]] = {}
    for group, values in groups.items():
        skip = 0 if group.endswith("data") else 2
        for name, value in values.items():
            names, shape = dims.get(name), np.shape(value)[skip:]
            if names is None or len(names) != len(shape):
                continue
            if all(sizes.get(dim, size) == size for dim, size in zip(names, shape, strict=True)):
                sizes |= dict(zip(names, shape, strict=True))
                fitting[name] = names
    return fitting


def _default_likelihood(given: Names | bool, draws: Draws) -> Names:
    if given is False:
        return None
    if given is None or given is True:
        return "log_lik" if "log_lik" in draws else None
    return given


def _selection(argument: str, names: Names, draws: Draws) -> dict[str, str]:
    """Label in the group -> name in the program."""
    if names is None:
        return {}
    chosen = (
        dict(names)
        if isinstance(names, Mapping)
        else {n: n for n in ([names] if isinstance(names, str) else names)}
    )
    for name in chosen.values():
        if name not in draws:
            raise FitError(
                f"{argument}={name!r}: the program has no such variable. It has {', '.join(draws)}."
            )
    return chosen


def _data_by_role(program: Program, data: StanData) -> tuple[dict[str, Any], dict[str, Any]]:
    """Observed data (outcomes of the model block) and everything else."""
    observed: dict[str, Any] = {}
    constant: dict[str, Any] = {}
    observed_names = outcomes(program)
    for name, value in data.items():
        if not isinstance(value, np.ndarray):
            continue  # tuples have no place in a dataset
        (observed if name in observed_names else constant)[name] = value
    return observed, constant
