"""What files hold where Stan's own JSON would say more: boxed numbers, empty entries, NaN."""

import json
import math

import numpy as np
import pytest

from stan_adapters import sources
from stan_adapters.data.stan_data import DataWarning, read_data
from stan_adapters.errors import DataError
from stan_adapters.language.program import Program

PROGRAM = Program.from_code(
    "data { int N; real s; matrix[N, 3] x; array[N] int g; array[2, N] real e; vector[2] y; real<lower=0> b; }"
)
GIVEN = {"N": 0, "s": 1.5, "x": [], "g": [], "e": [[], []], "y": [1, 2], "b": 1}


@pytest.mark.parametrize("empty", [{}, 0, [], [[]], [[[]]]], ids=str)
def test_an_entry_of_size_zero_may_be_written_in_many_ways(empty):
    data = read_data(PROGRAM, GIVEN | {"x": empty, "g": empty, "e": empty})
    assert [np.shape(data[name]) for name in ("x", "g", "e")] == [(0, 3), (0,), (2, 0)]


@pytest.mark.parametrize("wrong", [1, [0], {"a": 1}, [[0]], "", False, [[], []]], ids=str)
def test_what_is_not_empty_is_refused_for_an_entry_of_size_zero(wrong):
    with pytest.raises(DataError, match="data entry `g`"):
        read_data(PROGRAM, GIVEN | {"g": wrong})


def test_entries_that_are_not_of_size_zero_may_not_be_empty():
    for empty in ({}, 0, [], [[]]):
        with pytest.raises(DataError, match="data entry `y`"):
            read_data(PROGRAM, GIVEN | {"y": empty})


def test_boxed_numbers_are_read_with_one_note(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(GIVEN | {"N": [0], "s": [2.5], "b": [3]}))
    with pytest.warns(DataWarning, match="`N`, `s`, `b`. They are read so") as notes:
        data = sources.read(PROGRAM, tmp_path / "x.json")
    assert len(notes) == 1
    assert (data["N"].item(), data["s"].item(), data["b"].shape) == (0, 2.5, ())


@pytest.mark.parametrize("wrong", [[], [1, 2], [[1]], ["one"], [None]], ids=str)
def test_lists_that_hold_no_single_number_are_refused_for_a_number(wrong):
    with pytest.raises(DataError, match="data entry `s`"):
        read_data(PROGRAM, GIVEN | {"s": wrong})


def test_nan_in_reals_without_bounds_is_read_with_a_note_and_written_as_stan_reads_it(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(GIVEN | {"y": [math.nan, "NaN"], "s": math.nan}))
    with pytest.warns(DataWarning, match=r"hold NaN: `s` \(1\), `y` \(2\). Stan reads them") as notes:
        data = sources.read(PROGRAM, tmp_path / "x.json")
    assert len(notes) == 1
    assert json.loads(data.to_json())["y"] == ["NaN", "NaN"]
    assert data.undefined == {"s": 1, "y": 2}


def test_nan_where_stan_checks_the_value_is_refused_with_its_place():
    with pytest.raises(DataError, match="data entry `b` is NaN"):
        read_data(PROGRAM, GIVEN | {"b": math.nan})
    with pytest.raises(DataError, match="data entry `N` is NaN"):
        read_data(PROGRAM, GIVEN | {"N": math.nan})


@pytest.mark.parametrize("text", ['{"N": 1, "y": [[true, 2], [3, 4]]}', '{"N": true, "y": [[1, 2], [3, 4]]}'])
def test_true_in_a_json_file_is_one_with_a_note(tmp_path, text):
    program = Program.from_code("data { int N; array[2, 2] int y; } model { }")
    file = tmp_path / "logical.json"
    file.write_text(text)
    with pytest.warns(DataWarning, match="true and false are read as 1 and 0: `[Ny]`"):
        data = read_data(program, file)
    assert data["N"] == 1
    assert data["y"].tolist() == [[1, 2], [3, 4]]
