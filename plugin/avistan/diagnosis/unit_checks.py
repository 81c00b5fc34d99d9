"""Does q cover the units' conditional posteriors, and is the inference function good enough for each of them?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from avistan.diagnosis.checked_fit import NO_UNITS, CheckedFit
from avistan.diagnosis.verdict import Check, Trust
from avistan.objective.psis import pareto_khat
from avistan.posterior.approximation import Approximation
from avistan.posterior.refine_locals import refine_locals
from avistan.runtime.streams import Stream, derived_seeds
from avistan.runtime.text import percent, with_error
from avistan.runtime.types import FloatArray, Rng
from stan_adapters.units.conditional_density import UnitDensity
from stan_adapters.units.conditional_hmc import sample_units

_KHAT = 0.7  # Vehtari et al., JMLR 2024
_EFFECTIVE_SHARE = 0.9  # of a unit's draws: a mean off by a third of an sd costs a tenth
_MISFIT_SHARE = 0.05  # of the units may have a larger k-hat, which is estimated from few draws
_NATS = 1.0  # that all units together may gain, and
_NATS_PER_UNIT = 0.01  # the mean of a unit moves by a seventh of its sd for that
_UNIT_GAP, _UNIT_GAP_SHARE = 0.1, 0.01  # nats that a hundredth of the units may lack
_UNIT_DRAWS = 200
_SAMPLED_UNITS = 1000
_SHIFT, _SD_RATIO = 0.5, 1.5  # sds by which a mean may be off, and a factor by which an sd may be
_SPOT_GLOBALS, _SPOT_DRAWS = 8, 50
_SPOT_DRAWS_OF_Q = 400  # whose means and sds are known to a tenth of what those of the chains are
_SPOT_SHARE = 0.05


def check_units(checked: CheckedFit) -> Check:
    """k-hats of each unit's weights given the globals."""
    name, density, rng = "k-hat of units", checked.density, checked.rng(Stream.UNIT_WEIGHTS)
    if density is None:
        return Check(name=name, passed=None, finding=NO_UNITS)
    chosen = np.arange(density.num_units)
    if len(chosen) > _SAMPLED_UNITS:
        chosen = np.sort(rng.choice(len(chosen), _SAMPLED_UNITS, replace=False))
    ratios = unit_log_ratios(density, checked.q, chosen, checked.affordable(_UNIT_DRAWS), rng)
    khats, shares = (np.full(density.num_units, np.nan) for _ in range(2))
    khats[chosen] = [pareto_khat(of_unit) for of_unit in ratios.T]
    shares[chosen] = [_effective_share(of_unit) for of_unit in ratios.T]
    khats[np.isneginf(khats)] = 0.0
    checked.units |= {"khat": khats, "effective_share": shares}
    known = ~np.isnan(khats)
    unknown = 1 - known.sum() / len(chosen)
    if unknown > _MISFIT_SHARE:
        finding = (
            f"{percent(unknown)} of {len(chosen)} units can't be judged, because Stan rejects points between their "
            "modes and their draws."
        )
        return Check.of_number(name, float(unknown), _MISFIT_SHARE, finding, Trust.not_judged)
    # Nearly equal weights have a tail index too, of a tail in which nothing lies.
    misfit = known & (khats > _KHAT) & (shares < _EFFECTIVE_SHARE)
    share = float(misfit.sum() / known.sum())
    finding = (
        f"{percent(share)} of {known.sum()} units have a k-hat above {_KHAT} given the globals, and weights worth less "
        f"than {100 * _EFFECTIVE_SHARE:.0f} % of their draws{checked.worst(np.where(misfit, khats, np.nan))}."
    )
    return Check.of_number(name, share, _MISFIT_SHARE, finding, Trust.units_misfit)


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
        z, log_q = q.draw_units(rng, theta)
        modes = density.modes(theta, q.centers(theta))
        change = density.differences(theta, modes.z, z)
        ratios[rows] = (change - modes.log_volume - log_q)[:, chosen]
    return ratios


def check_amortization(checked: CheckedFit) -> Check:
    """What units gain from local refinement without amortization."""
    name, density = "amortization gap", checked.density
    if density is None:
        return Check(name=name, passed=None, finding=NO_UNITS)
    if checked.fit.method.function == "table":
        return Check(name=name, passed=None, finding="Not run: every unit has a free factor already.")
    (seed,) = derived_seeds(checked.seed, Stream.UNIT_REFINEMENT)
    refined = refine_locals(checked.fit.model, density, checked.q, seed)
    checked.units |= {"amortization_gap": refined.gain, "amortization_gap_se": refined.gain_se}
    limit = max(_NATS, _NATS_PER_UNIT * density.num_units) + 3 * refined.total_se
    short = float((refined.gain - 3 * refined.gain_se > _UNIT_GAP).mean())
    return Check(
        name=name,
        passed=bool(refined.total <= limit and short <= _UNIT_GAP_SHARE),
        value=refined.total,
        threshold=limit,
        unit="nats",
        finding=(
            f"Refined one by one without amortization, the units gain {with_error(refined.total, refined.total_se)} "
            f"together; {percent(short)} gain more than {_UNIT_GAP} each (limit {100 * _UNIT_GAP_SHARE:.0f} %)"
            f"{checked.worst(refined.gain)}."
        ),
        trouble=Trust.units_apart,
    )


def check_against_hmc(checked: CheckedFit) -> Check:
    """Hamiltonian Monte Carlo for every unit's latents at some draws of the globals, against q given these."""
    name, density = "units against HMC", checked.density
    if density is None:
        return Check(name=name, passed=None, finding=NO_UNITS)
    errors, ratios, accepted = conditional_errors(density, checked.q, checked.rng(Stream.UNIT_SAMPLING))
    noise = 3 / np.sqrt(_SPOT_GLOBALS * _SPOT_DRAWS)
    checked.units |= {"conditional_error": errors, "conditional_sd_ratio": ratios}
    off = (errors > _SHIFT + noise) | (np.abs(np.log(ratios)) > np.log(_SD_RATIO) + noise)
    share = float(off.mean())
    finding = (
        f"At {_SPOT_GLOBALS} draws of the globals ({100 * accepted:.0f} % of moves accepted), {percent(share)} of the "
        f"units have a mean off by more than {_SHIFT} sds or an sd off by more than a factor {_SD_RATIO}"
        f"{checked.worst(errors)}."
    )
    return Check.of_number(name, share, _SPOT_SHARE, finding, Trust.units_misfit)


def conditional_errors(
    density: UnitDensity, q: Approximation, rng: Rng
) -> tuple[FloatArray, FloatArray, float]:
    """Largest errors of means (N,) in conditional sds, the sd of q over the right one (N,) that is off most, and the
    share of accepted moves.
    """
    theta = q.draw_globals(rng, _SPOT_GLOBALS)
    modes = density.modes(theta, q.centers(theta))
    draws, accepted = sample_units(density, theta, modes, rng, draws=_SPOT_DRAWS)
    sd = draws.std(axis=0, ddof=1)
    of_q = [q.draw_units(rng, np.repeat(row[None], _SPOT_DRAWS_OF_Q, axis=0))[0] for row in theta]
    mean_of_q, sd_of_q = (
        np.stack(part) for part in zip(*((z.mean(axis=0), z.std(axis=0)) for z in of_q), strict=True)
    )
    error = np.abs(((mean_of_q - draws.mean(axis=0)) / sd).mean(axis=0)).max(axis=1)
    log_ratio = np.log(sd_of_q / sd).mean(axis=0)
    worst = np.take_along_axis(log_ratio, np.abs(log_ratio).argmax(axis=1)[:, None], axis=1)[:, 0]
    return error, np.exp(worst), float(accepted.mean())
