"""Methods by name: "avi", "fvi", "constant", with parts after colons, such as "avi:mlp(32)" or "fvi:full".

All are one family with another source of nu: a method only chooses inference function, input and local factor.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import Literal

from .errors import MethodError
from .families import LocalKind

FunctionKind = Literal["table", "constant", "polynomial", "mlp"]

DEFAULT_WIDTH = 64
_KNOWN = ("avi", "fvi", "constant")
_PART = re.compile(r"(?P<word>[a-z]+)(?:\((?P<argument>[^()]*)\))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What a method's name means.

    Attributes:
        name: the canonical text, which `parse_method` reads back.
        function: where the variational parameters of a unit come from.
        size: width of the MLP or degree of the polynomial; 0 for the others.
        local: covariance of a unit's factor.
        data: declared data entries as input in place of the signature; empty for the signature.
    """

    name: str
    function: FunctionKind
    size: int = 0
    local: LocalKind = "diagonal"
    data: tuple[str, ...] = ()

    @property
    def amortized(self) -> bool:
        """Whether it learns a function of the unit's input."""
        return self.function in ("polynomial", "mlp")


def parse_method(text: str) -> Method:
    """The method of a name.

    The grammar is `avi[:mlp(W) | :polynomial(K)][:data(x, ...)][:full]`, `fvi[:full]`, `constant[:full]`.

    Raises:
        MethodError: not of that form, with the nearest name that is.
    """
    head, *parts = [part.strip() for part in text.split(":")]
    if head not in _KNOWN:
        near = difflib.get_close_matches(head, _KNOWN, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise MethodError(
            f"unknown method {text!r}.{hint} Methods are avi, avi:mlp(WIDTH), avi:polynomial(DEGREE), "
            "avi:data(NAME), fvi, constant, each with :full for a full covariance within a unit."
        )
    start: dict[str, FunctionKind] = {"avi": "mlp", "fvi": "table", "constant": "constant"}
    method = Method(name=text, function=start[head], size=DEFAULT_WIDTH if head == "avi" else 0)
    for part in parts:
        method = _with_part(method, head, part)
    return replace(method, name=":".join([head, *parts]))


def _with_part(method: Method, head: str, part: str) -> Method:
    match = _PART.fullmatch(part)
    word, argument = (match["word"], match["argument"]) if match else (part, None)
    if word == "full" and argument is None:
        return replace(method, local="full")
    if head == "avi" and word in ("mlp", "polynomial"):
        if argument is None or not argument.strip().isdecimal() or int(argument) < 1:
            what = "width" if word == "mlp" else "degree"
            raise MethodError(
                f"{word} in {method.name!r} needs a positive {what}, such as {word}(2); got {part!r}."
            )
        return replace(method, function="mlp" if word == "mlp" else "polynomial", size=int(argument))
    if head == "avi" and word == "data" and argument:
        return replace(method, data=tuple(name.strip() for name in argument.split(",")))
    allowed = "mlp(WIDTH), polynomial(DEGREE), data(NAME), full" if head == "avi" else "full"
    raise MethodError(f"{head} has no part {part!r} (in {method.name!r}): it takes {allowed}.")
