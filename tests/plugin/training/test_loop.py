"""The training loop: repeatable, the same on both backends, compiled once, and safe against rejected draws."""

from collections import OrderedDict
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avistan.density.backend import native_available
from avistan.density.slots import register
from avistan.family.family import Family
from avistan.family.method import parse_method
from avistan.start.preparation import prepare, start_family
from avistan.training import steps
from avistan.training.loop import TrainingOptions, train
from density_models import use_backend
from family_draws import drawn
from programs import NORMALS, REJECTS, bind
from stan_adapters.levels.levels import candidate_levels

OPTIONS = TrainingOptions(steps=60, draws_per_step=4, chunk=30)


def train_by(model, name, options=OPTIONS, seed=3, backend=None):
    """A method's family after a few steps, and its trace."""
    (level,) = candidate_levels(model.layout)
    family, inputs = start_family(
        prepare(model, level, seed=seed, num_references=6, max_rank=4), parse_method(name)
    )
    with register(model) as slot:
        if backend is None:
            return train(family, inputs, slot.index, options, jax.random.key(seed))
        with use_backend(backend):
            return train(family, inputs, slot.index, options, jax.random.key(seed))


def moved_leaves(family: Family) -> list[np.ndarray]:
    return [
        np.asarray(leaf)
        for leaf in jax.tree.leaves((family.globals, family.inference))
        if hasattr(leaf, "dtype")
    ]


METHODS = ["fvi", "avi:mlp(8)"]
RICH = [
    *METHODS,
    "fvi:full-rank:conditional(mean+scale)",
    "fvi:full-rank:conditional(mean+scale):flow",
    "fvi:conditional(curved)",
]


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(rejecting, name):
    first, trace = train_by(rejecting, name)
    again, trace_again = train_by(rejecting, name)
    other, _ = train_by(rejecting, name, seed=4)
    assert trace.elbo.tobytes() == trace_again.elbo.tobytes()
    for one, two in zip(moved_leaves(first), moved_leaves(again), strict=True):
        assert one.tobytes() == two.tobytes()
    assert any(
        not np.array_equal(a, b) for a, b in zip(moved_leaves(first), moved_leaves(other), strict=True)
    )


@pytest.mark.parametrize("name", RICH)
def test_the_compiled_handler_and_the_callback_train_to_the_same_numbers(rejecting, name):
    if not native_available():
        pytest.skip("the compiled handler is not built")
    native, trace = train_by(rejecting, name, backend="native")
    callback, trace_callback = train_by(rejecting, name, backend="callback")
    np.testing.assert_array_equal(trace.num_rejected, trace_callback.num_rejected)
    # Normals are in single precision, and so are rates and curves: eight more products for each latent.
    rtol = 1e-5 if "curved" in name else 2e-6
    np.testing.assert_allclose(trace.elbo, trace_callback.elbo, rtol=rtol)
    for one, two in zip(moved_leaves(native), moved_leaves(callback), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_rejected_draws_are_counted_and_never_poison_the_parameters(rejecting, name):
    family, trace = train_by(rejecting, name, replace(OPTIONS, learning_rate=0.1))
    assert trace.num_rejected.sum() > 0
    assert all(np.isfinite(leaf).all() for leaf in moved_leaves(family))
    assert np.nanmean(trace.elbo[-20:]) > np.nanmean(trace.elbo[:5]) - 1


def test_a_step_whose_draws_are_all_rejected_moves_no_parameter(rejecting):
    (level,) = candidate_levels(rejecting.layout)
    family, inputs = start_family(
        prepare(rejecting, level, seed=1, num_references=6, max_rank=4), parse_method("fvi")
    )
    lost = eqx.tree_at(lambda f: f.inference.nu.loc, family, jnp.full_like(family.inference.nu.loc, 1e3))
    with register(rejecting) as slot:
        after, trace = train(
            lost, inputs, slot.index, replace(OPTIONS, steps=10, chunk=10), jax.random.key(1)
        )
    assert (trace.num_rejected == OPTIONS.draws_per_step).all()
    assert np.isnan(trace.elbo).all()
    for one, two in zip(moved_leaves(after), moved_leaves(lost), strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_was_compiled_serves_other_chunks_seeds_and_numbers_of_units(monkeypatch):
    monkeypatch.setattr(steps, "_compiled", OrderedDict())
    for seed, number in enumerate([16, 15]):
        with bind(REJECTS, {"N": number, "y": np.linspace(-0.5, 0.5, number), "limit": 50.0}) as model:
            _, trace = train_by(model, "fvi", seed=seed)
        assert len(trace.chunk_steps) == 3
        assert len(steps._compiled) == 1


def test_progress_sees_every_chunk(rejecting):
    (level,) = candidate_levels(rejecting.layout)
    family, inputs = start_family(
        prepare(rejecting, level, seed=1, num_references=6, max_rank=4), parse_method("fvi")
    )
    seen = []
    with register(rejecting) as slot:
        _, trace = train(
            family,
            inputs,
            slot.index,
            replace(OPTIONS, steps=70),
            jax.random.key(1),
            lambda done, total, _: seen.append((done, total)),
        )
    assert seen == [(30, 70), (60, 70), (70, 70)]
    assert trace.chunk_steps.tolist() == [0, 30, 60, 70]
    assert trace.elbo.shape == trace.num_rejected.shape == (70,)
    assert (np.diff(trace.seconds) > 0).all()


def test_an_independent_normal_is_fitted_exactly():
    mean, sd = np.array([3.0, -20.0, 0.1]), np.array([0.01, 5.0, 1.0])
    with bind(NORMALS, {"D": 3, "mean": mean, "sd": sd}) as model:
        family, trace = train_by(model, "fvi", TrainingOptions(steps=1500))
        at_noise = np.asarray(
            drawn(family, jnp.stack([jnp.zeros(3), jnp.ones(3)]), jnp.zeros((3, 1), jnp.float32)).theta
        )
    np.testing.assert_allclose(at_noise[0], mean, atol=1e-4 * sd.max())
    np.testing.assert_allclose(at_noise[1] - at_noise[0], sd, rtol=1e-3)
    # Stan drops the constants of the density, so at the optimum the ELBO is the entropy's constant plus sum(log sd).
    np.testing.assert_allclose(trace.elbo[-1], np.log(sd).sum() + 1.5 * np.log(2 * np.pi), atol=1e-3)
