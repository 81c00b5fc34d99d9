"""What is done about a fault of an engine: the program rewritten, or the places that are refused.

Every remedy reads a program that Stan's compiler accepts. What it writes means the same, on the same lines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lark import Token, Tree

from stan_adapters.language.edits import (
    COPY,
    Edit,
    after,
    before,
    on_one_line,
    rewritten,
    start_of,
    tree_of,
    unused,
)
from stan_adapters.language.statements import Kind, Site, Statements, expressions
from stan_adapters.rewriting.branches import stale_variables
from stan_adapters.rewriting.empty_outcomes import guarded
from stan_adapters.rewriting.engine_faults import Fault

type Accepts = Callable[[str], bool]  # whether Stan's compiler accepts a program

_PREPARED = frozenset({"data", "transformed data", "parameters", "generated quantities"})
_RUN = frozenset({"transformed parameters", "model", "generated quantities"})


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is to be done.

    Attributes:
        functions: Stan code of functions that the edits call.
        refused: places that can't be rewritten.
    """

    edits: tuple[Edit, ...] = ()
    functions: str = ""
    refused: tuple[int, ...] = ()


def remedy(fault: Fault, source: str, statements: Statements, accepts: Accepts) -> Remedy:
    """What a fault makes necessary in a program; an empty `Remedy` where it is not concerned."""
    return _REMEDIES[fault.remedy](fault, source, statements, accepts)


# ---- Statements --------------------------------------------------------------------------------------------


def _integer_rows(_: Fault, source: str, statements: Statements, __: Accepts) -> Remedy:
    """`a[i] = row;` becomes `a[i, ] = row;`."""
    edits = []
    for site in statements.sites:
        if site.node.data != "assignment" or str(site.node.children[1]) != "=":
            continue
        target = site.node.children[0]
        assert isinstance(target, Tree)
        one_index = target.data == "indexed" and len(target.children) == 2
        if one_index and statements.kind(target.children[0], site.scope) == Kind("int", 2):
            bracket = target.meta.end_pos - 1
            edits.append(Edit(bracket, bracket, ", "))
    return Remedy(tuple(edits))


def _chosen_rows(_: Fault, source: str, statements: Statements, __: Accepts) -> Remedy:
    """`rows[which]` becomes `rows[which, ]` where an array of arrays is read at several indices."""
    edits = []
    for site in statements.sites:
        if not statements.blocks(site) & _RUN:
            continue
        read = site.node.children[1:] if site.node.data == "assignment" else site.node.children
        for node in expressions(read):
            if node.data == "indexed" and statements.picks_rows(node, site.scope):
                bracket = node.meta.end_pos - 1
                edits.append(Edit(bracket, bracket, ", "))
    return Remedy(tuple(edits))


def _deep_entries(_: Fault, source: str, statements: Statements, __: Accepts) -> Remedy:
    """`y[i, j, k]` becomes `y[i][j][k]` where it is an integer."""
    edits = []
    for site in statements.sites:
        if not statements.blocks(site) & _RUN:
            continue
        target = site.node.children[0] if site.node.data == "assignment" else None
        for node in expressions(site.node.children):
            if (
                node.data != "indexed"
                or statements.kind(node, site.scope) != Kind("int", 0)
                or node is target
            ):
                continue
            array, *indices = (child for child in node.children if isinstance(child, Tree))
            if _root_dims(array, statements, site) > 2:
                edits += [
                    Edit(one.meta.end_pos, start_of(other), "][")
                    for one, other in itertools.pairwise(indices)
                ]
    return Remedy(tuple(edits))


def _root_dims(array: Tree[Token], statements: Statements, site: Site) -> int:
    """Dimensions of the array that an expression such as `y[i][j]` takes entries of."""
    while array.data in ("indexed", "parens"):
        inner = array.children[0]
        assert isinstance(inner, Tree)
        array = inner
    kind = statements.kind(array, site.scope)
    return 0 if kind is None else kind.dims


def _loops_over_containers(_: Fault, source: str, statements: Statements, accepts: Accepts) -> Remedy:
    """`for (row in rows) ...` becomes `for (i in 1:size(rows)) { array[dims(rows)[2]] int row = rows[i]; ... }`."""
    edits: list[Edit] = []
    refused = []
    for site in statements.sites:
        if site.node.data != "foreach" or not statements.blocks(site) & _PREPARED:
            continue
        name, container, body = site.node.children
        assert isinstance(name, Token)
        assert isinstance(container, Tree)
        assert isinstance(body, Tree)
        kind = statements.kind(container, site.scope)
        if kind is None or kind.own_dims is None:
            if not _has_numbers_as_entries(container, source, accepts):
                refused.append(start_of(site.node))
        elif kind.dims + kind.own_dims > 1 and kind.dims > 0:
            if not _stays(container, body):
                refused.append(start_of(site.node))
                continue
            position = unused(f"position_{len(edits)}", source)
            begin, end = start_of(container), container.meta.end_pos
            declared = _declared(kind, COPY, str(name))
            edits += [
                Edit(int(name.start_pos or 0), begin, f"{position} in 1:size("),
                Edit(end, end, ")"),
                before(body, f"{{ {declared} = {COPY}[{position}]; ", (begin, end)),
                after(body, " }"),
            ]
    return Remedy(tuple(edits), refused=tuple(refused))


def _declared(kind: Kind, container: str, name: str) -> str:
    """The declaration of one entry of a container of that kind."""
    assert kind.own_dims is not None
    sizes = [f"dims({container})[{axis}]" for axis in range(2, kind.dims + kind.own_dims + 1)]
    array, own = sizes[: kind.dims - 1], sizes[kind.dims - 1 :]
    return (
        (f"array[{', '.join(array)}] " if array else "")
        + kind.base
        + (f"[{', '.join(own)}]" if own else "")
        + f" {name}"
    )


def _has_numbers_as_entries(container: Tree[Token], source: str, accepts: Accepts) -> bool:
    """Whether the entries are numbers, as Stan's compiler sees it."""
    probe = unused("entries", source)
    types = ("array[] int", "array[] real", "vector", "row_vector", "matrix")
    code = " ".join(f"{one} {probe}({one} x) {{ return x; }}" for one in types)
    start, end = start_of(container), container.meta.end_pos
    return accepts(rewritten(source, (Edit(start, end, f"{probe}({source[start:end]})"),), code))


def _stays(container: Tree[Token], body: Tree[Token]) -> bool:
    """Whether a container, evaluated again for each of its entries, is the same each time."""
    if container.data == "name":
        return True  # Stan itself reads the entries of a variable one after another
    names = {str(node.children[0]) for node in container.iter_subtrees() if node.data in ("name", "call")}
    changed = {
        str(target.children[0])
        for node in body.iter_subtrees()
        if node.data == "assignment"
        for target in tree_of(node.children[0]).iter_subtrees()
        if target.data == "name"
    }
    return not names & changed and not any(name.endswith(("_rng", "_lp")) for name in names)


def _return_in_while(_: Fault, source: str, statements: Statements, __: Accepts) -> Remedy:
    """A `return` within `while` becomes a `break`, and what it returns is returned after the loop."""
    edits: dict[Edit, None] = {}
    refused = []
    for site in statements.sites:
        loops = [around for around in site.inside if around.data in ("for", "foreach", "while")]
        outer = next((loop for loop in loops if loop.data == "while"), None)
        if site.node.data != "return" or outer is None or not statements.blocks(site) & _RUN:
            continue
        kind, value = statements.results.get(site.function), site.node.children[0]
        if kind is None or kind.base not in ("int", "real") or kind.dims or not isinstance(value, Tree):
            refused.append(start_of(site.node))
            continue
        left, result = (f"{unused(stem, source)}_{start_of(outer)}" for stem in ("left", "result"))
        changes = [
            Edit(start_of(site.node), start_of(value), f"{{ {result} = "),
            after(site.node, f" {left} = 1; break; }}"),
            *_left_with(outer, site.inside, f"int {left} = 0; {kind.base} {result} = 0;", left, result),
        ]
        for loop in loops[loops.index(outer) + 1 :]:  # each is left in turn
            changes += [before(loop, "{ "), after(loop, f" if ({left}) break; }}")]
        edits |= dict.fromkeys(changes)
    return Remedy(tuple(edits), refused=tuple(refused))


def _left_with(
    loop: Tree[Token], inside: tuple[Tree[Token], ...], declared: str, left: str, result: str
) -> Iterator[Edit]:
    """What stands before and after a loop that may have been left with a result."""
    body = inside[0].children  # of the function
    rest = body[[node is loop for node in body].index(True) + 1 :] if inside[1] is loop else [None, None]
    if not rest:
        yield before(loop, f"{declared} ")
        yield after(loop, f" return {result};")
    elif len(rest) == 1 and isinstance(rest[0], Tree) and rest[0].data == "return":
        last, (value,) = rest[0], rest[0].children
        assert isinstance(value, Tree)
        yield before(loop, f"{declared} ")
        yield Edit(start_of(last), start_of(value), f"if (!{left}) {result} = ")
        yield after(last, f" return {result};")
    else:
        yield before(loop, f"{{ {declared} ")
        yield after(loop, f" if ({left}) return {result}; }}")


def _stale_variables(_: Fault, source: str, statements: Statements, __: Accepts) -> Remedy:
    """`v = (condition) ? v : v;` before a branch on parameters that changes a variable which decides later."""
    edits: list[Edit] = []
    refused = []
    for stale in stale_variables(source, statements):
        condition = on_one_line(stale.condition)
        if not condition or any(kind.own_dims is None for _, kind in stale.variables):
            refused.append(start_of(stale.statement))
            continue
        index = unused("entry", source)
        choices = [
            f"{name} = ({condition}) ? {name} : {name};"
            if kind.dims != 1
            else f"for ({index} in 1:size({name})) {name}[{index}] = ({condition}) ? {name}[{index}] : {name}[{index}];"
            for name, kind in stale.variables
        ]
        text = " ".join(choices)
        if stale.listed:
            edits.append(before(stale.statement, f"{text} "))
        else:
            edits += [before(stale.statement, f"{{ {text} "), after(stale.statement, " }")]
    return Remedy(tuple(edits), refused=tuple(refused))


def _early_void_return(_: Fault, source: str, statements: Statements, __: Accepts) -> Remedy:
    """`if (condition) return; rest` becomes `if (condition) { } else { rest }`; elsewhere an `int` says to go on."""
    edits: list[Edit] = []
    refused: list[int] = []
    left_from: set[int] = set()  # statements of a function, by their places
    for site in statements.sites:
        if (
            site.node.data != "return"
            or site.node.children[0] is not None
            or not statements.blocks(site) & _RUN
        ):
            continue
        body, *between = site.inside
        last = _is_last(site.node, between)
        if last and body.children[-1] is (between[0] if between else site.node):
            continue  # at the end it does nothing
        if not last or not between:
            refused.append(start_of(site.node))
            continue
        outer = between[0]
        end = Edit(body.meta.end_pos - 1, body.meta.end_pos - 1, " }")
        if _ends_a_branch(site.node, between):
            otherwise = [child for child in outer.children[2:] if isinstance(child, Tree)]
            edits.append(Edit(start_of(site.node), site.node.meta.end_pos, "{ }"))
            edits.append(before(otherwise[0], "{ ") if otherwise else after(outer, " else {"))
            edits.append(end)
            continue
        left = f"{unused('left', source)}_{start_of(outer)}"
        edits.append(Edit(start_of(site.node), site.node.meta.end_pos, f"{left} = 1;"))
        if start_of(outer) not in left_from:
            left_from.add(start_of(outer))
            edits += [before(outer, f"int {left} = 0; "), after(outer, f" if (!{left}) {{"), end]
    return Remedy(tuple(edits), refused=tuple(refused))


def _is_last(node: Tree[Token], between: list[Tree[Token]]) -> bool:
    """Whether nothing follows a statement within those around it, which are blocks and branches."""
    for around in reversed(between):
        if around.data not in ("if", "block", "profile"):
            return False
        if around.data == "block" and around.children[-1] is not node:
            return False
        node = around
    return True


def _ends_a_branch(node: Tree[Token], between: list[Tree[Token]]) -> bool:
    """Whether a statement is all or the end of what an `if` does, `between` being the statements around it."""
    if not between or between[0].data != "if":
        return False
    then = between[0].children[1]
    if len(between) == 1:
        return then is node
    return len(between) == 2 and then is between[1] and then.data == "block" and then.children[-1] is node


def _empty_outcomes(_: Fault, source: str, statements: Statements, __: Accepts) -> Remedy:
    """`for (i in a:b) y[i] ~ ...` becomes `if (a <= b) for ...`; so with arrays of no outcomes."""
    return Remedy(tuple(guarded(statements)))


def _summed_slices(_: Fault, source: str, statements: Statements, __: Accepts) -> Remedy:
    """`reduce_sum(f, y[1], ..)` becomes `array[size(y[1])] int slice = y[1]; .. reduce_sum(f, slice, ..)`."""
    edits = []
    for site in statements.sites:
        for call in expressions(site.node.children):
            if call.data != "call" or call.children[0] not in ("reduce_sum", "reduce_sum_static"):
                continue
            summed = call.children[2]
            assert isinstance(summed, Tree)
            if summed.data == "name" or statements.kind(summed, site.scope) != Kind("int", 1):
                continue
            start, end = start_of(summed), summed.meta.end_pos
            name, code = f"{unused('slice', source)}_{start}", on_one_line(source[start:end])
            declared = f"array[size({code})] int {name} = {code};"
            edits.append(Edit(start, end, name))
            if site.node.data == "declared":
                edits.append(before(site.node, f"{declared} "))
            else:
                edits += [before(site.node, f"{{ {declared} "), after(site.node, " }")]
    return Remedy(tuple(edits))


# ---- Functions ---------------------------------------------------------------------------------------------


def _function(fault: Fault, source: str, statements: Statements, accepts: Accepts) -> Remedy:
    """Calls with the arguments in question go to Stan code instead."""
    edits: list[Edit] = []
    needed: dict[str, str] = {}
    for function in fault.functions:
        for edit, code in _matching(function, fault, source, statements, accepts):
            edits.append(edit)
            needed[function] = code
    return Remedy(tuple(edits), "\n".join(needed.values()))


def _unless(fault: Fault, source: str, statements: Statements, accepts: Accepts) -> Remedy:
    """Calls with other arguments than those that are right are refused."""
    refused = []
    for function in fault.functions:
        right = {edit.start for edit, _ in _matching(function, fault, source, statements, accepts)}
        refused += [place for place in _calls(function, fault, statements) if place not in right]
    return Remedy(refused=tuple(refused))


def _matching(
    function: str, fault: Fault, source: str, statements: Statements, accepts: Accepts
) -> Iterator[tuple[Edit, str]]:
    """The calls whose arguments are those of the fault's code, as Stan's compiler sees them, and that code."""
    prefix = unused("exact", source)
    code = fault.code.replace("{name}", f"{prefix}_{function}").replace("{function}", function)
    for place in _calls(function, fault, statements):
        edit = Edit(place, place, f"{prefix}_")
        if accepts(rewritten(source, (edit,), code)):
            yield edit, code


def _calls(function: str, fault: Fault, statements: Statements) -> list[int]:
    """Where a function is called, or its distribution stands after `~`."""
    names = {function, function.replace("_lpdf", "_lupdf").replace("_lpmf", "_lupmf")}
    found = set()
    for site in statements.sites:
        if fault.blocks and not statements.blocks(site) & set(fault.blocks):
            continue
        tokens = [node.children[0] for node in expressions(site.node.children) if node.data == "call"]
        called = [token for token in tokens if token in names]
        if site.node.data == "sampling" and function != _stem(function):
            called += [token for token in site.node.children[1:2] if token == _stem(function)]
        found |= {int(token.start_pos or 0) for token in called if isinstance(token, Token)}
    return sorted(found)


def _stem(function: str) -> str:
    return function.removesuffix("_lpdf").removesuffix("_lpmf")


_REMEDIES: dict[str, Callable[[Fault, str, Statements, Accepts], Remedy]] = {
    "integer_rows": _integer_rows,
    "chosen_rows": _chosen_rows,
    "deep_entries": _deep_entries,
    "loops_over_containers": _loops_over_containers,
    "return_in_while": _return_in_while,
    "stale_variables": _stale_variables,
    "early_void_return": _early_void_return,
    "empty_outcomes": _empty_outcomes,
    "summed_slices": _summed_slices,
    "function": _function,
    "unless": _unless,
}
