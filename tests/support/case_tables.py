"""Tables of cases that lie beside tests of their own, under names that do not meet."""

import importlib.util
import sys
from pathlib import Path


def load_cases(folder):
    """`CASES` of the module `cases` in a folder of tests."""
    path = Path(__file__).parents[1] / folder / "cases.py"
    spec = importlib.util.spec_from_file_location(f"{folder}_case_table", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.CASES
