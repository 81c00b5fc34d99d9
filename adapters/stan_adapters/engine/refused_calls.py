"""Where a program calls what an engine says it lacks: engines name a function, users look for a line."""

from __future__ import annotations

import re

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


def call_sites(message: str, program: Program) -> str:
    """The function that a message names, and where the program calls it; empty if it names none that is called.

    Example: "`norm1` at model.stan:7:12" or "`norm1` at model.stan:7:12, 9:3 and 4 more".
    """
    for pattern in _NAMED:
        for name in pattern.findall(message):
            places = [program.locate(position) for position in _calls(name, program.source)]
            if places:
                first, *others = places[:_MOST]
                shown = "".join(f", {place.line}:{place.column}" for place in others)
                more = f" and {len(places) - _MOST} more" if len(places) > _MOST else ""
                return f"`{name}` at {first}{shown}{more}"
    return ""


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
