"""log p(theta, x) of separable units: each unit's latents integrated out by quadrature around their mode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avistan.fitting.fitted import Fitted
from avistan.posterior.approximation import Approximation
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray, Rng
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import StructureError
from stan_adapters.levels.levels import Level
from stan_adapters.levels.probes import Prober, probe_points, separability
from stan_adapters.units.conditional_density import Grade, UnitDensity, line_directions

_CHECKED = 24  # draws of the globals at which integrals are held against the finest
_COARSE_ERROR = 0.25  # nats of standard deviation over these: it costs 6 % of the effective draws
_FEW_LATENTS = 300  # with fewer, integrals are the finest from the start


def unit_density(fit: Fitted) -> UnitDensity | None:
    """Densities of the fitted level's units; None without a level, or where its units are coupled."""
    if fit.level is None or fit.family.local.reach or not is_separable(fit.model, fit.level, fit.seed):
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marginals:
    """log p(theta, x) at S draws of the globals, the locals integrated out.

    Attributes:
        values: (S,) nats, up to the program's constant; nan where an integral met a point that Stan rejects.
        error: standard deviation over draws of what is left of the integrals' error, nats.
    """

    values: FloatArray
    error: float


def log_marginals(density: UnitDensity, q: Approximation, theta: FloatArray, rng: Rng) -> Marginals:
    """Marginal log densities at globals (S, G): every unit's integral by quadrature around its conditional mode.

    The cheapest quadrature that agrees with the finest at some draws serves all.
    """
    lines = line_directions(rng, (1, density.num_units), density.block, frames=1 if density.block == 2 else 2)

    def integrals(part: FloatArray, grade: Grade) -> FloatArray:
        values = np.empty(len(part))
        for rows in density.batches(len(part), copies=8):
            modes = density.modes(part[rows], q.centers(part[rows]))
            found = density.conditionals(part[rows], modes, lines, grade=grade)
            values[rows] = modes.log_density + (modes.log_volume + found.correction).sum(axis=1)
        return values

    if density.index.size > _FEW_LATENTS:
        checked = np.unique(np.linspace(0, len(theta) - 1, min(_CHECKED, len(theta))).round().astype(int))
        finest = integrals(theta[checked], "finest")
        grades: tuple[Grade, ...] = ("coarse", "fine")
        for grade in grades:
            difference = finest - integrals(theta[checked], grade)
            error = _spread(difference)
            if error <= _COARSE_ERROR:
                return Marginals(values=integrals(theta, grade) + np.nanmean(difference), error=error)
    return Marginals(values=integrals(theta, "finest"), error=0.0)


def _spread(values: FloatArray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.std()) if kept.size else float("nan")
