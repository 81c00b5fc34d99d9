"""Integer outcomes of which there are none add nothing: the engine gets a program that leaves their statements out."""

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine.stanli_programs import _for_stanli
from stan_adapters.language.program import Program

Y = [[0, 1, 3], [2, 0, 1], [4, 1, 0]]
DATA = {"N": 3, "y": Y, "k": [0, 2, 1], "M": 0, "none": []}
HEAD = "data { int N; array[N, N] int y; array[N] int k; int M; array[M] int none; } parameters { real a; } model { "
FUNCTIONS = """functions {
  real rows(array[] int y, int n, real a) { real s = 0; for (j in 1:n) s += poisson_log_lpmf(y[j] | a); return s; }
  real part(array[] int y, real a) { return poisson_log_lpmf(y | a); }
  void pairs_lp(array[,] int y, real a) {
    for (i in 1:size(y)) for (j in (i + 1):size(y)) { 1 ~ bernoulli(0.5); y[i, j] ~ poisson_log(a); }
  }
  int last(array[] int y) { for (j in 0:(size(y) - 1)) if (y[size(y) - j]) return size(y) - j; return 0; }
  void history_lp(array[,] int y, array[] int to, real a) {
    for (i in 1:size(y)) { if (to[i]) { for (t in 2:to[i]) { 1 ~ bernoulli_logit(a); y[i, t] ~ poisson_log(a); } } }
  }
}
"""
UPPER, ROWS = [1, 3, 1], [2, 0, 4]  # the outcomes above the diagonal; the first k of each row

CASES = {
    "pairs in the model": ("for (i in 1:N) for (j in (i + 1):N) y[i, j] ~ poisson_log(a);", UPPER),
    "target += of pairs": (
        "for (i in 1:N) for (j in i + 1:N) target += poisson_log_lupmf(y[i, j] | a);",
        UPPER,
    ),
    "pairs in braces, before else": (
        "for (i in 1:N) if (i > 0) for (j in (i + 1):N) { y[i, j] ~ poisson_log(a); } else reject(i);",
        UPPER,
    ),
    "slices": ("for (i in 1:N) y[i, 1:k[i]] ~ poisson_log(a);", ROWS),
    "slices in target +=": ("for (i in 1:N) target += 1.0 * poisson_log_lpmf(y[i, :k[i]] | a);", ROWS),
    "slices in a function": ("for (i in 1:N) target += part(y[i, 1:k[i]], a);", ROWS),
    "loops in a function": ("for (i in 1:N) target += rows(y[i], k[i], a);", ROWS),
    "pairs in a function": ("pairs_lp(y, a);", UPPER),
    "no outcome at all": ("none ~ poisson_log(a); for (i in 1:M) none[i] ~ poisson_log(a);", []),
    "no outcome in a function": ("target += part(none, a);", []),
}


def density(code: str, at: float = 0.3) -> tuple[float, float]:
    program = Program.from_code(code)
    with BoundModel(program, read_data(program, DATA), engine="stanli") as model:
        value, gradient = model.log_density_gradient(np.array([at]))
        return value - model.log_density_gradient(np.array([0.0]))[0], gradient[0]


@pytest.mark.parametrize("name", CASES)
def test_what_has_no_outcome_adds_nothing(name):
    body, outcomes = CASES[name]
    value, gradient = density(f"{FUNCTIONS} {HEAD} {body} }}")
    assert gradient == pytest.approx(sum(y - np.exp(0.3) for y in outcomes), rel=1e-13, abs=1e-13)
    assert value == pytest.approx(sum(y * 0.3 - np.exp(0.3) + 1 for y in outcomes), rel=1e-12, abs=1e-12)


def test_a_capture_history_that_ends_at_the_first_survey_is_passed_on_to_a_function():
    body = "array[N] int to; for (i in 1:N) to[i] = last(y[i]); to[3] = 1; history_lp(y, to, a);"
    _, gradient = density(f"{FUNCTIONS} {HEAD} {body} }}")
    outcomes = [1, 3, 0, 1]
    survived = len(outcomes) / (1 + np.exp(0.3))
    assert gradient == pytest.approx(survived + sum(y - np.exp(0.3) for y in outcomes), rel=1e-13)


def test_bounds_that_draw_numbers_are_evaluated_once():
    code = (
        "functions { int f_rng(int n) { return poisson_rng(n); } } parameters { real a; } generated quantities { "
        "real s = 0; for (i in 1:f_rng(3)) s += 1; }"
    )
    assert _for_stanli(Program.from_code(code)) == code


def test_statements_about_reals_and_single_integers_are_left_as_they_are():
    code = (
        "data { int N; vector[N] x; int n; } parameters { real a; } model { for (i in 1:N) x[i] ~ normal(a, 1); "
        "x ~ normal(a, 1); n ~ poisson_log(a); target += normal_lpdf(x | a, 1) + poisson_log_lpmf(n | a); }"
    )
    assert _for_stanli(Program.from_code(code)) == code


def test_lines_stay_where_they_are():
    code = f"{HEAD}\n  for (i in 1:N)\n    for (j in (i // next\n      + 1):N)\n      y[i, j] ~ poisson_log(a);\n}}\n"
    guarded = _for_stanli(Program.from_code(code))
    assert guarded.count("\n") == code.count("\n")
    assert "{ if (((i + 1)) <= (N)) for (j in (i // next" in guarded
