"""Checks of single units, of factors that are wrong by known amounts."""

from dataclasses import replace

import numpy as np
import pytest

from avistan.diagnosis.unit_checks import conditional_errors, unit_log_ratios
from avistan.objective.psis import pareto_khat
from avistan.posterior.approximation import approximation
from avistan.posterior.unit_marginals import unit_density


def test_the_spot_check_sees_a_shift_and_a_wrong_sd(linear):
    density, q = unit_density(linear), approximation(linear.family, linear.inputs)
    conditional_sd = q.chol[0, 0, 0]
    wrong = replace(q, loc=q.loc.copy(), chol=q.chol.copy())
    wrong.loc[0] += 2 * conditional_sd
    wrong.chol[1] *= 2
    errors, ratios, accepted = conditional_errors(density, wrong, np.random.default_rng(1))
    assert accepted > 0.6
    assert errors[0] == pytest.approx(2, abs=0.4)
    assert ratios[1] == pytest.approx(2, rel=0.2)
    assert np.median(np.abs(np.log(ratios[2:]))) < 0.1


def test_khats_of_units_are_those_of_a_normal_pair(linear):
    """q twice too wide has light-tailed weights, q half as wide a tail index of 3/4: 1 - (sd of q / sd of p)^2."""
    density, q = unit_density(linear), approximation(linear.family, linear.inputs)
    chol = q.chol.copy()
    chol[:150] *= 2
    chol[150:] *= 0.5
    ratios = unit_log_ratios(density, replace(q, chol=chol), np.arange(300), 1000, np.random.default_rng(2))
    khats = np.array([pareto_khat(column) for column in ratios.T])
    assert np.median(khats[:150]) < 0.2
    assert 0.5 < np.median(khats[150:]) < 1.0
