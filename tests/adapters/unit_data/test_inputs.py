"""Data inputs: which data entries feed a unit, and whether its own parts of them are enough."""

import math

import numpy as np
import pytest

from sliced_cases import CASES, ROOT, bind, generator, level_of
from stan_adapters.unit_data.inputs import find_data_inputs
from stan_adapters.unit_data.slicing import Slicing, find_slicing


def inspect(code_or_file, data, level_name, *, seed=1):
    """The level, its slicing and its data inputs."""
    model = bind(code_or_file, data)
    level = level_of(model, level_name)
    rng = np.random.default_rng(seed)
    slicing = find_slicing(model, level, rng)
    return level, slicing, find_data_inputs(model, level, slicing, rng)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_every_case_has_its_data_inputs(name, seed):
    case = CASES[name]
    level, slicing, found = inspect(
        case.stan_file, case.make_data(generator(name, seed)), case.level, seed=seed
    )
    assert tuple(sorted(found.names)) == case.data_inputs
    assert found.inputs in (case.inputs, *case.alt_inputs)
    budget = 4 * math.log2(level.num_units) + 60
    assert slicing.evaluations + found.evaluations <= budget


OFFSETS = {
    "linear": {"x": (0,)},
    "saw": {"x": (0, 1)},
    "size_minus_one": {"x": (0, 1)},
    "neighbour_mean": {"x": (-1, 0)},
    "autoregressive_observations": {"y": (-1, 0)},
    "position_as_number": {"y": (0,)},
    "standardized_data": {"y": (0,)},
    "size_product": {"y": (0,)},
    "size_from_transformed_data": {"seen": (0,), "x": (0,)},
}


@pytest.mark.parametrize("name", OFFSETS)
def test_offsets_say_which_neighbours_count(name):
    case = CASES[name]
    assert inspect(case.stan_file, case.make_data(generator(name)), case.level)[2].offsets == OFFSETS[name]


def test_a_units_own_number_is_more_than_its_own_data():
    case = CASES["position_as_number"]
    assert inspect(case.stan_file, case.make_data(generator("position")), "N")[2].inputs == "expanded"


@pytest.mark.parametrize(("mean", "inputs"), [("z[n]", "simple"), ("z[n] + n", "expanded")])
def test_a_number_matters_also_where_the_size_is_fixed(mean, inputs):
    code = f"""data {{ vector[9] y; }} parameters {{ real a; vector[9] z; }}
    model {{ a ~ std_normal(); z ~ normal(a, 1); for (n in 1:9) y[n] ~ student_t(4, {mean}, 1); }}"""
    _, slicing, found = inspect(code, {"y": generator("fixed").normal(size=9)}, "9")
    assert isinstance(slicing, Slicing) == (inputs == "simple")
    assert (found.names, found.inputs, found.offsets) == (("y",), inputs, {"y": (0,)})


@pytest.mark.parametrize(
    ("file", "level", "names"),
    [
        ("linear/linear.stan", "N", ("x",)),
        ("lsat_2pl/lsat_2pl.stan", "N", ("y",)),
        ("random_slopes/random_slopes.stan", "J", ("g", "x", "y")),
        ("eight_schools/eight_schools.stan", "J", ("y", "sigma")),
    ],
)
def test_bundled_programs_are_simple(file, level, names):
    path = ROOT / "stan_models" / file
    _, _, found = inspect(path, path.with_name("data.json"), level)
    assert (found.names, found.inputs, found.statistic) == (names, "simple", 0.0)


NORMAL = """data { int N; %s } parameters { real a; vector[N] z; }
model { a ~ std_normal(); z ~ normal(a, 1); %s }"""


def test_an_entry_that_is_the_same_for_all_units_is_moved():
    code = NORMAL % ("vector[N] y; vector[N] s; vector[N] unused;", "y ~ normal(z, s);")
    data = {"N": 9, "y": generator("y").normal(size=9), "s": np.ones(9), "unused": np.ones(9)}
    assert inspect(code, data, "N")[2].names == ("y", "s")


def test_entries_that_bound_each_other_are_moved_where_an_exchange_is_illegal():
    code = NORMAL % ("array[N] int n; array[N] int<upper=n> y;", "y ~ binomial_logit(n, z);")
    data = {"N": 6, "n": [1, 200, 3, 40, 5, 60], "y": [1, 200, 3, 40, 5, 60]}
    _, slicing, found = inspect(code, data, "N")
    assert isinstance(slicing, Slicing)
    assert found.names == ("n", "y")


def test_data_without_influence_and_data_of_the_globals_are_left_out():
    code = NORMAL % (
        "vector[N] y; vector[N] unused; int M; vector[M] w; real s;",
        "y ~ normal(z, s); w ~ normal(a, 1);",
    )
    noise = generator("noise").normal(size=(3, 9))
    data = {"N": 9, "y": noise[0], "unused": noise[1], "M": 9, "w": noise[2], "s": 2.0}
    _, _, found = inspect(code, data, "N")
    assert (found.names, found.inputs) == (("y",), "simple")


@pytest.mark.parametrize("lag", [1, 2, 7])
def test_a_lag_is_found_at_its_distance(lag):
    code = NORMAL % ("vector[N] y;", f"y[1:{lag}] ~ normal(z[1:{lag}], 1); "
                     f"y[{lag + 1}:N] ~ normal(0.5 * y[1:(N - {lag})] + z[{lag + 1}:N], 1);")  # fmt: skip
    _, _, found = inspect(code, {"N": 60, "y": generator("lag").normal(size=60)}, "N")
    assert (found.inputs, found.offsets) == ("expanded", {"y": (-lag, 0)})


def test_a_lag_within_a_groups_own_rows_is_simple():
    code = """data { int J; int T; array[J] vector[T] y; } parameters { real a; vector[J] z; }
    model { a ~ std_normal(); z ~ normal(a, 1); for (j in 1:J) y[j, 2:T] ~ normal(y[j, 1:T - 1] + z[j], 1); }"""
    _, _, found = inspect(code, {"J": 12, "T": 4, "y": generator("growth").normal(size=(12, 4))}, "J")
    assert (found.names, found.inputs) == (("y",), "simple")


def test_every_unit_reading_all_data_is_no_simple_input():
    """Each unit's prior mean is a weighted sum over all observations."""
    code = NORMAL % ("vector[N] y; matrix[N, N] W;", "y ~ normal(z + W * y, 1);")
    rng = generator("network")
    data = {"N": 16, "y": rng.normal(size=16), "W": rng.uniform(0.1, 1, (16, 16))}
    assert inspect(code, data, "N")[2].inputs != "simple"


def test_many_units_are_sampled_not_all_bound():
    case = CASES["varying_intercept"]
    rng = generator("many")
    rows, groups = 30_000, 3_000
    data = {
        "N": rows,
        "J": groups,
        "g": rng.permutation(np.arange(rows) % groups) + 1,
        "x": rng.normal(size=rows),
        "y": rng.normal(size=rows),
    }
    level, _, found = inspect(case.stan_file, data, "J")
    assert (found.names, found.inputs) == (("g", "x", "y"), "simple")
    assert found.bindings <= 3
    assert found.probe(level).holds


def test_the_probe_fails_where_neighbours_count():
    case = CASES["saw"]
    level, _, found = inspect(case.stan_file, case.make_data(generator("probe")), "N")
    probe = found.probe(level)
    assert (probe.probe, probe.holds) == ("data inputs of N", False)
    assert probe.statistic > probe.tolerance
