"""How a fit ended, as advice: one text for Python, the command line and reports."""

from __future__ import annotations

import enum

import numpy as np

from avistan.objective.elbo import Evaluation
from avistan.training.loop import Trace
from avistan.training.stopping import NATS, SHARE, Ending

_WINDOW = 0.2  # shares of the trace: its last fifth is held against the fifth before
_RISE = 1.0  # nats between the two that the falling learning rate alone explains
_FALL = 10.0  # nats, at least, that the final estimate may lie below the end of the trace
_REJECTED_SHARE = 0.01


class FitOutcome(enum.Enum):
    """How a fit ended; the value is advice to the user, empty where none is needed.

    `settled` says only that the ELBO is stationary, not that the approximation is good.

    Example:
        >>> fit.outcome.name in avi.FitOutcome.__members__
        True
        >>> avi.FitOutcome.budget_spent.value.startswith("The ELBO was still rising")
        True
    """

    settled = ""
    budget_spent = (
        "The ELBO was still rising when the steps ran out: "
        "raise steps (command line: --steps) and look at the trace."
    )
    out_of_time = (
        "The time limit passed before training had finished, and this is the best state so far: go on with resume=True "
        "and a larger max_seconds (command line: --resume, --max-seconds)."
    )
    draws_rejected = (
        "Stan's log density was not finite for more than 1 % of the fitted draws: the ELBO leaves them out. Check "
        "constraints that the parameters' declarations do not express."
    )
    unstable = (
        "The final ELBO is far below what the trace showed: rare draws of the approximation are disastrous. Lower "
        "learning_rate (command line: --learning-rate), or choose a poorer family."
    )
    uncertain = (
        "The ELBO's standard error is more than 1 nat and 0.1 % of it: few draws decide it, and neither it nor the fit "
        "can be relied on. Try another seed and a lower learning_rate (command line: --learning-rate), or choose a "
        "poorer family; where the error is a little too large, raise elbo_draws (--elbo-draws)."
    )
    below_quick_fit = (
        "The inference function ends surely below the quick fit that it began with, a free normal for every unit: it "
        "can't say what these say. Take method='fvi' (command line: --method fvi), a wider network, such as "
        "avi:mlp(128), or more references (num_references; --num-references)."
    )
    diverged = (
        "Training led to parameters of the approximation that are not finite, and ended there; this is the best state "
        "before. Lower learning_rate (command line: --learning-rate), or look for a posterior that is improper."
    )
    nonfinite = (
        "Stan's log density was not finite for any draw at the end of training: the fit is unusable. Try another "
        "seed, or declare the parameters' constraints."
    )


def judge(trace: Trace, evaluation: Evaluation) -> FitOutcome:
    """The outcome of a trained family, from its ELBO trace and the draws that Stan rejected."""
    window = max(2, int(_WINDOW * len(trace.elbo)))
    last, before = trace.elbo[-window:], trace.elbo[-2 * window : -window]
    if trace.ended is Ending.diverged:
        return FitOutcome.diverged
    last, before = last[np.isfinite(last)], before[np.isfinite(before)]
    if not last.size or not np.isfinite(evaluation.elbo):
        return FitOutcome.nonfinite
    if trace.ended is Ending.out_of_time:
        return FitOutcome.out_of_time
    if evaluation.rejected_share > _REJECTED_SHARE:
        return FitOutcome.draws_rejected
    if last.mean() - evaluation.elbo > max(_FALL, 3 * float(last.std())):
        return FitOutcome.unstable
    if not evaluation.elbo_se <= max(NATS, SHARE * abs(evaluation.elbo)):  # unknown is uncertain, too
        return FitOutcome.uncertain
    if trace.ended is Ending.short:
        return FitOutcome.below_quick_fit
    if trace.ended is Ending.spent:
        return FitOutcome.budget_spent
    if before.size and trace.ended is Ending.given:
        noise = np.sqrt(last.var() / last.size + before.var() / before.size)
        if last.mean() - before.mean() > max(3 * noise, _RISE):
            return FitOutcome.budget_spent
    return FitOutcome.settled
