"""What the variables that a program declares take of memory, before an engine is asked for them.

Sizes are evaluated on the data; a variable whose size these do not tell counts as nothing, so that no program is
refused that could be bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stan_adapters.data.layout import declared_shape
from stan_adapters.errors import EngineError
from stan_adapters.files.memory import available_memory, in_bytes
from stan_adapters.language.program import Block, Declaration, Program

_DOUBLE, _INTEGER = 8, 4
# Numbers for each of a parameter's: its place, the point, its gradient, and in the density its value and its adjoint.
_PARAMETER, _TRANSFORMED = 5, 2
_CERTAIN = 1 << 20  # bytes that are there: what is left of memory is not asked for


def declared_numbers(declaration: Declaration, env: Mapping[str, Any]) -> int:
    """How many numbers a variable has, constrained; 0 where the data `env` do not tell."""
    shape = declared_shape(declaration.type, env)
    return 0 if shape is None else math.prod(max(size, 0) for size in shape)


def declared_bytes(declaration: Declaration, env: Mapping[str, Any]) -> int:
    """What a variable takes at least where the density and its gradient are evaluated."""
    each = {Block.PARAMETERS: _PARAMETER, Block.TRANSFORMED_PARAMETERS: _TRANSFORMED}.get(
        declaration.block, 1
    )
    one = _INTEGER if declaration.type.is_integer else _DOUBLE
    return declared_numbers(declaration, env) * each * one


def largest_declared(program: Program, env: Mapping[str, Any]) -> Declaration | None:
    """The variable of the density that takes most; None where none has numbers that the data tell."""
    found = max(_of_density(program), key=lambda declaration: declared_bytes(declaration, env), default=None)
    return found if found is not None and declared_bytes(found, env) else None


def described(declaration: Declaration, env: Mapping[str, Any]) -> str:
    """A variable with its place, its numbers and its bytes, as a clause."""
    return (
        f"`{declaration}` at {declaration.location} has {declared_numbers(declaration, env)} entries, which take "
        f"{in_bytes(declared_bytes(declaration, env))} at least"
    )


def check_declared_memory(program: Program, env: Mapping[str, Any]) -> None:
    """That the memory holds the variables of a program's density.

    Args:
        env: the data, on which declared sizes are evaluated.

    Raises:
        EngineError: it does not, with the variable that takes most.
    """
    needed = sum(declared_bytes(declaration, env) for declaration in _of_density(program))
    if needed <= _CERTAIN or needed <= (left := available_memory()):
        return
    largest = largest_declared(program, env)
    assert largest is not None
    sizes = sorted(name for name in largest.type.names if name in env and np.ndim(env[name]) == 0)
    known = ", ".join(f"{name} = {env[name]}" for name in sizes)
    raise EngineError(
        f"{program.name} can't be bound: {described(largest, env)}. With the other variables that is "
        f"{in_bytes(needed)}, and {in_bytes(left)} of memory are left. Correct the size"
        f"{f' or the data that it comes from ({known})' if known else ''}, or take a machine with more memory."
    )


def _of_density(program: Program) -> tuple[Declaration, ...]:
    return (*program.transformed_data, *program.parameters, *program.transformed_parameters)
