import json
import math

import pytest

from make_references import MOST_DRAWS, as_text, next_draws, numbers, shortcoming


def answer(*, rhat=1.001, ess=1500.0, draws=2500, divergences=0):
    moments = {"mean": 1.0, "sd": 2.0, "mean_se": 0.05, "log_sd_se": 0.02}
    variable = {"moments": moments, "quantiles": [-2.3, 1.0, 4.3], "constant": False}
    still = {
        "moments": moments,
        "quantiles": [1.0, 1.0, 1.0],
        "constant": True,
        "rhat": math.nan,
        "ess": math.nan,
    }
    return {
        "variables": {
            "mu": variable | {"rhat": 1.0, "ess": 9000.0},
            "tau": variable | {"rhat": rhat, "ess": ess},
            "L[1,1]": still,
        },
        "draws": draws,
        "divergences": divergences,
    }


def test_a_run_with_enough_effective_draws_is_a_reference():
    assert shortcoming(answer()) == ""
    assert next_draws(answer()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rhat": 1.03}, "R-hat 1.030"),
        ({"ess": 400.0}, "400 effective draws"),
        ({"divergences": 11}, "11 divergent draws"),
        ({"rhat": math.nan}, "R-hat inf"),
    ],
)
def test_the_worst_variable_that_moves_says_what_a_run_lacks(changes, reason):
    assert shortcoming(answer(**changes)) == reason


def test_chains_get_longer_as_far_as_they_need_and_may():
    assert next_draws(answer(ess=500.0)) == 6500
    assert next_draws(answer(rhat=1.02)) == 5000
    assert next_draws(answer(ess=900.0, draws=MOST_DRAWS)) is None
    assert next_draws(answer(ess=5.0)) is None


def test_longer_chains_do_not_help_against_divergences():
    assert next_draws(answer(divergences=100)) is None


def test_a_reference_has_moments_quantiles_and_errors():
    moments, errors = numbers(answer())
    assert moments["tau"] == [1.0, 2.0, -2.3, 1.0, 4.3]
    assert errors["tau"] == [0.05, 0.02]


def test_a_file_of_references_has_a_line_for_each_variable():
    moments, errors = numbers(answer())
    kept = {
        "posteriors": {"p": moments},
        "errors": {"p": errors},
        "left out": {"q": "does not mix: R-hat [1.3]"},
    }
    text = as_text(kept)
    assert json.loads(text) == kept
    assert '"tau": [1.0, 2.0, -2.3, 1.0, 4.3]' in text
