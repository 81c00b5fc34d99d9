"""Every container comes out of transformed parameters and generated quantities in its own shape and order."""

from collections.abc import Iterable

import numpy as np
import pytest

from conformance.environment import ARGUMENTS, VARIABLES
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program

BLOCKS = ("transformed parameters", "generated quantities")
CONSTRAINED = {
    "o": "ordered[3]",
    "p": "simplex[3]",
    "S": "cov_matrix[3]",
    "L": "cholesky_factor_cov[3]",
    "LR": "cholesky_factor_corr[3]",
    "vp": "positive_ordered[3]",
    "u": "real<lower=0, upper=1>",
    "i": "int<lower=1, upper=2>",
}


def _rooms(names: Iterable[str]) -> list[tuple[str, str]]:
    """Integers are no transformed parameters."""
    return [
        (name, block)
        for name in names
        for block in BLOCKS
        if VARIABLES[name].slope is not None or block != BLOCKS[0]
    ]


def _draws(name: str, kind: str, block: str, *, in_function: bool):
    variable = VARIABLES[name]
    unsized = {"i": "int", "u": "real"}.get(name, "matrix" if variable.base.ndim == 2 else "vector")
    functions = f"functions {{ {unsized} same({unsized} z) {{ return z; }} }}\n" if in_function else ""
    value = f"same({name})" if in_function else name
    code = (
        f"{functions}data {{ {variable.type} {name}; }}\nparameters {{ real x; }}\n"
        f"{block} {{ {kind} out = {value}; }}\nmodel {{ x ~ std_normal(); }}\n"
    )
    if block == "generated quantities":
        code = (
            f"{functions}data {{ {variable.type} {name}; }}\nparameters {{ real x; }}\n"
            f"model {{ x ~ std_normal(); }}\n{block} {{ {kind} out = {value}; }}\n"
        )
    program = Program.from_code(code)
    with BoundModel(program, read_data(program, {name: variable.base}), engine="stanli") as bound:
        draws, failed = bound.constrain(np.array([[0.3], [-0.2]]))
    assert failed == 0
    return draws["out"]


@pytest.mark.parametrize(("name", "block"), _rooms(name for name in VARIABLES if name not in ARGUMENTS))
def test_a_container_comes_out_as_it_went_in(name: str, block: str) -> None:
    out = _draws(name, VARIABLES[name].type, block, in_function=False)
    np.testing.assert_array_equal(out, np.broadcast_to(VARIABLES[name].base, out.shape))


@pytest.mark.parametrize(("name", "block"), _rooms(CONSTRAINED))
def test_a_constrained_container_comes_out_as_it_went_in(name: str, block: str) -> None:
    out = _draws(name, CONSTRAINED[name], block, in_function=True)
    np.testing.assert_allclose(out, np.broadcast_to(VARIABLES[name].base, out.shape), rtol=1e-14)
