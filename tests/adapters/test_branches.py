"""A variable that changes in a branch on parameters is what it is now, wherever stanli asks for it later."""

import numpy as np
import pytest

from stan_adapters import stanli_programs
from stan_adapters.binding import BoundModel
from stan_adapters.data import read_data
from stan_adapters.program import Program

POINTS = (0.37, 2.5)  # of y
DATA = {"N": 2, "a": 3.0, "n": [1, 2, 3], "xs": [1.0, 2.0, 3.0]}
HEAD = "data { int N; real a; array[3] int n; vector[3] xs; }"
MODEL = f"{HEAD} parameters {{ real x; real y; }} model {{ real r = 0; @ target += r * x; }}"


def bind(code: str) -> BoundModel:
    program = Program.from_code(code, name="mine")
    return BoundModel(program, read_data(program, DATA), engine="stanli")


def values(code: str) -> list[float]:
    """What multiplies x in the log density, at each of the points, by one handle."""
    model = bind(code)
    try:
        return [float(model.log_density_gradient(np.array([0.0, y]))[1][0]) for y in POINTS]
    finally:
        model.close()


CHANGES = {
    "a condition": ("real v = 3; if (y > 1) v = -5; if (v <= 2) r = 2;", (0, 2)),
    "a condition on the other branch": (
        "real v = 3; if (y > 1) v = -5; if (v > 2) r = 1; else r = 2;",
        (1, 2),
    ),
    "a choice": ("real v = 3; if (y > 1) v = -5; r = v > 1 ? v : 2;", (3, 2)),
    "a value": ("real v = 3; if (y > 1) v = -5; r = v;", (3, -5)),
    "a loop": ("real v = 1; if (y > 1) v = 2; while (v > 1) { v -= 1; r += 1; }", (0, 1)),
    "both conditions": ("real v = 0; if (y > 1) v = 1; if (v > 0 && y > 2) r = 2;", (0, 2)),
    "an integer": ("real v = 3; if (y > 1) v = -5; int k = v <= 2; if (k) r = 2;", (0, 2)),
    "an integer by a choice": ("real v = 3; if (y > 1) v = -5; int k = v <= 2 ? 1 : 0; r = k;", (0, 1)),
    "an order": (
        "real v = 3; if (y > 1) v = -5; array[2] int o = sort_indices_asc([v, 0]'); r = o[1];",
        (2, 1),
    ),
    "a rank": ("vector[2] v = [3, 1]'; if (y > 1) v = [1, 3]'; r = rank(v, 1);", (1, 0)),
    "by way of another": ("real v = 3; if (y > 1) v = -5; real q = v; if (q <= 2) r = 2;", (0, 2)),
    "an updated value": ("real v = 3; if (y > 1) v -= 8; if (v <= 2) r = 2;", (0, 2)),
    "a value from data": ("real v = a; if (y > 1) v = -5; if (v <= 2) r = 2;", (0, 2)),
    "a vector of data": ("vector[3] v = xs; if (y > 1) v[1] = 5; if (v[1] > 4) r = 2;", (0, 2)),
    "a matrix": ("matrix[1, 2] v = [[1, 1]]; if (y > 1) v[1, 2] = 3; if (v[1, 2] > 2) r = 2;", (0, 2)),
    "an array": ("array[2] real v = {1, 1}; if (y > 1) v[1] = 3; if (v[1] > 2) r = 2;", (0, 2)),
    "an index": ("array[1] int v = {1}; array[2] real w = {4, 7}; if (y > 1) v[1] = 2; r = w[v[1]];", (4, 7)),
    "a bound": ("array[2] int v = {1, 1}; if (y > 1) v[1] = 2; for (i in 1:v[1]) r += 1;", (1, 2)),
    "within a branch on data": (
        "real v = 1; if (N > 1) { if (y > 2) v = 2; else v = 7; } if (v > 1.5) r = v;",
        (7, 2),
    ),
    "without braces": ("real v = 1; if (N > 1) if (y > 2) v = 2; else v = 7; if (v > 1.5) r = v;", (7, 2)),
    "in an else": ("real v = 1; if (N < 1) v = 4; else if (y > 2) v = 2; if (v > 1.5) r = 1;", (0, 1)),
    "each time": ("for (i in 1:3) { real v = 0; if (y > i) v = 1; if (v > 0.5) r += 1; }", (0, 2)),
    "again and again": ("real v = 3; for (i in 1:3) { if (y > 1) v -= 1; if (v < 1.5) r += 1; }", (0, 2)),
    "after a break": ("real v = 1; for (i in 1:3) { if (y < i) break; v = i; } if (v > 1.5) r = 1;", (0, 1)),
    "after continue": (
        "real v = 1; for (i in 1:3) { if (y < i) continue; v = i; } if (v > 1.5) r = 1;",
        (0, 1),
    ),
    "after a break of an inner loop": (
        "real v = 1; for (j in 1:2) { v = 0; for (i in 1:3) { if (y < i) break; v = i; } if (v > 1.5) r += 1; }",
        (0, 2),
    ),
    "by a branch that depends on one": (
        "real w = 0; if (y > 1) w = 1; real v = 3; if (w > 0) v = -5; if (v <= 2) r = 2;",
        (0, 2),
    ),
    "by a branch on an integer": (
        "int w = 0; if (y > 1) w = 1; real v = 3; if (w > 0) v = -5; if (v <= 2) r = 2;",
        (0, 2),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_a_branch_on_parameters_is_seen(name):
    body, truth = CHANGES[name]
    assert values(MODEL.replace("@", body)) == list(truth)


FUNCTIONS = """functions {
  real by_if(real v) { if (v <= 2) return 2; return 0; }
  real by_choice(real v) { return v <= 2 ? 2 : 0; }
  real within(real y) { real r = 0; real v = 3; if (y > 1) v = -5; if (v <= 2) r = 2; return r; }
  real by_flag(int flag) { real v = 3; if (flag) v = -5; if (v <= 2) return 2; return 0; }
  real of_some(data real t, real th, vector z) {
    real v = 1;
    if (t > 0) { if (th > 1) v = 2; else v = 3; }
    return v > 2.5;
  }
  real of_data(int N, array[] int n) {
    array[N] int kept;
    int k = 0;
    for (i in 1:N) if (n[i] > 1) { k += 1; kept[k] = i; }
    return k + 10 * kept[1];
  }
}"""
CALLS = {
    "real v = 3; if (y > 1) v = -5; r = by_if(v);": (0, 2),
    "real v = 3; if (y > 1) v = -5; r = by_choice(v);": (0, 2),
    "r = within(y);": (0, 2),
    "r = within(2 * y - 1);": (0, 2),
    "r = within(a);": (2, 2),
    "r = by_flag(y > 1);": (0, 2),
    "r = of_some(a, y, xs);": (1, 0),
    "r = of_data(3, n);": (22, 22),
}


@pytest.mark.parametrize("call", CALLS)
def test_functions_see_a_change_in_a_branch_on_parameters(call):
    assert values(f"{FUNCTIONS} {MODEL.replace('@', call)}") == list(CALLS[call])


def test_transformed_parameters_and_generated_quantities_see_it():
    change = "{ real v = 3; if (y > 1) v = -5; if (v <= 2) @ = 2; }"
    code = f"""{FUNCTIONS} {HEAD} parameters {{ real x; real y; }}
    transformed parameters {{ real t = 0; {change.replace("@", "t")} }}
    generated quantities {{ real g = 0; {change.replace("@", "g")} real f = within(y); }}"""
    model = bind(code)
    drawn, _ = model.constrain(np.array([[0.0, y] for y in POINTS]))
    model.close()
    for name in "tgf":
        np.testing.assert_array_equal(drawn[name], [0, 2])


def test_the_model_sees_a_change_in_transformed_parameters():
    code = """parameters { real x; real y; } transformed parameters { real v = 3; if (y > 1) v = -5; }
    model { if (v <= 2) target += 2 * x; }"""
    assert values(f"{HEAD} {code}") == [0, 2]


@pytest.mark.parametrize(
    "body",
    [
        "real v = 3; if (N > 1) v = -5; if (v <= 2) r = 2;",  # by data
        "real v = 0; if (y > 1) v = 1; r = v;",  # decides nothing
        "int v = 3; if (y > 1) v = -5; if (v <= 2) r = 2;",  # scalar integers are seen
    ],
)
def test_other_programs_are_left_as_they_are(body, monkeypatch):
    seen = []
    monkeypatch.setattr(stanli_programs, "stan_to_mir", lambda code: seen.append(code) or "")
    program = Program.from_code(MODEL.replace("@", body + " // as it is\n"))
    stanli_programs.stanli_mir(program)
    stanli_programs._mir.cache_clear()
    assert seen == [program.source]
