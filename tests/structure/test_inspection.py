"""What inspection adds to a verdict: slicing, data inputs, the dependence picture, and what all of it costs."""

import math

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import StructureError
from stan_adapters.structure.dependence import MAX_UNITS, dependence
from stan_adapters.structure.structure import inspect_structure, with_unit_data
from stan_adapters.unit_data import Slicing
from structure_cases import CASES, bind

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
    assert structure.evaluations <= 4 * math.log2(structure.level.num_units) + 60
    assert structure.bindings > 0


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


def off_diagonal(change: np.ndarray, count: int) -> np.ndarray:
    return change[:count, :count][~np.eye(count, dtype=bool)]


def test_the_picture_of_separable_units_is_a_diagonal_with_globals_at_its_edge():
    with bind(CASES["item_response_long"]) as model:
        found = dependence(model, inspect_structure(model))
    assert found.num_units == 26
    assert found.labels[-2:] == ("a", "b")
    assert (off_diagonal(found.change, 26) == 0).all()
    assert (np.diag(found.change) > 0).all()
    assert found.change[-1, :26].max() > 0


def test_the_picture_of_a_random_walk_is_a_band():
    with bind(CASES["random_walk"]) as model:
        found = dependence(model, inspect_structure(model))
    distance = np.abs(np.subtract.outer(np.arange(found.num_units), np.arange(found.num_units)))
    units = found.change[: found.num_units, : found.num_units]
    assert (units[distance > 1] == 0).all()
    assert (units[distance == 1] > 1e-6).all()
    assert found.num_units <= MAX_UNITS
    assert found.evaluations <= found.num_units + 10
