"""Limits of time: the best state so far, an outcome that says why, checks that say no, and a way to go on."""

import json

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app
from avistan.diagnosis.verdict import Trust
from avistan.family.method import parse_method
from avistan.fitting.fitted import fit_method
from avistan.fitting.options import FitOptions
from avistan.fitting.shard_preparation import prepare_large
from avistan.runtime import deadline
from avistan.runtime.deadline import out_of_time, seconds_left, time_limit
from avistan.runtime.errors import FitError
from programs import bundled, simulator
from stan_adapters.structure.structure import inspect_structure, with_unit_data

CORRELATED = """
parameters { vector[2] x; }
model { x[1] ~ normal(0, 1); x[2] ~ normal(x[1], 0.3); }
"""


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass with the chunks of steps of a fit that is told of by `clock.tick`."""

    class Clock:
        now = 0.0
        only = ""

        def __call__(self):
            return self.now

        def tick(self, record):
            if record.step is not None and self.only in record.stage:
                self.now += 1

    clock = Clock()
    monkeypatch.setattr(deadline, "clock", clock)
    return clock


@pytest.fixture(scope="module")
def model():
    return avi.Model(stan_code=CORRELATED)


def leaves(fit):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((fit.family.globals, fit.family.inference))]


def test_the_first_limit_to_pass_counts(clock):
    assert not out_of_time()
    assert seconds_left() == np.inf
    with time_limit(10):
        with time_limit(None), time_limit(20):
            assert seconds_left() == 10
        with time_limit(2):
            clock.now += 2
            assert out_of_time()
        assert seconds_left() == 8
    assert not out_of_time()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), True])
def test_a_limit_is_a_positive_number(model, seconds):
    with pytest.raises(FitError, match="give a positive number of seconds"):
        model.fit(max_seconds=seconds)


@pytest.mark.parametrize("options", [{}, {"steps": 2000}])
def test_training_ends_at_the_end_of_a_chunk_with_the_best_state_so_far(model, clock, options):
    fit = model.fit(method="fvi:full-rank", seed=1, max_seconds=2.5, progress_callback=clock.tick, **options)
    assert fit.outcome is avi.FitOutcome.out_of_time
    assert len(fit.trace.elbo) == 3 * (250 if options else 25)
    assert "--resume" in str(fit)
    quick = model.fit(method="fvi", seed=1, steps=1)  # 1.2 nats below the posterior
    assert fit.elbo > quick.elbo


def test_a_limit_that_does_not_pass_changes_nothing(model, clock):
    given = {"method": "fvi", "seed": 1, "steps": 500}
    limited, free = model.fit(**given, max_seconds=100, progress_callback=clock.tick), model.fit(**given)
    assert limited.outcome is avi.FitOutcome.settled
    for one, two in zip(leaves(limited), leaves(free), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("only", ["training fvi", "full-rank"])
def test_a_fit_that_was_cut_off_goes_on_to_the_bytes_of_one_without_a_limit(model, clock, tmp_path, only):
    """In the first stage, or in that of a richer family."""
    clock.only = only
    given = {"seed": 1, "checkpoint": tmp_path / "saves"}
    cut = model.fit(**given, max_seconds=3.5, progress_callback=clock.tick)
    assert cut.outcome is avi.FitOutcome.out_of_time
    assert np.isfinite(cut.elbo)
    resumed, whole = model.fit(**given, resume=True), model.fit(seed=1)
    assert resumed.outcome is avi.FitOutcome.settled
    assert resumed.method == whole.method
    assert resumed.elbo > cut.elbo - 3 * cut.elbo_se
    for one, two in zip(leaves(resumed), leaves(whole), strict=True):
        np.testing.assert_array_equal(one, two)


def test_of_chains_there_is_no_time_for_the_first_is_kept(model, clock):
    fit = model.fit(method="fvi", seed=1, chains=4, max_seconds=1.5, progress_callback=clock.tick)
    assert len(fit.chains) == 1
    assert fit.outcome is avi.FitOutcome.out_of_time


def test_minibatches_end_at_the_end_of_a_chunk_too(clock):
    with bundled("linear", simulator("linear")(N=600)).bound as bound:
        structure = with_unit_data(bound, inspect_structure(bound))
        prepared = prepare_large(
            bound, structure.level, structure.slicing, seed=1, num_references=8, max_rank=6, size=200
        )
        with time_limit(0.5):
            clock.now += 1
            fit = fit_method(prepared, parse_method("avi:mlp(8)"), FitOptions(elbo_draws=20), grow=True)
    assert fit.outcome is avi.FitOutcome.out_of_time
    assert len(fit.trace.elbo) == 25
    assert np.isfinite(fit.elbo)


def test_checks_that_time_is_out_for_are_a_no(model, clock):
    fit = model.fit(method="fvi:full-rank", seed=1, steps=1000)
    assert fit.diagnose().passed
    fit._kept.clear()
    with time_limit(1):
        clock.now += 1
        diagnosis = fit.diagnose()
    assert diagnosis.outcome is Trust.out_of_time
    assert diagnosis["rejected draws"].passed
    assert diagnosis["ELBO trace"].passed
    missed = [check for check in diagnosis.checks if check.passed is False]
    assert len(missed) == 4
    assert all("time limit" in check.finding for check in missed)


def test_a_fit_that_was_cut_off_does_not_pass_however_long_its_diagnosis(model, clock):
    fit = model.fit(method="fvi:full-rank", seed=1, max_seconds=9.5, progress_callback=clock.tick)
    trace = fit.diagnose()["ELBO trace"]
    assert trace.passed is False
    assert trace.trouble is Trust.out_of_time
    assert "cut training off after 250 steps" in trace.finding


def test_a_command_keeps_the_fit_and_the_way_on(tmp_path):
    program, out = tmp_path / "correlated.stan", tmp_path / "fit"
    program.write_text(CORRELATED)
    command = ["fit", str(program), "--output", str(out), "--json"]
    cut = CliRunner().invoke(app, [*command, "--max-seconds", "1e-9"])
    assert cut.exit_code == 3, cut.stderr
    answer = json.loads(cut.stdout)
    assert answer["outcome"] == "out_of_time"
    assert "--resume" in answer["advice"]
    assert answer["steps"] == 25
    assert answer["diagnosis"]["passed"] is False
    assert avi.load(out).outcome is avi.FitOutcome.out_of_time
    resumed = CliRunner().invoke(app, [*command, "--resume"])
    assert resumed.exit_code == 0, resumed.stderr
    assert json.loads(resumed.stdout)["outcome"] == "settled"
    assert not out.with_name("fit.checkpoint").exists()


def test_a_limit_that_is_none_is_refused_before_anything_runs(tmp_path):
    program, out = tmp_path / "correlated.stan", tmp_path / "fit"
    program.write_text(CORRELATED)
    result = CliRunner().invoke(app, ["fit", str(program), "--output", str(out), "--max-seconds", "0"])
    assert result.exit_code == 2
    assert "max_seconds=0" in result.stderr
    assert not out.exists()
