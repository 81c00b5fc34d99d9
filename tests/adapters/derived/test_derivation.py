"""Programs with transformed data as data: proven to be the same density, with the values of the whole data."""

import numpy as np
import pytest

from sliced_cases import bind
from stan_adapters.derived import ComputedData, derive
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Program

CODE = """data { int N; vector[N] x; vector[N] y; array[N] int<lower=0> k; }
transformed data {
  real centre = mean(x); vector[N] xc = x - centre; int largest = max(k); array[0] int none;
  array[N, 2] int table; for (n in 1:N) { table[n, 1] = k[n]; table[n, 2] = n; }
}
parameters { real b; vector[N] z; }
model { b ~ normal(0, 1); z ~ normal(largest, 1); y ~ normal(b * xc + z, 1); }"""


def data(rows=7):
    rng = np.random.default_rng(rows)
    return {"N": rows, "x": rng.normal(3, 1, rows), "y": rng.normal(size=rows), "k": np.arange(rows)}


def evaluated(code=CODE, values=None):
    model = bind(code, values or data())
    computed = ComputedData(model.program, "stanli", 1)
    return model, computed, computed.of(model.data)


def points(model):
    return np.random.default_rng(1).normal(scale=0.3, size=(2, model.dim))


def test_transformed_data_have_the_values_that_numpy_gives():
    model, _, found = evaluated()
    x, k = np.asarray(model.data["x"]), np.asarray(model.data["k"])
    assert list(found) == ["centre", "xc", "largest", "none", "table"]
    np.testing.assert_allclose(found["centre"], x.mean(), rtol=1e-15)
    np.testing.assert_allclose(found["xc"], x - x.mean(), rtol=1e-14, atol=1e-15)
    assert found["largest"] == 6
    assert found["none"].shape == (0,)
    np.testing.assert_array_equal(found["table"], np.column_stack([k, np.arange(1, 8)]))


@pytest.mark.parametrize(
    "names", [["centre"], ["xc"], ["centre", "largest"], ["centre", "xc", "largest", "none", "table"]]
)
def test_the_derived_program_is_the_same_density_on_the_whole_data(names):
    model, computed, whole = evaluated()
    derivation, bound = derive(model, computed, whole, names, points(model))
    assert derivation.names == tuple(names)
    assert derivation.statistic == 0.0
    for got, expected in zip(*(m.log_density_gradient(points(model)) for m in (bound, model)), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_other_data_are_centred_by_the_mean_of_the_whole():
    model, computed, whole = evaluated()
    derivation, _ = derive(model, computed, whole, ["centre"], points(model))
    other = bind(CODE, data(4)).data
    again = ComputedData(derivation.program, "stanli", 1).of(derivation.data(other))
    np.testing.assert_allclose(again["xc"], np.asarray(other["x"]) - whole["centre"], rtol=1e-14)


def test_a_variable_that_is_read_while_it_is_computed_is_another_program():
    code = """data { int N; vector[N] y; } transformed data { int c = 0; array[N] int at;
      for (n in 1:N) { c += 1; at[n] = c; } }
    parameters { vector[N] z; } model { z ~ normal(0, 1); y ~ normal(to_vector(at) .* z, 1); }"""
    model, computed, whole = evaluated(code, {"N": 4, "y": np.arange(4.0)})
    with pytest.raises(StructureError, match="with c as data, model is another density"):
        derive(model, computed, whole, ["c"], points(model))


def test_a_program_that_draws_random_numbers_keeps_them():
    code = """data { int N; vector[N] y; } transformed data { vector[N] e; for (n in 1:N) e[n] = normal_rng(0, 1); }
    parameters { vector[N] z; } model { z ~ normal(e, 1); y ~ normal(z, 1); }"""
    model, computed, whole = evaluated(code, {"N": 4, "y": np.arange(4.0)})
    derivation, bound = derive(model, computed, whole, ["e"], points(model))
    assert isinstance(derivation.program, Program)
    np.testing.assert_array_equal(bound.data["e"], whole["e"])
