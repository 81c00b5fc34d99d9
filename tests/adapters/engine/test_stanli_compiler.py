"""Stan's compiler in this process and in one of its own."""

import subprocess
import sys

import pytest

from stan_adapters.engine import stanli_compiler
from stan_adapters.engine.stanli_compiler import stan_to_mir

PROGRAM = "parameters { real x; } model { x ~ normal(0, 1); } // \N{GREEK SMALL LETTER THETA}"
BIND_AFTER_TILES = """
import ctypes
libc = ctypes.CDLL(None)
if libc.syscall(158, 0x1023, 18):  # ARCH_REQ_XCOMP_PERM
    raise SystemExit(77)
from stan_adapters.engine.stanli_compiler import tiles_permitted
assert tiles_permitted()
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program
program = Program.from_code("parameters { real x; } model { x ~ normal(0, 1); }")
with BoundModel(program, read_data(program, {})) as model:
    print(float(model.log_density_gradient([2.0])[0]))
"""


@pytest.fixture
def alone(monkeypatch):
    """As where the compiler has not started and can't start any more."""
    monkeypatch.setattr(stanli_compiler, "_started", False)
    monkeypatch.setattr(stanli_compiler, "tiles_permitted", lambda: True)


def test_a_process_of_its_own_gives_the_same(alone, monkeypatch):
    elsewhere = stan_to_mir(PROGRAM)
    monkeypatch.undo()  # the tests' configuration has started the compiler here
    assert elsewhere == stan_to_mir(PROGRAM)


def test_what_is_wrong_is_said_in_the_compilers_words(alone):
    with pytest.raises(RuntimeError, match="Semantic error in 'string', line 1, column 31"):
        stan_to_mir("parameters { real x; } model { y ~ normal(0, 1); }")


def test_a_process_that_dies_is_an_error(alone, monkeypatch):
    monkeypatch.setattr(stanli_compiler, "_ALONE", "import os; os.abort()")
    with pytest.raises(RuntimeError, match="ended with status -6"):
        stan_to_mir(PROGRAM)


@pytest.mark.skipif(sys.platform != "linux", reason="a system call of Linux")
def test_a_model_binds_in_a_process_that_asked_for_tiles():
    done = subprocess.run(
        [sys.executable, "-c", BIND_AFTER_TILES], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("this processor has no AMX")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(-2.0)
