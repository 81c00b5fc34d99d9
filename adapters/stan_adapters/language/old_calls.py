"""Functions, densities and `lp__` of Stan before version 2.33, under the names of today.

| then | now |
| --- | --- |
| `increment_log_prob(e);` | `target += (e);` |
| `lp__ <- lp__ + e;` | `target += 0 + e;` |
| `get_lp()`, `lp__` | `target()` |
| `normal_log(y, m, s)`, `poisson_log(n, l)` | `normal_lpdf(y | m, s)`, `poisson_lpmf(n | l)` |
| `normal_cdf_log(y, m, s)`, `normal_ccdf_log(y, m, s)` | `normal_lcdf(y | m, s)`, `normal_lccdf(y | m, s)` |
| `normal_cdf(y, m, s)` | `normal_cdf(y | m, s)` |
| a function `foo_log` that stands after `~` | `foo_lpdf` or `foo_lpmf` |
| `y ~ normal_lpdf(m, s)` | `y ~ normal(m, s)` |
| `if_else(c, a, b)` | `((c) ? (a) : (b))` |
| `multiply_log`, `binomial_coefficient_log` | `lmultiply`, `lchoose` |
| `fabs`, `cov_exp_quad` | `abs`, `gp_exp_quad_cov` |
| `reject("..")` without a semicolon | with one |
| `csr_matrix_times_vector2(..);`, `CODOLS(..);`, which rstanarm defines in C++ | defined in Stan |
| a real as a condition, `if (x)` | `if ((x) != 0)` |

`integrate_ode` and its kin, and `lkj_cov`, are Stan still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lark import Token, Tree

from stan_adapters.errors import Location, ProgramError
from stan_adapters.language.distributions import CONTINUOUS, DISCRETE
from stan_adapters.language.edits import Edit, after, before, start_of, tree_of
from stan_adapters.language.statements import Scope, Site, Statements, expressions

type Node = Any  # a tree, a token or None, as the rules of stan.lark say

_RENAMED = {
    "multiply_log": "lmultiply",
    "binomial_coefficient_log": "lchoose",
    "fabs": "abs",
    "get_lp": "target",
    "cov_exp_quad": "gp_exp_quad_cov",
}
# rstanarm's, in C++: a sparse matrix whose columns and starts count from 0, and least squares (of full rank).
_EXTERNAL = {
    "csr_matrix_times_vector2": "array[size({3})] int from_1_{3}; array[size({4})] int from_1_{4}; "
    "for (k in 1:size({3})) from_1_{3}[k] = {3}[k] + 1; for (k in 1:size({4})) from_1_{4}[k] = {4}[k] + 1; "
    "return csr_matrix_times_vector({0}, {1}, {2}, from_1_{3}, from_1_{4}, {5});",
    "CODOLS": "return mdivide_left_spd(crossprod({0}), {0}' * {1});",
}
OLD_NAMES = (  # a pattern: a program without it has none of these
    rf"\b(?:{'|'.join(_RENAMED)}|{'|'.join(_EXTERNAL)}|increment_log_prob|if_else|lp__)\b|_log\s*\(|_log\s*,|_l?c?cdf\s*\(|_lp[dm]f\s*\("
    r"|\bif\b|\bwhile\b|&&|\|\||!(?!=)|\?"
)
_SPLIT = (
    "_lpdf",
    "_lpmf",
    "_lupdf",
    "_lupmf",
    "_cdf",
    "_lcdf",
    "_lccdf",
)  # `f(y | ..)`: what comes before the bar


def old_calls(statements: Statements, code: str, locate: Callable[[int], Location]) -> list[Edit]:
    """The edits of all old calls.

    Args:
        code: the program without comments.
        locate: the place in the user's files, for messages.

    Raises:
        ProgramError: `lp__` is set to something else than a sum that begins with it.
    """
    renamed = _own_densities(statements)
    edits: list[Edit] = []
    for site in statements.sites:
        edits += _statement(site, statements, code, locate)
        if site.node.data == "function" and str(site.node.children[1]) in renamed:
            edits.append(_name(site.node.children[1], renamed[str(site.node.children[1])]))
        reads = site.node.children
        if site.node.data == "assignment" and _is_lp(reads[0]):
            reads = []  # rewritten as a whole
            edits += [
                edit
                for node in expressions(_summands(site))
                for edit in _expression(node, site, statements, code, renamed)
            ]
        for node in expressions(reads):
            edits += _expression(node, site, statements, code, renamed)
    return edits


# ---- Statements --------------------------------------------------------------------------------------------


def _statement(
    site: Site, statements: Statements, code: str, locate: Callable[[int], Location]
) -> Iterator[Edit]:
    node = site.node
    if node.data == "called":
        call = node.children[0]
        if isinstance(call, Tree) and call.data == "call" and call.children[0] == "increment_log_prob":
            yield _name(call.children[0], "target += ")
    elif node.data == "assignment" and _is_lp(node.children[0]):
        target, value = tree_of(node.children[0]), node.children[2]
        first = _first_summand(value)
        if not _is_lp(first) or first is value:
            raise ProgramError(
                "`lp__` can't be set in today's Stan. Write `target += ...` for what is added to it.",
                locate(start_of(target)),
            )
        yield Edit(start_of(target), target.meta.end_pos, "target")
        sign = code.index("=", target.meta.end_pos)
        yield Edit(sign, sign, "+", rank=(1, 0))  # before what is made of `<-`
        yield Edit(start_of(first), first.meta.end_pos, "0")
    elif node.data == "sampling" and (stem := _sampled(str(node.children[1]), statements)):
        yield _name(node.children[1], stem)
    elif node.data in ("if", "while"):
        yield from _condition(node.children[0], site.scope)
    elif node.data == "printed" and code[node.meta.end_pos - 1] != ";":
        yield Edit(node.meta.end_pos, node.meta.end_pos, ";")
    elif node.data == "function" and str(node.children[1]) in _EXTERNAL:
        last = node.meta.end_pos - 1
        if code[last] == ";":
            body = _EXTERNAL[str(node.children[1])].format(*site.scope)
            yield Edit(last, last + 1, f" {{ {body} }}")


def _sampled(name: str, statements: Statements) -> str:
    """The distribution that a density after `~` is of; empty where a distribution stands there."""
    stem, _, suffix = name.rpartition("_")
    if name in statements.results and suffix in ("lpdf", "lpmf", "log"):
        return stem
    known = DISCRETE | CONTINUOUS
    return stem if name not in known and stem in known and suffix in ("lpdf", "lpmf", "log") else ""


def _is_lp(node: Node) -> bool:
    return isinstance(node, Tree) and node.data == "name" and node.children[0] == "lp__"


def _first_summand(value: Node) -> Node:
    while isinstance(value, Tree) and value.data == "binary" and str(value.children[1]) in "+-":
        value = value.children[0]
    return value


def _summands(site: Site) -> list[Node]:
    """What is added to `lp__`."""
    found, value = [], site.node.children[2]
    while isinstance(value, Tree) and value.data == "binary" and str(value.children[1]) in "+-":
        found.append(value.children[2])
        value = value.children[0]
    return found


# ---- Expressions -------------------------------------------------------------------------------------------


def _expression(
    node: Tree[Token], site: Site, statements: Statements, code: str, renamed: dict[str, str]
) -> Iterator[Edit]:
    if _is_lp(node):
        yield _name(node.children[0], "target()")
    elif node.data == "name" and str(node.children[0]) in renamed:  # passed on to another function
        yield _name(node.children[0], renamed[str(node.children[0])])
    elif node.data == "call":
        yield from _call(node, site, statements, code, renamed)
    elif node.data == "ternary":
        yield from _condition(node.children[0], site.scope)
    elif node.data == "unary" and node.children[0] == "!":
        yield from _condition(node.children[1], site.scope)
    elif node.data == "binary" and str(node.children[1]) in ("&&", "||"):
        yield from _condition(node.children[0], site.scope)
        yield from _condition(node.children[2], site.scope)


def _call(
    call: Tree[Token], site: Site, statements: Statements, code: str, renamed: dict[str, str]
) -> Iterator[Edit]:
    name = str(call.children[0])
    arguments = [child for child in call.children[1:] if isinstance(child, Tree)]
    barred = len(arguments) < len(call.children) - 1
    if name in renamed:
        yield _name(call.children[0], renamed[name])
        yield from _bar(call, arguments, code)
    elif name in statements.results:
        if name.endswith(_SPLIT) and not barred:
            yield from _bar(call, arguments, code)
    elif name in _RENAMED:
        yield _name(call.children[0], _RENAMED[name])
        if name == "fabs" and _may_be_integer(
            arguments[0], site.scope
        ):  # `abs` of one is one, `fabs` was real
            yield before(arguments[0], "1.0 * (")
            yield after(arguments[0], ")")
    elif name == "if_else" and len(arguments) == 3:
        yield Edit(start_of(call), start_of(arguments[0]), "((")
        for one, other, sign in ((0, 1, ") ? ("), (1, 2, ") : (")):
            comma = _comma(arguments[one], arguments[other], code)
            spaces = len(code) - comma - 1 - len(code[comma + 1 :].lstrip(" "))
            yield Edit(comma, comma + 1 + spaces, sign)
        yield Edit(call.meta.end_pos - 1, call.meta.end_pos, "))")
        yield from _condition(arguments[0], site.scope)
    elif (modern := _modern_density(name)) is not None and arguments:
        yield _name(call.children[0], modern)
        yield from _bar(call, arguments, code)
    elif name.endswith(_SPLIT) and not barred:
        yield from _bar(call, arguments, code)


def _modern_density(name: str) -> str | None:
    """Today's name of one of Stan's densities or cumulative distributions."""
    for old, new in (("_ccdf_log", "_lccdf"), ("_cdf_log", "_lcdf")):
        if name.endswith(old) and name.removesuffix(old) in DISCRETE | CONTINUOUS:
            return name.removesuffix(old) + new
    stem = name.removesuffix("_log")
    if stem == name:
        return None
    return f"{stem}_lpmf" if stem in DISCRETE else f"{stem}_lpdf" if stem in CONTINUOUS else None


def _own_densities(statements: Statements) -> dict[str, str]:
    """The program's functions that stand after `~` by the suffix `_log`, with their names of today."""
    names = [str(site.node.children[1]) for site in statements.sites if site.node.data == "sampling"]
    stems = {_sampled(name, statements) or name for name in names}
    found = {}
    for site in statements.sites:
        if site.node.data != "function":
            continue
        name = str(site.node.children[1])
        for old, new in (("_ccdf_log", "_lccdf"), ("_cdf_log", "_lcdf"), ("_log", "")):
            if name.endswith(old) and name.removesuffix(old) in stems:
                outcome = next(iter(site.scope.values()), None)
                density = "_lpmf" if outcome is not None and outcome.base == "int" else "_lpdf"
                found[name] = name.removesuffix(old) + (new or density)
    return found


def _bar(call: Tree[Token], arguments: list[Tree[Token]], code: str) -> Iterator[Edit]:
    """A bar behind the first argument."""
    if len(arguments) > 1:
        comma = _comma(arguments[0], arguments[1], code)
        yield Edit(comma, comma + 1, " |")
    elif arguments:
        yield Edit(call.meta.end_pos - 1, call.meta.end_pos - 1, " | ")


def _condition(condition: Node, scope: Scope) -> Iterator[Edit]:
    """A real as a condition is compared with 0."""
    if _number(condition, scope) == "real":
        yield before(condition, "((")
        yield after(condition, ") != 0)")


def _may_be_integer(argument: Node, scope: Scope) -> bool:
    """Whether an expression is an integer, as far as can be told: sums and calls may be."""
    number = _number(argument, scope)
    if number is not None:
        return number == "int"
    while isinstance(argument, Tree) and argument.data in ("parens", "indexed"):
        argument = argument.children[0]
    is_name = isinstance(argument, Tree) and argument.data == "name"
    return not is_name or scope.get(str(argument.children[0])) is None  # what is left of names are containers


def _number(node: Node, scope: Scope) -> str | None:
    """Whether an expression is an "int" or a "real" number, as far as declarations tell."""
    while isinstance(node, Tree) and node.data == "parens":
        node = node.children[0]
    if not isinstance(node, Tree) or node.data not in ("name", "indexed", "number", "unary"):
        return None
    if node.data == "number":
        return "int" if isinstance(node.children[0], Token) and node.children[0].type == "INTEGER" else "real"
    if node.data == "unary":
        return _number(node.children[1], scope) if str(node.children[0]) in "+-" else "int"
    indices = node.children[1:] if node.data == "indexed" else []
    array = node.children[0] if node.data == "indexed" else node
    if not isinstance(array, Tree) or array.data != "name":
        return None
    kind = scope.get(str(array.children[0]))
    if kind is None or kind.own_dims is None or kind.dims + kind.own_dims != len(indices):
        return None
    if any(not _is_one(index, scope) for index in indices):
        return None
    return "int" if kind.base == "int" else "real"


def _is_one(index: Node, scope: Scope) -> bool:
    """Whether an index names one entry."""
    if index.data != "at":
        return False
    return index.children[0].data == "binary" or _number(index.children[0], scope) == "int"


# ---- Text --------------------------------------------------------------------------------------------------


def _name(token: Node, text: str) -> Edit:
    return Edit(int(token.start_pos), int(token.end_pos), text)


def _comma(one: Tree[Token], other: Tree[Token], code: str) -> int:
    return code.index(",", one.meta.end_pos, start_of(other))
