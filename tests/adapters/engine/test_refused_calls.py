"""What an engine says it lacks is found in the program; the documents' table of what stanli lacks is true."""

import re
from pathlib import Path

import pytest
import stanli

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


# ---- The table: every row is refused with the construct and its line, and never as wrong data -----------------

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "programs_and_data.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## What the engine stanli lacks")[2]
ROWS = re.findall(r"^\| (?!construct|---)(.+?) \|", TABLE, re.MULTILINE)

# Programs whose last line but one has the construct; `data` where they need some.
MODEL = "parameters { real z; vector[3] v; }\nmodel {\n  %s\n}"
LATENT = (
    "functions { matrix K(real s) { return [[square(s)]]; }\n"
    "real ll(vector t, array[] int y) { return poisson_log_lpmf(y | t); } }\n"
    "transformed data { array[1] int y = {1}; }\n"
)
LACKING = {
    "tuples": (
        "data {\n  tuple(int, real) t;\n} parameters { real z; } model { z ~ normal(t.2, 1); }",
        "parameters {\n  tuple(real, vector[2]) t;\n} model { t.1 ~ std_normal(); }",
        MODEL % "tuple(real, real) t = (z, 1); z ~ normal(t.2, 1);",
        MODEL % "array[1] tuple(real, real) t; t[1] = (z, 1); z ~ normal(t[1].2, 1);",
        MODEL % "target += eigendecompose_sym(diag_matrix(v)).2[1];",
    ),
    "complex numbers": (
        "data {\n  complex c;\n} parameters { real z; } model { z ~ normal(get_real(c), 1); }",
        MODEL % "complex c = to_complex(z, 1); target += get_real(c);",
    ),
    "`jacobian +=`": (
        "parameters { real z; } transformed parameters { real y = exp(z);\n  jacobian += z;\n} model { }",
        "functions { real f_jacobian(real x) { // change\n  jacobian += x; return exp(x);\n} }"
        " parameters { real z; } transformed parameters { real y = f_jacobian(z); }",
    ),
    "`row_stochastic_matrix`": ("parameters {\n  row_stochastic_matrix[2, 2] p;\n}",),
    "`column_stochastic_matrix`": ("parameters {\n  column_stochastic_matrix[2, 2] p;\n}",),
    "`fatal_error`": (MODEL % 'if (z > 100) fatal_error("no"); z ~ std_normal();',),
    "`gaussian_dlm_obs`": (
        MODEL % "[[1.0]] ~ gaussian_dlm_obs([[1]], [[1]], [[exp(z)]], [[1]], [0]', [[1]]);",
    ),
    "`hmm_marginal`": (MODEL % "target += hmm_marginal([[z], [z]], [[0.5, 0.5], [0.5, 0.5]], [0.5, 0.5]');",),
    "`laplace_marginal`": (LATENT + MODEL % "target += laplace_marginal(ll, (y,), 1, K, (z,));",),
    "`determinant`": (MODEL % "target += determinant(diag_matrix(v));",),
    "`trace`": (MODEL % "target += trace(diag_matrix(v));",),
    "`norm1`": (MODEL % "target += norm1(v);",),
    "`matrix_power`": (MODEL % "target += matrix_power(diag_matrix(v), 2)[1, 1];",),
    "`singular_values`": (MODEL % "target += singular_values(diag_matrix(v))[1];",),
    "`symmetrize_from_lower_tri`": (MODEL % "target += symmetrize_from_lower_tri(diag_matrix(v))[1, 1];",),
    "`gp_periodic_cov`": (MODEL % "target += gp_periodic_cov({1.0, 2.0}, exp(z), 1, 1)[1, 2];",),
    "`inc_beta`": (MODEL % "target += inc_beta(1, 2, inv_logit(z));",),
    "`sub_row`": (MODEL % "target += sum(sub_row(diag_matrix(v), 1, 1, 2));",),
    "`csr_to_dense_matrix`": (MODEL % "target += sum(csr_to_dense_matrix(1, 3, v, {1, 2, 3}, {1, 4}));",),
}
DATA = {"t": (1, 2.0), "c": 1 + 2j}


def test_the_table_has_a_program_for_every_row():
    assert list(LACKING) == ROWS
    assert f"stanli {stanli.__version__}." in TABLE


@pytest.mark.parametrize(
    ("construct", "code"),
    [(construct, code) for construct, codes in LACKING.items() for code in codes],
    ids=[f"{construct}-{number}" for construct, codes in LACKING.items() for number in range(len(codes))],
)
def test_what_is_lacking_is_named_with_its_line(construct, code):
    program = Program.from_code(code, name="m")
    data = read_data(program, {d.name: DATA[d.name] for d in program.data})
    line = code.count("\n")  # the last but one
    with pytest.raises(UnsupportedError) as caught:
        BoundModel(program, data, engine="stanli")
    message = str(caught.value)
    assert re.search(rf"{re.escape(construct)} at m\.stan:{line}:", message), message
    assert "data" not in message
    assert "engine=" in message
