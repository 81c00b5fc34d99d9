"""Settings that every test runs under: 64-bit, no silent promotion of ranks or dtypes."""

import importlib
import os
import runpy
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import jax
import pytest

import avistan as avi
from avistan.cli.examples import models_root
from fake_engine import Toy, build, compiler
from programs import REJECTS, bind, bundled
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.engine.stanli_compiler import stan_to_mir

# One folder keeps what the run's workers and their processes compile; the user's own is left alone.
_own = "AVISTAN_CACHE_DIR" not in os.environ
if _own:
    os.environ["AVISTAN_CACHE_DIR"] = tempfile.mkdtemp(prefix="avistan-tests-")
_programs = os.environ["AVISTAN_CACHE_DIR"]
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("AVISTAN_NUM_THREADS", "1")  # the workers have the processors

_cache = {
    "jax_compilation_cache_dir": os.path.join(_programs, "tests"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}
os.environ.update(
    (name.upper(), str(value)) for name, value in _cache.items()
)  # for processes that tests start
for _name, _value in {
    **_cache,
    "jax_enable_x64": True,
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
}.items():
    jax.config.update(_name, _value)
stan_to_mir("model {}")  # before XLA compiles: tests that call stanli itself can't start its compiler later


def pytest_unconfigure() -> None:
    if _own:
        shutil.rmtree(_programs, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs() -> Iterator[None]:
    """Each module's compiled programs go when it is done: kept to the end, they would take gibibytes."""
    yield
    jax.clear_caches()


def _require(module: str) -> ModuleType:
    if os.environ.get("REQUIRE_ALL") == "1":
        return importlib.import_module(module)
    return pytest.importorskip(module)


@pytest.fixture(scope="session")
def require():
    """`require("prophet")`: the module, or a skip; with REQUIRE_ALL=1 its absence is a failure."""
    return _require


@pytest.fixture(scope="session")
def bridgestan_home() -> str:
    """BridgeStan's sources, for tests that compile a program; they skip unless BRIDGESTAN names them."""
    home = os.environ.get("BRIDGESTAN")
    if not home:
        pytest.skip("compiles with BridgeStan: set BRIDGESTAN to its sources to run it")
    return home


@pytest.fixture(scope="session")
def toy_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Toy, Path], Path]:
    """`toy_library(toy, path)`: a library with the BridgeStan C ABI written by hand; skips without a C++ compiler."""
    if compiler() is None:
        assert os.environ.get("REQUIRE_ALL") != "1", "no C++ compiler"
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("toys")

    def make(toy: Toy, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copyfile(build(toy, folder), path.with_suffix(".new"))
        return copy.replace(path)  # the process may have loaded what was there

    return make


@pytest.fixture(scope="session")
def cmdstan_home() -> str:
    """CmdStan, for tests that compile a program; they skip unless CMDSTAN names an installation."""
    home = os.environ.get("CMDSTAN")
    if not home:
        pytest.skip("compiles with CmdStan: set CMDSTAN to its folder to run it")
    return home


@pytest.fixture
def key(request: pytest.FixtureRequest) -> jax.Array:
    """A random key fixed by the test's own name."""
    return jax.random.key(zlib.crc32(request.node.name.encode()))


@pytest.fixture(scope="session")
def linear_answers():
    """The closed forms of the linear example, by name."""
    return runpy.run_path(str(models_root() / "linear" / "closed_form.py"))


@pytest.fixture(scope="session")
def lsat() -> avi.Model:
    return bundled("lsat_2pl")


@pytest.fixture(scope="session")
def eight_schools() -> avi.Model:
    return bundled("eight_schools")


@pytest.fixture
def rejecting() -> Iterator[BoundModel]:
    """A model that rejects any point with a latent above the limit."""
    with bind(REJECTS, {"N": 6, "y": [0.1, -0.4, 0.3, 0.0, -0.2, 0.5], "limit": 1.0}) as model:
        yield model
