"""Transformed data in which what is computed of many numbers at once has a name: `x - mean(x)` becomes `x - mean_x`."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from lark import Token, Tree

from stan_adapters.language.edits import Edit, after, on_one_line, rewritten, start_of, tree_of
from stan_adapters.language.program import Program
from stan_adapters.language.statements import Site, Statements, is_statement

_REDUCTIONS = frozenset(
    {
        "mean",
        "sd",
        "variance",
        "sum",
        "prod",
        "min",
        "max",
        "quantile",
        "norm1",
        "norm2",
        "dot_self",
        "log_sum_exp",
    }
)
_LONGEST = 40  # name


def with_named_reductions(program: Program) -> Program:
    """The program with a variable of its own for each sum, mean, extreme or entry at a fixed place within an expression
    of its transformed data. In a loop it has an entry for each turn. The same program where there are none.

    Raises lark's UnexpectedInput for a program that Stan's compiler does not accept.
    """
    statements = Statements.read(program.source)
    edits: list[Edit] = []
    taken: set[str] = set(re.findall(r"\w+", program.source))
    for site in statements.sites:
        if site.block == "transformed data" and not site.function:
            edits += _named(site, statements, program.source, taken)
    if not edits:
        return program
    return Program.from_source(rewritten(program.source, tuple(edits)), program.name)


def _named(site: Site, statements: Statements, source: str, taken: set[str]) -> Iterator[Edit]:
    node = site.node
    loops = [around for around in site.inside if around.data in ("for", "foreach", "while")]
    if node.data not in ("assignment", "declared") or any(loop.data != "for" for loop in loops):
        return
    outermost = site.inside[0] if site.inside else node
    start = start_of(node)
    found = list(_outermost(node, site, statements))
    for place, reduction in enumerate(found):
        name = _unused(_text(reduction, source), taken)
        taken.add(name)
        begin, end = start_of(reduction), reduction.meta.end_pos
        read = {str(part.children[0]) for part in reduction.iter_subtrees() if part.data == "name"}
        own = [loop for loop in loops if str(loop.children[0]) in read]
        turns, sizes = (
            [str(loop.children[0]) for loop in own],
            [_text(loop.children[2], source) for loop in own],
        )
        array = f"array[{', '.join(sizes)}] " if sizes else ""
        entry = f"{name}[{', '.join(turns)}]" if turns else name
        before = start_of(outermost)
        yield Edit(before, before, f"{array}real {name}; ", (-2, place))
        value = _text(reduction, source)
        opened = "{ " if node.data == "assignment" and place == 0 else ""
        yield Edit(start, start, f"{opened}{entry} = {value}; ", (-1, place))
        yield Edit(begin, end, entry)
    if found and node.data == "assignment":
        yield after(node, " }")


def _outermost(statement: Tree[Token], site: Site, statements: Statements) -> Iterator[Tree[Token]]:
    """The reductions in what a statement assigns that lie in no other one."""
    values = statement.children[2:] if statement.data == "assignment" else statement.children[1:]
    if len(values) == 1 and _is_reduction(values[0], site, statements):
        return  # its target is the name
    waiting = [value for value in values if isinstance(value, Tree)]
    if statement.data == "declared":
        waiting = [one.children[-1] for one in waiting if isinstance(one.children[-1], Tree)]
        waiting = [value for value in waiting if not _is_reduction(value, site, statements)]
    while waiting:
        node = waiting.pop(0)
        if _is_reduction(node, site, statements):
            yield node
        else:
            waiting += [
                child for child in node.children if isinstance(child, Tree) and not is_statement(child)
            ]


def _is_reduction(node: object, site: Site, statements: Statements) -> bool:
    if not isinstance(node, Tree):
        return False
    if node.data == "call" and str(node.children[0]) in _REDUCTIONS:
        kind = statements.kind(node.children[1], site.scope) if len(node.children) > 1 else None
        return kind is None or kind.base != "int"
    if node.data == "indexed":
        return _is_fixed_entry(node, site, statements)
    return False


def _is_fixed_entry(node: Tree[Token], site: Site, statements: Statements) -> bool:
    """Whether a real number is read at a place whose first index is a number of the program's text."""
    whole, *indices = node.children
    kind = statements.kind(whole, site.scope)
    if (
        kind is None
        or kind.base == "int"
        or kind.own_dims is None
        or len(indices) != kind.dims + kind.own_dims
    ):
        return False
    if not all(isinstance(index, Tree) and index.data == "at" for index in indices):
        return False
    first = tree_of(indices[0]).children[0]
    return isinstance(first, Tree) and first.data == "number"


def _unused(text: str, taken: Container[str]) -> str:
    """`mean_x` for `mean(x)`, or a name like it that the program has not."""
    name = re.sub(r"\W+", "_", text).strip("_")[:_LONGEST].strip("_")
    number = 1
    while (found := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    return found


def _text(node: object, source: str) -> str:
    assert isinstance(node, Tree)
    return on_one_line(source[start_of(node) : node.meta.end_pos])
