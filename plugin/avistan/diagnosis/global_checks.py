"""Are the globals' draws those of their posterior? By variable, with the Monte Carlo error of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avistan.correction.correct import MOST_DIVERGENCES, RHAT, Correction, Way
from avistan.diagnosis.checked_fit import CheckedFit
from avistan.diagnosis.verdict import Check, Trust, Variable
from avistan.objective.elbo import Evaluation
from avistan.runtime.streams import Stream, derived_seeds
from avistan.runtime.types import FloatArray, IntArray
from stan_adapters.samplers.stanli import nuts

_MEAN, _SD = 0.15, 0.1  # sds by which a mean, and share by which a sd, may be uncertain
_OF_SURFACE = 0.25  # of the nats by which a surface misses values: sds by which that may move a mean
_COMPARED_DRAWS = 4000  # of what is handed out
_COMPARED, _COMPARED_SD = 0.2, 0.2  # sds, and log sds, from draws of NUTS
_ERRORS = 3.0  # Monte Carlo standard errors
_NAMED = 6  # variables that a finding names
_NAME = "globals"


def check_globals(checked: CheckedFit) -> Iterator[Check]:
    """How the globals were corrected, and what that is worth."""
    made = checked.made
    correction, checked.corrected = made.correction, not made.is_q
    told = f" {correction.reason}" if correction.reason else ""
    error = np.full(checked.fit.model.dim, np.nan)
    if made.is_q:
        error[:] = _bound(checked.fit.evaluation)
        told = (
            f" Weights of q's draws, all parameters together, have a k-hat of {checked.fit.evaluation.khat:.2f}, and "
            f"bound errors of means by {error[0]:.2g} sds."
        )
    else:
        error[_columns(checked, correction)] = _errors(correction)
    checked.variables = _variables(checked, error)
    off = [variable.name for variable in checked.variables if not variable.holds]
    if off:
        told += (
            f" Not to be relied on: {', '.join(off[:_NAMED])}{' and others' if len(off) > _NAMED else ''}."
        )
    yield Check(
        name=_NAME,
        passed=not off,
        value=max((variable.error for variable in checked.variables), default=0.0),
        threshold=_MEAN,
        unit="sds",
        finding=f"{made}{told}",
        trouble=Trust.globals_misfit,
    )


def _bound(evaluation: Evaluation) -> float:
    """Sds by which means of q may be off at most, by the variance of its weights.

    Source: the Cauchy-Schwarz inequality, |E_p f - E_q f| <= sd_q(f) sqrt(chi2(p, q)).
    """
    log_weights = evaluation.log_weights[evaluation.accepted]
    if not log_weights.size:
        return float("inf")
    weights = np.exp(log_weights - log_weights.max())
    return float(weights.std() / weights.mean())


def _columns(checked: CheckedFit, correction: Correction) -> IntArray:
    """Which unconstrained parameters the columns of a correction are."""
    if correction.whole:
        return np.arange(checked.fit.model.dim)
    return np.asarray(checked.fit.family.placement.global_index)


def _errors(correction: Correction) -> FloatArray:
    """Uncertainty (K,) of means in sds, nan where a column is not judged."""
    error = np.sqrt(1 / correction.effective)
    if correction.way is Way.surface:
        error = np.hypot(error, _OF_SURFACE * correction.error)
    if correction.way is Way.chains:
        count = correction.theta.shape[0] * correction.theta.shape[1]
        if correction.divergences > MOST_DIVERGENCES * count:
            return np.full_like(error, np.inf)
        return np.where(correction.rhat > RHAT, np.inf, error)
    return error if correction.reliable else np.full_like(error, np.inf)


def _variables(checked: CheckedFit, error: FloatArray) -> tuple[Variable, ...]:
    """Verdicts on the parameters that are no units' latents, from the uncertainty (D,) of their entries."""
    fit = checked.fit
    local = set() if fit.level is None else set(fit.level.latents)
    found = []
    for container in fit.model.layout.containers:
        if container.name in local or not container.size:
            continue
        worst = float(np.nanmax(error[container.offset : container.offset + container.size], initial=0.0))
        holds = (
            worst <= _MEAN and worst / np.sqrt(2) <= _SD
        )  # a sd's share is a mean's error by the root of 2
        found.append(Variable(name=container.name, holds=bool(holds), error=worst))
    return tuple(found)


def check_against_nuts(checked: CheckedFit) -> Check:
    """Draws of NUTS, with random starts, against those that are handed out."""
    fit, correction, name = checked.fit, checked.made.correction, "globals against NUTS"
    (seed,) = derived_seeds(checked.seed, Stream.GLOBAL_WEIGHTS)
    sampled = nuts(fit.model, seed=seed)
    at = np.asarray(fit.family.placement.global_index)
    of_globals = sampled.theta[:, :, at]
    theta = of_globals.reshape(-1, len(at))
    rng = checked.rng(Stream.GLOBAL_MOMENTS)
    if checked.made.is_q:
        own = checked.q.draw_globals(rng, _COMPARED_DRAWS)
    else:
        rows = correction.rows(_COMPARED_DRAWS, rng)
        own = (rows[:, :, at] if correction.whole else rows).reshape(-1, len(at))
    shift = np.abs(own.mean(axis=0) - theta.mean(axis=0)) / theta.std(axis=0)
    ratio = np.abs(np.log(own.std(axis=0) / theta.std(axis=0)))
    from arviz_stats.base import array_stats

    effective = np.minimum(array_stats.ess(of_globals, chain_axis=0, draw_axis=1, method="bulk"), 1000.0)
    noise = _ERRORS * np.sqrt(1 / effective + 1 / 1000)
    beyond = np.maximum((shift - noise) / _COMPARED, (ratio - noise) / _COMPARED_SD)
    return Check.of_number(
        name,
        float(np.nanmax(beyond, initial=0.0)),
        1.0,
        f"Means differ from NUTS's by up to {shift.max(initial=0.0):.2f} sds, sds by a factor of up to "
        f"{np.exp(ratio.max(initial=0.0)):.2f}; NUTS had {sampled.divergences} divergences.",
        Trust.globals_misfit,
    )
