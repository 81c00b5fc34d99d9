"""Which method a name stands for, and on which level: what `auto` takes, and what a method needs of a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from avistan.family.method import MAX_REACH, Method, parse_method
from avistan.fitting.options import FitOptions
from avistan.runtime.errors import MethodError
from avistan.start.laplace_chain import MAX_GLOBALS
from avistan.start.preparation import Preparation
from stan_adapters.errors import StructureError
from stan_adapters.levels.candidates import Candidate
from stan_adapters.levels.levels import Level
from stan_adapters.structure.reasons import listed
from stan_adapters.structure.structure import Structure, Verdict

MOST_FREE_UNITS = 200  # of a second level that `auto` leaves without a function of its own


def resolve(method: str, structure: Structure, dim: int, *, grow: bool) -> tuple[Method, str]:
    """The method that a name, or "auto", stands for, and why it was taken.

    Args:
        dim: parameters of the model.
        grow: whether the family may grow beyond it.

    Raises:
        MethodError: there is no such method.
    """
    reason, chain = "", _chain(structure)
    if method != "auto":
        parsed = parse_method(method)
        if parsed.amortized and structure.verdict is not Verdict.CLOSABLE:
            reason = f"The gap to F-VI can't close here ({structure.verdict}): {structure.reason}"
        elif grow:
            parsed, reason = _with_second(parsed, structure)
    elif structure.verdict is Verdict.CLOSABLE:
        parsed, reason = _with_second(parse_method("avi"), structure)
    else:
        name, why = "fvi", "F-VI"
        if grow and chain is not None:
            name, why = _structured(chain, dim), "F-VI with a band of dependence between units"
        parsed = parse_method(name)
        reason = f"{why}, because amortization is {structure.verdict}: {structure.reason}"
    if grow and chain is not None and parsed.function == "table" and structure.level in (None, chain.level):
        parsed = replace(parsed, coupling=_reach(chain))
    return parsed, reason


def level_for(method: Method, structure: Structure) -> Level | None:
    """The chosen level; for a method that insists on one where none is closable, the largest coupled one; for a
    banded factor, the largest one that is coupled along its axis, if none was named.

    Raises:
        MethodError: no units are coupled as a banded factor needs it.
    """
    if method.reach or method.coupling:
        chain = _chain(structure)
        if chain is not None:
            return chain.level
        raise MethodError(
            f"{method.name}: a banded factor serves units that depend on their neighbours, as in a random walk, and "
            f"none do here ({structure.verdict}). {structure.reason} Use :full-rank and :conditional for what "
            "units share through the globals, or name a coupled level with level=."
        )
    if structure.level is not None:
        return structure.level
    if method.function == "table":
        return None
    coupled = [c.level for c in structure.candidates if c.has_rows] or [c.level for c in structure.candidates]
    return coupled[0] if coupled else None


def needs_whole(methods: Sequence[Method], options: FitOptions) -> bool:
    """Whether steps must see all units: minibatches serve the path estimator, no low-rank globals, no coupled units."""
    return options.estimator != "path" or any(
        method.globals == "low-rank" or method.reach > 0 for method in methods
    )


def others_beside(structure: Structure, level: Level | None) -> tuple[Level, ...]:
    """The levels that can be amortized besides one, those with most latents first: their units are independent given
    everything else, that level's latents included.
    """
    if level is None:
        return ()
    found = [c.level for c in structure.candidates if c.separable and c.has_rows]
    beside = [other for other in found if other.block and not set(other.latents) & set(level.latents)]
    return tuple(sorted(beside, key=lambda other: (-other.index.size, -other.num_units)))


def _with_second(method: Method, structure: Structure) -> tuple[Method, str]:
    """The method with a second level amortized too, and why, where that has very many units and nothing that the
    method's name says of the globals, and of units that depend on them, would be lost.
    """
    others = others_beside(structure, structure.level)
    related = (method.globals, method.conditional, method.reach, method.flow) != (
        "mean-field",
        "none",
        0,
        False,
    )
    if not method.amortized or method.second is not None or related:
        return method, ""
    if not others or others[0].num_units <= MOST_FREE_UNITS:
        return method, ""
    return parse_method(f"{method.name}:levels"), (
        f"A second level is amortized too, because {others[0].name} has more than {MOST_FREE_UNITS} units: "
        f"{others[0].num_units}, each with latents of {listed(others[0].latents)}. In q the levels are independent of "
        "each other."
    )


def readable(preparation: Preparation, method: Method, reason: str, *, asked: str) -> tuple[Method, str]:
    """The method, or a simpler one where what was not `asked` for by name needs signatures that units don't have."""
    alone = parse_method("avi" if asked == "auto" else asked)
    if method.second is not None and alone.second is None:
        try:
            preparation.second_input(preparation.second_level(method))
        except StructureError as error:
            why = f"One level is amortized, because the units of the other have no signatures: {error}"
            method, reason = alone, why
    if method.amortized and asked == "auto":
        try:
            preparation.unit_input(method)
        except StructureError as error:
            method, reason = parse_method("fvi"), f"F-VI, because the units have no signatures: {error}"
    return method, reason


def _chain(structure: Structure) -> Candidate | None:
    """The candidate whose units a banded factor serves: the coupled one that the user named, or else the one with most
    latents whose coupling is a band.
    """
    if structure.chosen is not None and not structure.chosen.separable and structure.chosen.level.block:
        return structure.chosen
    bands = [c for c in structure.candidates if c.shape == "band" and c.has_rows]
    return max(bands, key=lambda c: (c.level.index.size, c.level.num_units), default=None)


def _structured(chain: Candidate, dim: int) -> str:
    """The method of `auto` for units that depend on their neighbours: it starts at Laplace's approximation, which
    knows how the chain depends on the globals while these are few. Growing there from F-VI ends lower: F-VI's globals
    are far away, and globals and units only move together.
    """
    reach, num_globals = _reach(chain), dim - chain.level.index.size
    banded = "fvi:banded" if reach == 1 else f"fvi:banded({reach})"
    if not 0 < num_globals <= MAX_GLOBALS:
        return banded
    return f"{banded}{':full-rank' if num_globals > 1 else ''}:conditional(mean+scale)"


def _reach(chain: Candidate) -> int:
    """On how many units before it a unit of a banded factor depends."""
    return min(chain.coupling.reach, MAX_REACH) if chain.coupling is not None and chain.shape == "band" else 1
