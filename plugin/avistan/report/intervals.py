"""Quantiles of chosen variables for every method and the reference, on the program's own scale."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from avistan.comparison.results import Comparison
from avistan.runtime.entries import entry_label, evenly
from avistan.runtime.errors import FitError
from avistan.runtime.types import FloatArray
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.files.names import did_you_mean

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

_MOST_ROWS = 24  # of all variables without an entry per unit
_MOST_VARIABLES = 12
_NUMBERS = 20_000_000  # unconstrained values held at a time
_VARIABLE = re.compile(r"(?P<name>[A-Za-z]\w*)(?:\[(?P<place>\s*\d+\s*(?:,\s*\d+\s*)*)\])?")


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Entries of one variable.

    Attributes:
        has_units: whether it has an entry per unit of the comparison's level.
        labels: R of them, such as "a[2,3]", counted from 1.
        quantiles: (R, S, 5), at `QUANTILES`, for S samples.
    """

    name: str
    has_units: bool
    labels: tuple[str, ...]
    quantiles: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Panels of variables.

    Attributes:
        samples: names of what was summarized, with the number of the method's row; None for the reference.
    """

    samples: tuple[tuple[str, int | None], ...]
    panels: tuple[Panel, ...]

    def only(self, *, has_units: bool) -> Intervals:
        """The variables with an entry per unit, or the others."""
        return replace(self, panels=tuple(panel for panel in self.panels if panel.has_units is has_units))


def check_variables(model: BoundModel, variables: Sequence[str]) -> None:
    """That a program has these variables and entries: "tau", "theta[3]", of any block but the data.

    Raises:
        FitError: it has not, with the nearest name.
    """
    _chosen(_shapes(model, variables), variables)


def intervals(
    comparison: Comparison, *, variables: Sequence[str] | None = None, draws: int = 2000, units: int = 6
) -> Intervals:
    """Quantiles of some variables' draws.

    Args:
        variables: names ("tau") or entries ("theta[3]") of parameters, transformed parameters and generated quantities.
            Default: the parameters; of very many the first ones.
        draws: of every method and of the reference; fewer where they would not fit into memory.
        units: entries shown of each variable with an entry per unit, spread evenly.

    Raises:
        FitError: the program has no such variable.
    """
    model, level = comparison.model, comparison.level
    names = [d.name for d in model.program.parameters]
    shapes = _shapes(model, variables or ())
    local = set() if level is None else set(level.latents)
    if variables is None:
        shown = _spread_over(names, shapes, local, units)
    else:
        shown = {
            name: places if places else evenly(_size(shapes[name]), units if name in local else _MOST_ROWS)
            for name, places in _chosen(shapes, variables).items()
        }
    inside = all(name in names for name in shown)
    draws = max(2, min(draws, _NUMBERS // max(model.dim, 1)))
    samples: list[tuple[str, int | None]] = []
    found: dict[str, list[FloatArray]] = {name: [] for name in shown}
    if comparison.reference is not None:
        theta = comparison.reference.theta.reshape(-1, model.dim)[
            :: max(1, comparison.reference.theta[..., 0].size // draws)
        ]
        samples.append((comparison.reference.name, None))
        _summarize(model, theta, shown, inside, comparison.seed, found)
    for number, row in enumerate(comparison.rows):
        if not row.failed:
            samples.append((row.method, number))
            _summarize(model, row.draws(draws), shown, inside, comparison.seed, found)
    panels = tuple(
        Panel(
            name,
            name in local,
            tuple(entry_label(name, shapes[name], flat) for flat in places),
            np.stack(found[name], axis=1) if samples else np.empty((len(places), 0, len(QUANTILES))),
        )
        for name, places in shown.items()
    )
    return Intervals(tuple(samples), panels)


def _summarize(
    model: BoundModel,
    theta: FloatArray,
    shown: dict[str, list[int]],
    inside: bool,
    seed: int,
    into: dict[str, list[FloatArray]],
) -> None:
    """Append quantiles (R, 5) of one sample to those of each variable."""
    values, _ = model.constrain(
        theta, transformed_parameters=not inside, generated_quantities=not inside, seed=seed
    )
    for name, places in shown.items():
        columns = np.asarray(values[name], dtype=float).reshape(len(theta), -1)[:, places]
        kept = columns[np.isfinite(columns).all(axis=1)]
        empty = np.full((len(QUANTILES), len(places)), np.nan)
        into[name].append((np.quantile(kept, QUANTILES, axis=0) if len(kept) else empty).T)


def _shapes(model: BoundModel, variables: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of all variables that are numbers with at least one entry; only the parameters where they are enough."""
    parameters = {d.name for d in model.program.parameters}
    more = any(text.partition("[")[0].strip() not in parameters for text in variables)
    origin = np.zeros((1, model.dim))
    values, _ = model.constrain(origin, transformed_parameters=more, generated_quantities=more)
    return {name: v.shape[1:] for name, v in values.items() if v.dtype.kind in "fiu" and v.size}


def _chosen(shapes: dict[str, tuple[int, ...]], variables: Sequence[str]) -> dict[str, list[int]]:
    """Flat places of the entries asked for; an empty list stands for all of a variable."""
    chosen: dict[str, list[int]] = {}
    for text in variables:
        match = _VARIABLE.fullmatch(text.strip())
        name = match["name"] if match else text
        if match is None or name not in shapes:
            hint = did_you_mean(name, shapes)
            raise FitError(f"the program has no variable {text!r} to show.{hint} It has {', '.join(shapes)}.")
        shape = shapes[name]
        if match["place"] is None:
            chosen[name] = []
            continue
        place = [int(number) - 1 for number in match["place"].split(",")]
        if len(place) != len(shape) or any(not 0 <= i < n for i, n in zip(place, shape, strict=True)):
            sizes = ", ".join(str(n) for n in shape) or "none: it is a single number"
            raise FitError(f"there is no entry {text!r}. Sizes of {name}: {sizes}.")
        if chosen.get(name, [0]):
            chosen[name] = sorted({*chosen.get(name, []), int(np.ravel_multi_index(place, shape))})
    return chosen


def _spread_over(
    names: Sequence[str], shapes: dict[str, tuple[int, ...]], local: set[str], units: int
) -> dict[str, list[int]]:
    """Some entries of the first variables, so that all of a figure's rows stay readable."""
    there = [name for name in names if name in shapes]
    kept = [name for name in there if name not in local][:_MOST_VARIABLES]
    sizes = {name: _size(shapes[name]) for name in kept}
    most = _MOST_ROWS
    while most > 1 and sum(min(size, most) for size in sizes.values()) > _MOST_ROWS:
        most -= 1
    shown = {name: evenly(size, most) for name, size in sizes.items()}
    with_units = [name for name in there if name in local][:4]
    return shown | {name: evenly(_size(shapes[name]), units) for name in with_units}


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=int))
