"""Methods by name: "avi", "fvi", "constant", with parts after colons, such as "avi:mlp(32)" or "fvi:full".

All are one family with another source of nu: a method only chooses inference function, input and local factor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from avistan.runtime.errors import MethodError
from avistan.runtime.limits import LIMITS
from avistan.runtime.text import shortened
from stan_adapters.files.names import did_you_mean

# This module imports nothing heavy: names of methods are checked before JAX is loaded.
GlobalKind = Literal["mean-field", "full-rank", "low-rank"]
LocalKind = Literal["diagonal", "full", "banded"]
Conditional = Literal["none", "mean", "mean+scale", "curved"]
FunctionKind = Literal["table", "constant", "polynomial", "mlp"]
DataColumn = tuple[str, tuple[int, ...]]  # a data entry and row offsets: ("x", (-1, 0))

DEFAULT_WIDTH = 64
DEFAULT_RANK = 10
MAX_REACH = 2  # of a banded factor
_KNOWN = ("avi", "fvi", "constant")
_REACHES = tuple(str(reach) for reach in range(1, MAX_REACH + 1))
_FOLLOWING: dict[str | None, Conditional] = {
    None: "mean",
    "mean": "mean",
    "mean+scale": "mean+scale",
    "curved": "curved",
}
# Words of parts, and what is asked for elsewhere.
_PARTS = (
    "full",
    "full-rank",
    "low-rank",
    "banded",
    "conditional",
    "flow",
    "student",
    "levels",
    "mlp",
    "polynomial",
    "neighbours",
    "data",
    "window",
)
_ELSEWHERE = {
    "nuts": " NUTS is a reference: model.compare(reference='nuts').",
    "pathfinder": " It is a competitor: model.compare(['avi', 'pathfinder']).",
    "advi": " CmdStan's ADVI is a competitor: model.compare(['avi', 'cmdstan-advi']); 'fvi' is the same family.",
}
_OFFSET = re.compile(r"[+-]?\d+")
_SIZES = {"mlp": "width", "polynomial": "degree", "low-rank": "rank", "neighbours": "neighbours"}
_OF_FUNCTIONS = ("mlp", "polynomial", "neighbours", "data", "window", "levels")
_SEVERAL = ("data", "window")  # parts that a name may have more than one of
_CONTRARY = (("full-rank", "low-rank"), ("mlp", "polynomial"))
_MOST_OFFSET, _LONGEST = 10**9, 1000
_PART = re.compile(r"(?P<word>[a-z-]+)(?:\((?P<argument>[^()]*)\))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What a method's name means.

    Attributes:
        name: the canonical text, which `parse_method` reads back.
        function: where the variational parameters of a unit come from.
        size: width of the MLP or degree of the polynomial; 0 for the others.
        local: covariance of a unit's factor.
        conditional: whether a unit's factor depends on the globals.
        globals: covariance of the globals' factor.
        rank: of the globals' factor, where that is low-rank; 0 for others.
        flow: whether a flow transforms the factors of globals and units (`flow`).
        student: whether units' factors are Student's t, heavy-tailed (`student`).
        reach: on how many units before it along the axis a unit of a banded factor depends; 0 for other factors.
        neighbours: on how many units to each side the input reads signatures too.
        data: declared data entries as input in place of the signature, each with its row offsets from the unit's own
            row; empty for the signature.
        second: a second level that is amortized too, by its declared size or one of its latents; empty for the one
            with most latents, None for one level only.
        coupling: the reach of the coupling that a family which grows may take up; no part of the name.
    """

    name: str
    function: FunctionKind
    size: int = 0
    local: LocalKind = "diagonal"
    conditional: Conditional = "none"
    globals: GlobalKind = "mean-field"
    rank: int = 0
    flow: bool = False
    student: bool = False
    reach: int = 0
    neighbours: int = 0
    data: tuple[DataColumn, ...] = ()
    second: str | None = None
    coupling: int = field(default=0, compare=False, repr=False)

    @property
    def family(self) -> tuple[LocalKind, int, Conditional, GlobalKind, int, bool, bool]:
        """Covariance of units and its reach, what they follow, covariance of the globals, its rank, flow and tails."""
        shape = self.flow, self.student
        return self.local, self.reach, self.conditional, self.globals, self.rank, *shape

    @property
    def amortized(self) -> bool:
        """Whether it learns a function of the unit's input."""
        return self.function in ("polynomial", "mlp")


FACTORIZED = Method(name="fvi", function="table").family  # the paper's F-VI, and mean-field ADVI


def parse_method(text: str) -> Method:
    """The method of a name.

    The grammar is `avi[:mlp(W) | :polynomial(K)][:data(x, ...)][:window(x, -1, 0)][:neighbours(K)][:levels]`, `fvi`
    or `constant`, each followed by parts that say more of the family: `:full` (a full covariance within a unit),
    `:banded` or `:banded(2)` (that, and units depend on those before them along their axis), `:full-rank` (of the
    globals) or `:low-rank(10)` (a diagonal and ten directions, for where globals are many), `:conditional` (a unit's
    mean is linear in the globals), `:conditional(mean+scale)` (its log scale too) or `:conditional(curved)` (both
    through curves), `:flow` (skewed shapes of globals and units) and `:student` (Student's t for units: heavy tails).
    `data(x)` reads the unit's own row of x, `window(x, -1, 0)` the row before it too, `neighbours(2)` the signatures of
    two units to each side. `levels` amortizes a second level too, such as items and persons, by a second function of
    the same kind, which reads signatures; `levels(item)` says which, by its declared size or one of its latents. In q
    the two levels are independent of each other, and units depend only on the globals that belong to neither.

    Raises:
        MethodError: not of that form, with the nearest name that is.
    """
    if not isinstance(text, str):
        raise MethodError(f"method={text!r}: give a method's name, such as 'avi' or 'fvi', or 'auto'.")
    if len(text) > _LONGEST:
        raise MethodError(f"method={shortened(text)!r}: no method has a name of {len(text)} characters.")
    head, *parts = [part.strip() for part in text.split(":")]
    if head not in _KNOWN:
        hint = _ELSEWHERE.get(head.lower(), _nearest(head, _KNOWN))
        raise MethodError(
            f"unknown method {shortened(text)!r}.{hint} Methods are avi, avi:mlp(WIDTH), avi:polynomial(DEGREE), "
            "avi:data(NAME), avi:window(NAME, -1, 0), avi:neighbours(COUNT), avi:levels, fvi, constant, each with "
            ":full, :banded, :full-rank, :low-rank(RANK), :conditional, :flow or :student for a richer family."
        )
    _check_parts(text, parts)
    start: dict[str, FunctionKind] = {"avi": "mlp", "fvi": "table", "constant": "constant"}
    method = Method(name=text, function=start[head], size=DEFAULT_WIDTH if head == "avi" else 0)
    for part in parts:
        method = _with_part(method, head, part)
    if method.neighbours and method.data:
        raise MethodError(
            f"{text!r} reads signatures of neighbours and declared data: for neighbours' data say window(x, -1, 0, 1)."
        )
    read = [(name, offset) for name, offsets in method.data for offset in offsets]
    twice = next((name for name, offset in read if read.count((name, offset)) > 1), None)
    if twice is not None:
        raise MethodError(f"{text!r} reads a row of {twice} twice. Say it once.")
    if method.second is not None and (method.globals != "mean-field" or method.local == "banded"):
        raise MethodError(
            f"{text!r}: with two amortized levels the globals, which hold the second level's latents, are factorized, "
            "and units do not depend on their neighbours: leave out :full-rank, :low-rank and :banded, or :levels."
        )
    return replace(method, name=":".join([head, *parts]))


def _check_parts(text: str, parts: Sequence[str]) -> None:
    """That no part is said twice, and none contradicts another."""
    words = [part.partition("(")[0].strip() for part in parts]
    for word in words:
        if word and words.count(word) > 1 and word not in _SEVERAL:
            raise MethodError(f"{text!r} says {word!r} more than once. Say it once.")
    for one, other in _CONTRARY:
        if one in words and other in words:
            raise MethodError(f"{text!r} says {one!r} and {other!r}, which exclude each other. Keep one.")


def _with_part(method: Method, head: str, part: str) -> Method:
    match = _PART.fullmatch(part)
    word, argument = (match["word"], match["argument"]) if match else (part, None)
    if word == "full" and argument is None:
        return replace(method, local="full") if method.local == "diagonal" else method
    if word == "banded" and (argument is None or argument.strip() in _REACHES):
        return replace(method, local="banded", reach=1 if argument is None else int(argument))
    if word == "full-rank" and argument is None:
        return replace(method, globals="full-rank", rank=0)
    if word == "low-rank":
        rank = DEFAULT_RANK if argument is None else _count(method, part, argument)
        return replace(method, globals="low-rank", rank=rank)
    if word == "conditional" and argument in _FOLLOWING:
        return replace(method, conditional=_FOLLOWING[argument])
    if word == "flow" and argument is None:
        return replace(method, flow=True)
    if word == "student" and argument is None:
        return replace(method, student=True)
    if head == "avi" and word in ("mlp", "polynomial"):
        size = _count(method, part, argument)
        return replace(method, function="mlp" if word == "mlp" else "polynomial", size=size)
    if head == "avi" and word == "neighbours":
        return replace(method, neighbours=_count(method, part, argument))
    if head == "avi" and word == "data" and argument:
        return replace(method, data=(*method.data, *((name, (0,)) for name in _items(argument))))
    if head == "avi" and word == "window" and argument:
        return replace(method, data=(*method.data, *_window(method, part, _items(argument))))
    if head == "avi" and word == "levels" and (argument is None or argument.strip()):
        return replace(method, second="" if argument is None else argument.strip())
    inputs = "mlp(WIDTH), polynomial(DEGREE), data(NAME), window(NAME, -1, 0), neighbours(COUNT), levels, "
    allowed = (
        f"{inputs if head == 'avi' else ''}full, banded, banded(2), full-rank, low-rank(RANK), conditional, "
        "conditional(mean+scale), conditional(curved), flow, student"
    )
    hint = "" if word in _PARTS else _nearest(part, _PARTS)
    if head != "avi" and word in _OF_FUNCTIONS:
        hint = " That belongs to avi, which learns a function of what it reads."
    raise MethodError(f"{head} has no part {part!r} (in {method.name!r}).{hint} It takes {allowed}.")


def check_choice(method: object, family: object) -> None:
    """That a method and a family can be asked for, whatever the program.

    Raises:
        MethodError: one can't.
    """
    if family not in (None, "auto", "fixed"):
        raise MethodError(f"unknown family {family!r}: choose 'auto' or 'fixed', or name one in method=.")
    if method != "auto":
        parse_method(method)  # type: ignore[arg-type]


def check_methods(names: Sequence[str], parse: Callable[[str], Hashable]) -> None:
    """That there are methods to compare, each of them once; `parse` says what a name means.

    Raises:
        MethodError: none, or one twice, maybe under two names.
    """
    if not names:
        raise MethodError("methods is empty: name one at least, such as 'avi'.")
    seen: dict[Hashable, str] = {}
    for name in names:
        meant = parse(name)
        if meant in seen:
            same = (
                f"{seen[meant]!r} and {name!r} are the same method"
                if seen[meant] != name
                else f"{name!r} is named twice"
            )
            raise MethodError(
                f"{same}: its rows would be equal. Name it once; repeats= (--repeats) gives more seeds."
            )
        seen[meant] = name


def _nearest(word: str, known: Sequence[str]) -> str:
    """A question after the name that was meant, empty where none is near."""
    return did_you_mean(word.replace("_", "-"), known)


def _count(method: Method, part: str, argument: str | None) -> int:
    """The positive number in a part such as `mlp(32)`."""
    word = part.partition("(")[0]
    kind = _SIZES[word]
    what, limit = "number" if kind == word else kind, LIMITS[kind]
    digits = (argument or "").strip()
    if not digits.isdecimal() or not digits.isascii() or not digits.strip("0"):
        raise MethodError(
            f"{word} in {method.name!r} needs a positive {what}, such as {word}(2); got {part!r}."
        )
    if len(digits) > 20 or int(digits) > limit.most:
        raise MethodError(
            f"{word} in {shortened(method.name)!r}: {limit.most} is the most, as {limit.why}. Give a smaller {what}."
        )
    return int(digits)


def _items(argument: str) -> list[str]:
    return [item.strip() for item in argument.split(",")]


def _window(method: Method, part: str, items: list[str]) -> list[DataColumn]:
    names = [item for item in items if not _OFFSET.fullmatch(item)]
    written = [item for item in items if _OFFSET.fullmatch(item)]
    far = next((item for item in written if len(item) > 20 or abs(int(item)) > _MOST_OFFSET), None)
    if far is not None:
        raise MethodError(
            f"window in {shortened(method.name)!r} reads a row {shortened(far)} rows from the unit's own: offsets are "
            "small, such as -1, 0 and 1."
        )
    offsets = tuple(int(item) for item in written)
    if not names or not all(names) or not offsets or len(set(offsets)) < len(offsets):
        raise MethodError(
            f"window in {method.name!r} needs data entries and the offsets of their rows from the unit's own, such as "
            f"window(x, -1, 0); got {part!r}."
        )
    return [(name, offsets) for name in names]
