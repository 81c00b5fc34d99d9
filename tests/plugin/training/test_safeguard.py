"""The best state is kept: steps that lead far below it are taken back, and no run ends below its start."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avistan as avi
from avistan.density.slots import register
from avistan.fitting.outcome import FitOutcome, judge
from avistan.objective.elbo import Evaluation
from avistan.runtime.precision import in_float64
from avistan.training.loop import Trace, train
from avistan.training.safeguard import Safeguard
from avistan.training.steps import State
from avistan.training.stopping import Ending
from programs import NORMALS

WIGGLY = """
data { int<lower=0> N; vector[N] x; }
parameters { real theta; vector[N] z; }
model {
  theta ~ normal(0, 10);
  z ~ std_normal();
  x ~ normal(theta + z .* sin(2 * z) + z, exp(cos(z)));
}
"""


def at(value, steps=0):
    """A state whose family is one number, the ELBO."""
    return State({"value": jnp.asarray(value)}, (), jax.random.key(0), jnp.asarray(steps))


def value_of(state):
    return float(state.moved["value"])


def seen(state):
    """Estimates of a chunk that ended there."""
    return value_of(state) + np.random.default_rng(int(state.step)).normal(size=25)


def exactly(family, number):
    return Evaluation(family + np.random.default_rng(number).normal(size=100))


def begin(measure=exactly, value=-50.0):
    return Safeguard(at(value), value_of, measure)


def after(guard, *values):
    """Where training goes on after chunks that ended at these values."""
    for number, value in enumerate(values, start=1):
        state = at(value, 25 * number)
        state = guard.kept(state, seen(state))
    return value_of(state), int(state.step)


def test_a_fall_is_taken_back_and_random_numbers_go_on():
    guard = begin()
    assert after(guard, -40.0, -30.0, -33.0) == (-33.0, 75)  # noise, or little
    fallen = at(-1e6, 100)
    kept = guard.kept(fallen, seen(fallen))
    assert (value_of(kept), int(kept.step)) == (-30.0, 100)
    kept = guard.kept(at(-1e6, 125), np.full(25, np.nan))  # every draw rejected
    assert (value_of(kept), int(kept.step)) == (-30.0, 125)


def test_what_only_the_trace_says_is_an_alarm_for_nothing():
    guard = begin(lambda family, number: exactly(0.0, number))
    assert after(guard, -30.0, -100.0) == (-100.0, 50)
    assert after(guard, -45.0) == (-45.0, 25)


def test_the_end_is_not_below_the_start_or_the_best_chunk():
    guard = begin(value=-20.0)
    after(guard, -28.0)
    assert guard.best_of(-28.0) == -20.0
    for last, best in ((-26.0, -20.0), (-19.8, -19.8)):
        guard = begin()
        after(guard, -45.0, -20.0, last)
        assert guard.best_of(last) == best


def test_an_interrupted_guard_remembers():
    guard, again = begin(), begin()
    after(guard, -30.0, -31.0)
    again.restore(guard.arrays())
    assert after(again, -1e4) == (-30.0, 25)
    assert again.arrays().keys() == guard.arrays().keys()


@pytest.mark.parametrize("steps", [None, 500])
def test_wild_steps_do_not_end_below_the_quick_fit(steps):
    model = avi.Model(stan_code=NORMALS, data={"D": 3, "mean": [0.5, -1.0, 2.0], "sd": [0.1, 1.0, 10.0]})
    calm = model.fit(method="fvi", seed=2, learning_rate=1e-9, steps=1)  # the quick fit
    wild = model.fit(method="fvi", seed=2, learning_rate=20.0, steps=steps)
    assert wild.elbo > calm.elbo - 3 * wild.elbo_se - 0.1


def test_an_elbo_that_few_draws_decide_is_not_settled():
    trace = Trace(
        elbo=np.full(100, -10.0),
        num_rejected=np.zeros(100, dtype=np.int64),
        chunk_steps=np.array([0, 100]),
        seconds=np.zeros(2),
        seconds_compile=0.0,
        ended=Ending.settled,
    )
    sure = np.full(2000, -10.0)
    assert judge(trace, Evaluation(sure)) is FitOutcome.settled
    doubtful = sure.copy()
    doubtful[0] = -6000.0  # an ELBO of -13 +- 3
    assert judge(trace, Evaluation(doubtful)) is FitOutcome.uncertain


def test_a_function_that_cannot_say_what_the_quick_fit_says_is_told():
    rng = np.random.default_rng(5)
    # Of fewer units the draws decide whether it is short.
    x = np.concatenate([rng.normal(size=300), 8 * rng.normal(size=300)])
    model = avi.Model(stan_code=WIGGLY, data={"N": 600, "x": x})
    blind = model.fit(method="avi:mlp(1)", seed=1, num_references=2, max_rank=1)
    assert blind.outcome is FitOutcome.below_quick_fit
    assert "fvi" in blind.outcome.value
    seeing = model.fit(method="avi", seed=1)
    assert seeing.outcome is FitOutcome.settled
    assert seeing.elbo > blind.elbo + 1


@pytest.mark.parametrize("method", ["fvi", "avi:mlp(8)", "avi:polynomial(1)"])
def test_training_whose_parameters_are_not_finite_ends_and_comes_back(method):
    """A rate that no user can give: the first step ends beyond the numbers, and none leads back."""
    y = np.random.default_rng(1).normal(size=12)
    code = "data { int N; vector[N] y; } parameters { real m; vector[N] z; } "
    code += "model { m ~ std_normal(); z ~ normal(m, 1); y ~ normal(z, 1); }"
    fit = avi.Model(stan_code=code, data={"N": 12, "y": y}).fit(method=method, seed=1, steps=50)
    options = replace(fit.options.training, steps=100_000, chunk=25, learning_rate=np.inf)
    with register(fit.model) as slot, np.errstate(all="ignore"):
        family, trace = in_float64(train)(
            fit.best.family, jnp.asarray(fit.best.inputs, jnp.float32), slot.index, options, jax.random.key(2)
        )
    assert trace.ended is Ending.diverged
    assert len(trace.elbo) < 1000
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(family.globals))
    assert judge(trace, fit.evaluation) is FitOutcome.diverged


def test_states_that_are_finite_go_on_whatever_their_estimates_are():
    left = Safeguard.left_the_numbers
    assert not left(at(-50.0), np.full(25, -np.inf))
    assert left(at(np.inf), np.full(25, np.nan))
    assert not left(at(np.inf), np.array([np.nan, -3.0]))
