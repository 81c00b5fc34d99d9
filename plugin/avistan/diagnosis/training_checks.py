"""Has training finished? The trace, some more steps, and draws where Stan has no density."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from avistan.density.slots import register
from avistan.diagnosis.checked_fit import CheckedFit
from avistan.diagnosis.verdict import Check, Trust
from avistan.fitting.chains import evaluation_key
from avistan.objective.elbo import evaluate, gap
from avistan.runtime.streams import Stream, stream_key
from avistan.runtime.text import percent, with_error
from avistan.training.loop import train
from avistan.training.stopping import Ending

_WINDOW = 0.2  # of a trace: its last fifth against the fifth before
_NATS = 1.0  # that an ELBO may still gain
_NATS_PER_PARAMETER = 0.001
_CONTINUED = 0.1  # of the steps are run again
_LEAST_STEPS = 200  # of a training that can be judged, and of its continuation
_REJECTED_SHARE = 0.01


def check_trace(checked: CheckedFit) -> Check:
    """The last fifth of the trace against the fifth before, and against the best there ever was."""
    chain = checked.chain
    name, elbo, ended = "ELBO trace", chain.traces[-1].elbo, chain.traces[-1].ended
    steps = sum(len(trace.elbo) for trace in chain.traces)
    window = max(2, int(_WINDOW * len(elbo)))
    parts = [elbo[max(0, stop - window) : stop] for stop in range(len(elbo), 0, -window)]
    parts = [part[np.isfinite(part)] for part in parts]
    if ended is Ending.diverged:
        finding = "Training led to parameters of the approximation that are not finite."
        return Check(name=name, passed=False, finding=finding, trouble=Trust.diverged)
    if not parts[0].size or not np.isfinite(chain.evaluation.elbo):
        finding = "No draw at the end of training was accepted by Stan."
        return Check(name=name, passed=False, finding=finding, trouble=Trust.draws_rejected)
    means = np.array([part.mean() if part.size else -np.inf for part in parts])
    errors = np.array([part.std() / np.sqrt(max(1, part.size)) for part in parts])
    rise = float(means[0] - means[1]) if len(means) > 1 else 0.0
    limit = max(_NATS, 3 * float(np.hypot(errors[0], errors[min(1, len(means) - 1)])))
    best = int(np.argmax(means))
    fall = float(means[best] - means[0])
    fell = fall > max(_NATS, 3 * float(np.hypot(errors[0], errors[best])))
    short, cut, below = steps < _LEAST_STEPS, ended is Ending.out_of_time, ended is Ending.short
    if cut:
        finding = f"The time limit cut training off after {steps} steps."
    elif short:
        finding = f"{steps} steps are too few to see whether the ELBO is stationary: it takes {_LEAST_STEPS} at least."
    elif fell:
        finding = f"The ELBO ended {fall:.2f} nats below what it had reached earlier: training fell back."
    elif below:
        finding = "The inference function ended below the quick fit that it began with."
    elif ended is Ending.spent:
        finding = f"The ELBO was not stationary after {steps} steps, the most that training takes by itself."
    elif ended is Ending.settled:  # the fifths say nothing: towards the end the learning rate falls
        finding = f"Training ended by itself, after {steps} steps, when the ELBO was stationary."
        rise = 0.0
    else:
        finding = f"Between the last two fifths of training the ELBO rose by {rise:.2f} nats."
    return Check(
        name=name,
        passed=rise <= limit and not (short or cut or fell or below or ended is Ending.spent),
        value=-fall if fell else rise,
        threshold=limit,
        unit="nats",
        finding=finding,
        trouble=Trust.out_of_time if cut else Trust.below_quick_fit if below else Trust.stopped_early,
    )


def check_continuation(checked: CheckedFit) -> Check:
    """Some more steps at a restored learning rate: a rate that has fallen hides what is left to gain."""
    fit, chain = checked.fit, checked.chain
    steps = max(_LEAST_STEPS, round(_CONTINUED * sum(len(trace.elbo) for trace in chain.traces)))
    training = replace(fit.options.training, steps=steps, chunk=steps)
    inputs = jnp.asarray(chain.inputs, dtype=jnp.float32)
    key = jax.random.key(checked.seed)
    with register(fit.model) as slot:
        family, _ = train(chain.family, inputs, slot.index, training, stream_key(key, Stream.CONTINUATION))
        draws = fit.options.elbo_draws
        before, after = (
            evaluate(part, inputs, slot.index, evaluation_key(key), draws) for part in (chain.family, family)
        )
    gain, error = gap(before, after)
    name, change = (
        "continued training",
        f"{steps} more steps change the ELBO by {with_error(gain, error, sign=True)}",
    )
    rejected = Check(name=name, passed=False, finding="", trouble=Trust.draws_rejected)
    if np.isnan(gain):
        finding = (
            f"Stan rejects every draw, or does after {steps} more steps: nothing says what training gains."
        )
        return replace(rejected, finding=finding)
    if np.isnan(error):
        finding = f"{change}: Stan rejects too many draws to tell."
        return replace(rejected, value=gain, unit="nats", finding=finding)
    limit = max(_NATS, _NATS_PER_PARAMETER * fit.model.dim, 3 * error)
    return Check.of_number(name, gain, limit, f"{change}.", Trust.stopped_early, unit="nats")


def check_rejected(checked: CheckedFit) -> Check:
    """Draws of the fit that Stan rejects."""
    share = checked.chain.evaluation.rejected_share
    finding = f"Stan rejects {percent(share)} of the fit's draws."
    return Check.of_number("rejected draws", share, _REJECTED_SHARE, finding, Trust.draws_rejected)
