"""Whether units have the same scores alone as among others: what prediction of new units by themselves rests on.

Transformed data that compute something from all rows, such as a mean by which predictors are centred, are another
program for other units: their conditional given the globals is then not the one that was fitted. So the program is
bound to halves of its units, of which one at least leaves out any row, and their scores are compared with those that
they have in the whole. Where that decides nothing (units are coupled, their order matters or the data of some can't be
written), single numbers of the data are moved instead: one that changes the scores of nearly all units belongs to none
of them (`moves`). What only new data bring about, such as a number beyond a threshold, shows where they are joined with
the fitted ones (`together`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError, StructureError
from stan_adapters.levels.levels import Level
from stan_adapters.new_units.moves import Moves
from stan_adapters.new_units.together import entries_that_matter_together
from stan_adapters.unit_data.checks import MAX_UNITS, TOLERANCE, Checker, random_points
from stan_adapters.unit_data.parts import PartError
from stan_adapters.unit_data.plan import Plan
from stan_adapters.unit_data.proposals import rule_sets
from stan_adapters.unit_data.trials import relative_change

_MAX_PROPOSALS = 5
_POINTS = 2
_FEW = 8  # one unit of so many is among a few
_REACH = 12  # the farthest neighbours

type Changed = npt.NDArray[np.bool_]


def entries_of_all_units(
    model: BoundModel, level: Level, new: StanData, rng: np.random.Generator
) -> tuple[str, ...]:
    """Data entries from which the program computes something that concerns all units; empty if there are none.

    Args:
        model: bound to the data of all units.
        new: data of other units; an entry that is the same there as in the model's can't change what was computed.

    Where units are not independent given the globals, scores of some units alone lack the others for that reason too,
    and only single numbers are moved.
    """
    if level.num_units < 2 or not level.block:
        return ()
    try:
        theta, _ = random_points(model, rng, _POINTS)
    except StructureError:
        return ()
    independent = _independent(model, level, theta, rng)
    plans = list(possible_plans(model, level))
    deciding = plans[:1]
    for plan in plans if independent else ():
        checker = Checker(model, level, plan.subset, theta, rng, occupied=_occupied(plan))
        try:
            halves = _changed_halves(checker)
            few = _changed_few(checker)
            if not halves:
                continue
            if len(halves) == 2 and not any(changed.any() for changed in (*halves, few)):
                together = entries_that_matter_together(model, level, plan, new, theta, rng)
                return () if together is None else together or _sizes(model, plan)
            exchangeable = _exchangeable(checker)
        except PartError:
            continue
        if exchangeable and any(changed.any() for changed in (*halves, few)):
            return Moves(model, level, plan, theta, rng).crossing() or _sizes(model, plan)
        if len(halves) == 2 and not any(_beyond_neighbours(changed) for changed in halves):
            return ()
        deciding = [plan]
        break
    for plan in deciding:
        return Moves(model, level, plan, theta, rng).of_all(new, independent=independent)
    return ()


def _independent(model: BoundModel, level: Level, theta: FloatArray, rng: np.random.Generator) -> bool:
    """Whether the scores of the first half of the units stay as they are when the latents of the second half move."""
    half = level.num_units // 2
    moved = theta.copy()
    others = level.index[half:].ravel()
    moved[:, others] += 0.1 * rng.uniform(-1, 1, (len(theta), len(others)))
    _, before = model.log_density_gradient(theta)
    _, after = model.log_density_gradient(moved)
    first = level.index[:half]
    return not (relative_change(before[:, first], after[:, first]) > TOLERANCE).any()


def possible_plans(model: BoundModel, level: Level) -> Iterator[Plan]:
    """Ways to write the data of some units that fit the declarations."""
    for rules in islice(rule_sets(model.program, model.data, level), _MAX_PROPOSALS):
        try:
            yield Plan(model.data, rules, level.name, level.num_units)
        except StructureError:
            continue


def _occupied(plan: Plan) -> npt.NDArray[np.bool_] | None:
    rows = plan.rows_per_unit()
    return None if rows is None else rows > 0


def _changed_halves(checker: Checker) -> list[Changed]:
    """Which units of the first and of the second half have other scores without the others.

    Those next to the units that are left out come last. A half that can't be bound or compared is missing.

    Raises PartError: the parameters are others then.
    """
    count = checker.level.num_units
    size = min(count // 2, MAX_UNITS)
    found = []
    for units, order in ((np.arange(size), 1), (np.arange(count - size, count), -1)):
        changed = _changed(checker, units)
        found += [] if changed is None else [changed[::order]]
    return found


def _changed_few(checker: Checker) -> Changed:
    """As in halves, of a few random units: they lack more of the values that occur in both halves, such as largest."""
    count = checker.level.num_units
    few = np.sort(checker.rng.permutation(count)[: max(1, min(count // _FEW, MAX_UNITS))])
    try:
        changed = _changed(checker, few)
    except PartError:
        changed = None
    return np.zeros(0, dtype=bool) if changed is None else changed


def _changed(checker: Checker, units: IndexArray) -> Changed | None:
    try:
        part = checker.bind(units)
    except PartError:
        raise
    except AvistanError:
        return None
    with part.model:
        _, _, alone = checker.evaluate(part)
    _, gradient = checker.whole.log_density_gradient(checker.theta)
    among = gradient[:, checker.level.index[units]]
    kept = np.isfinite(alone).all(axis=(1, 2)) & (np.abs(alone).sum(axis=(1, 2)) > 0)
    return relative_change(among[kept], alone[kept]) > TOLERANCE if kept.any() else None


def _exchangeable(checker: Checker) -> bool:
    """Raises PartError."""
    try:
        return checker.exchangeability().holds
    except PartError:
        raise
    except AvistanError:  # these data can't be written in another order
        return False


def _beyond_neighbours(changed: Changed) -> bool:
    """Whether others changed than those at the end, whose neighbours are gone."""
    return bool(changed[: len(changed) - min(_REACH, len(changed) // 2)].any())


def _sizes(model: BoundModel, plan: Plan) -> tuple[str, ...]:
    """What is left where no number of the units changes others' scores: how many they are."""
    return tuple(
        d.name
        for d in model.program.data
        if plan.owner(d.name) is None and d.type.is_integer and not d.type.dims
    )
