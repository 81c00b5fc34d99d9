"""What a case is, and the number that numpy says its result is.

A case is Stan code that declares a result `r` out of the variables of `environment`, and the same as a numpy
expression. Containers are compared entry by entry, through a weighted sum that no permutation of entries leaves as it
is.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.special
import scipy.stats

from . import closed_forms
from .environment import VARIABLES

_SIZES = r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]"  # one level of brackets within
_TYPE = r"\b(?:int|real|row_vector|vector|matrix|simplex|ordered|cov_matrix)\b(?:<[^>]*>)?"
_RESULT = re.compile(rf"(?:array\s*{_SIZES}\s*)?{_TYPE}\s*(?:{_SIZES})?\s+r\b\s*[;=]")
_NAMES = re.compile(r"\b[A-Za-z]\w*\b")


@dataclass(frozen=True)
class Case:
    """`code` declares `r`; `truth` is Python with numpy as `np`, `special`, `stats`, `linalg`, and `closed_forms`.

    `functions` is Stan for the functions block. `vary`: names that the parameter moves, all real ones if None; others
    are `data` in functions' arguments. `uses`: names of the environment, if the code has local ones of the same name. A
    `statement` declares no `r`: it adds to the target. `points` are values of the
    parameter at which it is tried where it moves names: several, where its branches depend on them.
    """

    name: str
    code: str
    truth: str
    functions: str = ""
    vary: frozenset[str] | None = None
    uses: tuple[str, ...] | None = None
    statement: bool = False
    points: tuple[float, ...] = (0.0,)

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the environment that the code speaks of."""
        if self.uses is not None:
            return self.uses
        words = set(_NAMES.findall(re.sub(r'"[^"]*"', "", self.code)))
        return tuple(name for name in VARIABLES if name in words)

    @property
    def sizes(self) -> list[str]:
        """The sizes of the result as the code declares them."""
        if self.statement:
            return []
        found = list(_RESULT.finditer(self.code))
        if not found:
            raise ValueError(f"{self.name}: no declaration of r in {self.code!r}")
        return [size.strip() for group in found[-1].groups() if group for size in _commas(group)]

    def moves(self, name: str) -> bool:
        return VARIABLES[name].slope is not None and (self.vary is None or name in self.vary)

    @property
    def total(self) -> str:
        """Stan statements after `code` that put the weighted sum of `r` into `s_`."""
        if not self.sizes:
            return "s_ = r;"
        loops, index, flat = "", "", ""
        for axis, size in enumerate(self.sizes):
            loops += f"for (i{axis}_ in 1:{size}) "
            flat = f"({flat}) * ({size}) + i{axis}_ - 1" if axis else "i0_ - 1"
            index += f"{', ' if axis else ''}i{axis}_"
        return f"s_ = 0; {loops}s_ += (1 + 0.31 * ({flat})) * r[{index}];"

    @functools.cache  # noqa: B019 - a few thousand cases, each weighed in several places
    def value(self, t: float = 0.0) -> float:
        """The weighted sum of numpy's result with varying names moved by `t`."""
        known = VARIABLES.keys() & set(_NAMES.findall(self.truth))
        names = {name: VARIABLES[name].at(t if self.moves(name) else 0.0) for name in known}
        scope = {
            "np": np, "special": scipy.special, "stats": scipy.stats, "linalg": scipy.linalg, **vars(closed_forms), **names
        }  # fmt: skip
        result = np.asarray(eval(self.truth, scope), dtype=float)  # our own table
        if result.ndim != len(self.sizes):
            raise ValueError(f"{self.name}: truth has {result.ndim} dimensions, r has {len(self.sizes)}")
        if not self.sizes:
            return float(result)
        return float(np.sum((1 + 0.31 * np.arange(result.size)) * result.ravel()))

    @functools.cache  # noqa: B019
    def slope(self, t: float = 0.0) -> float:
        """The derivative of `value` at `t`, from eighth-order central differences at two steps that agree."""
        slopes = [self._difference(t, step) for step in (0.01, 0.005)]
        if abs(slopes[0] - slopes[1]) > 2e-9 * max(1.0, abs(slopes[1])):
            raise ValueError(f"{self.name}: numpy's derivative is uncertain: {slopes}")
        return slopes[1]

    def _difference(self, t: float, step: float) -> float:
        weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
        terms = ((self.value(t + j * step) - self.value(t - j * step)) * w for j, w in enumerate(weights, 1))
        return sum(terms) / step


def _commas(text: str) -> list[str]:
    """`text` cut at the commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
