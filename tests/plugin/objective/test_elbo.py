"""Log weights and ELBOs: closed forms, draws that do not depend on how many are asked for, shared normals."""

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.stats import norm

import avistan.objective.elbo
from avistan.density.slots import register
from avistan.family.family import Family, mean_field_family
from avistan.family.functions import LocalNu, Refined, Table
from avistan.family.globals import start_globals
from avistan.family.locals import LocalGaussian
from avistan.family.method import parse_method
from avistan.family.placement import make_frame, make_placement
from avistan.objective.elbo import (
    Evaluation,
    block_normals,
    block_size,
    draw_block,
    evaluate,
    gap,
    unit_parameters,
)
from avistan.runtime.device import on_device, zeros
from avistan.start.preparation import prepare, start_family
from pairs import FAMILIES, PAIRS, disturbed, family_of
from programs import bind, bundled, simulator
from stan_adapters.levels.levels import candidate_levels

FUNCTIONS = ["avi:mlp(8)", "avi:polynomial(2)", "constant", "fvi"]
DRAWS = 20


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(3)
    data = {"N": 7, "y": rng.normal(size=(7, 2)), "x": rng.normal(size=7)}
    with bind(PAIRS, data) as model:
        yield model


def weighed(model, family, inputs, key, draws=DRAWS, *, threads=None, **more):
    with register(model, threads=threads) as slot:
        return evaluate(family, inputs, slot.index, key, draws, **more).log_weights


@pytest.fixture(scope="module", params=[9, 3000])
def linear(request):
    """The linear model, its data, and positions of the units' latents."""
    data = simulator("linear")(N=request.param)
    with bundled("linear", data).bound as model:
        yield model, data, 1 + np.arange(data["N"])[:, None]


def exact_posterior(data, index, answers):
    """The linear model's posterior as a family: units follow the one global."""
    a, b, units = data["tau"] ** -2, data["sigma"] ** -2, data["N"]
    mean, sd = answers["posterior_mean"](data), answers["posterior_sd"](data)
    unit_sd = (a + b) ** -0.5
    nothing, slope = zeros(0, units), a / (a + b) * sd[0] / unit_sd
    nu = LocalNu(
        zeros(1, units), zeros(1, units), nothing, on_device(np.full((1, units), slope)), *[nothing] * 3
    )
    frame = make_frame(mean[:1], sd[:1], mean[None, 1:], np.full((1, units), unit_sd))
    local, place = LocalGaussian("diagonal", 1, "mean", 1), make_placement(np.zeros(1, dtype=int), index)
    return Family(start_globals("mean-field", 1), Table(nu), local, frame, place, None)


def test_log_weights_of_the_exact_posterior_are_all_the_log_evidence(linear, linear_answers, key):
    model, data, index = linear
    found = weighed(model, exact_posterior(data, index, linear_answers), zeros(data["N"], 0), key)
    np.testing.assert_allclose(found, linear_answers["log_evidence"](data), rtol=1e-11)
    assert Evaluation(np.repeat(found, 20)).khat == -np.inf


def test_elbo_and_gap_of_a_mean_field_are_those_of_its_closed_form(linear, linear_answers, key):
    model, data, index = linear
    inputs, optimum = zeros(data["N"], 0), linear_answers["mean_field_optimum"](data)
    family = mean_field_family(optimum.mean, optimum.sd, index)
    found = Evaluation(weighed(model, family, inputs, key, 1000))
    exact = Evaluation(
        weighed(model, exact_posterior(data, index, linear_answers), inputs, key, len(found.log_weights))
    )
    assert abs(found.elbo - optimum.elbo) < 5 * found.elbo_se
    short, error = gap(found, exact)
    assert abs(short - (linear_answers["log_evidence"](data) - optimum.elbo)) < 5 * error
    assert 0 < error < 0.2  # nats


def test_standard_errors_are_what_elbos_of_other_keys_scatter_by(pairs, key):
    family, inputs = family_of(pairs, "", "fvi", size=0.0)
    found = [Evaluation(weighed(pairs, family, inputs, jax.random.fold_in(key, n), 100)) for n in range(60)]
    spread = np.std([one.elbo for one in found], ddof=1)
    told = np.sqrt(np.mean([one.elbo_se**2 for one in found]))
    assert abs(np.log(spread / told)) < 4 / np.sqrt(2 * 59)  # of a standard deviation from 60 values


@pytest.mark.parametrize("name", FAMILIES)
def test_log_weights_are_those_of_draws_and_of_their_mirror_images(pairs, name, key):
    family, inputs = family_of(pairs, name, "fvi")
    found = weighed(pairs, family, inputs, key).reshape(-1, 2)
    noise = block_normals(family, key, 0, block_size(family.dim))
    for number, sign in enumerate((1, -1)):
        draws = family.draw(noise._replace(t=sign * noise.t, e=sign * noise.e), inputs)
        lp, _ = pairs.log_density_gradient(np.asarray(family.points(draws)))
        expected = (lp - np.asarray(draws.log_q))[: len(found)]
        np.testing.assert_allclose(found[:, number], expected, rtol=1e-10, atol=1e-10)
    assert np.abs(found[:, 0] - found[:, 1]).min() > 1e-6


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("avi:mlp(8)", ":full:full-rank:conditional"),
        ("avi:polynomial(2)", ""),
        ("constant", ":full"),
        ("fvi", ":low-rank"),
    ],
)
def test_densities_of_gaussian_families_are_those_of_their_moments(pairs, function, name, key):
    """q is jointly Gaussian: its covariance comes from the draws, which are a linear map of normals."""
    family, inputs = family_of(pairs, name, function)
    table = Table(unit_parameters(family.inference, inputs))  # a network rounds otherwise in another program
    family = eqx.tree_at(lambda f: f.inference, family, table)
    noise = block_normals(family, key, 0, family.dim + 1)
    t, e = family.split(on_device(np.vstack([np.zeros(family.dim), np.eye(family.dim)])))
    mean, *ends = np.asarray(family.points(family.draw(noise._replace(t=t, e=e), inputs)))
    factor = np.array(ends) - mean
    theta, log_q = draw_block(family, inputs, key, 0, 50)
    standard = np.linalg.solve(factor.T, (np.asarray(theta) - mean).T).T
    expected = norm.logpdf(standard).sum(axis=1) - np.linalg.slogdet(factor)[1]
    np.testing.assert_allclose(log_q, expected, rtol=1e-9, atol=1e-9)
    assert log_q.dtype == theta.dtype == np.float64


@pytest.mark.parametrize("name", [":full:conditional(mean+scale):flow", ":low-rank"])
@pytest.mark.parametrize("together", [None, 6])
def test_more_draws_go_on_from_fewer(pairs, name, together, monkeypatch, key):
    family, inputs = family_of(pairs, name, "fvi")
    if together is not None:
        monkeypatch.setattr(avistan.objective.elbo, "_MOST_DRAWS", together)
    few, whole = (weighed(pairs, family, inputs, key, draws) for draws in (20, 110))
    np.testing.assert_array_equal(few, whole[:20])
    marked = Evaluation(few + 1.0)
    more = weighed(pairs, family, inputs, key, 110, known=marked)
    np.testing.assert_array_equal(more[:20], marked.log_weights)  # not made again
    np.testing.assert_array_equal(more[20:], whole[20:])
    np.testing.assert_array_equal(
        weighed(pairs, family, inputs, key, 10, known=marked), marked.log_weights[:10]
    )
    np.testing.assert_array_equal(weighed(pairs, family, inputs, key, 110, known=Evaluation(more)), more)


def test_threads_and_repeats_change_no_digit(pairs, key):
    family, inputs = family_of(pairs, ":full", "avi:mlp(8)")
    first, *others = (weighed(pairs, family, inputs, key, 200, threads=threads) for threads in (1, 3, 3))
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_few_and_many_draws_share_one_compiled_program(pairs, key):
    family, inputs = family_of(pairs, ":full:flow", "avi:mlp(8)")
    compiled = avistan.objective.elbo._log_weights
    before = compiled._cache_size()
    for draws in (2, 30, 100, 250):
        weighed(pairs, disturbed(family, seed=draws), inputs, key, draws)
    assert compiled._cache_size() == before + 1


@pytest.mark.parametrize("function", FUNCTIONS)
def test_units_whose_parameters_are_made_some_at_a_time_have_the_same(pairs, function, monkeypatch, key):
    family, inputs = family_of(pairs, ":full:conditional(mean+scale):flow", function)
    expected, nu = weighed(pairs, family, inputs, key), family.inference(inputs)
    refined = Refined(
        family.inference, on_device(np.array([1, 4])), LocalNu(*(part[:, [0, 2]] for part in nu))
    )
    of_refined = refined(inputs)
    monkeypatch.setattr(avistan.objective.elbo, "_UNITS_AT_ONCE", 3)
    np.testing.assert_allclose(weighed(pairs, family, inputs, key), expected, rtol=1e-5)
    for one, other in zip(unit_parameters(refined, inputs), of_refined, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    moved = eqx.tree_at(lambda f: f.inference, family, refined)
    assert weighed(pairs, moved, inputs, key).shape == (DRAWS,)


def test_methods_of_one_seed_share_the_normals_of_each_unit(pairs, key):
    one, _ = family_of(pairs, ":full-rank", "fvi")
    other, _ = family_of(pairs, ":full:conditional(curved):flow", "avi:mlp(8)")
    number = 3
    first, second = (block_normals(family, key, number, 8) for family in (one, other))
    np.testing.assert_array_equal(first.t, second.t)
    np.testing.assert_array_equal(first.e, second.e)
    values = np.concatenate([np.asarray(first.t).ravel(), np.asarray(first.e).ravel()])
    assert len(np.unique(values)) == 8 * pairs.dim
    another = block_normals(one, key, 4, 8)
    assert not np.isin(np.asarray(another.e), values).any()


def test_a_family_without_units_is_weighed(linear, linear_answers, key):
    model, data, _ = linear
    optimum = linear_answers["mean_field_optimum"](data)
    found = Evaluation(weighed(model, mean_field_family(optimum.mean, optimum.sd), zeros(0, 0), key, 400))
    assert abs(found.elbo - optimum.elbo) < 5 * found.elbo_se


def test_rejected_draws_are_minus_infinity(rejecting, key):
    level = max(candidate_levels(rejecting.layout), key=lambda level: level.num_units)
    preparation = prepare(rejecting, level, seed=1, num_references=6, max_rank=2)
    family, inputs = start_family(preparation, parse_method("fvi"))
    found = Evaluation(weighed(rejecting, disturbed(family), inputs, key, 400))
    assert 0 < found.rejected_share < 1
    assert np.isfinite(found.elbo)
    assert (found.log_weights[~found.accepted] == -np.inf).all()


def test_very_many_parameters_are_drawn_less_often(monkeypatch, pairs, key):
    family, inputs = family_of(pairs, "", "fvi")
    monkeypatch.setattr(avistan.objective.elbo, "_NUMBERS_IN_ALL", 40 * family.dim)
    monkeypatch.setattr(avistan.objective.elbo, "_NUMBERS_AT_ONCE", 8 * family.dim)
    assert weighed(pairs, family, inputs, key, 1000).shape == (40,)
    monkeypatch.setattr(avistan.objective.elbo, "_NUMBERS_IN_ALL", 1)
    assert weighed(pairs, family, inputs, key, 1000).shape == (20,)
    assert block_size(10**7) == 1
