"""The command `avistan doctor`: what this machine has of what avistan can use, and how to get the rest."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from avistan.cli.console import Refusal, answers
from avistan.cli.options import Json
from avistan.runtime.text import to_json

_PROGRAM = "parameters { real x; } model { x ~ normal(0, 1); }"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        present: whether it is there and works.
        needed: whether nothing can be fitted without it.
        found: what there is, or what is missing and how to get it.
    """

    name: str
    present: bool
    needed: bool = False
    found: str

    def __str__(self) -> str:
        mark = "ok     " if self.present else "MISSING" if self.needed else "without"
        return f"{mark}  {self.name:<12}  {self.found}"


@answers
def doctor(json: Json = False) -> str:
    """Look at engines, compilers, the cache, threads and versions; say what is missing and how to get it.

    Exit status 3 where nothing can be fitted.
    """
    findings = list(examine())
    well = all(finding.present or not finding.needed for finding in findings)
    if json:
        text = to_json({"well": well, "findings": [asdict(finding) for finding in findings]})
    else:
        verdict = "Programs can be fitted here." if well else "Nothing can be fitted here: see MISSING."
        text = "\n".join([*map(str, findings), "", verdict])
    return text if well else Refusal(text)


def examine() -> Iterator[Finding]:
    """Everything in turn; what fails is a finding, not an error."""
    for name, needed, look in (
        ("versions", True, _versions),
        ("stanli", True, _stanli),
        ("handler", False, _handler),
        ("threads", True, _threads),
        ("memory", False, _memory),
        ("cache", False, _cache),
        ("bridgestan", False, _bridgestan),
        ("cmdstan", False, _cmdstan),
        ("tables", False, _tables),
    ):
        try:
            present, found = look()
        except Exception as error:  # whatever is wrong with a library is the finding
            present, found = False, f"{type(error).__name__}: {error}"
        yield Finding(name=name, present=present, needed=needed, found=" ".join(found.split()))


def _versions() -> tuple[bool, str]:
    from avistan.runtime.versions import versions

    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    return sys.version_info >= (3, 12), f"{told}, on {platform.system()} {platform.machine()}"


def _stanli() -> tuple[bool, str]:
    import numpy as np

    from stan_adapters.bound.bound_model import BoundModel
    from stan_adapters.data.stan_data import read_data
    from stan_adapters.language.program import Program

    started = time.perf_counter()
    program = Program.from_code(_PROGRAM, name="doctor")
    with BoundModel(program, read_data(program, {}), engine="stanli") as model:
        lp, gradient = model.log_density_gradient(np.array([[2.0]]))
    if abs(lp[0] + 2) > 1e-12 or abs(gradient[0, 0] + 2) > 1e-12:
        return (
            False,
            f"log density {lp[0]} and gradient {gradient[0, 0]}, both expected -2: reinstall stanli.",
        )
    took = time.perf_counter() - started
    return True, f"the default engine runs programs without a compiler (the first in {took:.1f} s)"


def _handler() -> tuple[bool, str]:
    from avistan.density.backend import native_available
    from avistan.density.handler import disabled

    if native_available():
        return True, "compiled: JAX calls Stan directly"
    if disabled():
        return (
            False,
            "switched off by AVISTAN_NO_NATIVE: Stan is called through Python, which is slower. Unset it.",
        )
    return False, (
        "not built: Stan is called through Python, which is slower. Install a C++17 compiler (apt install g++, or "
        "xcode-select --install) and reinstall avistan."
    )


def _threads() -> tuple[bool, str]:
    from avistan.density.slots import default_threads

    given = os.environ.get("AVISTAN_NUM_THREADS")
    source = f"AVISTAN_NUM_THREADS={given}" if given else "of the processors that this process may use"
    return (
        True,
        f"{default_threads()} for Stan's gradients ({source}); the machine has {os.cpu_count()} processors",
    )


def _memory() -> tuple[bool, str]:
    from stan_adapters.files.memory import available_memory, in_bytes

    left = available_memory()
    advice = "" if left >= 2**30 else ". A fit takes about a GiB: close other programs"
    return left >= 2**30, f"{in_bytes(left)} are free{advice}"


def _cache() -> tuple[bool, str]:
    from stan_adapters.files.cache_folder import FOLDER, SWITCH, cache_folder
    from stan_adapters.files.memory import in_bytes

    folder = cache_folder()
    if folder is None:
        reason = (
            f"switched off by {SWITCH}" if os.environ.get(SWITCH) else "the user has no folder for caches"
        )
        return False, f"{reason}: every process compiles anew. Name a folder by {FOLDER}."
    above = folder
    while not above.exists():
        above = above.parent
    try:  # access rights do not tell of every refusal
        os.rmdir(tempfile.mkdtemp(prefix=".avistan-doctor-", dir=above))
    except OSError:
        return (
            False,
            f"{folder} can't be written: every process compiles anew. Name another folder by {FOLDER}.",
        )
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    return True, f"{folder} ({in_bytes(size)}; can be deleted at any time)"


def _bridgestan() -> tuple[bool, str]:
    from stan_adapters.engine.compiled_engine import bridgestan_sources

    missing = list(
        _without(compiler=os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))
    )
    sources = bridgestan_sources()
    if sources is None:
        missing.append(
            'BridgeStan\'s sources (python -c "import bridgestan; bridgestan.compile.get_bridgestan_path()" fetches '
            "them; or set BRIDGESTAN to their folder)"
        )
    if missing:
        return False, f"compiles what stanli can't run; missing: {'; '.join(missing)}"
    return True, f"compiles what stanli can't run, from {sources}"


def _cmdstan() -> tuple[bool, str]:
    import cmdstanpy

    try:
        place = cmdstanpy.cmdstan_path()
    except ValueError:
        return False, (
            "runs cmdstan-advi, cmdstan-pathfinder and cmdstan-nuts in a comparison; python -m "
            "cmdstanpy.install_cmdstan installs it, or set CMDSTAN to its folder, or give --cmdstan-exe"
        )
    missing = list(_without(compiler=os.environ.get("CXX") or "g++"))
    told = f"; compiling needs {'; '.join(missing)}" if missing else ""
    return not missing, f"{Path(place)}{told}"


def _tables() -> tuple[bool, str]:
    if importlib.util.find_spec("pyarrow") is None:
        return False, "parquet and CSV as data, parquet as output: pip install 'avistan[tables]'"
    return True, "parquet and CSV are read and written"


def _without(*, compiler: str) -> Iterator[str]:
    """What is missing for compiling C++."""
    which: Callable[[str], str | None] = shutil.which
    if which(shlex.split(compiler)[0]) is None:
        yield f"the compiler {compiler} (apt install g++, or xcode-select --install; CXX names another)"
    if which(os.environ.get("MAKE") or "make") is None:
        yield "make (apt install make, or xcode-select --install; MAKE names another)"
