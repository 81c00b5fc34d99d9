"""Does q cover the globals? k-hat of their marginal, and how far their means and sds are off."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avistan.diagnosis.checked_fit import CheckedFit
from avistan.diagnosis.global_curvature import local_gaussian
from avistan.diagnosis.verdict import Check, Trust
from avistan.posterior.approximation import Approximation
from avistan.posterior.marginal_importance import GlobalsImportance, adapt, weigh_enough
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray

_DRAWS = 1000  # of the globals, fewer for large models
_FEWEST_WEIGHTS = 100  # that a k-hat is believed from
_FEWEST_EFFECTIVE = 25  # draws that weights must be worth for means: a fifth of an sd of noise
_MOMENT_DRAWS = 4000  # of q's globals, for its own means and sds
_SHIFT = 0.5  # sds by which a global's mean may be off
_SD_RATIO = 1.5  # by which its sd may be off, either way
_SEEN_SHIFT, _SEEN_RATIO = 0.25, 1.15  # from which on a way to correct them is named
_KHAT, _MOMENTS = "k-hat of the globals", "globals' means and sds"


def check_globals(checked: CheckedFit) -> Iterator[Check]:
    """Importance weights of the globals, and q's means and sds against those of weighted draws."""
    fit, density, q, rng = checked.fit, checked.density, checked.q, checked.rng(Stream.GLOBAL_WEIGHTS)
    if density is not None and q.num_globals == 0:
        yield Check(name=_KHAT, passed=None, finding="Every parameter belongs to a unit.")
        return
    weights = weigh_enough(fit, density, q, checked.affordable(_DRAWS), rng)
    coupled = density is None and fit.level is not None
    better = weights if coupled else adapt(fit, density, q, weights, rng)
    moments = _moments(checked, weights, better)
    about = "the globals, the locals integrated out" if density is not None else "all parameters together"
    judged = weights.num_usable >= _FEWEST_WEIGHTS and not np.isnan(weights.khat)
    finding = f"Only {weights.num_usable} importance weights of {about} could be had."
    passed: bool | None = False
    if judged:
        finding = (
            f"{weights.num_usable} importance weights of {about} are worth {weights.effective_draws:.0f} draws of the "
            "posterior."
        )
        passed = weights.reliable
        if not passed and moments.passed and better.reliable:
            passed = None
            finding += " Not decisive: the adapted weights of the next check are reliable, and find q right."
    yield Check(
        name=_KHAT,
        passed=passed,
        value=weights.khat,
        threshold=weights.threshold,
        finding=finding,
        trouble=Trust.globals_misfit if judged else Trust.not_judged,
    )
    yield moments


def _moments(checked: CheckedFit, weights: GlobalsImportance, better: GlobalsImportance) -> Check:
    """q's means and sds against those of weighted draws; where q alone can't be weighted, proposals adapt, and where
    these can't be weighted either, against what gradients say.
    """
    if better.reliable and better.effective_draws >= _FEWEST_EFFECTIVE:
        (mean, sd), (center, own) = better.mean_sd(), _of_q(checked.q, weights)
        against = f"Against {better.num_usable} weighted draws, worth {better.effective_draws:.0f} of the posterior,"
        return _compared(np.abs(center - mean) / sd, sd / own, against, Trust.globals_biased)
    doubt = (
        f"weights can't say how far means and sds are off: their k-hat is {better.khat:.2f}, and they are worth "
        f"{better.effective_draws:.0f} draws"
    )
    gaussian = None
    if checked.fit.level is None:
        gaussian = local_gaussian(checked.fit.model, checked.q, checked.rng(Stream.GLOBAL_CURVATURE))
    if gaussian is None:
        finding = f"This check could not be made: {doubt}."
        return Check(name=_MOMENTS, passed=False, finding=finding, trouble=Trust.not_judged)
    if gaussian.flat:
        finding = (
            f"By {gaussian.gradient_evaluations} gradients at q's draws the density does not fall along some direction "
            f"as far as these draws go: q is far too narrow there. ({doubt[0].upper()}{doubt[1:]}.)"
        )
        return Check(name=_MOMENTS, passed=False, finding=finding, trouble=Trust.globals_misfit)
    against = f"By {gaussian.gradient_evaluations} gradients at q's draws, because {doubt},"
    return _compared(gaussian.shift, gaussian.sd_ratio, against, Trust.globals_misfit)


def _compared(shift: FloatArray, sd_ratio: FloatArray, against: str, trouble: Trust) -> Check:
    """The check of means that are off by `shift` sds (G,), and of sds that should be `sd_ratio` (G,) times q's."""
    ratio = np.exp(np.abs(np.log(sd_ratio)))
    far, wide = int(np.argmax(shift)), int(np.argmax(ratio))
    passed = bool(shift[far] <= _SHIFT and ratio[wide] <= _SD_RATIO)
    seen = passed and (shift[far] > _SEEN_SHIFT or ratio[wide] > _SEEN_RATIO)
    corrects = seen and trouble is Trust.globals_biased
    return Check(
        name=_MOMENTS,
        passed=passed,
        value=float(ratio[wide]),
        threshold=_SD_RATIO,
        finding=(
            f"{against} means are off by up to {shift[far]:.2g} sds (limit {_SHIFT}), and the sd that is off most is "
            f"{1 / sd_ratio[wide]:.2g} of what it should be."
            + (" fit.posterior(resample='psis') corrects that." if corrects else "")
        ),
        trouble=trouble,
    )


def _of_q(q: Approximation, weights: GlobalsImportance) -> tuple[FloatArray, FloatArray]:
    """q's means and sds of what is weighed: of the globals from more draws, of all parameters from those weighed."""
    of_globals = weights.theta.shape[1] == q.num_globals
    theta = (
        q.draw_globals(generator(0, Stream.GLOBAL_MOMENTS), _MOMENT_DRAWS) if of_globals else weights.theta
    )
    return theta.mean(axis=0), theta.std(axis=0)
