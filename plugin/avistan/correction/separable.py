"""Whether a fit's units are independent given the globals, so that these have a marginal density."""

from __future__ import annotations

from avistan.fitting.fitted import Fitted
from avistan.runtime.streams import Stream, generator
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import StructureError
from stan_adapters.levels.levels import Level
from stan_adapters.levels.probes import Prober, probe_points, separability
from stan_adapters.units.conditional_density import UnitDensity


def has_separable_units(fit: Fitted) -> bool:
    """Whether the fit has a level, and its units are separable."""
    return (
        fit.level is not None and not fit.family.local.reach and is_separable(fit.model, fit.level, fit.seed)
    )


def unit_density(fit: Fitted) -> UnitDensity | None:
    """Densities of the fitted level's units; None without a level, or where its units are coupled."""
    if fit.level is None or not has_separable_units(fit):
        return None
    return UnitDensity(fit.model, fit.level.index, fit.level.globals_index(fit.model.dim))


def is_separable(model: BoundModel, level: Level, seed: int) -> bool:
    """Whether a probe finds the units of a level independent given everything else."""
    rng = generator(seed, Stream.SEPARABILITY)
    try:
        points = probe_points(model, rng, 1, layout=model.layout)
    except StructureError:
        return False
    return separability(Prober(model, points, rng), level, rounds=1).holds
