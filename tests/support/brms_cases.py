"""The table of programs in brms's layout, bound to their data."""

import numpy as np

from case_tables import load_cases
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import StanData, read_data
from stan_adapters.language.program import Program

CASES = load_cases("brms")


def read(case, seed=1, **options) -> StanData:
    return read_data(Program.from_file(case.stan_file), case.make(np.random.default_rng(seed), **options))


def bind(case, seed=1, **options) -> BoundModel:
    data = read(case, seed, **options)
    return BoundModel(data.program, data)
