"""The table of programs in brms's layout, bound to their data."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import StanData, read_data
from stan_adapters.language.program import Program


def _load_cases():
    path = Path(__file__).parents[1] / "brms" / "cases.py"
    spec = importlib.util.spec_from_file_location("brms_case_table", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.CASES


CASES = _load_cases()


def read(case, seed=1, **options) -> StanData:
    return read_data(Program.from_file(case.stan_file), case.make(np.random.default_rng(seed), **options))


def bind(case, seed=1, **options) -> BoundModel:
    data = read(case, seed, **options)
    return BoundModel(data.program, data)
