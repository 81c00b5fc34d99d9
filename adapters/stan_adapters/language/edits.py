"""A text changed in places: edits that keep its lines, so that what is said of a line holds for the text as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lark import Token, Tree

COPY = "\0"
_BEHIND, _IN_FRONT = 0, 1  # of a node, in ranks
_SPACE = r"(?:\s|//[^\n]*\n|/\*(?:.|\n)*?\*/)*"  # with comments


class Edit(NamedTuple):
    """`text` in place of what stands from `start` to `end`. At one place, edits are in the order of their `rank`.

    Where the text has `COPY`, the program's own code between the places `copied` stands, with the edits in it.
    """

    start: int
    end: int
    text: str
    rank: tuple[int, int] = (2, 0)
    copied: tuple[int, int] = (0, 0)


class Run(NamedTuple):
    """A part of an edited text: the text's own from `start` on, or what an edit there put in."""

    text: str
    start: int
    own: bool


def before(node: Tree[Token], text: str, copied: tuple[int, int] = (0, 0)) -> Edit:
    """Text in front of a node; that in front of a larger one, which begins there too, comes first."""
    return Edit(start_of(node), start_of(node), text, (_IN_FRONT, -node.meta.end_pos), copied)


def after(node: Tree[Token], text: str) -> Edit:
    """Text behind a node; that behind a smaller one, which ends there too, comes first."""
    return Edit(node.meta.end_pos, node.meta.end_pos, text, (_BEHIND, -start_of(node)))


def overlapping(edits: Sequence[Edit]) -> tuple[int, ...]:
    """Which edits, by their numbers, change a place that one before them changes too: they can't all be made."""
    found = []
    reached = 0
    for number in _in_order(edits):
        if edits[number].start < reached:
            found.append(number)
        reached = max(reached, edits[number].end)
    return tuple(found)


def runs(source: str, edits: Sequence[Edit]) -> Iterator[Run]:
    """The parts of a text with edits, which do not overlap. Lines keep their numbers."""
    return _runs(source, edits, 0, len(source) + 1)


def rewritten(source: str, edits: Sequence[Edit], functions: str = "") -> str:
    """A program with edits, and further functions before its own. Lines keep their numbers.

    Raises:
        ValueError: edits overlap.
    """
    if overlapping(edits):
        raise ValueError(f"edits of a program overlap: {edits}")
    source = "".join(run.text for run in runs(source, edits))
    code = " ".join(functions.split())
    if not code:
        return source
    found = re.match(rf"{_SPACE}functions{_SPACE}\{{", source)
    if found is None:
        return f"functions {{ {code} }} {source}"
    return f"{source[: found.end()]} {code} {source[found.end() :]}"


def tree_of(node: object) -> Tree[Token]:
    """A node that is a tree by the rules of the grammar."""
    if not isinstance(node, Tree):
        raise TypeError(f"{node!r} is no tree: the rules of stan.lark have changed")
    return node


def start_of(node: Tree[Token]) -> int:
    """Where a node begins."""
    return int(node.meta.start_pos)


def on_one_line(code: str) -> str:
    """Code without its comments and line breaks."""
    return " ".join(re.sub(r"//[^\n]*|/\*(?:.|\n)*?\*/", " ", code).split())


def unused(stem: str, source: str) -> str:
    """A name that the program has not."""
    while stem in source:
        stem = f"x{stem}"
    return stem


def _runs(source: str, edits: Sequence[Edit], start: int, end: int) -> Iterator[Run]:
    """The code from a place to another, with the edits of what lies between."""
    for edit in [edits[number] for number in _in_order(edits) if _is_within(edits[number], start, end)]:
        text = edit.text
        if COPY in text:
            copied = "".join(run.text for run in _runs(source, edits, *edit.copied))
            text = text.replace(COPY, on_one_line(copied))
        yield Run(source[start : edit.start], start, True)
        yield Run(text + "\n" * source[edit.start : edit.end].count("\n"), edit.start, False)
        start = edit.end
    yield Run(source[start:end], start, True)


def _is_within(edit: Edit, start: int, end: int) -> bool:
    """Whether an edit is one of the code between two places, and not of something larger that begins or ends there."""
    side, other = edit.rank
    if side == _IN_FRONT:
        return start <= edit.start < end and -other <= end
    if side == _BEHIND:
        return start < edit.start <= end and -other >= start
    return start <= edit.start < end


def _in_order(edits: Sequence[Edit]) -> list[int]:
    """The edits' numbers as they follow one another; several around one node are nested, the first outermost."""

    def key(number: int) -> tuple[int, tuple[int, int], int]:
        start, _, _, rank, _ = edits[number]
        return start, rank, -number if rank[0] == _BEHIND else number

    return sorted(range(len(edits)), key=key)
