"""The gate: is a fit's posterior to be trusted? Each check measures one way in which variational inference goes wrong.

A stationary ELBO says nothing of these: the family may be too poor, or sit in one mode of several; training may have
collapsed, or its learning rate fallen. A check that can't be made is a check that failed, unless nothing depends on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from avistan.diagnosis.checked_fit import CheckedFit
from avistan.diagnosis.global_checks import check_against_nuts, check_globals
from avistan.diagnosis.restart_checks import check_restarts
from avistan.diagnosis.training_checks import check_continuation, check_rejected, check_trace
from avistan.diagnosis.unit_checks import check_units
from avistan.diagnosis.verdict import Check, Diagnosis, Trust
from avistan.fitting.fitted import Fitted
from avistan.runtime.deadline import out_of_time
from avistan.runtime.limits import check_seed
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import begin_stage

_logger = logging.getLogger(__name__)

_Checks = Callable[[CheckedFit], Iterable[Check]]
# By the name that a check goes by should it fail to run. What is handed out is judged; q, where it is that.
_OF_DRAWS: dict[str, _Checks] = {
    "globals": check_globals,
    "units": lambda fit: [check_units(fit)],
    "other starts": lambda fit: [check_restarts(fit)],
}
_OF_Q: dict[str, _Checks] = {
    "ELBO trace": lambda fit: [check_trace(fit)],
    "rejected draws": lambda fit: [check_rejected(fit)],
    "continued training": lambda fit: [check_continuation(fit)],
}
_WITH_NUTS: dict[str, _Checks] = {"globals against NUTS": lambda fit: [check_against_nuts(fit)]}

_FREE = ("ELBO trace", "rejected draws")  # made even when time is out
_INFORMS = ("ELBO trace", "rejected draws")  # of q where draws are corrected


# Numbers that are far off overflow; checks look for what is not finite.
@in_float64
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def diagnose(fit: Fitted, *, seed: int | None = None, nuts: bool = False) -> Diagnosis:
    """Check what a fit hands out in every way that is known to go wrong silently.

    Checks: the globals, by variable; the units given them; whether other starts end elsewhere; and, with `nuts`, a run
    of NUTS. Where draws are q's own: the ELBO's trace, rejected draws, and whether more training gains; where they are
    corrected, q is only the way to them, and these inform. A check that raises is a failed check with the error as its
    reason, and the others are made.

    Args:
        seed: of the checks' random numbers; None takes the fit's.
        nuts: compare with NUTS too.
    """
    started = time.perf_counter()
    checked = CheckedFit(fit=fit, seed=check_seed(fit.seed if seed is None else seed))
    checks: list[Check] = []
    waiting = list((_OF_DRAWS | (_WITH_NUTS if nuts else {}) | _OF_Q).items())
    for number, (name, make) in enumerate(waiting):
        later = waiting[number + 1][0] if number + 1 < len(waiting) else "saving"
        begin_stage(f"diagnosis: {name}", next=later)
        corrected = name in _OF_Q and checked.corrected
        if corrected and name not in _INFORMS:
            continue
        found = made(name, make, checked)
        checks += [_informing(check) for check in found] if corrected else found
    return Diagnosis(
        program=fit.model.program.name,
        method=fit.method.name,
        checks=tuple(checks),
        units=checked.units,
        variables=checked.variables,
        better_start=checked.better_start,
        level=None if fit.level is None else fit.level.name,
        seconds=time.perf_counter() - started,
    )


def _informing(check: Check) -> Check:
    """A check of q where draws are corrected: it decides only that training was cut off."""
    cut_off = check.passed is False and check.trouble is Trust.out_of_time
    return check if cut_off else replace(check, passed=None)


def decided(check: Check) -> Check:
    """The check; a failed one where it passed on a number, or a limit, that says nothing: NaN or infinity.

    A value of -inf says something: it is the k-hat of weights that do not vary at all.
    """
    numbers = [number for number in (check.value, check.threshold) if number is not None]
    if not check.passed or not (np.isnan(numbers) | np.isposinf(numbers)).any():
        return check
    finding = f"{check.finding} That number, or its limit, is not finite: it says nothing."
    return replace(check, passed=False, finding=finding, trouble=Trust.not_judged)


def made(name: str, make: _Checks, checked: CheckedFit) -> list[Check]:
    """The checks that a function makes; what it made before it raised is kept, and the error becomes a failed check."""
    found: list[Check] = []
    if out_of_time() and name not in _FREE:
        finding = "This check was not made: the time limit had passed."
        return [Check(name=name, passed=False, finding=finding, trouble=Trust.out_of_time)]
    try:
        found.extend(make(checked))
    except MemoryError:
        _logger.debug("memory ran out in the check %r", name, exc_info=True)
        reason = "memory ran out; free some, or diagnose on a larger machine"
    except Exception as error:  # whatever it is, the fit and the other checks are not lost
        _logger.debug("the check %r raised", name, exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    else:
        return [decided(check) for check in found]
    finding = f"This check could not be made: {reason.rstrip('.')}."
    return [*found, Check(name=name, passed=False, finding=finding, trouble=Trust.not_judged)]
