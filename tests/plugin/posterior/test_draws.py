"""Draws of a fit: moments of closed forms, and draws that don't depend on how many are asked for, or held at a time."""

import numpy as np
import pytest
from scipy.stats import norm

from avistan.objective import elbo
from avistan.posterior import draws as drawing
from avistan.posterior.draws import draw_batches, joined, marginals, unconstrained_draws
from avistan.runtime.errors import FitError
from avistan.runtime.streams import Stream
from programs import bundled, simulator


@pytest.fixture(scope="module")
def fit():
    return bundled("linear", simulator("linear")(2500)).fit(method="fvi", seed=4, steps=30, elbo_draws=20)


def test_draws_have_the_moments_and_the_density_of_a_factorized_family(fit):
    theta, log_q = unconstrained_draws(fit, 1000)
    mean, sd = marginals(fit)
    standard = (theta - mean) / sd
    np.testing.assert_allclose(log_q, (norm.logpdf(standard) - np.log(sd)).sum(axis=1), rtol=1e-12)
    count = standard.size  # independent standard normals, 2.5 million
    assert abs(standard.mean()) < 5 / np.sqrt(count)
    assert abs((standard**2).mean() - 1) < 5 * np.sqrt(2 / count)
    assert np.abs(standard.mean(axis=0)).max() < 6 / np.sqrt(len(theta))
    between_neighbours = (standard[:, 1:] * standard[:, :-1]).mean()
    assert abs(between_neighbours) < 5 / np.sqrt(count)
    assert len(np.unique(theta[:, 7])) == len(theta)


def test_fewer_draws_are_the_first_ones_of_more(fit, monkeypatch):
    theta, log_q = unconstrained_draws(fit, 230)
    few, few_log_q = unconstrained_draws(fit, 3)
    np.testing.assert_array_equal(few, theta[:3])
    np.testing.assert_array_equal(few_log_q, log_q[:3])
    block = elbo.block_size(fit.model.dim)
    monkeypatch.setattr(drawing, "_NUMBERS_AT_ONCE", block * fit.model.dim)  # one block is held at a time
    in_parts, _ = unconstrained_draws(fit, 230)
    np.testing.assert_array_equal(in_parts, theta)
    other, _ = unconstrained_draws(fit, 230, seed=5)
    assert not np.isin(other[:, 0], theta[:, 0]).any()


def test_chains_and_purposes_have_draws_of_their_own(fit):
    chains = [(fit.family, fit.inputs)] * 2
    of_chains = list(draw_batches(fit.model, chains, 5, seed=4, purpose=Stream.FITTED_UNITS))
    assert [(batch.chain, batch.start) for batch in of_chains] == [(0, 0), (1, 0)]
    np.testing.assert_array_equal(of_chains[0].theta, unconstrained_draws(fit, 5)[0])
    np.testing.assert_array_equal(of_chains[0].values["theta"], of_chains[0].theta[:, 0])
    lp, _ = fit.model.log_density_gradient(of_chains[1].theta)
    np.testing.assert_array_equal(of_chains[1].sample_stats["log_weight"], lp - of_chains[1].log_q)
    new = joined(list(draw_batches(fit.model, chains[:1], 5, seed=4, purpose=Stream.NEW_UNITS)))
    every = np.concatenate([of_chains[0].theta[:, 0], of_chains[1].theta[:, 0], new.theta[:, 0]])
    assert len(np.unique(every)) == 15


def test_no_draws_are_refused(fit):
    with pytest.raises(FitError, match="draws=0"):
        unconstrained_draws(fit, 0)
