"""Random programs of branches and loops on parameters: Stan's value is Python's, in the model and in a function."""

import math

import numpy as np
import pytest

from conformance.random_programs import POINTS, RandomProgram
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import UnsupportedError
from stan_adapters.language.program import Program

LARGE = 1e6  # beyond it derivatives overflow, and a program of Stan rejects where Python does not


def _programs(seeds: range) -> list[tuple[int, RandomProgram, list[float]]]:
    """Those whose values stay moderate, with the values."""
    found = []
    for seed in seeds:
        program = RandomProgram(seed)
        try:
            values = [float(program.python(p, q)) for p, q in POINTS]
        except OverflowError:
            continue
        if all(abs(value) < LARGE for value in values):
            found.append((seed, program, values))
    return found


def _stan(program: RandomProgram, *, in_function: bool) -> str:
    if in_function:
        return (
            f"functions {{ real f(real p, real q) {{\n  {program.stan}\n  return result; }} }}\n"
            "parameters { real p; real q; }\nmodel { target += f(p, q); }\n"
        )
    return f"parameters {{ real p; real q; }}\nmodel {{\n  {program.stan}\n  target += result;\n}}\n"


def _check(seeds: range, *, in_function: bool) -> None:
    wrong, refused = {}, 0
    programs = _programs(seeds)
    for seed, program, values in programs:
        code = Program.from_code(_stan(program, in_function=in_function))
        try:
            with BoundModel(code, read_data(code, {}), engine="stanli") as bound:
                found = bound.log_density_gradient(np.array(POINTS))[0].tolist()
        except UnsupportedError:
            refused += 1
            continue
        if not all(
            math.isclose(*pair, rel_tol=1e-9, abs_tol=1e-9) for pair in zip(found, values, strict=True)
        ):
            wrong[seed] = (found, values)
    assert not wrong, f"(stanli, Python) by seed: {wrong}"
    assert refused < 0.1 * len(programs)


@pytest.mark.parametrize("in_function", [False, True])
def test_random_branches_and_loops_are_right(in_function: bool) -> None:
    _check(range(15), in_function=in_function)


@pytest.mark.slow
@pytest.mark.parametrize("in_function", [False, True])
def test_many_random_branches_and_loops_are_right(in_function: bool) -> None:
    _check(range(15, 400), in_function=in_function)
