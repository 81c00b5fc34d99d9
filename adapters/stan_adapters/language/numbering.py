"""What integer data number, by the text of a program: `r[J_1[n]]` says that `J_1` numbers what sizes `r`."""

from __future__ import annotations

import functools

from lark import Token, Tree
from lark.exceptions import UnexpectedInput

from stan_adapters.language.program import Program
from stan_adapters.language.statements import Statements, expressions


def numbered_sizes(program: Program) -> dict[str, str]:
    """The declared size, as written, of what each array of integers is an index of; none where there are several.

    Names of a function's arguments count as those of the variables that they are called like.
    """
    return _numbered(program)


@functools.lru_cache(maxsize=32)
def _numbered(program: Program) -> dict[str, str]:
    try:
        statements = Statements.read(program.source)
    except UnexpectedInput:  # not what Stan's compiler accepts: it will say so
        return {}
    dims = {d.name: [size.text for size in d.type.dims] for d in program.declarations}
    integers = {d.name for d in program.data if d.type.is_integer and len(d.type.dims) == 1}
    found: dict[str, set[str]] = {}
    for site in statements.sites:
        for node in expressions(site.node.children):
            if node.data == "indexed":
                for size, name in _pairs(node, dims, integers):
                    found.setdefault(name, set()).add(size)
    return {name: sizes.pop() for name, sizes in found.items() if len(sizes) == 1}


def _pairs(node: Tree[Token], dims: dict[str, list[str]], integers: set[str]) -> list[tuple[str, str]]:
    """Sizes of an indexed variable, each with the array that stands in its place."""
    base, *indices = node.children
    while isinstance(base, Tree) and base.data == "indexed" and all(map(_is_single, base.children[1:])):
        base, *before = base.children  # z[1][g] is z[1, g]
        indices = [*before, *indices]
    if not isinstance(base, Tree) or base.data != "name":
        return []
    sizes = dims.get(str(base.children[0]), [])
    return [
        (size, name)
        for size, index in zip(sizes, indices, strict=False)
        if isinstance(index, Tree) and index.data == "at"
        for name in [_array(index.children[0])]
        if name in integers
    ]


def _is_single(index: object) -> bool:
    """Whether an index is a number of the program's text."""
    number = index.children[0] if isinstance(index, Tree) and index.data == "at" else None
    return isinstance(number, Tree) and number.data == "number"


def _array(index: object) -> str:
    """The name of an array that is an index, whole or in part."""
    while isinstance(index, Tree) and index.data in ("indexed", "parens"):
        index = index.children[0]
    return str(index.children[0]) if isinstance(index, Tree) and index.data == "name" else ""
