"""Engines: how a Stan program becomes a library with the BridgeStan C ABI.

| engine | what it is | what it needs |
| --- | --- | --- |
| `stanli` | an interpreter in one wheel, the default | `pip install stanli` |
| `bridgestan` | the program compiled by BridgeStan with STAN_THREADS | a C++ compiler, BridgeStan's sources |
| a path `*.so` | a library that BridgeStan built before | the file |

`auto` is stanli and, for a program that stanli says it can't run, compiled BridgeStan where its sources are found.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .abi import Abi
from .errors import EngineError, UnsupportedError
from .program import Program
from .stanli_compiler import stan_to_mir

COMPILED_ENGINE_HINT = (
    "Use the compiled engine for this program: install a C++ compiler and BridgeStan's sources, set BRIDGESTAN to "
    'their folder, and pass engine="bridgestan" (command line: --engine bridgestan).'
)
# What stanli prints when it can't evaluate transformed parameters or generated quantities and drops their columns.
_LOST_OUTPUT = ("no compiled path", "unavailable")
_GARBAGE = ("-2147483648", "-2147483647")  # integers that nobody set


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A program as a loaded library. `construct` binds data to it; handles are the caller's to destruct."""

    engine: str
    abi: Abi = field(repr=False)
    program: Program = field(repr=False)
    manifest: bytes = field(default=b"", repr=False)  # stanli: the program, spliced into the data's JSON

    def construct(self, data_json: str, seed: int, *, outputs: bool = True) -> int:
        """A new model handle.

        Args:
            outputs: whether transformed parameters and generated quantities will be asked of it.

        Raises:
            UnsupportedError: stanli does not know a feature of the program, or would drop declared outputs.
            EngineError: the engine refuses the data or the program.
        """
        payload = data_json.encode()
        if self.manifest:
            body = payload.rstrip()[:-1].rstrip()
            payload = body + (b"" if body.endswith(b"{") else b",") + self.manifest + b"}"
        try:
            handle, printed = self.abi.construct(payload, seed)
        except EngineError as error:
            raise _refusal(str(error), self) from error
        if outputs and all(words in printed for words in _LOST_OUTPUT):
            self.abi.destruct(handle)
            raise UnsupportedError(
                f"{self.engine} can't evaluate the transformed parameters or generated quantities of "
                f"{self.program.name}: {printed.strip()}\n{COMPILED_ENGINE_HINT}"
            )
        return handle


def load(program: Program, engine: str = "auto") -> Library:
    """The program as a library of the chosen engine: "auto", "stanli", "bridgestan" or the path of a `*.so`.

    Raises:
        EngineError: no such engine, its parts are missing (with the command that installs them), or it can't
            compile the program.
    """
    if engine in ("auto", "stanli"):
        return _load_stanli(program)
    if engine == "bridgestan":
        return _load_bridgestan(program)
    if engine.endswith((".so", ".dylib", ".dll")):
        path = Path(engine).expanduser().resolve()
        if not path.is_file():
            raise EngineError(
                f"there is no library at {path}. Give the path of a `*_model.so` that "
                "`bridgestan.compile_model` made, or engine='stanli'."
            )
        return Library(engine=path.name, abi=_abi(path), program=program)
    raise EngineError(
        f"unknown engine {engine!r}: choose 'auto', 'stanli', 'bridgestan' or the path of a prebuilt `*_model.so`."
    )


def bridgestan_sources() -> Path | None:
    """The folder of BridgeStan's sources, if this machine has them. Never downloads."""
    try:
        from bridgestan.download import CURRENT_BRIDGESTAN
    except ImportError:
        return None
    for folder in (os.environ.get("BRIDGESTAN", ""), CURRENT_BRIDGESTAN):
        if folder and (Path(folder) / "Makefile").is_file():
            return Path(folder).resolve()
    return None


@functools.lru_cache(maxsize=256)
def _abi(path: Path) -> Abi:
    return Abi(path)


def _load_stanli(program: Program) -> Library:
    try:
        import stanli
    except ImportError as error:
        raise EngineError("the engine stanli is not installed: run `pip install stanli`.") from error
    library = Path(stanli.__file__).parent / "_bin" / "libstanli.so"
    if not library.exists():  # the package's own name for other systems
        library = Path(stanli._runtime_lib_path())
    mir = _stanli_mir(program.source, str(program.file or f"{program.name}.stan"))
    manifest = {"build_id": stanli.build_id(), "mir": mir, "name": program.name}
    splice = b'"__stanli":' + json.dumps(manifest).encode()
    return Library(engine="stanli", abi=_abi(library), program=program, manifest=splice)


@functools.lru_cache(maxsize=64)
def _stanli_mir(source: str, file: str) -> str:
    try:
        return stan_to_mir(source)
    except RuntimeError as error:
        told = str(error).strip().replace("in 'string'", f"in {file}")
        note = "\n(Lines count after #include is expanded.)" if _has_includes(source, file) else ""
        raise EngineError(f"the Stan compiler rejects the program: {told}{note}") from error


def _has_includes(source: str, file: str) -> bool:
    path = Path(file)
    return path.is_file() and path.read_text(encoding="utf-8") != source


def _load_bridgestan(program: Program) -> Library:
    sources = bridgestan_sources()
    if sources is None:
        raise EngineError(
            "the engine bridgestan needs BridgeStan's sources: set BRIDGESTAN to their folder, or let BridgeStan "
            'fetch them once with `python -c "import bridgestan; bridgestan.compile.get_bridgestan_path()"`. '
            "The engine stanli needs neither sources nor a compiler."
        )
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise EngineError(f"the engine bridgestan needs a C++ compiler, and {compiler!r} is not on the PATH.")
    flags = ("STAN_THREADS=true",)
    folder = _cache_folder() / "bridgestan" / _build_key(program, flags, sources, compiler)
    library, marker = folder / "program_model.so", folder / "complete"
    with _lock(folder.with_suffix(".lock")):
        if not marker.exists():
            _compile(program, folder, flags)
            marker.write_text(program.name)  # written last: a killed build is never reused
    return Library(engine="bridgestan", abi=_abi(library), program=program)


def _compile(program: Program, folder: Path, flags: tuple[str, ...]) -> None:
    import bridgestan

    folder.mkdir(parents=True, exist_ok=True)
    stan_file = folder / "program.stan"
    stan_file.write_text(program.source)
    try:
        bridgestan.compile_model(stan_file, make_args=list(flags))
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"BridgeStan could not compile {program.name}:\n{error}") from error


def _build_key(program: Program, flags: tuple[str, ...], sources: Path, compiler: str) -> str:
    """Names everything that can change the built library."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    local = sources / "make" / "local"
    parts = [
        program.source,
        sorted(flags),
        importlib.metadata.version("bridgestan"),
        str(sources),
        local.read_text() if local.exists() else "",
        version.splitlines()[0] if version else compiler,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "avistan"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _refusal(message: str, library: Library) -> EngineError:
    where = f"{library.engine} refuses {library.program.name} with these data: {message}"
    if library.engine != "stanli":
        return EngineError(where)
    if "int argument must be int data" in message:
        return UnsupportedError(
            f"{where}\nThis happens in stanli when a loop or slice over an integer outcome is empty (a size is 0). "
            f"Give at least one row, or guard the statement with `if (N > 0)`. {COMPILED_ENGINE_HINT}"
        )
    if "out of bounds" in message and not any(number in message for number in _GARBAGE):
        return EngineError(
            f"{where}\nAn index in the data points outside what it indexes; Stan counts from 1. With bounds in its "
            "declaration, such as `array[N] int<lower=1, upper=J> g`, the entry and the place are named."
        )
    if any(number in message for number in _GARBAGE):
        return UnsupportedError(
            f"{where}\nThat number is no value of the data: stanli leaves an integer array of transformed data unset "
            f"when whole rows are assigned to it. {COMPILED_ENGINE_HINT}"
        )
    if "stanli compile:" in message or "unsupported" in message:
        return UnsupportedError(f"{where}\n{COMPILED_ENGINE_HINT}")
    return EngineError(where)
