"""Sizes that a switch of the data decides, as in `vector[has_weights ? N : 0] weights`: read as what they are.

A switch is a number of the data that counts nothing: it is in no size but in front of a `?`. It stays as it is when
data are cut to some units, so that the branch which it chooses is the size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from stan_adapters.language.expressions import Expression, Unevaluable
from stan_adapters.language.program import Declaration, Program, StanType


def settled(program: Program, env: Mapping[str, Any]) -> Program:
    """The program's data and parameters with such sizes replaced by the chosen branch.

    Args:
        env: the data.
    """
    declared = (*program.data, *program.parameters)
    sizes = [size for declaration in declared for size in declaration.type.dims]
    if not any(size.branches for size in sizes):
        return program
    counting = frozenset(name for size in sizes for name in _counting(size))
    integers = {d.name for d in program.data if d.type.is_integer}
    switches = integers - counting

    def chosen(size: Expression) -> Expression:
        while (branches := size.branches) is not None and branches[0].names <= switches:
            try:
                size = branches[1 if branches[0].evaluate(env) else 2]
            except Unevaluable:
                break
        return size

    def with_sizes(declaration: Declaration) -> Declaration:
        kind: StanType = declaration.type
        arrays, own = (tuple(map(chosen, part)) for part in (kind.array_sizes, kind.sizes))
        return replace(declaration, type=replace(kind, array_sizes=arrays, sizes=own))

    return replace(
        program,
        data=tuple(map(with_sizes, program.data)),
        parameters=tuple(map(with_sizes, program.parameters)),
    )


def _counting(size: Expression) -> Iterator[str]:
    """The names of a size that say how many there are, those of conditions left out."""
    if size.branches is None:
        yield from size.names
    else:
        for branch in size.branches[1:]:
            yield from _counting(branch)
