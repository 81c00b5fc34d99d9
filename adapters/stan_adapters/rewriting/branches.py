"""Variables that change in branches which depend on parameters, and whose values decide something later.

stanli 0.24 takes such a variable for what it was before the branch, wherever it needs a number when it compiles: in
conditions, and where integers are computed. What makes it see the branch is a choice between equal values before it,
`v = (condition) ? v : v;`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lark import Token, Tree

from stan_adapters.language.statements import Kind, Site, Statements, expressions, kind_of_type

type Node = Any  # a tree, a token or None, as the rules of stan.lark say

_INTEGERS_OF_REALS = {
    "rank",
    "sort_indices_asc",
    "sort_indices_desc",
    "is_nan",
    "is_inf",
    "int_step",
    "to_int",
}
_BRANCHES, _LOOPS, _BLOCKS = ("if", "while"), ("for", "foreach", "while"), ("block", "profile")
_RUN = frozenset({"transformed parameters", "model", "generated quantities"})


@dataclass(frozen=True, slots=True)
class Stale:
    """A statement before which variables need a choice between equal values.

    Attributes:
        condition: code that depends on parameters and can be evaluated before the statement; empty if there is none.
        variables: names and kinds.
        listed: whether the statement stands among others in a block, so that one more fits in before it.
    """

    statement: Tree[Token]
    condition: str
    variables: tuple[tuple[str, Kind], ...]
    listed: bool


def stale_variables(source: str, statements: Statements) -> Iterator[Stale]:
    """The statements that hide a change from stanli, and those around them."""
    if not any(site.node.data in _BRANCHES for site in statements.sites) and "_rng" not in source:
        return
    for head in statements.sites:
        if head.node.data == "function" and statements.blocks(head) & _RUN:
            body = [site for site in statements.sites if _is_within(site, head)]
            yield from _Unit(source, statements, body, _parameters(head)).stale()
    blocks = [site for site in statements.sites if site.block in _RUN]
    inputs = {
        name
        for site in statements.sites
        if site.node.data == "declared" and site.block == "parameters"
        for name, _ in _changes(site)
    }
    yield from _Unit(source, statements, blocks, inputs).stale()


class _Unit:
    """Statements that run one after another: a function's, or those of the blocks that see parameters."""

    def __init__(self, source: str, statements: Statements, sites: Sequence[Site], inputs: set[str]) -> None:
        self._source = source
        self._statements = statements
        self._sites = sites
        self._inputs = inputs
        self._reads = {id(site.node): _Read.of(site.node.children) for site in sites}
        self._conditions = {
            id(site.node): _Read.of(site.node.children[:1]) for site in sites if site.node.data in _BRANCHES
        }
        self._used = {name for site in sites for name in _used(site)}
        self._leaves = [site for site in sites if site.node.data in ("jump", "return")]
        self._drawn: set[str] = set()
        self._spread(self._from_draws, self._drawn)
        self._drawing = {
            id(around) for site in sites if self._reads[id(site.node)].random for around in site.inside
        }
        self._setting = {id(around) for site in sites if self._draws_integers(site) for around in site.inside}
        self._depend = set(inputs)
        self._spread(self._data_flow, self._depend)
        self._decide: set[str] = set()
        for site in sites:
            self._decide |= self._decisive(site)
        self._spread(self._backwards, self._decide)

    def stale(self) -> Iterator[Stale]:
        sites = {id(site.node): site for site in self._sites}
        outermost: set[int] = set()
        wanted: dict[int, dict[str, Kind]] = {}  # by statement
        for site in self._sites:
            hides = self._hides(site.node) and not any(id(around) in outermost for around in site.inside)
            if hides:
                outermost.add(id(site.node))
            if not hides and id(site.node) not in self._setting:
                continue
            for name, kind in self._hidden(site):
                for around in (site.node, *site.inside):
                    place = sites.get(id(around))
                    if place and self._takes_choices(place) and name in place.scope:
                        wanted.setdefault(id(around), {})[name] = kind
        for key, variables in wanted.items():
            condition = self._condition(sites[key])
            inside = sites[key].inside
            listed = not inside or inside[-1].data in ("block", "profile")
            yield Stale(sites[key].node, condition, tuple(sorted(variables.items())), listed)

    def _takes_choices(self, site: Site) -> bool:
        """Whether choices go before a statement: a branch, a loop, and a block by itself that draws random numbers."""
        if site.node.data not in _BLOCKS:
            return site.node.data in (*_BRANCHES, *_LOOPS)
        return id(site.node) in self._drawing and (not site.inside or site.inside[-1].data == "block")

    def _hidden(self, site: Site) -> Iterator[tuple[str, Kind]]:
        """The variables from outside a statement that change in it and decide something, scalar integers left out."""
        within = (inner for inner in self._sites if any(around is site.node for around in inner.inside))
        for name in sorted({name for inner in within for name, assigned in _changes(inner) if assigned}):
            kind = site.scope.get(name)
            if kind is None or kind == Kind("int", 0):
                continue
            if name in self._decide or (kind.base == "int" and name in self._used):
                yield name, kind

    # ---- What depends on parameters

    def _data_flow(self, site: Site) -> set[str]:
        """Names that a statement makes depend on parameters."""
        if self._varies(self._reads[id(site.node)]) or any(self._hides(around) for around in site.inside):
            return {name for name, _ in _changes(site)}
        return set()

    def _from_draws(self, site: Site) -> set[str]:
        """Names to which a statement gives what comes from random numbers."""
        read = self._reads[id(site.node)]
        return {name for name, _ in _changes(site)} if read.random or read.names & self._drawn else set()

    def _draws_integers(self, site: Site) -> bool:
        return self._makes_integers(site) and bool(self._from_draws(site))

    def _varies(self, read: _Read) -> bool:
        return read.random or bool(read.names & self._depend)

    def _hides(self, node: Tree[Token]) -> bool:
        """Whether parameters decide what runs in a statement: a branch, or a loop that such a branch leaves."""
        if node.data in _BRANCHES and self._varies(self._conditions[id(node)]):
            return True
        return node.data in _LOOPS and any(True for _ in self._leaving(node))

    def _leaving(self, loop: Tree[Token]) -> Iterator[Tree[Token]]:
        """The branches on parameters in which a loop is left, or goes on to its next round."""
        for leave in self._leaves:
            inside = [id(around) for around in leave.inside]
            if id(loop) not in inside:
                continue
            within = leave.inside[inside.index(id(loop)) + 1 :]
            if leave.node.data == "return" or not any(around.data in _LOOPS for around in within):
                branches = (around for around in within if around.data == "if")
                yield from (branch for branch in branches if self._varies(self._conditions[id(branch)]))

    def _condition(self, site: Site) -> str:
        """Code that depends on parameters and can be evaluated before a statement; empty if there is none."""
        terms = []
        if site.function.endswith("_rng"):  # its arguments may all be data
            return "uniform_rng(0, 1) < 2"
        for name in sorted(self._inputs & site.scope.keys()):
            kind = site.scope[name]
            if kind == Kind("real", 0) and not site.function:
                return f"{name} > 0"  # every parameter does
            if kind is not None and kind.own_dims is not None:
                first = f"{name}[{', '.join(['1'] * kind.dims)}]" if kind.dims else name
                term = f"sum({first})" if kind.own_dims else first
                terms.append(f"(num_elements({name}) > 0 ? {term} : 0)" if kind.dims else term)
        return f"{' + '.join(terms)} > 0" if terms else ""

    # ---- What decides

    def _decisive(self, site: Site) -> set[str]:
        """Names whose values decide something in a statement, or become integers."""
        node = site.node
        found = set(self._conditions[id(node)].names) if node.data in _BRANCHES else set()
        if node.data == "for":
            found |= _Read.of(node.children[1:3]).names
        if self._statements.calls(node):  # a `~`
            found |= self._reads[id(node)].names
        for part in expressions(node.children):
            name = str(part.children[0]) if part.data == "call" else ""
            if part.data in ("at", "range"):
                found |= _Read.of(part.children).names
            elif part.data == "ternary":
                found |= _Read.of(part.children[:1]).names
            elif name in _INTEGERS_OF_REALS or self._statements.calls(part) or _is_logical(part):
                found |= _Read.of([part]).names
        return found | (_used(site) if self._makes_integers(site) else set())

    def _makes_integers(self, site: Site) -> bool:
        if site.node.data == "declared":
            kind = kind_of_type(site.node.children[0])
            return kind is not None and kind.base == "int"
        if site.node.data == "return":
            result = self._statements.results.get(site.function)  # None of versions that differ
            return result is None or result.base == "int"
        kinds = [site.scope.get(name) for name, _ in _changes(site)]
        return any(kind is not None and kind.base == "int" for kind in kinds)

    def _backwards(self, site: Site) -> set[str]:
        """Names from which a statement computes one that decides."""
        changed = {name for name, _ in _changes(site)}
        return set(_used(site)) if changed & self._decide else set()

    def _spread(self, step: Callable[[Site], set[str]], names: set[str]) -> None:
        before = -1
        while len(names) != before:
            before = len(names)
            for site in self._sites:
                names |= step(site)


class _Read(NamedTuple):
    """The names in expressions, and whether they call what depends on parameters or random numbers by itself."""

    names: frozenset[str]
    random: bool

    @classmethod
    def of(cls, children: Sequence[Node]) -> _Read:
        names, called = set(), set()
        for node in expressions(children):
            if node.data == "name":
                names.add(str(node.children[0]))
            elif node.data == "call":
                called.add(str(node.children[0]))
        return cls(
            frozenset(names), any(name == "target" or name.endswith(("_rng", "_lp")) for name in called)
        )


def _is_logical(node: Tree[Token]) -> bool:
    return node.data == "binary" and str(node.children[1]) in ("&&", "||")


def _changes(site: Site) -> Iterator[tuple[str, bool]]:
    """The names that a statement declares (False) or assigns to (True)."""
    node = site.node
    if node.data == "declared":
        for declared in node.children[1:]:
            assert isinstance(declared, Tree)
            yield str(declared.children[0]), False
    elif node.data == "assignment":
        yield from ((name, True) for name in sorted(_target(node.children[0])))
    elif node.data in ("for", "foreach"):
        yield str(node.children[0]), False


def _used(site: Site) -> frozenset[str]:
    """The names that a statement reads; what it gives a new value alone is none of them."""
    node = site.node
    if node.data == "assignment" and str(node.children[1]) == "=":
        target, _, value = node.children
        assert isinstance(target, Tree)
        return _Read.of([value, *_indices(target)]).names
    return _Read.of(node.children).names


def _indices(target: Tree[Token]) -> list[Node]:
    return [index for part in target.find_data("indexed") for index in part.children[1:]]


def _target(node: Node) -> set[str]:
    """The variable of `v`, `v[i]` or `v.1`, or those of a tuple."""
    while node.data in ("indexed", "component", "parens"):
        node = node.children[0]
    if node.data == "tuple":
        return {name for child in node.children for name in _target(child)}
    return {str(node.children[0])}


def _parameters(head: Site) -> set[str]:
    """Arguments of a function that may depend on parameters: all but `data` and arrays of integers."""
    found = set()
    for child in head.node.children:
        if isinstance(child, Tree) and child.data == "parameter":
            name = str(child.children[-1])
            kind = head.scope.get(name)
            if "data" not in child.children and kind is not None and not (kind.base == "int" and kind.dims):
                found.add(name)
    return found


def _is_within(site: Site, head: Site) -> bool:
    start, end = head.node.meta.start_pos, head.node.meta.end_pos
    return site.node is not head.node and start <= site.node.meta.start_pos < end
