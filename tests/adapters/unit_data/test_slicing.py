"""Slicing: the data of some units are valid data of the same program, and their models are parts of the whole."""

import re

import numpy as np
import pytest

from sliced_cases import CASES, EVERY_CASE, ROOT, bind, generator, inspected, sliced, values
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Program
from stan_adapters.levels.levels import candidate_levels, make_level, shared_levels
from stan_adapters.unit_data import checks
from stan_adapters.unit_data.inputs import find_data_inputs
from stan_adapters.unit_data.slicing import Slicing, SlicingRefusal, find_slicing
from work import interpreted_lines

BUNDLED = ROOT / "stan_models"


REFUSED = {
    "dyads": "places of no declared pattern",
    "missing_outcomes": "N_mis, changes with the units, and it is not a latent",
    "two_groupings_in_one_vector": "places of no declared pattern",
    "saw": r"^x has N \+ 1 entries",
    "size_minus_one": "^x has N entries",
    "neighbour_mean": "a unit's place matters",
    "autoregressive_observations": "a unit's place matters",
    "position_as_number": "a unit's place matters",
    "size_product": "not set by one size in the data",
}


# ---- the table of cases


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_sliced_or_refused_for_its_reason(name):
    _, _, slicing = inspected(name)
    if name in REFUSED:
        assert isinstance(slicing, SlicingRefusal), slicing
        assert re.search(REFUSED[name], slicing.reason), slicing.reason
    else:
        assert isinstance(slicing, Slicing), slicing.reason
        assert [probe.holds for probe in slicing.evidence] == [True, True]


@pytest.mark.parametrize("name", CASES)
def test_a_sample_of_the_units_tells_what_all_of_them_do(name, monkeypatch):
    """Where there are very many units, only a sample is permuted, and its scores are held against the whole."""
    monkeypatch.setattr(checks, "_MAX_PERMUTED", 9)
    model, level, _ = inspected(name)
    slicing = find_slicing(model, level, generator(name, "sample"))
    assert isinstance(slicing, SlicingRefusal) == (name in REFUSED)


@pytest.mark.parametrize("name", [name for name in CASES if name not in (*REFUSED, "two_units")])
def test_offered_slicings_are_additive_on_other_subsets(name):
    model, level, slicing = inspected(name)
    rng = generator(name, "other subsets")
    theta = rng.uniform(-0.5, 0.5, model.dim)
    a, b, c = np.array_split(_with_rows_last(slicing, model.data, rng.permutation(level.num_units)), 3)
    whole, common = np.concatenate([a, b, c]), c
    left = density(model, level, slicing, theta, whole) + density(model, level, slicing, theta, common)
    right = density(model, level, slicing, theta, np.concatenate([a, c])) + density(
        model, level, slicing, theta, np.concatenate([b, c])
    )
    assert np.isfinite(left)
    assert left == pytest.approx(right, rel=1e-9, abs=1e-9)
    assert density(model, level, slicing, theta, whole) == pytest.approx(
        model.log_density_gradient(theta)[0], rel=1e-9
    )


def _with_rows_last(slicing, data, units):
    rows = slicing.rows_per_unit(data)
    if rows is None:
        return units
    last = np.flatnonzero(rows[units])[-1]
    return np.append(np.delete(units, last), units[last])


def density(model, level, slicing, theta, units):
    """The log density of the program bound to the units' data, each unit's latents in its own place."""
    data = slicing.subset(model.data, units)
    with BoundModel(data.program, data) as part:
        here = make_level(part.layout, level.name, level.members)
        point = np.empty(part.dim)
        point[here.globals_index(part.dim)] = theta[level.globals_index(model.dim)]
        point[here.index] = theta[level.index[units]]
        return part.log_density_gradient(point)[0]


@pytest.mark.parametrize("name", CASES)
def test_checking_stays_within_a_small_budget(name):
    _, _, slicing = inspected(name)
    assert slicing.bindings <= 20  # what an inspection may take for a level
    assert slicing.evaluations <= 100
    assert sum(probe.evaluations for probe in slicing.evidence) <= slicing.evaluations


@pytest.mark.parametrize(
    ("file", "level"),
    [
        ("linear/linear.stan", "N"),
        ("lsat_2pl/lsat_2pl.stan", "N"),
        ("random_slopes/random_slopes.stan", "J"),
        ("eight_schools/eight_schools.stan", "J"),
        ("eight_schools/eight_schools_centered.stan", "J"),
    ],
)
def test_bundled_programs_are_sliced(file, level):
    path = BUNDLED / file
    model = bind(path, path.with_name("data.json"))
    slicing = sliced(model, level)
    assert isinstance(slicing, Slicing), slicing.reason


def test_a_last_group_without_rows_is_no_failure():
    """segment() refuses to start after the last row, so some orders of the groups can't be bound."""
    case = CASES["ragged_sizes"]
    model = bind(case.stan_file, case.make_data(generator("ragged")))
    for seed in range(12):
        assert isinstance(sliced(model, "J", seed=seed), Slicing)


def test_groups_without_rows_go_where_the_program_bears_them():
    """With two of three groups empty, a random order nearly always ends with one that the program refuses."""
    case = CASES["ragged_sizes"]
    sizes = np.array([0, 2, 0, 0, 3, 0, 0, 1, 0, 0, 2, 0, 0, 4, 0, 0, 0, 3])
    y = generator("empty groups").normal(size=sizes.sum())
    model = bind(case.stan_file, {"N": sizes.sum(), "J": sizes.size, "size_of": sizes, "x": y[::-1], "y": y})
    outcomes = [sliced(model, "J", seed=seed) for seed in range(8)]
    assert all(isinstance(slicing, Slicing) for slicing in outcomes)


def test_a_program_that_refuses_to_have_no_units_is_checked_in_three_parts():
    case = CASES["groups_without_rows"]
    code = case.stan_file.read_text().replace("int<lower=0> J;", "int<lower=1> J;")
    model = bind(code, case.make_data(generator("no units")))
    assert sliced(model, "J").smallest > 0
    assert inspected("groups_without_rows")[2].smallest == 0
    assert inspected("linear")[2].smallest == 0


def test_entries_padded_with_nan_are_cut_like_others():
    code = """data { int N; int T; array[N] int n; matrix[N, T] y; } parameters { real mu; vector[N] z; }
    model { mu ~ normal(0, 2); z ~ std_normal(); for (i in 1:N) y[i, 1:n[i]] ~ normal(mu + z[i], 1); }"""
    y = generator("padding").normal(size=(20, 4))
    lengths = np.arange(20) % 5
    y[np.arange(4) >= lengths[:, None]] = np.nan
    slicing = sliced(bind(code, {"N": 20, "T": 4, "n": lengths, "y": y}), "N")
    assert isinstance(slicing, Slicing)


def _padded(values, observed, fill):
    return np.where(observed, values, fill)


_OBSERVED = np.arange(5) < (np.arange(20) % 5 + 1)[:, None]
_REAL, _COUNT = np.random.default_rng(5).normal(size=(20, 5)), np.random.default_rng(6).poisson(1.5, (20, 5))
_LONG = np.argwhere(_OBSERVED) + 1
MASKED = {  # data beside N and T, the likelihood of unit i, the values, and the entries that feed a unit
    "a mask": (
        "matrix[N, T] y; array[N, T] int<lower=0, upper=1> seen;",
        "for (t in 1:T) if (seen[i, t]) y[i, t] ~ normal(mu + z[i], 1);",
        {"y": _padded(_REAL, _OBSERVED, 99), "seen": _OBSERVED * 1},
        ("y", "seen"),
    ),
    "a mask with a column for each unit": (
        "array[T, N] int y; array[T, N] int seen;",
        "for (t in 1:T) if (seen[t, i] == 1) y[t, i] ~ poisson_log(mu + z[i]);",
        {"y": _padded(_COUNT, _OBSERVED, -1).T, "seen": _OBSERVED.T * 1},
        ("y", "seen"),
    ),
    "-999": (
        "matrix[N, T] y;",
        "for (t in 1:T) if (y[i, t] > -900) y[i, t] ~ normal(mu + z[i], 1);",
        {"y": _padded(_REAL, _OBSERVED, -999)},
        ("y",),
    ),
    "NaN": (
        "matrix[N, T] y;",
        "for (t in 1:T) if (!is_nan(y[i, t])) y[i, t] ~ normal(mu + z[i], 1);",
        {"y": _padded(_REAL, _OBSERVED, np.nan)},
        ("y",),
    ),
    "-1 for a count": (
        "array[N, T] int<lower=-1> y;",
        "for (t in 1:T) if (y[i, t] >= 0) y[i, t] ~ poisson_log(mu + z[i]);",
        {"y": _padded(_COUNT, _OBSERVED, -1)},
        ("y",),
    ),
    "lengths": (
        "array[N, T] int y; array[N] int<lower=0, upper=T> n;",
        "y[i, 1:n[i]] ~ poisson_log(mu + z[i]);",
        {"y": _padded(_COUNT, _OBSERVED, 0), "n": _OBSERVED.sum(axis=1)},
        ("y", "n"),
    ),
    "a list of the places that are filled": (
        "matrix[N, T] y; int K; array[K] int<lower=1, upper=N> who; array[K] int<lower=1, upper=T> when;",
        "for (k in 1:K) if (who[k] == i) y[i, when[k]] ~ normal(mu + z[i], 1);",
        {"y": _REAL, "K": len(_LONG), "who": _LONG[:, 0], "when": _LONG[:, 1]},
        ("y", "who", "when"),
    ),
    "vectors in a padded array": (
        "array[N, T] int y; array[N, T] vector[2] x; array[N] int n;",
        "for (t in 1:n[i]) y[i, t] ~ poisson_log(mu + z[i] + 0.1 * x[i, t, 2]);",
        {"y": _COUNT, "x": np.stack([_REAL, _REAL + 1], axis=-1), "n": _OBSERVED.sum(axis=1)},
        ("y", "x", "n"),
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_padded_and_masked_tables_are_cut_and_named(name):
    declared, likelihood, values_of_it, names = MASKED[name]
    code = f"""data {{ int N; int T; {declared} }} parameters {{ real mu; vector[N] z; }}
    model {{ mu ~ normal(0, 2); z ~ std_normal(); for (i in 1:N) {{ {likelihood} }} }}"""
    model = bind(code, {"N": 20, "T": 5} | values_of_it)
    slicing = sliced(model, "N")
    assert isinstance(slicing, Slicing), slicing.reason
    level = next(level for level in candidate_levels(model.layout) if level.name == "N")
    feeds = find_data_inputs(model, level, slicing, generator(name, "inputs"))
    assert feeds.inputs == "simple"
    assert feeds.names == names


@pytest.mark.parametrize("weighted", [0, 1])
def test_sizes_that_a_switch_chooses_are_cut_as_what_they_are(weighted):
    """As in programs of R packages: `vector[has_weights ? N : 0] weights`, and parameters of such a size."""
    code = """data { int N; int J; int has; int none; array[N] int<lower=1, upper=J> g; vector[N] y;
      vector[has == 1 ? N : 0] w; array[none ? N : 0] int<lower=0, upper=J> h; }
    parameters { real mu; vector[none ? 0 : J] z; }
    model { mu ~ normal(0, 2); z ~ std_normal();
      for (n in 1:N) target += (has == 1 ? w[n] : 1) * normal_lpdf(y[n] | mu + z[g[n]], 1); }"""
    rng = generator("switches")
    owner = np.append(np.arange(12), rng.integers(0, 12, 28)) + 1
    data = {"N": 40, "J": 12, "has": weighted, "none": 0, "g": owner, "y": rng.normal(size=40), "h": []}
    model = bind(code, data | {"w": rng.uniform(0.5, 1, 40 * weighted)})
    slicing = sliced(model, "J")
    assert isinstance(slicing, Slicing)
    part = slicing.subset(model.data, [3, 7])
    assert len(part["y"]) == np.isin(owner, [4, 8]).sum()
    assert len(part["w"]) == weighted * len(part["y"])


def test_a_switch_that_counts_something_is_no_switch():
    """A size that asks whether there are many units changes with them."""
    code = """data { int N; vector[N] y; vector[N > 15 ? N : 0] w; }
    parameters { vector[N] z; } model { z ~ normal(0, 1); y ~ normal(z, 1); target += sum(w) * 0; }"""
    y = generator("no switch").normal(size=20)
    assert isinstance(sliced(bind(code, {"N": 20, "y": y, "w": y}), "N"), SlicingRefusal)


def test_subsets_of_other_data_of_the_program():
    model, _, slicing = inspected("varying_intercept")
    other = read_data(model.program, {"N": 3, "J": 2, "g": [2, 2, 1], "x": [1.0, 2, 3], "y": [4.0, 5, 6]})
    assert slicing.num_units(other) == 2
    assert slicing.rows_per_unit(other).tolist() == [1, 2]
    assert values(slicing.subset(other, [1])) == {
        "N": 2,
        "J": 1,
        "g": [1, 1],
        "x": [1, 2],
        "y": [4, 5],
    }


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([0, 20], "no unit 20: the 20 units of N count from 0"),
        ([-1], "no unit -1"),
        ([3, 3], "unit 3 is given twice"),
        ([0.5], "units are integers"),
        ([[0]], r"of shape \(1, 1\)"),
    ],
)
def test_wrong_unit_numbers_are_refused(units, message):
    model, _, slicing = inspected("linear")
    with pytest.raises(StructureError, match=message):
        slicing.subset(model.data, units)


def test_the_rows_of_units_are_cut_in_a_number_of_steps_that_does_not_grow_with_them():
    """Array operations alone do the work, so a million rows take no loop in Python."""
    program = Program.from_file(CASES["varying_intercept"].stan_file)
    _, _, slicing = inspected("varying_intercept")

    def work(rows, groups):
        rng = generator("many rows")
        owner = np.append(np.arange(groups), rng.integers(0, groups, rows - groups)) + 1
        noise = rng.normal(size=rows)
        data = read_data(program, {"N": rows, "J": groups, "g": owner, "x": noise, "y": noise})
        chosen = rng.permutation(groups)[: groups // 2]
        half = slicing.subset(data, chosen)
        assert len(half["y"]) == half["N"] == np.isin(owner - 1, chosen).sum()
        return interpreted_lines(lambda: slicing.subset(data, chosen))

    assert work(10**5, 10**4) < 1.1 * work(10**3, 10**2)


# ---- what must be refused


def test_globals_that_belong_to_rows_of_the_units_are_refused():
    model, _, _ = inspected("nested")
    refusal = sliced(model, "C")
    assert isinstance(refusal, SlicingRefusal)
    assert "u, S, changes with the units" in refusal.reason


def test_rows_of_a_sparse_matrix_are_refused_as_such():
    code = """data { int N; int J; vector[N] w; array[N] int<lower=1, upper=J> v; array[N + 1] int u; vector[N] y; }
    parameters { vector[J] z; real mu; }
    model { z ~ std_normal(); mu ~ std_normal(); y ~ normal(mu + csr_matrix_times_vector(N, J, w, v, u, z), 1); }"""
    y = generator("sparse").normal(size=24)
    data = {"N": 24, "J": 6, "w": np.ones(24), "v": np.arange(24) % 6 + 1, "u": np.arange(25) + 1, "y": y}
    refusal = sliced(bind(code, data), "J")
    assert isinstance(refusal, SlicingRefusal)
    assert refusal.reason.startswith(
        "Sparse matrices are not cut: w, v and u are some (csr_matrix_times_vector)."
    )


def test_rows_of_two_units_are_refused():
    code = """data { int G; int J; array[G] int<lower=1, upper=J> a; array[G] int<lower=1, upper=J> b; }
    parameters { vector[J] z; } model { z ~ std_normal(); target += sum(z[a] - z[b]); }"""
    model = bind(code, {"G": 3, "J": 3, "a": [1, 2, 3], "b": [2, 3, 1]})
    refusal = sliced(model, "J")
    assert isinstance(refusal, SlicingRefusal)
    assert re.search("b gives row 1 of G to unit 2, and another entry gives it to unit 1", refusal.reason), (
        refusal.reason
    )


def test_a_prior_that_counts_the_units_is_no_obstacle_and_one_that_divides_by_them_is():
    code = """data { int N; vector[N] y; } parameters { real m; vector[N] z; }
    model { m ~ normal(0, %s); z ~ normal(m, 1); y ~ normal(z, 1); }"""
    data = {"N": 12, "y": np.arange(12.0)}
    assert isinstance(sliced(bind(code % "1", data), "N"), Slicing)
    refusal = sliced(bind(code % "1.0 / N", data), "N")
    assert isinstance(refusal, SlicingRefusal)
    assert [probe.holds for probe in refusal.evidence] == [True, False]


def test_a_failure_that_cancels_in_pairs_is_found():
    """Every unit's mean depends on the rank of its observation: any order of the units gives the same density."""
    code = """data { int N; vector[N] y; } parameters { vector[N] z; }
    model { array[N] int r = sort_indices_asc(y); vector[N] rank; for (n in 1:N) rank[r[n]] = n;
    z ~ normal(rank, 1); y ~ normal(z, 1); }"""
    refusal = sliced(bind(code, {"N": 10, "y": generator("ranks").normal(size=10)}), "N")
    assert isinstance(refusal, SlicingRefusal)
    assert [probe.holds for probe in refusal.evidence] == [True, False]


def test_globals_whose_number_depends_on_who_is_there_are_refused():
    code = """data { int N; array[N] int<lower=1> y; }
    parameters { simplex[max(y)] p; vector[N] z; } model { z ~ std_normal(); y ~ categorical(p); }"""
    refusal = sliced(bind(code, {"N": 40, "y": [1, 3] * 20}), "N")
    assert isinstance(refusal, SlicingRefusal)
    assert "p is not a latent of level N, and yet its shape changes with the units" in refusal.reason


@pytest.mark.parametrize(
    ("mean", "holds"), [("z[g]", True), ("z[g] + 0.1 * z[1] * z[J]", False), ("z[g] * J", False)]
)
def test_two_units_of_a_program_that_needs_one_are_compared_at_other_latents(mean, holds):
    code = f"""data {{ int<lower=1> N; int<lower=1> J; array[N] int<lower=1, upper=J> g; vector[N] y; }}
    parameters {{ real m; vector[J] z; }} model {{ m ~ normal(0, 1); z ~ normal(m, 1); y ~ normal({mean}, 1); }}"""
    slicing = sliced(bind(code, {"N": 6, "J": 2, "g": [1, 2] * 3, "y": np.arange(6.0)}), "J")
    assert isinstance(slicing, Slicing) is holds
    if not holds:
        assert [probe.holds for probe in slicing.evidence] == [True, False]


def test_a_program_that_rejects_few_units_is_compared_where_it_does_not():
    code = """data { int J; vector[J] y; } parameters { real m; vector[J] z; }
    model { if (J < 10) reject("too few"); m ~ normal(0, 1); z ~ normal(m, 1); y ~ normal(z, 1); }"""
    slicing = sliced(bind(code, {"J": 40, "y": np.linspace(0, 1, 40)}), "J")
    assert isinstance(slicing, Slicing), slicing.reason
    assert slicing.smallest > 9


def test_units_that_own_no_coordinate_are_refused():
    case = EVERY_CASE["sum_to_zero"]
    model = bind(case.stan_file, case.make_data(generator("sum")))
    (level,) = shared_levels(model.layout)
    refusal = find_slicing(model, level, generator("sum"))
    assert isinstance(refusal, SlicingRefusal)
    assert "No unit of J owns a latent" in refusal.reason


def test_units_of_coupled_programs_are_never_offered():
    """Additivity holds for independent units only, so it would expose a level that was called separable by mistake."""
    for name, case in EVERY_CASE.items():
        if case.verdict != "not-closable" or name == "sum_to_zero":
            continue
        model = bind(case.stan_file, case.make_data(generator(name)))
        assert isinstance(sliced(model, case.level), SlicingRefusal), name


def test_a_constant_that_is_no_sum_over_units_is_found():
    """Gradients can't show it: only the densities tell."""
    code = """data { int N; vector[N] y; } parameters { vector[N] z; }
    model { z ~ std_normal(); y ~ normal(z, 1); target += 0.1 * square(sum(y)); }"""
    refusal = sliced(bind(code, {"N": 12, "y": np.arange(12.0)}), "N")
    assert isinstance(refusal, SlicingRefusal)
    assert [probe.holds for probe in refusal.evidence] == [True, False]
