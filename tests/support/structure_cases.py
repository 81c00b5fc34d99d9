"""The table of structure cases, bound to their data."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program


def _load_cases():
    path = Path(__file__).parents[1] / "structure" / "cases.py"
    spec = importlib.util.spec_from_file_location("structure_case_table", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.CASES


CASES = _load_cases()


def bind(case) -> BoundModel:
    """The case's program with its data, always the same."""
    program = Program.from_file(case.stan_file)
    return BoundModel(program, read_data(program, case.make_data(np.random.default_rng(3))))
