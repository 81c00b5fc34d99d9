"""Programs rewritten for stanli reject what Stan rejects, and rewritings of the same place go together."""

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine import stanli_programs
from stan_adapters.engine.stanli_programs import stanli_mir
from stan_adapters.errors import EngineError, UnsupportedError
from stan_adapters.language.edits import Edit, rewritten
from stan_adapters.language.program import Program
from stan_adapters.rewriting.engine_faults import known_faults
from stan_adapters.rewriting.remedies import Remedy


def bind(code: str, data: dict | None = None) -> BoundModel:
    program = Program.from_code(code, name="mine")
    return BoundModel(program, read_data(program, data), engine="stanli")


def density(code: str, point: float) -> tuple[float, np.ndarray]:
    model = bind(code)
    try:
        return model.log_density_gradient(np.array([point]))
    finally:
        model.close()


def generated(code: str) -> dict[str, np.ndarray]:
    return bind(code).constrain(np.zeros((1, 1)))[0]


# ---- kernels

INPUTS = "array[2] vector[2] z = {[0, 0]', [1, 2]'};"
KERNELS = {
    "gp_exp_quad_cov": lambda r: np.exp(-(r**2) / 2),
    "gp_matern32_cov": lambda r: (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r),
    "gp_matern52_cov": lambda r: (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r),
    "gp_exponential_cov": lambda r: np.exp(-r),
}
OUTSIDE = [-0.3, 0.0, np.inf, np.nan]
WORDS = {"gp_exp_quad_cov": "marginal standard deviation"}


def of_parameters(kernel: str, arguments: str) -> str:
    return f"parameters {{ real x; }} model {{ {INPUTS} target += {kernel}(z, {arguments})[1, 2]; }}"


def of_data(kernel: str, arguments: str) -> str:
    return (
        f"transformed data {{ {INPUTS} real s = {kernel}(z, {arguments})[1, 2]; }} "
        "parameters { real x; } model { target += s * x; }"
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_length_scales_within_the_support_count(kernel):
    def truth(scale):
        return 1.5**2 * KERNELS[kernel](np.sqrt(1 / scale**2 + 1))

    value, gradient = density(of_parameters(kernel, "1.5, {x, 2}"), 0.3)
    assert value == pytest.approx(truth(0.3), rel=1e-12)
    assert gradient == pytest.approx((truth(0.3 + 1e-6) - truth(0.3 - 1e-6)) / 2e-6, rel=1e-7)
    of_scales = density(of_data(kernel, "1.5, {0.3, 2}"), 0.0)[1]
    assert of_scales == pytest.approx(truth(0.3), rel=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("arguments", ["1.0, {x, 2}", "1.0, {2, x}", "x, {1, 2}"])
def test_what_is_not_positive_and_finite_is_rejected(kernel, arguments):
    model = bind(of_parameters(kernel, arguments))
    values = [model.log_density_gradient(np.array([point]))[0] for point in (*OUTSIDE, 0.3)]
    assert values[:-1] == [-np.inf] * len(OUTSIDE)
    assert np.isfinite(values[-1])  # and a rejected point does not hold up the next


@pytest.mark.parametrize("kernel", KERNELS)
def test_data_outside_the_support_end_with_the_words_of_stan(kernel):
    with pytest.raises(
        EngineError, match=rf"{kernel}: length scale\[2\] is -0\.3, but must be positive finite!"
    ):
        bind(of_data(kernel, "1.0, {1, -0.3}"))
    said = rf"{kernel}: {WORDS.get(kernel, 'magnitude')} is 0, but must be positive finite!"
    with pytest.raises(EngineError, match=said):
        bind(of_data(kernel, "0.0, {1, 2}"))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scales", ["{1.0}", "{1.0, 2, 3}"])
def test_there_is_one_length_scale_for_each_dimension(kernel, scales):
    count = scales.count(",") + 1
    said = rf"{kernel}: x dimension \(2\) and number of length scales \({count}\) must match in size"
    with pytest.raises(EngineError, match=said):
        bind(of_data(kernel, f"1.0, {scales}"))
    value, _ = density(of_parameters(kernel, f"1.0, {scales.replace('1.0', 'exp(x)')}"), 0.0)
    assert value == -np.inf


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_inputs_stan_looks_at_the_scales_of_the_squared_exponential_alone(kernel):
    code = f"parameters {{ real x; }} model {{ array[0] vector[2] z; target += x + sum({kernel}(z, 1.0, {{x, 2}})); }}"
    assert density(code, 0.5)[0] == 0.5
    assert density(code, -0.5)[0] == (-np.inf if kernel == "gp_exp_quad_cov" else -0.5)


def test_a_generated_kernel_outside_the_support_is_not_a_number():
    code = (
        "parameters { real x; } "
        f"generated quantities {{ real s; {{ {INPUTS} s = gp_exp_quad_cov(z, 1, {{1.0, 2}})[1, 2]; }} }}"
    )
    assert generated(code)["s"] == pytest.approx(np.exp(-1))
    assert np.isnan(generated(code.replace("{1.0, 2}", "{-1.0, 2}"))["s"])


# ---- rewritings of the same place

ROWS = "array[3, 2] int a = {{1, 2}, {3, 4}, {5, 6}}; array[2] int w = {3, 1};"
OVER_ROWS = {
    "for (r in a[w]) s = 10 * s + r[2];": 62,
    "for (r in a[w]) { s = 100 * s + 10 * r[1] + r[2]; }": 5612,
    "for (\nr // a[w])\n in\n a[w /* , */]\n)\n s = 10 * s + r[2];": 62,
    "for (r in a[w]) for (q in r) s = 10 * s + q;": 5612,
    "for (r in (a)[w]) for (q in a[w]) s += r[2] * q[1];": 48,
    "for (r in a[w][1:1]) s = 10 * s + r[2];": 6,
    "for (r in a[w]) { array[2, 2] int b = a[w]; s = 100 * s + 10 * r[1] + b[1, 2]; }": 5616,
}
WHERE = {
    "generated quantities": "parameters { real x; } generated quantities { int s = 0; { @ } }",
    "a function": "functions { int f() { int s = 0; @ return s; } } parameters { real x; } "
    "generated quantities { int s = f(); }",
    "a function of all blocks": "functions { int f() { int s = 0; @ return s; } } transformed data { int t = f(); } "
    "parameters { real x; } model { target += (f() - t) * x; } generated quantities { int s = f(); }",
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("loop", OVER_ROWS)
def test_loops_over_rows_that_are_chosen_see_every_row(loop, where):
    assert generated(WHERE[where].replace("@", f"{ROWS} {loop}"))["s"] == OVER_ROWS[loop]


def test_loops_over_what_a_function_makes_of_a_kernel():
    code = f"""
    functions {{ array[] vector f(matrix k) {{ return {{k[1]', k[2]'}}; }} }}
    parameters {{ real x; }}
    generated quantities {{
      real s = 0;
      {{ {INPUTS} for (r in f(gp_exp_quad_cov(z, 1, {{1.0, 2}}))) s = 10 * s + r[1]; }}
    }}"""
    assert generated(code)["s"] == pytest.approx(10 + np.exp(-1), rel=1e-12)


AROUND_ONE_STATEMENT = {
    "a loop over rows around a return within while": (
        "int f(int n) { array[2, 2] int a = {{1, 2}, {5, 6}}; "
        "for (r in a) while (r[1] < n) { if (r[2] > 3) return r[1]; break; } return -1; }",
        "f(3) + 10 * f(7)",
        -1 + 10 * 5,
    ),
    "a return within while around a branch on parameters": (
        "real f(int n, real x) { real v = 3; "
        "if (n > 0) while (1) { if (x < 1) v = -5; if (v <= 2) return 7; return 8; } return v; }",
        "f(1, x) + 10 * f(0, x) + 100 * f(1, x + 2)",
        7 + 10 * 3 + 100 * 8,
    ),
}


@pytest.mark.parametrize("name", AROUND_ONE_STATEMENT)
def test_rewritings_around_one_statement_are_nested(name):
    function, calls, truth = AROUND_ONE_STATEMENT[name]
    code = f"functions {{ {function} }} parameters {{ real x; }} "
    model = "model { target += x; } generated quantities { real s = @; }"
    assert generated(code + model.replace("@", calls))["s"] == truth


def test_edits_around_one_node_are_nested_the_first_outermost():
    edits = (
        Edit(2, 2, "{", (1, -3)),
        Edit(3, 3, "}", (0, -2)),
        Edit(2, 2, "[", (1, -3)),
        Edit(3, 3, "]", (0, -2)),
    )
    assert rewritten("a b c", edits) == "a {[b]} c"


def test_code_that_is_copied_is_copied_with_its_edits():
    edits = (Edit(6, 6, "+"), Edit(0, 1, "A"), Edit(10, 10, "<\0>", copied=(5, 8)))
    assert rewritten("a bc (def) g", edits) == "A bc (+def)<(+de> g"


def test_edits_of_the_same_place_are_refused_with_the_users_line(monkeypatch):
    fault = next(fault for fault in known_faults("stanli") if fault.remedy == "integer_rows")
    monkeypatch.setattr(stanli_programs, "known_faults", lambda _: (fault,))
    code = "parameters { real x; }\nmodel { array[1, 1] int a; a[1] = {1}; }"
    place = code.index("a[1] =")
    edits = (Edit(place, place + 4, "a[1, ]"), Edit(place + 2, place + 3, "2"))
    with pytest.raises(ValueError, match="overlap"):
        rewritten(code, edits)
    monkeypatch.setattr(stanli_programs, "remedy", lambda *_: Remedy(edits))
    stanli_programs._rewritten.cache_clear()
    try:
        with pytest.raises(UnsupportedError, match=r"mine\.stan:2:30: stanli") as caught:
            bind(code)
    finally:
        stanli_programs._rewritten.cache_clear()
    assert fault.way_out in str(caught.value)
    assert "[1, ]" not in str(caught.value)


def test_functions_that_stan_has_too_by_now_are_the_programs_own():
    code = (
        "functions { // quantile\n  real quantile(vector x, real p) { return 7 * x[1] + p; }\n"
        "  real twice(vector x) { return quantile(x, 0) + 3 * quantile(x, 0); } }\n"
        'parameters { vector[2] v; } model { print("quantile(v)"); target += twice(v) + quantile(v, v[2]); }'
    )
    with bind(code) as model:
        np.testing.assert_array_equal(model.log_density_gradient(np.zeros(2))[1], [35, 1])


def test_an_error_of_the_compiler_names_the_file_that_is_included(tmp_path):
    (tmp_path / "part.stan").write_text("// a part\n  target += 1 + nothing;\n")
    (tmp_path / "whole.stan").write_text("parameters { real x; }\nmodel {\n#include part.stan\n}\n")
    program = Program.from_file(tmp_path / "whole.stan")
    with pytest.raises(EngineError, match=r"it is .*part\.stan:2:"):
        stanli_mir(program)
