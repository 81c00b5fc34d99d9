"""Quantities of new units that depend on which other units are there: say, a difference from the mean of all."""

from __future__ import annotations

import numpy as np

from stan_adapters.bound.bound_model import BoundModel, ConstrainedDraws
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.errors import AvistanError
from stan_adapters.levels.levels import Level, make_level
from stan_adapters.new_units.alone import possible_plans
from stan_adapters.unit_data.checks import MAX_UNITS, TOLERANCE
from stan_adapters.unit_data.joining import join
from stan_adapters.unit_data.parts import rebind

_POINTS = 2


def quantities_of_all_units(
    model: BoundModel, level: Level, new: StanData, rng: np.random.Generator
) -> tuple[str, ...]:
    """Transformed parameters and generated quantities with a part for each unit (or row) that is another for the new
    units by themselves than for the same units, at the same latents, beside fitted ones.

    Args:
        model: bound to the data of the fitted units.

    Returns: names in the program's order; none where the data can't be joined. Random quantities are not compared.
    """
    program = model.program
    if not level.block or not (program.transformed_parameters or program.generated_quantities):
        return ()
    some = np.sort(rng.permutation(level.num_units)[:MAX_UNITS])
    for plan in possible_plans(model, level):
        try:
            joined = join([new, plan.subset(some)], level=level.name)  # new units keep their numbers
            with rebind(model, new) as one, rebind(model, joined) as both:
                return _different(one, both, level, rng)
        except AvistanError:
            continue
    return ()


def _different(one: BoundModel, both: BoundModel, level: Level, rng: np.random.Generator) -> tuple[str, ...]:
    theta = 0.5 * rng.uniform(-1, 1, (_POINTS, both.dim))
    few, many = (make_level(m.layout, level.name, level.members) for m in (one, both))
    own = np.zeros((_POINTS, one.dim))
    others: list[IndexArray] = [few.globals_index(one.dim), many.globals_index(both.dim)]
    if len(others[0]) != len(others[1]) or few.index.shape[1] != many.index.shape[1]:
        return ()
    own[:, others[0]] = theta[:, others[1]]
    own[:, few.index] = theta[:, many.index[: len(few.index)]]
    alone, again = (one.constrain(own, seed=seed)[0] for seed in (1, 2))
    together = both.constrain(theta)[0]
    parameters = {declaration.name for declaration in both.program.parameters}
    return tuple(
        name
        for name in alone
        if name.partition(":")[0] not in parameters
        and np.array_equal(alone[name], again[name], equal_nan=True)
        and _differs(alone, together, name)
    )


def _differs(alone: ConstrainedDraws, together: ConstrainedDraws, name: str) -> bool:
    """Where both have as many axes and other sizes, whether the first entries are others."""
    here, there = alone[name], together[name]
    if here.ndim != there.ndim or here.shape == there.shape:
        return False
    there = there[tuple(slice(size) for size in here.shape)]
    if here.shape != there.shape or not here.size:
        return False
    finite = np.isfinite(here) & np.isfinite(there)
    gap = np.abs(here - there)[finite]
    size = np.abs(here)[finite] + np.abs(there)[finite]
    return bool((gap > TOLERANCE * (size + size.mean())).any()) if finite.any() else False
