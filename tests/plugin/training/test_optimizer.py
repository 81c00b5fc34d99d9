"""The learning rule: plain Adam on tame gradients, unmoved by wild ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from avistan.family.functions import LocalNu, make_mlp
from avistan.training.optimizer import FINAL_RATE, NETWORK_RATE, learning_rates, learning_rule, relative_rates
from avistan.training.vectors import Layout

RATE = jnp.asarray(0.02)


@pytest.fixture(autouse=True)
def mixed_precisions():
    with jax.numpy_dtype_promotion("standard"):
        yield


@jax.jit
def step(gradient, state):
    return learning_rule().update(gradient, state, rate=RATE)


def test_on_gradients_that_never_jump_it_is_adam():
    rng = np.random.default_rng(1)
    gradients = [jnp.asarray(rng.uniform(0.5, 1.5, 6) * rng.choice([-1, 1], 6)) for _ in range(40)]
    ours, plain = learning_rule(), optax.scale_by_adam(b2=0.99)
    params = jnp.zeros(6)
    state, plain_state = ours.init(params), plain.init(params)
    for gradient in gradients:
        update, state = step(gradient, state)
        expected, plain_state = plain.update(gradient, plain_state)
        np.testing.assert_allclose(update, -RATE * np.clip(expected, -1, 1), rtol=1e-12)


@pytest.mark.parametrize("when", [0, 30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wild_and_nan_entries_neither_throw_the_parameters_nor_the_moments(when, dtype):
    rule, params = learning_rule(), jnp.zeros(4, dtype=dtype)
    rng = np.random.default_rng(2)
    calm, wild = rule.init(params), rule.init(params)
    for number in range(60):
        gradient = rng.normal(size=4).astype(dtype)
        update, calm = step(jnp.asarray(gradient), calm)
        if number == when:
            gradient[:3] = 1e-3 * np.finfo(dtype).max, -np.inf, np.nan
        moved, wild = step(jnp.asarray(gradient), wild)
        assert np.abs(np.asarray(moved)).max() <= 0.02 * (1 + 1e-6)
    np.testing.assert_array_equal(update[3], moved[3])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(wild))
    if when:  # the size of gradients was known by then
        assert (np.asarray(wild[0].nu) < 16 * np.asarray(calm[0].nu)).all()


def test_weights_of_networks_move_slower_than_free_parameters():
    start = LocalNu(*(jnp.zeros((size, 1)) for size in (1, 1, *(0 for _ in LocalNu._fields[2:]))))
    params = {"free": jnp.zeros(3), "network": make_mlp(np.random.default_rng(0), 2, 4, start)}
    shares, layout, rule = relative_rates(params), Layout.of(params), learning_rule()
    vector = jnp.ones(shares.shape)
    updates = layout.tree(np.asarray(rule.update(vector, rule.init(vector), rate=RATE * shares)[0]))
    network = updates["network"]
    for free in (updates["free"], network.start):
        np.testing.assert_allclose(free, -RATE, rtol=1e-6)
    for weights in jax.tree.leaves(eqx.filter((network.layers, network.linear), eqx.is_array)):
        np.testing.assert_allclose(weights, -NETWORK_RATE * RATE, rtol=1e-6)


def test_the_rate_warms_up_to_its_peak_and_falls_to_its_end():
    rates = learning_rates(0.02, 1000)
    assert rates[0] < 0.25 * rates.max()
    assert np.isclose(rates.max(), 0.02, rtol=1e-3)
    assert (np.diff(rates[100:]) <= 0).all()
    assert FINAL_RATE * 0.02 <= rates[-1] < 2 * FINAL_RATE * 0.02
