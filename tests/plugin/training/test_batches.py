"""Units with equal inputs share what a function makes of these."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avistan.family.functions import DistinctInputs, LocalNu, make_mlp, parameters
from avistan.training.batches import UnitInputs

PATTERNS = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, -2.0]], dtype=np.float32)
BATCHES = [np.arange(20), np.arange(5, 20), np.array([49])]


@pytest.fixture
def inputs():
    return PATTERNS[np.random.default_rng(1).integers(0, 3, size=50)]


def test_every_unit_of_every_batch_has_its_own_inputs_and_padding_counts_for_nothing(inputs):
    whole = UnitInputs(inputs, 20).padded(BATCHES, 20, weight=2.5)
    alone = UnitInputs(inputs, 0).padded(BATCHES, 20, weight=2.5)
    assert isinstance(whole.inputs, DistinctInputs)
    assert whole.inputs.rows.shape == (3, 4, 2)  # of each batch, padded to a power of two
    assert alone.inputs.shape == (3, 20, 2)
    for number, units in enumerate(BATCHES):
        for given in (whole, alone):
            one = given.batch(jnp.asarray(number))
            rows = one.inputs if given is alone else one.inputs.rows[one.inputs.which]
            np.testing.assert_array_equal(rows[: len(units)], inputs[units])
            np.testing.assert_array_equal(one.numbers[: len(units)], units)
            np.testing.assert_array_equal(one.weight, np.where(np.arange(20) < len(units), 2.5, 0.0))


@pytest.mark.parametrize("units", [0, 1, 50, 30_000])
def test_inputs_that_are_mostly_distinct_are_left_as_they_are(units):
    rows = np.random.default_rng(1).normal(size=(units, 2))
    found = UnitInputs(rows, units).padded([np.arange(units)], units, weight=1.0)
    np.testing.assert_array_equal(found.inputs, rows[None].astype(np.float32))


def test_a_function_gives_units_of_distinct_inputs_what_it_gives_each(inputs, key):
    start = LocalNu(*(jnp.zeros((rows, 1)) for rows in (1, 1, 0, 0, 0, 0, 0)))
    function = make_mlp(np.random.default_rng(0), 2, 4, start)
    readout = jax.random.normal(key, function.layers[-1][0].shape, dtype=jnp.float32)
    function = eqx.tree_at(lambda f: f.layers[-1], function, (readout, function.layers[-1][1]))
    given = UnitInputs(inputs, 50).padded([np.arange(50)], 50, weight=1.0).batch(jnp.asarray(0)).inputs
    assert isinstance(given, DistinctInputs)
    expected = function(jnp.asarray(inputs))
    assert np.ptp(expected.loc) > 0.1
    for part, other in zip(parameters(function, given), expected, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-5, atol=1e-6)
