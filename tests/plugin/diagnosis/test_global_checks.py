"""Which globals hold, for posteriors that are known in closed form."""

from dataclasses import replace

import numpy as np

import avistan as avi
from avistan.correction.correct import Way, _of_chains
from avistan.diagnosis.checked_fit import CheckedFit
from avistan.diagnosis.global_checks import check_against_nuts, check_globals
from avistan.diagnosis.verdict import Trust
from avistan.objective.elbo import Evaluation
from avistan.posterior.corrected import Corrected

REGRESSION = """
data { int N; vector[N] x; vector[N] y; }
parameters { real a; real b; }
model { a ~ normal(0, 100); b ~ normal(0, 10); y ~ normal(a + b * x, 1); }
"""
# x is free of data and tells nothing: its chains, of which some stay where they began, do not agree.
TWO_ISLANDS = """
parameters { real x; real y; }
model { target += log_sum_exp(normal_lpdf(x | -40, 1), normal_lpdf(x | 40, 1)); y ~ normal(0, 1); }
"""


def regression(first_year=1960):
    x = np.arange(first_year, first_year + 60.0)
    y = 4 + 0.02 * (x - x.mean()) + np.random.default_rng(5).normal(size=60)
    return avi.Model(stan_code=REGRESSION, data={"N": 60, "x": x, "y": y})


def test_a_mean_field_fit_of_a_ridge_passes_because_its_draws_are_corrected():
    fit = regression().fit(method="fvi", seed=1)
    checked = CheckedFit(fit=fit, seed=1)
    (check,) = check_globals(checked)
    assert check.passed, check.finding
    assert check.value < 0.1  # sds
    assert [(v.name, v.holds) for v in checked.variables] == [("a", True), ("b", True)]
    against = check_against_nuts(checked)
    assert against.passed, against.finding


def test_chains_that_do_not_agree_are_a_no_for_the_variable_that_they_differ_in():
    fit = avi.Model(stan_code=TWO_ISLANDS).fit(seed=1, steps=300)
    checked = CheckedFit(fit=fit, seed=1)
    chains = np.random.default_rng(1).normal(size=(4, 250, 2))
    chains[:2, :, 0] -= 40
    made = _of_chains(chains, 0, np.arange(2))
    assert made.way is Way.chains
    assert not made.reliable
    checked.__dict__["made"] = type(checked.made)(made, None)
    (check,) = check_globals(checked)
    assert check.passed is False
    assert check.trouble is Trust.globals_misfit
    assert "Not to be relied on: x" in check.finding
    assert {v.name: v.holds for v in checked.variables} == {"x": False, "y": True}


def test_wrong_draws_differ_from_those_of_nuts():
    fit = regression(-30).fit(method="fvi:full-rank", seed=1)
    checked = CheckedFit(fit=fit, seed=1)
    made = checked.made
    wrong = replace(made.correction, theta=made.correction.theta * np.array([1.0, 1.5]))
    checked.__dict__["made"] = type(made)(wrong, None)
    check = check_against_nuts(checked)
    assert check.passed is False
    assert check.value > 1


def test_chains_that_diverge_hold_for_no_variable():
    fit = regression(-30).fit(method="fvi", seed=1)
    checked = CheckedFit(fit=fit, seed=1)
    chains = np.random.default_rng(1).normal(size=(4, 500, 2))
    checked.__dict__["made"] = type(checked.made)(_of_chains(chains, 100, np.arange(2)), None)
    (check,) = check_globals(checked)
    assert check.passed is False
    assert not any(variable.holds for variable in checked.variables)


def test_draws_of_q_hold_where_its_weights_are_nearly_equal(monkeypatch):
    monkeypatch.setattr(Corrected, "is_q", True)
    right, narrow = (regression(-30).fit(method=name, seed=1) for name in ("fvi:full-rank", "fvi"))
    checked = CheckedFit(fit=right, seed=1)
    (check,) = check_globals(checked)
    assert check.passed, check.finding
    assert not checked.corrected
    (check,) = check_globals(CheckedFit(fit=replace(narrow, chains=(skewed(narrow.chains[0]),)), seed=1))
    assert check.passed is False


def skewed(chain):
    """A restart whose weights vary as those of a q that is wrong."""
    log_weights = np.random.default_rng(1).normal(size=chain.evaluation.log_weights.shape)
    return replace(chain, evaluation=Evaluation(log_weights))
