"""One step's ELBO and gradient: the compiled handler against numpy, and both against automatic differentiation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avistan.density.log_density import (
    log_density,
    native_available,
    register,
    set_layout,
    use_backend,
)
from avistan.density.native import normals as native_normals
from avistan.density.step_normals import normals
from avistan.family.family import trainable
from avistan.objective.gradient import neg_elbo
from avistan.objective.step import (
    Batch,
    elbo_estimate,
    form_of,
    frame_of,
    numpy_elbo_gradient,
    parts_of,
)
from pairs import FAMILIES, PAIRS, family_of
from programs import bind
from stan_adapters.errors import BindingError

needs_handler = pytest.mark.skipif(not native_available(), reason="the compiled handler is not built")

DRAWS = 5


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(3)
    data = {"N": 7, "y": rng.normal(size=(7, 2)), "x": rng.normal(size=7)}
    with bind(PAIRS, data) as model:
        yield model


def noise_of(family, key, draws):
    """The step's normals (S, D) in Stan's order."""
    d, units = family.local.block, family.placement.local_index.shape[0]
    rows = []
    for s in range(draws):
        t = normals(*key, s * (d + 1), family.globals.size)
        e = np.array([normals(*key, s * (d + 1) + 1 + i, units) for i in range(d)])
        rows.append(family.placement(jnp.asarray(t), jnp.asarray(e)))
    return jnp.stack(rows)


def by_automatic_differentiation(model, family, inputs, key, draws=DRAWS):
    moved, fixed = eqx.partition(family, trainable(family))
    noise = noise_of(family, key, draws)
    with register(model) as slot:

        def loss(moved):
            q = eqx.combine(moved, fixed)
            return neg_elbo(q, lambda theta: log_density(slot, theta), noise, inputs, "path")

        gradient, info = jax.grad(loss, has_aux=True)(moved)
        return float(info.elbo), jax.tree.map(lambda g: -g, gradient)


def by_the_operation(model, family, inputs, key, how, draws=DRAWS):
    moved, fixed = eqx.partition(family, trainable(family))
    form, place = form_of(family), family.placement
    with register(model) as slot, use_backend(how):
        set_layout(slot.index, np.asarray(place.global_index), np.asarray(place.local_index).T)
        batch = Batch(jnp.array([slot.index]), jnp.ones(1))

        def value(moved):
            q = eqx.combine(moved, fixed)
            state = jnp.asarray(key, dtype=jnp.uint64)
            return elbo_estimate(how, form, draws, batch, state, frame_of(q), parts_of(q, inputs))

        (elbo, rejected), pull = jax.vjp(value, moved)
        (gradient,) = pull((jnp.ones(()), np.zeros((), dtype=jax.dtypes.float0)))
        assert rejected == 0
        return float(elbo), jax.block_until_ready(gradient)


@pytest.mark.parametrize("how", [pytest.param("native", marks=needs_handler), "callback"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_is_that_of_automatic_differentiation(pairs, name, how):
    family, inputs = family_of(pairs, name)
    expected, gradient = by_automatic_differentiation(pairs, family, inputs, (11, 4))
    elbo, found = by_the_operation(pairs, family, inputs, (11, 4), how)
    assert elbo == pytest.approx(expected, rel=1e-6)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(gradient), strict=True):
        scale = max(1e-12, float(np.abs(other).max(initial=0)))
        np.testing.assert_allclose(one, other, atol=1e-5 * scale, rtol=1e-5)


@needs_handler
@pytest.mark.parametrize(
    "name",
    [
        "",
        ":full:full-rank:conditional",
        ":full:full-rank:conditional(mean+scale):flow",
        ":full:full-rank:conditional(curved):flow",
    ],
)
@pytest.mark.parametrize("draws", [1, 8])
def test_many_units_on_many_threads_give_the_numbers_of_numpy(name, draws):
    rng = np.random.default_rng(5)
    data = {"N": 3000, "y": rng.normal(size=(3000, 2)), "x": rng.normal(size=3000)}
    with bind(PAIRS, data) as model:
        family, inputs = family_of(model, name)
        one = by_the_operation(model, family, inputs, (2, 9), "native", draws)
        again = by_the_operation(model, family, inputs, (2, 9), "native", draws)
        other = by_the_operation(model, family, inputs, (2, 9), "callback", draws)
    assert one[0] == again[0]
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    for a, b, c in zip(*(jax.tree.leaves(found[1]) for found in (one, again, other)), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        np.testing.assert_allclose(a, c, atol=2e-5 * max(1e-12, float(np.abs(c).max(initial=0))), rtol=1e-4)


@pytest.mark.parametrize(
    "follows",
    ["conditional", "conditional(mean+scale)", "conditional(mean+scale):flow", "conditional(curved):flow"],
)
def test_many_globals_with_learned_directions(pairs, follows, monkeypatch):
    import avistan.start.preparation

    monkeypatch.setattr(avistan.start.preparation, "MAX_DIRECTIONS", 2)
    family, inputs = family_of(pairs, f":full:full-rank:{follows}")
    assert family.directions is not None
    expected, gradient = by_automatic_differentiation(pairs, family, inputs, (1, 2))
    for how in ["native", "callback"] if native_available() else ["callback"]:
        elbo, found = by_the_operation(pairs, family, inputs, (1, 2), how)
        assert elbo == pytest.approx(expected, rel=1e-6)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(
                one, other, atol=1e-5 * max(1e-12, float(np.abs(other).max(initial=0)))
            )


@needs_handler
@pytest.mark.parametrize("place", [(0, 0, 0), (2**64 - 3, 12345, 7)])
@pytest.mark.parametrize("count", [1, 31, 32, 1000])
def test_the_handlers_normals_are_those_of_numpy(place, count):
    np.testing.assert_allclose(native_normals(*place, count), normals(*place, count), atol=1e-6)


def test_normals_are_normal_and_streams_independent():
    count = 200_000
    streams = np.array([normals(7, step, stream, count) for step in range(2) for stream in range(3)])
    assert np.abs(streams.mean(axis=1)).max() < 4.5 / np.sqrt(count)
    assert np.abs(streams.var(axis=1) - 1).max() < 4.5 * np.sqrt(2 / count)
    assert np.abs((streams.astype(float) ** 4).mean(axis=1) - 3).max() < 4.5 * np.sqrt(96 / count)
    correlations = np.corrcoef(streams)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(count)
    lagged = [np.corrcoef(streams[0, :-lag], streams[0, lag:])[0, 1] for lag in (1, 15, 16, 17, 32)]
    assert np.abs(lagged).max() < 4.5 / np.sqrt(count)


def test_a_slot_without_a_layout_is_an_error(pairs):
    family, inputs = family_of(pairs, "")
    with register(pairs) as slot:
        batch = np.array([slot.index]), np.ones(1)
        parts, frame = parts_of(family, inputs), frame_of(family)
        with pytest.raises(BindingError, match="without a layout"):
            numpy_elbo_gradient(form_of(family), 1, *batch, (1, 1), frame, parts)
