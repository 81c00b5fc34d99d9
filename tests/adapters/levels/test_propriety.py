"""Programs without a posterior: no parameters, supports without room, densities that nothing holds together."""

import pytest

from programs import bind
from stan_adapters.errors import DataError, StructureError
from stan_adapters.levels.propriety import check_posterior_exists
from structure_cases import CASES
from structure_cases import bind as bind_case

IMPROPER = {
    "real x;": "`x`",
    "real<lower=0> x;": "`x`",
    "real<upper=0> x;": "`x`",
    "vector<lower=2>[3] x;": "`x`",
    "ordered[3] x;": "`x`",
    "positive_ordered[3] x;": "`x`",
    "sum_to_zero_vector[3] x;": "`x`",
    "real<offset=1, multiplier=3> x;": "`x`",
    "real x; real y; } model { y ~ std_normal();": "`x`",
    "real x; real y; } model { if (x > 100) y ~ std_normal(); x ~ std_normal();": "`y`",
    "vector[3] x; } model { x[1:2] ~ std_normal();": "`x[3]`",
    "vector[90] x; } model { x[11:90] ~ std_normal();": "`x[1]`, `x[2]`, `x[3]`, `x[4]` and more",
    "real x; real y; } model { x + y ~ std_normal();": "tells `x`, `y` apart",
    "real m; vector[3] z; } model { m + z ~ std_normal();": "tells `m`, `z` apart",
    "vector[2] b; vector[2] c; } model { b - 2 * c ~ std_normal(); c[1] ~ std_normal();": "tells `b[2]`, `c[2]` apart",
}


@pytest.mark.parametrize(("inside", "named"), IMPROPER.items(), ids=IMPROPER)
def test_parameters_that_nothing_constrains_are_named(inside, named):
    with bind(f"parameters {{ {inside} }}", {}) as model, pytest.raises(StructureError) as refused:
        check_posterior_exists(model)
    assert "improper: nothing in the program or its data" in str(refused.value)
    assert named in str(refused.value)
    assert "Give a prior" in str(refused.value)


PROPER = [
    "real<lower=0, upper=1> x;",
    "simplex[3] x;",
    "unit_vector[3] x;",
    "corr_matrix[3] x;",
    "real x; } model { x ~ normal(0, 1e10);",
    "real x; } model { x ~ cauchy(0, 1);",
    "real x; } model { x ~ double_exponential(0, 1);",
    "real x; } model { x ~ uniform(-1e6, 1e6);",
    "real x; } model { x ~ exponential(1);",
    "real<lower=0> x; } model { x ~ uniform(0, 1e6);",
    "real<lower=0> x; } model { x ~ inv_gamma(1e-3, 1e-3);",
    "real<lower=0> x; } model { x ~ cauchy(0, 25);",
    "real x; real y; } model { x + y ~ std_normal(); x ~ normal(0, 1e7);",
    "vector[200] x; } model { x ~ std_normal();",
    "real x; } model { x ~ normal(1e60, 1);",
    "real x; } model { x ~ normal(1e20, 1e10);",
    "real m; vector[9] z; } model { z ~ normal(m, 1); 1e60 ~ normal(z, 1);",
]


@pytest.mark.parametrize("inside", PROPER)
def test_a_proper_posterior_passes_however_wide_it_is(inside):
    with bind(f"parameters {{ {inside} }}", {}) as model:
        assert check_posterior_exists(model) > 0


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ordinary_programs_pass(case):
    with bind_case(case) as model:
        assert check_posterior_exists(model) <= 67  # gradients: 64 + 3


@pytest.mark.parametrize(
    "code",
    ["", "// nothing", "model {}", "generated quantities { real x = 1; }", "parameters { vector[0] x; }"],
)
def test_a_program_without_parameters_has_nothing_to_infer(code):
    with bind(code, {}) as model, pytest.raises(StructureError, match="there is nothing to infer"):
        check_posterior_exists(model)


@pytest.mark.parametrize("statement", ["target += negative_infinity();", 'reject("no room");'])
def test_a_density_that_is_finite_nowhere_is_refused(statement):
    code = f"parameters {{ real x; }} model {{ {statement} }}"
    with bind(code, {}) as model, pytest.raises(StructureError, match="not finite at any"):
        check_posterior_exists(model)


NO_ROOM = {
    "real<lower=a, upper=b> x": "lower=a = 3 is not below upper=b = 0",
    "real<lower=3, upper=0> x": "lower=3 is not below upper=0",
    "real<lower=a, upper=a> x": "lower=a = 3 is not below upper=a = 3",
    "vector<lower=u, upper=v>[2] x": "`x` can have no value at [2]: lower=u = 1 is not below upper=v = 0.5",
    "array[2] vector<lower=a, upper=b>[2] x": "lower=a = 3 is not below upper=b = 0",
    "real<offset=0, multiplier=b> x": "multiplier=b is 0, and must be positive",
    "real<multiplier=-a> x": "multiplier=-a is -3, and must be positive",
    "tuple(real, real<lower=a, upper=b>) x": "lower=a = 3 is not below upper=b = 0",
}


@pytest.mark.parametrize(("declared", "named"), NO_ROOM.items(), ids=NO_ROOM)
def test_bounds_without_room_are_refused_with_the_declaration_and_the_values(declared, named):
    code = f"data {{ real a; real b; vector[2] u; vector[2] v; }} parameters {{ {declared}; }}"
    with pytest.raises(DataError) as refused:
        bind(code, {"a": 3, "b": 0, "u": [0, 1], "v": [1, 0.5]})
    assert named in str(refused.value)
    assert f"Declared `{declared}` at model.stan:1:" in str(refused.value)


@pytest.mark.parametrize(
    "declared", ["real<lower=b, upper=a> x", "vector<lower=u, upper=a>[2] x", "real<lower=y> x"]
)
def test_bounds_with_room_pass(declared):
    code = f"data {{ real a; real b; vector[2] u; }} parameters {{ real y; {declared}; }} model {{ y ~ std_normal(); }}"
    with bind(code, {"a": 3, "b": 0, "u": [0, 1]}) as model:
        assert model.dim >= 2
