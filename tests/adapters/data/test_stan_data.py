"""Data against declarations: what is accepted, what each refusal says, and that the engine agrees."""

import dataclasses
import gzip
import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import stanli

from stan_adapters.data.stan_data import DataWarning, StanData, read_data, read_values
from stan_adapters.errors import DataError
from stan_adapters.language.program import Program
from work import interpreted_lines


def read(declarations, **values) -> StanData:
    return read_data(Program.from_code(f"data {{ {declarations} }}"), values)


# ---- What is accepted --------------------------------------------------------------------------------------

ACCEPTED = {
    "an int": ("int", 3, 3),
    "an integral float for int": ("int", 3.0, 3),
    "a boolean for int": ("int", True, 1),
    "a numpy integer": ("int", np.uint8(3), 3),
    "a 0-d array": ("int", np.array(3.0), 3),
    "an int for real": ("real", 3, 3.0),
    "an integer beyond 64 bits for real": ("real", 10**30, 1e30),
    "float32": ("real", np.float32(0.5), 0.5),
    "infinity as a string": ("real", "-Inf", -math.inf),
    "a list": ("vector[3]", [1, 2.5, 3], [1.0, 2.5, 3.0]),
    "strings among numbers": ("vector[3]", [1, "Inf", "-infinity"], [1.0, math.inf, -math.inf]),
    "a range": ("array[3] int", range(3), [0, 1, 2]),
    "a tuple for an array": ("array[3] int", (4, 5, 6), [4, 5, 6]),
    "booleans": ("array[2] int", np.array([True, False]), [1, 0]),
    "integral floats": ("array[2, 2] int", [[1.0, 2.0], [3.0, -4.0]], [[1, 2], [3, -4]]),
    "the smallest and largest int": ("array[2] int", [-(2**31), 2**31 - 1], [-(2**31), 2**31 - 1]),
    "a Series": ("vector[2]", pd.Series([1.5, 2.5], index=[7, 9]), [1.5, 2.5]),
    "a nullable Series": ("array[2] int", pd.Series([1, 2], dtype="Int64"), [1, 2]),
    "a nullable boolean Series": ("array[2] int", pd.Series([True, False], dtype="boolean"), [1, 0]),
    "a DataFrame": ("matrix[2, 2]", pd.DataFrame({"a": [1, 2], "b": [0.5, 0.25]}), [[1.0, 0.5], [2.0, 0.25]]),
    "Fortran order": ("matrix[2, 3]", np.asfortranarray([[1.0, 2, 3], [4, 5, 6]]), [[1.0, 2, 3], [4, 5, 6]]),
    "a list of arrays": (
        "array[2] vector[2]",
        [np.array([1, 2]), np.array([3, 4])],
        [[1.0, 2.0], [3.0, 4.0]],
    ),
    "no rows": ("matrix[0, 3]", [], np.zeros((0, 3))),
    "no columns": ("matrix[2, 0]", [[], []], np.zeros((2, 0))),
    "no columns, said shortly": ("matrix[2, 0]", [], np.zeros((2, 0))),
    "no entries in a 3-d array": ("array[2, 0] vector[3]", [[], []], np.zeros((2, 0, 3))),
    "an empty covariance": ("cov_matrix[0]", [], np.zeros((0, 0))),
    "no simplexes": ("array[0] simplex[3]", [], np.zeros((0, 3))),
    "an array masked nowhere": ("vector[2]", np.ma.array([1.0, 2.0], mask=[0, 0]), [1.0, 2.0]),
    "complex": ("complex", 1 + 2j, 1 + 2j),
    "complex as a pair": ("complex", [1, 2], 1 + 2j),
    "complex from real": ("complex_vector[3]", [1, 2, 3], [1 + 0j, 2, 3]),
    "complex as pairs": (
        "complex_matrix[2, 2]",
        np.arange(8.0).reshape(2, 2, 2),
        [[0 + 1j, 2 + 3j], [4 + 5j, 6 + 7j]],
    ),
    "no complex": ("complex_vector[0]", [], np.zeros(0, dtype=complex)),
    "on the bounds": ("array[2] int<lower=0, upper=1>", [0, 1], [0, 1]),
    "infinity above a lower bound": ("real<lower=0>", math.inf, math.inf),
}


@pytest.mark.parametrize(("declared", "given", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_value_becomes_an_array_of_the_declared_shape(declared, given, value):
    seen = read(f"{declared} x;", x=given)["x"]
    expected = np.asarray(value)
    assert seen.dtype == expected.dtype
    np.testing.assert_array_equal(seen, expected, strict=True)
    assert seen.flags.c_contiguous
    assert not seen.flags.writeable


def test_objects_with_to_numpy_only_are_read():
    class Column:
        def to_numpy(self):
            return np.array([1, 2])

    np.testing.assert_array_equal(read("array[2] int x;", x=Column())["x"], [1, 2])


def test_jax_arrays_are_read():
    import jax.numpy as jnp

    np.testing.assert_array_equal(read("vector[2] x;", x=jnp.array([1.0, 2.0]))["x"], [1.0, 2.0])


def test_tuples_are_read_from_python_and_from_stan_json():
    declared = "int N; array[2] tuple(int, vector[N], tuple(real, complex)) t;"
    expected = [(1, [2.0, 3.0], (4.0, 5 + 6j)), (7, [8.0, 9.0], (0.5, 1j))]
    from_python = read(declared, N=2, t=expected)
    from_json = read(declared, **json.loads(from_python.to_json()))
    for data in (from_python, from_json):
        for seen, wanted in zip(data["t"], expected, strict=True):
            assert isinstance(seen, tuple)
            assert seen[0] == wanted[0]
            np.testing.assert_array_equal(seen[1], wanted[1])
            assert (seen[2][0].item(), seen[2][1].item()) == wanted[2]
    assert from_python == from_json


def test_arrays_may_stand_for_tuples():
    data = read(
        "array[2] tuple(int, real) t; tuple(int, int) u;",
        t=np.array([[1, 2.5], [3, 4.5]]),
        u=np.array([5, 6]),
    )
    assert data.to_json() == '{"t":[{"1":1,"2":2.5},{"1":3,"2":4.5}],"u":{"1":5,"2":6}}'


def test_sizes_may_use_tuple_components_and_functions():
    data = read("tuple(int, array[2] int) n; vector[n.1 + max(n.2)] x;", n=(1, [2, 3]), x=[1, 2, 3, 4])
    assert data["x"].shape == (4,)


def test_a_size_by_a_users_function_is_taken_from_the_value():
    code = "functions { int f(int n) { return n + 1; } } data { int N; array[N] vector[f(N)] x; }"
    program = Program.from_code(code)
    assert read_data(program, {"N": 2, "x": [[1, 2, 3], [4, 5, 6]]})["x"].shape == (2, 3)
    with pytest.raises(DataError, match=r"shape \(3, 2\), expected shape \(2, any\)"):
        read_data(program, {"N": 2, "x": np.zeros((3, 2))})
    with pytest.raises(DataError, match=r"shape \(2,\), expected shape \(2, any\)"):
        read_data(program, {"N": 2, "x": [1, 2]})


def test_the_data_are_a_copy_in_the_order_of_the_program():
    x = np.array([1.0, 2.0])
    data = read("int N; vector[N] x;", x=x, N=2)
    x[0] = 9.0
    assert list(data) == ["N", "x"]
    assert len(data) == 2
    assert data["x"][0] == 1.0
    assert data.source == "the dict passed as data="
    assert read_data(data.program, data) == data
    assert len({data, read_data(data.program, dict(data))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.source = "elsewhere"


def test_entries_of_size_zero_may_be_left_out():
    data = read("int N; int K; matrix[N, K] X; array[K] int k; vector[N] y;", N=2, K=0, y=[1, 2])
    assert data["X"].shape == (2, 0)
    assert data["k"].dtype == np.int64


def test_no_data_fit_a_program_without_any():
    assert dict(read_data(Program.from_code("parameters { real x; }"), None)) == {}


# ---- What is refused ---------------------------------------------------------------------------------------

REFUSED = {
    # shapes: an engine would accept many of these in silence
    "transposed": (
        "matrix[3, 2] x;",
        np.zeros((2, 3)),
        r"shape \(2, 3\), expected shape \(3, 2\); it looks transposed",
    ),
    "flattened": ("matrix[3, 2] x;", np.zeros(6), r"shape \(6,\), .*number of entries is right"),
    "nested deeper": ("matrix[3, 2] x;", np.zeros((1, 3, 2)), r"shape \(1, 3, 2\), expected shape \(3, 2\)"),
    "a list of two for a number": (
        "int x;",
        [3, 4],
        "expected a single number; pass one of its numbers, or declare",
    ),
    "a matrix for a number": ("int x;", [[3]], "expected a single number"),
    "a number for a list": (
        "vector[1] x;",
        3,
        r"is a single number, expected shape \(1,\); pass a list: \[x\]",
    ),
    "a number for more": (
        "array[1] vector[2] x;",
        3,
        r"is a single number, expected shape \(1, 2\)\. Declared",
    ),
    "too long": ("vector[2] x;", [1, 2, 3], r"shape \(3,\), expected shape \(2,\)\. Declared"),
    "entries for none": ("vector[0] x;", [1.0], r"shape \(1,\), expected shape \(0,\)"),
    "none for entries": ("vector[2] x;", [], r"shape \(0,\), expected shape \(2,\)"),
    "the wrong empty": ("matrix[0, 3] x;", np.zeros((0, 2)), r"shape \(0, 2\), expected shape \(0, 3\)"),
    "ragged": ("matrix[2, 2] x;", [[1, 2], [3]], r"ragged: \[2\] has 1 entries where \[1\] has 2"),
    "ragged inside": (
        "array[1, 2, 2] int x;",
        [[[1, 2], [3]]],
        r"ragged: \[2\] has 1 entries .* within \[1\]",
    ),
    "numbers among lists": ("matrix[2, 2] x;", [[1, 2], 3], r"ragged: \[2\] has a single number"),
    "strings in ragged lists": ("matrix[2, 2] x;", [[1, "Inf"], [3]], r"mixes numbers and lists|ragged"),
    # kinds
    "a string": ("int x;", "3", "holds the string '3', expected a number: write 3 without quotes"),
    "a string in a list": (
        "vector[2] x;",
        [1, "high"],
        r"holds the string 'high' at \[2\].*number categories 1, 2",
    ),
    "null": ("vector[2] x;", [1, None], r"is missing \(None\) at \[2\]"),
    "a pandas NA": (
        "array[2] int x;",
        pd.Series([1, None], dtype="Int64"),
        r"a missing entry at \[2\]",
    ),
    "NA among objects": (
        "array[2] int x;",
        pd.Series([1, pd.NA], dtype=object),
        r"is missing \(<NA>\) at \[2\]",
    ),
    "masked": ("vector[2] x;", np.ma.array([1.0, 2.0], mask=[0, 1]), "masked"),
    "dates": ("vector[1] x;", np.array(["2026-01-01"], dtype="datetime64[D]"), "datetime64"),
    "a dict": ("vector[1] x;", {"a": 1}, "holds a dict"),
    "a set": ("vector[1] x;", {1}, "holds a set"),
    "a fraction for int": ("array[3] int x;", [1, 2, 2.5], r"is 2.5 at \[3\]: expected an integer"),
    "NaN for int": ("array[2] int x;", [1, math.nan], r"is NaN at \[2\]"),
    "infinity for int": ("int x;", math.inf, "is inf: Stan's int has 32 bits"),
    "beyond 32 bits": ("array[2] int x;", [1, 2**31], r"is 2147483648 at \[2\]: Stan's int has 32 bits"),
    "beyond 64 bits": ("int x;", 2**70, "32 bits"),
    "beyond doubles": ("vector[2] x;", [1, 10**400], r"holds an integer beyond 1e308 at \[2\]"),
    "NaN below a bound": ("matrix<upper=9>[2, 2] x;", [[1, 2], [math.nan, 4]], r"is NaN at \[2, 1\]"),
    "NaN in a simplex": ("simplex[2] x;", [0.5, math.nan], r"is NaN at \[2\]"),
    "NaN in a covariance": ("cov_matrix[1] x;", [["NaN"]], r"is NaN at \[1, 1\]"),
    "complex for real": ("real x;", 1j, "holds complex numbers, expected reals"),
    "complex for int": ("int x;", 1j, "holds complex numbers, expected integers"),
    "complex of the wrong shape": (
        "complex_vector[2] x;",
        [[1, 2, 3]],
        r"shape \(1, 3\), expected \(2, 2\) as pairs",
    ),
    "NaN in complex": ("complex x;", complex(0, math.nan), "is NaN"),
    # bounds
    "below": ("array[3] int<lower=0> x;", [0, 1, -1], r"is -1 at \[3\], but lower=0"),
    "above": ("vector<upper=2.5>[2] x;", [1, 3], r"is 3.0 at \[2\], but upper=2.5"),
    # tuples
    "a tuple too short": ("tuple(int, real) x;", (1,), "has 1 entries, expected a tuple of 2 components"),
    "a number for a tuple": ("tuple(int, real) x;", 1, "is of type int, expected a tuple of 2 components"),
    "an array for a tuple": ("tuple(int, real) x;", np.array(1), "is of type ndarray, expected a tuple"),
    "wrong keys of a tuple": (
        "tuple(int, real) x;",
        {"a": 1, "b": 2},
        r"keys \['a', 'b'\], expected \"1\" to \"2\"",
    ),
    "a bad component": (
        "array[2] tuple(int, vector[1]) x;",
        [(1, [2]), (1, [2, 3])],
        r"shape \(2,\).*\(in \[2\]\.2\)",
    ),
    "too few tuples": (
        "array[2] tuple(int, real) x;",
        [(1, 2)],
        "has 1 entries, expected a list of 2 tuples",
    ),
}


@pytest.mark.parametrize(("declared", "given", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_value_that_does_not_fit_is_refused_with_the_reason(declared, given, message):
    with pytest.raises(DataError, match=message):
        read(declared, x=given)


def test_a_refusal_names_the_declaration_its_numbers_its_place_and_the_source(tmp_path):
    (tmp_path / "m.stan").write_text("data {\n  int<lower=0> N;\n  int K;\n  matrix[N, K - 1] x;\n}\n")
    (tmp_path / "m.json").write_text('{"N": 2, "K": 4, "x": [[1, 2], [3, 4], [5, 6]]}')
    with pytest.raises(DataError) as caught:
        read_data(Program.from_file(tmp_path / "m.stan"), tmp_path / "m.json")
    assert str(caught.value) == (
        "data entry `x` has shape (3, 2), expected shape (2, 3); it looks transposed: pass its transpose. "
        f"Declared `matrix[N, K - 1] x` with K = 4, N = 2 at {tmp_path}/m.stan:4:20. Data: {tmp_path}/m.json."
    )


def test_bounds_may_be_other_data_and_vectors():
    declared = "int N; vector[N] low; vector<lower=low, upper=2 * N>[N] x;"
    assert read(declared, N=2, low=[0, -1], x=[0, 4])["x"].tolist() == [0.0, 4.0]
    with pytest.raises(DataError, match=r"is -1.5 at \[2\], but lower=low = -1.0"):
        read(declared, N=2, low=[0, -1], x=[0, -1.5])
    with pytest.raises(DataError, match=r"is 5.0 at \[2\], but upper=2 \* N = 4"):
        read(declared, N=2, low=[0, -1], x=[0, 5])
    rows = "vector[3] low; array[2] vector<lower=low>[3] x;"
    with pytest.raises(DataError, match=r"is 2.0 at \[2, 3\], but lower=low = 3.0"):
        read(rows, low=[1, 2, 3], x=[[1, 2, 3], [1, 2, 2]])


def test_a_negative_size_is_refused():
    with pytest.raises(DataError, match=r"`x` can't have the size N - 3 = -1: .*with N = 2"):
        read("int N; vector[N - 3] x;", N=2, x=[])


def test_missing_entries_are_listed_together_with_near_names():
    with pytest.raises(DataError) as caught:
        read("int N; int K; matrix[N, K] x; vector[N] y; array[0] int none;", N=2, k=3, X=[[1]])
    assert str(caught.value) == (
        "data has no entries `K`, declared `int K` at model.stan:1:19 (did you mean `k`?); "
        "`x`, declared `matrix[N, K] x` at model.stan:1:35 (did you mean `X`?); "
        "`y`, declared `vector[N] y` at model.stan:1:48. "
        "Entries given: N, k, X. Add them to the dict passed as data=."
    )
    with pytest.raises(DataError, match=r"no entry `N`, declared `int N` .*Entries given: none\. Add it to"):
        read_data(Program.from_code("data { int N; }"), None)


def test_extra_entries_warn_once_with_near_names():
    with pytest.warns(
        DataWarning, match=r"`model` does not declare are not used: `groups` \(did you mean `group`\?\), `z`"
    ):
        data = read("int N; array[0] int group;", N=2, groups=[1, 2], z=3)
    assert list(data) == ["N", "group"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read("int N;", N=2)


# ---- Constrained types: the engine is the judge ------------------------------------------------------------

GOOD_CORR = [[1.0, 0.5], [0.5, 1.0]]
GOOD_CHOLESKY = [[1.0, 0.0], [0.6, 0.8]]
CONSTRAINED = {  # type: (good values, bad values with what the refusal says)
    "simplex[3]": (
        [[0.2, 0.3, 0.5], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5 + 5e-9]],
        [([0.2, 0.3, 0.6], "must sum to 1, not 1.1"), ([-0.1, 0.6, 0.5], "at least 0, not -0.1"),
         ([0.2, 0.3, 0.5 + 2e-8], "sum to 1")],
    ),
    "ordered[3]": (
        [[-1.0, 0.0, 1e9], [0.0, 1e-300, 1.0]],
        [([0.0, 0.0, 1.0], "exceed the one before; the smallest step is 0"), ([3.0, 2.0, 4.0], "is -1")],
    ),
    "positive_ordered[2]": (
        [[0.0, 1.0], [2.0, 3.0]],
        [([-1.0, 1.0], "at least 0, not -1"), ([2.0, 1.0], "exceed the one before")],
    ),
    "unit_vector[2]": ([[0.6, -0.8]], [([0.6, 0.9], "its squares must sum to 1, not 1.17")]),
    "sum_to_zero_vector[3]": ([[1.0, -3.0, 2.0]], [([1.0, -3.0, 1.0], "must sum to 0, not -1")]),
    "sum_to_zero_matrix[2, 2]": (
        [[[1.0, -1.0], [-1.0, 1.0]]],
        [([[1.0, -1.0], [-1.0, 2.0]], "every row must sum to 0; the sum furthest off is 1")],
    ),
    "cov_matrix[2]": (
        [[[2.0, 0.5], [0.5, 1.0]], GOOD_CORR],
        [([[2.0, 0.5], [0.4, 1.0]], "symmetric; its largest difference from its transpose is 0.1"),
         ([[1.0, 2.0], [2.0, 1.0]], "positive definite; its smallest eigenvalue is -1"),
         ([[1.0, 1.0], [1.0, 1.0]], "positive definite")],
    ),
    "corr_matrix[2]": (
        [GOOD_CORR],
        [([[1.0, 0.5], [0.5, 1.1]], "diagonal must be 1; the entry furthest off is 1.1"),
         ([[1.0, 0.5], [-0.5, 1.0]], "symmetric"), ([[1.0, -1.5], [-1.5, 1.0]], "positive definite")],
    ),
    "cholesky_factor_corr[2]": (
        [GOOD_CHOLESKY],
        [([[1.0, 0.0], [0.6, 0.9]], "squares of every row must sum to 1; the sum furthest off is 1.17"),
         ([[1.0, 0.1], [0.6, 0.8]], "lower triangular"), ([[1.0, 0.0], [0.6, -0.8]], "diagonal must be positive")],
    ),
    "cholesky_factor_cov[2]": (
        [[[2.0, 0.0], [-3.0, 4.0]]],
        [([[2.0, 1.0], [-3.0, 4.0]], "lower triangular; its largest entry above the diagonal is 1"),
         ([[2.0, 0.0], [-3.0, 0.0]], "diagonal must be positive; the smallest entry there is 0")],
    ),
    "cholesky_factor_cov[3, 2]": ([[[2.0, 0.0], [-3.0, 4.0], [1.0, -1.0]]], []),
}  # fmt: skip


def engine_accepts(program, text):
    try:
        stanli.bridgestan_model(stan_code=program.source, data=text, capture_stan_prints=False)
    except RuntimeError:
        return False
    return True


def unchecked(**values):
    return json.dumps(values)


@pytest.mark.parametrize(("declared", "cases"), CONSTRAINED.items(), ids=CONSTRAINED.keys())
def test_constrained_types_are_judged_as_the_engine_judges_them(declared, cases):
    program = Program.from_code(
        f"data {{ {declared} x; }} parameters {{ real y; }} model {{ y ~ normal(0, 1); }}"
    )
    good, bad = cases
    for value in good:
        assert engine_accepts(program, read_data(program, {"x": value}).to_json())
    for value, message in bad:
        with pytest.raises(DataError, match=f"`x` is no {declared.split('[')[0]}: .*({message})"):
            read_data(program, {"x": value})
        assert not engine_accepts(program, unchecked(x=value))


def test_a_tall_factor_may_not_be_wide():
    with pytest.raises(DataError, match="at least as many rows as columns; rows minus columns is -1"):
        read("cholesky_factor_cov[2, 3] x;", x=[[1, 0, 0], [1, 1, 0]])
    with pytest.raises(DataError, match=r"at \[1\]: .* rows minus columns is -2"):
        read("array[2] cholesky_factor_cov[1, 3] x;", x=np.ones((2, 1, 3)))


def test_a_sum_to_zero_matrix_has_rows_and_columns_that_sum_to_zero():  # stanli 0.24 takes both
    with pytest.raises(DataError, match="every row must sum to 0; the sum furthest off is 2"):
        read("sum_to_zero_matrix[2, 2] x;", x=[[1, 1], [-1, -1]])
    with pytest.raises(DataError, match="every column must sum to 0; the sum furthest off is 2"):
        read("sum_to_zero_matrix[2, 2] x;", x=[[1, -1], [1, -1]])


def test_stochastic_matrices_are_checked_along_their_side():
    by_row, by_column = [[0.25, 0.75], [1.0, 0.0]], [[0.25, 1.0], [0.75, 0.0]]
    assert read("row_stochastic_matrix[2, 2] x;", x=by_row)["x"].tolist() == by_row
    assert read("column_stochastic_matrix[2, 2] x;", x=by_column)["x"].tolist() == by_column
    with pytest.raises(DataError, match=r"every row must sum to 1; the sum furthest off is 1\.25"):
        read("row_stochastic_matrix[2, 2] x;", x=by_column)
    with pytest.raises(DataError, match=r"every column must sum to 1; the sum furthest off is 1\.25"):
        read("column_stochastic_matrix[2, 2] x;", x=by_row)
    with pytest.raises(DataError, match=r"smallest entry must be at least 0, not -0\.5"):
        read("row_stochastic_matrix[1, 2] x;", x=[[-0.5, 1.5]])


def test_the_offending_member_of_an_array_is_named():
    with pytest.raises(DataError, match=r"is no simplex at \[2, 1\]: its entries must sum to 1, not 0.5"):
        read("array[2, 2] simplex[2] x;", x=[[[0.5, 0.5], [1, 0]], [[0.25, 0.25], [1, 0]]])
    with pytest.raises(DataError, match=r"is no cov_matrix at \[2\]: it must be positive definite"):
        read("array[2] cov_matrix[2] x;", x=[np.eye(2), -np.eye(2)])


# ---- Stan JSON ---------------------------------------------------------------------------------------------

ECHOED = {
    "int": 3,
    "real": 0.1 + 0.2,
    "real<lower=0>": math.inf,
    "vector[3]": [1e-300, -math.inf, 2 / 3],
    "row_vector[2]": [1e22, -0.0],
    "matrix[2, 3]": np.arange(6).reshape(2, 3) / 7,
    "array[2, 3] int": np.arange(6).reshape(2, 3) - 2,
    "array[2] matrix[3, 2]": np.arange(12).reshape(2, 3, 2) / 7,
    "array[2, 2] vector[3]": np.arange(12).reshape(2, 2, 3) / 7,
    "array[2] simplex[2]": [[0.25, 0.75], [0.5, 0.5]],
    "vector[0]": [],
    "matrix[0, 3]": [],
    "matrix[3, 0]": [],
    "array[2, 0] vector[3]": [],
    "array[0] matrix[2, 2]": [],
    "array[0] int": [],
    "array[2] vector[0]": [[], []],
}


@pytest.mark.parametrize(("declared", "value"), ECHOED.items(), ids=ECHOED.keys())
def test_the_engine_reads_what_to_json_writes(declared, value):
    unbounded = declared.replace("<lower=0>", "").replace("simplex", "vector")
    program = Program.from_code(
        f"data {{ {declared} x; }} parameters {{ real p; }} model {{ p ~ normal(0, 1); }} "
        f"generated quantities {{ {unbounded} y = x; }}"
    )
    data = read_data(program, {"x": value})
    model = stanli.bridgestan_model(stan_code=program.source, data=data.to_json(), capture_stan_prints=False)
    names = model.param_names(include_gq=True)[1:]
    draw = model.param_constrain(np.zeros(1), include_gq=True, rng=model.new_rng(1))[1:]
    seen = np.full(data["x"].shape, np.nan)
    for name, number in zip(names, draw, strict=True):
        seen[tuple(int(i) - 1 for i in name.split(".")[1:])] = number
    np.testing.assert_array_equal(seen, data["x"])
    assert len(names) == data["x"].size


@pytest.mark.parametrize(("declared", "value"), ECHOED.items(), ids=ECHOED.keys())
def test_reading_its_own_json_gives_the_same_data(declared, value, tmp_path):
    data = read(f"{declared} x;", x=value)
    (tmp_path / "x.json").write_text(data.to_json())
    again = read_data(data.program, tmp_path / "x.json")
    np.testing.assert_array_equal(again["x"], data["x"], strict=True)
    assert again == data


def test_json_is_what_stan_expects():
    declared = "int N; vector[2] x; complex z; array[1] tuple(int, real) t; array[2, 0] int e;"
    data = read(declared, N=2.0, x=[math.inf, -1], z=complex(1, -math.inf), t=[(1, 2)], e=[])
    assert data.to_json() == ('{"N":2,"x":["Inf",-1.0],"z":[1.0,"-Inf"],"t":[{"1":1,"2":2.0}],"e":[[],[]]}')


def test_doubles_survive_json_bit_by_bit():
    x = np.random.default_rng(3).integers(0, 2**63, 2000, dtype=np.uint64).view(np.float64)
    x = x[np.isfinite(x)]
    data = read(f"vector[{x.size}] x;", x=x)
    again = read(f"vector[{x.size}] x;", **json.loads(data.to_json()))
    np.testing.assert_array_equal(again["x"].view(np.uint64), x.view(np.uint64))


def test_doubles_are_written_in_a_number_of_steps_that_does_not_grow_with_them():
    def work(size):
        data = read(f"vector[{size}] x;", x=np.random.default_rng(1).normal(size=size))
        assert data.to_json().count(",") == size - 1
        return interpreted_lines(data.to_json)

    assert work(10**5) == work(10)


def test_replace_checks_again():
    data = read("int N; vector[N] x;", N=2, x=[1, 2])
    more = data.replace(N=3, x=[4, 5, 6])
    assert (data["x"].tolist(), more["x"].tolist()) == ([1.0, 2.0], [4.0, 5.0, 6.0])
    with pytest.raises(DataError, match=r"`x` has shape \(2,\), expected shape \(3,\)"):
        data.replace(N=3)


# ---- Files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["d.json", "d.json.gz"])
def test_a_file_is_read(tmp_path, name):
    text = '\ufeff{"N": 2, "x": [1, "Inf"]}'.encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    program = Program.from_code("data { int N; vector[N] x; }")
    for path in (tmp_path / name, str(tmp_path / name)):
        data = read_data(program, path)
        assert data["x"].tolist() == [1.0, math.inf]
        assert data.source == str(tmp_path / name)


FILES = {
    "broken": (b'{\n  "N": 2,\n  "x" 3\n}', r"d.json:3:7: this is no JSON: Expecting ':'"),
    "a list": (b"[1, 2]", "d.json holds a list, expected a JSON object"),
    "a name twice": (b'{"N": 1, "N": 2}', "gives `N` more than once"),
    "no text": (b'{"N": "\xff"}', "can't read the data file"),
    "a broken gzip": (gzip.compress(b'{"N": 1}')[:-6], "can't read the data file"),
    "empty": (b"", "d.json:1:1: this is no JSON"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES.keys())
def test_a_file_that_cannot_be_read_says_why(tmp_path, content, message):
    (tmp_path / "d.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_values(tmp_path / "d.json")


def test_a_missing_file_gets_the_nearest_one(tmp_path):
    (tmp_path / "schools.json").write_text("{}")
    with pytest.raises(DataError, match=r"no data file .*school.json. Did you mean .*/schools.json\?"):
        read_values(tmp_path / "school.json")
    with pytest.raises(DataError, match=r"no data file nowhere/at.json.$"):
        read_values("nowhere/at.json")
    with pytest.raises(DataError, match="can't read the data file"):
        read_values(tmp_path)


def test_what_is_neither_a_mapping_nor_a_path_is_refused():
    with pytest.raises(DataError, match="this is JSON text"):
        read_values('{"N": 2}')
    with pytest.raises(DataError, match="data is a list, expected a dict"):
        read_values([1, 2])
