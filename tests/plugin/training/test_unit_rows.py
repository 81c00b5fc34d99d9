"""Steps of units' own rows: Newton's on a normal, bounded elsewhere, and to the optimum of all other steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avistan.density.slots import register
from avistan.family.method import parse_method
from avistan.objective.elbo import evaluate
from avistan.runtime.precision import in_float64
from avistan.start.preparation import prepare, start_family
from avistan.training.loop import TrainingOptions, train, with_unit_steps
from avistan.training.unit_rows import has_rows, steps
from programs import bundled, simulator
from stan_adapters.levels.levels import candidate_levels

MEAN, SD = np.array([3.0, -20.0, 0.1, 1e4]), np.array([0.01, 5.0, 1.0, 800.0])  # of normals


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def exact_gradients(mean, log_sd):
    """Of the negative ELBO of N(mean, exp(log_sd)^2) against the normals above."""
    precision = 1 / SD**2
    return precision * (mean - MEAN), precision * jnp.exp(2 * log_sd) - 1


def moved(mean, log_sd, length, count):
    for _ in range(count):
        more = steps(*exact_gradients(mean, log_sd), log_sd, jnp.asarray(length))
        mean, log_sd = mean + more[0], log_sd + more[1]
    return np.asarray(mean), np.exp(np.asarray(log_sd))


@pytest.mark.parametrize("length", [1.0, 0.5])
def test_the_mean_and_sd_of_a_normal_are_reached_on_every_scale(length):
    near = (
        jnp.asarray(MEAN + SD * np.array([1.0, -1.0, 0.5, 1.5])),
        jnp.log(SD * np.array([1.6, 0.6, 1.0, 1.3])),
    )
    count = 1 if length == 1.0 else 40
    mean, sd = moved(*near, length, count)
    np.testing.assert_allclose(mean, MEAN, atol=1e-6 * SD.min())
    np.testing.assert_allclose(sd, SD, rtol=1e-6)


def test_a_far_away_start_is_left_by_bounded_steps():
    far = jnp.zeros(4), jnp.zeros(4)
    mean, sd = moved(*far, 1.0, 40)
    np.testing.assert_allclose((mean - MEAN) / SD, 0, atol=1e-6)
    np.testing.assert_allclose(sd, SD, rtol=1e-6)


def test_no_gradient_moves_a_row_by_more_than_two_sds_or_twice_its_sd_and_wild_ones_move_nothing():
    wild = jnp.array([1e300, -1e300, np.nan, np.inf, 1.0, 1.0])
    others = jnp.array([1e300, -1e300, 1.0, 1.0, np.nan, -np.inf])
    of_mean, of_log_sd = steps(wild, others, jnp.zeros(6), jnp.ones(()))
    assert (np.abs(of_mean) <= 2 * np.maximum(np.exp(of_log_sd), 1) * (1 + 1e-12)).all()
    assert (np.abs(of_log_sd) <= np.log(2) * (1 + 1e-12)).all()
    np.testing.assert_array_equal(of_mean[2:], 0)
    np.testing.assert_array_equal(of_log_sd[2:], 0)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("fvi", True),
        ("constant", True),
        ("avi:mlp(4)", False),
        ("fvi:full-rank", False),
        ("fvi:conditional", False),
        ("fvi:flow", False),
    ],
)
def test_rows_are_those_of_mean_field_normals(eight_schools, name, there):
    assert (
        has_rows(start_family(eight_schools.origin(method=name).preparation, parse_method(name))[0]) is there
    )


@pytest.mark.parametrize(
    ("name", "optimum"), [("fvi", "mean_field_optimum"), ("constant", "constant_factor_optimum")]
)
def test_the_optimum_is_the_one_in_closed_form(linear_answers, name, optimum):
    data = simulator("linear")(N=1000)
    model = bundled("linear", data)
    exact = linear_answers[optimum](data)
    fit = model.fit(method=name, seed=1, steps=300)
    assert fit.elbo == pytest.approx(exact.elbo, abs=0.05 + 3 * fit.elbo_se)
    mean, sd = fit.marginals()
    assert np.sqrt(np.mean(((mean - exact.mean) / exact.sd)[1:] ** 2)) < 0.05
    np.testing.assert_allclose(sd, exact.sd, rtol=0.05)


@in_float64
@pytest.mark.parametrize("name", ["lsat_2pl", "random_slopes"])
def test_it_is_the_optimum_of_adam_too(name):
    model = bundled(name)
    preparation = model.origin(method="fvi").preparation
    assert preparation.separable
    family, inputs = start_family(preparation, parse_method("fvi"))
    options = TrainingOptions(steps=1500)
    with register(model.bound) as slot:
        ends = [
            train(family, inputs, slot.index, each, jax.random.key(3))[0]
            for each in (options, with_unit_steps(TrainingOptions(steps=500), family.num_units))
        ]
        adam, own = (evaluate(end, inputs, slot.index, jax.random.key(4), 2000) for end in ends)
    assert own.elbo > adam.elbo - 0.5


def test_a_coupled_level_is_left_to_adam():
    model = bundled("state_space")
    assert not model.origin(method="fvi").preparation.separable
    (level, *_) = candidate_levels(model.bound.layout)
    assert not prepare(model.bound, level, seed=1, num_references=4, max_rank=2).separable


def test_few_draws_do_for_many_units_where_training_ends_by_itself():
    assert with_unit_steps(TrainingOptions(), 10_000).draws_per_step == 2
    assert with_unit_steps(TrainingOptions(), 100).draws_per_step == 8
    assert with_unit_steps(TrainingOptions(steps=10), 10_000).draws_per_step == 8
    assert with_unit_steps(TrainingOptions(steps=10, draws_per_step=3), 100).draws_per_step == 4


def test_the_same_seed_gives_the_same_bytes():
    one, other = (bundled("eight_schools").fit(method="fvi", seed=3) for _ in range(2))
    assert one.evaluation.log_weights.tobytes() == other.evaluation.log_weights.tobytes()
    assert one.trace.elbo.tobytes() == other.trace.elbo.tobytes()
