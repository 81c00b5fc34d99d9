"""The guarded Adam: plain Adam on tame gradients, unmoved by wild ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from avistan.training.optimizer import FINAL_RATE, NETWORK_RATE, guarded_adam, learning_rates


def test_on_gradients_that_never_jump_it_is_adam():
    rng = np.random.default_rng(1)
    gradients = [jnp.asarray(rng.uniform(0.5, 1.5, 6) * rng.choice([-1, 1], 6)) for _ in range(40)]
    ours, plain = guarded_adam(), optax.scale_by_adam(b2=0.99)
    params = jnp.zeros(6)
    state, plain_state = ours.init(params), plain.init(params)
    for gradient in gradients:
        direction, state = ours.update(gradient, state)
        with jax.numpy_dtype_promotion("standard"):
            expected, plain_state = plain.update(gradient, plain_state)
        np.testing.assert_allclose(direction, np.clip(expected, -1, 1), rtol=1e-5)  # single precision


def test_one_wild_or_nan_entry_neither_throws_the_parameters_nor_the_moments():
    optimizer, params = guarded_adam(), jnp.zeros(4)
    rng = np.random.default_rng(2)
    calm, wild = optimizer.init(params), optimizer.init(params)
    for step in range(60):
        gradient = rng.normal(size=4)
        directions, calm = optimizer.update(jnp.asarray(gradient), calm)
        if step == 30:
            gradient = np.array([1e200, -np.inf, np.nan, gradient[3]])
        moved, wild = optimizer.update(jnp.asarray(gradient), wild)
        assert np.abs(np.asarray(moved)).max() <= 1
    np.testing.assert_array_equal(directions[3], moved[3])
    assert (np.asarray(wild.second_root) < 4 * np.asarray(calm.second_root)).all()


def test_networks_move_slower_than_free_parameters():
    params = {"free": jnp.zeros(3), "network": jnp.zeros(3, dtype=jnp.float32)}
    optimizer = guarded_adam()
    directions, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params))
    np.testing.assert_allclose(
        directions["network"], NETWORK_RATE * np.asarray(directions["free"]), rtol=1e-6
    )


def test_the_rate_warms_up_to_its_peak_and_falls_to_its_end():
    rates = np.asarray(learning_rates(np.arange(1000), 0.02, 1000))
    assert rates[0] < 0.25 * rates.max()
    assert np.isclose(rates.max(), 0.02, rtol=1e-3)
    assert (np.diff(rates[100:]) <= 0).all()
    assert FINAL_RATE * 0.02 <= rates[-1] < 2 * FINAL_RATE * 0.02
