"""Rules of slicing: what is proposed for every layout of the data, and what is said of rules by hand."""

import re

import numpy as np
import pytest

from sliced_cases import CASES, bind, generator, inspected, level_of, sliced, texts, values
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Program
from stan_adapters.unit_data.plan import Plan
from stan_adapters.unit_data.proposals import propose_rules
from stan_adapters.unit_data.rules import Role, parse_rules
from stan_adapters.unit_data.slicing import Slicing, SlicingRefusal

# ---- what a subset looks like

DATA = """data { int<lower=0> N; int<lower=0> J; %s }
parameters { vector[J] z; } model { z ~ std_normal(); }"""

LAYOUTS = {
    "flat": ("vector[J] y;", {"N": 0, "J": 4, "y": [1.0, 2, 3, 4]}, [2, 0], {"N": 0, "J": 2, "y": [3, 1]}),
    "columns": (
        "matrix[2, J] y;",
        {"N": 0, "J": 3, "y": [[1.0, 2, 3], [4, 5, 6]]},
        [2, 0],
        {"N": 0, "J": 2, "y": [[3, 1], [6, 4]]},
    ),
    "both axes": (
        "matrix[J, J] y;",
        {"N": 0, "J": 3, "y": [[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]},
        [2, 0],
        {"N": 0, "J": 2, "y": [[9, 7], [3, 1]]},
    ),
    "index in any order": (
        "array[N] int<lower=1, upper=J> g; vector[N] y;",
        {"N": 5, "J": 3, "g": [2, 1, 3, 2, 1], "y": [1.0, 2, 3, 4, 5]},
        [2, 0],
        {"N": 3, "J": 2, "g": [2, 1, 2], "y": [2, 3, 5]},
    ),
    "sorted index": (
        "array[N] int<lower=1, upper=J> g; vector[N] y;",
        {"N": 5, "J": 3, "g": [1, 1, 2, 3, 3], "y": [1.0, 2, 3, 4, 5]},
        [2, 0],
        {"N": 4, "J": 2, "g": [1, 1, 2, 2], "y": [4, 5, 1, 2]},
    ),
    "another index keeps its numbers": (
        "array[N] int<lower=1, upper=J> g; array[N] int<lower=1, upper=9> item; vector[9] b;",
        {"N": 3, "J": 3, "g": [2, 1, 3], "item": [9, 8, 7], "b": [1.0] * 9},
        [2],
        {"N": 1, "J": 1, "g": [1], "item": [7], "b": [1.0] * 9},
    ),
    "rows of no unit stay": (
        "array[N] int<lower=0, upper=J> g; vector[N] y;",
        {"N": 4, "J": 3, "g": [0, 2, 3, 0], "y": [1.0, 2, 3, 4]},
        [2],
        {"N": 3, "J": 1, "g": [0, 1, 0], "y": [1, 3, 4]},
    ),
    "sizes": (
        "array[J] int<lower=0> n; vector[N] y;",
        {"N": 6, "J": 3, "n": [3, 1, 2], "y": [1.0, 2, 3, 4, 5, 6]},
        [2, 0],
        {"N": 5, "J": 2, "n": [2, 3], "y": [5, 6, 1, 2, 3]},
    ),
    "start and end": (
        "array[J] int s; array[J] int e; vector[N] y;",
        {"N": 6, "J": 3, "s": [1, 4, 5], "e": [3, 4, 6], "y": [1.0, 2, 3, 4, 5, 6]},
        [2, 0],
        {"N": 5, "J": 2, "s": [1, 3], "e": [2, 5], "y": [5, 6, 1, 2, 3]},
    ),
    "start and sizes in another order": (
        "array[J] int s; array[J] int n; vector[N] y;",
        {"N": 6, "J": 3, "s": [4, 3, 1], "n": [3, 1, 2], "y": [1.0, 2, 3, 4, 5, 6]},
        [0, 2],
        {"N": 5, "J": 2, "s": [1, 4], "n": [3, 2], "y": [4, 5, 6, 1, 2]},
    ),
    "starts that count from 0": (
        "array[J] int s; array[J] int n; vector[N] y;",
        {"N": 6, "J": 3, "s": [0, 3, 4], "n": [3, 1, 2], "y": [1.0, 2, 3, 4, 5, 6]},
        [2, 0],
        {"N": 5, "J": 2, "s": [0, 2], "n": [2, 3], "y": [5, 6, 1, 2, 3]},
    ),
    "start, end and sizes": (
        "array[J] int s; array[J] int e; array[J] int n; vector[N] y;",
        {"N": 4, "J": 2, "s": [1, 4], "e": [3, 4], "n": [3, 1], "y": [1.0, 2, 3, 4]},
        [1],
        {"N": 1, "J": 1, "s": [1], "e": [1], "n": [1], "y": [4]},
    ),
    "offsets": (
        "array[J + 1] int at; vector[N] y;",
        {"N": 6, "J": 3, "at": [1, 4, 4, 7], "y": [1.0, 2, 3, 4, 5, 6]},
        [2, 1],
        {"N": 3, "J": 2, "at": [1, 4, 4], "y": [4, 5, 6]},
    ),
    "cumulative counts": (
        "array[J] int last; vector[N] y;",
        {"N": 6, "J": 3, "last": [3, 4, 6], "y": [1.0, 2, 3, 4, 5, 6]},
        [2, 0],
        {"N": 5, "J": 2, "last": [2, 5], "y": [5, 6, 1, 2, 3]},
    ),
    "sizes that agree with an index": (
        "array[N] int<lower=1, upper=J> g; array[J] int n; vector[N] y;",
        {"N": 4, "J": 3, "g": [1, 1, 2, 3], "n": [2, 1, 1], "y": [1.0, 2, 3, 4]},
        [2, 0],
        {"N": 3, "J": 2, "g": [1, 2, 2], "n": [1, 2], "y": [4, 1, 2]},
    ),
    "an undeclared index that agrees with sizes": (
        "array[N] int doc; array[J] int n; vector[N] y;",
        {"N": 4, "J": 3, "doc": [1, 1, 2, 3], "n": [2, 1, 1], "y": [1.0, 2, 3, 4]},
        [2, 0],
        {"N": 3, "J": 2, "doc": [1, 2, 2], "n": [1, 2], "y": [4, 1, 2]},
    ),
    "rows sized by an expression": (
        "array[J] int n; vector[sum(n)] y;",
        {"N": 0, "J": 2, "n": [3, 1], "y": [1.0, 2, 3, 4]},
        [1],
        {"N": 0, "J": 1, "n": [1], "y": [4]},
    ),
    "rows of rows": (
        "int M; array[M] int<lower=1, upper=J> g; array[N] int<lower=1, upper=M> m; vector[N] y; vector[M] u;",
        {
            "N": 5,
            "J": 2,
            "M": 3,
            "g": [2, 1, 2],
            "m": [3, 2, 1, 3, 2],
            "y": [1.0, 2, 3, 4, 5],
            "u": [1.0, 2, 3],
        },
        [1],
        {"N": 3, "J": 1, "M": 2, "g": [1, 1], "m": [2, 1, 2], "y": [1, 3, 4], "u": [1, 3]},
    ),
    "two sets of rows": (
        "int M; array[M] int<lower=1, upper=J> h; array[N] int<lower=1, upper=J> g; vector[N] y; vector[M] u;",
        {"N": 2, "J": 2, "M": 3, "h": [2, 1, 2], "g": [2, 1], "y": [1.0, 2], "u": [1.0, 2, 3]},
        [1],
        {"N": 1, "J": 1, "M": 2, "h": [1, 1], "g": [1], "y": [1], "u": [1, 3]},
    ),
    "no units": (
        "array[J] int n; vector[N] y; matrix[J, 2] x;",
        {"N": 3, "J": 2, "n": [1, 2], "y": [1.0, 2, 3], "x": [[1.0, 2], [3, 4]]},
        [],
        {"N": 0, "J": 0, "n": [], "y": [], "x": []},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_subsets_are_cut_renumbered_and_regrouped(layout):
    declarations, data, units, expected = LAYOUTS[layout]
    model = bind(DATA % declarations, data)
    rules = propose_rules(model.program, model.data, level_of(model, "J"))
    subset = Plan(model.data, rules, "J", model.layout["z"].size).subset(np.array(units, dtype=np.int64))
    assert values(subset) == expected


def test_a_size_expression_is_solved_for_its_scalar():
    code = """data { int N; vector[N - 1] y; } parameters { vector[N - 1] z; }
    model { z ~ std_normal(); y ~ normal(z, 1); }"""
    model = bind(code, {"N": 6, "y": [1.0, 2, 3, 4, 5]})
    slicing = sliced(model, "N - 1")
    assert isinstance(slicing, Slicing), slicing.reason
    assert values(slicing.subset(model.data, [4, 1])) == {"N": 3, "y": [5, 2]}


def test_two_sets_of_rows_without_declared_bounds():
    code = """data { int J; int N; int M; array[N] int who; array[M] int whom; vector[N] y; vector[M] x; }
    parameters { real a; vector[J] z; } model { a ~ std_normal(); z ~ normal(a, 1);
    y ~ normal(z[who], 1); x ~ student_t(4, z[whom], 1); }"""
    rng = generator("two sets")
    data = {"J": 8, "N": 20, "M": 12, "who": rng.integers(1, 9, 20), "whom": rng.integers(1, 9, 12)}
    slicing = sliced(bind(code, {**data, "y": rng.normal(size=20), "x": rng.normal(size=12)}), "J")
    assert isinstance(slicing, Slicing), slicing.reason
    assert (slicing.rules["who"].role, slicing.rules["whom"].role) == (Role.INDEX, Role.INDEX)


def test_units_counted_by_another_scalar_than_their_rows():
    code = """data { int N; int J; vector[N] y; vector[J] x; } parameters { real a; vector[J] z; }
    model { a ~ std_normal(); z ~ normal(a + x, 1); y ~ normal(z, 1); }"""
    slicing = sliced(bind(code, {"N": 7, "J": 7, "y": np.arange(7.0), "x": np.arange(7.0) ** 2}), "J")
    assert isinstance(slicing, Slicing), slicing.reason
    assert texts(slicing.rules) == {"N": "size", "J": "size", "y": "unit", "x": "unit"}


# ---- rules by hand


def test_hand_given_rules_are_verified_and_kept():
    model, _, _ = inspected("index_without_bounds")
    slicing = sliced(model, "J", {"county": "index", "y": "row"})
    assert isinstance(slicing, Slicing), slicing.reason
    assert slicing.rules["county"].role is Role.INDEX


@pytest.mark.parametrize(
    "rules", [{"first": "start"}, {"last": "end"}, {"first": "start", "last": "end", "y": "row"}]
)
def test_spans_by_hand_find_their_rows(rules):
    model, _, proposed = inspected("ragged_start_end")
    slicing = sliced(model, "J", rules)
    assert isinstance(slicing, Slicing), slicing.reason
    assert texts(slicing.rules) == texts(proposed.rules)


def test_a_rule_by_hand_says_what_declarations_do_not():
    """Few of the units have rows, and what is indexed is a local variable: neither values nor text tell."""
    code = """data { int N; int J; array[N] int who; vector[N] y; } parameters { real m; vector[J] z; }
    model { m ~ std_normal(); z ~ normal(m, 1); { vector[J] mean_of = 2 * z; y ~ normal(mean_of[who], 1); } }"""
    model = bind(code, {"N": 4, "J": 30, "who": [2, 5, 5, 3], "y": [1.0, 2, 3, 4]})
    assert isinstance(sliced(model, "J"), SlicingRefusal)
    assert isinstance(sliced(model, "J", {"who": "index"}), Slicing)


WRONG = {
    "the other axis": ("columns_of_a_table", {"y": "unit:0"}, "y as 'unit' needs an entry per unit, 19 of N"),
    "no such axis": ("linear", {"x": "unit:2"}, "x as 'unit:2' needs an axis 2"),
    "a real index": ("varying_intercept", {"x": "index"}, "x as 'index' needs a one-dimensional"),
    "items for persons": ("item_response_long", {"jj": "row", "ii": "index"}, "jj .* 'row', and 'index' holds; ii is"),
    "kept whole": ("measurement_error", {"w": "shared"}, "w has N entries"),
    "an index kept whole": ("index_without_bounds", {"county": "row"}, "county"),
    "a size kept whole": ("missing_values", {"N_mis": "shared"}, "N_mis is given as 'shared', and 'size' holds"),
    "globals' rows as units'": ("missing_values", {"x_obs": "unit"}, "x_obs as 'unit' needs an entry per unit"),
    "ends for starts": ("ragged_start_end", {"first": "end", "last": "start"}, "first is given as 'end'"),
    "sizes that do not add up": ("ragged_start_end", {"last": "sizes", "first": "unit"}, "last is given as 'sizes'"),
    "overlapping stretches": ("ragged_start_end", {"first": "end", "last": "sizes"}, "last"),
    "items of the wrong table": ("occupancy", {"V": "size"}, "V is given as 'size', and 'shared' holds"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_rules_are_caught_and_named(mistake):
    name, rules, message = WRONG[mistake]
    model, _, _ = inspected(name)
    refusal = sliced(model, CASES[name].level, rules)
    assert isinstance(refusal, SlicingRefusal)
    assert re.search(message, refusal.reason), refusal.reason


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"z": "unit"}, "names 'z', which is no data entry of linear. Its data entries: N, x"),
        ({"x": "units"}, r"slicing\['x'\] is 'units', expected one of unit, row, index"),
        ({"x": "unit:one"}, "'unit:one'"),
        ({"x": "index:1"}, "`unit` and `row` may name an axis"),
    ],
)
def test_rules_that_are_none_are_errors(rules, message):
    model, _, _ = inspected("linear")
    with pytest.raises(StructureError, match=message):
        sliced(model, "N", rules)


def test_rules_print_as_they_are_written():
    program = Program.from_code("data { int N; matrix[2, N] y; array[N] int g; }")
    given = {"N": "size", "y": "unit:1", "g": "index"}
    assert {name: str(rule) for name, rule in parse_rules(program, given).items()} == given
