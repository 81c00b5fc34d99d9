"""A program as stanli gets it: what this version of stanli gets wrong is rewritten before, or refused.

`engine_faults.toml` is the list. The program is compiled as it stands first, so that errors of the compiler show the
user's own lines; a program that has to do with none of the faults goes on unchanged. Functions of a program that Stan's
library has got since are renamed.
"""

from __future__ import annotations

import functools
import json
import re

import numpy as np
from lark.exceptions import UnexpectedInput

from stan_adapters.engine.refusals import COMPILED_ENGINE_HINT
from stan_adapters.engine.stanli_compiler import stan_to_mir
from stan_adapters.errors import EngineError, UnsupportedError
from stan_adapters.language.edits import Edit, overlapping, rewritten, unused
from stan_adapters.language.program import Program
from stan_adapters.language.statements import Statements
from stan_adapters.rewriting.engine_faults import Fault, FaultExample, known_faults
from stan_adapters.rewriting.remedies import remedy

_CLASH = re.compile(r'Function "(\w+)" is already declared in the Stan Math library')
_NOT_CODE = r'//[^\n]*|/\*.*?\*/|"[^"\n]*"'


def stanli_mir(program: Program) -> str:
    """The intermediate form of a program for stanli.

    Raises:
        EngineError: Stan's compiler rejects the program.
        UnsupportedError: stanli would compute something else than the program says, with the place and the way out.
    """
    source = _without_clashes(program.source)
    _check_compiles(program, source)
    source = _for_stanli(program, source)
    try:
        return _mir(source)
    except RuntimeError as error:
        raise UnsupportedError(
            f"stanli {_version()} gets a part of {program.name} wrong, and the program could not be rewritten "
            f"for it: {error}\n{COMPILED_ENGINE_HINT}"
        ) from error


def _check_compiles(program: Program, source: str) -> None:
    try:
        _mir(source)
    except RuntimeError as error:
        file = str(program.file or f"{program.name}.stan")
        told = str(error).strip().replace("in 'string'", f"in {file}")
        place = _place(told, program)
        where = f"\n(Lines count after #include is expanded: it is {place}.)" if place else ""
        raise EngineError(f"the Stan compiler rejects the program: {told}{where}") from error


def _place(told: str, program: Program) -> str:
    """Where the first line and column of a message of the compiler are, if files are included."""
    found = re.search(r"line (\d+), column (\d+)", told)
    if not program.has_includes or found is None:
        return ""
    lines = program.source.split("\n")[: int(found[1]) - 1]
    return str(program.locate(sum(len(line) + 1 for line in lines) + int(found[2])))


@functools.lru_cache(maxsize=64)
def _without_clashes(source: str) -> str:
    """The program, its own functions renamed that Stan has too by now: a program means its own."""
    renamed: set[str] = set()
    while (found := _CLASH.search(_complaint(source))) is not None and found[1] not in renamed:
        name = found[1]
        renamed.add(name)
        edits = [
            Edit(match.start(), match.end(), unused(f"{name}_here", source))
            for match in re.finditer(rf"{_NOT_CODE}|\b{name}\b(?=\s*[(,)])", source, re.DOTALL)
            if match[0] == name
        ]
        source = rewritten(source, edits)
    return source


def _complaint(source: str) -> str:
    try:
        _mir(source)
    except RuntimeError as error:
        return str(error)
    return ""


@functools.lru_cache(maxsize=64)
def _mir(source: str) -> str:
    return stan_to_mir(source)


def _for_stanli(program: Program, source: str | None = None) -> str:
    """The program's text, or another with its lines and columns, rewritten where this version of stanli needs it."""
    source, refused = _rewritten(program.source if source is None else source)
    if refused:
        reasons = [
            f"{program.locate(place)}: {fault.engine} {_version()} {fault.effect}. {fault.way_out}"
            for place, fault in refused
        ]
        raise UnsupportedError("\n".join([*reasons, COMPILED_ENGINE_HINT]))
    return source


@functools.lru_cache(maxsize=64)
def _rewritten(source: str) -> tuple[str, tuple[tuple[int, Fault], ...]]:
    """The text for stanli, and the places in the program's own that can only be refused."""
    version = _version()
    concerned = [fault for fault in known_faults("stanli") if fault.concerns(source)]
    concerned = [fault for fault in concerned if version in fault.seen_in or not _passes(fault.example)]
    if not concerned:
        return source, ()
    statements = _statements(source)
    edits: list[Edit] = []
    causes: list[Fault] = []  # of the edits
    code: list[str] = []
    refused: list[tuple[int, Fault]] = []
    for fault in concerned:
        found = remedy(fault, source, statements, _accepts)
        edits += found.edits
        causes += [fault] * len(found.edits)
        code.append(found.functions)
        refused += [(place, fault) for place in found.refused]
    refused += [(edits[number].start, causes[number]) for number in overlapping(edits)]
    if refused:
        return source, tuple(sorted(refused, key=lambda item: item[0]))
    return rewritten(source, tuple(edits), "\n".join(code)), ()


def _statements(source: str) -> Statements:
    try:
        return Statements.read(source)
    except (UnexpectedInput, RecursionError) as error:
        raise UnsupportedError(
            f"a statement of the program can't be read, and stanli {_version()} gets some statements wrong: {error}\n"
            f"{COMPILED_ENGINE_HINT}"
        ) from error


def _accepts(source: str) -> bool:
    try:
        stan_to_mir(source)
    except RuntimeError:
        return False
    return True


def _version() -> str:
    import stanli

    return str(stanli.__version__)


@functools.cache
def _passes(example: FaultExample) -> bool:
    """Whether the installed stanli computes an example as Stan does."""
    import stanli

    try:
        model = stanli.bridgestan_model(
            mir=stan_to_mir(example.program), data=json.dumps({}), capture_stan_prints=False
        )
        _, gradient = model.log_density_gradient(np.zeros(len(example.gradient)))
    except (RuntimeError, ValueError):
        return False
    return bool(np.allclose(gradient, example.gradient, rtol=1e-10, atol=1e-12))
