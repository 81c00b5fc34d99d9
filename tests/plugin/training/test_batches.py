"""Units with equal inputs share what a function makes of these."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avistan.family.functions import DistinctInputs, LocalNu, make_mlp, parameters
from avistan.training.batches import distinct

PATTERNS = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, -2.0]], dtype=np.float32)


def test_every_unit_has_its_own_inputs():
    inputs = PATTERNS[np.random.default_rng(1).integers(0, 3, size=50)]
    found = distinct(inputs, 64)
    assert isinstance(found, DistinctInputs)
    rows, which = np.asarray(found.rows[0]), np.asarray(found.which[0])
    assert rows.shape == (4, 2)  # padded to a power of two
    assert which.shape == (64,)
    np.testing.assert_array_equal(rows[which][:50], inputs)


@pytest.mark.parametrize("units", [0, 1, 50, 30_000])
def test_inputs_that_are_mostly_distinct_are_left_as_they_are(units):
    assert distinct(np.random.default_rng(1).normal(size=(units, 2)), units) is None


def test_a_function_gives_units_of_distinct_inputs_what_it_gives_each(key):
    start = LocalNu(*(jnp.zeros((rows, 1)) for rows in (1, 1, 0, 0, 0, 0, 0)))
    function = make_mlp(np.random.default_rng(0), 2, 4, start)
    readout = jax.random.normal(key, function.layers[-1][0].shape, dtype=jnp.float32)
    function = eqx.tree_at(lambda f: f.layers[-1], function, (readout, function.layers[-1][1]))
    inputs = PATTERNS[np.random.default_rng(1).integers(0, 3, size=50)]
    found = distinct(inputs, 50)
    assert found is not None
    one = DistinctInputs(found.rows[0], found.which[0])
    expected = function(jnp.asarray(inputs))
    assert np.ptp(expected.loc) > 0.1
    for part, other in zip(parameters(function, one), expected, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-5, atol=1e-6)
