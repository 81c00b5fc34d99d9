"""Arguments of the Python API that can't be meant: each is an error of ours with a sentence, and nothing is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "odd_arguments.py"


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """What each call was answered, and the folder in which they were made."""
    folder = tmp_path_factory.mktemp("odd")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


def test_every_odd_argument_is_refused_before_work_begins(answered):
    answers, _ = answered
    assert len(answers) > 350
    others = {call: answer for call, answer in answers.items() if answer[0] != "refused"}
    assert others == {}


def test_every_refusal_is_a_sentence_that_ends(answered):
    answers, _ = answered
    odd = {
        call: said for call, (_, said) in answers.items() if not 15 < len(said) < 700 or "Traceback" in said
    }
    assert odd == {}


def test_nothing_is_left_behind(answered):
    _, folder = answered
    assert sorted(path.name for path in folder.iterdir()) == ["file", "simulator.stan"]


NAMED = {
    "fit(steps=9223372036854775808)": "1000000000 is the most, as the ELBO of each step is kept",
    "fit(elbo_draws=1)": "give a whole number of at least 2",
    "fit(method='avi:full:full')": "says 'full' more than once",
    "fit(progress_callback=3)": "give a function",
    "compare(methods=['avi', 'avi'])": "'avi' is named twice",
    "compare(methods='avi')": "give a list of names",
    "compare, nuts(reference_options={'dra': 10})": "Did you mean 'draws'",
    "posterior(draws=1000000000000)": "1000000000 is the most",
    "posterior(coords={'J': [1, 2]})": "do not fit the variables",
    "Model(slicing=['row'])": "expected a dict of rules by data entry",
    "calibrate(engine=None)": "give 'auto', 'stanli', 'bridgestan' or the path of a library",
}


@pytest.mark.parametrize(("call", "helpful"), NAMED.items(), ids=NAMED)
def test_a_refusal_says_what_to_do(answered, call, helpful):
    answers, _ = answered
    assert helpful in answers[call][1]
