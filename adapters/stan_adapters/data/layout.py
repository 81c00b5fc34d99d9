"""Where each parameter lives in the unconstrained vector: the only module that knows memory order.

Stan stores the elements of an array contiguously, first index slowest; inside an element, vectors run in order and
matrices column by column; a constrained element (simplex, covariance, ...) is one block of its own free dimension.
BridgeStan's unconstrained *names* list arrays column by column instead, so positions come from the declarations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from stan_adapters.errors import BindingError
from stan_adapters.language.expressions import Expression, Unevaluable
from stan_adapters.language.program import Declaration, StanType

IndexArray = npt.NDArray[np.int64]
Shapes = Mapping[str, tuple[int, ...]]

_VECTORS = {"vector", "row_vector", "complex_vector", "complex_row_vector"}
_MATRICES = {"matrix", "complex_matrix"}
_STOCHASTIC = {
    "row_stochastic_matrix": 0,
    "column_stochastic_matrix": 1,
}  # which of its dimensions counts simplexes


@dataclass(frozen=True, slots=True)
class Axis:
    """One declared dimension of a parameter.

    `symbol` is the size as written ("N", "N - 1"); `kind` is "array", "vector", "row" or "column", or for the inside of
    a constrained element its type ("simplex", "sum_to_zero_vector", ...).
    """

    symbol: str
    size: int
    kind: str


@dataclass(frozen=True, slots=True)
class Container:
    """A declared parameter: `size` unconstrained coordinates from `offset` on.

    Attributes:
        shape: the constrained shape, array sizes first.
        axes: the axes along which it falls into unconstrained blocks of equal size; none for a scalar or a single
            constrained element.
        whole: the inner axes of a constrained element, whose entries share their free coordinates.
    """

    name: str
    offset: int
    size: int
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    whole: tuple[Axis, ...]
    _grid: IndexArray  # positions, one leading dimension for each axis, the rest flat

    def positions(self, axis: int) -> IndexArray:
        """Positions of the blocks along an axis: shape (n, size / n), row u = the block of index u."""
        rows = np.moveaxis(self._grid, axis, 0)
        return rows.reshape(rows.shape[0], self.size // max(rows.shape[0], 1))


@dataclass(frozen=True, slots=True)
class Layout:
    """All parameters of a bound model in declaration order; `dim` unconstrained coordinates.

    Attributes:
        components: of tuples among the parameters, called as in the program: `t.1`. Those of arrays of tuples lie
            scattered, and belong to the entries of the array.
    """

    containers: tuple[Container, ...]
    dim: int
    components: tuple[Container, ...] = ()

    def __getitem__(self, name: str) -> Container:
        for container in (*self.containers, *self.components):
            if container.name == name:
                return container
        raise KeyError(name)

    def owner(self, position: int) -> Container:
        """The container that holds an unconstrained position."""
        for container in self.containers:
            if container.offset <= position < container.offset + container.size:
                return container
        raise IndexError(position)

    def label(self, position: int) -> str:
        """A readable name of a position: the container and its 1-based place there, such as `z[3]`."""
        container = self.owner(position)
        if container.size == 1 and not container.shape:
            return container.name
        grid = container._grid[..., 0] if container._grid.shape[-1] == 1 else container._grid
        where = np.argwhere(grid == position)[0]
        if container.whole and container.whole[0].kind == "column_stochastic_matrix":
            where[-2:] = where[-2:][::-1]
        place = ",".join(str(i + 1) for i in where)
        return f"{container.name}[{place}]" if place else container.name


def build_layout(
    declarations: Sequence[Declaration], env: Mapping[str, Any], shapes: Shapes, dim: int
) -> Layout:
    """The layout of the parameters block.

    Args:
        declarations: the parameters, in order.
        env: the data, on which declared sizes are evaluated.
        shapes: constrained shapes as the engine reports them, for sizes that the data alone do not give
            (transformed data, user functions).
        dim: unconstrained dimension as the engine reports it.

    Raises:
        BindingError: the declarations do not add up to `dim`, so positions can't be trusted.
    """
    containers, components, offset = [], [], 0
    for declaration in declarations:
        shape = declared_shape(declaration.type, env)
        if shape is None:  # an engine lists no names for an empty container
            shape = shapes.get(declaration.name, (0,) * len(declaration.type.dims))
        container = _container(declaration.name, declaration.type, shape, offset, env)
        containers.append(container)
        components += _components(container, declaration.type, env)
        offset += container.size
    if offset != dim:
        listed = ", ".join(f"{c.name}: {c.size}" for c in containers)
        raise BindingError(
            f"the declared parameters have {offset} unconstrained coordinates ({listed}), the engine reports {dim}. "
            "Is the library built from this program?"
        )
    return Layout(tuple(containers), dim, tuple(components))


def declared_shape(kind: StanType, env: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Array sizes, then the element's own shape; None where the data do not determine it."""
    try:
        return kind.shape(env)
    except Unevaluable:
        return None


def axis_sizes(kind: StanType) -> tuple[Expression, ...]:
    """The declared sizes of the axes along which a parameter falls into blocks, in the order of `Container.axes`."""
    if kind.base in _VECTORS | _MATRICES:
        return kind.dims
    if kind.base in _STOCHASTIC:
        return (*kind.array_sizes, kind.own_dims[_STOCHASTIC[kind.base]])
    return kind.array_sizes


def type_of(declarations: Sequence[Declaration], name: str) -> StanType:
    """The type of a parameter, or of a component of a tuple (`t.1`)."""
    own, *places = name.split(".")
    kind = next(declaration.type for declaration in declarations if declaration.name == own)
    for place in places:
        kind = kind.elements[int(place) - 1]
    return kind


def _components(container: Container, kind: StanType, env: Mapping[str, Any]) -> list[Container]:
    """The components of a tuple, and theirs: one after the other, as they are declared."""
    if not kind.is_tuple or kind.array_sizes:
        return []
    found, offset = [], container.offset
    for number, part in enumerate(kind.elements, start=1):
        shape = declared_shape(part, env)
        if shape is None:
            raise BindingError(
                f"the size of the tuple component `{part}` is not determined by the data alone."
            )
        component = _container(f"{container.name}.{number}", part, shape, offset, env)
        found += [component, *_components(component, part, env)]
        offset += component.size
    return found


def _container(
    name: str, kind: StanType, shape: tuple[int, ...], offset: int, env: Mapping[str, Any]
) -> Container:
    num_array = len(kind.array_sizes)
    array_shape, element_shape = shape[:num_array], shape[num_array:]
    axes = [Axis(size.text, n, "array") for size, n in zip(kind.array_sizes, array_shape, strict=True)]
    inside = list(zip(kind.own_dims, element_shape, strict=True))
    whole: list[Axis] = []
    element = _element_size(kind, element_shape, env)
    flat = np.arange(offset, offset + prod(array_shape) * element, dtype=np.int64)
    parts = 2 if kind.is_complex else 1
    if kind.base in _VECTORS:
        axes += [Axis(size.text, n, "vector") for size, n in inside]
        grid = flat.reshape(*array_shape, *element_shape, parts)
    elif kind.base in _MATRICES:
        axes += [Axis(size.text, n, way) for (size, n), way in zip(inside, ("row", "column"), strict=True)]
        rows, columns = element_shape
        grid = flat.reshape(*array_shape, columns, rows, parts).swapaxes(-3, -2)
    elif kind.base in _STOCHASTIC:  # a matrix of the free coordinates of its rows or columns
        along = _STOCHASTIC[kind.base]
        whole = [Axis(inside[1 - along][0].text, inside[1 - along][1], kind.base)]
        axes.append(Axis(inside[along][0].text, inside[along][1], ("row", "column")[along]))
        free = max(inside[1 - along][1] - 1, 0)
        rows = inside[along][1]
        grid = flat.reshape(*array_shape, *((free, rows) if along == 0 else (rows, free)))
        grid = grid.swapaxes(-2, -1) if along == 0 else grid
    else:
        whole = [Axis(size.text, n, kind.base) for size, n in inside]
        grid = flat.reshape(*array_shape, element)
    return Container(name, offset, flat.size, shape, tuple(axes), tuple(whole), grid)


def _element_size(kind: StanType, shape: tuple[int, ...], env: Mapping[str, Any]) -> int:
    """Free dimension of one element. Source: Stan Reference Manual, "Constraint transforms"."""
    base = kind.base
    if base == "tuple":
        return sum(_whole_size(part, env) for part in kind.elements)
    if base.startswith("complex"):
        return 2 * prod(shape)
    if base in ("simplex", "sum_to_zero_vector"):
        return max(shape[0] - 1, 0)
    if base == "sum_to_zero_matrix":
        return max(shape[0] - 1, 0) * max(shape[1] - 1, 0)
    if base in ("cholesky_factor_corr", "corr_matrix"):
        return shape[0] * (shape[0] - 1) // 2
    if base == "cov_matrix":
        return shape[0] * (shape[0] + 1) // 2
    if base == "cholesky_factor_cov":
        rows, columns = shape
        return columns * (columns + 1) // 2 + (rows - columns) * columns
    if base == "row_stochastic_matrix":
        return shape[0] * max(shape[1] - 1, 0)
    if base == "column_stochastic_matrix":
        return max(shape[0] - 1, 0) * shape[1]
    return prod(shape)


def _whole_size(kind: StanType, env: Mapping[str, Any]) -> int:
    shape = declared_shape(kind, env)
    if shape is None:
        raise BindingError(f"the size of the tuple component `{kind}` is not determined by the data alone.")
    num_array = len(kind.array_sizes)
    return prod(shape[:num_array]) * _element_size(kind, shape[num_array:], env)
