"""Conditional factors started from curvature: dense Hessians, closed forms, and what is left alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avistan as avi
import avistan.fitting.chains
from avistan.density.slots import register
from avistan.family.method import parse_method
from avistan.fitting.conditional_start import center_globals, start_conditional
from avistan.fitting.curvature import UnitPlaces, precision_without_units, read_curvature
from avistan.fitting.family_selection import grown
from avistan.fitting.shard_preparation import prepare_large
from avistan.objective.elbo import evaluate
from avistan.runtime.device import on_device
from programs import bundled, simulator
from stan_adapters.structure.structure import inspect_structure, with_unit_data

FOLLOWS = parse_method("avi:conditional")


def hessian(model, point, size=1e-4):
    """Of the log density, by differences of gradients, (D, D)."""
    moves = size * np.eye(model.dim)
    return (model.log_density_gradient(point + moves)[1] - model.log_density_gradient(point - moves)[1]) / (
        2 * size
    )


@pytest.mark.parametrize("name", ["linear", "random_slopes", "lsat_2pl"])
def test_curvature_is_what_a_dense_hessian_says(name):
    model = bundled(name)
    level, bound = model.inspect().level, model.bound
    rng = np.random.default_rng(1)
    point = 0.3 * rng.normal(size=bound.dim)
    at, index = level.globals_index(bound.dim), level.index
    sd = np.linspace(1e-3, 2e-3, len(at))
    narrow = np.broadcast_to(1e-4 * np.eye(level.block), (len(index), level.block, level.block))
    units = UnitPlaces(model=bound, index=index, globals_index=at, mean=point[index], factor=narrow)

    found = read_curvature(units, point[at], sd, rng, pairs=1)

    dense = hessian(bound, point)
    for n in range(0, len(index), 37):
        own, cross = dense[np.ix_(index[n], index[n])], dense[np.ix_(index[n], at)]
        np.testing.assert_allclose(found.slopes[n], -np.linalg.solve(own, cross) * sd, rtol=1e-3, atol=1e-7)
    flat = index.ravel()
    inner = dense[np.ix_(at, flat)] @ np.linalg.solve(dense[np.ix_(flat, flat)], dense[np.ix_(flat, at)])
    expected = -np.outer(sd, sd) * (dense[np.ix_(at, at)] - inner)
    np.testing.assert_allclose(found.precision, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert found.gradient_evaluations == 4 * (len(at) + level.block)


def test_a_unit_that_is_not_concave_keeps_its_own_precision():
    class Saddle:
        dim = 3  # a global, and two units: u_1 = -z^2 / 2 + t z, u_2 = +z^2 / 2 + t z

        def log_density_gradient(self, theta):
            t, z = theta[:, 0], theta[:, 1:]
            curved = np.array([-1.0, 1.0])
            slopes = np.column_stack([z.sum(axis=1) - 10 * t, curved * z + t[:, None]])
            return (0.5 * curved * z**2).sum(axis=1) + t * z.sum(axis=1) - 5 * t**2, slopes

        def why_rejected(self, theta):
            return ""

    factor = np.array([[[1.0]], [[0.5]]])
    units = UnitPlaces(
        model=Saddle(),
        index=np.array([[1], [2]]),
        globals_index=np.array([0]),
        mean=np.zeros((2, 1)),
        factor=factor,
    )
    found = read_curvature(units, np.zeros(1), np.ones(1), np.random.default_rng(0), pairs=2)
    np.testing.assert_allclose(found.slopes[:, 0, 0], [1.0, 0.25])  # 1 / 1, and 1 over the precision 4 of q
    np.testing.assert_allclose(found.precision, [[10 - 1.0 - 0.25]])


def test_a_rejected_point_gives_no_curvature():
    def rejecting(theta):
        return np.full(len(theta), -np.inf), np.zeros_like(theta)

    assert precision_without_units(rejecting, np.zeros(2), np.ones(2)) is None


@pytest.fixture(scope="module")
def many():
    """The linear model on minibatches: its data, preparation, and a family that is trained a little."""
    data = simulator("linear")(N=6000)
    with bundled("linear", data).bound as model:
        structure = with_unit_data(model, inspect_structure(model))
        given = {"seed": 1, "num_references": 8, "max_rank": 6, "size": 500}
        yield data, prepare_large(model, structure.level, structure.slicing, **given)


def family_and_inputs(prepared, method):
    large = prepared.minibatches
    family, _ = large.start_family(method)
    return family, np.asarray(prepared.unit_input(method)[1], dtype=np.float32)


def test_on_a_linear_model_the_family_that_follows_is_the_posterior(many, linear_answers):
    data, prepared = many
    before, inputs = family_and_inputs(prepared, parse_method("avi"))
    large = prepared.minibatches

    family, gradients = start_conditional(prepared, before, FOLLOWS, inputs)

    exact_mean, exact_sd = (linear_answers[f"posterior_{part}"](data)[0] for part in ("mean", "sd"))
    frame, factor = family.frame, family.globals
    mean = float(frame.global_center[0] + frame.global_scale[0] * factor.loc[0])
    sd = float(frame.global_scale[0] * np.exp(factor.log_sd[0]))
    assert abs(sd / exact_sd - 1) < 0.01
    assert abs(mean - exact_mean) < 0.1 * exact_sd
    reading = 8 * 4 * 2 * 2 * (1 + 1)  # shards, pairs, draws, both ways, directions
    # 16 pairs a step; of a Gaussian the first one is exact, and a second one shows that where the first was long.
    assert gradients in (reading + 32, reading + 64)
    with register(large.maker.model) as slot:
        key = jax.random.key(3)
        ours = evaluate(large.whole_family(family), on_device(inputs), slot.index, key, 200)
        not_yet = evaluate(
            large.whole_family(grown(before, FOLLOWS)), on_device(inputs), slot.index, key, 200
        )
    assert ours.elbo > not_yet.elbo + 0.5
    assert ours.elbo <= linear_answers["log_evidence"](data) + 3 * ours.elbo_se


def test_globals_that_noise_has_moved_are_settled(many, linear_answers):
    data, prepared = many
    before, inputs = family_and_inputs(prepared, parse_method("avi"))
    family, _ = start_conditional(prepared, before, FOLLOWS, inputs)
    astray = eqx.tree_at(
        lambda f: (f.globals.loc, f.globals.log_sd, f.inference),
        family,
        (
            family.globals.loc + 4 * jnp.exp(family.globals.log_sd),
            family.globals.log_sd + 0.5,
            family.inference.moved_along(np.array([-2.0])),
        ),
    )

    found, gradients = center_globals(prepared, astray, FOLLOWS, inputs)

    exact_mean, exact_sd = (linear_answers[f"posterior_{part}"](data)[0] for part in ("mean", "sd"))

    def place(family):
        frame, factor = family.frame, family.globals
        mean = float(frame.global_center[0] + frame.global_scale[0] * factor.loc[0])
        return mean, float(frame.global_scale[0] * np.exp(factor.log_sd[0]))

    assert abs(place(astray)[0] - exact_mean) > 3 * exact_sd
    assert abs(place(found)[0] - exact_mean) < 0.1 * exact_sd
    assert abs(place(found)[1] / exact_sd - 1) < 0.01
    assert gradients > 0
    assert center_globals(prepared, before, FOLLOWS, inputs) is None  # it does not follow


@pytest.mark.parametrize("name", ["avi:polynomial(2)", "avi:conditional"])
def test_what_is_no_network_or_follows_already_is_left_to_training(many, name):
    _, prepared = many
    before, inputs = family_and_inputs(prepared, parse_method(name))
    assert start_conditional(prepared, before, FOLLOWS, inputs) is None


@pytest.mark.slow
def test_a_fit_of_many_units_knows_its_globals(linear_answers):
    """The mean field's sd of the global is less than half of the posterior's, at any number of units."""
    data = simulator("linear")(N=20_000)
    fit = avi.Model(avi.models_root() / "linear" / "linear.stan", data=data).fit(seed=1)
    exact_mean, exact_sd = (linear_answers[f"posterior_{part}"](data)[0] for part in ("mean", "sd"))
    theta = fit.unconstrained_draws(4000)[0][:, 0]
    assert fit.method.conditional != "none"
    assert abs(np.std(theta) / exact_sd - 1) < 0.1
    assert abs(np.mean(theta) - exact_mean) < 0.5 * exact_sd


@pytest.mark.slow
def test_what_curvature_gets_wrong_is_trained(monkeypatch):
    """A family that loses is forgotten: the fit is the one that asked for no curvature."""
    folder, asked = avi.models_root() / "eight_schools", []
    model = avi.Model(folder / "eight_schools_centered.stan", data=folder / "data.json")

    def spoiled(*given):
        found = start_conditional(*given)
        if found is None:
            return None
        asked.append(found)
        wide = found[0].globals.log_sd + 3
        return eqx.tree_at(lambda f: f.globals.log_sd, found[0], wide), found[1]

    fits = []
    for instead in (spoiled, lambda *given: None):
        monkeypatch.setattr(avistan.fitting.chains, "start_conditional", instead)
        fits.append(model.fit(seed=1))
    assert asked
    assert fits[0].growth == fits[1].growth
    assert fits[0].growth[0].kept
    np.testing.assert_array_equal(fits[0].evaluation.log_weights, fits[1].evaluation.log_weights)


def test_what_curvature_gets_right_is_not_trained(monkeypatch):
    data = simulator("linear")(N=300)
    fit = avi.Model(avi.models_root() / "linear" / "linear.stan", data=data).fit(seed=1)
    assert fit.growth[0].kept
    assert fit.method.name == "avi:conditional"
    assert [len(trace.elbo) for trace in fit.chains[0].traces] == [len(fit.trace.elbo)]


@pytest.mark.slow
def test_a_polynomial_grows_on_minibatches_without_curvature():
    data = simulator("linear")(N=9000)
    model = avi.Model(avi.models_root() / "linear" / "linear.stan", data=data)
    fit = model.fit(method="avi:polynomial(2)", family="auto", seed=1)
    assert fit.growth[0].method == "avi:polynomial(2):conditional"
    assert fit.gradient_evaluations < 4 * len(fit.trace.elbo)  # a step sees one draw of a minibatch
