"""What an engine says it lacks is found in the program."""

import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine.refusals import refusal
from stan_adapters.engine.refused_calls import call_sites
from stan_adapters.errors import UnsupportedError
from stan_adapters.language.program import Program

PROGRAM = """// norm1(x) in a comment
data { vector[3] v; array[2] int y; }
parameters { real x; }
model {
  print("norm1(v)");
  target += x * norm1(v) + norm1 (v);
  y ~ poisson_log(x);
  y ~ poisson(exp(x)) T[0, ];
  my_norm1(v); norm1(v); norm1(v);
}
"""


def program() -> Program:
    return Program.from_code(PROGRAM, name="lines")


@pytest.mark.parametrize(
    ("message", "sites"),
    [
        ("stanli compile: unsupported function norm1", "`norm1` at lines.stan:6:17, 6:28, 9:16 and 1 more"),
        (
            "stanli compile: runtime-control region: function norm1",
            "`norm1` at lines.stan:6:17, 6:28, 9:16 and 1 more",
        ),
        ("poisson_log_lpmf: int argument must be int data", "`poisson_log_lpmf` at lines.stan:7:7"),
        ("stanli: poisson_lcdf: what", "`poisson_lcdf` at lines.stan:8:7"),
        ("unsupported function norm2", ""),
        ("unsupported index expression", ""),
    ],
)
def test_a_function_that_a_message_names_is_found_where_it_is_called(message: str, sites: str) -> None:
    assert call_sites(message, program()) == sites


def test_a_refusal_names_the_function_and_the_line() -> None:
    code = "data { vector[3] v; }\nparameters { real x; }\nmodel {\n  target += x * norm1(v);\n}\n"
    bad = Program.from_code(code, name="lines")
    with pytest.raises(UnsupportedError, match=r"`norm1` at lines\.stan:4:17(.|\n)*engine=\"bridgestan\""):
        BoundModel(bad, read_data(bad, {"v": [1, 2, 3]}), engine="stanli")


def test_an_empty_integer_outcome_is_one_reason_of_several() -> None:
    message = (
        "stanli compile: poisson_log_lpmf: stanli compile: int argument must be int data (kind=0 type=UArray)"
    )
    error = refusal(message, engine="stanli", program=program(), data_json="{}")
    assert isinstance(error, UnsupportedError)
    assert "`poisson_log_lpmf` at lines.stan:7:7" in str(error)
    assert "Often a loop or a slice over an integer outcome is empty" in str(error)
    assert 'engine="bridgestan"' in str(error)


def test_one_row_of_predictors_for_all_outcomes_is_not_said_to_be_wrong_data() -> None:
    message = "stanli compile: poisson_log_lpmf: density outcome does not match matrix rows"
    error = refusal(message, engine="stanli", program=program(), data_json="{}")
    assert isinstance(error, UnsupportedError)
    assert "lines.stan:7:7" in str(error)
    assert "good Stan" in str(error)
    assert "these data" not in str(error)
