"""Are the units' draws those of their conditional densities?"""

from __future__ import annotations

import numpy as np

from avistan.correction.correct import RHAT, ROUGH
from avistan.diagnosis.checked_fit import NO_UNITS, CheckedFit
from avistan.diagnosis.verdict import Check, Trust
from avistan.runtime.text import percent

_SHIFT, _LOG_SD = 0.25, 0.2  # sds by which a unit's mean, and log sds by which its sd may be off
_SHARE = 0.05  # of the units may be further off
_FEWEST = 45  # effective draws of a unit: its mean is known to 0.15 sds


def check_units(checked: CheckedFit) -> Check:
    """How far units are drawn from other places than their conditional densities have."""
    name, made = "units", checked.made
    if checked.fit.level is None:
        return Check(name=name, passed=None, finding=NO_UNITS)
    if made.is_q:
        return Check(
            name=name, passed=None, finding="Judged with the globals: weights are of all parameters."
        )
    if made.units is None:
        return _check_chains(checked)
    units, adjustment = made.units, made.correction.adjustment
    assert adjustment is not None
    shift, log_sd = (np.zeros_like(units.shift),) * 2 if units.exact else (units.shift, units.log_sd)
    checked.units |= {"conditional_error": shift, "conditional_sd_ratio": np.exp(log_sd)}
    off = float(((shift > _SHIFT) | (log_sd > _LOG_SD)).mean())
    how = (
        "from conditional densities at each draw of the globals"
        if units.exact
        else f"from conditional densities at {len(units.standardized)} draws of the globals, moved as q moves them"
    )
    finding = (
        f"Units are drawn {how}; {percent(off)} of them are more than {_SHIFT} sds, or a fifth of a sd, off on "
        f"average{checked.worst(shift)}. Integrals over all units are off by {adjustment.error:.2g} nats "
        f"(limit {ROUGH})."
    )
    if not adjustment.error <= ROUGH:
        return Check(name=name, passed=False, finding=finding, trouble=Trust.units_misfit)
    return Check.of_number(name, off, _SHARE, finding, Trust.units_misfit)


def _check_chains(checked: CheckedFit) -> Check:
    """Whether Markov chains of all parameters mixed in the units' latents that were looked at."""
    level, correction = checked.fit.level, checked.made.correction
    assert level is not None
    rhat, effective = (part[level.index.ravel()] for part in (correction.rhat, correction.effective))
    seen = np.isfinite(effective)
    off = float(((rhat > RHAT) | (effective < _FEWEST))[seen].mean()) if seen.any() else float("nan")
    finding = (
        f"Of {seen.sum()} latents of units whose chains were looked at, {percent(off)} have an R-hat above {RHAT} or "
        f"fewer than {_FEWEST} effective draws."
    )
    return Check.of_number("units", off, _SHARE, finding, Trust.units_misfit)
