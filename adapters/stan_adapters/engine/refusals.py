"""Why an engine refused a program with its data, whose turn it is, and what to do.

stanli's refusals are of two kinds. Either it does not know something of a program that Stan's compiler accepted, and
another engine may. Or the data are at fault, and no engine will take them: such messages are recognized by what they
say, and what is not recognized counts as the first kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from stan_adapters.data.checks import Misfit, declared_dims
from stan_adapters.data.declared_memory import described, largest_declared
from stan_adapters.engine.refused_calls import call_sites, lacking
from stan_adapters.errors import EngineError, UnsupportedError
from stan_adapters.language.program import Program

COMPILED_ENGINE_HINT = (
    "Use the compiled engine for this program: install a C++ compiler and BridgeStan's sources, set BRIDGESTAN to "
    'their folder, and pass engine="bridgestan" (command line: --engine bridgestan).'
)
_GARBAGE = ("-2147483648", "-2147483647")  # integers that nobody set
_EXTENT = re.compile(r"negative .*extent|invalid or overflowing extent|invalid extent|negative dimension")
_SIZES = re.compile(r"(?:dimension|size|width)s? mismatch|must match in size|count does not match")
_OUTSIDE = re.compile(r"index -?\d+ is outside 1:\d+")
_STRING = re.compile(r'"([^"\n]*)"')
_STATEMENT = re.compile(r"\b(?:reject|fatal_error)\s*\(([^;]*);")
# Stan's own checks of functions and variables: `name: what must be is not`.
_STAN_CHECK = re.compile(r"^(\w+)(?:\[[^\]]*\])?(?::| is )")
_DIVISION = ("division by zero", "modulus by zero", "divide by zero")


def refusal(message: str, *, engine: str, program: Program, data_json: str) -> EngineError:
    """The error for a message with which an engine refused to bind data.

    Returns: an `UnsupportedError` where another engine may take the same program and data.
    """
    where = f"{engine} refuses {program.name} with these data: {message}"
    if engine != "stanli":
        return EngineError(where)
    if "recursion too deep" in message:
        return EngineError(
            f"{where}\nA function of the program calls itself without end, or more often than stanli allows: look for "
            "the condition that ends its recursion, and for the data that it depends on. A compiled program would run "
            "out of stack and crash."
        )
    if "int argument must be int data" in message:
        return UnsupportedError(
            f"{_unable(message, program)}\nstanli has to know these integers before it evaluates the model, and can't "
            "tell them here. Often a loop or a slice over an integer outcome is empty, as a size is 0; then a guard "
            f"such as `if (N > 0)` helps. {COMPILED_ENGINE_HINT}"
        )
    if "density outcome does not match matrix rows" in message:
        return UnsupportedError(
            f"{_unable(message, program)}\nhere stanli wants a row of the predictors for each outcome; that one row "
            f"serves all of them is good Stan. Repeat it with `rep_matrix`. {COMPILED_ENGINE_HINT}"
        )
    if "bad_alloc" in message:
        return EngineError(f"{where}\n{_about_memory(program, data_json)}")
    if any(number in message for number in _GARBAGE):
        return UnsupportedError(
            f"{where}\nThat number is no value of the data: it stands for an integer that the program computes and "
            f"that was never set, or not as stanli sees it. {COMPILED_ENGINE_HINT}"
        )
    if "out of bounds" in message or _OUTSIDE.search(message):
        return EngineError(
            f"{where}\nAn index in the data points outside what it indexes; Stan counts from 1. With bounds in its "
            "declaration, such as `array[N] int<lower=1, upper=J> g`, the entry and the place are named."
        )
    if _EXTENT.search(message):
        return EngineError(f"{where}\n{_about_sizes(program, data_json)}")
    if _SIZES.search(message):
        return UnsupportedError(
            f"{where}\nSizes in the program do not fit together: correct the data that they come from. If the data are "
            f"as they should be, stanli is wrong. {COMPILED_ENGINE_HINT}"
        )
    if _is_of_the_data(message, program):
        return EngineError(where)
    return UnsupportedError(f"{_unable(message, program)}\n{COMPILED_ENGINE_HINT}")


def _unable(message: str, program: Program) -> str:
    if construct := lacking(message, program):  # in words that are not the engine's own
        return f"stanli can't run {program.name}: it lacks {construct}."
    sites = call_sites(message, program)
    return f"stanli can't run {program.name}: {message}" + (f" ({sites})" if sites else "")


def _is_of_the_data(message: str, program: Program) -> bool:
    """Whether Stan itself says it: a constraint, a check of a function that the program calls, or its own `reject`."""
    if message.startswith("stanli MIR check:") or any(words in message for words in _DIVISION):
        return True
    if message.startswith(("stanli", "mir:")) or "unsupported" in message:
        return False
    said = [text for call in _STATEMENT.findall(program.source) for text in _STRING.findall(call)]
    if any(text.strip() and text.strip() in message for text in said):
        return True
    named = _STAN_CHECK.match(message)
    return named is not None and re.search(rf"\b{named[1]}\b", program.source) is not None


def _about_memory(program: Program, data_json: str) -> str:
    """Which declaration takes most of what there is not."""
    env = _numbers(data_json)
    largest = largest_declared(program, env)
    known = f"; of its variables {described(largest, env)}" if largest is not None else ""
    return (
        f"That is, memory ran out: the machine does not hold what the program declares and computes{known}. Correct "
        "sizes that are too large, give less data, or take a machine with more memory."
    )


def _numbers(data_json: str) -> dict[str, Any]:
    """The entries of data that sizes can be computed from, as numbers and arrays."""
    entries: dict[str, Any] = orjson.loads(data_json)
    return {
        name: np.asarray(value) if isinstance(value, list) else value for name, value in _regular(entries)
    }


def _about_sizes(program: Program, data_json: str) -> str:
    """Which declaration has a size that can't be, or at least which integers of the data sizes come from."""
    env = _numbers(data_json)
    for declaration in (*program.transformed_data, *program.parameters, *program.transformed_parameters):
        try:
            declared_dims(declaration.type, env)
        except Misfit as misfit:
            names = {name for size in declaration.type.dims for name in size.names}
            from_data = ", ".join(f"`{name}`" for name in sorted(names & env.keys()))
            return f"`{declaration}` at {declaration.location} {misfit}. Correct {from_data or 'the size'} in the data."
    integers = [f"{name} = {value}" for name, value in env.items() if isinstance(value, int)]
    known = f" The integers in the data: {', '.join(integers)}." if integers else ""
    return (
        "A size in the program comes out negative, or larger than Stan can index: correct the data that it is "
        f"computed from.{known}"
    )


def _regular(entries: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries that sizes can be computed from: no tuples, nothing ragged, no names for infinity."""
    for name, value in entries.items():
        if isinstance(value, list):
            try:
                if np.asarray(value).dtype.kind not in "if":
                    continue
            except ValueError:
                continue
        elif not isinstance(value, int | float):
            continue
        yield name, value
