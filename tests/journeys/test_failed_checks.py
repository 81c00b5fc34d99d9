"""A check that can't be made is a check that failed, with its reason; the others are made."""

import logging

import numpy as np
import pytest

import avistan as avi
from avistan.diagnosis import checks as diagnostics
from avistan.diagnosis.checked_fit import CheckedFit
from avistan.diagnosis.verdict import Check, Trust
from avistan.fitting.outcome import FitOutcome, judge
from avistan.objective.elbo import Evaluation

NORMAL = "parameters { vector[2] x; } model { x ~ normal(1, 2); }"
# Every group has a positive level: nearly all draws of a Gaussian approximation have a negative one, and are rejected.
POSITIVE_LEVELS = """
data { int<lower=1> J; vector[J] y; }
parameters { vector[J] z; real mu; real<lower=0> tau; }
transformed parameters { vector<lower=0>[J] level = mu + tau * z; }
model { z ~ std_normal(); mu ~ normal(0, 2); tau ~ normal(0, 2); y ~ normal(level, 0.5); }
"""


@pytest.fixture(scope="module")
def normal():
    return avi.Model(stan_code=NORMAL).fit(seed=1, steps=400)


def raising(error):
    def check(checked):
        raise error

    return check


def test_a_check_that_raises_fails_with_its_reason_and_the_others_are_made(normal, monkeypatch, caplog):
    monkeypatch.setitem(diagnostics._CHECKS, "other starts", raising(ValueError("cannot reshape")))
    with caplog.at_level(logging.DEBUG, logger="avistan.diagnosis.checks"):
        diagnosis = diagnostics.diagnose(normal)
    check = diagnosis["other starts"]
    assert check.passed is False
    assert check.finding == "This check could not be made: ValueError: cannot reshape."
    assert diagnosis.outcome is Trust.not_judged
    assert "globals' means and sds" in {check.name for check in diagnosis.checks if check.passed}
    assert "Traceback" in caplog.text


def test_a_check_that_runs_out_of_memory_says_so(normal, monkeypatch):
    monkeypatch.setitem(diagnostics._CHECKS, "other starts", raising(MemoryError()))
    diagnosis = diagnostics.diagnose(normal)
    assert diagnosis["other starts"].passed is False
    assert "memory ran out" in diagnosis["other starts"].finding


def test_an_interruption_is_no_failed_check(normal, monkeypatch):
    monkeypatch.setitem(diagnostics._CHECKS, "other starts", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        diagnostics.diagnose(normal)


def test_what_several_checks_need_fails_each_of_them(normal, monkeypatch):
    def broken(family, inputs):
        raise FloatingPointError("q has no form")

    monkeypatch.setattr("avistan.diagnosis.checked_fit.approximation", broken)
    diagnosis = diagnostics.diagnose(normal)
    reasons = {check.name: check.finding for check in diagnosis.checks if check.passed is False}
    assert set(reasons) == {"other starts", "globals"}
    assert all("q has no form" in reason for reason in reasons.values())


def test_a_fit_all_of_whose_draws_are_rejected_is_diagnosed():
    y = np.abs(np.random.default_rng(3).normal(0, 0.3, 40))
    model = avi.Model(stan_code=POSITIVE_LEVELS, data={"J": 40, "y": y})
    diagnosis = model.fit(method="fvi", seed=1, steps=300).diagnose()
    assert not diagnosis.passed
    assert diagnosis.outcome is Trust.draws_rejected
    undecided = [check.name for check in diagnosis.checks if check.passed is None]
    assert not {"continued training", "other starts", "k-hat of the globals"} & set(undecided)
    assert not any("Error" in check.finding for check in diagnosis.checks)


@pytest.mark.parametrize(
    ("value", "threshold"), [(np.nan, 1.0), (0.0, np.nan), (np.inf, np.inf), (0.0, np.inf)]
)
def test_a_check_does_not_pass_on_numbers_that_are_not_finite(value, threshold, normal):
    check = Check(name="a", passed=True, finding="It is small.", value=value, threshold=threshold)
    (found,) = diagnostics.made("a", lambda checked: [check], CheckedFit(fit=normal, seed=1))
    assert found.passed is False
    assert found.trouble is Trust.not_judged
    assert "not finite" in found.finding


def test_a_check_that_has_numbers_or_none_passes(normal):
    checks = [
        Check(name="a", passed=True, finding="", value=0.5, threshold=1.0),
        Check(name="b", passed=True, finding=""),
        Check(name="c", passed=None, finding="", value=np.nan),
        Check(name="k-hat", passed=True, finding="", value=-np.inf, threshold=0.7),  # of constant weights
    ]
    assert diagnostics.made("all", lambda checked: checks, CheckedFit(fit=normal, seed=1)) == checks


def test_a_gain_of_a_single_pair_of_draws_passes_nothing(normal, monkeypatch):
    """Without an error a gain says nothing, be it as small as it may."""
    monkeypatch.setattr("avistan.diagnosis.training_checks.gap", lambda before, after: (-0.71, np.nan))
    check = diagnostics.diagnose(normal)["continued training"]
    assert check.passed is False
    assert check.trouble is Trust.draws_rejected
    assert "-0.71 nats (standard error unknown)" in check.finding


def test_an_elbo_whose_error_is_unknown_is_uncertain(normal):
    assert judge(normal.trace, normal.evaluation) is FitOutcome.settled
    assert judge(normal.trace, Evaluation(np.array([1.0, 2.0]))) is FitOutcome.uncertain
