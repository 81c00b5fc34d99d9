"""Do other starts end where the fit ended?"""

from __future__ import annotations

import numpy as np

from avistan.correction.approximation import approximation
from avistan.diagnosis.checked_fit import CheckedFit
from avistan.diagnosis.restarts import LIKE, Landscape, count_for, probe_starts
from avistan.diagnosis.verdict import Check, Trust
from avistan.objective.elbo import gap
from avistan.runtime.streams import Stream

_RHAT = 1.05  # means of restarts a third of an sd apart
_CHAIN_DRAWS = 500


def check_restarts(checked: CheckedFit) -> Check:
    """Quick fits from other starts against the fit; the chains of a fit that has several against each other."""
    if len(checked.fit.chains) > 1:
        return _check_chains(checked)
    name = "other starts"
    sample, whole = checked.sample, checked.sample.model is checked.fit.model
    count = count_for(sample.model.dim)
    probes = probe_starts(sample.model, sample.density, sample.center, seed=checked.seed, count=count)
    if not probes:
        finding = "No other start had a finite log density: nothing says whether there are other modes."
        return Check(name=name, passed=False, finding=finding, trouble=Trust.not_judged)
    apart = [probe for probe in probes if probe.is_apart and not probe.is_worse]
    worse = [probe for probe in probes if probe.is_apart and probe.is_worse]
    better = [probe for probe in probes if probe.is_better]
    if better:
        top = max(better, key=lambda probe: probe.gain)
        checked.better_start = top.fit if whole else None
        finding = (
            f"{len(better)} of {len(probes)} random starts end higher, by up to {top.gain:.1f} nats of ELBO."
        )

    elif apart:
        valley = min(probe.valley for probe in apart)
        away = max(probe.distance for probe in apart)
        finding = (
            f"{len(apart)} of {len(probes)} random starts end in another mode of like mass, {away:.1f} sds "
            f"away behind a valley of {valley:.1f} nats."
        )
    else:
        finding = f"None of {len(probes)} random starts ends in another mode of like mass."
    if not whole and sample.density is not None:
        finding += f" Looked for with the data of {sample.density.num_units} units."
    trouble = Trust.better_optimum if better and whole else Trust.several_modes
    if worse:
        short = max(-probe.gain for probe in worse)
        finding += f" {len(worse)} of them ended in a worse one, up to {short:.1f} nats lower."
    return Check.of_number(name, float(len(apart) + len(better)), 0.0, finding, trouble)


def _check_chains(checked: CheckedFit) -> Check:
    """R-hat of the globals over the restarts that reached the best optimum."""
    fit = checked.fit
    name, best = "R-hat over restarts", checked.chain
    behind = [gap(chain.evaluation, best.evaluation) for chain in fit.chains]
    like = [
        chain
        for chain, (lack, error) in zip(fit.chains, behind, strict=True)
        if chain is best or lack <= LIKE + 3 * error
    ]
    lost = max((lack for lack, _ in behind if np.isfinite(lack)), default=0.0)
    told, count = "", len(fit.chains) - len(like)
    if count:
        told = f" {count} of {len(fit.chains)} restarts end in a worse optimum, up to {lost:.1f} nats lower."
    alone = None if not checked.made.is_q else False  # what is handed out is the best restart's, corrected
    if len(like) < 2:
        finding = f"One restart alone reached the best optimum.{told}"
        return Check(name=name, passed=alone, finding=finding, trouble=Trust.worse_restarts)
    parts = [approximation(chain.family, chain.inputs) for chain in like]
    rng = checked.rng(Stream.CHAINS_AGREEMENT)
    draws = np.stack([part.draw_globals(rng, _CHAIN_DRAWS) for part in parts])
    from arviz_stats.base import array_stats

    rhats = np.asarray(array_stats.rhat(draws, chain_axis=0, draw_axis=1))
    worst = float(np.max(rhats, initial=1.0))
    landscape = Landscape(fit.model, checked.density)
    centers = [part.center for part in parts]
    valley = max(landscape.valley(centers[0], other) for other in centers[1:]) if worst > _RHAT else 0.0
    between = f", with a valley of {valley:.1f} nats between them" if valley > 0 else ""
    apart = Trust.several_modes if valley > 0 else Trust.stopped_early
    return Check(
        name=name,
        passed=(alone if count else True) if worst <= _RHAT else False,
        value=worst,
        threshold=_RHAT,
        finding=f"{len(like)} restarts of like ELBO have an R-hat of {worst:.3f} in the globals{between}.{told}",
        trouble=Trust.worse_restarts if worst <= _RHAT else apart,
    )
