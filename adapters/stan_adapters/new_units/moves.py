"""Numbers of the data that belong to no single unit: moved alone, one of them changes the scores of nearly all units.

Latents stay where they are. So a unit's scores can change only through its own data, through what the program computes
from the data of several units, or, where rows speak of several units' latents, through those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError
from stan_adapters.language.program import Declaration
from stan_adapters.levels.levels import Level
from stan_adapters.unit_data.checks import TOLERANCE
from stan_adapters.unit_data.join_plan import same
from stan_adapters.unit_data.parts import rebind
from stan_adapters.unit_data.plan import Plan
from stan_adapters.unit_data.rules import OWNERS
from stan_adapters.unit_data.trials import Array, relative_change

_NEARLY_ALL = 0.9  # share of the units
_FEWEST_UNITS = 5  # that show what nearly all are
_MOST_BINDINGS = 60  # for one entry
_RANDOM_PLACES = 2
_FARTHER = 0.3  # share of the way to the next number


@dataclass(eq=False)
class Moves:
    """One bound model at fixed points, and how its units' scores change when numbers of its data move.

    Attributes:
        theta: (P, D) the points.
        plan: whose the places of an entry are.
    """

    model: BoundModel
    level: Level
    plan: Plan
    theta: FloatArray
    rng: np.random.Generator
    _others_moved: FloatArray = field(init=False)
    _still: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._still = self.rng.permutation(self.level.num_units) < self.level.num_units // 2
        self._others_moved = self.theta.copy()
        others = self.level.index[~self._still].ravel()
        self._others_moved[:, others] += 0.1 * self.rng.uniform(-1, 1, (len(self.theta), len(others)))

    def owned(self) -> list[tuple[Declaration, int, IndexArray]]:
        """Entries of units, the axis along which these have their parts, and the unit of each place there."""
        found = []
        for declaration in self.model.program.data:
            owner = self.plan.owner(declaration.name)
            if owner is not None and self.plan.rules[declaration.name].role not in OWNERS:
                found.append((declaration, *owner))
        return found

    def change(self, declaration: Declaration, value: Array) -> FloatArray | None:
        """Relative change of every unit's scores (N,), or None where the program refuses the value."""
        found = self._scores(declaration.name, value, self.theta)
        return None if found is None else relative_change(*found)

    def crossing(self) -> tuple[str, ...]:
        """Entries that, moved in one half of the units, change scores in the other half."""
        names = []
        half = self.level.num_units // 2
        for declaration, axis, owner in self.owned():
            value = np.asarray(self.model.data[declaration.name])
            for first in (False, True):
                places = np.flatnonzero((owner < half) == first)
                far = np.arange(half, self.level.num_units) if first else np.arange(half)
                changes = (
                    self.change(declaration, moved) for moved in _moved(declaration, value, axis, places)
                )
                if any((change[far] > TOLERANCE).any() for change in changes if change is not None):
                    names.append(declaration.name)
                    break
        return tuple(names)

    def of_all(self, new: StanData, *, independent: bool) -> tuple[str, ...]:
        """Entries that are others in the new data and of which one number changes the scores of nearly all units.

        Args:
            independent: whether units are independent given the globals. Where they are not, a row may speak of many
                units' latents: every number that is moved must then change nearly all of them, and by amounts that do
                not depend on other units' latents.
        """
        if self.level.num_units < _FEWEST_UNITS:
            return ()
        found = self._from_one_place if independent else self._from_any_place
        return tuple(
            declaration.name
            for declaration, axis, owner in self.owned()
            if not same(self.model.data[declaration.name], new[declaration.name])
            and found(declaration, axis, owner)
        )

    def _from_one_place(self, declaration: Declaration, axis: int, owner: IndexArray) -> bool:
        """Bisection: halves of the places whose move changes nearly all units that own none of them."""
        value = np.asarray(self.model.data[declaration.name])
        by_unit = np.argsort(owner, kind="stable")
        for kind in range(_KINDS):
            waiting = [half for half in np.array_split(by_unit, 2) if len(half)]
            for _ in range(_MOST_BINDINGS // _KINDS):
                if not waiting:
                    break
                places = waiting.pop()
                moved = _move(declaration, value, axis, places, kind)
                change = None if moved is None else self.change(declaration, moved)
                if change is not None and not self._nearly_all(change, owner[places]):
                    continue
                if change is not None and len(places) == 1:
                    return True
                waiting.extend(half for half in np.array_split(places, 2) if len(places) > 1 and len(half))
        return False

    def _nearly_all(self, change: FloatArray, own: IndexArray) -> bool:
        others = np.ones(len(change), dtype=bool)
        others[own[own >= 0]] = False
        return bool(others.any() and (change[others] > TOLERANCE).mean() > _NEARLY_ALL)

    def _from_any_place(self, declaration: Declaration, axis: int, owner: IndexArray) -> bool:
        value = np.asarray(self.model.data[declaration.name])
        count = len(owner)
        places = np.unique([0, count // 2, count - 1, *self.rng.integers(count, size=_RANDOM_PLACES)])
        for kind in range(_KINDS):
            verdicts = []
            for place in places:
                moved = _move(declaration, value, axis, np.array([place]), kind)
                verdict = None if moved is None else self._separate(declaration, moved, owner[[place]])
                verdicts += [] if verdict is None else [verdict]
                if verdict is False:
                    break
            if len(verdicts) > 1 and all(verdicts):
                return True
        return False

    def _separate(self, declaration: Declaration, value: Array, own: IndexArray) -> bool | None:
        """Whether nearly all units change, and whether by what does not depend on other units' latents."""
        here = self._scores(declaration.name, value, self.theta)
        there = self._scores(declaration.name, value, self._others_moved)
        if here is None or there is None or here[0].shape != there[0].shape:
            return None
        if not self._nearly_all(relative_change(*here), own):
            return False
        one, other = here[1] - here[0], there[1] - there[0]
        rounding = TOLERANCE * sum(np.abs(scores) for scores in (*here, *there))
        apart = np.abs(one - other) > 1e-3 * np.abs(one) + rounding
        return not apart[:, self._still].any()

    def _scores(self, name: str, value: Array, theta: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Scores of all units (P, N, d) with the entry as it is and with the value, where both are finite."""
        try:
            with rebind(self.model, self.model.data.replace(**{name: value})) as model:
                if model.dim != self.model.dim:
                    return None
                after_lp, after = model.log_density_gradient(theta)
        except AvistanError:
            return None
        before_lp, before = self.model.log_density_gradient(theta)
        finite = np.isfinite(after_lp) & np.isfinite(before_lp)
        if not finite.any():
            return None
        return before[finite][:, self.level.index], after[finite][:, self.level.index]


_KINDS = 3  # towards the next number, which keeps order and bounds; beyond the largest; below the smallest


def _moved(declaration: Declaration, value: Array, axis: int, places: IndexArray) -> Iterator[Array]:
    for kind in range(_KINDS):
        moved = _move(declaration, value, axis, places, kind)
        if moved is not None:
            yield moved


def _move(declaration: Declaration, value: Array, axis: int, places: IndexArray, kind: int) -> Array | None:
    """The entry with its parts at the places moved, or None where that changes nothing."""
    if not value.size or value.dtype.kind not in "iuf":
        return None
    rows = np.moveaxis(value, axis, 0).copy()
    part = rows[places]
    known = np.unique(value[np.isfinite(value)])
    if not len(known):
        return None
    low, high = known[0], known[-1]
    if kind == 0:
        after = known[np.minimum(np.searchsorted(known, part, side="right"), len(known) - 1)]
        before = known[np.maximum(np.searchsorted(known, part) - 1, 0)]
        next_one = np.where(after > part, after, before)
        step = next_one - part if declaration.type.is_integer else _FARTHER * (next_one - part)
        step = np.where(step == 0, 0.1 * (np.abs(part) + 1), step) if len(known) == 1 else step
    else:
        farther = max(1, high - low)
        step = high + farther - low if kind == 1 else low - farther - high
    with np.errstate(invalid="ignore"):  # numbers that are not finite become others of their kind
        rows[places] = (part + step).astype(value.dtype)
    moved = np.moveaxis(rows, 0, axis)
    return None if np.array_equal(moved, value, equal_nan=True) else moved
