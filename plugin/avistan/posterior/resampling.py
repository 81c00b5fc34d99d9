"""Draws of a fit corrected by importance resampling of its globals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from avistan.fitting.fitted import Fitted
from avistan.posterior.approximation import approximation
from avistan.posterior.marginal_importance import GlobalsImportance, adapt, weigh, weigh_enough
from avistan.posterior.unit_marginals import unit_density
from avistan.runtime.errors import FitError
from avistan.runtime.progress import begin_stage
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray, Rng
from stan_adapters.units.conditional_density import line_directions


# Weights that are not finite count for nothing.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def corrected_draws(
    fit: Fitted, draws: int = 1000, *, seed: int | None = None
) -> tuple[FloatArray, GlobalsImportance]:
    """Draws (S, D) on the unconstrained scale, the globals corrected by importance resampling and each unit's latents
    drawn from their conditional density given these; and the weights behind them.

    Raises:
        FitError: k-hat says that the weights can't be relied on.
    """
    given = fit.seed if seed is None else seed
    density, q = unit_density(fit), approximation(fit.family, fit.inputs)
    begin_stage("correcting the globals", next="draws of the posterior")
    rng = generator(given, Stream.IMPORTANCE)
    wanted = max(1000, draws)
    weights = weigh_enough(fit, density, q, wanted, rng)
    if density is not None or fit.level is None:
        weights = adapt(fit, density, q, weights, rng, last=wanted)
    if not weights.adapted and len(weights.theta) < wanted:
        weights = weigh(fit, density, q, wanted, rng)
    if not weights.reliable:
        raise FitError(
            f"importance weights can't correct this fit: the k-hat of its {_what(weights)} is {weights.khat:.2f}, and "
            f"above {weights.threshold:.2f} weights are dominated by a few draws. Try richer families (family='auto') "
            "if it has not, or use NUTS with fit.warm_start()."
        )
    rng = generator(given, Stream.IMPORTANCE_RESAMPLING)
    theta = weights.theta[systematic(np.exp(weights.smoothed), draws, rng)]
    if density is None:
        return theta, weights
    points = np.empty((draws, fit.model.dim))
    for rows in density.batches(draws, copies=8):
        part = theta[rows]
        modes = density.modes(part, q.centers(part))
        lines = line_directions(rng, (len(part), density.num_units), density.block)
        points[rows] = density.points(part, density.conditionals(part, modes, lines, rng).z)
    return points, weights


def _what(weights: GlobalsImportance) -> str:
    return "globals" if weights.marginal else "parameters together"


def systematic(weights: FloatArray, draws: int, rng: Rng) -> npt.NDArray[np.int64]:
    """Numbers (draws,) of draws taken in proportion to weights (S,), in random order, with the least noise.

    Source: systematic resampling, Kitagawa, Journal of Computational and Graphical Statistics 1996.
    """
    cumulative = np.cumsum(weights / weights.sum())
    places = (np.arange(draws) + rng.random()) / draws
    return rng.permutation(np.minimum(np.searchsorted(cumulative, places), len(weights) - 1))
