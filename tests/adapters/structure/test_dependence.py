"""The picture of what depends on what, of programs whose dependence is known."""

import numpy as np

from stan_adapters.structure.dependence import MAX_UNITS, dependence
from stan_adapters.structure.structure import inspect_structure
from structure_cases import CASES, bind


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
