"""Flat names and columns to arrays: first index fastest, tuples and complex numbers apart."""

import numpy as np
import pytest

from stan_adapters.engine.columns import component, parse_names
from stan_adapters.errors import EngineError

FLAT = np.arange(24.0).reshape(2, 12)  # two draws of twelve columns


def take(names: list[str]) -> dict[str, np.ndarray]:
    return {output.name: output.take(FLAT) for output in parse_names(names)}


def test_a_scalar_has_no_shape_and_keeps_its_place():
    arrays = take(["a", "b"])
    assert arrays["a"].tolist() == [0.0, 12.0]
    assert arrays["b"].tolist() == [1.0, 13.0]


def test_the_first_index_runs_fastest():
    names = [f"m.{i}.{j}" for j in (1, 2, 3) for i in (1, 2)]
    assert take(names)["m"][0].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_a_name_that_starts_like_another_is_not_mixed_up_with_it():
    outputs = parse_names(["x.1", "x.2", "xy.1", "x_1"])
    assert [(output.name, output.shape) for output in outputs] == [("x", (2,)), ("xy", (1,)), ("x_1", ())]
    assert outputs[1].columns == slice(2, 3)


def test_complex_numbers_take_two_columns_each():
    values = take(["z.1.real", "z.1.imag", "z.2.real", "z.2.imag"])["z"]
    assert values.dtype == np.complex128
    assert values[1].tolist() == [12 + 13j, 14 + 15j]


def test_a_complex_matrix_keeps_the_order_of_its_indices():
    names = [f"z.{i}.{j}.{part}" for j in (1, 2) for i in (1, 2) for part in ("real", "imag")]
    assert take(names)["z"][0].tolist() == [[0 + 1j, 4 + 5j], [2 + 3j, 6 + 7j]]


def test_components_of_tuples_are_variables_of_their_own():
    outputs = parse_names(["t:1", "t:2.1", "t:2.2", "u.1:1", "u.2:1"])
    assert [output.name for output in outputs] == ["t:1", "t:2", "u.1:1", "u.2:1"]
    assert outputs[1].shape == (2,)


def test_values_are_copies_that_own_their_memory():
    values = take(["v.1", "v.2"])["v"]
    values[:] = -1
    assert FLAT[0, 0] == 0


def test_names_that_fill_no_rectangle_are_an_error():
    with pytest.raises(EngineError, match=r"2 columns for a, whose last one is a\.3"):
        parse_names(["a.1", "a.3"])


@pytest.mark.parametrize(
    ("name", "told"),
    {
        "pop:1": "component 1 of the tuple pop",
        "pop:2.3": "component 2 of the tuple pop",
        "t.2:1": "component 1 of element 2 of the array of tuples t",
        "t:1:2": "component 2 of component 1 of the tuple t",
        "z.1": "",
    }.items(),
)
def test_components_of_tuples_in_words(name, told):
    assert component(name) == told
