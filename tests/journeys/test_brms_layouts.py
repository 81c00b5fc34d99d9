"""Programs in brms's layout: their level is found, they are cut, and new units' predictors have the fitted means."""

import functools

import numpy as np
import pytest

from brms_cases import CASES, bind, read
from sliced_cases import texts
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.derived import ComputedData
from stan_adapters.new_units import entries_of_all_units, with_constants
from stan_adapters.shards.base import make_base
from stan_adapters.shards.shard import ShardMaker
from stan_adapters.structure.structure import Verdict, inspect_structure, with_unit_data
from stan_adapters.unit_data import Slicing
from stan_adapters.unit_data.joining import join

GROUPS = 24


@functools.cache
def inspected(name):
    model = bind(CASES[name])
    return model, with_unit_data(model, inspect_structure(model))


@pytest.mark.parametrize("name", CASES)
def test_the_level_is_found_and_cut(name):
    case, (_, structure) = CASES[name], inspected(name)
    assert structure.verdict is Verdict.CLOSABLE
    assert (structure.level.name, structure.level.latents, structure.level.num_units) == (
        case.level,
        case.latents,
        GROUPS,
    )
    assert isinstance(structure.slicing, Slicing), structure.slicing.reason
    assert structure.feeds.inputs == "simple"
    assert structure.bindings <= 22
    rules = texts(structure.slicing.rules)
    for predictors, centred, _ in case.centred:
        assert rules[predictors] == "row"
        assert rules[centred.replace("Xc", "means_X")] == "shared"


@pytest.mark.parametrize("name", CASES)
def test_a_part_of_the_units_has_a_part_of_the_rows(name):
    model, structure = inspected(name)
    half = structure.slicing.subset(model.data, range(GROUPS // 2))
    assert int(half["N"]) == int(model.data["N"]) // 2


@pytest.mark.parametrize("name", CASES)
def test_minibatches_add_up_to_the_whole(name):
    model, structure = inspected(name)
    maker = ShardMaker(model, structure.level, structure.slicing)
    with make_base(maker, np.zeros(structure.level.block)) as base:
        assert base.probe.holds


@pytest.mark.parametrize("name", CASES)
def test_predictors_of_new_units_are_centred_by_the_means_of_the_fitted(name):
    model, structure = inspected(name)
    new = read(CASES[name], seed=2, groups=5, shift=3.0)
    derivation, derived = with_constants(model, structure.level, np.random.default_rng(3))
    with derived:
        meant = derivation.data(new)
        assert entries_of_all_units(model, structure.level, new, np.random.default_rng(4))
        assert entries_of_all_units(derived, structure.level, meant, np.random.default_rng(4)) == ()
    found = ComputedData(derivation.program, "stanli", 1).of(meant)
    for predictors, centred, left_out in CASES[name].centred:
        fitted, shifted = (np.asarray(data[predictors])[:, left_out:] for data in (model.data, new))
        np.testing.assert_allclose(found[centred], shifted - fitted.mean(axis=0), rtol=1e-12, atol=1e-12)
        assert np.abs(found[centred][:, 0].mean()) > 1


@pytest.mark.parametrize("name", [name for name in CASES if name != "missing"])
def test_files_of_some_groups_each_are_joined(name):
    """Their groups are numbered anew in every file, and no bound says what an index numbers."""
    model, structure = inspected(name)
    parts = []
    for units in (range(10), range(10, GROUPS)):
        part = structure.slicing.subset(model.data, units)
        parts.append(read_data(model.program, {d.name: part[d.name] for d in model.program.data}))
    whole = join(parts, level="N_1")
    theta = np.random.default_rng(7).normal(scale=0.3, size=(2, model.dim))
    with BoundModel(model.program, whole) as again:
        found, expected = (m.log_density_gradient(theta)[0] for m in (again, model))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_rows_without_a_missing_value_are_shared_out_among_the_units():
    model, structure = inspected("missing")
    part = structure.slicing.subset(model.data, [2, 0])
    where, x = np.asarray(part["Jmi_x"]), np.asarray(part["Y_x"])
    assert int(part["N_x"]) == int(model.data["N_x"]) * 2 // GROUPS
    np.testing.assert_array_equal(np.flatnonzero(np.isinf(x)) + 1, np.sort(where))
    old = np.asarray(model.data["Jmi_x"])
    np.testing.assert_array_equal(
        np.asarray(part["Y_y"])[where - 1], np.asarray(model.data["Y_y"])[old[[2, 0]] - 1]
    )
