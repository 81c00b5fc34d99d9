"""Whether units have the same scores alone as among others: what prediction of new units by themselves rests on.

Transformed data that compute something from all rows, such as a mean by which predictors are centred, are another
program for other units: their conditional given the globals is then not the one that was fitted. So the program is
bound to the first half of its units and their scores are compared with those that they have in the whole. Where the
data of some units can't be written, single numbers of the data are moved instead: one that changes the scores of nearly
all units belongs to none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from ..abi import FloatArray
from ..binding import BoundModel
from ..data import StanData
from ..errors import AvistanError, StructureError
from ..levels import Level
from .checks import MAX_UNITS, TOLERANCE, Checker, random_points
from .join_plan import same
from .parts import PartError
from .plan import Plan
from .proposals import rule_sets
from .rules import OWNERS
from .trials import Trials, relative_change

_MAX_PROPOSALS = 5
_POINTS = 2
_NEARLY_ALL = 0.9  # share of the units
_FEWEST_UNITS = 5  # that show what nearly all are
_REACH = 12  # the farthest neighbours


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
    for plan in _plans(model, level) if _independent(model, level, theta, rng) else ():
        checker = Checker(model, level, plan.subset, theta, rng, occupied=_occupied(plan))
        try:
            changed = _changed_alone(checker)
            if changed is None:
                continue
            if not changed.any():
                return ()
            if checker.exchangeability().holds:
                return _named(model, level, plan, theta, rng)
        except PartError:
            continue
        except AvistanError:  # these data can't be cut, or their order matters
            changed = np.ones(1, dtype=bool)
        if not changed[:-_REACH].any():  # only units whose neighbours are gone
            return ()
    return _moving_all(model, level, new, theta, rng)


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


def _plans(model: BoundModel, level: Level) -> Iterator[Plan]:
    """Ways to write the data of some units that fit the declarations."""
    for rules in islice(rule_sets(model.program, model.data, level), _MAX_PROPOSALS):
        try:
            yield Plan(model.data, rules, level.name, level.num_units)
        except StructureError:
            continue


def _occupied(plan: Plan) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None:
    rows = plan.rows_per_unit()
    return None if rows is None else rows > 0


def _changed_alone(checker: Checker) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None:
    """Which of the first units have other scores without the others; None where these can't be bound or compared.

    Raises PartError: the parameters are others then.
    """
    count = checker.level.num_units
    first = np.arange(min(count // 2, MAX_UNITS))
    for units in (first, np.arange(count - len(first), count)):
        try:
            part = checker.bind(units)
        except PartError:
            raise
        except AvistanError:
            continue
        with part.model:
            _, _, alone = checker.evaluate(part)
        _, gradient = checker.whole.log_density_gradient(checker.theta)
        among = gradient[:, checker.level.index[units]]
        kept = np.isfinite(alone).all(axis=(1, 2)) & (np.abs(alone).sum(axis=(1, 2)) > 0)
        if kept.any():
            changed = relative_change(among[kept], alone[kept]) > TOLERANCE
            return changed if units is first else changed[::-1]
    return None


def _named(
    model: BoundModel, level: Level, plan: Plan, theta: FloatArray, rng: np.random.Generator
) -> tuple[str, ...]:
    """The entries of units whose numbers, moved in the second half, change the scores of the first half."""
    trials = Trials(model, level.index, theta, rng)
    half = level.num_units // 2
    names = []
    for declaration in model.program.data:
        owner = plan.owner(declaration.name)
        if owner is None or plan.rules[declaration.name].role in OWNERS:
            continue
        axis, units = owner
        changes = trials.changes(declaration, axis, np.flatnonzero(units >= half))
        if any((change[:half] > TOLERANCE).any() for change in changes):
            names.append(declaration.name)
    sizes = [
        d.name
        for d in model.program.data
        if plan.owner(d.name) is None and d.type.is_integer and not d.type.dims
    ]
    return tuple(names or sizes)


def _moving_all(
    model: BoundModel, level: Level, new: StanData, theta: FloatArray, rng: np.random.Generator
) -> tuple[str, ...]:
    """Entries with a number for each unit or more that are others in the new data, and of which one number moves the
    scores of nearly all units.
    """
    if level.num_units < _FEWEST_UNITS or not any(
        not d.type.is_integer for d in model.program.transformed_data
    ):
        return ()
    trials = Trials(model, level.index, theta, rng)
    names = []
    for declaration in model.program.data:
        value = model.data[declaration.name]
        if not isinstance(value, np.ndarray) or not value.ndim or len(value) < level.num_units:
            continue
        if same(value, new[declaration.name]):
            continue
        place = np.array([len(value) // 2])
        if any((change > TOLERANCE).mean() > _NEARLY_ALL for change in trials.changes(declaration, 0, place)):
            names.append(declaration.name)
    return tuple(names)
