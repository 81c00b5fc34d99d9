"""What Stan's compiler took for granted once, said as it wants to hear it today.

| then | now |
| --- | --- |
| a function's argument that is handed to a solver as data: `real[] x_r` | `data array[] real x_r` |
| a place that is computed from what is assigned to: `x[cols(x)] = 0;` | `{ int place = cols(x); x[place] = 0; }` |
"""

from __future__ import annotations

from collections.abc import Iterator

from lark import Token, Tree

from stan_adapters.language.edits import Edit, after, before, on_one_line, start_of, tree_of, unused
from stan_adapters.language.statements import Site, Statements, expressions

# Which arguments have to be data, counted from 0.
_DATA = {
    **dict.fromkeys(
        ("integrate_ode", "integrate_ode_rk45", "integrate_ode_bdf", "integrate_ode_adams"), (5, 6, 7, 8, 9)
    ),
    **dict.fromkeys(("algebra_solver", "algebra_solver_newton"), (3, 4, 5, 6, 7)),
}
SOLVERS = tuple(_DATA)


def data_arguments(statements: Statements) -> Iterator[Edit]:
    """The edits of functions that hand arguments of their own to a solver as data, or to another such function."""
    functions = [site for site in statements.sites if site.node.data == "function"]
    parameters = {str(site.node.children[1]): _parameters(site) for site in functions}
    needed: dict[str, set[int]] = {name: set(places) for name, places in _DATA.items()}
    calls = [
        (site.function, call)
        for site in statements.sites
        if site.function and site.node.data != "function"
        for call in expressions(site.node.children)
        if call.data == "call"
    ]
    growing = True
    while growing:
        growing = False
        for function, call in calls:
            arguments = [child for child in call.children[1:] if isinstance(child, Tree)]
            names = [str(parameter.children[-1]) for parameter in parameters[function]]
            for place in needed.get(str(call.children[0]), ()):
                root = _root(arguments[place]) if place < len(arguments) else ""
                own = names.index(root) if root in names else None
                if own is not None and own not in needed.setdefault(function, set()):
                    needed[function].add(own)
                    growing = True
    for site in functions:
        declared = zip(_parameters(site), site.scope.values(), strict=True)
        for place, (parameter, kind) in enumerate(declared):  # of every version of a name
            if place not in needed.get(str(site.node.children[1]), ()):
                continue
            if parameter.children[0] is None and kind is not None and kind.base != "int":
                yield before(parameter, "data ")


def own_places(statements: Statements, code: str) -> Iterator[Edit]:
    """The edits of assignments whose target is read to tell the place in it."""
    for site in statements.sites:
        if site.node.data != "assignment":
            continue
        target = tree_of(site.node.children[0])
        found = [
            expression
            for index in target.children[1:]
            if target.data == "indexed" and isinstance(index, Tree) and index.data == "at"
            for expression in (tree_of(index.children[0]),)
            if _root(target) in {str(n.children[0]) for n in expression.iter_subtrees() if n.data == "name"}
        ]
        for expression in found:
            start, end = start_of(expression), expression.meta.end_pos
            name = f"{unused('place', code)}_{start}"
            yield before(site.node, f"{{ int {name} = {on_one_line(code[start:end])}; ")
            yield Edit(start, end, name)
            yield after(site.node, " }")


def _parameters(site: Site) -> list[Tree[Token]]:
    return [child for child in site.node.children if isinstance(child, Tree) and child.data == "parameter"]


def _root(expression: object) -> str:
    """The variable that an expression is, or takes a part of."""
    while isinstance(expression, Tree) and expression.data in ("indexed", "parens"):
        expression = expression.children[0]
    is_name = isinstance(expression, Tree) and expression.data == "name"
    return str(expression.children[0]) if is_name and isinstance(expression, Tree) else ""
