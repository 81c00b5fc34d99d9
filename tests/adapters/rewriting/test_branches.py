"""A variable that changes in a branch on parameters is what it is now, wherever stanli asks for it later."""

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine import stanli_programs
from stan_adapters.errors import UnsupportedError
from stan_adapters.language.program import Program

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


DENSITIES = """functions {
  real foo_lpdf(real y, real v) { if (v < 0) return 2; return 7; }
  real bar_lpmf(int n, real v) { if (v < 0) return 2; return 7; }
  real vec_lpdf(real y, vector v) { if (v[2] < 0) return 2; return 7; }
  real part(array[] int s, int first, int last, real v) { real t = 0; for (i in s) t += v < 0 ? 2 : 7; return t; }
  real parts(array[] int s, int first, int last, vector v) {
    real t = 0;
    for (i in s) t += v[i] < 0 ? 2 : 7;
    return t;
  }
  real part_lpmf(array[] int s, int first, int last, real v) { if (v < 0) return 2; return 7; }
  real empty(array[] real e, array[] vector z, real y) {
    real v = 3; if (y > 1) v = -5; if (v < 0) return 2; return 7;
  }
  int flag(real y) { real v = 3; if (y > 1) v = -5; return v < 0; }
  void within_lp(real x, real y) { real v = 3; if (y > 1) v = -5; x ~ scaled(v); }
  real scaled_lpdf(real x, real v) { if (v < 0) return 2 * x; return 7 * x; }
}"""
CHANGED = "real v = 3; if (y > 1) v = -5;"
OF_DENSITIES = {
    f"{CHANGED} r = foo_lpdf(y | v);": (7, 2),
    f"{CHANGED} r = foo_lupdf(y | v);": (7, 2),
    f"{CHANGED} r = bar_lupmf(1 | v);": (7, 2),
    f"{CHANGED} x ~ scaled(v);": (7, 2),
    "vector[2] v = [3, 3]'; if (y > 1) v[2] = -5; r = vec_lupdf(y | v);": (7, 2),
    f"{CHANGED} r = reduce_sum(part, {{1, 2, 3}}, 1, v);": (21, 6),
    "vector[3] v = [3, 3, 3]'; if (y > 1) v[2] = -5; r = reduce_sum(parts, {1, 2, 3}, 1, v);": (21, 16),
    f"{CHANGED} r = reduce_sum(part_lpmf, {{1}}, 1, v);": (7, 2),
    "within_lp(x, y);": (7, 2),
    "array[0] real e; array[0] vector[2] z; r = empty(e, z, y);": (7, 2),
    "r = flag(y);": (0, 1),
}


@pytest.mark.parametrize("body", OF_DENSITIES)
def test_densities_and_functions_passed_on_see_a_change_in_a_branch(body):
    assert values(f"{DENSITIES} {MODEL.replace('@', body)}") == list(OF_DENSITIES[body])


def test_an_outcome_that_decides_in_its_density_is_what_it_is_now():
    density = "functions { real bar_lpdf(real v, real x) { if (v < 0) return 2 * x; return 7 * x; } }"
    assert values(f"{density} {MODEL.replace('@', CHANGED + ' v ~ bar(x);')}") == [7, 2]


def test_empty_arrays_of_parameters_do_not_matter():
    code = """data { int N; } parameters { array[N] real z; array[N] vector[2] w; vector[1] x; }
    model { real v = 3; if (x[1] < 1) v = -5; target += v < 0 ? 2 * x[1] : 7 * x[1]; }"""
    program = Program.from_code(code)
    with BoundModel(program, read_data(program, {"N": 0}), engine="stanli") as model:
        assert [float(model.log_density_gradient(np.array([x]))[1][0]) for x in (0.3, 1.6)] == [2, 7]


DRAW = "real y = normal_rng(100, 1);"
QUANTITIES = {  # of x = 0.3; s is asked for
    "real z = 0; if (x > 0) z = 1; int s = z > 0.5;": 1,
    "real v = 3; if (x < 1) v = -5; real s = v < 0 ? 2 : 7;": 2,
    "real v = 3; if (x < 1) v = -5; real s = 7; if (v < 0) s = 2;": 2,
    "real c = 0; for (i in 1:3) if (x < i) c += 1; int s = c > 2;": 1,
    f"{DRAW} real v = 0; if (y > 50) v = 1; int s = v > 0.5;": 1,
    "vector[2] v = [3, 4]'; if (x < 1) v[1] = -5; int s = v[1] < 0;": 1,
    "real v = 0; for (i in 1:5) { if (i > 10 * x + 0.5) break; v += 1; } int s = v > 2.5;": 1,
    "int s = t < 0;": 1,
    """array[2, 2] int a = rep_array(0, 2, 2); if (x > 0) a[2] = {5, 6}; else a[1] = {1, 1};
    int s = a[2, 1] * 10 + a[2, 2] + a[1, 1];""": 56,
    f"real v = 3; {{ {DRAW} if (y > 50) v = 60; }} int s = v > 50;": 1,
    "real v = 3; { int k = poisson_rng(100); v = k; } int s = v > 20;": 1,
    "real v = 3; int k; { k = poisson_rng(100); v = k; } real s = v > 20 ? 1 : 0;": 1,
    """array[3] int n = rep_array(0, 3); for (i in 1:3) { int k = categorical_rng([0, 0, 1]'); n[k] += 1; }
    int s = n[3];""": 3,
    "array[2] int k = {1, 1}; if (x < 1) k[2] = 2; real s = 0; for (q in k) s += q;": 3,
    "array[2] int k = {1, 1}; if (x < 1) k[2] = 3; real s = max(k) + num_elements(rep_vector(1, k[2]));": 6,
    "array[2] int k = {1, 1}; if (x < 1) k[2] = 0; real s = bernoulli_lpmf(k | 0.5) / log(0.5);": 2,
    "int s = by_data_rng(100);": 1,
    "array[2] int k = {1, 1}; if (x < 1) k[2] = 3; real s = 0; for (i in 1:k[2]) s += 1;": 3,
    "array[2] int k = {1, 1}; if (x < 1) k[2] = 3; vector[3] w = [1, 2, 9]'; real s = w[k[2]];": 9,
    "array[2] int k = {1, 1}; if (x < 1) k[2] = 3; vector[3] w = [1, 2, 9]'; real s = sum(w[k]);": 10,
    "real s = 0; { if (x < 1) { real r = 0; if (x < 0.5) r = 1; if (r > 0.5) s = 2; } }": 2,
}


@pytest.mark.parametrize("body", QUANTITIES)
def test_generated_quantities_see_changes_by_parameters_and_random_numbers(body):
    code = f"""functions {{
      int by_data_rng(real m) {{ real v = 0; if (normal_rng(m, 1) > 50) v = 3; return v > 2; }}
    }}
    parameters {{ real x; }} transformed parameters {{ real t = 3; if (x < 1) t = -5; }}
    model {{ real r = 3; x ~ normal(r, 1); }} generated quantities {{ {body} }}"""
    program = Program.from_code(code)
    with BoundModel(program, read_data(program, {}), engine="stanli") as model:
        drawn, _ = model.constrain(np.array([[0.3]]))
    np.testing.assert_array_equal(drawn["s"], [QUANTITIES[body]])


def test_a_generated_quantity_that_can_only_be_wrong_is_refused_with_its_place():
    code = """parameters { real x; } model { x ~ normal(0, 1); }
    generated quantities { complex v = 3; if (x < 1) v = -5; int s = get_real(v) < 0; }"""
    program = Program.from_code(code, name="mine")
    with BoundModel(program, read_data(program, {}), engine="stanli") as model:
        assert float(model.log_density_gradient(np.array([0.3]))[1][0]) == -0.3
        with pytest.raises(UnsupportedError, match=r"mine\.stan:2:\d+: .*old value"):
            model.constrain(np.array([[0.3]]))


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
