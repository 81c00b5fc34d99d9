"""Engines: how a Stan program becomes a library with the BridgeStan C ABI.

| engine | what it is | what it needs |
| --- | --- | --- |
| `stanli` | an interpreter in one wheel, the default | `pip install stanli` |
| `bridgestan` | the program compiled by BridgeStan with STAN_THREADS | a C++ compiler, BridgeStan's sources |
| a path `*.so` | a library that BridgeStan built before | the file |

`auto` is stanli and, for a program that stanli says it can't run, compiled BridgeStan where its sources are found.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path

from stan_adapters.engine.abi import Abi
from stan_adapters.engine.compiled_engine import bridgestan_sources as bridgestan_sources
from stan_adapters.engine.compiled_engine import compiled_library
from stan_adapters.engine.refusals import COMPILED_ENGINE_HINT as COMPILED_ENGINE_HINT
from stan_adapters.engine.refusals import refusal
from stan_adapters.engine.refused_calls import call_sites
from stan_adapters.engine.stanli_programs import stanli_mir
from stan_adapters.errors import EngineError, UnsupportedError, notify_once
from stan_adapters.language.program import Program

# What stanli prints when it can't evaluate transformed parameters or generated quantities and drops their columns.
_LOST_OUTPUT = ("no compiled path", "unavailable")


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
            raise refusal(
                str(error), engine=self.engine, program=self.program, data_json=data_json
            ) from error
        if outputs and all(words in printed for words in _LOST_OUTPUT):
            self.abi.destruct(handle)
            sites = call_sites(printed, self.program)
            raise UnsupportedError(
                f"{self.engine} can't evaluate the transformed parameters or generated quantities of "
                f"{self.program.name}{f', for {sites}' if sites else ''}: {printed.strip()}\n{COMPILED_ENGINE_HINT}"
            )
        if self.abi.exclusive is not None:
            notify_once(
                f"{self.abi.path} was built without STAN_THREADS, so it is called from one thread at a time and the "
                "other processors are idle. Build it with `bridgestan.compile_model('model.stan', "
                "make_args=['STAN_THREADS=true'])` to use them all."
            )
        return handle


def is_library_path(engine: str) -> bool:
    """Whether an engine is the path of a prebuilt library."""
    return engine.endswith((".so", ".dylib", ".dll"))


def load(program: Program, engine: str = "auto") -> Library:
    """The program as a library of the chosen engine: "auto", "stanli", "bridgestan" or the path of a `*.so`.

    Raises:
        EngineError: no such engine, its parts are missing (with the command that installs them), or it can't
            compile the program.
    """
    if engine in ("auto", "stanli"):
        return _load_stanli(program)
    if engine == "bridgestan":
        return Library(engine="bridgestan", abi=_abi(compiled_library(program)), program=program)
    if is_library_path(engine):
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
    mir = stanli_mir(program)
    manifest = {"build_id": stanli.build_id(), "mir": mir, "name": program.name}
    splice = b'"__stanli":' + json.dumps(manifest).encode()
    return Library(engine="stanli", abi=_abi(library), program=program, manifest=splice)
