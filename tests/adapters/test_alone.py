"""Which programs give units other scores alone than among others, and from which entries."""

import numpy as np
import pytest

from sliced_cases import CASES, bind, inspected, level_of
from stan_adapters.unit_data import entries_of_all_units

COMPUTED_FROM_ALL = {"standardized_data": ("y",)}

HEAD = """
data { int N; int J; vector[N] x; vector[N] y; array[N] int<lower=1, upper=J> g; vector[80] w; }
"""
TAIL = """
parameters { real a; real b; vector[J] z; }
model { a ~ normal(0, 1); b ~ normal(0, 1); z ~ std_normal(); %s }
"""
PROGRAMS = {
    "centred": ("vector[N] u = x - mean(x);", "y ~ normal(a + b * u + z[g], 1);", ("x",)),
    "scaled": ("vector[N] u = x / sd(x);", "y ~ normal(a + b * u + z[g], 1);", ("x",)),
    "orthogonal": ("vector[N] u = x / sqrt(dot_self(x));", "y ~ normal(a + b * u + z[g], 1);", ("x",)),
    "centred in the model": ("", "y ~ normal(a + b * (x - mean(x)) + z[g], 1);", ("x",)),
    "largest": ("real m = max(y) + 1;", "y / m ~ normal(a + b * x + z[g], 1);", ("y",)),
    "weighed by the number of rows": ("real v = sqrt(1.0 * N);", "y ~ normal(a + z[g], v);", ("N", "J")),
    "row by row": ("vector[N] u = square(x);", "y ~ normal(a + b * u + z[g], 1);", ()),
    "of the globals' prior": ("real s = sd(y);", "a ~ normal(0, s); y ~ normal(a + b * x + z[g], 1);", ()),
    "of what all units share": ("real s = sd(w);", "y ~ normal(a + b * x + s * z[g], 1);", ()),
    "of shared data alone": ("vector[80] v = w - mean(w);", "y ~ normal(a + v[3] * z[g], 1);", ()),
}


def data_of(seed, units=9, rows=5):
    rng = np.random.default_rng(seed)
    total = units * rows
    return {
        "N": total,
        "J": units,
        "x": rng.normal(1, 1, total),
        "y": rng.normal(0, 2, total),
        "g": np.repeat(np.arange(units), rows) + 1,
        "w": np.random.default_rng(0).normal(size=80),
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_entries_are_named_from_which_something_is_computed_for_all_units(name):
    computed, statement, expected = PROGRAMS[name]
    code = HEAD + f"transformed data {{ {computed} }}" + TAIL % statement
    with bind(code, data_of(1)) as model, bind(code, data_of(2, units=4)) as new:
        found = entries_of_all_units(model, level_of(model, "J"), new.data, np.random.default_rng(1))
    assert set(found) == set(expected)


@pytest.mark.parametrize("name", CASES)
def test_programs_whose_units_are_the_same_alone_are_not_refused(name):
    model, level, _ = inspected(name)
    other = model.data.replace(
        **{
            d.name: np.asarray(model.data[d.name]) + 0.5
            for d in model.program.data
            if d.type.base in ("real", "vector", "matrix") and d.type.lower is None and d.type.upper is None
        }
    )
    found = entries_of_all_units(model, level, other, np.random.default_rng(1))
    assert found == COMPUTED_FROM_ALL.get(name, ())


FIXED = """
data { vector[12] x; vector[12] y; }
transformed data { vector[12] u = x - mean(x); }
parameters { real a; vector[12] z; }
model { a ~ normal(0, 1); z ~ std_normal(); y ~ normal(a + u + z, 1); }
"""


def test_where_no_unit_can_be_left_out_single_numbers_are_moved():
    rng = np.random.default_rng(3)
    with bind(FIXED, {"x": rng.normal(size=12), "y": rng.normal(size=12)}) as model:
        level = level_of(model, "12")
        other = model.data.replace(x=rng.normal(size=12), y=rng.normal(size=12))
        assert entries_of_all_units(model, level, other, np.random.default_rng(1)) == ("x",)
        same_x = model.data.replace(y=rng.normal(size=12))
        assert entries_of_all_units(model, level, same_x, np.random.default_rng(1)) == ()


def test_units_that_are_coupled_are_not_compared_alone():
    code = """
    data { int T; vector[T] y; }
    parameters { vector[T] h; }
    model { h[1] ~ normal(0, 1); h[2:T] ~ normal(h[1:(T - 1)], 1); y ~ normal(h, 1); }
    """
    rng = np.random.default_rng(4)
    with bind(code, {"T": 30, "y": rng.normal(size=30)}) as model:
        other = model.data.replace(y=rng.normal(size=30))
        assert entries_of_all_units(model, level_of(model, "T"), other, np.random.default_rng(1)) == ()
