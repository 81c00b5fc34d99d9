"""Programs with transformed data as data: what is declared where, and what is left to compute."""

import pytest

from stan_adapters.language.program import Program
from stan_adapters.rewriting.computed_data import returning_computed_data, sources_of, with_computed_data
from stan_adapters.rewriting.reductions import with_named_reductions

CENTRED = """data {
  int N; int K; // a comment { with a bracket
  matrix[N, K] X;
}
transformed data {
  int Kc = K - 1;
  vector[Kc] means_X; matrix[N, Kc] Xc;
  for (i in 2:K) {
    means_X[i - 1] = mean(X[, i]);
    Xc[, i - 1] = X[, i] - means_X[i - 1];
  }
}
parameters { vector[Kc] b; }
model { b ~ normal(0, 1); }
"""


def words(text):
    return " ".join(text.split())


def test_a_variable_moves_to_the_data_block_with_what_sizes_it():
    program = with_computed_data(Program.from_code(CENTRED), ["means_X"])
    assert [d.name for d in program.data] == ["N", "K", "X", "Kc", "means_X"]
    assert [d.name for d in program.transformed_data] == ["Xc"]
    assert "mean(" not in program.source
    assert len(program.source.splitlines()) == len(CENTRED.splitlines())


def test_with_all_of_them_as_data_nothing_is_left_to_compute():
    program = with_computed_data(Program.from_code(CENTRED), ["means_X", "Xc"])
    assert not program.transformed_data
    assert "transformed data" not in program.source


@pytest.mark.parametrize("before", ["", "functions { real f(real x) { return x; } }\n"])
def test_a_program_without_a_data_block_gets_one(before):
    code = (
        before + "transformed data { real a = 1, b = 2; } parameters { real x; } model { x ~ normal(a, b); }"
    )
    program = with_computed_data(Program.from_code(code), ["a"])
    assert words(program.source).startswith(
        words(before + "data { real a; } transformed data { real b = 2; }")
    )


def test_bounds_that_the_data_block_can_not_see_are_left_out():
    code = """data { int N; }
    transformed data { int lowest = 0; array[N] int<lower=lowest, upper=N> a = rep_array(1, N); }
    parameters { real x; } model { x ~ normal(a[1], 1); }"""
    program = with_computed_data(Program.from_code(code), ["a"])
    assert str(program.declaration("a")) == "array[N] int<upper=N> a"


def test_what_is_returned_has_names_that_the_program_has_not():
    code = """data { int kept_N; } transformed data { real<lower=0> a = kept_N; }
    parameters { real x; } model { x ~ normal(a, 1); }"""
    program, names = returning_computed_data(Program.from_code(code))
    assert names == {"xkept_a": "a"}
    assert "generated quantities { real xkept_a = a; }" in program.source
    assert not program.parameters


def test_the_data_behind_transformed_data_are_found_through_loops_and_other_variables():
    found = sources_of(Program.from_code(CENTRED))
    assert {name: sorted(names) for name, names in found.items()} == {
        "Kc": ["K"],
        "means_X": ["K", "X"],
        "Xc": ["K", "N", "X"],
    }


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "vector[N] z = (x - mean(x)) / sd(x);",
            "real sd_x; real mean_x; sd_x = sd(x); mean_x = mean(x); vector[N] z = (x - mean_x) / sd_x;",
        ),
        (
            "matrix[N, K] Z; for (k in 1:K) Z[, k] = X[, k] - mean(X[, k]);",
            "matrix[N, K] Z; array[K] real mean_X_k; "
            "for (k in 1:K) { mean_X_k[k] = mean(X[, k]); Z[, k] = X[, k] - mean_X_k[k]; }",
        ),
        ("vector[N] z; for (n in 1:N) z[n] = x[n] - x[1];",
         "vector[N] z; real x_1; for (n in 1:N) { x_1 = x[1]; z[n] = x[n] - x_1; }"),
        ("real m = mean(x); int total = sum(g) + 1;", "real m = mean(x); int total = sum(g) + 1;"),
        ("real total = 0; while (total < sum(x)) { total += max(x) + 1; }",
         "real total = 0; while (total < sum(x)) { total += max(x) + 1; }"),
    ],
)  # fmt: skip
def test_what_is_computed_of_many_numbers_gets_a_name(code, expected):
    frame = """data {{ int N; int K; vector[N] x; matrix[N, K] X; array[N] int g; }} transformed data {{ {} }}
    parameters {{ real a; }} model {{ a ~ std_normal(); }}"""
    found = with_named_reductions(Program.from_code(frame.format(code)))
    assert words(found.source) == words(frame.format(expected))
