"""Every tiny program of tests/structure against its row in cases.py; what unit data add to a verdict, and its cost."""

import math
import re

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Program
from stan_adapters.structure.structure import Structure, inspect_structure, with_unit_data
from stan_adapters.unit_data import Slicing
from structure_cases import CASES, bind

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def inspect(case, **options) -> Structure:
    with bind(case) as model:
        return inspect_structure(model, **options)


@each_case
def test_the_verdict_the_level_and_the_latents_are_those_of_the_table(case):
    structure = inspect(case)
    assert structure.verdict in case.verdicts, structure.reason
    if structure.verdict == "closable" and case.verdict == "closable":
        assert structure.chosen.level.name == case.level
        assert tuple(sorted(structure.chosen.level.latents)) == case.latents
        assert structure.chosen.separable
        assert set(structure.globals).isdisjoint(case.latents)
    else:
        assert structure.chosen is None


@each_case
def test_a_coupling_has_the_shape_of_the_table(case):
    structure = inspect(case)
    if case.verdict == "not-closable":
        found = next(c for c in structure.candidates if c.level.name == case.level)
        assert found.described_shape in (case.coupling, "constraint")
        assert tuple(sorted(found.coupled_latents)) == case.latents
    elif case.coupling == "other level":
        coupled = [c for c in structure.candidates if not c.separable]
        assert coupled
        assert all(c is not structure.chosen for c in coupled)


@each_case
def test_the_reason_names_the_latents_or_the_coefficients_and_the_level(case):
    structure = inspect(case)
    words = set(re.findall(r"[A-Za-z_0-9]+", structure.reason))
    assert set(case.latents) <= words
    if case.level is not None:
        assert set(re.findall(r"\w+", case.level)) <= words
    if case.verdict == "nothing-to-amortize":
        told = {name for candidate in structure.candidates for name in candidate.level.latents}
        assert not told or told & words


def budget(structure: Structure, units: int) -> float:
    """In gradients. Where units were found among entries, or under several sizes, it is one for each level."""
    found = any(candidate.sizes for candidate in structure.candidates)
    return 100 * len(structure.candidates) if found else 4 * math.log2(units) + 60


@each_case
def test_inspection_takes_few_gradients_and_counts_them(case, monkeypatch):
    calls = []
    with bind(case) as model:
        plain = model.log_density_gradient
        monkeypatch.setattr(model, "log_density_gradient", lambda theta: calls.append(1) or plain(theta))
        structure = inspect_structure(model)
    largest = max((c.level.num_units for c in structure.candidates), default=2)
    assert structure.evaluations == len(calls)
    assert structure.evaluations <= budget(structure, largest)


@each_case
def test_the_table_fits_100_columns_and_json_says_the_same(case):
    structure = inspect(case)
    assert max(map(len, str(structure).splitlines())) <= 100
    told = structure.to_json()
    assert told["verdict"] == structure.verdict
    assert [level["separable"] for level in told["levels"]] == [c.separable for c in structure.candidates]
    assert sum(level["chosen"] for level in told["levels"]) == (structure.chosen is not None)
    for line in told["certificate"]:
        assert line["holds"] == (line["statistic"] <= line["tolerance"])


@pytest.mark.parametrize("seed", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "name",
    [
        "coupled_where_positive",
        "basis_weights",
        "dyads_in_triads",
        "flat_blocks_of_neighbours",
        "ar1_non_centred",
        "icar",
        "gaussian_process",
        "rejects",
    ],
)
def test_the_verdict_does_not_hang_on_the_seed(name, seed):
    assert inspect(CASES[name], seed=seed).verdict == CASES[name].verdict


def test_a_few_weights_that_look_coupled_alone_are_no_block_of_many():
    with bind(CASES["basis_weights"]) as model:
        assert not any(inspect_structure(model, seed=seed).verdict == "closable" for seed in range(1, 26))


def test_inspection_with_one_seed_repeats_itself():
    one, two = (inspect(CASES["item_response_long"], seed=7) for _ in range(2))
    assert one.to_json() == two.to_json()


# ---- a level named by the user


def test_a_named_level_is_chosen_though_another_one_is_larger():
    assert inspect(CASES["item_response_long"], level="I").chosen.level.latents == ("a", "b")
    assert inspect(CASES["item_response_long"], level="theta").chosen.level.name == "P"


@pytest.mark.parametrize(
    ("case", "name", "level"),
    [
        ("flat_blocks", "J", "J"),
        ("flat_blocks", "z", "J"),
        ("flat_blocks", "q", "J"),
        ("one_level_of_three_sizes", "J_effect", "J"),
        ("one_level_of_three_sizes", "base", "J"),
        ("dyads", "dr", "sets of dr"),
        ("two_groupings_in_one_vector", "z_b[25:31]", "z_b[25:31]"),
        ("studies_under_several_priors", "N_priors", "N_priors"),
        ("missing_outcomes", "y_mis", "N_mis"),
    ],
)
def test_units_among_entries_have_the_names_of_their_parameter_and_of_its_size_as_well(case, name, level):
    structure = inspect(CASES[case], level=name)
    assert (structure.verdict, structure.level.name) == ("closable", level)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("flat_blocks", "The 2 entries of z in a unit lie side by side."),
        ("flat_columns", "The 2 entries of eta in a unit lie 11 places apart."),
        (
            "two_groupings_in_one_vector",
            "Other entries of z_b enter the same terms and count as global here.",
        ),
        ("dyads", "Which 2 entries of dr make a unit was found from what moves what."),
    ],
)
def test_the_reason_says_which_entries_make_a_unit(case, said):
    assert said in inspect(CASES[case]).reason


def test_a_named_level_that_is_coupled_is_chosen_and_not_closable():
    structure = inspect(CASES["random_walk"], level="z")
    assert structure.verdict == "not-closable"
    assert structure.chosen.level.latents == ("z",)
    assert not structure.chosen.separable


def test_a_name_that_is_no_level_is_an_error_that_names_the_nearest():
    with pytest.raises(StructureError, match=r"has no level 'tehta'. Did you mean 'theta'\?"):
        inspect(CASES["item_response_long"], level="tehta")


# ---- programs made here


def inspect_code(code: str, data: dict, **options) -> Structure:
    program = Program.from_code(code)
    with BoundModel(program, read_data(program, data)) as model:
        return inspect_structure(model, **options)


BYM = """
data { int N; array[N] int y; }
parameters { vector[N] theta; vector[N] phi; }
model {
  theta ~ std_normal();
  target += -0.5 * dot_self(phi[2:N] - phi[1:(N - 1)]);
  sum(phi) ~ normal(0, 1);
  y ~ poisson_log(theta + phi);
}"""


def test_a_level_with_one_coupled_latent_is_not_closable_and_the_reason_names_both():
    structure = inspect_code(BYM, {"N": 12, "y": list(range(12))})
    assert structure.verdict == "not-closable"
    assert "12 units of phi, along N" in structure.reason
    assert "theta alone would be independent given the rest: name it (level='theta')" in structure.reason


def test_the_separable_part_of_a_coupled_level_can_be_named():
    structure = inspect_code(BYM, {"N": 12, "y": list(range(12))}, level="theta")
    assert structure.verdict == "closable"
    assert structure.chosen.level.latents == ("theta",)
    assert structure.globals == ("phi",)


def test_a_coupling_that_is_not_seen_twice_still_counts(monkeypatch):
    monkeypatch.setattr(
        "stan_adapters.levels.candidates.member_couplings", lambda *arguments, **options: set()
    )
    structure = inspect_code(BYM, {"N": 12, "y": list(range(12))})
    assert structure.verdict == "not-closable"
    assert "12 units of theta and phi" in structure.reason


def test_parameters_of_one_size_with_different_units_become_two_levels():
    code = """
    data { int N; array[N] int<lower=1, upper=5> a; array[N] int<lower=1, upper=5> b; vector[N] y; }
    parameters { vector[5] u; vector[5] v; }
    model { u ~ std_normal(); v ~ std_normal(); y ~ normal(u[a] + v[b], 1); }"""
    rng = np.random.default_rng(0)
    a, b = (rng.permutation(np.resize(np.arange(1, 6), 40)).tolist() for _ in range(2))
    structure = inspect_code(code, {"N": 40, "a": a, "b": b, "y": rng.normal(size=40).tolist()})
    assert structure.verdict == "closable"
    assert sorted(c.level.latents for c in structure.candidates) == [("u",), ("v",)]
    assert "enters the same terms and counts as global" in structure.reason


def test_coefficients_under_a_likelihood_with_corners_are_not_taken_for_units():
    code = """
    data { int N; int P; matrix[N, P] X; vector[N] y; }
    parameters { vector[P] beta; }
    model { beta ~ double_exponential(0, 10); y ~ double_exponential(X * beta, 1); }"""
    rng = np.random.default_rng(0)
    structure = inspect_code(
        code,
        {"N": 30, "P": 3, "X": rng.normal(size=(30, 3)).tolist(), "y": (rng.normal(size=30) + 40).tolist()},
    )
    assert structure.verdict == "nothing-to-amortize"
    assert "beta holds coefficients of X" in structure.reason


def test_states_that_a_simplex_weighs_are_no_units_even_when_they_separate():
    code = """
    data { int N; int K; int V; array[N] int<lower=1, upper=K> z; array[N] int<lower=1, upper=V> w; }
    parameters { simplex[K] theta; array[K] simplex[V] phi; }
    model { z ~ categorical(theta); for (n in 1:N) w[n] ~ categorical(phi[z[n]]); }"""
    rng = np.random.default_rng(0)
    data = {
        "N": 30,
        "K": 3,
        "V": 4,
        "z": rng.integers(1, 4, 30).tolist(),
        "w": rng.integers(1, 5, 30).tolist(),
    }
    structure = inspect_code(code, data)
    assert structure.verdict == "nothing-to-amortize"
    assert "components that theta weighs" in structure.reason


def test_a_random_walk_behind_an_index_without_bounds_is_a_coupled_level():
    code = """
    data { int N; int T; array[N] int week; vector[N] y; }
    parameters { vector[T] z; }
    model { z[1] ~ std_normal(); z[2:T] ~ normal(z[1:(T - 1)], 1); y ~ normal(z[week], 1); }"""
    week = np.resize(np.arange(1, 9), 20).tolist()
    structure = inspect_code(code, {"N": 20, "T": 8, "week": week, "y": [0.5] * 20})
    assert structure.verdict == "not-closable"
    assert "each depends on its nearest neighbours" in structure.reason


def test_a_program_of_scalars_has_nothing_to_amortize_and_needs_no_gradients():
    structure = inspect_code("parameters { real a; } model { a ~ std_normal(); }", {})
    assert structure.verdict == "nothing-to-amortize"
    assert structure.evaluations == 0


def test_parameters_that_enter_no_term_are_reported_as_untested():
    code = """
    data { int N; vector[N] y; }
    parameters { real mu; vector[N] idle; }
    model { y ~ normal(mu, 1); }"""
    structure = inspect_code(code, {"N": 4, "y": [1, 2, 3, 4]})
    assert structure.verdict == "nothing-to-amortize"
    assert "idle could not be tested" in structure.reason


def test_a_density_that_is_finite_nowhere_is_an_error_with_stans_reason():
    code = """
    data { int N; }
    parameters { vector[N] z; }
    model { reject("no such luck"); z ~ std_normal(); }"""
    with pytest.raises(StructureError, match="no such luck"):
        inspect_code(code, {"N": 3})


def test_the_table_fits_100_columns_whatever_the_names():
    names = [f"a_rather_long_name_of_a_latent_{'x' * 80}_{i}" for i in range(6)]
    symbol = "number_of_units_in_a_survey_that_went_on_and_on"
    declared = " ".join(f"vector[{symbol}] {name};" for name in names)
    priors = " ".join(f"{name} ~ normal(y, 1);" for name in names)
    code = f"data {{ int {symbol}; vector[{symbol}] y; }} parameters {{ {declared} }} model {{ {priors} }}"
    structure = inspect_code(code, {symbol: 4, "y": [1, 2, 3, 4]})
    assert structure.verdict == "closable"
    assert max(map(len, str(structure).splitlines())) <= 100


# -- what unit data add ------------------------------------------------------------------------------------------


CLOSABLE = [name for name, case in CASES.items() if case.verdict == "closable"]


@pytest.mark.parametrize("name", CLOSABLE)
def test_the_json_of_a_level_says_what_the_table_of_cases_says(name):
    case = CASES[name]
    with bind(case) as model:
        structure = with_unit_data(model, inspect_structure(model))
    told = structure.to_json()
    assert told["level"]["inputs"] in (case.inputs, *case.alt_inputs)
    if told["level"]["inputs"] == case.inputs != "unknown":
        assert set(told["level"]["data_inputs"]) == set(case.data_inputs)
    assert told["level"]["sliceable"] == isinstance(structure.slicing, Slicing)
    assert told["slicing"]["verified"] == told["level"]["sliceable"]
    assert bool(told["slicing"]["rules"]) != bool(told["slicing"]["reason"])
    assert (
        told["evaluations"]
        == structure.evaluations
        >= sum(p["evaluations"] for p in told["certificate"][-3:])
    )
    probes = {line["probe"].split(" of ")[0] for line in told["certificate"]}
    assert {"separability", "data inputs"} <= probes
    if told["level"]["sliceable"]:
        assert {"exchangeability", "subset additivity"} <= probes
    assert max(map(len, str(structure).splitlines())) <= 100


@pytest.mark.parametrize("name", CLOSABLE)
def test_inspection_as_a_whole_stays_within_its_gradients_and_counts_them(name, monkeypatch):
    calls = []
    plain = BoundModel.log_density_gradient
    monkeypatch.setattr(
        BoundModel,
        "log_density_gradient",
        lambda self, theta: calls.append(len(np.atleast_2d(theta))) or plain(self, theta),
    )
    with bind(CASES[name]) as model:
        structure = with_unit_data(model, inspect_structure(model))
    assert structure.evaluations == sum(calls)
    assert structure.evaluations <= budget(structure, structure.level.num_units)
    assert 0 < structure.bindings <= 20 * len(structure.candidates)


def test_hand_given_rules_are_verified_and_wrong_ones_named():
    with bind(CASES["varying_intercept"]) as model:
        structure = inspect_structure(model)
        rules = with_unit_data(model, structure).slicing.rules
        right = {name: str(rule) for name, rule in rules.items()}
        assert isinstance(with_unit_data(model, structure, rules=right).slicing, Slicing)
        outcome = next(name for name, rule in right.items() if rule == "row")
        with pytest.raises(StructureError, match=f"Wrong rule for slicing: {outcome}"):
            with_unit_data(model, structure, rules={outcome: "shared"})
        with pytest.raises(StructureError, match="nothing_like_it"):
            with_unit_data(model, structure, rules={"nothing_like_it": "row"})


def test_rules_for_a_program_without_independent_units_are_refused_with_the_reason():
    with bind(CASES["random_walk"]) as model:
        structure = inspect_structure(model)
        assert with_unit_data(model, structure) is structure
        with pytest.raises(StructureError, match="coupled"):
            with_unit_data(model, structure, rules={"y": "unit"})
