"""Draws in named columns, `theta.2.3` or `theta[2,3]`, as variables of a DataTree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from avistan.runtime.errors import CompetitorError
from avistan.runtime.text import shortened
from avistan.runtime.types import FloatArray
from stan_adapters.engine.columns import parse_names
from stan_adapters.errors import EngineError
from stan_adapters.files.names import did_you_mean

_BRACKETS = re.compile(r"\[([^\]]*)\]")
_STATISTIC = "__"  # the end of names that are the algorithm's own


def dotted(column: str) -> str:
    """A column's name as CmdStan writes it: `theta[2,3]`, as R and cmdstanpy have it, is `theta.2.3`."""
    return _BRACKETS.sub(
        lambda found: "." + found.group(1).replace(" ", "").replace(",", "."), column.strip()
    )


def variable_of(column: str) -> str:
    """The variable of a column: `theta` of `theta.2.3`, the component `t.1:2` of `t.1:2.3`."""
    head, colon, component = column.rpartition(":")
    return head + colon + component.partition(".")[0]


def columns_of(columns: Sequence[str], wanted: Iterable[str], name: str) -> dict[str, list[int]]:
    """Which columns hold each of the wanted variables, first index fastest.

    Args:
        columns: dotted names.
        name: of the file, for messages.

    Raises:
        CompetitorError: a variable has none, with those that are there.
    """
    places: dict[str, list[int]] = {}
    for place, column in enumerate(columns):
        places.setdefault(variable_of(column), []).append(place)
    chosen = {}
    for variable in wanted:
        if variable not in places:
            there = [known for known in places if not known.endswith(_STATISTIC)]
            hint = did_you_mean(variable, there)
            raise CompetitorError(
                f"the reference {name} has no parameter {variable!r}.{hint} It has "
                f"{shortened(', '.join(there), 300) or 'no variable'}."
            )
        chosen[variable] = sorted(places[variable], key=lambda place: _order(columns[place]))
    return chosen


def _order(column: str) -> tuple[int, ...]:
    last = column.rpartition(":")[2].split(".")[1:]
    imaginary = last[-1:] == ["imag"]
    numbers = [int(part) for part in last if part.isdigit()]
    return (*reversed(numbers), int(imaginary))


def to_tree(
    columns: Sequence[str],
    values: FloatArray,
    wanted: Iterable[str],
    name: str,
    *,
    sample_stats: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """A DataTree of draws in columns.

    Args:
        columns: dotted names of the last axis of `values` (C, S, K).
        wanted: names of variables; what else the columns hold is left out.
        sample_stats: (C, S) by name.

    Raises:
        CompetitorError: a variable is missing, or its columns fill no rectangle.
    """
    chains, draws = values.shape[:2]
    flat = values.reshape(chains * draws, -1)
    variables = {}
    for variable, places in columns_of(columns, wanted, name).items():
        try:
            (output,) = parse_names([columns[place] for place in places])
        except (EngineError, ValueError) as error:
            raise CompetitorError(
                f"the reference {name} has only some columns of {variable}: {error}"
            ) from error
        taken = output.take(flat[:, places])
        dims = ("chain", "draw", *(f"{variable}_dim_{axis}" for axis in range(len(output.shape))))
        variables[variable] = (dims, taken.reshape(chains, draws, *output.shape))
    groups = {"posterior": xr.Dataset(variables)}
    if sample_stats:
        groups["sample_stats"] = xr.Dataset(
            {key: (("chain", "draw"), value) for key, value in sample_stats.items()}
        )
    tree = xr.DataTree.from_dict(groups)
    tree.attrs |= dict(attrs or {})
    return tree


def lengths_agree(draws: Mapping[str, int], what: str) -> int:
    """How many draws every chain has. Raises CompetitorError where they differ."""
    counts = set(draws.values())
    if len(counts) > 1:
        told = ", ".join(f"{name}: {count}" for name, count in draws.items())
        raise CompetitorError(
            f"{what} of the reference have different numbers of draws ({shortened(told, 300)})."
        )
    return int(np.max([*counts, 0]))
