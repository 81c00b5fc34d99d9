"""How large a saved fit says that it is, before anything of that size is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avistan.family.locals import MAX_DIRECTIONS
from avistan.family.method import Method
from stan_adapters.data.declared_memory import declared_numbers
from stan_adapters.files.memory import available_memory
from stan_adapters.language.program import Program

_BYTES = 4  # of a number of a family, at least


class SizeError(Exception):
    """A saved fit says that it is larger than it can be."""


def refuse_beyond_memory(program: Program, data: Mapping[str, Any]) -> None:
    """That one value of every variable that a program declares has room in half of the memory that is left.

    Raises:
        SizeError: it has not.
    """
    numbers = sum(declared_numbers(declaration, data) for declaration in program.declarations)
    if 16 * numbers > available_memory():
        raise SizeError(
            f"data.json: its sizes give the program's variables {numbers} numbers, for which this machine has no memory"
        )


def fewest_bytes(
    method: Method, units: int, block: int, num_globals: int, num_inputs: int, chains: int, refined: int
) -> int:
    """Bytes that the families of a fit have at least, from its sizes alone.

    Args:
        units, block: N and d.
        num_globals: G, those of a second level included.
        num_inputs: numbers that the inference function reads of a unit.
        refined: rows of units with parameters of their own, of all chains.
    """
    rates = 0 if method.conditional == "none" else block * min(num_globals, MAX_DIRECTIONS)
    if method.second is not None:
        rates = 0  # directions are those of the free globals only, whose number is not known here
    below = 0 if method.local == "diagonal" else block * (block - 1) // 2 + method.reach * block**2
    of_unit = 2 * block + below + rates
    function = of_unit
    if method.function == "table":
        function *= units
    elif method.function == "mlp":
        function += method.size * (num_inputs + method.size + of_unit) + num_inputs * of_unit
    of_globals = 2 * num_globals
    if method.globals == "full-rank":
        of_globals += num_globals * (num_globals - 1) // 2
    elif method.globals == "low-rank":
        of_globals += 2 * num_globals * min(method.rank, num_globals)
    if method.second is not None:
        of_globals = 0  # the latents of the second level have no numbers of their own
    return _BYTES * (chains * (function + of_globals) + refined * of_unit)
