"""The stopping rule: windows, stationarity at its known false rate, rates, and where training ends."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from avistan.density.slots import register
from avistan.family.method import parse_method
from avistan.fitting.options import FitOptions, make_options
from avistan.fitting.outcome import FitOutcome, judge
from avistan.objective.elbo import Evaluation, evaluate
from avistan.runtime.precision import in_float64
from avistan.start.preparation import prepare, start_family
from avistan.training.checkpoints import Checkpoint
from avistan.training.loop import TrainingOptions, train, with_unit_steps
from avistan.training.steps import Chunk
from avistan.training.stopping import (
    FEWEST_CURVED,
    MOST_RHAT,
    RESOLUTION,
    USUAL,
    Ending,
    FixedBudget,
    StoppingRule,
    rhat,
    tolerance,
)
from programs import NORMALS, bind
from stan_adapters.levels.levels import candidate_levels

MEAN, SD = np.array([3.0, -20.0, 0.1]), np.array([0.01, 5.0, 1.0])
BY_RULE = TrainingOptions()


@pytest.fixture(scope="module")
def normals():
    with bind(NORMALS, {"D": 3, "mean": MEAN, "sd": SD}) as model:
        yield model


def begin(model, name="fvi", seed=3):
    (level,) = candidate_levels(model.layout)
    return start_family(prepare(model, level, seed=seed, num_references=6, max_rank=4), parse_method(name))


# --- R-hat --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [8, 16, 40])
def test_white_noise_is_called_moving_as_often_as_the_f_distribution_says(length):
    """Without the resolution h R-hat^2 = h - 1 + F, with F of 1 and 2 h - 2 degrees of freedom."""
    half, count = length // 2, 4000
    rng = np.random.default_rng(length)
    series = 1e3 * RESOLUTION * rng.normal(size=(count, length, 1))
    seen = np.mean([rhat(values) > MOST_RHAT for values in series])
    expected = stats.f.sf(half * MOST_RHAT**2 - half + 1, 1, 2 * half - 2)
    assert abs(seen - expected) < 5 * np.sqrt(expected * (1 - expected) / count)


def test_a_trend_is_seen_and_a_movement_below_the_resolution_is_none():
    rng = np.random.default_rng(1)
    noise, trend = rng.normal(size=(40, 30)), np.linspace(0, 6, 40)[:, None]
    assert rhat(noise) < 1.1
    assert rhat(noise + trend) > 1.5
    assert rhat(np.linspace(0, 10 * RESOLUTION, 40)[:, None]) > MOST_RHAT
    assert rhat(np.linspace(0, RESOLUTION, 40)[:, None]) < MOST_RHAT


def test_quantities_count_together():
    """Equal parts give the value of one: R-hat of the pooled variances."""
    one = np.random.default_rng(2).normal(size=(16, 1))
    np.testing.assert_allclose(rhat(np.repeat(one, 5, axis=1)), rhat(one), rtol=1e-12)


# --- the rule on made-up iterates -----------------------------------------------------------------------------


def made_up(family, elbo_of, **options):
    """A rule whose ELBOs are a function of the first mean of the family."""

    def measure(of, number):
        noise = np.random.default_rng(number).normal(size=200)
        return Evaluation(elbo_of(float(of.inference.nu.loc[0, 0])) + noise)

    return StoppingRule(family, measure, 0.1, **options)


def moved_to(family, place):
    return eqx.tree_at(lambda f: f.inference.nu.loc, family, jnp.full_like(family.inference.nu.loc, place))


def chunk_at(family, elbo):
    """A chunk whose iterates stood at a family."""
    of_globals, nu = family.globals, family.inference.nu
    parts = (of_globals.loc, of_globals.log_sd, nu.loc, nu.log_sd)
    watched = np.concatenate([np.asarray(part).ravel() for part in parts])
    return Chunk(elbo, np.zeros(len(elbo), dtype=np.int64), family, watched)


def run(rule, family, place_at):
    """Steps until the rule ends, and all rates."""
    done, rates = 0, []
    while (more := rule.rates(done)).size:
        rates.append(more)
        done += len(more)
        rule.see(done, chunk_at(moved_to(family, place_at(done)), np.zeros(len(more))))
    return done, np.concatenate(rates)


@in_float64
def test_what_stands_still_ends_after_the_shortest_window_and_a_fall(normals):
    family, _ = begin(normals)
    rule = made_up(family, lambda place: -(place**2))
    done, rates = run(rule, family, lambda done: 0.0)
    assert (done, rule.ended) == (300, Ending.settled)
    np.testing.assert_allclose(rates[[0, 50, 100, 199]], [0.01, 0.055, 0.1, 0.1])
    assert (np.diff(rates[200:]) < 0).all()
    assert rates[-1] < 0.02 * rates[200]


@in_float64
def test_what_still_gains_goes_on_until_the_guard_and_says_so(normals):
    family, _ = begin(normals)
    rule = made_up(family, lambda place: place, most_steps=3000)
    done, _ = run(rule, family, lambda done: 0.01 * done)
    assert (done, rule.ended) == (3000, Ending.spent)


@in_float64
def test_an_approach_of_one_over_t_ends_within_the_tolerance_and_three_times_the_steps_needed(normals):
    family, _ = begin(normals)
    for distance in (300.0, 1000.0, 3000.0):  # nats after one step; after so many steps 1 nat is left
        rule = made_up(family, lambda place: 1e4 * place)
        done, _ = run(rule, family, lambda done, far=distance: -1e-4 * far / done)
        last = moved_to(family, -1e-4 * distance / done)
        left = -1e4 * float(rule.result(last).inference.nu.loc[0, 0])
        assert left < tolerance(0.0, family.dim)
        assert done <= 3 * distance


@in_float64
def test_a_fall_that_gains_is_followed_by_a_stage_at_a_third_of_the_rate(normals):
    family, _ = begin(normals)
    rule = made_up(family, lambda place: place)
    done, rates = run(rule, family, lambda done: 0.0 if done <= 250 else 10.0)
    assert (done, rule.ended) == (600, Ending.settled)
    np.testing.assert_allclose(rates[300:500], 0.1 / 3)


@in_float64
@pytest.mark.parametrize(
    ("gain", "steps"), [(-1.0, 300), (0.0, 300), (0.1, FEWEST_CURVED + FEWEST_CURVED // 2)]
)
def test_curves_have_a_minimum_of_steps_if_they_gain(normals, gain, steps):
    family = replace(begin(normals)[0], curve=jnp.zeros((1, 1)))
    rule = made_up(family, lambda place: place)
    done, _ = run(rule, family, lambda done: gain)
    assert (done, rule.ended) == (steps, Ending.settled)


@in_float64
def test_without_a_measure_the_noise_is_that_of_the_trace(normals):
    family, _ = begin(normals)

    def steps_of(rise):
        rng, done = np.random.default_rng(4), 0
        rule = StoppingRule(family, None, 0.1, most_steps=1500)
        while rule.rates(done).size:
            done += USUAL.chunk
            elbo = rise * done + 50 * rng.normal(size=USUAL.chunk)
            rule.see(done, chunk_at(family, elbo))
        return done, rule.ended

    assert steps_of(0.0) == (600, Ending.settled)
    assert steps_of(1.0) == (1500, Ending.spent)


def test_the_tolerance_is_a_nat_or_a_thousandth_of_what_is_smaller():
    assert tolerance(-20.0, 1_000_000) == 1
    assert tolerance(-5e6, 100) == 1
    assert tolerance(-5e6, 20_000) == 20
    assert tolerance(3000.0, 20_000) == 3


# --- whole runs -----------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("name", ["fvi", "fvi:full-rank"])
def test_a_normal_is_fitted_to_its_known_optimum_in_few_steps(normals, name):
    family, inputs = begin(normals, name)
    with register(normals) as slot:
        family, trace = train(family, inputs, slot.index, BY_RULE, jax.random.key(3))
        found = evaluate(family, inputs, slot.index, jax.random.key(4), 1000)
    assert trace.ended is Ending.settled
    assert len(trace.elbo) <= 750
    assert judge(trace, found) is FitOutcome.settled
    np.testing.assert_allclose(found.elbo, np.log(SD).sum() + 1.5 * np.log(2 * np.pi), atol=0.01)


class Stop(Exception):
    """In place of a kill."""


@in_float64
@pytest.mark.parametrize(
    ("name", "stop_after", "options"),
    [
        ("fvi", 175, BY_RULE),
        ("fvi", 300, BY_RULE),
        ("avi:mlp(8)", 275, BY_RULE),
        ("fvi", 60, with_unit_steps(BY_RULE, 3)),
        ("constant", 110, with_unit_steps(BY_RULE, 3)),
    ],
)
def test_an_interrupted_run_ends_with_the_same_bytes(normals, tmp_path, name, stop_after, options):
    def trained(chain=None, stop_after=None):
        def progress(done, total, elbo):
            if done == stop_after:
                raise Stop

        family, inputs = begin(normals, name)
        with register(normals) as slot:
            family, trace = train(family, inputs, slot.index, options, jax.random.key(3), progress, chain)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(family, eqx.is_array))]
        return [leaf.tobytes() for leaf in (*leaves, trace.elbo, trace.chunk_steps)], len(trace.elbo)

    whole, steps = trained()
    assert steps >= stop_after
    with Checkpoint(tmp_path, {"program": "p"}, seconds=0) as checkpoint, pytest.raises(Stop):
        trained(checkpoint.chain(), stop_after)
    with Checkpoint(tmp_path, {"program": "p"}, resume=True, seconds=0) as checkpoint:
        assert trained(checkpoint.chain()) == (whole, steps)


def test_a_number_of_steps_is_kept():
    plan = FixedBudget(70, 30, 0.02)
    sizes = [len(plan.rates(done)) for done in (0, 30, 60, 70)]
    assert sizes == [30, 30, 10, 0]
    assert FitOptions().steps is None
    assert make_options({"steps": 70}).training.steps == 70
