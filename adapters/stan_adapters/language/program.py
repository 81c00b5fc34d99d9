"""A Stan program as its declarations: names, types, symbolic sizes and bounds, with `#include` expanded.

The grammar (`stan.lark`) reads declarations exactly and skips statements; the engine's compiler reads those.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from lark import Token, Tree
from lark.exceptions import UnexpectedInput

from stan_adapters.errors import Location, ProgramError
from stan_adapters.files.names import nearest
from stan_adapters.language.expressions import Expression, Unevaluable
from stan_adapters.language.grammar import stan_parser
from stan_adapters.language.old_syntax import modernized
from stan_adapters.language.source_text import Source, read_program, syntax_error
from stan_adapters.language.source_text import StrPath as StrPath

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
        sizes = [size.evaluate(env) for size in self.dims]
        if not all(np.ndim(size) == 0 for size in sizes):
            raise Unevaluable("a size is an array")  # which Stan's compiler refuses
        return tuple(int(size) for size in sizes)

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
    """A Stan program.

    `source` is complete, its `#include` lines replaced by what they name, and in today's syntax (`old_syntax`).
    """

    name: str
    source: str = field(repr=False)
    file: Path | None
    data: tuple[Declaration, ...] = ()
    transformed_data: tuple[Declaration, ...] = ()
    parameters: tuple[Declaration, ...] = ()
    transformed_parameters: tuple[Declaration, ...] = ()
    generated_quantities: tuple[Declaration, ...] = ()
    _generated_span: tuple[int, int] | None = field(default=None, repr=False)  # that block in `source`
    _text: Source = field(repr=False, compare=False)

    @classmethod
    def from_file(cls, path: StrPath, include_paths: Sequence[StrPath] = ()) -> Program:
        """Read a `.stan` file. `#include` looks in `include_paths`, then beside the including file.

        Raises ProgramError.
        """
        if not isinstance(path, str | os.PathLike):
            raise ProgramError(f"the program is a {type(path).__name__}, expected the path of a Stan file.")
        if "{" in os.fspath(path) and not os.fspath(path).endswith(".stan"):
            raise ProgramError(
                "a path was expected, and this is the text of a program: pass it as stan_code=."
            )
        file = Path(path)
        text = read_program(file, None)
        return _parse(file.stem, file, Source.expand(text, str(path), file.parent, include_paths))

    @classmethod
    def from_code(cls, code: str, name: str = "model", include_paths: Sequence[StrPath] = ()) -> Program:
        """Read Stan code. `#include` looks in `include_paths`, then in the working directory.

        Raises ProgramError.
        """
        if not isinstance(code, str):
            raise ProgramError(f"stan_code is a {type(code).__name__}, expected the text of a program.")
        return _parse(name, None, Source.expand(code, f"{name}.stan", Path(), include_paths))

    @classmethod
    def from_source(cls, source: str, name: str) -> Program:
        """A complete source, as `source` holds it: in today's syntax, and no other file is read.

        Raises ProgramError, also at an `#include`.
        """
        return _parse(name, None, Source.complete(source, f"{name}.stan"), is_of_today=True)

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
        near = nearest(name, names)
        hint = f"Did you mean `{near}`?" if near else f"Declared are: {', '.join(names) or 'no variables'}."
        raise ProgramError(f"program `{self.name}` declares no variable `{name}`. {hint}")

    @property
    def is_old(self) -> bool:
        """Whether the user's text is of Stan before 2.33, so that `source` is not that text but what it says."""
        return self._text.text != self._text.original

    @property
    def has_includes(self) -> bool:
        """Whether `source` has lines that other files brought in."""
        return self._text.has_includes

    def locate(self, position: int) -> Location:
        """The file, line and column of a position in `source`."""
        return self._text.locate(position)

    def without_generated_quantities(self) -> Program:
        """The same program minus that block; all other text is unchanged."""
        if self._generated_span is None:
            return self
        start, end = self._generated_span
        source = self.source[:start] + self.source[end:]
        return replace(self, source=source, generated_quantities=(), _generated_span=None)


# ---- Reading a parse tree ----------------------------------------------------------------------------------


def _parse(name: str, file: Path | None, source: Source, *, is_of_today: bool = False) -> Program:
    source = source if is_of_today else modernized(source)
    try:
        tree = stan_parser().parse(source.text, start="program")
    except UnexpectedInput as error:
        raise syntax_error(error, source) from None
    try:
        return _read_tree(name, file, source, tree)
    except RecursionError as error:
        raise ProgramError(
            f"a declared type of {file or name} is an expression of a thousand parts or levels: name its parts in "
            "transformed data."
        ) from error


def _read_tree(name: str, file: Path | None, source: Source, tree: Node) -> Program:
    blocks: dict[str, tuple[Declaration, ...]] = {}
    span = None
    for block in tree.children:
        if isinstance(block, Tree):
            blocks[block.data] = _unique(_declarations(block, source), blocks)
            if block.data == "generated_quantities":
                span = _span(block)
    return Program(name=name, source=source.text, file=file, _generated_span=span, _text=source, **blocks)


def _span(block: Node) -> tuple[int, int]:
    return block.children[0].start_pos, block.children[-1].end_pos


def _start(token: Node) -> int:
    return int(token.start_pos)


def _declarations(block: Node, source: Source) -> Iterator[Declaration]:
    for item in block.children:
        if not isinstance(item, Tree):
            continue  # the first name of a skipped statement
        stan_type = _stan_type(item.children[0], source)
        for declarator in item.children[1:]:
            (name,) = declarator.children
            location = source.locate(_start(name))
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


def _stan_type(tree: Node, source: Source) -> StanType:
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
