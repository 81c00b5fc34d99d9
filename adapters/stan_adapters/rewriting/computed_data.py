"""Programs in which transformed data have become data, and programs that return their transformed data.

What a program computes from all its data at once, such as means by which predictors are centred, has other values for
other data. As an entry of the data block it keeps the values that it is given.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from lark import Token, Tree

from stan_adapters.language.edits import Edit, rewritten, start_of
from stan_adapters.language.program import Declaration, Program, StanType
from stan_adapters.language.statements import Site, Statements, is_statement

_BLOCK = "transformed data"
_OUTPUT = "kept_"


def with_computed_data(program: Program, names: Collection[str]) -> Program:
    """The program with the named transformed data, and those that size them, declared in its data block.

    Statements that assign to them are gone; everything else stays on its line. Whether it is the same density on the
    same data is for the caller to test: a variable may be read while it is being computed.

    Args:
        names: top-level variables of the block `transformed data`, no tuples.

    Raises lark's UnexpectedInput for a program that Stan's compiler does not accept.
    """
    kept = {d.name for d in program.transformed_data if d.name in _with_sizes(program, names)}
    statements = Statements.read(program.source)
    edits = [edit for site in _computing(statements) for edit in _without(site, kept, program.source)]
    declared = " ".join(f"{_declared(program, d, kept)};" for d in program.transformed_data if d.name in kept)
    block, data = statements.code_blocks[_BLOCK], statements.code_blocks.get("data")
    if len(kept) == len(program.transformed_data):  # nothing is left to compute
        edits = [Edit(start_of(block), block.meta.end_pos, "")]
    if data is None:
        edits.append(Edit(start_of(block), start_of(block), f"data {{ {declared} }} "))
    else:
        end = data.meta.end_pos - 1
        edits.append(Edit(end, end, f" {declared} "))
    return Program.from_source(rewritten(program.source, tuple(edits)), program.name)


def with_number_as_data(program: Program, number: str) -> tuple[Program, str]:
    """The program in whose blocks a whole number that its text holds is an entry of the data block, and its name.

    Every place counts: whether all of them mean the same is for the caller to test. Raises as `with_computed_data`.
    """
    name = f"number_{number}"
    while name in program.source:
        name = f"x{name}"
    statements = Statements.read(program.source)
    places = {
        (start_of(node), node.meta.end_pos)
        for block in statements.code_blocks.values()
        for node in block.iter_subtrees()
        if node.data == "number" and str(node.children[0]) == number
    }
    edits = [Edit(start, end, name) for start, end in places]
    data, first = statements.code_blocks.get("data"), next(iter(statements.code_blocks.values()))
    declared = f"int<lower=0> {name};"
    if data is None:
        edits.append(Edit(start_of(first), start_of(first), f"data {{ {declared} }} "))
    else:
        begin = program.source.index("{", start_of(data)) + 1
        edits.append(Edit(begin, begin, f" {declared}"))
    return Program.from_source(rewritten(program.source, tuple(edits)), program.name), name


def returning_computed_data(program: Program) -> tuple[Program, dict[str, str]]:
    """A program without parameters that returns the transformed data as generated quantities, and their names there.

    Tuples are left out. Raises as `with_computed_data`.
    """
    returned = [d for d in program.transformed_data if not d.type.is_tuple]
    stem = _OUTPUT
    while stem in program.source:
        stem = f"x{stem}"
    statements = Statements.read(program.source)
    end = statements.code_blocks[_BLOCK].meta.end_pos
    copies = " ".join(f"{_unbounded(d.type)} {stem}{d.name} = {d.name};" for d in returned)
    source = f"{program.source[:end]} parameters {{ }} model {{ }} generated quantities {{ {copies} }}"
    return Program.from_source(source, program.name), {f"{stem}{d.name}": d.name for d in returned}


def sources_of(program: Program) -> Mapping[str, frozenset[str]]:
    """The data entries from which each of the transformed data may be computed, by the program's text.

    Raises as `with_computed_data`.
    """
    computed = {declaration.name for declaration in program.transformed_data}
    data = {declaration.name for declaration in program.data}
    read: dict[str, set[str]] = {name: set() for name in computed}
    for site in _computing(Statements.read(program.source)):
        names = {name for node in (site.node, *_heads(site)) for name in _read_names(node)}
        for target in _targets(site.node) & computed:
            read[target] |= names
    growing = True
    while growing:
        before = {name: len(found) for name, found in read.items()}
        for found in read.values():
            found |= {name for other in found & computed for name in read[other]}
        growing = before != {name: len(found) for name, found in read.items()}
    return {name: frozenset(found & data) for name, found in read.items()}


def read_outside_data(program: Program) -> frozenset[str]:
    """The words of a program outside its data block: a data entry that is not among them only sizes others, if it does
    anything. Raises as `with_computed_data`.
    """
    block = Statements.read(program.source).code_blocks.get("data")
    start, end = (0, 0) if block is None else (start_of(block), block.meta.end_pos)
    return frozenset(re.findall(r"\w+", program.source[:start] + program.source[end:]))


# ---- Declarations --------------------------------------------------------------------------------------------


def _with_sizes(program: Program, names: Collection[str]) -> set[str]:
    """The names and the transformed data that their sizes mention."""
    computed = {declaration.name: declaration for declaration in program.transformed_data}
    kept, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in computed and name not in kept:
            kept.add(name)
            waiting += [other for size in computed[name].type.dims for other in size.names]
    return kept


def _declared(program: Program, declaration: Declaration, kept: Collection[str]) -> str:
    """The declaration, bounds left out that the data block can't see."""
    seen = {d.name for d in program.data} | set(kept)
    kind = declaration.type
    lower, upper = (
        bound if bound is not None and bound.names <= seen else None for bound in (kind.lower, kind.upper)
    )
    return f"{replace(kind, lower=lower, upper=upper)} {declaration.name}"


def _unbounded(kind: StanType) -> str:
    """The type without bounds: values have been checked against them."""
    return str(replace(kind, lower=None, upper=None))


# ---- Statements ----------------------------------------------------------------------------------------------


def _computing(statements: Statements) -> Iterator[Site]:
    """The statements of the block that declare or assign."""
    for site in statements.sites:
        if site.block == _BLOCK and not site.function and site.node.data in ("declared", "assignment"):
            yield site


def _targets(node: Tree[Token]) -> set[str]:
    if node.data == "declared":
        return {str(one.children[0]) for one in node.children[1:] if isinstance(one, Tree)}
    target = node.children[0]
    while isinstance(target, Tree) and target.data in ("indexed", "component", "parens"):
        target = target.children[0]
    return {str(target.children[0])} if isinstance(target, Tree) and target.data == "name" else set()


def _without(site: Site, kept: Collection[str], source: str) -> Iterator[Edit]:
    """The statement without what it says of the kept variables."""
    node = site.node
    start, end = start_of(node), node.meta.end_pos
    if not _targets(node) & set(kept):
        return
    if node.data == "assignment":
        yield Edit(start, end, "{ }")
        return
    if site.inside:
        return  # a local variable of another block hides no name
    kind = node.children[0]
    assert isinstance(kind, Tree)
    others = [one for one in node.children[1:] if isinstance(one, Tree) and str(one.children[0]) not in kept]
    text = ", ".join(source[start_of(one) : one.meta.end_pos] for one in others)
    yield Edit(start, end, f"{source[start_of(kind) : kind.meta.end_pos]} {text};" if others else "")


def _heads(site: Site) -> Iterator[Tree[Token]]:
    """What decides whether and how often a statement is run."""
    for around in site.inside:
        yield from (child for child in around.children if isinstance(child, Tree) and not is_statement(child))


def _read_names(node: Tree[Token]) -> Iterator[str]:
    return (str(part.children[0]) for part in node.iter_subtrees() if part.data == "name")
