"""A Stan program as its declarations: names, types, symbolic sizes and bounds, with `#include` expanded.

The grammar (`stan.lark`) reads declarations exactly and skips statements; the engine's compiler reads those.
"""

from __future__ import annotations

import bisect
import difflib
import enum
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lark import Token, Tree
from lark.exceptions import UnexpectedInput, UnexpectedToken
from lark.lexer import PatternStr

from .errors import Location, ProgramError
from .expressions import Expression
from .grammar import stan_parser
from .names import nearest
from .text_files import UnreadableFile, read_text

type StrPath = str | os.PathLike[str]
type Node = Any  # a tree, a token or None, as the rules of stan.lark say


class Block(enum.StrEnum):
    """The blocks that declare variables."""

    DATA = "data"
    TRANSFORMED_DATA = "transformed data"
    PARAMETERS = "parameters"
    TRANSFORMED_PARAMETERS = "transformed parameters"
    GENERATED_QUANTITIES = "generated quantities"


_SQUARE = frozenset({"cov_matrix", "corr_matrix", "cholesky_factor_corr", "cholesky_factor_cov"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StanType:
    """A declared type. `str(...)` is Stan syntax: `array[J] vector<lower=0>[K]`."""

    base: str  # "int", "real", "vector", "simplex", ..., "tuple"
    array_sizes: tuple[Expression, ...] = ()  # outermost first
    sizes: tuple[Expression, ...] = ()  # the container's own, as written: a cov_matrix has one
    lower: Expression | None = None
    upper: Expression | None = None
    offset: Expression | None = None
    multiplier: Expression | None = None
    elements: tuple[StanType, ...] = ()  # components of a tuple

    @property
    def is_integer(self) -> bool:
        return self.base == "int"

    @property
    def is_complex(self) -> bool:
        return self.base.startswith("complex")

    @property
    def is_tuple(self) -> bool:
        return self.base == "tuple"

    @property
    def element(self) -> StanType:
        """The type without its array dimensions."""
        return replace(self, array_sizes=())

    @property
    def own_dims(self) -> tuple[Expression, ...]:
        """Dimensions of one element: none for a scalar, one for a vector, two for a matrix."""
        return self.sizes * 2 if self.base in _SQUARE and len(self.sizes) == 1 else self.sizes

    @property
    def dims(self) -> tuple[Expression, ...]:
        """Array dimensions, then the element's own: the order of a numpy array that holds the value."""
        return self.array_sizes + self.own_dims

    @property
    def names(self) -> frozenset[str]:
        """Every variable that the sizes and bounds mention."""
        bounds = [
            bound for bound in (self.lower, self.upper, self.offset, self.multiplier) if bound is not None
        ]
        inside = [element.names for element in self.elements]
        return frozenset().union(*(e.names for e in (*self.array_sizes, *self.sizes, *bounds)), *inside)

    def shape(self, env: Mapping[str, Any]) -> tuple[int, ...]:
        """`dims` as numbers. Raises Unevaluable."""
        return tuple(int(size.evaluate(env)) for size in self.dims)

    def __str__(self) -> str:
        array = f"array[{_join(self.array_sizes)}] " if self.array_sizes else ""
        bounds = [
            f"{word}={bound}"
            for word in ("lower", "upper", "offset", "multiplier")
            if (bound := getattr(self, word)) is not None
        ]
        return (
            array
            + self.base
            + (f"<{', '.join(bounds)}>" if bounds else "")
            + (f"[{_join(self.sizes)}]" if self.sizes else "")
            + (f"({_join(self.elements)})" if self.is_tuple else "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One top-level variable of a block. `str(...)` is Stan syntax without the semicolon."""

    name: str
    type: StanType
    block: Block
    location: Location

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A Stan program. `source` is complete: its `#include` lines are replaced by what they name."""

    name: str
    source: str = field(repr=False)
    file: Path | None
    data: tuple[Declaration, ...] = ()
    transformed_data: tuple[Declaration, ...] = ()
    parameters: tuple[Declaration, ...] = ()
    transformed_parameters: tuple[Declaration, ...] = ()
    generated_quantities: tuple[Declaration, ...] = ()
    _generated_span: tuple[int, int] | None = field(default=None, repr=False)  # that block in `source`

    @classmethod
    def from_file(cls, path: StrPath, include_paths: Sequence[StrPath] = ()) -> Program:
        """Read a `.stan` file. `#include` looks in `include_paths`, then beside the including file.

        Raises ProgramError.
        """
        if "{" in os.fspath(path) and not os.fspath(path).endswith(".stan"):
            raise ProgramError(
                "a path was expected, and this is the text of a program: pass it as stan_code=."
            )
        file = Path(path)
        text = _read(file, None)
        return _parse(file.stem, file, _Source.expand(text, str(path), file.parent, include_paths))

    @classmethod
    def from_code(cls, code: str, name: str = "model", include_paths: Sequence[StrPath] = ()) -> Program:
        """Read Stan code. `#include` looks in `include_paths`, then in the working directory.

        Raises ProgramError.
        """
        return _parse(name, None, _Source.expand(code, f"{name}.stan", Path(), include_paths))

    @property
    def declarations(self) -> tuple[Declaration, ...]:
        """All of them, in the order of the program."""
        return (
            *self.data,
            *self.transformed_data,
            *self.parameters,
            *self.transformed_parameters,
            *self.generated_quantities,
        )

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the source's SHA-256."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    def declaration(self, name: str) -> Declaration:
        """The declaration of a name, whatever its block. Raises ProgramError."""
        for declaration in self.declarations:
            if declaration.name == name:
                return declaration
        names = [declaration.name for declaration in self.declarations]
        near = difflib.get_close_matches(name, names, n=1)
        hint = (
            f"Did you mean `{near[0]}`?" if near else f"Declared are: {', '.join(names) or 'no variables'}."
        )
        raise ProgramError(f"program `{self.name}` declares no variable `{name}`. {hint}")

    def without_generated_quantities(self) -> Program:
        """The same program minus that block; all other text is unchanged."""
        if self._generated_span is None:
            return self
        start, end = self._generated_span
        source = self.source[:start] + self.source[end:]
        return replace(self, source=source, generated_quantities=(), _generated_span=None)


# ---- Reading a parse tree ----------------------------------------------------------------------------------


def _parse(name: str, file: Path | None, source: _Source) -> Program:
    try:
        tree = stan_parser().parse(source.text, start="program")
    except UnexpectedInput as error:
        raise _syntax_error(error, source) from None
    blocks: dict[str, tuple[Declaration, ...]] = {}
    span = None
    for block in tree.children:
        if isinstance(block, Tree):
            blocks[block.data] = _unique(_declarations(block, source), blocks)
            if block.data == "generated_quantities":
                span = _span(block)
    return Program(name=name, source=source.text, file=file, _generated_span=span, **blocks)


def _span(block: Node) -> tuple[int, int]:
    return block.children[0].start_pos, block.children[-1].end_pos


def _start(token: Node) -> int:
    return int(token.start_pos)


def _declarations(block: Node, source: _Source) -> Iterator[Declaration]:
    for item in block.children:
        if not isinstance(item, Tree):
            continue  # the first name of a skipped statement
        stan_type = _stan_type(item.children[0], source)
        for declarator in item.children[1:]:
            name, old_sizes = declarator.children
            location = source.locate(_start(name))
            if old_sizes is not None:
                sizes = _expressions(old_sizes) + stan_type.array_sizes
                fixed = replace(stan_type, array_sizes=sizes)
                raise ProgramError(
                    f"`{stan_type} {name}[{_join(_expressions(old_sizes))}]` is the array syntax that Stan 2.33 "
                    f"removed. Write `{fixed} {name}`.",
                    location,
                )
            yield Declaration(
                name=str(name), type=stan_type, block=Block(block.data.replace("_", " ")), location=location
            )


def _unique(
    declarations: Iterator[Declaration], blocks: Mapping[str, tuple[Declaration, ...]]
) -> tuple[Declaration, ...]:
    seen = {declaration.name: declaration for block in blocks.values() for declaration in block}
    kept = []
    for declaration in declarations:
        if declaration.name in seen:
            earlier = seen[declaration.name].location
            raise ProgramError(
                f"`{declaration.name}` is already declared at {earlier}.", declaration.location
            )
        seen[declaration.name] = declaration
        kept.append(declaration)
    return tuple(kept)


def _stan_type(tree: Node, source: _Source) -> StanType:
    fields: dict[str, Any] = {"elements": ()}
    for child in tree.children:
        if isinstance(child, Token):
            fields["base"] = str(child)
        elif child is None:
            continue
        elif child.data == "stan_type":
            fields["elements"] += (_stan_type(child, source),)
        elif child.data == "bounds":
            for bound in child.children:
                word, value = bound.children
                if word in fields:
                    raise ProgramError(f"`{word}` is given twice for one type.", source.locate(_start(word)))
                fields[str(word)] = Expression.from_tree(value)
        else:  # array_sizes, sizes
            fields[child.data] = _expressions(child)
    return StanType(**fields)


def _expressions(tree: Node) -> tuple[Expression, ...]:
    return tuple(Expression.from_tree(child) for child in tree.children)


def _join(parts: Sequence[object]) -> str:
    return ", ".join(map(str, parts))


# ---- Syntax errors -----------------------------------------------------------------------------------------

_SPOKEN = {
    "NAME": "a name",
    "SCALAR": "a type",
    "BOUND": "`lower`, `upper`, `offset` or `multiplier`",
    "INTEGER": "a number",
    "$END": "the end of the program",
    "GENERATED": "`generated quantities`",
    "TRANSFORMED": "`transformed ...`",
}


def _syntax_error(error: UnexpectedInput, source: _Source) -> ProgramError:
    at = error.pos_in_stream
    if at is None or at < 0 or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        location = source.locate(len(source.text.rstrip()))
        return ProgramError(f"the program ends too early: expected {_expected(error)}.", location)
    location = source.locate(at)
    rest = source.text[at : at + 40].split("\n")[0].rstrip()
    if rest.startswith("#"):
        return ProgramError("`#` comments were removed in Stan 2.33. Write `//`.", location)
    if rest.startswith("/*"):
        return ProgramError("this comment has no end: `*/` is missing.", location)
    if rest.startswith('"'):
        return ProgramError('this string has no end: `"` is missing on its line.', location)
    return ProgramError(f"unexpected `{rest}`: expected {_expected(error)}.", location)


def _expected(error: UnexpectedInput) -> str:
    names: set[str] = error.interactive_parser.accepts()  # type: ignore[no-untyped-call]
    if "_CODE" in names:  # inside skipped code only its end is worth saying
        names &= {"RPAR", "RSQB", "RBRACE", "SEMICOLON"}
    elif "SEMICOLON" in names:  # after a declared name `[` is read only to explain the old array syntax
        names -= {"LSQB"}
    patterns = {terminal.name: terminal.pattern for terminal in stan_parser().terminals}
    spoken = set()
    for name in names:
        pattern = patterns.get(name)
        if name in _SPOKEN:
            spoken.add(_SPOKEN[name])
        elif isinstance(pattern, PatternStr):
            spoken.add(f"`{pattern.value}`")
    *most, last = sorted(spoken) or ["something else"]
    return f"{', '.join(most)} or {last}" if most else last


# ---- Source text with its includes -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text of one file between two includes; it starts at `offset` of that file's whole text."""

    text: str
    file: str
    file_text: str
    offset: int


@dataclass(frozen=True, slots=True)
class _Source:
    """Program text after `#include` expansion, and where each part of it came from."""

    text: str
    pieces: tuple[_Piece, ...]
    starts: tuple[int, ...]  # of each piece, in `text`

    @classmethod
    def expand(cls, text: str, file: str, folder: Path, include_paths: Sequence[StrPath]) -> _Source:
        given = [include_paths] if isinstance(include_paths, str | os.PathLike) else include_paths
        paths = tuple(Path(path) for path in given)
        pieces = tuple(_pieces(text, file, (folder,), paths, (Path(file).resolve(),)))
        starts = itertools.accumulate((len(piece.text) for piece in pieces), initial=0)
        return cls("".join(piece.text for piece in pieces), pieces, tuple(starts)[:-1])

    def locate(self, position: int) -> Location:
        """The file, line and column of a position in the expanded text."""
        index = bisect.bisect_right(self.starts, position) - 1
        piece = self.pieces[index]
        return _location(piece.file, piece.file_text, piece.offset + position - self.starts[index])


def _pieces(
    text: str, file: str, folders: tuple[Path, ...], paths: tuple[Path, ...], chain: tuple[Path, ...]
) -> Iterator[_Piece]:
    """Cut `text` at its includes and put theirs between; `chain` holds the files that are being included."""
    at = 0
    for include in _includes(text, file):
        start = _start(include)
        yield _Piece(text[at:start], file, text, at)
        at = start + len(include)
        location = _location(file, text, start)
        named = include.removeprefix("#include").strip().strip('"<>')
        found = _find(named, (*paths, *folders), location)
        if found.resolve() in chain:
            raise ProgramError(f"`#include {named}` includes itself: {_join(chain)}.", location)
        inner = _read(found, location)
        yield from _pieces(inner, str(found), (found.parent, *folders), paths, (*chain, found.resolve()))
    yield _Piece(text[at:], file, text, at)


def _find(named: str, folders: tuple[Path, ...], location: Location) -> Path:
    for folder in folders:
        if (folder / named).is_file():
            return folder / named
    searched = _join(tuple(dict.fromkeys(folder.resolve() for folder in folders)))
    raise ProgramError(
        f"`#include {named}`: there is no such file. Searched: {searched}. Give its folder in `include_paths`.",
        location,
    )


def _includes(text: str, file: str) -> list[Token]:
    """The `#include` tokens outside comments and strings."""
    if "#include" not in text:
        return []
    try:
        tree = stan_parser().parse(text, start="pieces")
    except UnexpectedInput as error:
        raise _syntax_error(error, _Source(text, (_Piece(text, file, text, 0),), (0,))) from None
    return [token for token in tree.children if isinstance(token, Token)]


def _location(file: str, text: str, position: int) -> Location:
    before = text[:position]
    return Location(file, before.count("\n") + 1, position - before.rfind("\n"))


def _read(file: Path, location: Location | None) -> str:
    try:
        return read_text(file)
    except FileNotFoundError:
        names = [path.name for path in file.parent.glob("*.stan")] if file.parent.is_dir() else []
        near = nearest(file.name, names)
        hint = f" Did you mean {file.parent / near}?" if near else ""
        raise ProgramError(f"there is no Stan file {file}.{hint}", location) from None
    except UnreadableFile as error:
        raise ProgramError(f"can't read the Stan file {file}: {error}", location) from error
