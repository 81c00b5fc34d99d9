"""What stanli gets wrong is rewritten before it sees the program, or refused with the place: right numbers or none."""

import itertools
import json

import numpy as np
import pytest
import stanli
from scipy.special import log_ndtr
from scipy.stats import multivariate_normal

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine import stanli_programs
from stan_adapters.engine.stanli_compiler import stan_to_mir
from stan_adapters.engine.stanli_programs import stanli_mir
from stan_adapters.errors import UnsupportedError
from stan_adapters.language.edits import Edit, rewritten
from stan_adapters.language.program import Program
from stan_adapters.rewriting.engine_faults import known_faults
from stan_adapters.samplers import stanli as algorithms

FAULTS = {fault.name: fault for fault in known_faults("stanli")}


def bind(code: str, data: dict | None = None) -> BoundModel:
    program = Program.from_code(code, name="mine")
    return BoundModel(program, read_data(program, data), engine="stanli")


def gradient(code: str, data: dict | None = None, point: list[float] | None = None) -> np.ndarray:
    model = bind(code, data)
    try:
        return model.log_density_gradient(np.zeros(model.dim) if point is None else np.array(point))[1]
    finally:
        model.close()


def for_stanli(code: str) -> str:
    return stanli_programs._for_stanli(Program.from_code(code))


# ---- the table


@pytest.mark.parametrize("name", FAULTS)
def test_the_engine_itself_fails_the_example_of_every_fault_that_the_table_gives_its_version(name):
    fault = FAULTS[name]
    if stanli.__version__ not in fault.seen_in:
        pytest.skip(f"the table says nothing of stanli {stanli.__version__}: the example decides there")
    assert not stanli_programs._passes(fault.example)


@pytest.mark.parametrize("name", FAULTS)
def test_every_example_is_right_or_refused(name):
    fault = FAULTS[name]
    try:
        found = gradient(fault.example.program)
    except UnsupportedError as error:
        assert fault.effect in str(error)  # noqa: PT017
        assert fault.way_out in str(error)  # noqa: PT017
    else:
        np.testing.assert_allclose(found, fault.example.gradient, rtol=1e-10)


ROWS = "transformed data { array[2, 2] int a = rep_array(0, 2, 2); a[2] = {1, 2}; } model { }"


@pytest.mark.parametrize("mended", [True, False])
def test_a_version_that_the_table_does_not_know_is_asked(monkeypatch, mended):
    monkeypatch.setattr(stanli_programs, "_version", lambda: "99.0")
    monkeypatch.setattr(stanli_programs, "_passes", lambda example: mended)
    stanli_programs._rewritten.cache_clear()
    try:
        assert (for_stanli(ROWS) == ROWS) == mended
    finally:
        stanli_programs._rewritten.cache_clear()


def test_a_program_that_has_to_do_with_no_fault_is_not_touched():
    code = "data { int N; } parameters { vector[N] x; } model { for (n in 1:N) x[n] ~ normal(0, 1); }"
    assert for_stanli(code) == code


def test_other_engines_get_the_program_as_it_is():
    assert known_faults("bridgestan") == ()


# ---- entries of integer arrays of three dimensions

CUBE = [[[1, 2], [2, 1]], [[2, 2], [1, 1]]]
DEEP = {
    "an index": "target += v[y[1, i, j]];",
    "an index after a bracket": "target += v[y[1][i, j]];",
    "what is assigned to": "{ vector[2] u = v; u[y[1, i, j]] += v[2]; target += u[1]; }",
    "an index of an index": "target += v[y[y[1, i, j], i, j]];",
    "the end of a loop": "for (k in 1:y[1, i, j]) target += v[k];",
    "a size": "{ vector[y[1, i, j]] u; target += size(u) * v[1]; }",
    "a declared integer": "{ int c = y[1, /* , */ i, j]; target += v[c]; }",
    "four dimensions": "target += v[z[1, 1, i, j]];",
    "an argument": "target += picked(v, y, i, j);",
    "no entry": "target += sum(v[y[1, i]]);",
}


@pytest.mark.parametrize("what", DEEP)
def test_entries_of_integer_arrays_of_three_dimensions_are_read_as_they_are_on_paper(what):
    code = (
        "functions { real picked(vector v, array[,,] int y, int i, int j) { return v[y[1, i, j]]; } } "
        "data { array[2, 2, 2] int y; array[1, 2, 2, 2] int z; } parameters { vector[2] v; } "
        f"model {{ for (i in 1:2) for (j in 1:2) {DEEP[what]} }}"
    )
    expected = {
        "what is assigned to": [4, 2],
        "an index of an index": [3, 1],
        "the end of a loop": [4, 2],
        "a size": [6, 0],
        "no entry": [4, 4],
    }.get(what, [2, 2])
    found = gradient(code, {"y": CUBE, "z": [CUBE]})
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# ---- rows of integers

D = [[1, 2], [3, 4], [5, 6]]
HEAD = "data { array[3, 2] int d; array[3] int k; int two; }"
TAIL = "parameters { real x; } model { target += s * x; }"
DIGITS = "a[1,1] + 10*a[1,2] + 100*a[2,1] + 1000*a[2,2] + 10000*a[3,1] + 100000*a[3,2]"
ASSIGNED = {
    "a[2] = {1, 2};": [[0, 0], [1, 2], [0, 0]],
    "for (i in 1:3) a[i] = d[i];": D,
    "for (i in 1:3) a[k[i]] = d[i];": [D[1], D[2], D[0]],
    "for (i in 1:3) { int q = 4 - i; a[q] = sort_desc(d[i]); }": [[6, 5], [4, 3], [2, 1]],
    "a[k] = d;": [D[1], D[2], D[0]],
    "a[two:3] = d[1:2];": [[0, 0], [1, 2], [3, 4]],
    "a[two] = two > 1 ? {7, 8} : {1, 1};": [[0, 0], [7, 8], [0, 0]],
    "a[1] = d[2]; a[2] = a[1]; a[3]=a[2];": [[3, 4]] * 3,
    "int q = 1; while (q < 4) { a[q] = {q, 2 * q}; q += 1; }": [[1, 2], [2, 4], [3, 6]],
    "for (i in 1:3) if (d[i, 1] > 1) a[i] = d[i]; else a[i] = {9, 9};": [[9, 9], D[1], D[2]],
    "a[2] = append_array(d[1, 1:1], d[3, 2:2]);": [[0, 0], [1, 6], [0, 0]],
    "a = d; a[2] = a[3]; a[3] = a[1]; a[1] = a[2];": [D[2], D[2], D[0]],
    "a[2 /* ] = {0, 0}; */ ] = d[2]; a[2, 1] = 7; // a[1] = {9, 9};\n": [[0, 0], [7, 4], [0, 0]],
    "a[min(k)] = {max(d[2]), size(d)};": [[4, 3], [0, 0], [0, 0]],
    "{ array[2] int a2; a2[1] = 4; a[two] = {a2[1], 5}; }": [[0, 0], [4, 5], [0, 0]],
}
BODY = "array[3, 2] int a = rep_array(0, 3, 2);"
FUNCTION = "(data array[,] int d, data array[] int k, data int two)"
WHERE = {
    "transformed data": f"{HEAD} transformed data {{ {BODY} @ int s = {DIGITS}; }} {TAIL}",
    "a block": f"{HEAD} transformed data {{ int s; {{ {BODY} @ s = {DIGITS}; }} }} {TAIL}",
    "a function": f"functions {{ int f{FUNCTION} {{ {BODY} @ return {DIGITS}; }} }} {HEAD} "
    f"transformed data {{ int s = f(d, k, two); }} {TAIL}",
    "functions": f"functions {{ array[,] int g{FUNCTION} {{ {BODY} @ return a; }} "
    f"int f{FUNCTION} {{ array[3, 2] int a = g(d, k, two); return {DIGITS}; }} }} {HEAD} "
    f"transformed data {{ int s = f(d, k, two); }} {TAIL}",
    "a function of the model": f"functions {{ int f{FUNCTION} {{ {BODY} @ return {DIGITS}; }} }} {HEAD} "
    "parameters { real x; } model { target += f(d, k, two) * x; }",
    "model": f"{HEAD} parameters {{ real x; }} model {{ {BODY} @ target += ({DIGITS}) * x; }}",
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("code", ASSIGNED)
def test_rows_of_integers_are_kept(code, where):
    truth = sum(10**i * entry for i, entry in enumerate(itertools.chain(*ASSIGNED[code])))
    assert gradient(WHERE[where].replace("@", code), {"d": D, "k": [3, 1, 2], "two": 2}) == [truth]


def test_rows_of_integers_are_kept_in_generated_quantities():
    model = bind(
        "parameters { real x; } generated quantities { int s; "
        "{ array[3, 2] int a; for (i in 1:3) a[i] = {1, 2}; s = a[1, 1] + a[2, 2]; } }"
    )
    drawn, _ = model.constrain(np.zeros((1, 1)))
    assert drawn["s"] == 3


def test_sampling_sees_the_rewritten_program():
    code = (
        "transformed data { array[2, 2] int a = rep_array(0, 2, 2); a[2] = {1, 30}; int s = a[2, 2]; } "
        "parameters { real x; } model { x ~ normal(s, 0.001); }"
    )
    assert abs(algorithms.nuts(bind(code), seed=1, chains=1, warmup=150, draws=10).theta.mean() - 30) < 0.01


def test_rewriting_keeps_lines():
    code = "functions\n{\n}\ntransformed data {\n array[1, 1] int a;\n a[\n1\n] = {1};\n"
    code += " for (\nr in\n a)\n print(r);\n}"
    lines = for_stanli(code).splitlines()
    assert len(lines) == len(code.splitlines())
    assert lines[11].startswith(" { array[dims(a)[2]] int r = a[")
    assert lines[11].endswith("print(r); }")


@pytest.mark.parametrize("kind", ["int", "real"])
@pytest.mark.parametrize(
    ("rows", "truth"),
    [("d[{2, 1}]", 143), ("d[k[1:2]]", 165), ("a[which]", 143), ("(d)[which]", 143), ("d3[which][2]", 321)],
)
def test_rows_are_chosen_by_arrays_of_indices(rows, truth, kind):
    code = f"""
    data {{ array[3, 2] {kind} d; array[2, 3, 2] {kind} d3; array[3] int k; }} parameters {{ real x; }}
    model {{
      array[2] int which = {{2, 1}};
      array[3, 2] {kind} a = d;
      array[{3 if "d3" in rows else 2}, 2] {kind} r = {rows};
      target += (r[1, 1] + 10 * r[1, 2] + 100 * r[2, 1]) * x;
    }}"""
    assert gradient(code, {"d": D, "d3": [D, D], "k": [3, 1, 2]}) == [truth]


# ---- loops over containers

CONTAINERS = (
    "array[3, 2] int d; array[2, 3, 2] int d3; array[3, 2] real r2; array[3] vector[2] v; array[3] row_vector[2] rv; "
    "array[2] matrix[3, 2] m; array[2, 0] int none; array[3] simplex[2] p; matrix[3, 2] one;"
)
P = [[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]]
LOOPS = {
    "for (r in d) s += r[2];": 12,
    "for (r in d3) s += sum(r[2]);": 14,
    "for (r in d3[1]) s += r[2];": 12,
    "for (r in d3) for (q in r) s += q[1];": 18,
    "for (r in d3) for (q in r) for (z in q) s += z;": 42,
    "for (r in d[1:2]) s += r[2];": 6,
    "for (r in d[, 1]) s += r;": 9,
    "for (r in r2) { s += r[2]; }": 12,
    "for (r in (v)) s += r[2];": 12,
    "for (r in rv) s += sum(r);": 21,
    "for (r in m) s += r[3, 2];": 12,
    "for (r in none) s += 1;": 2,
    "for (r in p) s += r[1];": 1.5,
    "for (r in one) s += r;": 21,
    "for (r in to_array_1d(d)) s += r;": 21,
    "for (r in one') s += r;": 21,
    "for (r in {2, 3}) s += r;": 5,
    "for (r in d) if (r[1] > 1) for (q in r) s += q; else s += 100;": 118,
}


@pytest.mark.parametrize("where", ["transformed data", "a function", "model"])
@pytest.mark.parametrize("code", LOOPS)
def test_loops_over_containers_see_every_entry(code, where):
    arguments = (
        "array[,] int d, array[,,] int d3, array[,] real r2, array[] vector v, array[] row_vector rv, "
        "array[] matrix m, array[,] int none, array[] vector p, matrix one"
    )
    program = {
        "transformed data": f"data {{ {CONTAINERS} }} transformed data {{ real s = 0; {code} }} {TAIL}",
        "a function": f"functions {{ real f({arguments}) {{ real s = 0; {code} return s; }} }} data {{ {CONTAINERS} }} "
        f"transformed data {{ real s = f(d, d3, r2, v, rv, m, none, p, one); }} {TAIL}",
        "model": f"data {{ {CONTAINERS} }} parameters {{ real x; }} model {{ real s = 0; {code} target += s * x; }}",
    }[where]
    data = {"d": D, "d3": [D, D], "r2": D, "v": D, "rv": D, "m": [D, D], "none": [[], []], "p": P, "one": D}
    assert gradient(program, data) == [LOOPS[code]]


def test_a_loop_over_what_has_no_declared_type_is_refused_with_its_place():
    code = "data { array[3, 2] int d; }\ntransformed data {\n  real s = 0;\n"
    code += "  for (r in append_array(d, d)) s += r[1];\n}\n" + TAIL
    with pytest.raises(
        UnsupportedError, match=r"mine\.stan:4:3: stanli .*`for \(row in rows\)`.*to a variable first"
    ):
        bind(code, {"d": D})


def test_a_loop_whose_container_changes_with_it_is_refused():
    code = "transformed data { array[3, 2] int d = rep_array(1, 3, 2); for (r in d[1:2]) d[2, 1] = r[1]; } model { }"
    with pytest.raises(UnsupportedError, match="to a variable first"):
        bind(code)


# ---- kernels

X = np.array([[0.0, 1.0], [0.5, 0.2], [1.0, 2.0], [-1.0, 0.3]])
WEIGHTS = np.array([[1, 2, -1, 3], [0.5, 1, 2, 0], [3, 1, 1, 1], [0.2, 0.4, 0.1, 2]])
KERNELS = {
    "gp_exp_quad_cov": lambda r: np.exp(-(r**2) / 2),
    "gp_matern32_cov": lambda r: (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r),
    "gp_matern52_cov": lambda r: (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r),
    "gp_exponential_cov": lambda r: np.exp(-r),
}
KERNEL_DATA = "data { array[4] vector[2] x; matrix[4, 4] w; array[2] real l0; real s0; }"
KERNEL_PARAMETERS = "parameters { real<lower=0> s; array[2] real<lower=0> l; }"
CALLS = {
    "model": "@ # model { target += sum(w .* K(x, s, l)); }",
    "a literal": "@ # model { target += sum(w .* K(x, s, {l[1], l[2]})); }",
    "an expression": "@ # model { target += sum(w .* K(x[1:4], s, exp(log(l)))); }",
    "transformed parameters": "@ # transformed parameters { matrix[4, 4] k = K(x, s, l); } "
    "model { target += sum(w .* k); }",
    "a function": "functions { matrix k(array[] vector x, real s, array[] real l) { return K(x, s, l); } } "
    "@ # model { target += sum(w .* k(x, s, l)); }",
    "inside another call": "@ # model { target += sum(w .* add_diag(K(x, s, l), 0.0)); }",
}


def kernel(name: str, scale: float, lengths: np.ndarray) -> np.ndarray:
    distances = np.sqrt((((X[:, None] - X[None]) / lengths) ** 2).sum(-1))
    return scale**2 * KERNELS[name](distances)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("call", CALLS)
def test_kernels_take_every_length_scale(name, call):
    point = np.array([0.1, 0.3, -0.4])

    def log_density(theta):
        return (WEIGHTS * kernel(name, np.exp(theta[0]), np.exp(theta[1:]))).sum() + theta.sum()

    code = CALLS[call].replace("@", KERNEL_DATA).replace("#", KERNEL_PARAMETERS).replace("K(", f"{name}(")
    model = bind(code, {"x": X, "w": WEIGHTS, "l0": [0.7, 1.9], "s0": 1.3})
    value, found = model.log_density_gradient(point)
    steps = 1e-6 * np.eye(3)
    truth = [(log_density(point + step) - log_density(point - step)) / 2e-6 for step in steps]
    assert value == pytest.approx(log_density(point), rel=1e-12)
    np.testing.assert_allclose(found, truth, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_data_take_every_length_scale(name):
    data = {"x": X, "w": WEIGHTS, "l0": [0.7, 1.9], "s0": 1.3}
    code = f"{KERNEL_DATA} transformed data {{ real s = sum(w .* {name}(x, s0, l0)); }} "
    code += "parameters { real y; } model { target += s * y; }"
    truth = (WEIGHTS * kernel(name, 1.3, np.array([0.7, 1.9]))).sum()
    np.testing.assert_allclose(gradient(code, data), [truth], rtol=1e-12)


def test_kernels_of_one_length_scale_are_not_touched():
    code = f"{KERNEL_DATA} {KERNEL_PARAMETERS} model {{ target += sum(gp_exp_quad_cov(x, s, l[2])); }}"
    assert for_stanli(code) == code


def test_names_of_the_program_are_not_taken():
    code = (
        CALLS["model"]
        .replace("@", KERNEL_DATA)
        .replace("#", KERNEL_PARAMETERS)
        .replace("K(", "gp_exp_quad_cov(")
    )
    taken = code.replace("model {", "model { real exact = 0; real xexact_gp_exp_quad_cov = exact;")
    stan_to_mir(for_stanli(taken))


# ---- returns

RETURNS = {
    "from the loop": ("int q = 1; while (q < 100) { q *= 2; if (q > n) return q; } return -1;", 8, -1),
    "one of two": (
        "int q = 1; while (q < 99) { q *= 2; if (q > n) return q; if (q == 64) return 5; } return -1;",
        8,
        5,
    ),
    "with more behind it": (
        "int q = 1; while (q < 100) { q *= 2; if (q > n) return q; } q += 3; return -q;",
        8,
        -131,
    ),
    "from an endless loop": ("int q = 1; while (1) { q *= 2; if (q > n) return q; }", 8, 1024),
    "within for": (
        "int c = 0; for (i in 1:5) { int q = 1; while (q < 20) { q *= 2; c += 1; if (c > n) return q + 10 * i; } } "
        "return -c;",
        28,
        -25,
    ),
    "within for, without braces": (
        "int c = 0; for (i in 1:5) while (c < 5 * i) { c += 1; if (c > n) return c + 10 * i; } return -c;",
        28,
        -25,
    ),
    "from a for in it": (
        "int q = 1; while (q < 100) { q += 1; for (i in 1:3) if (q * i > n) return q * 10 + i; } return -1;",
        33,
        -1,
    ),
    "from a while in it": (
        "int q = 1; while (q < 10) { int r = 0; q += 1; while (r < 3) { r += 1; if (q * r > n) return q * 10 + r; } } "
        "return -1;",
        33,
        -1,
    ),
    "in a branch": (
        "int q = 1; if (n < 50) while (q < 100) { q *= 2; if (q > n) return q; } else return 3; return -1;",
        8,
        3,
    ),
    "as its only statement": ("int q = 1; while (q < 100) return q + n; return -1;", 8, 1001),
}
CALLED = {
    "model": "parameters { real y; } model { target += f(n) * y; }",
    "transformed data": "transformed data { int s = f(n); } parameters { real y; } model { target += s * y; }",
    "both": "transformed data { int s = f(n); } parameters { real y; } model { target += (s + f(n)) / 2 * y; }",
}


@pytest.mark.parametrize("where", CALLED)
@pytest.mark.parametrize("name", RETURNS)
def test_a_return_within_while_ends_the_function(name, where):
    body, *truths = RETURNS[name]
    for n, truth in zip((7, 1000), truths, strict=True):
        found = gradient(
            f"functions {{ int f(int n) {{ {body} }} }} data {{ int n; }} {CALLED[where]}", {"n": n}
        )
        assert found == [truth]


@pytest.mark.parametrize("head", ["while (1)", "while (it < 50)"])
def test_a_return_within_while_may_depend_on_parameters(head):
    """Newton's iteration for the square root of exp(y)."""
    code = f"""
    functions {{
      real root(real a) {{
        real x = 1;
        int it = 0;
        {head} {{
          real next = (x + a / x) / 2;
          it += 1;
          if (abs(next - x) < 1e-12) return next;
          x = next;
        }}
        return 0;
      }}
    }}
    parameters {{ real y; }} model {{ target += root(exp(y)); }}"""
    np.testing.assert_allclose(gradient(code, point=[0.7]), [np.exp(0.35) / 2], rtol=1e-12)


def test_a_return_of_a_container_within_while_is_refused_with_its_place():
    code = "functions { vector f(int n) {\n while (1) {\n  if (n > 0) return [n, 1]';\n }\n} }\n"
    with pytest.raises(UnsupportedError, match=r"mine\.stan:3:14: stanli .*`return` within `while`.*`break`"):
        bind(code + "parameters { real x; } model { target += f(7)[1] * x; }")
    prepared = "transformed data { real s = f(7)[1]; }"
    assert gradient(f"{code}{prepared} {TAIL}") == [7]  # where it is right


VOID = {
    "alone": ('if (n > 0) return; reject("no");', 0),
    "in braces": ("if (n > 0) { target += a; return; } target += 10 * a;", 1),
    "not taken": ("if (n < 0) return; target += 10 * a;", 10),
    "before else": ("if (n < 0) return; else target += 2 * a; real b = a; target += 10 * b;", 12),
    "twice": ("if (n < 0) { return; } target += a; if (n > 0) return; target += 10 * a;", 1),
    "by parameters": ("if (a > 0.5) return; target += 10 * a;", 0),
    "at the end": ("if (n < 0) target += 5 * a; else target += 3 * a; return;", 3),
    "at the end of both branches": (
        "if (n < 0) { target += 5 * a; return; } else { target += 3 * a; return; }",
        3,
    ),
    "else, taken": ("if (n < 0) target += a; else return; target += 10 * a;", 0),
    "else, not taken": ("if (n > 0) target += a; else return; real b = a; target += 10 * b;", 11),
    "else, by parameters": ("if (a < 0.5) target += a; else return; target += 10 * a;", 0),
    "in a chain": ("if (n < 0) return; else if (n > 0) return; target += 10 * a;", 0),
    "in a block": ("target += a; { if (a > 0.5) return; } target += 10 * a;", 1),
    "at the end of a branch": ("if (a > 0.5) { target += a; if (n > 0) return; } target += 10 * a;", 1),
}


@pytest.mark.parametrize("name", VOID)
def test_an_early_return_ends_a_void_function(name):
    body, truth = VOID[name]
    code = f"functions {{ void f_lp(int n, real a) {{ {body} }} }} parameters {{ real x; }} model {{ f_lp(1, x); }}"
    assert gradient(code, point=[1.0]) == [truth]


def test_a_return_of_a_void_function_from_a_loop_is_refused_with_its_place():
    code = "functions { void f_lp(real a) { for (i in 1:3) { if (i > 1) return; target += a; } } }\n"
    with pytest.raises(UnsupportedError, match=r"mine\.stan:1:61: .*`return;`.*else"):
        bind(code + "parameters { real x; } model { f_lp(x); }")


# ---- functions

PROBIT = "data { array[3] int y; vector[3] c; } parameters { real eta; } model { @ }"


@pytest.mark.parametrize(
    "statement", ["target += ordered_probit_lpmf(y | eta, c);", "y ~ ordered_probit(eta, c);"]
)
def test_ordered_probit_counts_every_outcome(statement):
    cuts, y, eta = np.array([-1.0, 0.0, 1.0]), np.array([2, 3, 1]), 0.3
    edges = np.array([-np.inf, *cuts, np.inf])
    truth = np.log(np.exp(log_ndtr(edges[y] - eta)) - np.exp(log_ndtr(edges[y - 1] - eta))).sum()
    model = bind(PROBIT.replace("@", statement), {"y": y, "c": cuts})
    assert model.log_density_gradient(np.array([eta]))[0] == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize(
    "statement",
    [
        "target += multi_gp_lpdf(y | S * exp(a), w);",
        "y ~ multi_gp(S * exp(a), w);",
        "target += multi_gp_cholesky_lpdf(y | cholesky_decompose(S * exp(a)), w);",
        "y ~ multi_gp_cholesky(cholesky_decompose(S * exp(a)), w);",
    ],
)
def test_multi_gp_takes_any_number_of_rows(statement):
    y, weights = np.array([[1, 2, 0.5], [0.3, -1, 2]]), np.array([0.5, 2])
    S = np.array([[2, 0.3, 0.1], [0.3, 1, 0.2], [0.1, 0.2, 1.5]])

    def log_density(a):
        return sum(
            multivariate_normal(np.zeros(3), S * np.exp(a) / weight).logpdf(row)
            for row, weight in zip(y, weights, strict=True)
        )

    code = f"data {{ matrix[2, 3] y; matrix[3, 3] S; vector[2] w; }} parameters {{ real a; }} model {{ {statement} }}"
    found = gradient(code, {"y": y, "S": S, "w": weights}, [0.3])
    np.testing.assert_allclose(found, [(log_density(0.3 + 1e-5) - log_density(0.3 - 1e-5)) / 2e-5], rtol=1e-8)


def test_student_t_lccdf_of_containers_is_refused_in_transformed_data_alone():
    several, one = "student_t_lccdf([0, 0]' | 3, 0, 1)", "student_t_lccdf(0 | 3, 0, 1)"
    with pytest.raises(UnsupportedError, match=r"mine\.stan:1:29: .*first entry of containers.*loop"):
        bind(f"transformed data {{ real s = {several}; }} {TAIL}")
    np.testing.assert_allclose(
        gradient(f"transformed data {{ real s = {one}; }} {TAIL}"), [np.log(0.5)], rtol=1e-12
    )
    found = gradient(f"parameters {{ real x; }} model {{ target += x * {several}; }}")
    np.testing.assert_allclose(found, [2 * np.log(0.5)], rtol=1e-12)


GLMS = {
    "bernoulli_logit_glm": ([1, 0, 1], lambda y, eta: y * eta - np.log1p(np.exp(eta)), ""),
    "poisson_log_glm": ([3, 0, 1], lambda y, eta: y * eta - np.exp(eta), ""),
    "neg_binomial_2_log_glm": ([3, 0, 1], lambda y, eta: y * eta - (y + 2) * np.log(np.exp(eta) + 2), ", 2"),
}


@pytest.mark.parametrize("alpha", ["a[1]", "a"])
@pytest.mark.parametrize("name", GLMS)
def test_linear_models_take_one_row_of_predictors(name, alpha):
    outcomes, log_mass, further = GLMS[name]
    code = f"""
    data {{ array[3] int y; row_vector[2] x; }} parameters {{ vector[3] a; vector[2] b; }}
    model {{ y ~ {name}(x, {alpha}, b{further}); }}"""
    y, x, point = np.array(outcomes), np.array([1.0, -2.0]), np.array([0.3, -0.2, 0.5, 0.7, 0.1])

    def log_density(theta):
        return log_mass(y, (theta[0] if alpha == "a[1]" else theta[:3]) + x @ theta[3:]).sum()

    truth = [(log_density(point + step) - log_density(point - step)) / 2e-6 for step in 1e-6 * np.eye(5)]
    np.testing.assert_allclose(gradient(code, {"y": y, "x": x}, point), truth, rtol=1e-7, atol=1e-8)


# ---- text


def test_functions_go_into_the_block_that_is_there():
    assert rewritten("// functions {\nfunctions /* a */ { }", (), "int f() {\n return 1; }") == (
        "// functions {\nfunctions /* a */ { int f() { return 1; }  }"
    )
    assert rewritten("model { }", (Edit(7, 7, " x;"),), "int f();") == "functions { int f(); } model { x; }"


def test_errors_of_the_compiler_show_the_users_own_line():
    code = ROWS.replace("model { }", "model { b ~ normal(0, 1); }")
    with pytest.raises(Exception, match=r"b ~ normal\(0, 1\)") as caught:
        stanli_mir(Program.from_code(code))
    assert "a[2] = {1, 2}" in str(caught.value)
    assert json.dumps(str(caught.value)).count("a[2, ]") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "target += reduce_sum(part_lpmf, y[2], 1, x);",
        "for (i in 1:2) if (i == 2) target += reduce_sum(part_lupmf, y[i, ], 1, x); else target += 0;",
        "real s = reduce_sum_static(part_lpmf, y[{2, 1}, 3], 1, x) + reduce_sum(part_lpmf, y[2, 1:2], 1, x); "
        "target += s + (y[2, 3] - y[1, 3] - y[2, 3]) * x;",
        "target += of_a_row(y, 2, x);",
    ],
)
def test_slices_of_integers_are_summed_in_parts(statement):
    code = f"""functions {{
      real part_lpmf(array[] int n, int start, int end, real x) {{ return poisson_log_lpmf(n | x) + size(n) * exp(x); }}
      real of_a_row(array[,] int n, int i, real x) {{ return reduce_sum(part_lpmf, n[i], 1, x); }}
    }}
    data {{ array[2, 3] int y; }} parameters {{ real x; }} model {{ {statement} }}"""
    data = {"y": [[1, 2, 3], [4, 5, 6]]}
    np.testing.assert_allclose(gradient(code, data), [4 + 5 + 6], rtol=1e-12)
