"""What the tests of slicing share: the closable cases, bound once, and short ways to ask for their slicing."""

import functools
import zlib
from pathlib import Path

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program
from stan_adapters.structure.structure import inspect_structure
from stan_adapters.unit_data.slicing import find_slicing
from structure_cases import CASES as EVERY_CASE

ROOT = Path(__file__).resolve().parents[2]
CASES = {name: case for name, case in EVERY_CASE.items() if case.verdict == "closable"}


def generator(*names):
    return np.random.default_rng(zlib.crc32("/".join(map(str, names)).encode()))


def bind(code_or_file, data):
    read = Program.from_file if isinstance(code_or_file, Path) else Program.from_code
    program = read(code_or_file)
    return BoundModel(program, read_data(program, data))


def level_of(model, name):
    return inspect_structure(model, level=name).level


def sliced(model, name, rules=None, seed=1):
    return find_slicing(model, level_of(model, name), np.random.default_rng(seed), rules)


@functools.cache
def inspected(name):
    case = CASES[name]
    model = bind(case.stan_file, case.make_data(generator(name)))
    level = level_of(model, case.level)
    return model, level, find_slicing(model, level, generator(name, "slicing"))


def texts(rules):
    return {name: str(rule) for name, rule in rules.items()}


def values(data):
    return {name: np.asarray(value).tolist() for name, value in data.items()}
