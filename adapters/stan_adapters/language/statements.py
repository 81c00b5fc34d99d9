"""A program's statements, each with the types of the names that it can see.

Declarations are read by `program`; this is for programs that use what an engine gets wrong. The program has passed
Stan's compiler: what is no Stan is not found here, and no name hides another.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lark import Token, Tree

from stan_adapters.language.grammar import stan_parser

type Node = Any  # a tree, a token or None, as the rules of stan.lark say
type Scope = Mapping[str, Kind | None]

_STATEMENTS = {"declared", "assignment", "sampling", "called", "printed", "block", "profile", "nothing"} | {
    *("if", "for", "foreach", "while", "return", "jump")
}
_VECTORS = ("simplex", "ordered", "positive_ordered", "unit_vector", "sum_to_zero_vector")
_MATRICES = (
    *("cholesky_factor_corr", "cholesky_factor_cov", "corr_matrix", "cov_matrix"),
    *("sum_to_zero_matrix", "row_stochastic_matrix", "column_stochastic_matrix"),
)
_BASES = dict.fromkeys(_VECTORS, "vector") | dict.fromkeys(_MATRICES, "matrix")
_OWN_DIMS = {"int": 0, "real": 0, "vector": 1, "row_vector": 1, "matrix": 2}


class Kind(NamedTuple):
    """A type without its sizes: of `array[,] int` the base is "int" and `dims`, of the array, are 2."""

    base: str
    dims: int

    @property
    def own_dims(self) -> int | None:
        """Dimensions of one entry of the array; None of tuples and complex numbers."""
        return _OWN_DIMS.get(self.base)


class Site(NamedTuple):
    """A statement, or the head of a function.

    Attributes:
        scope: the kinds of the names that it can see; None where only Stan's compiler knows the kind.
        block: the block of the program; "functions" of a function.
        function: the function that it is part of, else "".
        inside: the statements around it, the outermost first.
    """

    node: Tree[Token]
    scope: Scope
    block: str
    function: str = ""
    inside: tuple[Tree[Token], ...] = ()


@dataclass(frozen=True, slots=True)
class Statements:
    """All statements of a program.

    Attributes:
        results: what functions return, by their names; None for `void`, and where versions of a name differ.
        callers: the blocks that call a function, directly or through others, by the function's name.
        code_blocks: the program's blocks by their names, functions left out.
    """

    sites: tuple[Site, ...]
    results: Mapping[str, Kind | None]
    callers: Mapping[str, frozenset[str]]
    code_blocks: Mapping[str, Tree[Token]]

    @classmethod
    def read(cls, source: str) -> Statements:
        """The statements of a program that Stan's compiler accepts. Raises lark's UnexpectedInput on another."""
        return _read(source)  # a program is read for several purposes

    @classmethod
    def _parsed(cls, source: str) -> Statements:
        tree = stan_parser().parse(source, start="statements")
        functions = [
            function
            for part in tree.children
            if isinstance(part, Tree) and part.data == "function_definitions"
            for function in part.children
        ]
        results: dict[str, Kind | None] = {}
        for function in functions:
            assert isinstance(function, Tree)
            kind, name = kind_of_type(function.children[0]), str(function.children[1])
            results[name] = kind if results.get(name, kind) == kind else None
        blocks = {
            " ".join(str(part.children[0]).split()): part
            for part in tree.children
            if isinstance(part, Tree) and part.data == "code_block"
        }
        return cls(tuple(_sites(tree, results)), results, _callers(tree, results), blocks)

    def blocks(self, site: Site) -> frozenset[str]:
        """The blocks in which a statement runs: its own, or those that call its function."""
        return self.callers.get(site.function, frozenset()) if site.function else frozenset({site.block})

    def kind(self, expression: Node, scope: Scope) -> Kind | None:
        """The kind of an expression; None where it takes more than declarations to tell."""
        return _kind(expression, scope, self.results)

    def calls(self, node: Tree[Token]) -> bool:
        """Whether a call or a `~` is of a function of the program, or passes one on, as to `reduce_sum`."""
        passed = [child for child in node.children if isinstance(child, Tree) and child.data == "name"]
        return node.data in ("call", "sampling") and any(
            _called_by(part, self.results) for part in (node, *passed)
        )

    def picks_rows(self, indexed: Node, scope: Scope) -> bool:
        """Whether an expression takes some rows of an array of arrays of numbers, by an array of indices."""
        array, *indices = indexed.children
        kind = _kind(array, scope, self.results)
        return (
            kind is not None
            and kind.dims >= 2
            and kind.own_dims == 0
            and [index.data for index in indices] == ["at"]
            and _is_single(indices[0], scope, self.results) is False
        )


@functools.lru_cache(maxsize=16)
def _read(source: str) -> Statements:
    return Statements._parsed(source)


def is_statement(node: Node) -> bool:
    """Whether a node is a statement."""
    return isinstance(node, Tree) and node.data in _STATEMENTS


def expressions(children: Sequence[Node]) -> Iterator[Tree[Token]]:
    """Every expression among a statement's children, and every part of one; statements within it are left out."""
    for child in children:
        if isinstance(child, Tree) and not is_statement(child):
            yield from child.iter_subtrees()


# ---- Kinds -------------------------------------------------------------------------------------------------


def _kind(expression: Node, scope: Scope, results: Scope) -> Kind | None:
    match expression.data:
        case "name":
            return scope.get(str(expression.children[0]))
        case "parens":
            return _kind(expression.children[0], scope, results)
        case "call":
            return results.get(str(expression.children[0]))
        case "indexed":
            kind = _kind(expression.children[0], scope, results)
            for index in expression.children[1:]:
                single = _is_single(index, scope, results)
                if kind is None or single is None or kind.dims == 0:
                    return None
                kind = kind._replace(dims=kind.dims - single)
            return kind
    return None


def _is_single(index: Node, scope: Scope, results: Scope) -> bool | None:
    """Whether an index names one entry; None where that takes more than declarations to tell."""
    if index.data != "at":
        return False
    expression = index.children[0]
    match expression.data:
        case "number" | "unary" | "binary":  # there is no arithmetic on arrays of integers
            return True
        case "array":
            return False
    kind = _kind(expression, scope, results)
    return None if kind is None else kind.dims == 0


def kind_of_type(tree: Node) -> Kind | None:
    """The kind of a `stan_type` or an `unsized`; None of `void`."""
    if tree.data == "void":
        return None
    base, dims = "tuple", 0
    for child in tree.children:
        if isinstance(child, Token):
            base = str(child)
        elif child is not None and child.data == "array_sizes":
            dims = len(child.children)
        elif child is not None and child.data in ("array_dims", "old_dims"):
            dims += len(child.children) + 1
    return Kind(_BASES.get(base, base), dims)


# ---- Walking over a tree -----------------------------------------------------------------------------------


def _sites(tree: Tree[Token], results: Scope) -> Iterator[Site]:
    scope: Scope = {}
    for part in tree.children:
        assert isinstance(part, Tree)
        if part.data == "code_block":
            block = " ".join(str(part.children[0]).split())
            seen = yield from _list(part.children, Site(part, scope, block), results)
            scope = scope if block == "model" else seen
            continue
        for function in part.children:
            assert isinstance(function, Tree)
            site = Site(function, _parameters(function), "functions", str(function.children[1]))
            yield site
            yield from _list(function.children, site, results)


def _list(nodes: Sequence[Node], around: Site, results: Scope) -> Generator[Site, None, Scope]:
    """Statements one after another. Returns the scope after the last."""
    scope = around.scope
    for node in nodes:
        if not is_statement(node):
            continue
        site = around._replace(node=node, scope=scope)
        yield site
        within = site._replace(inside=(*site.inside, node))
        if node.data == "for":
            within = within._replace(scope={**scope, str(node.children[0]): Kind("int", 0)})
        elif node.data == "foreach":
            entry = _entry(_kind(node.children[1], scope, results))
            within = within._replace(scope={**scope, str(node.children[0]): entry})
        yield from _list(node.children, within, results)
        if node.data == "declared":
            kind = kind_of_type(node.children[0])
            for declared in node.children[1:]:
                name, old_sizes, _ = declared.children
                more = len(old_sizes.children) if old_sizes is not None else 0
                scope = {**scope, str(name): kind and kind._replace(dims=kind.dims + more)}
    return scope


def _entry(kind: Kind | None) -> Kind | None:
    """What a loop over a container gives its variable."""
    if kind is None or kind.own_dims is None:
        return None
    return kind._replace(dims=kind.dims - 1) if kind.dims else Kind("real", 0)


def _parameters(function: Tree[Token]) -> Scope:
    trees = [child for child in function.children if isinstance(child, Tree) and child.data == "parameter"]
    return {str(tree.children[-1]): kind_of_type(tree.children[-2]) for tree in trees}


def _callers(tree: Tree[Token], results: Scope) -> dict[str, frozenset[str]]:
    """Which blocks call a function; a function that is an argument of another counts as called."""
    callers: dict[str, frozenset[str]] = dict.fromkeys(results, frozenset())
    bodies: list[tuple[str, frozenset[str]]] = []
    for part in tree.children:
        assert isinstance(part, Tree)
        if part.data == "code_block":
            block = frozenset({" ".join(str(part.children[0]).split())})
            for name in _called(part, results):
                callers[name] |= block
        else:
            bodies += [
                (str(f.children[1]), frozenset(_called(f, results)))
                for f in part.children
                if isinstance(f, Tree)
            ]
    changed = True
    while changed:
        before = dict(callers)
        for name, called in bodies:
            for other in called:
                callers[other] |= callers[name]
        changed = callers != before
    return callers


_SUFFIXES = ("_lpdf", "_lpmf", "_lupdf", "_lupmf", "_lcdf", "_lccdf", "_cdf")


def _called(tree: Tree[Token], results: Scope) -> set[str]:
    return {name for node in tree.iter_subtrees() for name in _called_by(node, results)}


def _called_by(node: Tree[Token], results: Scope) -> set[str]:
    """The functions of the program that a call, a name or a `~` stands for by itself."""
    if node.data in ("name", "call"):
        name = str(node.children[0]).replace("_lupdf", "_lpdf").replace("_lupmf", "_lpmf")
        return {name} & results.keys()
    if node.data == "sampling":
        return {f"{node.children[1]}{suffix}" for suffix in _SUFFIXES} & results.keys()
    return set()
