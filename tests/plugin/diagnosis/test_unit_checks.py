"""Checks of single units, of factors that are wrong by known amounts."""

import numpy as np
import pytest

from avistan.diagnosis.unit_checks import conditional_errors, unit_log_ratios
from avistan.objective.psis import pareto_khat
from avistan.posterior.approximation import approximation
from avistan.posterior.unit_marginals import unit_density


def test_the_spot_check_sees_a_shift_and_a_wrong_sd(linear):
    density, q = unit_density(linear), approximation(linear.family, linear.inputs)
    loc, log_sd = (np.array(part) for part in q.nu[:2])
    loc[:, 0] += 2 * np.exp(log_sd[:, 0])
    log_sd[:, 1] += np.log(2)
    wrong = q.with_units(q.nu._replace(loc=loc, log_sd=log_sd))
    errors, ratios, accepted = conditional_errors(density, wrong, np.random.default_rng(1))
    assert accepted > 0.6
    assert errors[0] == pytest.approx(2, abs=0.4)
    assert ratios[1] == pytest.approx(2, rel=0.2)
    assert np.median(np.abs(np.log(ratios[2:]))) < 0.1


def test_khats_of_units_are_those_of_a_normal_pair(linear):
    """q twice too wide has light-tailed weights, q half as wide a tail index of 3/4: 1 - (sd of q / sd of p)^2."""
    density, q = unit_density(linear), approximation(linear.family, linear.inputs)
    log_sd = np.array(q.nu.log_sd)
    log_sd[:, :150] += np.log(2)
    log_sd[:, 150:] -= np.log(2)
    wrong = q.with_units(q.nu._replace(log_sd=log_sd))
    ratios = unit_log_ratios(density, wrong, np.arange(300), 1000, np.random.default_rng(2))
    khats = np.array([pareto_khat(column) for column in ratios.T])
    assert np.median(khats[:150]) < 0.2
    assert 0.5 < np.median(khats[150:]) < 1.0
