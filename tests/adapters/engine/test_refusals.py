"""What stanli refuses: whether another engine may help, or the data must be corrected."""

import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine.refusals import refusal
from stan_adapters.errors import EngineError, UnsupportedError
from stan_adapters.language.program import Program


def bind(code: str, data: dict | None = None) -> BoundModel:
    program = Program.from_code(code, name="mine")
    return BoundModel(program, read_data(program, data))


@pytest.fixture(autouse=True)
def _without_sources(monkeypatch):
    monkeypatch.setattr("stan_adapters.engine.instances.bridgestan_sources", lambda: None)


UNSUPPORTED = {
    "a function that stanli lacks": (
        "data { int N; } parameters { real z; } model { target += determinant(diag_matrix(rep_vector(exp(z), N))); }",
        {"N": 2},
        "unsupported function determinant",
    ),
    "no rows of an integer outcome": (
        "data { int N; array[N] int y; } parameters { real z; } model { (N > 1 ? y : y) ~ poisson_log(z); }",
        {"N": 0, "y": []},
        r"a guard such as `if \(N > 0\)` helps",
    ),
    "an array of tuples": (
        "parameters { real z; } transformed parameters { array[2] tuple(real, real) t;"
        "t[1] = (z, z); t[2] = (z, 2 * z); } model { t[1].1 ~ std_normal(); }",
        {},
        "it lacks tuples at mine.stan:1:58",
    ),
    "a tuple that is taken apart": (
        "functions { tuple(real, real) f(real x) { return (x, 2 * x); } } parameters { real z; }"
        "model { real a; real b; (a, b) = f(z); a ~ std_normal(); }",
        {},
        "it lacks tuples at mine.stan:1:13",
    ),
    "tuple parameters": (
        "parameters { tuple(real, vector[2]) pop; } model { pop.1 ~ std_normal(); pop.2 ~ std_normal(); }",
        {},
        "it lacks tuples at mine.stan:1:14",
    ),
    "complex parameters": (
        "parameters { complex z; } model { get_real(z) ~ std_normal(); get_imag(z) ~ std_normal(); }",
        {},
        "it lacks complex numbers at mine.stan:1:14",
    ),
    "a Jacobian of one's own": (
        "parameters { real z; } transformed parameters { real<lower=0> s = exp(z); jacobian += z; }"
        "model { s ~ normal(0, 1); }",
        {},
        r"it lacks `jacobian \+=` at mine.stan:1:75",
    ),
    "a distribution of seven arguments": (
        "data { matrix[1, 3] y; } parameters { real<lower=0> s; }"
        "model { y ~ gaussian_dlm_obs([[1]], [[1]], [[s]], [[1]], [0]', [[1]]); }",
        {"y": [[1, 2, 3]]},
        "it lacks `gaussian_dlm_obs` at mine.stan:1:69",
    ),
    "sizes that do not fit together": (
        "data { int K; int M; matrix[K, M] X; } parameters { vector[K] b; } model { sum(X * b) ~ normal(0, 1); }",
        {"K": 2, "M": 3, "X": [[1, 2, 3], [4, 5, 6]]},
        "correct the data that they come from",
    ),
}


@pytest.mark.parametrize(("code", "data", "words"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_what_stanli_does_not_know_names_the_compiled_engine(code, data, words):
    with pytest.raises(UnsupportedError, match=words) as caught:
        bind(code, data)
    assert 'engine="bridgestan"' in str(caught.value)
    assert "mine" in str(caught.value)


OF_THE_DATA = {
    "the program rejects them": (
        'data { int N; } transformed data { if (N > 2) reject("N is too large: ", N); }'
        "parameters { real z; } model { z ~ std_normal(); }",
        {"N": 3},
        "N is too large: 3",
    ),
    "an index outside what it indexes": (
        "data { int N; array[N] int g; vector[N] y; }"
        "parameters { vector[3] z; } model { z ~ std_normal(); y ~ normal(z[g], 1); }",
        {"N": 2, "g": [0, 1], "y": [0.0, 1.0]},
        "Stan counts from 1",
    ),
    "a negative size of a parameter": (
        "data { int N; } parameters { vector[N] z; } model { z ~ std_normal(); }",
        {"N": -3},
        r"`vector\[N\] z` at mine\.stan:1:\d+ can't have the size N = -3.*Correct `N` in the data",
    ),
    "a size that is computed": (
        "data { int N; } transformed data { vector[N - 5] w; } parameters { real z; } model { z ~ std_normal(); }",
        {"N": 2},
        r"`vector\[N - 5\] w` at mine\.stan:1:\d+ can't have the size N - 5 = -3.*Correct `N` in the data",
    ),
    "a size that transformed data compute": (
        "data { int N; vector[2] x; } transformed data { int M = N - 5; }"
        "parameters { vector[M] z; } model { z ~ std_normal(); }",
        {"N": 2, "x": [0.5, 0.5]},
        r"comes out negative.*The integers in the data: N = 2\.",
    ),
    "a constraint of transformed data": (
        "transformed data { simplex[2] p = [0.5, 0.6]'; } parameters { real z; } model { z ~ normal(p[1], 1); }",
        {},
        "p is not a valid simplex",
    ),
    "a function that can't take them": (
        "data { matrix[2, 2] S; } transformed data { matrix[2, 2] L = cholesky_decompose(S); }"
        "parameters { vector[2] z; } model { z ~ multi_normal_cholesky(rep_vector(0, 2), L); }",
        {"S": [[1, 2], [2, 1]]},
        "cholesky_decompose: Matrix m is not positive definite",
    ),
    "a division by zero": (
        "data { int N; } transformed data { int M = 5 %/% N; } parameters { real z; } model { z ~ normal(M, 1); }",
        {"N": 0},
        "integer division by zero",
    ),
}


@pytest.mark.parametrize(("code", "data", "words"), OF_THE_DATA.values(), ids=OF_THE_DATA.keys())
def test_a_fault_of_the_data_is_no_reason_to_change_the_engine(code, data, words):
    with pytest.raises(EngineError, match=f"(?s){words}") as caught:
        bind(code, data)
    assert not isinstance(caught.value, UnsupportedError)
    assert "compiler" not in str(caught.value)


def told(message: str, code: str = "parameters { real z; } model { z ~ std_normal(); }") -> EngineError:
    program = Program.from_code(code, name="mine")
    return refusal(message, engine="stanli", program=program, data_json="{}")


def test_endless_recursion_is_said_to_be_that():
    error = told("stanli compile: UDF recursion too deep in f")
    assert "calls itself without end" in str(error)
    assert not isinstance(error, UnsupportedError)  # compiled, it would end the process


@pytest.mark.parametrize(
    "message",
    [
        "mir: user function argument type mismatch for f",
        "stanli compile: nothing that was seen before",
        "log_mix takes no vectors yet",
        "stanli compile: index 5 is -2147483648, out of bounds",
    ],
)
def test_what_is_not_known_to_be_of_the_data_counts_as_unsupported(message):
    assert isinstance(told(message), UnsupportedError)


def test_a_compiled_engine_has_no_other_to_go_on_to():
    program = Program.from_code("parameters { real z; } model { }", name="mine")
    error = refusal("mir: malformed", engine="bridgestan", program=program, data_json="{}")
    assert str(error) == "bridgestan refuses mine with these data: mir: malformed"
    assert not isinstance(error, UnsupportedError)


def test_an_index_outside_of_an_array_is_of_the_data_in_both_of_stanlis_words():
    for message in (
        "stanli compile: element: index 4 out of bounds for size 3",
        "stanli compile: runtime-control region: matrix array gather index 3 is outside 1:2 B=2",
    ):
        error = told(message)
        assert not isinstance(error, UnsupportedError)
        assert "An index in the data points outside what it indexes" in str(error)


@pytest.mark.parametrize(
    "message",
    ["csr_matrix_times_vector: column count does not match vector size", "assignment width mismatch for g"],
)
def test_sizes_that_do_not_fit_are_looked_for_in_the_data_first(message):
    assert "Sizes in the program do not fit together: correct the data" in str(
        told(f"stanli compile: {message}")
    )
