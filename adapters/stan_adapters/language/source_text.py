"""A program's text with its `#include` lines replaced by what they name, and where each part came from."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lark import Token
from lark.exceptions import UnexpectedInput, UnexpectedToken
from lark.lexer import PatternStr

from stan_adapters.errors import Location, ProgramError
from stan_adapters.files.names import nearest
from stan_adapters.files.text_files import UnreadableFile, read_text
from stan_adapters.language.edits import Edit, runs
from stan_adapters.language.grammar import stan_parser

type StrPath = str | os.PathLike[str]

_MOST_NESTED = 100  # includes within includes

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


def syntax_error(error: UnexpectedInput, source: Source) -> ProgramError:
    """What a syntax error means, with its place."""
    at = error.pos_in_stream
    if at is None or at < 0 or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        location = source.locate(len(source.text.rstrip()))
        return ProgramError(f"the program ends too early: expected {_expected(error)}.", location)
    location = source.locate(at)
    rest = source.text[at : at + 40].split("\n")[0].rstrip()
    if rest.startswith("/*"):
        return ProgramError("this comment has no end: `*/` is missing.", location)
    if rest.startswith('"'):
        return ProgramError('this string has no end: `"` is missing on its line.', location)
    return ProgramError(f"unexpected `{rest}`: expected {_expected(error)}.", location)


def _expected(error: UnexpectedInput) -> str:
    names: set[str] = error.interactive_parser.accepts()  # type: ignore[no-untyped-call]
    if "_CODE" in names:  # inside skipped code only its end is worth saying
        names &= {"RPAR", "RSQB", "RBRACE", "SEMICOLON"}
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
    """Text of one file between two includes or edits; it starts at `offset` of that file's whole text.

    Text that an edit put in is `new`: all of it stands at `offset`.
    """

    text: str
    file: str
    file_text: str
    offset: int
    new: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Program text after `#include` expansion, and where each part of it came from.

    Attributes:
        original: the text before it was `edited`.
    """

    text: str
    pieces: tuple[_Piece, ...]
    starts: tuple[int, ...]  # of each piece, in `text`
    original: str

    @classmethod
    def expand(cls, text: str, file: str, folder: Path, include_paths: Sequence[StrPath]) -> Source:
        paths = _folders(include_paths)
        return cls._of(_pieces(text, file, (folder,), paths, (Path(file).resolve(),)))

    @classmethod
    def _of(cls, pieces: Iterable[_Piece], original: str | None = None) -> Source:
        pieces = tuple(pieces)
        starts = itertools.accumulate((len(piece.text) for piece in pieces), initial=0)
        text = "".join(piece.text for piece in pieces)
        return cls(text, pieces, tuple(starts)[:-1], text if original is None else original)

    @classmethod
    def complete(cls, text: str, file: str) -> Source:
        """Text that includes nothing, so that no other file is read. Raises ProgramError at an `#include`."""
        for include in _includes(text, file):
            location = _location(file, text, int(include.start_pos or 0))
            raise ProgramError(
                f"`{include.strip()}`: a saved program is complete and includes nothing.", location
            )
        return cls._of([_Piece(text, file, text, 0)])

    def edited(self, edits: Sequence[Edit]) -> Source:
        """The text with edits, which do not overlap. Places in it are those of the text as it was."""
        pieces: list[_Piece] = []
        for run in runs(self.text, edits):
            if run.own:
                pieces += self._between(run.start, run.start + len(run.text))
            elif run.text:
                piece, offset = self._at(run.start)
                pieces.append(replace(piece, text=run.text, offset=offset, new=True))
        return Source._of(pieces, self.original)

    @property
    def has_includes(self) -> bool:
        return len({piece.file for piece in self.pieces}) > 1

    def locate(self, position: int) -> Location:
        """The file, line and column of a position in the expanded text."""
        piece, offset = self._at(position)
        return _location(piece.file, piece.file_text, offset)

    def _at(self, position: int) -> tuple[_Piece, int]:
        """The piece of a position in `text`, and where that is in the piece's file."""
        index = bisect.bisect_right(self.starts, position) - 1
        piece = self.pieces[index]
        return piece, piece.offset + (0 if piece.new else position - self.starts[index])

    def _between(self, start: int, end: int) -> Iterator[_Piece]:
        """The pieces between two positions, the first and the last cut."""
        for piece, begin in zip(self.pieces, self.starts, strict=True):
            first, last = max(start - begin, 0), min(end - begin, len(piece.text))
            if first < last:
                yield replace(
                    piece, text=piece.text[first:last], offset=piece.offset + (0 if piece.new else first)
                )


def _folders(include_paths: object) -> tuple[Path, ...]:
    """The folders in which includes are looked up; a list of them or a single one."""
    given = [include_paths] if isinstance(include_paths, str | os.PathLike) else include_paths
    if not isinstance(given, list | tuple):
        raise ProgramError(f"include_paths is a {type(given).__name__}, expected a list of folders.")
    for path in given:
        if not isinstance(path, str | os.PathLike):
            raise ProgramError(f"include_paths holds a {type(path).__name__}, expected paths of folders.")
        if not os.path.isdir(path or "."):
            seen = "a file" if os.path.isfile(path) else "no folder of that name"
            raise ProgramError(
                f"the include path {path} is {seen}: give folders in which `#include` looks (include_paths=, "
                "--include-path)."
            )
    return tuple(Path(path) for path in given)


def _pieces(
    text: str, file: str, folders: tuple[Path, ...], paths: tuple[Path, ...], chain: tuple[Path, ...]
) -> Iterator[_Piece]:
    """Cut `text` at its includes and put theirs between; `chain` holds the files that are being included."""
    at = 0
    for include in _includes(text, file):
        start = int(include.start_pos or 0)
        yield _Piece(text[at:start], file, text, at)
        at = start + len(include)
        location = _location(file, text, start)
        named = include.removeprefix("#include").strip().strip('"<>')
        found = _find(named, (*paths, *folders), location)
        if found.resolve() in chain:
            raise ProgramError(f"`#include {named}` includes itself: {', '.join(map(str, chain))}.", location)
        if len(chain) > _MOST_NESTED:
            raise ProgramError(
                f"`#include {named}`: more than {_MOST_NESTED} files include one another.", location
            )
        inner = read_program(found, location)
        yield from _pieces(inner, str(found), (found.parent, *folders), paths, (*chain, found.resolve()))
    yield _Piece(text[at:], file, text, at)


def _find(named: str, folders: tuple[Path, ...], location: Location) -> Path:
    for folder in folders:
        joined = Path(
            f"{folder}/{named}"
        )  # as Stan's compiler does: `/pre/a.stan` is looked up in the folder too
        if joined.is_file():
            return joined
    if Path(named).is_file():
        return Path(named)
    searched = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
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
        raise syntax_error(error, Source._of([_Piece(text, file, text, 0)])) from None
    return [token for token in tree.children if isinstance(token, Token)]


def _location(file: str, text: str, position: int) -> Location:
    before = text[:position]
    return Location(file, before.count("\n") + 1, position - before.rfind("\n"))


def read_program(file: Path, location: Location | None) -> str:
    """The text of a Stan file; `location` is where it is included. Raises ProgramError."""
    try:
        return read_text(file)
    except FileNotFoundError:
        names = [path.name for path in file.parent.glob("*.stan")] if file.parent.is_dir() else []
        near = nearest(file.name, names)
        hint = f" Did you mean {file.parent / near}?" if near else ""
        raise ProgramError(f"there is no Stan file {file}.{hint}", location) from None
    except UnreadableFile as error:
        raise ProgramError(f"can't read the Stan file {file}: {error}", location) from error
