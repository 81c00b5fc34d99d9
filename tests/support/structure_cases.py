"""The table of structure cases, bound to their data."""

import numpy as np

from case_tables import load_cases
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program

CASES = load_cases("structure")


def bind(case) -> BoundModel:
    """The case's program with its data, always the same."""
    program = Program.from_file(case.stan_file)
    return BoundModel(program, read_data(program, case.make_data(np.random.default_rng(3))))
