"""All tables of cases and the places where each is tried, and what engines refuse of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from . import arrays, containers, distributions, elementwise, extremes, language, statements, switching
from .cases import Case
from .places import PLACES
from .running import Outcome, run

REFUSALS = Path(__file__).parents[2] / "conformance" / "refusals.json"
EVERYWHERE = tuple(PLACES)
# Of functions of numbers: one place for each way in which an engine evaluates, interpreted, compiled and differentiated.
SOME = ("transformed data", "model with parameters", "generated quantities")
DIFFERENTIATED = tuple(place for place, (_, _, differentiated) in PLACES.items() if differentiated)
BANK: dict[str, tuple[Callable[[], Iterable[Case]], tuple[str, ...]]] = {
    "arrays": (arrays.cases, EVERYWHERE),
    "language": (language.cases, EVERYWHERE),
    "containers": (containers.cases, (*SOME, "function in transformed data", "function with parameters")),
    "switching": (switching.cases, DIFFERENTIATED),
    "extremes": (extremes.cases, SOME),
    "elementwise": (elementwise.cases, SOME),
    "densities": (distributions.densities, SOME),
    "distribution functions": (distributions.distribution_functions, SOME),
    "statements": (statements.cases, (statements.IN_MODEL, statements.IN_FUNCTION)),
    "sampling": (statements.sampling, (statements.IN_MODEL,)),
}
SLOW_BANK = {"densities by argument": (distributions.single_parameters, ("model with parameters",))}
_BATCH = 12  # cases in one program


def refusals(engine: str, version: str) -> dict[str, list[str]]:
    """The places in which a version of an engine is known to refuse cases, by the case's name."""
    known: dict[str, dict[str, list[str]]] = json.loads(REFUSALS.read_text())
    return known.get(f"{engine} {version}", {})


def outcomes(
    cases: Sequence[Case], place: str, alone: set[str], engine: str = "stanli", batch: int = _BATCH
) -> Iterator[Outcome]:
    """What became of each case in a place; those named in `alone` in programs of their own."""
    if place in (statements.IN_MODEL, statements.IN_FUNCTION):
        yield from (statements.run(case, place, engine) for case in cases)
        return
    together = [case for case in cases if case.name not in alone]
    for start in range(0, len(together), batch):
        yield from run(together[start : start + batch], place, engine)
    for case in cases:
        if case.name in alone:
            yield from run([case], place, engine)
