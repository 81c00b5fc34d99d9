"""Where a diagnosis finds a better optimum, training goes on from there, and the better fit is the result."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app
from avistan.diagnosis import improvement
from avistan.diagnosis.improvement import REASON
from avistan.diagnosis.verdict import Trust
from avistan.family.method import parse_method
from avistan.fitting.fitted import fit_method
from avistan.fitting.options import FitOptions
from avistan.fitting.shard_preparation import prepare_large
from avistan.start.quick_fit import QuickFit
from programs import bundled, simulator
from stan_adapters.structure.structure import inspect_structure, with_unit_data

# A mode with 0.001 of the mass at 0.3, where quick fits begin, and one with the rest at -1.5.
TWO_MODES = "target += log_mix(0.001, normal_lpdf(x | 0.3, 0.1), normal_lpdf(x | -1.5, 0.1));"
LESSER_MODE = f"parameters {{ real x; }} model {{ {TWO_MODES} }}"
UNITS = f"""
data {{ int N; vector[N] y; }}
parameters {{ real x; vector[N] z; }}
model {{ {TWO_MODES} z ~ normal(0, 1); y ~ normal(z, 1); }}
"""
BETTER = np.log(0.999 / 0.001)  # nats


@pytest.fixture(scope="module")
def lesser():
    """A fit in the lesser mode."""
    return avi.Model(stan_code=LESSER_MODE, data={}).fit(seed=1, steps=1000)


def test_the_better_mode_that_a_diagnosis_found_is_trained(lesser):
    assert lesser.diagnose().outcome is Trust.better_optimum
    better = lesser.improve()
    assert better.fit.elbo - lesser.elbo == pytest.approx(BETTER, abs=0.1)
    assert better.fit.marginals()[0] == pytest.approx(-1.5, abs=0.02)
    (made,) = better.rounds
    assert made.taken
    assert made.gain == pytest.approx(BETTER, abs=0.1)
    assert better.diagnosis.passed, str(better.diagnosis)
    assert REASON in str(better.fit)
    assert f"{made.gain:+.2f}" in str(better)
    assert better.fit.timing.train > lesser.timing.train


def test_a_level_of_units_begins_with_its_own_signatures_there():
    data = {"N": 40, "y": np.random.default_rng(1).normal(size=40)}
    fit = avi.Model(stan_code=UNITS, data=data).fit(method="avi:mlp(8)", seed=1, steps=1000)
    better = fit.improve()
    assert better.fit.elbo - fit.elbo == pytest.approx(BETTER, abs=0.2)
    assert better.fit.method == fit.method


@pytest.mark.slow
def test_a_fit_without_a_better_optimum_is_left_as_it_is(eight_schools):
    fit = eight_schools.fit(seed=1, steps=600)
    same = fit.improve()
    assert same.fit is fit
    assert same.diagnosis is fit.diagnose()
    assert same.rounds == ()
    assert str(same) == ""


def with_start(fit, mean):
    """The fit with a diagnosis that takes a place for a better optimum."""
    diagnosis = replace(
        fit.diagnose(), better_start=QuickFit(np.array([mean]), np.array([0.1]), 0, np.empty(0))
    )
    again = replace(fit)
    again._kept["diagnosis None False"] = diagnosis
    return again


def test_a_start_that_ends_in_a_worse_optimum_changes_nothing_but_the_finding(lesser):
    good = lesser.improve().fit
    tried = with_start(good, 0.3).improve()
    assert tried.fit.elbo == good.elbo
    (made,) = tried.rounds
    assert not made.taken
    assert made.gain == pytest.approx(-BETTER, abs=0.1)
    assert "kept" in str(tried)
    check = tried.diagnosis["other starts"]
    assert check.passed
    assert "6.9 nats lower" in check.finding
    assert tried.diagnosis.better_start is None


def test_rounds_are_bounded(lesser, monkeypatch):
    found = with_start(lesser, 0.3).diagnose()
    monkeypatch.setattr(improvement, "diagnose", lambda fit: found)
    monkeypatch.setattr(improvement, "gap", lambda before, after: (1.0, 0.1))
    assert [made.taken for made in lesser.improve().rounds] == [True] * improvement.MOST_ROUNDS


def test_training_that_fails_loses_nothing(lesser, monkeypatch):
    def failing(*args, **options):
        raise FloatingPointError("no start")

    monkeypatch.setattr("avistan.diagnosis.improvement.fit_method", failing)
    same = lesser.improve()
    assert same.fit is lesser
    assert same.diagnosis.outcome is Trust.better_start_tried  # no advice to try it once more
    assert "Training from the best of them failed." in same.diagnosis["other starts"].finding
    assert "FloatingPointError: no start" in str(same)
    assert json.loads(json.dumps(same.rounds[0].to_json(), allow_nan=False))["elbo"] is None


def test_a_better_start_that_was_tried_in_vain_is_not_advised_again(lesser, monkeypatch):
    """Its end is not clearly better: the error of the gain is unknown."""
    monkeypatch.setattr(improvement, "_trained_from", lambda *given: lesser)
    monkeypatch.setattr(improvement, "gap", lambda before, after: (29.82, np.nan))
    same = lesser.improve()
    assert not same.rounds[0].taken
    assert "+29.82 nats (standard error unknown) against the fit before" in str(same)
    assert same.diagnosis.outcome is Trust.better_start_tried
    assert "not clearly better" in same.diagnosis["other starts"].finding
    assert "fit.improve()" not in str(same.diagnosis)


def test_a_fit_that_was_loaded_goes_on_too(lesser, tmp_path):
    lesser.save(tmp_path / "fit")
    better = avi.load(tmp_path / "fit").improve()
    assert better.fit.elbo - lesser.elbo == pytest.approx(BETTER, abs=0.1)


def test_minibatches_begin_there_too():
    """At a fit of all units that has the globals off by 20 of the quick fit's sds."""
    with bundled("linear", simulator("linear")(N=600)).bound as bound:
        structure = with_unit_data(bound, inspect_structure(bound))
        prepared = prepare_large(
            bound, structure.level, structure.slicing, seed=1, num_references=8, max_rank=6, size=200
        )
        quick = prepared.quick
        mean = quick.mean.copy()
        mean[prepared.globals_index] += 20 * quick.sd[prepared.globals_index]
        begun = prepared.started_at(replace(quick, mean=mean))
        family, _ = begun.minibatches.start_family(parse_method("avi"))
        center = np.asarray(family.frame.global_center + family.frame.global_scale * family.globals.loc)
        np.testing.assert_allclose(center, mean[prepared.globals_index], rtol=1e-6)
        given = parse_method("avi:mlp(8)"), FitOptions(elbo_draws=100)
        home, away = fit_method(prepared, *given), fit_method(begun, *given)
    assert away.elbo == pytest.approx(home.elbo, abs=4)


def test_the_command_goes_on_and_says_so(tmp_path):
    program, out = tmp_path / "modes.stan", tmp_path / "fit"
    program.write_text(LESSER_MODE)
    command = ["fit", str(program), "--output", str(out), "--steps", "1000"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["improvement"][0]["gain"] == pytest.approx(BETTER, abs=0.1)
    assert answer["diagnosis"]["passed"]
    assert avi.load(out).elbo == pytest.approx(answer["elbo"])
    result = CliRunner().invoke(app, command)
    assert "The diagnosis found a better optimum. Training went on from there" in result.stdout
