"""The best state is kept: steps that lead far below it are taken back, and no run ends below its start."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avistan as avi
from avistan.density.log_density import register
from avistan.fitting.outcome import FitOutcome, judge
from avistan.objective.elbo import Evaluation
from avistan.runtime.precision import in_float64
from avistan.training.loop import Trace, train
from avistan.training.safeguard import Safeguard
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


class Walk:
    """Steps whose family is one number, the ELBO."""

    def __init__(self, value):
        self.value, self.steps = value, 0

    @property
    def family(self):
        return self.value

    def go(self, value):
        self.value, self.steps = value, self.steps + 25
        return value + np.random.default_rng(self.steps).normal(size=25)

    def arrays(self):
        return {"value": np.asarray(self.value), "steps": np.asarray(self.steps)}

    def restore(self, arrays):
        self.value, self.steps = float(arrays["value"]), int(arrays["steps"])


def exactly(family, number):
    return Evaluation(family + np.random.default_rng(number).normal(size=100))


def begin(measure=exactly, value=-50.0):
    walk = Walk(value)
    return walk, Safeguard(walk, measure)


def test_a_fall_is_taken_back_and_random_numbers_go_on():
    walk, guard = begin()
    assert not guard.went_wrong(walk.go(-40.0))
    assert not guard.went_wrong(walk.go(-30.0))
    assert not guard.went_wrong(walk.go(-33.0))  # noise, or little
    assert guard.went_wrong(walk.go(-1e6))
    assert (walk.value, walk.steps) == (-30.0, 100)
    walk.go(-1e6)
    assert guard.went_wrong(np.full(25, np.nan))  # every draw rejected
    assert walk.value == -30.0


def test_what_only_the_trace_says_is_an_alarm_for_nothing():
    walk, guard = begin(lambda family, number: exactly(0.0, number))
    assert not guard.went_wrong(walk.go(-30.0))
    assert not guard.went_wrong(walk.go(-100.0))
    assert (walk.value, walk.steps) == (-100.0, 50)
    assert not guard.went_wrong(walk.go(-45.0))


def test_the_end_is_not_below_the_start_or_the_best_chunk():
    walk, guard = begin(value=-20.0)
    guard.went_wrong(walk.go(-28.0))
    assert guard.best_of(walk.family) == -20.0
    walk, guard = begin()
    for value in (-45.0, -20.0, -26.0):
        guard.went_wrong(walk.go(value))
    assert guard.best_of(walk.family) == -20.0
    assert walk.value == -26.0
    walk, guard = begin()
    for value in (-45.0, -20.0, -19.8):
        guard.went_wrong(walk.go(value))
    assert guard.best_of(walk.family) == -19.8


def test_an_interrupted_guard_remembers():
    walk, guard = begin()
    guard.went_wrong(walk.go(-30.0))
    guard.went_wrong(walk.go(-31.0))
    again = Safeguard(walk, exactly)
    again.restore(guard.arrays())
    assert again.went_wrong(walk.go(-1e4))
    assert walk.value == -30.0
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
    x = np.concatenate([rng.normal(size=150), 8 * rng.normal(size=150)])
    model = avi.Model(stan_code=WIGGLY, data={"N": 300, "x": x})
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
    walk, guard = begin()
    assert not guard.left_the_numbers(np.full(25, -np.inf))
    walk.value = np.inf
    assert guard.left_the_numbers(np.full(25, np.nan))
    assert not guard.left_the_numbers(np.array([np.nan, -3.0]))
