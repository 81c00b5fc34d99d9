"""Programs of Stan before version 2.33, read as what they say in today's syntax.

| then | now |
| --- | --- |
| `real x[N];`, `vector[K] z[J];` | `array[N] real x;`, `array[J] vector[K] z;` |
| `real[,] f(int[] x)` | `array[,] real f(array[] int x)` |
| `x <- y;` | `x = y;` |
| `# comment` | `// comment` |
| variables called `lower`, `upper`, `offset` or `multiplier` | `lower_` .. |
| functions and densities under their old names | `old_calls` |
| what the compiler took for data, or let an assignment read | `old_rules` |

Every change stays on its line, and places in the new text lead back to those in the old. A program without such syntax
is left as it is. Source: Stan's reference manual, "Removed Features", and functions reference, "Removed Functions".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lark import Token, Tree
from lark.exceptions import UnexpectedInput

from stan_adapters.language.edits import Edit, on_one_line, rewritten, start_of, tree_of
from stan_adapters.language.old_calls import OLD_NAMES, old_calls
from stan_adapters.language.old_rules import SOLVERS, data_arguments, own_places
from stan_adapters.language.source_text import Source, syntax_error
from stan_adapters.language.statements import Site, Statements

_WORD = re.compile(
    r'//[^\n]*|/\*.*?\*/|"[^"\n]*"|(?P<hash>#[^\n]*)|(?P<arrow><-)|(?P<assign>(?<![<>=!])=(?!=)|\breturn\b)'
    r"|(?P<open>[(\[])|(?P<close>[)\]])|(?P<end>[;{}])",
    re.DOTALL,
)
_SKIPPED = re.compile(r'//[^\n]*|/\*.*?\*/|"[^"\n]*"', re.DOTALL)
RESERVED_SINCE = (
    "lower",
    "upper",
    "offset",
    "multiplier",
)  # names of variables once, words of the language now
_RESERVED = re.compile(rf"\b(?:{'|'.join(RESERVED_SINCE)})\b(?!\s*\()")
_TYPES = (
    "int|real|complex|(?:complex_)?(?:row_)?vector|(?:complex_)?matrix|simplex|(?:positive_)?ordered|unit_vector|tuple"
    "|cholesky_factor_co(?:v|rr)|co(?:v|rr)_matrix|sum_to_zero_(?:vector|matrix)|(?:row|column)_stochastic_matrix"
)
_OLD_ARRAYS = re.compile(  # `int x[`, `vector[K] z[`, `real[,] x`
    rf"\b(?:int|real)\b\s*(?:<[^;{{}}]*>)?\s*[A-Za-z]\w*\s*\[|\]\s*(?!(?:{_TYPES})\b)[A-Za-z]\w*\s*\["
    r"|\b(?:int|real|vector|row_vector|matrix)\s*\[[\s,]*\]"
)
# Otherwise it takes the parser to tell: `, y[3];` after a type, and what `old_calls` looks at.
_PERHAPS = re.compile(rf",\s*\w+\s*\[[^;\]]*\]\s*[,;=]|\b(?:{'|'.join(SOLVERS)})\b|{OLD_NAMES}")


def modernized(source: Source) -> Source:
    """A program in today's syntax; the same object where it is in it already.

    Raises:
        ProgramError: a program of the old syntax with an error of syntax, or with what today's Stan can't say.
    """
    edits, code = _words(source.text)
    named = _reserved_names(code)
    old = bool(edits) or _OLD_ARRAYS.search(code) is not None
    if not old and not named and _PERHAPS.search(code) is None:
        return source
    try:
        statements = Statements.read(code)
    except UnexpectedInput as error:
        if not old:
            return source
        raise syntax_error(error, source) from None
    except RecursionError:
        return source
    edits += old_calls(statements, code, source.locate)
    edits += [*data_arguments(statements), *(own_places(statements, code) if old else ())]
    declared = {name for site in statements.sites for name in _names(site)}
    edits += [
        Edit(end, end, "_", (-1, 0))
        for name, end in named
        if name in declared and not re.search(rf"\b{name}_\b", code)
    ]
    edits = _declarations(statements, code, edits)
    return source.edited(edits) if edits else source


def _words(text: str) -> tuple[list[Edit], str]:
    """The edits of comments with `#` and of `<-`; and the text for the parser: with them, without comments, as long."""
    edits: list[Edit] = []
    code = list(text)
    depth, assigned = 0, False
    for word in _WORD.finditer(text):
        start, end = word.span()
        match word.lastgroup:
            case "hash":
                edits.append(Edit(start, start + 1, "//"))
                code[start:end] = " " * (end - start)
            case "arrow" if not depth and not assigned:
                edits.append(Edit(start, end, "="))
                code[start:end] = "= "
                assigned = True
            case "assign":
                assigned = assigned or not depth
            case "open":
                depth += 1
            case "close":
                depth -= 1
            case "end":
                depth, assigned = 0, False
    return edits, _SKIPPED.sub(_blank, "".join(code))


def _blank(found: re.Match[str]) -> str:
    """Spaces for a comment, which keep its lines; a string keeps its quotes."""
    if found[0].startswith('"'):
        return f'"{" " * (len(found[0]) - 2)}"'
    return re.sub(r"[^\n]", " ", found[0])


# ---- Names -------------------------------------------------------------------------------------------------


def _reserved_names(code: str) -> list[tuple[str, int]]:
    """Words of today's language that stand where a name does, each with its end."""
    found = []
    for word in _RESERVED.finditer(code):
        is_bound = re.match(r"\s*=(?!=)", code[word.end() :]) and code[: word.start()].rstrip()[-1:] in (
            "<",
            ",",
        )
        if not is_bound:
            found.append((word[0], word.end()))
    return found


def _names(site: Site) -> Iterator[str]:
    """The variables that a statement, or the head of a function, brings in."""
    node = site.node
    if node.data == "declared":
        yield from (str(declared.children[0]) for declared in node.children[1:] if isinstance(declared, Tree))
    elif node.data == "function":
        yield from site.scope
    elif node.data in ("for", "foreach"):
        yield str(node.children[0])


# ---- Arrays ------------------------------------------------------------------------------------------------


def _declarations(statements: Statements, code: str, edits: Sequence[Edit]) -> list[Edit]:
    """The edits of a program and those of its old arrays, which take the edits within their sizes along."""
    kept = list(edits)
    for site in statements.sites:
        if site.node.data == "declared":
            kept = _declared(site.node, code, kept)
        elif site.node.data == "function":
            kept += _function(site.node, code)
    return kept


def _function(function: Tree[Token], code: str) -> Iterator[Edit]:
    """`real[,] f(int[] x)` becomes `array[,] real f(array[] int x)`."""
    for unsized in function.find_data("unsized"):
        old = unsized.children[-1]
        if isinstance(old, Tree) and old.data == "old_dims":
            start, end = start_of(old), old.meta.end_pos
            dims = "".join(code[start:end].split())
            yield Edit(start_of(unsized), start_of(unsized), f"array{dims} ")
            yield Edit(start, end, "")


def _declared(node: Tree[Token], code: str, edits: list[Edit]) -> list[Edit]:
    """`vector[2] x[3], y;` becomes `array[3] vector[2] x; vector[2] y;`."""
    stan_type, *declarators = node.children
    assert isinstance(stan_type, Tree)
    sizes = [tree_of(declarator).children[1] for declarator in declarators]
    if not any(isinstance(size, Tree) for size in sizes):
        return edits
    type_start, type_end = start_of(stan_type), stan_type.meta.end_pos
    array = next((child for child in stan_type.children if isinstance(child, Tree)), None)
    prefix = ""  # sizes of an `array[..]` in front of the type, too
    if array is not None and array.data == "array_sizes":
        prefix = code[start_of(tree_of(array.children[0])) : tree_of(array.children[-1]).meta.end_pos]
        type_start = array.meta.end_pos
    element = _copied(code, edits, type_start, type_end)
    added: list[Edit] = []
    dropped: list[tuple[int, int]] = []
    for number, (declarator, size) in enumerate(zip(declarators, sizes, strict=True)):
        assert isinstance(declarator, Tree)
        dims = prefix
        if isinstance(size, Tree):
            inner = start_of(tree_of(size.children[0])), tree_of(size.children[-1]).meta.end_pos
            dims = ", ".join(filter(None, [_copied(code, edits, *inner), prefix]))
            dropped.append((start_of(size), size.meta.end_pos))
        text = f"array[{dims}] " if dims else ""
        if number == 0:
            added.append(Edit(start_of(stan_type), type_start, text.rstrip() if prefix else text))
            continue
        before = tree_of(declarators[number - 1]).meta.end_pos
        comma = code.index(",", before)
        added.append(Edit(comma, comma + 1, f"; {text}{element}"))
    kept = [
        edit for edit in edits if not any(start < edit.end and edit.start < end for start, end in dropped)
    ]
    return kept + added + [Edit(start, end, "") for start, end in dropped]


def _copied(code: str, edits: Sequence[Edit], start: int, end: int) -> str:
    """Code between two places on one line, with the edits within."""
    inner = [
        edit._replace(start=edit.start - start, end=edit.end - start)
        for edit in edits
        if start <= edit.start and edit.end <= end
    ]
    return on_one_line(rewritten(code[start:end], inner))
