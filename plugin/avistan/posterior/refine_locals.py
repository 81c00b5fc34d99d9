"""Units freed from the inference function: F-VI from the amortized start, the globals fixed.

What an inference function leaves undone, the amortization gap, is the ELBO that single units gain when each may move
its own factor. All units are freed at once: given the globals they do not meet, so one gradient of the whole model
serves them all. In numpy, because a few hundred steps cost less than compiling them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float

from avistan.density.log_density import register
from avistan.family.family import Family
from avistan.family.functions import LocalNu, Refined
from avistan.fitting.chains import Chain, evaluation_key
from avistan.fitting.fitted import Fitted
from avistan.objective.elbo import evaluate
from avistan.posterior.approximation import Approximation, approximation
from avistan.posterior.unit_marginals import unit_density
from avistan.runtime.errors import FitError
from avistan.runtime.limits import whole_number
from avistan.runtime.precision import in_float64
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray, Rng
from stan_adapters.units.conditional_density import UnitDensity, solve_upper

STEPS = 300
_DRAWS = 4  # a step, in antithetic pairs
_RATE = 0.05  # of a step, in sds of the unit's factor
_DECAYS = (0.9, 0.99)
_GAP_DRAWS = 64
_NODES = 4  # of the quadrature between a unit's place before and after: it moves by a fraction of an sd


def unrefined(family: Family) -> Family:
    """The family without rows of its own for fitted units: what serves new units."""
    inference = family.inference
    return replace(family, inference=inference.base) if isinstance(inference, Refined) else family


def num_refined(family: Family) -> int:
    """How many units have a row of their own; what `with_rows` needs to read the family back."""
    return len(family.inference.units) if isinstance(family.inference, Refined) else 0


def with_rows(family: Family, count: int) -> Family:
    """A family with `count` refined rows of no meaning yet, into which saved leaves are read."""
    if not count:
        return family
    nu = LocalNu(*(jnp.zeros((size, count)) for size in family.local.sizes))
    return replace(family, inference=Refined(family.inference, jnp.arange(count), nu))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Freed:
    """Factors of units that were freed, and what that gained.

    Attributes:
        q: the approximation with these factors.
        gain: (N,) nats of ELBO that each unit gained; its sum is an estimate of the amortization gap from below.
        gain_se: (N,) standard errors, from antithetic pairs.
        total, total_se: of all units together.
    """

    q: Approximation
    gain: FloatArray
    gain_se: FloatArray
    total: float
    total_se: float


def free_units(
    density: UnitDensity,
    q: Approximation,
    rng: Rng,
    *,
    full: bool,
    steps: int = STEPS,
    chosen: npt.NDArray[np.bool_] | None = None,
) -> Freed:
    """Adam on every unit's own mean and Cholesky factor, from where the approximation has them.

    Args:
        full: move whole Cholesky factors; else their diagonals.
        chosen: (N,) the units to free; None frees all.

    Source: path-derivative gradients, Roeder, Wu & Duvenaud, NeurIPS 2017; Kingma & Ba, "Adam", ICLR 2015.
    """
    num_units, block = density.index.shape
    lower = np.tril(np.ones((block, block))) if full else np.eye(block)
    diagonal = np.arange(block)
    # In coordinates in which the factor at the start is the identity: a mean, and a factor with log diagonal.
    place = np.zeros((num_units, block, block + 1))
    first, second = np.zeros_like(place), np.zeros_like(place)
    moved = q
    for step in range(steps):
        t = rng.standard_normal((_DRAWS // 2, q.num_globals))
        theta = q.globals_at(np.concatenate([t, -t]))
        e = rng.standard_normal((_DRAWS // 2, num_units, block))
        gradient = _gradient(density, q, moved, theta, np.concatenate([e, -e]), lower)
        if gradient is None:
            continue
        own = np.exp(place[:, diagonal, 1 + diagonal])
        gradient[:, diagonal, 1 + diagonal] *= own
        first = _DECAYS[0] * first + (1 - _DECAYS[0]) * gradient
        second = _DECAYS[1] * second + (1 - _DECAYS[1]) * gradient**2
        root = np.sqrt(second / (1 - _DECAYS[1] ** (step + 1))) + 1e-12
        direction = np.clip(first / (1 - _DECAYS[0] ** (step + 1)) / root, -1, 1)
        place = place + _RATE * 0.5 * (1 + np.cos(np.pi * step / steps)) * direction
        if chosen is not None:
            place[~chosen] = 0.0
        moved = _moved(q, place, lower)
    return _measured(density, q, moved, rng)


def _gradient(
    density: UnitDensity,
    q: Approximation,
    moved: Approximation,
    theta: FloatArray,
    e: FloatArray,
    lower: FloatArray,
) -> FloatArray | None:
    """Of the ELBO by every unit's mean (first column) and factor, (N, d, 1 + d); None if Stan rejects all draws."""
    z, _ = moved.locals_at(theta, e)
    lp, score = density.scores(theta, z)
    kept = np.isfinite(lp)
    if not kept.any():
        return None
    scales = np.broadcast_to(moved.local_scales(theta), z.shape)[kept]
    score, e = score[kept], e[kept]
    # The path's other half: -d log q / dz = y with chol' (scales y) = e, through the flow if there is one.
    pull, bent = solve_upper(moved.chol, e), moved.own(e).bent
    diagonal = np.diagonal(moved.chol, axis1=1, axis2=2)
    if bent is not None:
        pull = (pull + bent.curvature / diagonal) * np.exp(-bent.log_slope)
    mean = np.einsum("nij,sni->nj", q.chol, score + pull / scales)
    pulled = scales * score + pull
    if bent is None:
        of_factor = np.einsum("sni,snj->nij", pulled, e)
    else:  # d x_i / d L_ij: T' e_j, and on the diagonal, where T's own unit moves too, T - T' (r_i - e_i)
        straight = np.einsum("nij,snj->sni", moved.chol, e) / diagonal
        slope = np.exp(bent.log_slope)
        of_factor = np.einsum("sni,snj->nij", pulled * slope, e)
        at = np.arange(diagonal.shape[1])
        of_factor[:, at, at] = (pulled * (bent.value - slope * (straight - e))).sum(axis=0)
    factor = np.einsum("nij,nik->njk", q.chol, of_factor) * lower
    return np.concatenate([mean[..., None], factor], axis=2) / len(score)


def _moved(q: Approximation, place: FloatArray, lower: FloatArray) -> Approximation:
    diagonal = np.arange(place.shape[1])
    own = place[:, :, 1:] * lower
    own[:, diagonal, diagonal] = np.exp(own[:, diagonal, diagonal])
    return replace(q, loc=q.loc + np.einsum("nij,nj->ni", q.chol, place[:, :, 0]), chol=q.chol @ own)


def _measured(density: UnitDensity, q: Approximation, moved: Approximation, rng: Rng) -> Freed:
    """Gains on fresh draws that both share."""
    num_units, block = density.index.shape
    gain, total = np.empty((_GAP_DRAWS // 2, num_units)), np.empty(_GAP_DRAWS // 2)
    for rows in density.batches(_GAP_DRAWS // 2, copies=2):
        t = rng.standard_normal((rows.stop - rows.start, q.num_globals))
        e = rng.standard_normal((len(t), num_units, block))
        theta, noise = q.globals_at(np.concatenate([t, -t])), np.concatenate([e, -e])
        (before, log_q), (after, log_q_after) = (part.locals_at(theta, noise) for part in (q, moved))
        change = density.differences(theta, before, after, nodes=_NODES) + log_q - log_q_after
        gain[rows] = 0.5 * (change[: len(t)] + change[len(t) :])
        total[rows] = gain[rows].sum(axis=1)
    kept = np.isfinite(total)
    gain, total = gain[kept], total[kept]
    if len(gain) < 2:
        gain, total = np.full((2, num_units), np.nan), np.full(2, np.nan)
    root = np.sqrt(len(gain))
    return Freed(
        q=moved,
        gain=gain.mean(axis=0),
        gain_se=gain.std(axis=0, ddof=1) / root,
        total=float(total.mean()),
        total_se=float(total.std(ddof=1) / root),
    )


@in_float64
def refine(
    fit: Fitted, units: Sequence[int] | npt.NDArray[np.integer] | None = None, *, steps: int = STEPS
) -> tuple[Chain, ...]:
    """The fit's chains with chosen units freed from the inference function, and the globals as they were.

    Predictions for new units still come from the inference function.

    Args:
        units: numbers counted from 0, as in ArviZ's coordinates; None frees all.
        steps: Adam steps.

    Raises:
        FitError: there is no separable level, or no such unit.
    """
    density = unit_density(fit)
    if density is None or fit.level is None:
        raise FitError(
            "refine frees units of a separable level, and this fit has none: every parameter is a global already, or "
            "the units are coupled given the globals."
        )
    whole_number("steps", steps)
    numbers = _checked(units, fit.level.num_units, fit.level.name)
    return tuple(_refined_chain(fit, density, chain, numbers, steps) for chain in fit.chains)


def _refined_chain(
    fit: Fitted, density: UnitDensity, chain: Chain, numbers: npt.NDArray[np.int64], steps: int
) -> Chain:
    q = approximation(chain.family, chain.inputs)
    chosen = np.zeros(density.num_units, dtype=bool)
    chosen[numbers] = True
    freed = free_units(
        density,
        q,
        generator(fit.seed, Stream.REFINEMENT),
        full=chain.family.local.kind == "full",
        steps=steps,
        chosen=chosen,
    )
    family = _with_factors(chain.family, jnp.asarray(chain.inputs, dtype=jnp.float32), freed.q, numbers)
    with register(fit.model) as slot:
        evaluation = evaluate(
            family,
            jnp.asarray(chain.inputs, dtype=jnp.float32),
            slot.index,
            evaluation_key(jax.random.key(fit.seed)),
            fit.options.elbo_draws,
        )
    return replace(
        chain,
        family=family,
        evaluation=evaluation,
        gradient_evaluations=chain.gradient_evaluations + steps * _DRAWS,
    )


def _with_factors(
    family: Family, inputs: Float[Array, "N R"], q: Approximation, numbers: npt.NDArray[np.int64]
) -> Family:
    """The family with rows of its own for the given units; units refined before keep theirs."""
    function, frame = family.inference, family.frame
    base, known = function, numbers
    if isinstance(function, Refined):
        base, known = function.base, np.union1d(numbers, np.asarray(function.units))
    current = function(inputs)
    block = family.local.block
    center, scale = (
        np.broadcast_to(np.asarray(part), (block, len(q.loc)))
        for part in (frame.local_center, frame.local_scale)
    )
    standard = q.chol / scale.T[:, :, None]
    loc = (q.loc.T - center) / scale
    log_sd = np.log(np.diagonal(standard, axis1=1, axis2=2)).T
    rows, columns = np.tril_indices(block, -1)
    below = standard[:, rows, columns].T if current.below.shape[0] else np.asarray(current.below)
    whole = current._replace(loc=jnp.asarray(loc), log_sd=jnp.asarray(log_sd), below=jnp.asarray(below))
    own = LocalNu(*(part[:, known] for part in whole))
    return replace(family, inference=Refined(base, jnp.asarray(known), own))


def _checked(
    units: Sequence[int] | npt.NDArray[np.integer] | None, count: int, level: str
) -> npt.NDArray[np.int64]:
    if units is None:
        return np.arange(count)
    numbers = np.asarray(units)
    if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iu":
        raise FitError(f"units={units!r}: give a list of unit numbers, counted from 0.")
    if numbers.min() < 0 or numbers.max() >= count:
        wrong = numbers[(numbers < 0) | (numbers >= count)][0]
        raise FitError(f"there is no unit {wrong}: the {count} units of {level} count from 0.")
    return np.unique(numbers).astype(np.int64)
