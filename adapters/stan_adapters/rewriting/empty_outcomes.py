"""Integer outcomes of which there are none: statements about them that are left out where that is so.

A statement about no outcome adds nothing to the density. Stan's compiler makes one statement about a slice of a loop
such as `for (j in (i + 1):n) y[i, j] ~ ...`, so that a loop without a trip is one about no outcome too.
"""

from __future__ import annotations

from collections.abc import Iterator

from lark import Token, Tree

from stan_adapters.language.distributions import DISCRETE
from stan_adapters.language.edits import COPY, Edit, after, before, start_of
from stan_adapters.language.statements import Kind, Site, Statements, expressions

_ONE_OUTCOME = {"multinomial", "multinomial_logit", "dirichlet_multinomial"}  # that is an array
_SUFFIXES = ("_lpmf", "_lupmf", "_lcdf", "_lccdf")
_ARRAY = Kind("int", 1)


def guarded(statements: Statements) -> list[Edit]:
    """The edits that leave out loops without a trip, and statements about arrays of no integers."""
    edits: dict[Edit, None] = {}
    for site in statements.sites:
        if site.block == "data":
            continue
        loop = next(
            (node for node in reversed(site.inside) if node.data in ("for", "foreach", "while")), None
        )
        if (
            loop is not None
            and loop.data == "for"
            and _becomes_a_slice(site.node)
            and _repeatable(loop.children[1:3])
        ):
            edits |= dict.fromkeys(_without_empty_trips(loop))
        edits |= dict.fromkeys(_without_empty_arrays(site, statements))
    return list(edits)


def _becomes_a_slice(node: Tree[Token]) -> bool:
    """Whether Stan's compiler may take a statement of a loop for one about all its trips."""
    if node.data == "sampling":
        return str(node.children[1]) in DISCRETE
    if node.data != "assignment":
        return False
    target, sign, value = node.children
    assert isinstance(target, Tree)
    assert isinstance(value, Tree)
    while value.data == "parens":
        value = value.children[0]
        assert isinstance(value, Tree)
    return target.data == "name" and target.children[0] == "target" and sign == "+=" and _is_density(value)


def _without_empty_trips(loop: Tree[Token]) -> Iterator[Edit]:
    _, low, high, _ = loop.children
    assert isinstance(low, Tree)
    assert isinstance(high, Tree)
    yield before(loop, f"{{ if (({COPY}) <= ", _span(low))
    yield before(loop, f"({COPY})) ", _span(high))
    yield after(loop, " }")


def _without_empty_arrays(site: Site, statements: Statements) -> Iterator[Edit]:
    node = site.node
    if node.data == "sampling" and str(node.children[1]) in DISCRETE - _ONE_OUTCOME:
        outcome = node.children[0]
        if statements.kind(outcome, site.scope) == _ARRAY and _repeatable([outcome]):
            assert isinstance(outcome, Tree)
            yield before(node, f"{{ if (size({COPY}) > 0) ", _span(outcome))
            yield after(node, " }")
    for call in expressions(node.children):
        if not _is_density(call):
            continue
        outcome = call.children[1]
        if statements.kind(outcome, site.scope) == _ARRAY and _repeatable([outcome]):
            assert isinstance(outcome, Tree)
            yield before(call, f"(size({COPY}) > 0 ? ", _span(outcome))
            yield after(call, " : 0)")


def _is_density(node: Tree[Token]) -> bool:
    """Whether an expression is a call of a mass function, or of a cumulative one on the log scale."""
    if node.data != "call" or len(node.children) < 2 or not isinstance(node.children[1], Tree):
        return False
    stem, _, suffix = str(node.children[0]).rpartition("_")
    return f"_{suffix}" in _SUFFIXES and stem in DISCRETE - _ONE_OUTCOME


def _repeatable(nodes: list[Tree[Token] | Token]) -> bool:
    """Whether evaluating expressions once more changes nothing."""
    return not any(
        str(node.children[0]).endswith(("_rng", "_lp"))
        for tree in nodes
        if isinstance(tree, Tree)
        for node in tree.iter_subtrees()
        if node.data == "call"
    )


def _span(node: Tree[Token]) -> tuple[int, int]:
    return start_of(node), node.meta.end_pos
