"""Trials: one data entry of a bound model is changed at some places, and the scores of its units are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError
from stan_adapters.language.expressions import Unevaluable
from stan_adapters.language.program import Declaration
from stan_adapters.unit_data.parts import rebind

type Array = np.ndarray[Any, np.dtype[Any]]

_UNITS_APART = 40  # one pair of exchanged parts for so many units
_FREE = ("int", "real", "vector", "row_vector", "matrix")  # types whose values can be moved one by one


@dataclass(eq=False)
class Trials:
    """One bound model at fixed points: how its units' scores change with its data.

    Attributes:
        index: (N, d) positions of the units' latents.
        theta: (P, D) the points.
    """

    model: BoundModel
    index: IndexArray
    theta: FloatArray
    rng: np.random.Generator
    bindings: int = 0
    evaluations: int = 0
    _before: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        _, gradient = self.model.log_density_gradient(self.theta)
        self.evaluations += len(self.theta)
        self._before = gradient[:, self.index]

    @property
    def num_units(self) -> int:
        return len(self.index)

    def change(
        self, declaration: Declaration, axis: int | None, places: IndexArray, point: int | None = None
    ) -> FloatArray | None:
        """Relative change of every unit's scores (N,) when an entry differs at some places along an axis.

        At one of the points or at all of them. None where no change of these places was accepted.
        """
        points = slice(None) if point is None else slice(point % len(self.theta), point % len(self.theta) + 1)
        value = np.asarray(self.model.data[declaration.name])
        for variant in variants(declaration, value, axis, places, self.rng):
            change = self.together({declaration.name: variant}, points)
            if change is not None:
                return change
        return None

    def changes(self, declaration: Declaration, axis: int | None, places: IndexArray) -> Iterator[FloatArray]:
        """As `change`, at all points, for every change of these places that was accepted."""
        value = np.asarray(self.model.data[declaration.name])
        for variant in variants(declaration, value, axis, places, self.rng):
            change = self.together({declaration.name: variant})
            if change is not None:
                yield change

    def change_in_place(self, axes: Mapping[str, int | None]) -> float | None:
        """Largest relative change of scores when units swap places with all their data and latents.

        Args:
            axes: the entries that feed the units, and the axis of each that has one part per unit.

        Returns: None where the program refuses the data in another order.
        """
        order = self.rng.permutation(self.num_units)
        values = {}
        for name, axis in axes.items():
            value = np.asarray(self.model.data[name])
            flat = value.reshape(-1)[order].reshape(value.shape) if axis is None else value.take(order, axis)
            values[name] = flat
        theta = self.theta.copy()
        theta[:, self.index] = self.theta[:, self.index[order]]
        try:
            with self._bind(values) as model:
                lp, gradient = model.log_density_gradient(theta)
        except AvistanError:
            return None
        self.evaluations += len(theta)
        finite = np.isfinite(lp)
        if not finite.any():
            return None
        return float(
            relative_change(self._before[finite][:, order], gradient[:, self.index][finite]).max(initial=0.0)
        )

    def sets_units(self, declaration: Declaration) -> bool:
        """Whether integers decide how many latents there are, as a mask or a count does."""
        value = np.asarray(self.model.data[declaration.name])
        if not declaration.type.is_integer:
            return False
        for step in (1, -1):
            try:
                with self._bind(
                    {declaration.name: _shifted(declaration, value, step, self.model.data)}
                ) as model:
                    if model.dim != self.model.dim:
                        return True
            except AvistanError:
                continue
        return False

    def spaced(self, owner: IndexArray, most: int = 8, rounds: int = 3) -> Iterator[IndexArray]:
        """Places whose owners are far apart, an even number of them, for each round."""
        units = int(owner.max(initial=-1)) + 1
        pairs = int(np.clip(units // _UNITS_APART, 1, most))
        for _ in range(rounds if units <= 10_000 else 1):
            wanted = (np.arange(2 * pairs) * units // (2 * pairs) + int(self.rng.integers(units))) % max(
                units, 1
            )
            order = self.rng.permutation(len(owner))
            by_unit = order[np.argsort(owner[order], kind="stable")]
            at = np.searchsorted(owner[by_unit], np.sort(wanted))
            places = np.unique(by_unit[np.minimum(at, len(owner) - 1)])
            if len(places) > 1:
                yield places

    def together(self, values: Mapping[str, Array], points: slice = slice(None)) -> FloatArray | None:
        """Relative change of every unit's scores (N,) when entries have other values, all of them in one binding.

        None where the program refuses these values, or has other parameters with them.
        """
        try:
            with self._bind(values) as model:
                if model.dim != self.model.dim:
                    return None
                lp, gradient = model.log_density_gradient(self.theta[points])
        except AvistanError:
            return None
        self.evaluations += len(lp)
        finite = np.isfinite(lp)
        if not finite.any():
            return None
        return relative_change(self._before[points][finite], gradient[:, self.index][finite])

    def _bind(self, values: Mapping[str, Array]) -> BoundModel:
        data = self.model.data.replace(**values)
        self.bindings += 1
        return rebind(self.model, data)


def relative_change(before: FloatArray, after: FloatArray) -> FloatArray:
    """Largest change of each unit's scores (P, N, d) relative to them plus a typical score, shape (N,)."""
    size = np.abs(before) + np.abs(after)
    typical = np.median(size, axis=1, keepdims=True)
    return np.asarray((np.abs(after - before) / (size + typical + 1e-300)).max(axis=(0, 2), initial=0.0))


def variants(
    declaration: Declaration, value: Array, axis: int | None, places: IndexArray, rng: np.random.Generator
) -> Iterator[Array]:
    """The entry with its parts at the given places exchanged, then moved up and down where its type is free."""
    rows = value.reshape(-1, 1) if axis is None else np.moveaxis(value, axis, 0)
    shape = value.shape

    def put(part: Array) -> Array:
        changed = rows.copy()
        changed[places] = part
        return changed.reshape(shape) if axis is None else np.moveaxis(changed, 0, axis)

    part = rows[places]
    for _ in range(3):
        order = rng.permutation(len(places))
        exchanged = part.copy()
        exchanged[order] = part[np.roll(order, 1)]  # one cycle: every part moves
        if not np.array_equal(exchanged, part):
            yield put(exchanged)
            break
    if declaration.type.base not in _FREE:
        return
    if declaration.type.is_integer:
        yield put(np.maximum(part - 1, rows.min(initial=0)))
        yield put(np.minimum(part + 1, rows.max(initial=0)))
    else:
        known = rows[np.isfinite(rows)]
        step = 0.3 * float(np.std(known)) if known.size else 0.0
        step = step or 0.1 * float(np.abs(known).max(initial=0.0)) or 0.1
        yield put(part + step)
        yield put(part - step)
        yield put(part * 0.9)


def _shifted(declaration: Declaration, value: Array, step: int, env: Any) -> Array:
    """All integers one up or down, kept within the declared bounds where these are plain numbers."""
    moved = value + step
    for bound, limit in ((declaration.type.lower, np.maximum), (declaration.type.upper, np.minimum)):
        if bound is not None:
            try:
                moved = limit(moved, np.asarray(bound.evaluate(env)))
            except (Unevaluable, ValueError):  # the engine judges
                continue
    return moved
