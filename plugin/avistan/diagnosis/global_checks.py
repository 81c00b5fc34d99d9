"""Are the globals' draws those of their posterior? By variable, with the Monte Carlo error of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avistan.correction.correct import RHAT, Correction, Way
from avistan.diagnosis.checked_fit import CheckedFit
from avistan.diagnosis.verdict import Check, Trust, Variable
from avistan.runtime.streams import Stream, derived_seeds
from avistan.runtime.types import FloatArray, IntArray
from stan_adapters.samplers.stanli import nuts

_KHAT = 0.7  # Vehtari et al., JMLR 2024
_MEAN, _SD = 0.15, 0.1  # sds by which a mean, and share by which a sd, may be uncertain
_OF_SURFACE = 0.25  # of the nats by which a surface misses values: sds by which that may move a mean
_COMPARED, _COMPARED_SD = 0.2, 0.2  # sds, and log sds, from draws of NUTS
_ERRORS = 3.0  # Monte Carlo standard errors
_NAMED = 6


def check_globals(checked: CheckedFit) -> Iterator[Check]:
    """How the globals were corrected, and what that is worth."""
    made, fit = checked.made, checked.fit
    correction = made.correction
    if made.is_q:
        khat = fit.evaluation.khat
        passed = bool(khat <= _KHAT)
        finding = f"{made} The k-hat of q's weights of all parameters together is {khat:.2f}."
        checked.variables = _variables(checked, np.full(fit.model.dim, 0.0 if passed else np.inf), passed)
        yield Check(
            name=NAME,
            passed=passed,
            value=khat,
            threshold=_KHAT,
            finding=finding,
            trouble=Trust.globals_misfit,
        )
        return
    error = np.full(fit.model.dim, np.nan)
    error[_columns(checked, correction)] = _errors(correction)
    checked.variables = _variables(checked, error, correction.reliable)
    off = [variable.name for variable in checked.variables if not variable.holds]
    told = f" {correction.reason}" if correction.reason else ""
    if off:
        told += (
            f" Not to be relied on: {', '.join(off[:_NAMED])}{' and others' if len(off) > _NAMED else ''}."
        )
    yield Check(
        name=NAME,
        passed=not off,
        value=float(np.nanmax(error, initial=0.0)),
        threshold=_MEAN,
        unit="sds",
        finding=f"{made}{told}",
        trouble=Trust.globals_misfit,
    )


NAME = "globals"


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
        return np.where(correction.rhat > RHAT, np.inf, error)
    return error if correction.reliable else np.full_like(error, np.inf)


def _variables(checked: CheckedFit, error: FloatArray, reliable: bool) -> tuple[Variable, ...]:
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
        )  # a sd is as uncertain as a mean by the root of 2
        found.append(Variable(name=container.name, holds=bool(holds), error=worst))
    return tuple(found)


def check_against_nuts(checked: CheckedFit) -> Check:
    """Draws of NUTS, with random starts, against those that are handed out."""
    fit, correction = checked.fit, checked.made.correction
    name = "globals against NUTS"
    (seed,) = derived_seeds(checked.seed, Stream.GLOBAL_WEIGHTS)
    sampled = nuts(fit.model, seed=seed)
    theta = sampled.theta.reshape(-1, fit.model.dim)[:, np.asarray(fit.family.placement.global_index)]
    if correction.whole:
        rows = correction.rows(4000, checked.rng(Stream.GLOBAL_MOMENTS))
        own = rows.reshape(-1, fit.model.dim)[:, np.asarray(fit.family.placement.global_index)]
    elif checked.made.is_q:
        own = checked.q.draw_globals(checked.rng(Stream.GLOBAL_MOMENTS), 4000)
    else:
        own = correction.rows(4000, checked.rng(Stream.GLOBAL_MOMENTS))[0]
    shift = np.abs(own.mean(axis=0) - theta.mean(axis=0)) / theta.std(axis=0)
    ratio = np.abs(np.log(own.std(axis=0) / theta.std(axis=0)))
    from arviz_stats.base import array_stats

    of_globals = sampled.theta[:, :, np.asarray(fit.family.placement.global_index)]
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
