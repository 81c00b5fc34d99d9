"""Where a program has what an engine says it lacks: engines name a function or their own node, users look for a line.

What stanli lacks altogether is in `docs/programs_and_data.md`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stan_adapters.language.program import Program

# The function in messages such as "unsupported function norm1", "poisson_lpmf: int argument must be int data".
_NAMED = (
    re.compile(r"unsupported (?:int size )?function (\w+)"),
    re.compile(r"region: function (\w+)"),
    re.compile(r"(?:^|: )(\w+_(?:lpdf|lpmf|lcdf|lccdf|cdf|rng))\b"),
    re.compile(r": (\w+) needs a "),
    re.compile(r"UserDefined (\w+)"),
)
_SKIPPED = re.compile(r'//[^\n]*|/\*.*?\*/|"[^"\n]*"', re.DOTALL)
_MOST = 3  # places in a message


class _Construct(NamedTuple):
    """A part of the language: its name, what the engine says of it, and how it is written."""

    name: str
    said: re.Pattern[str]
    written: re.Pattern[str]


_CONSTRUCTS = tuple(
    _Construct(name, re.compile(said), re.compile(written))
    for name, said, written in (
        (
            "tuples",
            r"\bSTuple\b|TupleProjection|malformed (?:un)?sized declaration type",
            r"\btuple\s*\(|\b(?:eigendecompose(?:_sym)?|qr(?:_thin)?|svd)\s*\(",
        ),
        ("complex numbers", r"\bSComplex", r"\bcomplex(?:_vector|_row_vector|_matrix)?\b"),
        ("`jacobian +=`", "JacobianPE", r"\bjacobian\s*\+="),
        ("`row_stochastic_matrix`", "StochasticRow", r"\brow_stochastic_matrix\b"),
        ("`column_stochastic_matrix`", "StochasticColumn", r"\bcolumn_stochastic_matrix\b"),
        ("`fatal_error`", "FnFatalError", r"\bfatal_error\s*\("),
        ("`gaussian_dlm_obs`", "gaussian_dlm_obs takes", r"\bgaussian_dlm_obs(?:_lu?pdf)?\s*\("),
    )
)


def lacking(message: str, program: Program) -> str:
    """The part of the language that a message is about, and where the program has it; else empty.

    Example: "tuples at model.stan:7:3 and 1 more".
    """
    code = _SKIPPED.sub(lambda found: " " * len(found[0]), program.source)
    for construct in _CONSTRUCTS:
        if construct.said.search(message):
            places = [found.start() for found in construct.written.finditer(code)]
            return _listed(construct.name, places, program)
    return ""


def call_sites(message: str, program: Program) -> str:
    """The function that a message names, and where the program calls it; empty if it names none that is called.

    Example: "`norm1` at model.stan:7:12" or "`norm1` at model.stan:7:12, 9:3 and 4 more".
    """
    for pattern in _NAMED:
        for name in pattern.findall(message):
            if sites := _listed(f"`{name}`", _calls(name, program.source), program):
                return sites
    return lacking(message, program)


def _listed(name: str, positions: list[int], program: Program) -> str:
    places = [program.locate(position) for position in positions]
    if not places:
        return ""
    first, *others = places[:_MOST]
    shown = "".join(f", {place.line}:{place.column}" for place in others)
    more = f" and {len(places) - _MOST} more" if len(places) > _MOST else ""
    return f"{name} at {first}{shown}{more}"


def _calls(name: str, source: str) -> list[int]:
    """Positions of `name(..)`, and of `~ stem(..)` for a density `stem_lpdf` or mass `stem_lpmf`."""
    code = _SKIPPED.sub(lambda found: " " * len(found[0]), source)
    stem, _, suffix = name.rpartition("_")
    pattern = rf"\b{name}(?=\s*\()"
    if suffix in ("lpdf", "lpmf"):
        pattern += rf"|\b{stem}_lu{suffix[1:]}(?=\s*\()|(?<=~)\s*\b{stem}(?=\s*\()"
    elif suffix in ("lcdf", "lccdf"):  # of a truncation
        pattern += rf"|(?<=~)\s*\b{stem}(?=\s*\([^;]*\)\s*T\s*\[)"
    found = re.finditer(pattern, code)
    return [match.end() - len(match[0].lstrip()) for match in found]
