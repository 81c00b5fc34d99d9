import pytest

from _posteriors import Moments
from gate_accuracy import Row, judged, line, summary

TRUTH = {name: Moments(0.0, 1.0, 3.29, 0.01, 0.007, 0.009) for name in ("mu", "tau")}


def answer(sd=1.0, **changes):
    numbers = {"mean": 0.0, "width": 3.29 * sd, "mean_se": 0.01, "log_sd_se": 0.01, "log_width_se": 0.01}
    return {
        "moments": {"mu": numbers | {"sd": 1.0}, "tau": numbers | {"sd": sd}},
        "passed": True,
        "outcome": "passed",
        "family": "avi",
        "seconds": {"fit": 4.0, "posterior": 1.0, "diagnosis": 2.0},
        "trouble": "",
    } | changes


@pytest.fixture
def rows() -> list[Row]:
    refusal = {"passed": False, "outcome": "several_modes"}
    return [
        judged("good", answer(), TRUTH),
        judged("false-accept", answer(sd=0.5), TRUTH),
        judged("false-refusal", answer(**refusal), TRUTH),
        judged("right-refusal", answer(sd=0.5, **refusal), TRUTH),
        judged("stopped", {"trouble": "stopped after 5 s", "done": "fit", "seconds": {"fit": 3.0}}, TRUTH),
    ]


def test_a_summary_counts_false_accepts_and_false_refusals(rows):
    text = "\n".join(summary(rows))
    assert "passed            2 (40 %)" in text
    assert "bad among passed  1: false-accept" in text
    assert "of them 1 within the limits: false refusals 20 % of all: false-refusal" in text
    assert "no verdict        1: stopped" in text
    assert "tau: mean off by 0.00 sds, sd ratio 0.50" in text
    assert "CPU seconds: fits 16, correction and diagnosis 12; their ratio has the median 0.75" in text


def test_a_line_says_what_was_measured_before_a_process_was_stopped(rows):
    assert rows[-1].verdict == "none"
    assert "after fit: stopped after 5 s" in line(rows[-1])
    assert "     3.0       -       -       -" in line(rows[-1])


def test_a_line_has_the_worst_global_and_the_verdict(rows):
    assert line(rows[1]).split()[:6] == ["false-accept", "2", "0.00", "0.50", "0.347", "passed,"]
    assert rows[3].verdict == "refused: several_modes, bad"
