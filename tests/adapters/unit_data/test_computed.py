"""Programs that compute in transformed data are cut like others, with what is computed from all units kept."""

import numpy as np
import pytest

from sliced_cases import bind, sliced, texts
from stan_adapters.errors import StructureError
from stan_adapters.unit_data.slicing import Slicing, SlicingRefusal

FRAME = """data {{ int N; int J; vector[N] x; vector[N] y; array[N] int<lower=1, upper=J> g; }}
transformed data {{ {} }}
parameters {{ real b; vector[J] z; }}
model {{ b ~ normal(0, 1); z ~ normal(0, 1); y ~ normal(b * xc + z[g], 1); }}"""
GROUPS = 12


def data():
    rng = np.random.default_rng(4)
    g = rng.permutation(np.repeat(np.arange(GROUPS), 5)) + 1
    return {"N": g.size, "J": GROUPS, "x": rng.normal(3, 2, g.size), "y": rng.normal(size=g.size), "g": g}


KEPT = {
    "a mean with a name": ("real m = mean(x); vector[N] xc = x - m;", {"m": "shared"}),
    "a mean without one": ("vector[N] xc = x - mean(x);", {"mean_x": "shared"}),
    "the first entry": ("vector[N] xc = x - x[1];", {"x_1": "shared"}),
    "ranks, which are cut": (
        "array[N] int o = sort_indices_asc(x); vector[N] xc; for (n in 1:N) xc[o[n]] = n;",
        {"o": "row", "xc": "row"},
    ),
    "a running sum, which is cut": ("vector[N] xc = cumulative_sum(x);", {"xc": "row"}),
    "row by row": ("vector[N] xc = 2 * x;", {}),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_computed_from_all_rows_is_kept(name):
    code, kept = KEPT[name]
    slicing = sliced(bind(FRAME.format(code), data()), "J")
    assert isinstance(slicing, Slicing), slicing.reason
    assert {entry: rule for entry, rule in texts(slicing.rules).items() if entry not in data()} == kept
    assert slicing.bindings <= 20


def test_a_part_has_the_values_of_the_whole():
    model = bind(FRAME.format("vector[N] xc = x - mean(x);"), data())
    slicing = sliced(model, "J")
    part = slicing.subset(model.data, [3, 1])
    assert part["mean_x"] == pytest.approx(np.mean(model.data["x"]), rel=1e-15)
    np.testing.assert_array_equal(part["x"], np.asarray(model.data["x"])[np.isin(model.data["g"], [4, 2])])


def test_what_is_cut_is_not_made_up_for_other_data():
    model = bind(FRAME.format("vector[N] xc = cumulative_sum(x);"), data())
    slicing = sliced(model, "J")
    other = model.data.replace(y=np.zeros(60))
    with pytest.raises(
        StructureError, match="xc of model are known for the data that were verified, not for others"
    ):
        slicing.subset(other, [0, 1])


def test_the_number_of_units_may_be_counted_from_the_data():
    code = """data { int N; array[N] int<lower=1> g; vector[N] y; } transformed data { int J = max(g); }
    parameters { vector[J] z; } model { z ~ normal(0, 1); y ~ normal(z[g], 1); }"""
    values = data()
    values["g"][values["g"] == 4] = 5  # a group without rows
    model = bind(code, {name: values[name] for name in ("N", "g", "y")})
    slicing = sliced(model, "J")
    assert isinstance(slicing, Slicing), slicing.reason
    assert texts(slicing.rules) == {"N": "rows", "g": "index", "y": "row", "J": "size"}
    part = slicing.subset(model.data, [3, 0])
    assert (int(part["J"]), part["g"].tolist()) == (2, [2] * 5)


def test_unit_numbers_may_be_computed():
    code = """data { int N; int A; int B; array[N] int<lower=1, upper=A> a; array[N] int<lower=1, upper=B> b;
      vector[N] y; }
    transformed data { int J = A * B; array[N] int cell; for (n in 1:N) cell[n] = (a[n] - 1) * B + b[n]; }
    parameters { vector[J] z; } model { z ~ normal(0, 1); y ~ normal(z[cell], 1); }"""
    rng = np.random.default_rng(2)
    values = {
        "N": 60,
        "A": 4,
        "B": 3,
        "a": rng.integers(1, 5, 60),
        "b": rng.integers(1, 4, 60),
        "y": rng.normal(size=60),
    }
    slicing = sliced(bind(code, values), "J")
    assert isinstance(slicing, Slicing), slicing.reason
    assert texts(slicing.rules)["cell"] == "index"


def test_a_number_of_units_that_is_written_in_the_program_is_data_of_the_derived_one():
    code = """functions { real nine(real x) { return 9 * x; } }
    data { array[9] int<lower=0> y; matrix[9, 4] x; } parameters { real m; vector[9] z; vector[4] b; }
    model { m ~ normal(0, 9); b ~ normal(0, 1); z ~ normal(m, 1); y ~ poisson_log(nine(0.1) * z + x * b); }"""
    rng = np.random.default_rng(5)
    model = bind(code, {"y": rng.poisson(3, 9), "x": rng.normal(size=(9, 4))})
    refusal = sliced(model, "9")  # the prior's 9 is no number of units
    assert isinstance(refusal, SlicingRefusal)
    assert "The number of units, 9, is written in the program" in refusal.reason
    model = bind(
        code.replace("normal(0, 9)", "normal(0, 3)"), {name: model.data[name] for name in ("y", "x")}
    )
    slicing = sliced(model, "9")
    assert isinstance(slicing, Slicing), slicing.reason
    assert texts(slicing.rules) == {"number_9": "size", "y": "unit", "x": "unit"}
    assert slicing.subset(model.data, [8, 2])["y"].tolist() == np.asarray(model.data["y"])[[8, 2]].tolist()


def test_what_the_model_computes_from_all_rows_is_still_refused():
    code = FRAME.format("").replace("xc", "(x - mean(x))")
    refusal = sliced(bind(code, data()), "J")
    assert isinstance(refusal, SlicingRefusal)
    assert "something is computed from the data of all units" in refusal.reason
