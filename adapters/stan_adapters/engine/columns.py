"""From an engine's flat list of constrained names to arrays with the declared shapes.

Names are `a`, `a.2.3`, `a.1:2.3` (component 2 of element 1 of an array of tuples) and `a.1.real` (complex numbers),
first index fastest within a variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

import numpy as np
import numpy.typing as npt

from stan_adapters.errors import EngineError


@dataclass(frozen=True, slots=True)
class Output:
    """One variable among the columns; complex ones take two columns an element. Tuple components are `t:1`, `t:2`."""

    name: str
    columns: slice
    shape: tuple[int, ...]
    is_complex: bool

    def take(self, flat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | npt.NDArray[np.complex128]:
        """The variable's values out of columns (S, P): shape (S, *shape)."""
        columns = flat[:, self.columns]
        if self.is_complex:
            pairs = np.ascontiguousarray(columns).view(np.complex128)
            return np.ascontiguousarray(pairs.reshape(len(flat), *self.shape, order="F"))
        return np.ascontiguousarray(columns.reshape(len(flat), *self.shape, order="F"))


def component(name: str) -> str:
    """What `t:1`, `t.2:1` or `t:1:2` is, in words; empty for a name that is no tuple component's."""
    head, colon, number = name.rpartition(":")
    if not colon:
        return ""
    inside = component(head)
    variable, _, element = head.partition(".")
    whole = f"element {element} of the array of tuples {variable}" if element else f"the tuple {head}"
    return f"component {number.partition('.')[0]} of {inside or whole}"


def parse_names(names: Sequence[str]) -> tuple[Output, ...]:
    """The variables behind an engine's constrained names, in order.

    Raises:
        EngineError: the names of a variable do not fill a rectangle.
    """
    outputs, start = [], 0
    for key, group in groupby(names, key=_variable):
        members = list(group)
        outputs.append(_output(key, members, start))
        start += len(members)
    return tuple(outputs)


def _variable(name: str) -> str:
    head, colon, component = name.rpartition(":")
    return head + colon + component.partition(".")[0]


def _output(key: str, names: list[str], start: int) -> Output:
    last = names[-1][len(key) :].split(".")[1:]
    is_complex = bool(last) and last[-1] in ("real", "imag")
    shape = tuple(int(part) for part in last[: len(last) - is_complex])
    if prod(shape) * (1 + is_complex) != len(names):
        raise EngineError(f"the engine lists {len(names)} columns for {key}, whose last one is {names[-1]}.")
    return Output(key, slice(start, start + len(names)), shape, is_complex)
