"""Probes on densities whose couplings are known: quadratic forms, and a few that are harder to see through."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from stan_adapters.data.layout import build_layout
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Program
from stan_adapters.levels import probes as certificate
from stan_adapters.levels.levels import Level, Member, candidate_levels
from stan_adapters.levels.probes import (
    TOLERANCE,
    Prober,
    bit_split,
    coupling,
    member_couplings,
    probe_points,
    separability,
    uncoupled_groups,
)


class Gradient:
    """A density known by its gradient; points outside the support are rejected."""

    def __init__(self, dim: int, gradient: Callable, support: Callable = lambda theta: True) -> None:
        self.dim, self.calls = dim, 0
        self._gradient, self._support = gradient, support

    def log_density_gradient(self, theta):
        if np.ndim(theta) == 2:
            lp, gradient = zip(*map(self.log_density_gradient, theta), strict=True)
            return np.array(lp), np.array(gradient)
        self.calls += 1
        if not self._support(theta):
            return -np.inf, np.zeros(self.dim)
        return 0.0, self._gradient(theta)

    def why_rejected(self, theta):
        return "" if self._support(theta) else "outside the support"


def gaussian(precision: np.ndarray) -> Gradient:
    return Gradient(len(precision), lambda theta: -precision @ theta + 1.0)


def units(count: int, start: int = 0) -> Level:
    return Level("N", (Member("z", 0),), np.arange(start, start + count)[:, None])


def probe(model: Gradient, seed: int = 0) -> Prober:
    rng = np.random.default_rng(seed)
    return Prober(model, probe_points(model, rng), rng)


def band(count: int, width: int) -> np.ndarray:
    distance = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    return np.where(distance == 0, 3.0, np.where(distance <= width, -0.4, 0.0))


def lattice(side: int, *, shuffled: bool) -> np.ndarray:
    places = np.array([(i, j) for i in range(side) for j in range(side)])
    near = np.abs(places[:, None] - places[None]).sum(axis=-1) == 1
    order = np.random.default_rng(1).permutation(side * side) if shuffled else np.arange(side * side)
    return (np.diag(near.sum(axis=1) + 1.0) - near)[order][:, order]


# ---- separability


@pytest.mark.parametrize("count", [2, 3, 8, 9, 100])
def test_independent_units_leave_each_others_scores_exactly_alone(count):
    precision = np.diag(np.linspace(1, 2, count + 1))
    precision[-1, :-1] = precision[:-1, -1] = 0.1  # a global that meets them all
    found = separability(probe(gaussian(precision)), units(count), rounds=2)
    assert found.holds
    assert found.statistic == 0
    assert found.touched.tolist() == [False] * count + [True]
    assert found.evaluations == 2 * math.ceil(math.log2(count)) + 1


@pytest.mark.parametrize("pair", [(0, 1), (3, 17), (14, 15), (15, 16), (0, 29)])
def test_a_single_coupled_pair_is_found_wherever_it_is(pair):
    precision = np.eye(30)
    precision[pair, pair[::-1]] = 1e-3
    found = separability(probe(gaussian(precision)), units(30), rounds=1)
    assert not found.holds
    assert found.statistic > 1e3 * TOLERANCE


@pytest.mark.parametrize("coupling", [0.0, 1e-3])
def test_gradients_taken_side_by_side_find_the_same(coupling, monkeypatch):
    precision = np.eye(30)
    precision[3, 17] = precision[17, 3] = coupling

    def found():
        fenced = Gradient(30, lambda theta: -precision @ theta, lambda theta: np.abs(theta).max() < 1.0)
        prober = probe(fenced, seed=4)
        return separability(prober, units(30), rounds=2), fenced.calls, prober.rng.random()

    one_by_one = found()
    calls = []
    plain = Gradient.log_density_gradient
    monkeypatch.setattr(
        Gradient,
        "log_density_gradient",
        lambda self, theta: calls.append(np.ndim(theta)) or plain(self, theta),
    )
    monkeypatch.setattr(certificate, "_MANY_NUMBERS", 20)
    side_by_side = found()
    assert 2 in calls
    assert side_by_side[0].holds == one_by_one[0].holds == (coupling == 0)
    assert side_by_side[0].statistic == one_by_one[0].statistic
    if not coupling:  # else a clear coupling is seen one gradient later
        assert side_by_side[1:] == one_by_one[1:]


def test_a_clear_coupling_stops_the_probing_at_once():
    found = separability(probe(gaussian(np.eye(64) + 0.5)), units(64), rounds=3)
    assert found.evaluations == 1


def test_a_coupling_that_saturates_far_out_is_seen_near_zero():
    def gradient(theta):
        return -theta - np.where(np.abs(theta).max() < 0.2, theta.sum(), 0.0)

    assert not separability(probe(Gradient(6, gradient)), units(6), rounds=3).holds


def test_a_coupling_with_corners_is_seen_by_a_far_move():
    design = np.random.default_rng(0).normal(size=(20, 3))

    def gradient(theta):
        return design.T @ np.sign(40 - design @ theta) - theta

    found = separability(probe(Gradient(3, gradient)), units(3), rounds=2)
    assert not found.holds


def test_scores_that_nothing_moves_can_not_be_tested():
    found = separability(probe(Gradient(4, lambda theta: np.ones(4))), units(4), rounds=2)
    assert not found.tested
    assert not found.holds


def test_moves_that_are_rejected_are_tried_smaller():
    model = Gradient(8, lambda theta: -theta, lambda theta: np.abs(theta).max() < 1.2)
    assert separability(probe(model), units(8), rounds=3).holds


def test_rounding_of_large_common_sums_is_no_coupling():
    def gradient(theta):
        noise = 1e-16 * 1e6 * np.sin(1e9 * theta.sum())
        return np.append(-theta[:-1] + noise, 1e6)

    assert separability(probe(Gradient(9, gradient)), units(8), rounds=3).holds


# ---- the shape of a coupling


@pytest.mark.parametrize(
    ("precision", "shape", "reach"),
    [
        (band(40, 1), "band", 1),
        (band(40, 2), "band", 2),
        (band(60, 5), "band", 5),
        (np.eye(40) + 0.1, "dense", 39),
        (np.eye(3) + 0.1, "dense", 2),
        (lattice(6, shuffled=True), "graph", None),
        (lattice(6, shuffled=False), "graph", 6),
    ],
    ids=["next", "two away", "five away", "all", "three units", "lattice", "lattice row by row"],
)
def test_single_moves_tell_the_shape(precision, shape, reach):
    count = len(precision)
    how = coupling(probe(gaussian(precision)), units(count))
    assert how.shape == shape
    assert reach is None or how.reach == reach
    np.testing.assert_array_equal(how.moved, precision[how.probed] != 0)
    expected = (how.moved.sum(axis=1) - 1).sum() / (len(how.probed) * (count - 1))
    assert how.share == pytest.approx(expected)


def test_units_that_single_moves_leave_alone_are_coupled_in_groups_only():
    how = coupling(probe(gaussian(np.eye(10))), units(10))
    assert (how.shape, how.reach, how.share) == ("groups", 0, 0.0)


# ---- several parameters in a level


def two_members(precision_of_a, precision_of_b, between) -> tuple[Gradient, Level, object]:
    n = len(precision_of_a)
    precision = np.block([[precision_of_a, between], [between.T, precision_of_b]])
    program = Program.from_code("data { int N; } parameters { vector[N] a; vector[N] b; }")
    layout = build_layout(program.parameters, {"N": n}, {}, 2 * n)
    return gaussian(precision), candidate_levels(layout)[0], layout


PAIRS = {
    "within the unit only": (np.eye(6), np.eye(6), 0.3 * np.eye(6), set()),
    "b alone": (np.eye(6), band(6, 1), 0.3 * np.eye(6), {("b",)}),
    "a with b of others": (np.eye(6), np.eye(6), 0.1 * np.ones((6, 6)), {("a", "b")}),
    "all": (band(6, 1), band(6, 1), 0.1 * np.ones((6, 6)), {("a",), ("b",), ("a", "b")}),
}


@pytest.mark.parametrize(("a", "b", "between", "expected"), PAIRS.values(), ids=PAIRS.keys())
def test_the_members_that_couple_units_are_named(a, b, between, expected):
    model, level, layout = two_members(a, b, between)
    assert member_couplings(probe(model), level, layout, most=3) == {frozenset(names) for names in expected}


@pytest.mark.parametrize(
    ("couplings", "groups"),
    [
        ([], [["a", "b", "c"]]),
        ([("b",)], [["a", "c"]]),
        ([("a", "b")], [["a", "c"], ["b"]]),
        ([("a",), ("b",), ("c",)], []),
        ([("a", "b"), ("b", "c"), ("a", "c")], [["a"], ["b"], ["c"]]),
    ],
)
def test_parameters_fall_into_groups_without_couplings(couplings, groups):
    assert uncoupled_groups(["a", "b", "c"], {frozenset(names) for names in couplings}) == groups


# ---- points


@pytest.mark.parametrize("count", [2, 3, 17, 64])
def test_bit_splits_tell_every_two_units_apart(count):
    bits = math.ceil(math.log2(count))
    codes = np.array([bit_split(count, bit) for bit in range(bits)]).T
    assert len(np.unique(codes, axis=0)) == count


def test_points_lie_at_different_distances_and_are_counted():
    model = gaussian(np.eye(50))
    points = probe_points(model, np.random.default_rng(0))
    assert points.evaluations == model.calls == 3
    assert np.abs(points.theta).max(axis=1).round(1).tolist() == [0.3, 1.0, 0.0]
    np.testing.assert_array_equal(points.gradient, 1 - points.theta)


def test_points_are_sought_closer_to_zero_where_far_ones_are_rejected():
    model = Gradient(5, lambda theta: -theta, lambda theta: np.abs(theta).max() < 0.25)
    points = probe_points(model, np.random.default_rng(0))
    assert len(points.theta) == 3
    assert points.evaluations == model.calls > 3


def test_points_with_all_units_alike_are_tried_where_a_bound_is_missing():
    program = Program.from_code("data { int N; } parameters { real mu; vector[N] s; }")
    layout = build_layout(program.parameters, {"N": 12}, {}, 13)
    model = Gradient(13, lambda theta: -theta, lambda theta: theta[1:].min() > 1.0)
    points = probe_points(model, np.random.default_rng(0), layout=layout)
    assert points.theta[0, 1:].min() > 1.0
    with pytest.raises(StructureError, match="not finite at any of 10 random points: outside the support"):
        probe_points(model, np.random.default_rng(0))
