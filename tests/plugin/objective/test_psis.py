"""Pareto smoothing: tails of known index, weights that sum to one, and what can't be judged."""

import numpy as np
import pytest

from avistan.objective.psis import pareto_khat, pareto_smoothed


def test_equal_weights_have_no_tail_and_heavy_ones_do():
    assert pareto_khat(np.zeros(200)) == -np.inf
    assert np.isnan(pareto_khat(np.zeros(50)))
    pareto = np.log(np.random.default_rng(1).pareto(1.0, 4000) + 1)  # tail index 1
    assert abs(pareto_khat(pareto) - 1) < 0.25


@pytest.mark.parametrize("ratio", [0.2, 0.4])
def test_khat_of_a_normal_that_is_too_narrow_is_one_minus_its_variance_ratio(ratio):
    noise = np.random.default_rng(3).normal(size=40_000)
    log_weights = (
        0.5 * (1 - ratio) * noise**2
    )  # of N(0, 1) against N(0, ratio), whose tail index is 1 - ratio
    assert abs(pareto_khat(log_weights) - (1 - ratio)) < 0.12


def test_khat_of_a_normal_that_is_too_wide_is_small():
    noise = np.random.default_rng(4).normal(size=4000)
    assert pareto_khat(-0.5 * noise**2) < 0.2


def test_smoothed_weights_sum_to_one_keep_their_order_and_are_cut_at_the_largest():
    log_weights = np.log(np.random.default_rng(2).pareto(1.5, 2000) + 1)
    log_weights[:7] = [np.nan, -np.inf, np.inf, -np.inf, np.nan, -np.inf, np.inf]
    found = pareto_smoothed(log_weights)
    weights, raw = np.exp(found.log_weights), np.exp(log_weights[7:])
    assert weights.sum() == pytest.approx(1)
    assert (weights[:7] == 0).all()
    order = np.argsort(raw, kind="stable")
    assert (np.diff(weights[7:][order]) >= 0).all()
    kept = weights[7:]
    assert kept.max() / kept.min() <= raw.max() / raw.min() * (1 + 1e-12)
    assert (np.abs(np.log(kept / raw) - np.log(kept / raw)[0]) > 0.01).sum() in range(
        10, 401
    )  # of the tail alone


def test_few_weights_and_none_stay_as_they_are():
    np.testing.assert_allclose(np.exp(pareto_smoothed(np.log([1.0, 3.0])).log_weights), [0.25, 0.75])
    assert pareto_smoothed(np.full(3, -np.inf)).log_weights.tolist() == [-np.inf] * 3
    assert pareto_smoothed(np.empty(0)).log_weights.shape == (0,)
