"""Which programs give units other scores alone than among others, and from which entries."""

import numpy as np
import pytest

from sliced_cases import CASES, EVERY_CASE, bind, generator, inspected, level_of
from stan_adapters.data.stan_data import read_data
from stan_adapters.levels.levels import candidate_levels
from stan_adapters.new_units import entries_of_all_units

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


# -- what halves of the units do not show, or not alone ------------------------------------------------------------

GROUPS = """
data { int N; int J; array[N] int<lower=1> g; vector[N] x; vector<lower=0>[N] w; vector[N] y; %s }
transformed data { %s }
parameters { vector[J] a; real b; real<lower=0> s; }
model { b ~ normal(0, 2); s ~ normal(0, 1); a ~ normal(0, 1); %s }
"""
IN_ORDER = 'for (n in 2:N) if (x[n] < x[n - 1]) reject("x must increase"); '
COUPLED = "sum(a) ~ normal(0, 0.1); "


def by(predictor):
    return f"y ~ normal(a[g] + b * ({predictor}), s);"


AGGREGATES = {
    "the first number": ("", "", by("x - x[1]"), ("x",)),
    "the last number": ("", "", by("x - x[N]"), ("x",)),
    "a number of the middle": ("", "", by("x - x[N %/% 3]"), ("x",)),
    "the mean of the first": ("", "", by("x - mean(x[1:10])"), ("x",)),
    "a ratio to the first": ("", "vector[N] v = w / w[1];", by("v"), ("w",)),
    "the largest": ("", "vector[N] v = x / max(x);", by("v"), ("x",)),
    "the smallest": ("", "", by("x - min(x)"), ("x",)),
    "the median": ("", "", by("x - sort_asc(x)[N %/% 2]"), ("x",)),
    "ranks": ("", "vector[N] v; for (n in 1:N) v[n] = rank(x, n);", by("v"), ("x",)),
    "weights of all": ("", "", by("N * w / sum(w)"), ("w",)),
    "the number of rows": ("", "", by("x / N"), ("N", "J")),
    "the number of units": ("", "", by("x / J"), ("N", "J")),
    "doses in order": ("ordered[J] d;", "vector[J] e = d - mean(d);", by("e[g]"), ("d",)),
    "doses from the first": ("ordered[J] d;", "", by("d[g] - d[1]"), ("d",)),
    "sorted": ("", IN_ORDER + "vector[N] v = x - mean(x);", by("v"), ("x",)),
    "sorted, in the model": ("", IN_ORDER, by("x - mean(x)"), ("x",)),
    "coupled": ("", "vector[N] v = x - mean(x);", by("v") + COUPLED, ("x",)),
    "coupled, in the model": ("", "", by("x - mean(x)") + COUPLED, ("x",)),
    "coupled, from the smallest": ("", "", by("x - min(x)") + COUPLED, ("x",)),
}
GROUP_MEANS = (
    "vector[J] m = rep_vector(0, J); vector[J] k = m; "
    "for (n in 1:N) { m[g[n]] += x[n]; k[g[n]] += 1; } m ./= k;"
)
ROW_BY_ROW = {
    "plain": ("", "", by("x")),
    "transformed": ("", "vector[N] v = 2 * x + 1;", by("v")),
    "means of groups": ("", GROUP_MEANS, by("x - m[g]")),
    "doses": ("ordered[J] d;", "vector[J] e = square(d);", by("d[g] + e[g]")),
    "sorted": ("", IN_ORDER, by("x")),
    "a prior from all": ("", "real m = mean(y);", f"b ~ normal(m, sd(y)); {by('x')}"),
    "coupled": ("", "", by("x") + COUPLED),
    "coupled and transformed": ("", "vector[N] v = log(w);", by("v") + COUPLED),
    "the number before": ("", "", "y[2:N] ~ normal(a[g[2:N]] + b * x[2:N] + 0.3 * y[1:(N - 1)], s);"),
    "units by the clock": ("", "", "for (n in 1:N) y[n] ~ normal(a[g[n]] + b * x[n] + 0.1 * n, s);"),
    "sums of effects": ("", "", "y ~ normal(cumulative_sum(a)[g] + b * x, s);"),
}


def in_groups(seed, units, rows=8, *, in_order=False, scattered=False, ties=False):
    rng = np.random.default_rng(seed)
    total = units * rows
    x = rng.normal(1, 1, total)
    g = np.repeat(np.arange(units), rows) + 1
    x = np.round(x).clip(-1, 3) if ties else x
    return {
        "N": total,
        "J": units,
        "g": rng.permutation(g) if scattered else g,
        "x": np.sort(x) if in_order else x,
        "w": rng.uniform(0.5, 2, total),
        "y": rng.normal(0, 2, total),
        "d": np.sort(rng.normal(1, 1, units)),
    }


def found_in(parts, units, **layout):
    code = GROUPS % parts
    sorted_rows = IN_ORDER in parts[1]
    fitted, other = (in_groups(seed, n, in_order=sorted_rows, **layout) for seed, n in ((1, units), (2, 7)))
    if "d;" not in parts[0]:
        fitted.pop("d"), other.pop("d")
    with bind(code, fitted) as model, bind(code, other) as new:
        return entries_of_all_units(model, level_of(model, "J"), new.data, np.random.default_rng(1))


@pytest.mark.parametrize("units", [16, 60])
@pytest.mark.parametrize("name", AGGREGATES)
def test_numbers_that_all_units_share_are_found_wherever_they_stand(name, units):
    *parts, expected = AGGREGATES[name]
    assert found_in(tuple(parts), units) == expected


OF_PLACES = ("the number before", "units by the clock")  # where rows are scattered, other units' rows decide


@pytest.mark.parametrize("units", [3, 16, 60])
@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_rows_that_speak_of_their_own_units_are_not_refused(name, units):
    assert found_in(ROW_BY_ROW[name], units) == ()
    if name not in OF_PLACES:
        assert found_in(ROW_BY_ROW[name], units, scattered=True) == ()


@pytest.mark.parametrize("name", OF_PLACES)
def test_scattered_rows_whose_places_matter_are_refused(name):
    assert found_in(ROW_BY_ROW[name], 16, scattered=True)


@pytest.mark.parametrize("name", ["the first number", "the largest", "the smallest"])
def test_units_in_scattered_rows_with_numbers_shared_by_all(name):
    *parts, expected = AGGREGATES[name]
    assert found_in(tuple(parts), 20, scattered=True) == expected


def test_the_smallest_number_is_found_where_both_halves_have_it():
    assert found_in(("", "", by("x - min(x)")), 40, rows=2, ties=True) == ("x",)


@pytest.mark.parametrize("units", [2, 3, 5])
def test_few_units_are_enough_to_see_a_mean(units):
    assert found_in(("", "vector[N] v = x - mean(x);", by("v")), units) == ("x",)


THRESHOLDS = {
    "a flag that any number sets": ("real f = max(x) > 12 ? 3 : 0;", by("x + f"), ("x",)),
    "a flag that no number must reset": ("real f = min(x) > -12 ? 3 : 0;", by("x + f"), ("x",)),
    "a flag in the model": ("", by("x + (max(w) > 15 ? 1 : 0)"), ("w",)),
    "one of either": ("", by("x + (max(w) > 15 || max(x) > 12 ? 1 : 0)"), ("x", "w", "y")),
    "few rows": ("real f = N < 20 ? 3 : 0;", by("x + f"), ("N", "J")),
    "a flag of each row": ("vector[N] f; for (n in 1:N) f[n] = x[n] > 12 ? 3 : 0;", by("x + f"), ()),
    "a flag of each unit": (
        "vector[J] f = rep_vector(0, J); for (n in 1:N) if (x[n] > 12) f[g[n]] = 3;", by("x + f[g]"), ()
    ),
}  # fmt: skip


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("name", THRESHOLDS)
def test_thresholds_that_only_new_data_cross_are_found(name, scattered):
    computed, statement, expected = THRESHOLDS[name]
    fitted, usual = (in_groups(seed, n, scattered=scattered) for seed, n in ((1, 30), (2, 7)))
    for data in (fitted, usual):
        data.pop("d")
    far = usual | {"x": usual["x"] * 20, "w": usual["w"] * 20}
    few = {"N": 6, "J": 3} | {key: far[key][:6] for key in "xwy"} | {"g": np.arange(6) // 2 + 1}
    with bind(GROUPS % ("", computed, statement), fitted) as model:
        for new, answer in ((usual, ()), (few if name == "few rows" else far, expected)):
            data = read_data(model.program, new)
            found = entries_of_all_units(model, level_of(model, "J"), data, np.random.default_rng(1))
            assert found == answer


STRUCTURES = ("random_walk", "ar1_non_centred", "gaussian_process", "icar", "soft_sum_to_zero", "common_total",
              "panel_of_walks", "paired_comparisons", "hidden_markov", "neighbour_mean",
              "autoregressive_observations")  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_units_that_speak_to_others_are_not_refused_for_that(name):
    case = EVERY_CASE[name]
    with bind(case.stan_file, case.make_data(generator(name))) as model:
        new = read_data(model.program, case.make_data(generator(name, "new")))
        for level in candidate_levels(model.layout):
            assert entries_of_all_units(model, level, new, np.random.default_rng(1)) == (), level.name
