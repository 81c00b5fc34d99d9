"""The gate: is a fit's posterior to be trusted? Each check measures one way in which variational inference goes wrong.

A settled ELBO says nothing of these: it settles on a family that can't bend, in one mode of several, after a collapse,
or because the learning rate fell. Thresholds are stated where they are, with what they mean.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from stan_adapters.unit_density import UnitDensity
from stan_adapters.unit_sampling import sample_units

from .diagnosis import Check, Diagnosis, Trust
from .evaluation import evaluate, gap
from .importance import (
    Approximation,
    GlobalsImportance,
    adapt,
    approximation,
    unit_density,
    weigh_enough,
    weights_khat,
)
from .log_density import register
from .precision import in_float64
from .refinement import free_units
from .restarts import LIKE, Landscape, count_for, probe_starts
from .runs import Chain, best_of, evaluation_key
from .stopping import Ending
from .training import train

if TYPE_CHECKING:
    from .fit import Fit

FloatArray = npt.NDArray[np.float64]
Rng = np.random.Generator

_WINDOW = 0.2  # of a trace: its last fifth against the fifth before
_NATS = 1.0  # that an ELBO may still gain
_NATS_PER_UNIT = 0.01  # the mean of a unit moves by a seventh of its sd for that
_CONTINUED = 0.1  # of the steps are run again
_LEAST_STEPS = 200  # of a training that can be judged, and of its continuation
_REJECTED_SHARE = 0.01
_RHAT = 1.05  # means of restarts a third of an sd apart
_KHAT = 0.7  # Vehtari et al., JMLR 2024
_EFFECTIVE_SHARE = 0.9  # of a unit's draws: a mean off by a third of an sd costs a tenth
_MISFIT_SHARE = 0.05  # of the units may have a larger k-hat, which is estimated from few draws
_SHIFT = 0.5  # sds by which a global's mean may be off
_SD_RATIO = 1.5  # by which its sd may be off, either way
_SEEN_SHIFT, _SEEN_RATIO = 0.25, 1.15  # from which on a way to correct them is named
_UNIT_GAP, _UNIT_GAP_SHARE = 0.1, 0.01  # nats that a hundredth of the units may lack
_DRAWS = 1000  # of the globals, fewer for large models
_FEWEST_DRAWS = 200
_MOMENT_DRAWS = 4000  # of q's globals, for its own means and sds
_LATENTS = 20_000  # up to which all these draws are affordable
_UNIT_DRAWS = 200
_SAMPLED_UNITS = 1000
_CHAIN_DRAWS = 500
_SPOT_GLOBALS, _SPOT_DRAWS = 8, 50
_SPOT_SHARE = 0.05
_NAMED = 3  # worst units that a finding names


# Numbers that are far off overflow; checks look for what is not finite.
@in_float64
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def diagnose(fit: Fit, *, seed: int | None = None, nuts: bool = False) -> Diagnosis:
    """Check a fit in every way that is known to go wrong silently.

    Takes longer than the fit, often several times. Checks: the ELBO's trace; whether more training gains; whether other
    starts end elsewhere; rejected draws; k-hat, means and sds of the globals' marginal; k-hats of single units; what
    the inference function leaves to gain; and, with `nuts`, Markov chains for every unit's latents at some draws of the
    globals.

    Args:
        seed: of the checks' random numbers; None takes the fit's.
        nuts: run the spot check too.
    """
    started = time.perf_counter()
    given = fit.seed if seed is None else seed
    chain = fit.chains[best_of(fit.chains)]
    density = unit_density(fit)
    q = approximation(chain.family, chain.inputs)
    units: dict[str, FloatArray] = {}
    checks = [
        _trace(chain),
        _continuation(fit, chain, given),
        _rejected(chain),
        _restarts(fit, density, q, given),
        *_globals(fit, density, q, np.random.default_rng([given, 51])),
        _unit_blocks(fit, density, q, units, np.random.default_rng([given, 52])),
        _amortization(fit, chain, density, q, units, np.random.default_rng([given, 53])),
    ]
    if nuts:
        checks.append(_spot_check(fit, density, q, units, np.random.default_rng([given, 54])))
    return Diagnosis(
        program=fit.model.program.name,
        method=fit.method.name,
        checks=tuple(checks),
        units=units,
        level=None if fit.level is None else fit.level.name,
        seconds=time.perf_counter() - started,
    )


# -- has training finished? ----------------------------------------------------------------------------------


def _trace(chain: Chain) -> Check:
    """The last fifth of the trace against the fifth before, and against the best there ever was."""
    name, elbo, ended = "ELBO trace", chain.traces[-1].elbo, chain.traces[-1].ended
    steps = sum(len(trace.elbo) for trace in chain.traces)
    window = max(2, int(_WINDOW * len(elbo)))
    parts = [elbo[max(0, stop - window) : stop] for stop in range(len(elbo), 0, -window)]
    parts = [part[np.isfinite(part)] for part in parts]
    if not parts[0].size or not np.isfinite(chain.evaluation.elbo):
        return Check(
            name=name,
            passed=False,
            finding="No draw at the end of training was accepted by Stan.",
            trouble=Trust.draws_rejected,
        )
    means = np.array([part.mean() if part.size else -np.inf for part in parts])
    errors = np.array([part.std() / np.sqrt(max(1, part.size)) for part in parts])
    rise = float(means[0] - means[1]) if len(means) > 1 else 0.0
    limit = max(_NATS, 3 * float(np.hypot(errors[0], errors[min(1, len(means) - 1)])))
    best = int(np.argmax(means))
    fall = float(means[best] - means[0])
    fell = fall > max(_NATS, 3 * float(np.hypot(errors[0], errors[best])))
    short = steps < _LEAST_STEPS
    if short:
        finding = (
            f"{steps} steps are too few to see whether the ELBO settles: it takes {_LEAST_STEPS} at least."
        )
    elif fell:
        finding = f"The ELBO ended {fall:.2f} nats below what it had reached earlier: training fell back."
    elif ended is Ending.spent:
        finding = f"The ELBO had not settled after {steps} steps, the most that training takes by itself."
    elif ended is Ending.settled:  # the fifths say nothing: towards the end the learning rate falls
        finding = f"Training ended by itself, after {steps} steps, when the ELBO had settled."
        rise = 0.0
    else:
        finding = f"Between the last two fifths of training the ELBO rose by {rise:.2f} nats."
    return Check(
        name=name,
        passed=not short and not fell and rise <= limit and ended is not Ending.spent,
        value=-fall if fell else rise,
        threshold=limit,
        unit="nats",
        finding=finding,
        trouble=Trust.stopped_early,
    )


def _continuation(fit: Fit, chain: Chain, seed: int) -> Check:
    """Some more steps at a restored learning rate: a rate that has fallen hides what is left to gain."""
    steps = max(_LEAST_STEPS, round(_CONTINUED * sum(len(trace.elbo) for trace in chain.traces)))
    training = replace(fit.options.training, steps=steps, chunk=steps)
    inputs = jnp.asarray(chain.inputs, dtype=jnp.float32)
    key = jax.random.key(seed)
    with register(fit.model) as slot:
        family, _ = train(chain.family, inputs, slot.index, training, jax.random.fold_in(key, 7))
        draws = fit.options.elbo_draws
        before, after = (
            evaluate(part, inputs, slot.index, evaluation_key(key), draws) for part in (chain.family, family)
        )
    gain, error = gap(before, after)
    limit = max(_NATS, 0.1 * _NATS_PER_UNIT * fit.model.dim, 3 * error)
    return Check(
        name="continued training",
        passed=None if np.isnan(gain) else gain <= limit,
        value=gain,
        threshold=limit,
        unit="nats",
        finding=f"{steps} more steps change the ELBO by {gain:+.2f} +- {error:.2f} nats.",
        trouble=Trust.stopped_early,
    )


def _rejected(chain: Chain) -> Check:
    share = chain.evaluation.rejected_share
    return Check(
        name="rejected draws",
        passed=share <= _REJECTED_SHARE,
        value=share,
        threshold=_REJECTED_SHARE,
        finding=f"Stan rejects {100 * share:.2g} % of the fit's draws.",
        trouble=Trust.draws_rejected,
    )


# -- do other starts end elsewhere? --------------------------------------------------------------------------


def _restarts(fit: Fit, density: UnitDensity | None, q: Approximation, seed: int) -> Check:
    if len(fit.chains) > 1:
        return _chains(fit, density, seed)
    name = "other starts"
    center = _center(fit, q)
    probes = probe_starts(fit.model, density, center, seed=seed, count=count_for(fit.model.dim))
    if not probes:
        return Check(name=name, passed=None, finding="No other start had a finite log density.")
    apart = [probe for probe in probes if probe.is_apart and not probe.is_worse]
    worse = [probe for probe in probes if probe.is_apart and probe.is_worse]
    better = [probe for probe in probes if probe.is_better]
    away = max(probe.distance for probe in probes)
    if better:
        top = max(probe.gain for probe in better)
        finding = f"{len(better)} of {len(probes)} random starts end higher, by up to {top:.1f} nats of ELBO."
        trouble = Trust.better_optimum
    elif apart:
        valley = min(probe.valley for probe in apart)
        away = max(probe.distance for probe in apart)
        finding = (
            f"{len(apart)} of {len(probes)} random starts end in another mode of like mass, {away:.1f} sds "
            f"away behind a valley of {valley:.1f} nats."
        )
        trouble = Trust.several_modes
    else:
        finding = f"None of {len(probes)} random starts ends in another mode of like mass."
        trouble = Trust.several_modes
    if worse:
        short = max(-probe.gain for probe in worse)
        finding += f" {len(worse)} of them ended in a worse one, up to {short:.1f} nats lower."
    return Check(
        name=name,
        passed=not better and not apart,
        value=float(len(apart) + len(better)),
        threshold=0.0,
        finding=finding,
        trouble=trouble,
    )


def _chains(fit: Fit, density: UnitDensity | None, seed: int) -> Check:
    """R-hat of the globals over the restarts that reached the best optimum."""
    name, best = "R-hat over restarts", fit.chains[best_of(fit.chains)]
    behind = [gap(chain.evaluation, best.evaluation) for chain in fit.chains]
    like = [
        chain
        for chain, (lack, error) in zip(fit.chains, behind, strict=True)
        if chain is best or lack <= LIKE + 3 * error
    ]
    lost = max((lack for lack, _ in behind), default=0.0)
    told, count = "", len(fit.chains) - len(like)
    if count:
        told = f" {count} of {len(fit.chains)} restarts end in a worse optimum, up to {lost:.1f} nats lower."
    if len(like) < 2:
        finding = f"One restart alone reached the best optimum.{told}"
        return Check(name=name, passed=False, finding=finding, trouble=Trust.worse_restarts)
    parts = [approximation(chain.family, chain.inputs) for chain in like]
    rng = np.random.default_rng([seed, 42])
    draws = np.stack([part.draw_globals(rng, _CHAIN_DRAWS) for part in parts])
    from arviz_stats.base import array_stats

    rhats = np.asarray(array_stats.rhat(draws, chain_axis=0, draw_axis=1))
    worst = float(np.max(rhats, initial=1.0))
    landscape = Landscape(fit.model, density)
    centers = [_center(fit, part) for part in parts]
    valley = max(landscape.valley(centers[0], other) for other in centers[1:]) if worst > _RHAT else 0.0
    between = f", with a valley of {valley:.1f} nats between them" if valley > 0 else ""
    apart = Trust.several_modes if valley > 0 else Trust.stopped_early
    return Check(
        name=name,
        passed=worst <= _RHAT and not count,
        value=worst,
        threshold=_RHAT,
        finding=f"{len(like)} restarts of like ELBO have an R-hat of {worst:.3f} in the globals{between}.{told}",
        trouble=Trust.worse_restarts if worst <= _RHAT else apart,
    )


def _center(fit: Fit, q: Approximation) -> FloatArray:
    """The centre (D,) of q."""
    center = np.empty(fit.model.dim)
    if fit.level is None:
        center[:] = q.center
    else:
        center[fit.level.globals_index(fit.model.dim)] = q.center
        center[fit.level.index] = q.loc
    return center


# -- does q cover the globals? -------------------------------------------------------------------------------


def _globals(fit: Fit, density: UnitDensity | None, q: Approximation, rng: Rng) -> Iterator[Check]:
    name, sds = "k-hat of the globals", "globals' means and sds"
    if density is not None and q.num_globals == 0:
        yield Check(name=name, passed=None, finding="Every parameter belongs to a unit.")
        return
    weights = weigh_enough(fit, density, q, _affordable(_DRAWS, fit.model.dim), rng)
    coupled = density is None and fit.level is not None
    better = weights if coupled else adapt(fit, density, q, weights, rng)
    moments = _moments(sds, q, density, weights, better)
    about = "the globals, the locals integrated out" if density is not None else "all parameters together"
    judged = weights.num_usable >= _FEWEST_DRAWS // 2 and not np.isnan(weights.khat)
    finding = f"Only {weights.num_usable} importance weights of {about} could be had."
    passed: bool | None = False
    if judged:
        finding = (
            f"{weights.num_usable} importance weights of {about} are worth {weights.effective_draws:.0f} draws of the "
            "posterior."
        )
        passed = weights.reliable
        if not passed and moments.passed:
            passed = None
            finding += " Not decisive: the adapted weights of the next check are reliable, and find q right."
    yield Check(
        name=name,
        passed=passed,
        value=weights.khat,
        threshold=weights.threshold,
        finding=finding,
        trouble=Trust.globals_misfit if judged else Trust.not_judged,
    )
    yield moments


def _affordable(draws: int, dim: int) -> int:
    """Fewer draws for large models, and never so few that a k-hat says nothing."""
    return int(np.clip(draws * _LATENTS / max(1, dim), _FEWEST_DRAWS, draws))


def _moments(
    name: str,
    q: Approximation,
    density: UnitDensity | None,
    weights: GlobalsImportance,
    better: GlobalsImportance,
) -> Check:
    """q's means and sds against those of weighted draws; where q alone can't be weighted, proposals adapt."""
    if not better.reliable:
        finding = (
            f"Not run: weights can't say how far means and sds are off, their k-hat is {better.khat:.2f}."
        )
        return Check(name=name, passed=None, finding=finding)
    (mean, sd), (center, own) = better.mean_sd(), _of_q(q, weights)
    shift = np.abs(center - mean) / sd
    ratio = np.exp(np.abs(np.log(sd / own)))
    far, wide = int(np.argmax(shift)), int(np.argmax(ratio))
    passed = bool(shift[far] <= _SHIFT and ratio[wide] <= _SD_RATIO)
    seen = passed and (shift[far] > _SEEN_SHIFT or ratio[wide] > _SEEN_RATIO)
    return Check(
        name=name,
        passed=passed,
        value=float(ratio[wide]),
        threshold=_SD_RATIO,
        finding=(
            f"Against {better.num_usable} weighted draws, worth {better.effective_draws:.0f} of the posterior, means "
            f"are off by up to {shift[far]:.2f} sds (limit {_SHIFT}), and the sd that is off most is "
            f"{own[wide] / sd[wide]:.2f} of what it should be."
            + (" fit.posterior(resample='psis') corrects that." if seen else "")
        ),
        trouble=Trust.globals_biased,
    )


def _of_q(q: Approximation, weights: GlobalsImportance) -> tuple[FloatArray, FloatArray]:
    """q's means and sds of what is weighed: of the globals from more draws, of all parameters from those weighed."""
    of_globals = weights.theta.shape[1] == q.num_globals
    theta = q.draw_globals(np.random.default_rng(0), _MOMENT_DRAWS) if of_globals else weights.theta
    return theta.mean(axis=0), theta.std(axis=0)


# -- does q cover the units? ---------------------------------------------------------------------------------


def _unit_blocks(
    fit: Fit, density: UnitDensity | None, q: Approximation, units: dict[str, FloatArray], rng: Rng
) -> Check:
    name = "k-hat of units"
    if density is None or fit.level is None:
        return Check(name=name, passed=None, finding=_NO_UNITS)
    chosen = np.arange(density.num_units)
    if len(chosen) > _SAMPLED_UNITS:
        chosen = np.sort(rng.choice(len(chosen), _SAMPLED_UNITS, replace=False))
    ratios = unit_log_ratios(density, q, chosen, _affordable(_UNIT_DRAWS, fit.model.dim), rng)
    khats, shares = (np.full(density.num_units, np.nan) for _ in range(2))
    khats[chosen] = [weights_khat(of_unit) for of_unit in ratios.T]
    shares[chosen] = [_effective_share(of_unit) for of_unit in ratios.T]
    khats[np.isneginf(khats)] = 0.0
    units["khat"], units["effective_share"] = khats, shares
    known = ~np.isnan(khats)
    if not known.any():
        return Check(
            name=name,
            passed=False,
            finding="Stan rejects points between the units' modes and their draws.",
            trouble=Trust.not_judged,
        )
    # Nearly equal weights have a tail index too, of a tail in which nothing lies.
    misfit = known & (khats > _KHAT) & (shares < _EFFECTIVE_SHARE)
    share = float(misfit.sum() / known.sum())
    return Check(
        name=name,
        passed=share <= _MISFIT_SHARE,
        value=share,
        threshold=_MISFIT_SHARE,
        finding=(
            f"{100 * share:.2g} % of {known.sum()} units have a k-hat above {_KHAT} given the globals, and weights "
            f"worth less than {100 * _EFFECTIVE_SHARE:.0f} % of their draws"
            f"{_worst(fit, np.where(misfit, khats, np.nan))}."
        ),
        trouble=Trust.units_misfit,
    )


def _effective_share(log_weights: FloatArray) -> float:
    """Effective draws of weights (S,) as a share of the draws."""
    kept = log_weights[np.isfinite(log_weights)]
    if not kept.size:
        return float("nan")
    weights = np.exp(kept - kept.max())
    return float(weights.sum() ** 2 / (weights**2).sum() / len(kept))


def unit_log_ratios(
    density: UnitDensity, q: Approximation, chosen: npt.NDArray[np.int64], draws: int, rng: Rng
) -> FloatArray:
    """log p(z_n | theta) - log q(z_n | theta) (S, len(chosen)) at draws of q, nats; p is normalized as a Gaussian."""
    ratios = np.empty((draws, len(chosen)))
    for rows in density.batches(draws, copies=4):
        theta = q.draw_globals(rng, rows.stop - rows.start)
        z, log_q = q.locals_at(theta, rng.standard_normal((len(theta), *density.index.shape)))
        modes = density.modes(theta, np.array(np.broadcast_to(q.local_means(theta), z.shape)))
        change = density.differences(theta, modes.z, z)
        ratios[rows] = (change - modes.log_volume - log_q)[:, chosen]
    return ratios


def _amortization(
    fit: Fit,
    chain: Chain,
    density: UnitDensity | None,
    q: Approximation,
    units: dict[str, FloatArray],
    rng: Rng,
) -> Check:
    name = "amortization gap"
    if density is None or fit.level is None:
        return Check(name=name, passed=None, finding=_NO_UNITS)
    if fit.method.function == "table":
        return Check(name=name, passed=None, finding="Not run: every unit has a free factor already.")
    freed = free_units(density, q, rng, full=chain.family.local.kind == "full")
    units["amortization_gap"], units["amortization_gap_se"] = freed.gain, freed.gain_se
    limit = max(_NATS, _NATS_PER_UNIT * density.num_units) + 3 * freed.total_se
    short = float((freed.gain - 3 * freed.gain_se > _UNIT_GAP).mean())
    return Check(
        name=name,
        passed=bool(freed.total <= limit and short <= _UNIT_GAP_SHARE),
        value=freed.total,
        threshold=limit,
        unit="nats",
        finding=(
            f"Freed from the inference function, the units gain {freed.total:.2f} +- {freed.total_se:.2f} nats "
            f"together; {100 * short:.2g} % gain more than {_UNIT_GAP} each (limit {100 * _UNIT_GAP_SHARE:.0f} %)"
            f"{_worst(fit, freed.gain)}."
        ),
        trouble=Trust.units_apart,
    )


def _spot_check(
    fit: Fit, density: UnitDensity | None, q: Approximation, units: dict[str, FloatArray], rng: Rng
) -> Check:
    """Hamiltonian Monte Carlo for every unit's latents at some draws of the globals, against q given these."""
    name = "units against HMC"
    if density is None or fit.level is None:
        return Check(name=name, passed=None, finding=_NO_UNITS)
    errors, ratios, accepted = conditional_errors(density, q, rng)
    noise = 3 / np.sqrt(_SPOT_GLOBALS * _SPOT_DRAWS)
    units["conditional_error"], units["conditional_sd_ratio"] = errors, ratios
    off = (errors > _SHIFT + noise) | (np.abs(np.log(ratios)) > np.log(_SD_RATIO) + noise)
    share = float(off.mean())
    return Check(
        name=name,
        passed=share <= _SPOT_SHARE,
        value=share,
        threshold=_SPOT_SHARE,
        finding=(
            f"At {_SPOT_GLOBALS} draws of the globals ({100 * accepted:.0f} % of moves accepted), {100 * share:.2g} % "
            f"of the units have a mean off by more than {_SHIFT} sds or an sd off by more than a factor {_SD_RATIO}"
            f"{_worst(fit, errors)}."
        ),
        trouble=Trust.units_misfit,
    )


def conditional_errors(
    density: UnitDensity, q: Approximation, rng: Rng
) -> tuple[FloatArray, FloatArray, float]:
    """Largest errors of means (N,) in conditional sds, the sd of q over the right one (N,) that is off most, and the
    share of accepted moves.
    """
    theta = q.draw_globals(rng, _SPOT_GLOBALS)
    means = np.broadcast_to(q.local_means(theta), (_SPOT_GLOBALS, *density.index.shape)).copy()
    modes = density.modes(theta, means)
    draws, accepted = sample_units(density, theta, modes, rng, draws=_SPOT_DRAWS)
    sd = draws.std(axis=0, ddof=1)
    own = q.local_sds(theta)
    error = np.abs(((means - draws.mean(axis=0)) / sd).mean(axis=0)).max(axis=1)
    log_ratio = np.log(own / sd).mean(axis=0)
    worst = np.take_along_axis(log_ratio, np.abs(log_ratio).argmax(axis=1)[:, None], axis=1)[:, 0]
    return error, np.exp(worst), float(accepted.mean())


_NO_UNITS = "Not run: the fit has no level of separable units."


def _worst(fit: Fit, values: FloatArray) -> str:
    """The units with the largest values (N,), as a clause; they count from 1, as in Stan."""
    assert fit.level is not None
    order = [unit for unit in np.argsort(-values)[:_NAMED] if np.isfinite(values[unit])]
    named = ", ".join(f"{fit.level.name} {unit + 1} ({values[unit]:.2f})" for unit in order)
    return f"; worst, counted from 1: {named}" if named else ""
