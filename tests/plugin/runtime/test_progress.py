"""What people who wait are told: records of stages and steps, and lines from time to time."""

import json
import threading

import pytest
from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app
from avistan.diagnosis.checks import diagnose
from avistan.runtime import deadline, progress
from avistan.runtime.deadline import time_limit
from avistan.runtime.progress import (
    ProgressRecord,
    begin_stage,
    heartbeat,
    part_of,
    report_step,
    reporting,
)
from avistan.runtime.progress_bars import bars, one_line

FINITE = "parameters { vector[2] x; } model { x ~ normal(1, 2); }"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_records_say_what_how_far_how_long_and_what_comes_next():
    clock, seen = Clock(), []
    with reporting(seen.append, clock=clock):
        clock.now += 5
        begin_stage("training avi", next="diagnosis")
        clock.now += 30  # compiling, before the first chunk
        report_step(100, 1000, -12.5)
        clock.now += 20
        report_step(300, 1000, -11.0)
        report_step(400)
        begin_stage("diagnosis")
    assert seen[0] == ProgressRecord(stage="training avi", seconds=5.0, next="diagnosis")
    assert seen[1].seconds_left is None  # nothing says yet what a step takes
    assert seen[2] == ProgressRecord(
        stage="training avi",
        step=300,
        steps=1000,
        elbo=-11.0,
        seconds=55.0,
        seconds_left=70.0,
        next="diagnosis",
    )
    assert seen[3].steps is seen[3].seconds_left is None
    assert seen[4] == ProgressRecord(stage="diagnosis", seconds=55.0)
    assert str(seen[2]) == (
        "55 s: training avi, step 300 of 1000, ELBO -11.0, about 70 s left of this, next: diagnosis"
    )


def test_a_limit_of_time_bounds_what_is_left(monkeypatch):
    clock, seen = Clock(), []
    monkeypatch.setattr(deadline, "clock", clock)
    with reporting(seen.append, clock=clock), time_limit(50):
        begin_stage("training")
        report_step(10, 1000)
        clock.now += 10
        report_step(20, 1000)
        report_step(30)
    assert [record.seconds_left for record in seen] == [None, 50, 40, 40]


def test_parts_of_something_larger_say_so():
    seen = []
    with reporting(seen.append):
        with part_of("simulation 3 of 20"):
            begin_stage("training avi")
        begin_stage("writing")
    assert [record.stage for record in seen] == ["simulation 3 of 20: training avi", "writing"]


def test_what_a_terminal_shows_gives_way_to_bars_and_comes_back():
    with one_line(), bars() as make:
        begin_stage("training avi")
        make("avi")(1, 2, -3.0)
    begin_stage("nobody listens")


def test_an_elbo_that_is_no_number_is_left_out():
    seen = []
    with reporting(seen.append):
        begin_stage("training")
        report_step(25, None, float("nan"))
    assert seen[-1].elbo is None


def test_listeners_within_listeners_hear_the_same_each_on_its_own_clock():
    clock, outer, inner = Clock(), [], []
    with reporting(outer.append, clock=clock):
        clock.now += 60
        with reporting(inner.append, clock=clock), reporting(None):
            begin_stage("start")
        begin_stage("end")
    assert [record.stage for record in outer] == ["start", "end"]
    assert [record.stage for record in inner] == ["start"]
    assert (outer[0].seconds, inner[0].seconds) == (60, 0)
    begin_stage("nobody listens")
    assert len(outer) == 2


def test_work_that_reports_nothing_for_long_is_told_of_again_and_again():
    lines, enough = [], threading.Event()

    def write(line):
        lines.append(line)
        if len(lines) == 3:
            enough.set()

    with heartbeat(write, seconds=0.01):
        begin_stage("inspection", next="training")
        assert enough.wait(60)
    assert all("inspection, next: training" in line for line in lines[1:])
    told = len(lines)
    threading.Event().wait(0.05)
    assert len(lines) == told


def test_work_that_is_done_sooner_is_not_told_of():
    lines = []
    with heartbeat(lines.append, seconds=3600):
        begin_stage("inspection")
    assert lines == []


def test_standard_error_that_is_closed_ends_nothing():
    tried = threading.Event()

    def write(line):
        tried.set()
        raise OSError("closed")

    with heartbeat(write, seconds=0.01):
        assert tried.wait(60)


@pytest.fixture(scope="module")
def told():
    """A model, its fit, and what was told of the way there."""
    model, records = avi.Model(stan_code=FINITE), []
    fit = model.fit(seed=1, family="fixed", method="fvi", steps=500, progress_callback=records.append)
    return model, fit, records


def test_inspection_tells_of_every_binding():
    records = []
    data = {"N": 6, "x": [0.3, -0.2, 1.1, 0.4, 0.9, -1.0]}
    code = "data { int N; vector[N] x; } parameters { vector[N] z; } model { z ~ std_normal(); x ~ normal(z, 1); }"
    structure = avi.Model(stan_code=code, data=data).inspect(progress_callback=records.append)
    steps = [record.step for record in records if record.stage == "inspection: data of the units"]
    assert structure.bindings > 3
    assert [step for step in steps if step is not None] == list(range(1, structure.bindings + 1))


def test_a_fit_tells_of_each_of_its_stages(told):
    _, _, records = told
    stages = list(dict.fromkeys(record.stage for record in records))
    assert stages[0].startswith("inspection")
    assert stages[1].startswith("start")
    assert stages[2:] == ["training fvi", "the ELBO"]
    steps = [record.step for record in records if record.stage == "training fvi"]
    assert steps == [None, 250, 500]
    assert records[-2].steps == 500
    assert records[-2].elbo is not None
    assert all(record.next for record in records if record.stage != stages[0])
    assert [record.seconds for record in records] == sorted(record.seconds for record in records)


def test_a_diagnosis_and_a_posterior_tell_of_theirs(told):
    _, fit, _ = told
    records = []
    diagnosis = fit.diagnose(progress_callback=records.append)
    assert {f"diagnosis: {check.name}" for check in diagnosis.checks[:4]} <= {r.stage for r in records}
    records.clear()
    fit.posterior(50, resample="none", progress_callback=records.append)
    assert [(record.stage, record.step) for record in records] == [
        ("draws of the posterior", None),
        ("draws of the posterior", 50),
    ]
    records.clear()
    fit.posterior(50, seed=9, progress_callback=records.append)
    assert records[0].stage == "correcting the posterior"
    assert records[-1].stage == "draws of the posterior"


def test_what_a_callback_raises_ends_the_fit(told):
    model, _, _ = told

    class EnoughError(Exception):
        pass

    def stop(record):
        if record.step:
            raise EnoughError

    with pytest.raises(EnoughError):
        model.fit(seed=1, method="fvi", progress_callback=stop)
    assert diagnose(model.fit(seed=1, method="fvi", steps=300)) is not None  # nobody listens any more


def test_commands_tell_on_standard_error_what_they_do(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT", 0.02)
    program = tmp_path / "normal.stan"
    program.write_text(FINITE)
    out = tmp_path / "fit"
    result = CliRunner().invoke(app, ["fit", str(program), "--output", str(out), "--steps", "600", "--json"])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["outcome"] == "settled"
    told = [line for line in result.stderr.splitlines() if " s: " in line]
    stages = {line.split(" s: ")[1].split(",")[0].split(":")[0] for line in told}
    assert "diagnosis" in stages
    assert len(stages) > 1
