"""Quadrature along lines: which polynomials of a Gaussian it gets right."""

import numpy as np
import pytest

from avistan.correction.rules import DRAWING, Grade, make_rule


@pytest.mark.parametrize(("block", "degree"), [(2, 7), (3, 5), (4, 5), (5, 3), (7, 3)])
def test_directions_average_polynomials_as_the_sphere_does(block, degree):
    directions = make_rule(block).directions
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    # Means over the sphere of products of two coordinates, and of fourth powers.
    np.testing.assert_allclose(directions.T @ directions / len(directions), np.eye(block) / block, atol=1e-12)
    if degree >= 5:
        fourth = (directions**4).mean(axis=0)
        np.testing.assert_allclose(fourth, 3 / (block * (block + 2)), rtol=1e-12)


@pytest.mark.parametrize("block", [1, 2, 3, 4])
@pytest.mark.parametrize("grade", list(Grade))
@pytest.mark.parametrize("cells", [None, DRAWING])
def test_moments_of_the_radius_are_those_of_a_gaussian(block, grade, cells):
    rule = make_rule(block, grade, cells)
    density = rule.measure * np.exp(-0.5 * rule.radii**2)
    assert density @ rule.radii**2 / density.sum() == pytest.approx(block, rel=0.004)


@pytest.mark.parametrize(("grade", "rtol"), [(Grade.bent, 0.02), (Grade.fine, 0.002)])
def test_a_spline_through_nodes_meets_a_slope_that_grows(grade, rtol):
    rule = make_rule(1, grade)
    found = rule.spline[1:-1] @ np.arcsinh(np.exp(rule.nodes))
    np.testing.assert_allclose(np.sinh(found), np.exp(rule.radii), rtol=rtol)


def test_straight_lines_add_up_slopes_of_a_logistic_curve():
    rule = make_rule(1, Grade.straight)
    found = rule.spline @ (1 / (1 + np.exp(-rule.nodes)))
    np.testing.assert_allclose(found, np.logaddexp(0, rule.radii) - np.log(2), atol=2e-3)


def test_a_finer_rule_asks_at_the_same_places_and_between():
    nodes, finer = make_rule(1).nodes, make_rule(1, Grade.fine).nodes
    np.testing.assert_allclose(finer[::2], nodes, atol=1e-12)
    assert len(finer) == 2 * len(nodes) - 1
