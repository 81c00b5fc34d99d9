"""Inputs from declared data: own rows, windows, rows that do not exist; signatures of units far out."""

import numpy as np
import pytest

from avistan.runtime.errors import MethodError
from avistan.start.unit_inputs import make_data_input, pulled_in, read_unit_input, unit_columns
from programs import bind

CODE = """
data { int N; vector[N] x; vector[N + 1] s; matrix[N, 2] m; }
parameters { vector[N] z; }
model { z ~ std_normal(); }
"""
N = 5
DATA = {"N": N, "x": np.arange(5.0), "s": np.arange(10.0, 16.0), "m": np.arange(10.0).reshape(5, 2)}


@pytest.fixture(scope="module")
def model():
    with bind(CODE, DATA) as bound:
        yield bound


def test_a_unit_reads_its_own_row(model):
    columns = unit_columns(model.data, (("x", (0,)), ("m", (0,))), N)
    np.testing.assert_array_equal(columns[3], [3, 6, 7])


def test_a_longer_series_is_aligned_at_its_end(model):
    columns = unit_columns(model.data, (("s", (-1, 0)),), N)
    np.testing.assert_array_equal(columns, np.stack([np.arange(10.0, 15), np.arange(11.0, 16)], axis=1))


def test_rows_that_do_not_exist_count_as_the_mean_and_are_marked(model):
    columns = (("x", (-2, 0, 1)),)
    values = make_data_input(model.data, columns, N)(model, np.zeros((N, 1), int), np.zeros(0, int))
    assert values.shape == (N, 5)  # three rows, and marks for the two that can be missing
    np.testing.assert_array_equal(values[:2, 0], 0)
    np.testing.assert_array_equal(values[:, 3], [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(values[:, 4], [0, 0, 0, 0, 1])
    np.testing.assert_allclose(values[:, 1], (np.arange(5) - 2) / np.sqrt(2))
    np.testing.assert_allclose(values[2:, 0].std(), 1)


def test_an_entry_with_fewer_rows_than_units_is_refused(model):
    with pytest.raises(MethodError, match="not one row for each of the 6 units"):
        unit_columns(model.data, (("x", (0,)),), N + 1)
    with pytest.raises(MethodError, match="no data entry 'q'"):
        unit_columns(model.data, (("q", (0,)),), N)


def test_inputs_far_out_come_nearer_in_their_order_and_direction():
    direction = np.array([3.0, -4.0]) / 5
    lengths = np.array([0.5, 3.0, 10.0, 50.0, 1000.0])
    inputs = np.sqrt(2) * lengths[:, None] * direction  # root mean squares
    found = pulled_in(inputs, 4.0)
    np.testing.assert_array_equal(found[:2], inputs[:2])
    np.testing.assert_allclose(
        found / np.linalg.norm(found, axis=1, keepdims=True), np.tile(direction, (5, 1))
    )
    lengths_found = np.sqrt((found**2).mean(axis=1))
    np.testing.assert_allclose(lengths_found[2:], 4 * (1 + np.log(lengths[2:] / 4)))
    np.testing.assert_array_equal(pulled_in(inputs, np.inf), inputs)
    assert pulled_in(np.empty((3, 0)), 4.0).shape == (3, 0)


def test_a_saved_signature_input_reads_units_far_out_as_before():
    parts = {"center": np.zeros(1), "scale": np.ones(1), "heavy": np.zeros(1, bool), "mean": np.zeros(1)}
    saved = parts | {"components": np.ones((1, 1)), "theta": np.zeros((1, 0)), "z": np.zeros((1, 1))}
    scores = np.array([[1.0], [100.0]])
    given = read_unit_input("signature", saved | {"knee": np.asarray(7.0)}, ())
    again = read_unit_input("signature", given.arrays(), ())
    np.testing.assert_array_equal(again.of_scores(scores), pulled_in(scores, 7.0))
