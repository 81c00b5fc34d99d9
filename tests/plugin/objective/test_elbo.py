"""Log weights made on the host: those of the compiled route, for every family that it serves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avistan.objective.elbo
import avistan.objective.host_draws
from avistan.density.common_numbers import fold, key_words
from avistan.density.log_density import densities, log_density, register
from avistan.family.family import trainable
from avistan.family.functions import AbstractInferenceFunction, LocalNu, Table
from avistan.family.globals import LevelGlobals
from avistan.family.method import parse_method
from avistan.fitting.family_selection import grown
from avistan.objective.elbo import Evaluation, _Batch, _weighed_by_xla, evaluate
from avistan.objective.host_draws import drawn_on_host
from avistan.objective.host_functions import hosted, unit_values
from avistan.start.preparation import prepare, start_family
from family_draws import drawn
from pairs import FAMILIES
from programs import bind
from stan_adapters.errors import BindingError
from stan_adapters.levels.levels import candidate_levels

# Two correlated latents a unit, and three globals.
PAIRS = """
data { int N; matrix[N, 2] y; vector[N] x; }
parameters { array[N] vector[2] z; vector[2] mu; real<lower=0> tau; }
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  for (n in 1:N) {
    z[n] ~ normal(mu, tau);
    y[n, 1] ~ normal(z[n, 1] + x[n] * z[n, 2], 0.5);
    y[n, 2] ~ normal(square(z[n, 1]) - z[n, 2], 1);
  }
}
"""
# Persons, and items with two latents each.
CROSSED = """
data { int<lower=0> P; int<lower=0> I; array[I, P] int<lower=0, upper=1> y; }
parameters { vector<lower=0>[I] a; real mu; vector[I] b; real<lower=0> tau; vector[P] theta; }
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  theta ~ std_normal();
  a ~ lognormal(0, 0.3);
  b ~ normal(mu, tau);
  for (i in 1:I) y[i] ~ bernoulli_logit(a[i] * (theta - b[i]));
}
"""
FUNCTIONS = ["avi:mlp(8)", "avi:polynomial(2)", "constant", "fvi"]
DRAWS = 20


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(3)
    data = {"N": 7, "y": rng.normal(size=(7, 2)), "x": rng.normal(size=7)}
    with bind(PAIRS, data) as model:
        yield model


def disturbed(family):
    """The family with all trainable numbers moved a little, so that none is special."""
    rng = np.random.default_rng(0)
    moved, fixed = eqx.partition(family, trainable(family))
    moved = jax.tree.map(lambda p: p + jnp.asarray(rng.normal(0, 0.2, p.shape), dtype=p.dtype), moved)
    return eqx.combine(moved, fixed)


def family_of(model, name, function="avi:mlp(8)"):
    level = max(candidate_levels(model.layout), key=lambda level: level.num_units)
    preparation = prepare(model, level, seed=1, num_references=6, max_rank=4)
    family, inputs = start_family(preparation, parse_method(function))
    return disturbed(grown(family, parse_method(function + name))), inputs


def with_tables(family, inputs):
    """The family with the functions' values in tables: networks, in single precision, differ in their last digits."""

    def table(function, inputs):
        return Table(LocalNu(*map(jnp.asarray, unit_values(function, np.asarray(inputs), slice(None)))))

    if isinstance(family.globals, LevelGlobals):
        own = table(family.globals.inference, family.globals.inputs)
        family = eqx.tree_at(lambda f: f.globals.inference, family, own)
    return eqx.tree_at(lambda f: f.inference, family, table(family.inference, inputs))


def by_xla(model, family, inputs, key, draws=DRAWS):
    """Log weights of the same normals through `Family.draw`."""
    batch = _Batch(fold(key_words(key), 0), 0, draws // 2, family.dim, keep=False)
    with register(model) as slot:
        return np.concatenate(list(_weighed_by_xla(family, inputs, slot.index, [batch])))


def on_host(model, family, inputs, key, draws=DRAWS):
    assert drawn_on_host(family)
    with register(model) as slot:
        return evaluate(family, inputs, slot.index, key, draws).log_weights


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_log_weights_are_those_of_the_compiled_route(pairs, function, name, key):
    family, inputs = family_of(pairs, name, function)
    expected = by_xla(pairs, with_tables(family, inputs), inputs, key)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(on_host(pairs, family, inputs, key), expected, rtol=1e-10)


@pytest.mark.parametrize(
    "name", ["", ":full:conditional(mean+scale):flow", ":full:full-rank:conditional(curved):flow"]
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_in_numpy_give_what_they_give_in_jax(pairs, function, name):
    family, inputs = family_of(pairs, name, function)
    found = unit_values(family.inference, np.asarray(inputs), slice(2, 6))
    eps = np.finfo(np.float32 if function.startswith("avi:mlp") else np.float64).eps
    for one, other in zip(found, family.inference(inputs), strict=True):
        expected = np.asarray(other)[:, 2:6]
        assert one.shape == expected.shape
        np.testing.assert_allclose(one, expected, atol=32 * eps * np.abs(expected).max(initial=1))


def test_a_function_that_numpy_does_not_know_is_refused(pairs):
    class Unknown(AbstractInferenceFunction):
        def __call__(self, inputs):
            raise AssertionError

    assert not hosted(Unknown())
    with pytest.raises(TypeError, match="Unknown"):
        unit_values(Unknown(), np.zeros((3, 1), dtype=np.float32), slice(None))


def test_log_weights_with_learned_directions(pairs, monkeypatch, key):
    import avistan.start.preparation

    monkeypatch.setattr(avistan.family.locals, "MAX_DIRECTIONS", 2)
    family, inputs = family_of(pairs, ":full:conditional(mean+scale)")
    assert family.directions.shape == (2, 3)
    found = on_host(pairs, family, inputs, key)
    expected = by_xla(pairs, with_tables(family, inputs), inputs, key)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("name", [":levels", ":levels:conditional", ":levels:conditional(mean+scale):flow"])
def test_log_weights_of_two_amortized_levels(name, key):
    rng = np.random.default_rng(4)
    data = {"P": 9, "I": 6, "y": rng.integers(0, 2, size=(6, 9))}
    with bind(CROSSED, data) as model:
        levels = {level.num_units: level for level in candidate_levels(model.layout)}
        preparation = prepare(model, levels[9], seed=1, num_references=6, max_rank=3, others=(levels[6],))
        family, inputs = start_family(preparation, parse_method(f"avi:mlp(6){name}"))
        family = disturbed(family)
        assert isinstance(family.globals, LevelGlobals)
        found = on_host(model, family, inputs, key)
        expected = by_xla(model, with_tables(family, inputs), inputs, key)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "name", [":full:full-rank:conditional", ":full:conditional(mean+scale):flow", ":conditional(curved)"]
)
@pytest.mark.parametrize("function", ["avi:mlp(8)", "fvi"])
def test_few_units_and_few_draws_at_a_time_change_nothing(pairs, function, name, monkeypatch, key):
    family, inputs = family_of(pairs, name, function)
    monkeypatch.setattr(avistan.objective.elbo, "_NUMBERS_AT_ONCE", 4 * family.dim)  # 2 pairs to a key
    whole = on_host(pairs, family, inputs, key)
    monkeypatch.setattr(avistan.objective.elbo, "_KEPT", 0)
    monkeypatch.setattr(avistan.objective.elbo, "_POINTS_AT_ONCE", 1)
    monkeypatch.setattr(avistan.objective.elbo, "_UNITS_AT_ONCE", 3)
    monkeypatch.setattr(avistan.objective.elbo, "_DEVIATIONS_AT_ONCE", 4 * family.dim)
    monkeypatch.setattr(avistan.objective.host_draws, "_NUMBERS_AT_ONCE", 100)
    in_parts = on_host(pairs, family, inputs, key)
    assert len(whole) == DRAWS
    np.testing.assert_allclose(in_parts, whole, rtol=1e-10 if function == "fvi" else 1e-6)


@pytest.mark.parametrize("pairs_of_a_key", [None, 3, 40])
@pytest.mark.parametrize("name", [":full:conditional(mean+scale):flow", ":low-rank"])
def test_more_draws_go_on_from_fewer(pairs, name, pairs_of_a_key, monkeypatch, key):
    family, inputs = family_of(pairs, name, "fvi")
    if pairs_of_a_key is not None:
        monkeypatch.setattr(avistan.objective.elbo, "_NUMBERS_AT_ONCE", 2 * pairs_of_a_key * family.dim)
    with register(pairs) as slot:
        few = evaluate(family, inputs, slot.index, key, 20)
        whole = evaluate(family, inputs, slot.index, key, 100)
        np.testing.assert_allclose(few.log_weights, whole.log_weights[:20], rtol=1e-10)
        marked = Evaluation(few.log_weights + 1.0)
        more = evaluate(family, inputs, slot.index, key, 100, known=marked)
        fewer = evaluate(family, inputs, slot.index, key, 10, known=marked)
        again = evaluate(family, inputs, slot.index, key, 100, known=more)
    np.testing.assert_array_equal(more.log_weights[:20], marked.log_weights)  # not made again
    np.testing.assert_allclose(more.log_weights[20:], whole.log_weights[20:], rtol=1e-10)
    np.testing.assert_array_equal(fewer.log_weights, marked.log_weights[:10])
    np.testing.assert_array_equal(again.log_weights, more.log_weights)


@pytest.mark.parametrize("name", ["", ":conditional(mean+scale)", ":conditional(curved)", ":flow"])
def test_both_draws_of_a_pair_are_normals_and_their_negatives(pairs, name, key):
    family, inputs = family_of(pairs, name, "fvi")
    one, two = on_host(pairs, family, inputs, key).reshape(-1, 2).T
    assert np.abs(one - two).min() > 1e-6
    batch = _Batch(fold(key_words(key), 0), 0, DRAWS // 2, family.dim, keep=False)
    draws = drawn(family, jnp.stack([batch.whole()[0], -batch.whole()[0]]), inputs)
    lp, _ = pairs.log_density_gradient(np.asarray(draws.theta))
    np.testing.assert_allclose(lp - np.asarray(draws.log_q), [one[0], two[0]], rtol=1e-10)


def test_rejected_draws_are_minus_infinity(rejecting, key):
    level = max(candidate_levels(rejecting.layout), key=lambda level: level.num_units)
    preparation = prepare(rejecting, level, seed=1, num_references=6, max_rank=2)
    family, inputs = start_family(preparation, parse_method("fvi"))
    found = on_host(rejecting, disturbed(family), inputs, key, 400)
    expected = by_xla(rejecting, disturbed(family), inputs, key, 400)
    assert 0 < Evaluation(found).rejected_share < 1
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_families_that_are_not_covered_keep_the_compiled_route(pairs, key):
    family, inputs = family_of(pairs, ":low-rank(2)")
    assert not drawn_on_host(family)
    with register(pairs) as slot:
        found = evaluate(family, inputs, slot.index, key, DRAWS).log_weights
    np.testing.assert_array_equal(found, by_xla(pairs, family, inputs, key))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_densities_on_the_host_are_those_of_the_operation(pairs, threads, key):
    theta = np.asarray(jax.random.normal(key, (7, pairs.dim)))
    with register(pairs, threads=threads) as slot:
        expected, _ = log_density(slot, jnp.asarray(theta))
        np.testing.assert_array_equal(densities(slot.index, theta), expected)
        assert densities(slot.index, theta[:0]).shape == (0,)
        with pytest.raises(BindingError, match="coordinates"):
            densities(slot.index, theta[:, :-1])
    with pytest.raises(BindingError, match="closed"):
        densities(slot.index, theta)
