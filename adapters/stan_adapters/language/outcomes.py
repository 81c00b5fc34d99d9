"""Which declared data are outcomes: they stand left of a `~`, or before the bar of a density, in the program's text.

Used to sort data into ArviZ's observed and constant groups, never for inference: a program that hides its outcomes in a
function of its own has none, and all its data are constant.
"""

from __future__ import annotations

import re

from stan_adapters.language.program import Program

_IGNORED = re.compile(r'//[^\n]*|/\*.*?\*/|"[^"\n]*"', re.DOTALL)
_INDEX = r"(?:\s*\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\])*"  # y[n], y[g[n], 2]
_LEFT_OF_TILDE = re.compile(rf"\b([A-Za-z]\w*){_INDEX}\s*~")
_BEFORE_BAR = re.compile(rf"_lu?p[dm]f\s*\(\s*([A-Za-z]\w*){_INDEX}\s*\|")


def outcomes(program: Program) -> tuple[str, ...]:
    """Names of the data that the program gives a distribution, in the order of their declarations."""
    text = _IGNORED.sub(" ", program.without_generated_quantities().source)
    named = {match[1] for pattern in (_LEFT_OF_TILDE, _BEFORE_BAR) for match in pattern.finditer(text)}
    return tuple(declaration.name for declaration in program.data if declaration.name in named)
