"""Draws in tables: globals with what can be told of their draws, units by the thousand.

R-hat needs several chains, and effective sample sizes need draws that depend on each other: both are given only where
they mean something, and a table says what it leaves out.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats

from avistan.correction.correct import Way
from avistan.fitting.fitted import Fitted
from avistan.posterior.datatree import unit_dim
from avistan.runtime.errors import FitError
from avistan.runtime.progress import begin_stage, report_step
from avistan.runtime.text import shortened
from avistan.runtime.types import FloatArray
from stan_adapters.files.memory import available_memory
from stan_adapters.files.names import did_you_mean

QUANTILES = (0.05, 0.5, 0.95)
_MOST_ROWS = 1000  # of a variable of no unit that is shown without being asked for
_NUMBERS_AT_ONCE = 2**22  # 32 MiB
_SHARE_OF_MEMORY = 4
ASIDE = ("log_lik", "lprior")  # which ArviZ has in groups of their own
_SHOWN = 30  # rows, in the middle of which more are left out


class SummaryTable(pd.DataFrame):  # type: ignore[misc]  # pandas has no types
    """A data frame that prints with three digits and with notes below it; `notes` holds them."""

    _metadata = ("notes",)
    notes: tuple[str, ...] = ()

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def _formats(self) -> dict[str, Any]:
        special = {"r_hat": "{:.2f}", "ess_bulk": "{:.0f}", "ess_tail": "{:.0f}"}
        return {name: special.get(name, "{:.3g}").format for name in map(str, self.columns)}

    def __repr__(self) -> str:
        text = pd.DataFrame(self).to_string(formatters=self._formats(), max_rows=_SHOWN)
        return "\n".join([text, *(f"\n{note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        table: str = pd.DataFrame(self).to_html(formatters=self._formats(), max_rows=_SHOWN)
        return table + "".join(f"<p>{note}</p>" for note in self.notes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Draws to be summarized.

    Attributes:
        values: by name, (C, S, ...): arrays, or what reads them from a file.
        of_units: names of variables with an entry (or more) of every unit.
        level: what the units are called; empty without units.
        num_units: how many there are.
        markov: whether the chains are Markov chains, whose draws depend on each other.
        origin: what they are, in words: "draws by importance weights".
    """

    values: Mapping[str, Any]
    of_units: Collection[str] = ()
    level: str = ""
    num_units: int = 0
    markov: bool = False
    origin: str = "draws"

    @property
    def num_chains(self) -> int:
        return next((value.shape[0] for value in self.values.values()), 1)


def draws_of_tree(tree: xr.DataTree) -> Draws:
    """The draws of a DataTree that a fit made, perhaps in a file that is read as needed.

    Raises:
        FitError: it has no group `posterior`.
    """
    check_draws_there(tree)
    variables = {str(name): v for name, v in tree["posterior"].data_vars.items()}
    level, second, latents = (str(tree.attrs.get(name, "")) for name in ("level", "second_level", "latents"))
    of_units = _of_units({n: v.dims for n, v in variables.items()}, [level, second], latents.split(", "))
    return Draws(
        values={name: value.transpose("chain", "draw", ...) for name, value in variables.items()},
        of_units=of_units,
        level=level,
        num_units=int(tree.attrs.get("units", 0)),
        **_origin(tree.attrs),
    )


def check_draws_there(tree: xr.DataTree) -> None:
    """That a DataTree has draws of a posterior. Raises FitError."""
    if "posterior" not in tree.children:
        raise FitError(
            f"there are no draws: no group `posterior` among {', '.join(tree.children) or 'none'}."
        )


def _of_units(
    dims: Mapping[str, Sequence[Any]], levels: Collection[str], latents: Collection[str]
) -> set[str]:
    """Names of variables that are latents, or have a level's dim."""
    of_levels = {unit_dim(level) for level in levels}
    return {name for name, own in dims.items() if name in latents or of_levels & set(own)}


def _origin(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """What the attributes of a DataTree say of its draws."""
    way, worth = str(attrs.get("correction", "")), attrs.get("effective_draws")
    if way in ("", Way.none.value):
        return {"origin": f"independent draws of {attrs.get('method', 'q')}, not corrected"}
    as_many = worth is None or worth >= attrs.get("draws", 0)
    effective = "" if as_many else f", worth {worth:.0f} independent ones or more"
    return {"markov": way == Way.chains.value, "origin": f"draws by {way}{effective}"}


def draws_of_fit(
    fit: Fitted,
    values: Mapping[str, npt.NDArray[Any]],
    dims: Mapping[str, list[str]],
    *,
    chains: int,
    attrs: Mapping[str, Any],
) -> Draws:
    """Draws of a fit, (chains * draws, ...) by name.

    Args:
        dims: names of the declared dimensions.
        attrs: what a DataTree of them would say.
    """
    levels = [level for level in (fit.level, fit.second) if level is not None]
    latents = [latent for level in levels for latent in level.latents]
    known = {name: dims.get(name, ()) for name in values}
    return Draws(
        values={name: value.reshape(chains, -1, *value.shape[1:]) for name, value in values.items()},
        of_units=_of_units(known, [level.name for level in levels], latents),
        level=levels[0].name if levels else "",
        num_units=levels[0].num_units if levels else 0,
        **_origin(attrs),
    )


def summarize(
    draws: Draws,
    *,
    var_names: Any = None,
    units: bool = False,
    quantiles: Any = QUANTILES,
) -> SummaryTable:
    """A row for every number: mean, sd, quantiles; for globals also R-hat and effective sizes where these are real.

    Args:
        var_names: variables; by default those of no unit, or with `units` those of the units.

    Raises:
        FitError: no such variable, or quantiles that are no probabilities.
    """
    probabilities = _checked(quantiles)
    known = [name for name in draws.values if name not in ASIDE]
    long = [n for n in known if n not in draws.of_units and _size(draws, n) > _MOST_ROWS]
    of_units = [name for name in known if name in draws.of_units]
    if var_names is not None:
        chosen = _named(var_names, list(draws.values))
    elif units:
        if not draws.level:
            raise FitError("every parameter of this fit is global: it has no units to summarize.")
        chosen = of_units
    else:
        chosen = [name for name in known if name not in draws.of_units and name not in long]
    begin_stage("summary")
    in_all = sum(_size(draws, name) for name in chosen)
    shared = [name for name in chosen if name not in draws.of_units]
    tables, done = [], 0
    for name in chosen:
        table = pd.DataFrame(statistics(draws.values[name], probabilities), index=labels(draws, name))
        if name in shared and draws.num_chains > 1:
            told = []
            for row in _of_chains(draws.values[name], draws.markov):
                told.append(row)
                report_step(done + len(told), in_all)
            table = table.join(pd.DataFrame(told, index=table.index))
        done += len(table)
        report_step(done, in_all)
        tables.append(table)
    result = SummaryTable(pd.concat(tables) if tables else pd.DataFrame())
    left_out = [] if var_names is not None or units else long
    result.notes = tuple(
        _notes(draws, bool(shared), of_units if var_names is None and not units else [], left_out)
    )
    return result


def statistics(values: Any, quantiles: Sequence[float]) -> dict[str, FloatArray]:
    """Mean, sd and quantiles of every entry of a variable (C, S, ...), by column. Draws that Stan rejected, NaN in all
    entries, do not count.
    """
    parts = [_of_block(block, quantiles) for block in _blocks(values)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def labels(draws: Draws, name: str) -> list[str]:
    """What the entries of a variable are called, counted from 0 as in ArviZ: `theta[3]`, `y_rep[3, 1]`."""
    values = draws.values[name]
    shape = values.shape[2:]
    if not shape:
        return [name]
    named: list[Any] = [range(size) for size in shape]
    if isinstance(values, xr.DataArray):
        given = zip(values.dims[2:], named, strict=True)
        named = [values[dim].values if dim in values.coords else numbers for dim, numbers in given]
    return [f"{name}[{', '.join(map(str, place))}]" for place in itertools.product(*named)]


def _size(draws: Draws, name: str) -> int:
    return int(np.prod(draws.values[name].shape[2:], dtype=np.int64))


def _blocks(values: Any) -> Iterator[FloatArray]:
    """Draws of some entries at a time, (entries, C * S), in order; a file is read as seldom as memory allows."""
    shape = values.shape[2:]
    in_all, draws = int(np.prod(shape, dtype=np.int64)), values.shape[0] * values.shape[1]
    at_once = max(1, _NUMBERS_AT_ONCE // draws)
    held = isinstance(values, np.ndarray) or not shape or values._in_memory
    outer = 1
    if not held:
        room = available_memory() // (_SHARE_OF_MEMORY * values.dtype.itemsize)
        outer = min(shape[0], -(-draws * in_all // max(room, 1))) or 1
    for part in np.array_split(np.arange(shape[0] if shape else 1), outer):
        taken = values[:, :, part[0] : part[-1] + 1] if outer > 1 else values
        flat = np.asarray(taken).reshape(draws, -1)
        for start in range(0, flat.shape[1], at_once):
            yield np.ascontiguousarray(flat[:, start : start + at_once].T).astype(np.float64, copy=False)


def _of_block(block: FloatArray, quantiles: Sequence[float]) -> dict[str, FloatArray]:
    counted = ~np.isnan(block).all(axis=0)
    if not counted.all():
        block = block[:, counted]
    columns = [f"q{100 * probability:g}" for probability in quantiles]
    if block.shape[1] == 0:
        return dict.fromkeys(("mean", "sd", *columns), np.full(len(block), np.nan))
    with np.errstate(invalid="ignore"):  # infinite draws have no sd
        sd = block.std(axis=1, ddof=1) if block.shape[1] > 1 else np.full(len(block), np.nan)
        values = np.quantile(block, quantiles, axis=1)
        return {"mean": block.mean(axis=1), "sd": sd, **dict(zip(columns, values, strict=True))}


def _of_chains(values: Any, markov: bool) -> Iterator[dict[str, float]]:
    """What several chains tell of each entry: R-hat, and of Markov chains the effective sample sizes."""
    array = np.asarray(values, dtype=np.float64)
    for entry in np.moveaxis(array.reshape(*array.shape[:2], -1), -1, 0):
        told = {"r_hat": float(array_stats.rhat(entry))}
        if markov:
            told["ess_bulk"] = float(array_stats.ess(entry, method="bulk"))
            told["ess_tail"] = float(array_stats.ess(entry, method="tail", prob=(0.05, 0.95)))
        yield told


def _notes(draws: Draws, any_shared: bool, of_units: Sequence[str], long: Sequence[str]) -> Iterator[str]:
    chains = draws.num_chains
    count = next((value.shape[1] for value in draws.values.values()), 0)
    if any_shared and chains == 1:
        yield (
            f"{count} {draws.origin}, in one chain: R-hat, which compares chains, and effective sample sizes, which "
            "are those of Markov chains, are left out."
        )
    elif any_shared and not draws.markov:
        yield (
            f"{chains} restarts, {count} {draws.origin}, of each: R-hat tells whether the restarts agree; effective "
            "sample sizes, which are those of Markov chains, are left out."
        )
    elif any_shared:
        yield f"{chains} chains, {count} draws of each, {draws.origin.removeprefix('draws ')}."
    if of_units:
        yield (
            f"The {draws.num_units} units of {draws.level} ({', '.join(of_units)}) are in a table of their own: "
            "summary(units=True), or `avistan summary --units`."
        )
    if long:
        sizes = ", ".join(f"{name}: {_size(draws, name)}" for name in long)
        yield f"Left out because they are long ({sizes}): name them in var_names (--var) to see them."


def _checked(quantiles: Any) -> list[float]:
    try:
        given = [float(value) for value in quantiles]
    except (TypeError, ValueError):
        given = []
    if not given or not all(0 <= value <= 1 for value in given):
        raise FitError(
            f"quantiles={shortened(repr(quantiles), 60)}: give probabilities, such as [0.05, 0.5, 0.95]."
        )
    return given


def _named(var_names: Any, known: list[str]) -> list[str]:
    names = [var_names] if isinstance(var_names, str) else var_names
    if not isinstance(names, Sequence) or not names:
        raise FitError(f"var_names={names!r}: give the name of a variable, or a list of names.")
    for name in names:
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise FitError(f"the program has no output {name!r}.{hint} It has {', '.join(known)}.")
    return list(dict.fromkeys(names))
