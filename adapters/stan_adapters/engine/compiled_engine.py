"""Programs compiled by BridgeStan: once, kept in the cache, and built anew when anything changes what they become."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stan_adapters.errors import EngineError, EngineNotice
from stan_adapters.files.cache_folder import FOLDER, library_folder
from stan_adapters.files.message_paths import in_users_words, name_in_messages
from stan_adapters.language.program import Program

FLAGS = ("STAN_THREADS=true",)
# What make takes from the environment, and what of BridgeStan's sources tells one version from another.
_MAKE_VARIABLES = (
    *("CC", "CXX", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "LDLIBS", "O", "STANCFLAGS", "TBB_CXX_TYPE", "TBB_LIB"),
    *("STAN_OPENCL", "STAN_MPI", "STAN_NO_RANGE_CHECKS", "STAN_CPP_OPTIMS", "BRIDGESTAN_AD_HESSIAN"),
)
_VERSION_FILES = (
    "Makefile",
    "make/local",
    "src/*.[ch]pp",
    "src/*.h",
    "stan/src/stan/version.hpp",
    "stan/lib/stan_math/stan/math/version.hpp",
    "stan/lib/stan_math/make/compiler_flags",
)


def bridgestan_sources() -> Path | None:
    """The folder of BridgeStan's sources, if this machine has them: BRIDGESTAN, else BridgeStan's own.

    Never downloads.
    """
    try:
        from bridgestan.download import CURRENT_BRIDGESTAN
    except ImportError:
        return None
    folder = Path(os.environ.get("BRIDGESTAN") or CURRENT_BRIDGESTAN)
    return folder.resolve() if (folder / "Makefile").is_file() else None


def compiled_library(program: Program) -> Path:
    """The library that BridgeStan makes of a program, from the cache or compiled now, which takes minutes.

    Raises:
        EngineError: sources, a compiler or make are missing, the cache can't be written, or the compilation failed.
    """
    sources, compiler = _checked_sources(), _compiler()
    folder = library_folder().resolve() / build_key(program, FLAGS, sources, compiler)
    stan_file, library, marker = folder / "program.stan", folder / "program_model.so", folder / "complete"
    name_in_messages(stan_file, _users_file(program))
    try:
        with _lock(folder.with_suffix(".lock"), program):
            if not (marker.exists() and library.exists()):
                _compile(program, stan_file)
                for rest in (stan_file.with_suffix(".o"), stan_file.with_suffix(".hpp")):
                    rest.unlink(missing_ok=True)
                marker.write_text(program.name)  # written last: a killed build is never reused
    except OSError as error:
        raise EngineError(
            f"the compiled {program.name} can't be kept in {folder}: {error.strerror or error}. Choose another folder "
            f"by {FOLDER}."
        ) from error
    return library


def build_key(program: Program, flags: tuple[str, ...], sources: Path, compiler: str) -> str:
    """Names everything that can change the built library: program, flags, compiler, and BridgeStan's sources by the
    files that change with each of their versions.
    """
    files = sorted({file for pattern in _VERSION_FILES for file in sources.glob(pattern) if file.is_file()})
    parts = [
        program.source,
        sorted(flags),
        [(name, os.environ[name]) for name in _MAKE_VARIABLES if name in os.environ],
        importlib.metadata.version("bridgestan"),
        str(sources),
        [(str(file.relative_to(sources)), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files],
        _version(compiler),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@functools.cache
def _version(compiler: str) -> str:
    command = [*shlex.split(compiler), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return told.splitlines()[0] if told else compiler


def _users_file(program: Program) -> str:
    """What messages call the program; their lines are those of its expanded text."""
    if program.file is None:
        return f"{program.name}.stan"
    return f"{program.file} with its #include lines expanded" if program.has_includes else str(program.file)


def _checked_sources() -> Path:
    sources = bridgestan_sources()
    if sources is not None:
        return sources
    given = os.environ.get("BRIDGESTAN")
    wrong = f" BRIDGESTAN is {given!r}, where no Makefile is." if given else ""
    raise EngineError(
        f"the engine bridgestan needs BridgeStan's sources: set BRIDGESTAN to their folder, or let BridgeStan "
        'fetch them once with `python -c "import bridgestan; bridgestan.compile.get_bridgestan_path()"`.'
        f"{wrong} The engine stanli needs neither sources nor a compiler."
    )


def _compiler() -> str:
    """The C++ compiler that Stan's makefiles take, a command with arguments perhaps.

    Raises EngineError where it or make is missing.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    make = os.environ.get("MAKE") or "make"
    for what, command, variable in (("a C++ compiler", compiler, "CXX"), ("make", make, "MAKE")):
        if shutil.which(shlex.split(command)[0]) is None:
            raise EngineError(
                f"the engine bridgestan needs {what}, and {command!r} is not on the PATH: install it, or name another "
                f"by {variable}."
            )
    return compiler


def _compile(program: Program, stan_file: Path) -> None:
    import bridgestan

    warnings.warn(
        f"compiling {program.name} with BridgeStan, which takes minutes and happens once: it is kept in "
        f"{stan_file.parent}.",
        EngineNotice,
        stacklevel=2,
    )
    shutil.rmtree(stan_file.parent, ignore_errors=True)  # make would take up what a killed build left
    stan_file.parent.mkdir(parents=True)
    stan_file.write_text(program.source)
    try:
        bridgestan.compile_model(stan_file, make_args=list(FLAGS))
    except (RuntimeError, ValueError) as error:
        raise EngineError(
            f"BridgeStan could not compile {program.name}:\n{in_users_words(str(error))}"
        ) from error


@contextmanager
def _lock(path: Path, program: Program) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            warnings.warn(
                f"another process is compiling {program.name}: waiting for it, which can take minutes.",
                EngineNotice,
                stacklevel=2,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
