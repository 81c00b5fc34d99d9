"""From draws to an ArviZ DataTree: dims (chain, draw), unit dims named after the level, data by role."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

import arviz_base
import numpy as np
import numpy.typing as npt
import xarray as xr

from avistan.runtime.errors import FitError
from avistan.training.loop import Trace
from stan_adapters.bound.bound_model import ConstrainedDraws
from stan_adapters.data.layout import Container, Layout
from stan_adapters.data.stan_data import StanData
from stan_adapters.engine.columns import component
from stan_adapters.language.outcomes import outcomes
from stan_adapters.language.program import Declaration, Program
from stan_adapters.levels.probes import Probe

_IDENTIFIER = re.compile(r"[A-Za-z]\w*")
_SAMPLE_DIMS = ("chain", "draw")
Names = str | Sequence[str] | Mapping[str, str] | None


def to_datatree(
    program: Program,
    data: StanData,
    draws: ConstrainedDraws,
    *,
    sample_stats: Mapping[str, npt.NDArray[Any]],
    num_chains: int = 1,
    unit_size: str | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    log_likelihood: Names | bool = None,
    posterior_predictive: Names = None,
    log_prior: Names | bool = None,
    unconstrained: tuple[Layout, npt.NDArray[np.float64]] | None = None,
    groups: Mapping[str, xr.Dataset] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """A DataTree of constrained draws.

    `coords`, `dims`, `log_likelihood` and `posterior_predictive` mean what they mean in `arviz_base.from_cmdstanpy`;
    a mapping {label: name in the program} also renames, so that {"y": "y_rep"} stands beside the observed y.

    Args:
        draws: by name, each (chains * draws, *declared shape). Those declared as integers become integers.
        sample_stats: such as `lp` and `log_q`, each (chains * draws,).
        unit_size: declared size of the amortized level; the dims of that size carry its name.
        dims: names of the declared dimensions; those not given are the declared sizes.
        log_likelihood: names of pointwise log likelihoods, or {observed name: name}. Default: `log_lik` where the
            program has it; False keeps it in the posterior.
        posterior_predictive: names of replicated data.
        log_prior: names of log prior densities, which power scaling of the prior needs. Default: `lprior` (as brms
            writes it) where the program has it; False keeps it in the posterior.
        unconstrained: the layout and points (chains * draws, D) for the group unconstrained_posterior.
        groups: further groups, such as those that `elbo_trace`, `certificate` and `unit_diagnostics` make.

    Raises:
        FitError: a name that the draws do not have.
    """
    _check_axes(coords, dims)
    likelihood = _selection("log_likelihood", _default("log_lik", log_likelihood, draws), draws)
    predictive = _selection("posterior_predictive", posterior_predictive, draws)
    prior = _selection("log_prior", _default("lprior", log_prior, draws), draws)
    moved = {*likelihood.values(), *predictive.values(), *prior.values()}
    integers = {declaration.name for declaration in program.declarations if declaration.type.is_integer}

    def chained(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if name in integers and values.dtype.kind == "f" and np.isfinite(values).all():
            values = values.astype(np.int64)
        return values.reshape(num_chains, len(values) // num_chains, *values.shape[1:])

    made: dict[str, dict[str, Any]] = {
        "posterior": {name: chained(name, values) for name, values in draws.items() if name not in moved},
        "sample_stats": {name: chained("", np.asarray(values)) for name, values in sample_stats.items()},
    }
    selections = {"log_likelihood": likelihood, "posterior_predictive": predictive, "log_prior": prior}
    for group, chosen in selections.items():
        if chosen:
            made[group] = {label: chained(name, draws[name]) for label, name in chosen.items()}
    observed, constant = _data_by_role(program, data)
    made |= {
        name: values for name, values in (("observed_data", observed), ("constant_data", constant)) if values
    }

    inferred = declared_dims(program, unit_size)
    for label, name in chain.from_iterable(chosen.items() for chosen in selections.values()):
        if name in inferred:
            inferred[label] = inferred[name]
    given = {name: list(names) for name, names in (dims or {}).items()}
    named = _fitting(inferred, given, made)
    for values in made.values():  # the size `J` beside a variable of dim `J` is the length of that dim
        for dim in {dim for name in values for dim in named.get(name, ())} & set(values):
            del values[dim]
    try:
        tree = arviz_base.from_dict(made, coords=dict(coords or {}), dims=named)
    except (TypeError, ValueError) as error:
        if not (coords or dims):
            raise
        raise FitError(f"coords= or dims= do not fit the variables: {error}") from error
    for part in tree.children.values():
        for variable in part.data_vars.values():
            if told := component(str(variable.name)):
                variable.attrs["description"] = told
    if unconstrained is not None:
        layout, theta = unconstrained
        tree["unconstrained_posterior"] = xr.DataTree(
            _unconstrained(layout, theta, num_chains, inferred | given, coords)
        )
    for group, dataset in (groups or {}).items():
        known = {dim: values for dim, values in (coords or {}).items() if dim in dataset.dims}
        tree[group] = xr.DataTree(dataset.assign_coords(known))
    tree.attrs |= dict(attrs or {})
    return tree


def elbo_trace(chains: Sequence[Sequence[Trace]]) -> xr.Dataset:
    """What training saw: ELBO (nats), rejected draws and stage of every step: dims (chain, step), steps from 1.

    A chain that ended earlier than others has NaN, 0 and stage -1 from there on.

    Args:
        chains: the traces of each chain's stages, between which its family grew.
    """
    lengths = [[len(trace.elbo) for trace in traces] for traces in chains]
    shape = len(chains), max(sum(of_chain) for of_chain in lengths)
    elbo, rejected, stage = np.full(shape, np.nan), np.zeros(shape, np.int64), np.full(shape, -1)
    for row, (traces, of_chain) in enumerate(zip(chains, lengths, strict=True)):
        elbo[row, : sum(of_chain)] = np.concatenate([trace.elbo for trace in traces])
        rejected[row, : sum(of_chain)] = np.concatenate([trace.num_rejected for trace in traces])
        stage[row, : sum(of_chain)] = np.repeat(np.arange(len(traces)), of_chain)
    dims = ("chain", "step")
    return xr.Dataset(
        {"elbo": (dims, elbo), "num_rejected": (dims, rejected), "stage": (dims, stage)},
        coords={"chain": np.arange(shape[0]), "step": np.arange(1, shape[1] + 1)},
    )


def certificate(probes: Sequence[Probe]) -> xr.Dataset:
    """The evidence for a level, one entry a probe: `holds`, `statistic` against `tolerance`, `evaluations`."""
    fields = ("holds", "statistic", "tolerance", "evaluations")
    kinds = {"holds": np.bool_, "evaluations": np.int64}
    return xr.Dataset(
        {
            name: ("probe", np.array([getattr(probe, name) for probe in probes], kinds.get(name, np.float64)))
            for name in fields
        },
        coords={"probe": [probe.probe for probe in probes]},
    )


def unit_diagnostics(unit_size: str, values: Mapping[str, npt.ArrayLike]) -> xr.Dataset:
    """Numbers about units, each (N, ...), with the level's dim first."""
    if not isinstance(values, Mapping):
        raise FitError(
            f"unit_diagnostics={values!r}: give a dict of arrays, each with an entry for every unit."
        )
    arrays = {name: np.atleast_1d(np.asarray(value)) for name, value in values.items()}
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) > 1:
        lengths = ", ".join(f"{name}: {len(array)}" for name, array in arrays.items())
        raise FitError(f"unit diagnostics need one entry for each unit of {unit_size}, got {lengths}.")
    units = unit_dim(unit_size)
    return xr.Dataset(
        {
            name: ((units, *(f"{name}_dim_{axis}" for axis in range(array.ndim - 1))), array)
            for name, array in arrays.items()
        },
        coords={units: np.arange(*sizes)} if sizes else {},
    )


def unit_dim(unit_size: str) -> str:
    """The name of a level's dim: its declared size, such as `J`; "N over 2" of `N / 2`, as no tree takes a slash."""
    return unit_size.replace("/", "over")


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
        dim = unit_dim(size.text)
        fresh = dim not in names and dim not in (*_SAMPLE_DIMS, "sample", declaration.name)
        names.append(dim if usable and fresh else f"{declaration.name}_dim_{number}")
    return names


def _fitting(
    inferred: Mapping[str, list[str]],
    given: Mapping[str, list[str]],
    groups: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[str]]:
    """Given dims as they are, and inferred ones whose sizes agree with those and with each other.

    An inferred variable that disagrees with an earlier one keeps ArviZ's own names.
    """
    shapes = [
        (name, np.shape(value)[0 if group.endswith("data") else len(_SAMPLE_DIMS) :])
        for group, values in groups.items()
        for name, value in values.items()
    ]
    sizes: dict[str, int] = {}
    fitting: dict[str, list[str]] = {}
    for name, shape in shapes:
        if name in given:
            fitting[name] = given[name]
            sizes |= dict(zip(given[name], shape, strict=False))
    for name, shape in shapes:
        names = inferred.get(name)
        if name in given or names is None or len(names) != len(shape):
            continue
        if all(sizes.get(dim, size) == size for dim, size in zip(names, shape, strict=True)):
            sizes |= dict(zip(names, shape, strict=True))
            fitting[name] = names
    return fitting


def _unconstrained(
    layout: Layout,
    theta: npt.NDArray[np.float64],
    num_chains: int,
    dims: Mapping[str, list[str]],
    coords: Mapping[str, Any] | None,
) -> xr.Dataset:
    """One variable a parameter: the dims along which it falls into blocks, then `NAME_free` within a block."""
    values, named = {}, {}
    for container in layout.containers:
        positions = _positions(container)
        values[container.name] = theta[:, positions].reshape(num_chains, -1, *positions.shape)
        axes = len(container.axes)
        names = list(dims.get(container.name, ()))[:axes]
        names += [f"{container.name}_dim_{number}" for number in range(len(names), axes)]
        named[container.name] = [*names, *([f"{container.name}_free"] if positions.ndim > axes else [])]
    fitting: dict[Hashable, Sequence[Hashable]] = {
        name: tuple(names) for name, names in _fitting(named, {}, {"unconstrained_posterior": values}).items()
    }
    dataset: xr.Dataset = arviz_base.dict_to_dataset(values, coords=dict(coords or {}), dims=fitting)
    return dataset


def _positions(container: Container) -> npt.NDArray[np.int64]:
    """Places of a parameter's coordinates: its axes, then those inside a block unless that is a single number."""
    axes = tuple(axis.size for axis in container.axes)
    inside = container.size // max(int(np.prod(axes)), 1)
    single = inside == 1 and not container.whole
    if container.size == 0:
        return np.empty(axes if not container.whole else (*axes, 0), dtype=np.int64)
    flat = (
        container.positions(0)
        if axes
        else np.arange(container.offset, container.offset + container.size, dtype=np.int64)
    )
    return flat.reshape(axes if single else (*axes, inside))


def _default(name: str, given: Names | bool, draws: ConstrainedDraws) -> Names:
    """What None and True mean: the customary name where the draws have it; False means none."""
    if given is None or isinstance(given, bool):
        return name if given is not False and name in draws else None
    return given


def _check_axes(coords: object, dims: object) -> None:
    """That coordinates and dimensions are said as ArviZ understands them. Raises FitError."""
    for name, given, holds in (
        ("coords", coords, "{dim: values}, such as {'school': ['A', 'B']}"),
        ("dims", dims, "{variable: dims}, such as {'theta': ['school']}"),
    ):
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise FitError(f"{name}={given!r}: give a dict {holds}.")
        for key, values in given.items():
            is_list = hasattr(values, "__len__") and not isinstance(values, str)
            if not isinstance(key, str) or not is_list:
                raise FitError(f"{name}={{{key!r}: {values!r}}}: give a dict {holds}.")


def _selection(argument: str, names: Names, draws: ConstrainedDraws) -> dict[str, str]:
    """Label in the group -> name in the program."""
    if names is None:
        return {}
    if not isinstance(names, str | Mapping | Sequence):
        raise FitError(
            f"{argument}={names!r}: give the name of a variable, a list of names, or {{label: name}}."
        )
    chosen = (
        dict(names)
        if isinstance(names, Mapping)
        else {n: n for n in ([names] if isinstance(names, str) else names)}
    )
    for name in chosen.values():
        if not isinstance(name, str) or name not in draws:
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
