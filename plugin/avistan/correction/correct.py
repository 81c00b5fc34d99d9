"""The posterior that a fit hands out: the globals with units integrated out, in the cheapest way that is enough.

q is the way there. Importance weights correct it where they can be relied on; else Markov chains do; else draws of q
are handed out, and are called so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import jax
import numpy as np

from avistan.correction.approximation import Approximation, approximation
from avistan.correction.laplace import Gaussian, laplace
from avistan.correction.marginal import Adjustment, Marginal, marginal_density
from avistan.correction.proposals import Proposal
from avistan.correction.separable import has_separable_units
from avistan.correction.weighing import ENOUGH, KHAT, Weighed, weigh
from avistan.correction.whole import Whole
from avistan.fitting.fitted import Fitted
from avistan.objective.elbo import block_size, draw_block, tabulated
from avistan.runtime.deadline import out_of_time
from avistan.runtime.device import on_device
from avistan.runtime.entries import evenly
from avistan.runtime.limits import check_seed
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import begin_stage
from avistan.runtime.streams import Stream, derived_seeds, generator, stream_key
from avistan.runtime.types import FloatArray, IntArray, Rng
from stan_adapters.errors import AvistanError
from stan_adapters.samplers.stanli import nuts

_MOMENT_DRAWS = 2000  # of q's globals, for their means and covariance
# Gradients of all data that a correction may take: so many divided by the parameters and a number more, but some.
_GRADIENTS, _MORE, _FEWEST_GRADIENTS = 1e8, 2000, 400
_ROUNDS_OF_WHOLE = (4000, 4000)
_LEAST_SHARE = 0.6  # of draws that weights of all parameters are worth: of fewer, tails may be curved
_FIRST_ROUND, _FURTHER, _MOST_DRAWS = 16, 16, 3072  # of values that take integrals
_MOST_SAMPLED = 3000  # parameters of chains of all of them
_MOST_DOUBTED = 500  # parameters up to which chains are run where weights can be relied on, but not wholly
_DENSE = 60  # parameters up to which chains have a dense metric
_CHAINS = 4
# Warm-up and draws of each chain, and the acceptance that steps are tuned to: a longer run if one is not enough.
_RUNS = ((300, 300, 0.9), (500, 1000, 0.98))
_LOST = 0.02  # share of draws at which units may not be integrated out
ROUGH = 0.25  # nats (sd over draws of the globals) by which integrals over all units may be off
RHAT = 1.02  # up to which chains agree
_GOLDEN = 0.5 * (5**0.5 - 1)  # whose multiples fill the unit interval evenly, however many there are
_DRAWS_OF_Q = 200  # for starts and a metric
_MOST_WATCHED = 200  # parameters whose chains are judged, unless there are more globals
MOST_DIVERGENCES = 0.005  # share of draws


class Way(enum.Enum):
    """How the globals' draws were had; the value says it in words."""

    weights = "importance weights"
    surface = "a surface through values of the density"
    chains = "Markov chains of all parameters"
    none = "none"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correction:
    """Draws of the globals, or of all parameters, and how they were had.

    Attributes:
        way: `Way.none` where they are q's own.
        whole: whether rows are all parameters, in Stan's order, and not the globals alone.
        theta: (C, S, K) rows: one chain of weighted ones, or Markov chains.
        log_weights: (C, S) normalized.
        effective: (K,) effective draws of each column.
        rhat: (K,) of chains; nan of weighted draws.
        khat: tail index of weights; nan of chains.
        divergences: of chains.
        reason: what was tried without success, in sentences.
        adjustment: where the units are given globals; None where they are not integrated out.
        error: nats (sd) by which values of the density are off.
        evaluations: gradients of all data.
        reliable: whether the draws are known to be of the posterior.
        sure: whether Markov chains could not be better.
    """

    way: Way
    whole: bool
    theta: FloatArray
    log_weights: FloatArray
    effective: FloatArray
    rhat: FloatArray
    khat: float = float("nan")
    divergences: int = 0
    reason: str = ""
    adjustment: Adjustment | None = None
    error: float = 0.0
    evaluations: int = 0
    reliable: bool = True
    sure: bool = True

    def rows(self, draws: int, rng: Rng) -> FloatArray:
        """Rows (C, draws / C, K) of equal weight; fewer are the first ones of more where there is one chain."""
        chains, count, _ = self.theta.shape
        each = max(1, draws // chains)
        if chains > 1:
            return self.theta[:, np.resize(evenly(count, each), each)]
        ends = np.cumsum(np.exp(self.log_weights[0]))
        shares = (rng.random() + _GOLDEN * np.arange(each)) % 1.0
        return self.theta[:, np.minimum(np.searchsorted(ends, shares * ends[-1]), count - 1)]


def budget(dim: int) -> int:
    """Gradients of all data that a correction may take: fewer where there are many parameters."""
    return int(max(_FEWEST_GRADIENTS, _GRADIENTS / (dim + _MORE)))


@in_float64
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def correct(fit: Fitted, *, seed: int | None = None) -> Correction:
    """The posterior of a fit's globals, corrected in the cheapest way that is enough.

    In this order: importance weights, of the globals' marginal density where there are separable units, else of all
    parameters; a surface through its values where these are dear. Markov chains of all parameters where neither can be
    relied on, and of small programs also where tails might be missed. Where none can be had or relied on, draws of q.
    """
    given = check_seed(fit.seed if seed is None else seed)
    begin_stage("correcting the posterior", next="draws of the posterior")
    rng = generator(given, Stream.CORRECTION)
    q = approximation(fit.family, fit.inputs)
    made: Correction | None = None
    if has_separable_units(fit):
        made = _marginal(fit, q, rng)
    elif fit.level is None:
        made = _unitless(fit, q, rng)
    if made is not None and made.reliable and (made.sure or fit.model.dim > _MOST_DOUBTED):
        return made
    reason = "" if made is None else made.reason
    evaluations = 0 if made is None else made.evaluations
    chains = _chains(fit, q, made, given)
    if made is not None and made.reliable and (chains is None or not chains.reliable):
        return made if chains is None else replace(made, reason=f"Not confirmed by chains: {chains.reason}")
    if chains is not None:
        reason = f"{reason} {chains.reason}".strip()
        if chains.theta.size:
            return replace(chains, reason=reason, evaluations=evaluations)
    theta = q.draw_globals(rng, _MOMENT_DRAWS)[None]
    return Correction(
        way=Way.none,
        whole=False,
        theta=theta,
        log_weights=np.full(theta.shape[:2], -np.log(_MOMENT_DRAWS)),
        effective=np.full(theta.shape[2], float(_MOMENT_DRAWS)),
        rhat=np.full(theta.shape[2], np.nan),
        reason=reason,
        adjustment=None if made is None else made.adjustment,
        evaluations=evaluations,
        reliable=False,
    )


def _marginal(fit: Fitted, q: Approximation, rng: Rng) -> Correction | None:
    """By the marginal density of the globals; None where it can't be had."""
    with marginal_density(fit.model, q) as density:
        drawn = q.draw_globals(rng, _MOMENT_DRAWS)
        if not density.calibrate(drawn):
            return None
        density.check(drawn)
        if not q.num_globals:
            return _of_weighed(Weighed(drawn, *_equal(_MOMENT_DRAWS)), density)
        rounds = _rounds(budget(fit.model.dim), density)
        proposal = Proposal(q.draw_globals, q.log_q_globals)
        return _of_weighed(weigh(density, proposal, _gaussian(drawn), None, rounds, rng), density)


def _rounds(allowed: int, density: Marginal) -> list[int]:
    """Draws of each round, a third more in all than before, as long as gradients last.

    The first ones are as many as tell a Gaussian: what follows is drawn around it.
    """
    size = density.size
    of_gaussian = (size + 1) * (size + 2) // 2
    first = max(_FIRST_ROUND, -(-2 * of_gaussian // (1 + size)))
    most = min(_MOST_DRAWS, max(3 * first, (allowed - density.evaluations) // density.evaluations_each))
    rounds = [first]
    while (further := max(_FURTHER, sum(rounds) // 3)) + sum(rounds) <= most:
        rounds.append(further)
    return rounds


def _unitless(fit: Fitted, q: Approximation, rng: Rng) -> Correction:
    """By the density of all parameters, which are globals."""
    target = Whole(fit.model)
    at = np.argsort(np.asarray(q.family.placement.global_index))

    def draw(rng: Rng, count: int) -> FloatArray:
        return q.draw_globals(rng, count)[:, at]

    back = np.asarray(q.family.placement.global_index)
    own = _gaussian(draw(rng, _MOMENT_DRAWS))
    mode = laplace(target, own)
    proposal = Proposal(draw, lambda theta: q.log_q_globals(theta[:, back]))
    found = weigh(target, proposal, own, mode, _ROUNDS_OF_WHOLE, rng, least_share=_LEAST_SHARE)
    return replace(_of_weighed(found, target), whole=True)


def _of_weighed(found: Weighed, density: Marginal | Whole) -> Correction:
    surface = np.isfinite(found.surface_error)
    about = "of the globals" if isinstance(density, Marginal) else "of all parameters"
    reason = ""
    if not found.reliable:
        reason = (
            f"Importance weights {about} are worth {found.effective:.0f} draws of {len(found.theta)}, with a k-hat of "
            f"{found.khat:.2f}: too few, or too uneven, for means and sds (needed: {ENOUGH}, k-hat up to {KHAT})."
        )
    adjustment = density.adjustment if isinstance(density, Marginal) else None
    rough = adjustment is not None and not adjustment.error <= ROUGH
    if rough and adjustment is not None:
        reason = f"Integrals over the units differ by {adjustment.error:.2g} nats (limit {ROUGH})."
    if isinstance(density, Marginal) and density.lost > _LOST * density.asked:
        rough = True
        reason = (
            f"Units could not be integrated out at {density.lost} of {density.asked} draws of the globals."
        )
    return Correction(
        way=Way.surface if surface else Way.weights,
        whole=False,
        theta=found.theta[None],
        log_weights=found.log_weights[None],
        effective=np.full(found.theta.shape[1], found.effective),
        rhat=np.full(found.theta.shape[1], np.nan),
        khat=found.khat,
        reason=reason,
        adjustment=adjustment,
        error=found.surface_error if surface else (0.0 if adjustment is None else adjustment.error),
        evaluations=density.evaluations,
        reliable=found.reliable and not rough,
        sure=found.is_sure,
    )


# -- Markov chains -----------------------------------------------------------------------------------------------


def _chains(fit: Fitted, q: Approximation, known: Correction | None, seed: int) -> Correction | None:
    """NUTS of all parameters from where q is; None where there are too many, or no sampler."""
    model = fit.model
    if model.dim > _MOST_SAMPLED or out_of_time():
        return None
    begin_stage("correcting the posterior by Markov chains", next="draws of the posterior")
    rows = _draws_of_q(fit, seed)
    metric = np.var(rows, axis=0, ddof=1)
    if known is not None and known.whole and known.effective.min(initial=0) > 5 * model.dim:
        rows = known.rows(len(rows), generator(seed, Stream.CHAINS_OF_CORRECTION))[0]
    finite = np.isfinite(model.log_density_gradient(rows)[0])
    starts = rows[finite][:_CHAINS] if finite.sum() >= _CHAINS else None  # else random ones
    if model.dim <= _DENSE:
        metric = np.atleast_2d(np.cov(rows.T)) + 1e-9 * np.diag(metric)
    seeds = derived_seeds(seed, Stream.CHAINS_OF_CORRECTION, count=len(_RUNS))
    watched = _watched(fit)
    for (warmup, draws, accepted), of_run in zip(_RUNS, seeds, strict=True):
        try:
            found = nuts(
                model,
                seed=of_run,
                chains=_CHAINS,
                warmup=warmup,
                draws=draws,
                inits=starts,
                inverse_metric=None if starts is None else metric,
                target_acceptance=accepted,
            )
        except AvistanError as error:
            return _no_chains(f"Markov chains could not be run: {error}")
        chains = _of_chains(found.theta, found.divergences, watched)
        if chains.reliable or out_of_time():
            break
    return chains


def _draws_of_q(fit: Fitted, seed: int) -> FloatArray:
    """Draws (S, D) of q, in Stan's order."""
    size = block_size(fit.model.dim)
    key = stream_key(jax.random.key(seed), Stream.CHAINS_OF_CORRECTION)
    inputs = on_device(fit.inputs, np.float32)
    family = tabulated(fit.family, inputs)
    blocks = range(-(-_DRAWS_OF_Q // size))
    return np.concatenate([np.asarray(draw_block(family, inputs, key, block, size)[0]) for block in blocks])


def _watched(fit: Fitted) -> IntArray:
    """Parameters whose chains are judged: all globals, and as many of the units' as time allows."""
    at = np.asarray(fit.family.placement.global_index)
    units = np.setdiff1d(np.arange(fit.model.dim), at)
    room = max(0, _MOST_WATCHED - len(at))
    return np.concatenate([at, units[evenly(len(units), room)]])


def _of_chains(theta: FloatArray, divergences: int, watched: IntArray) -> Correction:
    from arviz_stats.base import array_stats

    count = theta.shape[0] * theta.shape[1]
    rhat, effective = np.full(theta.shape[2], np.nan), np.full(theta.shape[2], np.nan)
    some = theta[:, :, watched]
    rhat[watched] = array_stats.rhat(some, chain_axis=0, draw_axis=1)
    bulk = array_stats.ess(some, chain_axis=0, draw_axis=1, method="bulk")
    tail = array_stats.ess(some, chain_axis=0, draw_axis=1, method="tail", prob=(0.05, 0.95))
    effective[watched] = np.minimum(bulk, tail)
    worst, fewest = float(np.nanmax(rhat, initial=1.0)), float(np.nanmin(effective, initial=count))
    mixed = worst <= RHAT and fewest >= ENOUGH and divergences <= MOST_DIVERGENCES * count
    reason = (
        ""
        if mixed
        else (
            f"{theta.shape[0]} Markov chains of {theta.shape[1]} draws have an R-hat of up to {worst:.3f}, effective "
            f"draws from {fewest:.0f}, and {divergences} divergences (needed: {RHAT}, {ENOUGH}, "
            f"{MOST_DIVERGENCES * count:.0f} at most)."
        )
    )
    return Correction(
        way=Way.chains,
        whole=True,
        theta=theta,
        log_weights=np.full(theta.shape[:2], -np.log(count)),
        effective=effective,
        rhat=rhat,
        divergences=divergences,
        reason=reason,
        reliable=mixed,
    )


def _no_chains(reason: str) -> Correction:
    empty = np.empty((_CHAINS, 0, 0))
    return Correction(
        way=Way.chains,
        whole=True,
        theta=empty,
        log_weights=empty[:, :, 0],
        effective=np.empty(0),
        rhat=np.empty(0),
        reason=reason,
        reliable=False,
    )


def _gaussian(rows: FloatArray) -> Gaussian:
    """Mean and covariance of rows (S, G)."""
    covariance = np.atleast_2d(np.cov(rows.T))
    ridge = 1e-10 * np.diag(np.diag(covariance))
    return Gaussian(rows.mean(axis=0), np.linalg.cholesky(covariance + ridge))


def _equal(count: int) -> tuple[FloatArray, float]:
    return np.full(count, -np.log(count)), float("-inf")
