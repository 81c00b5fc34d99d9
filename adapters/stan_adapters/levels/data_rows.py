"""Which declared data could belong to the units of a level: read from declarations, never from statements.

Probes say whether units are coupled, not what the entries of a coupled container are: the values of a random walk and
the coefficients of a regression couple alike. What tells them apart is whether data have a row for each of them.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import declared_shape
from stan_adapters.language.outcomes import outcomes
from stan_adapters.language.switches import settled
from stan_adapters.levels.levels import Level

_WEIGHTS = {
    "simplex": 0,
    "row_stochastic_matrix": 1,
    "column_stochastic_matrix": 0,
}  # the size that sums to one


class RowEvidence(enum.Enum):
    """What the data say of the entries of a container."""

    INDEXED = "an index array declared with that upper bound points at them"
    ROWS = "data have a row for each"
    RELATED = "the size is computed, and close to a number of data rows"
    NUMBERED = "an integer array holds the numbers up to that size: an index, or the categories of an outcome"
    COLUMNS = "a design matrix has a column for each"
    COMPONENTS = "a simplex of that size weighs them: mixture components or hidden states"
    NONE = "no data are declared with that size"


@dataclass(frozen=True, slots=True)
class Rows:
    """The evidence and the data entries (for COMPONENTS, the parameters) that give it."""

    evidence: RowEvidence
    names: tuple[str, ...] = ()

    def belong_to_units(self, level: Level, shape: str | None) -> bool:
        """Whether the entries are units, given what the probes said of them.

        Without clear evidence separable entries are units, unless their size is a mere literal that the data do not
        know. So are entries coupled as a band or a graph: coefficients and components share all rows and are dense.

        Args:
            shape: of their coupling, as in `probes.Coupling`; None for separable entries.
        """
        match self.evidence:
            case RowEvidence.COMPONENTS:
                return False
            case RowEvidence.INDEXED | RowEvidence.ROWS | RowEvidence.RELATED:
                return True
            case RowEvidence.COLUMNS:
                return shape is None and not level.name.isdigit()
            case RowEvidence.NUMBERED | RowEvidence.NONE:
                is_known = self.evidence is RowEvidence.NUMBERED or not level.name.isdigit()
                return is_known and shape in (None, "band", "graph")


@dataclass(frozen=True, slots=True)
class _DataAxis:
    name: str
    symbol: str
    size: int | None
    is_leading: bool
    is_row: (
        bool  # a leading axis, or any axis of an integer table; the columns of a real matrix are covariates
    )


def data_rows(model: BoundModel, level: Level) -> Rows:
    """What the declared data say of the entries of a level's parameters."""
    symbol, size = level.name, level.num_units
    axes = list(_data_axes(model))
    same = [axis for axis in axes if axis.symbol == symbol]
    design = tuple(axis.name for axis in same if not axis.is_row)
    rows = tuple(axis.name for axis in same if axis.is_row)
    leading = tuple(axis.name for axis in same if axis.is_leading)
    indexes = _indexes(model, symbol)
    if weights := _weights(model, symbol):
        return Rows(RowEvidence.COMPONENTS, weights)
    if design and not indexes:
        return Rows(RowEvidence.COLUMNS, design)
    if leading and not indexes:
        across = _lies_across(model, level, leading, axes)
        return Rows(RowEvidence.COLUMNS if across else RowEvidence.ROWS, leading)
    if covariates := _covariates(model, level, axes):
        return Rows(RowEvidence.COLUMNS, covariates)
    if indexes:
        return Rows(RowEvidence.NUMBERED if symbol.isdigit() else RowEvidence.INDEXED, indexes)
    if rows:
        return Rows(RowEvidence.ROWS, rows)
    is_computed = not symbol.isdigit() and all(
        declaration.name != symbol for declaration in model.program.data
    )
    if is_computed and size > 2 and (near := _close_rows(axes, size)):
        return Rows(RowEvidence.RELATED, near)
    if numbered := _numbered(model, size):
        return Rows(RowEvidence.NUMBERED, numbered)
    return Rows(RowEvidence.NONE)


def _lies_across(model: BoundModel, level: Level, names: Collection[str], axes: list[_DataAxis]) -> bool:
    """Whether all that has a row for each entry are designs with a column for each row of other data: X'."""
    given = outcomes(model.program)
    rows = {
        axis.symbol
        for axis in axes
        if axis.is_leading and axis.name not in names and (axis.size or 0) > level.num_units
    }
    return all(
        model.program.declaration(name).type.base == "matrix"
        and name not in given
        and {axis.symbol for axis in axes if axis.name == name and not axis.is_leading} & rows
        for name in names
    )


def size_with_value(model: BoundModel, value: int) -> str | None:
    """The declared number of the data that counts so many things, one that bounds an index first; None without any."""
    counts = [
        d.name
        for d in model.program.data
        if d.type.is_integer and not d.type.dims and int(np.asarray(model.data[d.name])) == value
    ]
    return next((name for name in counts if _indexes(model, name)), counts[0] if counts else None)


def has_outcomes(model: BoundModel, level: Level) -> bool:
    """Whether data that the program gives a distribution have an entry per unit, or rows that an index gives them."""
    program = settled(model.program, model.data)
    given = [declaration for declaration in program.data if declaration.name in outcomes(program)]
    sizes = {size.text for declaration in given for size in declaration.type.dims}
    indexes = (program.declaration(name) for name in _indexes(model, level.name))
    return level.name in sizes or any(index.type.dims[0].text in sizes for index in indexes)


def fills_places(model: BoundModel, rows: Rows) -> bool:
    """Whether the data say of the units no more than where they belong, as of missing values among data of others."""
    if rows.evidence is not RowEvidence.ROWS:
        return False
    given = outcomes(model.program)
    entries = [d for d in model.program.data if d.name in rows.names]
    return len(entries) == len(rows.names) and all(
        d.type.is_integer
        and len(d.type.dims) == 1
        and d.name not in given
        and int(np.min(model.data[d.name], initial=1)) >= 1
        for d in entries
    )


def _data_axes(model: BoundModel) -> Iterator[_DataAxis]:
    program = settled(model.program, model.data)
    for declaration in (*program.data, *program.transformed_data):
        kind = declaration.type
        if kind.is_tuple:
            continue
        shape = declared_shape(kind, model.data) or (None,) * len(kind.dims)
        symbols = [expression.text for expression in kind.dims]
        for number, (symbol, size) in enumerate(zip(symbols, shape, strict=True)):
            if symbol not in symbols[:number]:  # a square matrix has no covariates
                yield _DataAxis(declaration.name, symbol, size, number == 0, number == 0 or kind.is_integer)


def _indexes(model: BoundModel, symbol: str) -> tuple[str, ...]:
    """Integer arrays of the data whose declared upper bound is the size: `array[N] int<lower=1, upper=J> jj`."""
    return tuple(
        d.name
        for d in (*model.program.data, *model.program.transformed_data)
        if d.type.is_integer and d.type.dims and d.type.upper is not None and d.type.upper.text == symbol
    )


def _numbered(model: BoundModel, size: int) -> tuple[str, ...]:
    """Integer arrays of the data that hold the numbers from 1 to the size, all of them."""
    names = []
    for declaration in model.program.data:
        values = model.data.get(declaration.name)
        if not declaration.type.is_integer or not isinstance(values, np.ndarray) or values.size <= size:
            continue
        if int(values.min()) == 1 and int(values.max()) == size and len(np.unique(values)) == size:
            names.append(declaration.name)
    return tuple(names)


def _close_rows(axes: list[_DataAxis], size: int) -> tuple[str, ...]:
    """Data whose number of rows is nearly the size, or adds up to it, or is not much larger."""
    sizes = {axis.name: axis.size for axis in axes if axis.is_row and axis.size}
    for name, rows in sizes.items():
        if abs(rows - size) <= 1:
            return (name,)
    for first, second in combinations(sizes, 2):
        if sizes[first] + sizes[second] == size:
            return first, second
    longest = max(sizes, key=lambda name: sizes[name], default="")
    return (longest,) if longest and 2 * size >= sizes[longest] >= 20 else ()


def _weights(model: BoundModel, symbol: str) -> tuple[str, ...]:
    """Simplexes of the parameters with that many entries, and matrices of such."""
    return tuple(
        d.name
        for d in model.program.parameters
        if d.type.base in _WEIGHTS and d.type.sizes[_WEIGHTS[d.type.base]].text == symbol
    )


def _covariates(model: BoundModel, level: Level, axes: list[_DataAxis]) -> tuple[str, ...]:
    """The design matrices over whose columns every parameter has another axis: X for `matrix[K, P] beta`.

    What has an entry per unit is none: priors of `array[J, K] simplex[K] theta`.
    """
    others = [
        {axis.symbol for number, axis in enumerate(model.layout[member.name].axes) if number != member.axis}
        if not member.places
        else set()
        for member in level.members
    ]
    common = set.intersection(*others) - {level.name}
    own = {axis.name for axis in axes if axis.symbol == level.name}
    return tuple(
        axis.name for axis in axes if not axis.is_row and axis.symbol in common and axis.name not in own
    )
