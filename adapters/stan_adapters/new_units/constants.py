"""The program by which new units are predicted: what is computed from all units keeps its fitted values."""

from __future__ import annotations

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.derived import Derivation
from stan_adapters.errors import StructureError
from stan_adapters.levels.levels import Level
from stan_adapters.new_units.alone import possible_plans
from stan_adapters.unit_data.checks import random_points
from stan_adapters.unit_data.computed import Computed

_POINTS = 2


def with_constants(
    model: BoundModel, level: Level, rng: np.random.Generator
) -> tuple[Derivation, BoundModel] | None:
    """The program with what its transformed data compute from all units as data, proven equal on the fitted data.

    Predictors of new units are then centred by the means of the fitted ones. What is computed row by row, and the
    number of the units, is computed anew.

    Args:
        model: bound to the data of the fitted units.

    Returns: the program, and a model of it bound to the fitted data, which the caller closes; None where nothing is
        computed from all units, or the program can't be written so. Whether that is all is for the caller to test.
    """
    try:
        theta, _ = random_points(model, rng, _POINTS)
    except StructureError:
        return None
    computed = Computed(model, level, theta, rng)
    plan = next(possible_plans(model, level), None)
    return None if plan is None else next(computed.of_all_units(plan, own_size=False), None)
