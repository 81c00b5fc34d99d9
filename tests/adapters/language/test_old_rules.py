"""What Stan's compiler took for granted once: old programs have the density of twins that say it."""

import re

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program

DECAY = (
    "real[] decay(real t, real[] x, real[] k, real[] x_r, int[] x_i) { return { -k[1] * x[1] * x_r[2] }; }"
)
NOW = "array[] real decay(real t, array[] real x, array[] real k, array[] real x_r, array[] int x_i) "
REST = """data {{ {data} }} parameters {{ real<lower=0> k; }}
model {{ k ~ normal(0, 1); target += at(k, x_r, x_i); }}"""


def density(code: str, data: dict) -> tuple[float, np.ndarray]:
    program = Program.from_code(code)
    with BoundModel(program, read_data(program, data), engine="stanli") as model:
        return model.log_density_gradient(np.array([0.3]))


def test_arguments_that_are_handed_to_a_solver_as_data_are_data():
    old = (
        f"functions {{ {DECAY} real solved(real k, real[] x_r, int[] x_i) {{ "
        "return integrate_ode_rk45(decay, {2.0}, 0, {1.5}, {k}, x_r[1:2], x_i)[1, 1]; } "
        "real at(real k, real[] x_r, int[] x_i) { return solved(k, x_r, x_i); } } "
        + REST.format(data="real x_r[3]; int x_i[1];")
    )
    new = (
        f"functions {{ {NOW} {{ return {{ -k[1] * x[1] * x_r[2] }}; }} "
        "real solved(real k, data array[] real x_r, array[] int x_i) { "
        "return integrate_ode_rk45(decay, {2.0}, 0, {1.5}, {k}, x_r[1:2], x_i)[1, 1]; } "
        "real at(real k, data array[] real x_r, array[] int x_i) { return solved(k, x_r, x_i); } } "
        + REST.format(data="array[3] real x_r; array[1] int x_i;")
    )
    data = {"x_r": [3.0, 0.7, 1.0], "x_i": [1]}
    np.testing.assert_allclose(density(old, data)[0], density(new, data)[0], rtol=1e-12)
    np.testing.assert_allclose(density(old, data)[1], density(new, data)[1], rtol=1e-12)
    assert "real solved(real k, data array[] real x_r, array[] int x_i)" in Program.from_code(old).source
    assert Program.from_code(new).source == new


def test_versions_of_a_function_with_fewer_arguments_are_left_alone():
    code = (
        "functions { real[] g(real t, real[] x, real[] k, real[] x_r, int[] x_i) { return x; } "
        "real at(real k) { return k; } real at(real k, real[] x_r, int[] x_i) { "
        "return integrate_ode(g, {1.0}, 0, {1.0}, {k}, x_r, x_i)[1, 1]; } } parameters { real a; } model { }"
    )
    source = Program.from_code(code).source
    assert "real at(real k) {" in source
    assert "real at(real k, data array[] real x_r, array[] int x_i)" in source


def test_arguments_that_depend_on_parameters_are_left_to_the_compiler():
    code = (
        "functions { vector f(vector y, vector k, real[] x_r, int[] x_i) { return y - k * x_r[1]; } "
        "vector solved(vector k, real[] x_r, int[] x_i) { return algebra_solver(f, k, k, x_r, x_i); } } "
        "parameters { real a; } model { }"
    )
    source = Program.from_code(code).source
    assert "vector solved(vector k, data array[] real x_r, array[] int x_i)" in source
    assert "vector f(vector y, vector k, array[] real x_r, array[] int x_i)" in source


@pytest.mark.parametrize(
    ("statement", "now"),
    [
        ("x[cols(x)] = 3 * k;", "{ int place_N = cols(x); x[place_N] = 3 * k; }"),
        ("if (k > 0) x[cols(x) - 1] = k;", "if (k > 0) { int place_N = cols(x) - 1; x[place_N] = k; }"),
        ("for (i in 1:2) m[i, cols(m)] = k;", "for (i in 1:2) { int place_N = cols(m); m[i, place_N] = k; }"),
        ("x[2] = cols(x) * k;", "x[2] = cols(x) * k;"),
    ],
)
def test_a_place_that_is_computed_from_what_is_assigned_to_has_a_name(statement, now):
    head = "parameters { real k; } model { row_vector[3] x = [k, k, k]; matrix[2, 2] m = [[k, k], [k, k]]; "
    tail = " target += dot_product(x, [1, 10, 100]) + sum(m); }"
    old = f"data {{ int n[1]; }} {head}{statement}{tail}"
    source = re.sub(r"place_\d+", "place_N", Program.from_code(old).source)
    assert f"{now}{tail}" in source
    _, gradient = density(old, {"n": [1]})
    expected = {"x[cols(x)] = 3 * k;": 315, "x[2] = cols(x) * k;": 135}.get(statement, 115)
    np.testing.assert_allclose(gradient, [expected], rtol=1e-12)


def test_a_word_of_the_language_gets_an_underscore_beside_a_name_that_begins_so():
    code = (
        "data { vector[2] x; int n[1]; } transformed data { vector[2] offset; offset = log(x); } "
        "parameters { real offset_e; } model { target += offset_e * sum(offset); }"
    )
    _, gradient = density(code, {"x": [1.0, 2.0], "n": [1]})
    np.testing.assert_allclose(gradient, [np.log(2)], rtol=1e-12)
