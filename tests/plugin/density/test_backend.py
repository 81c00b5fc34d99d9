"""The choice of a backend, in this process and in fresh ones."""

import pytest

from avistan.density.backend import native_available
from density_models import run_isolated

ISOLATED = """
import jax, numpy as np, jax.numpy as jnp
import density_models as cases
from avistan.density.backend import backend
from avistan.density.log_density import log_density
from avistan.density.slots import register
model = cases.linear(4)
theta = np.random.default_rng(0).normal(size=(5, 5))
with jax.enable_x64(True), register(model) as slot:
    lp, grad = jax.jit(jax.vmap(jax.value_and_grad(lambda t: log_density(slot, t)[0])))(jnp.asarray(theta))
    expected = cases.directly(model, theta)
    assert np.array_equal(lp, expected[0]) and np.array_equal(grad, expected[1])
assert jnp.ones(1).dtype == jnp.float32
print(backend())
"""


@pytest.mark.parametrize("disabled", ["1", "0"])
def test_a_local_64_bit_block_suffices_and_the_handler_can_be_switched_off(disabled):
    chosen = run_isolated(ISOLATED, AVISTAN_NO_NATIVE=disabled).strip()
    assert chosen == ("native" if disabled == "0" and native_available() else "callback")
