"""The bounds of parameters, as far as the data give them: between them there must be room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stan_adapters.data.checks import Array
from stan_adapters.errors import DataError
from stan_adapters.language.expressions import Unevaluable
from stan_adapters.language.program import Program, StanType


def check_bounds(program: Program, env: Mapping[str, Any], source: str) -> None:
    """That every parameter's support has room.

    Args:
        env: the data.
        source: where they come from, for the message.

    Raises:
        DataError: a lower bound that is not below the upper one, a multiplier that is not positive, or a bound that is
            NaN; with the declaration and the values.
    """
    for declaration in program.parameters:
        for kind in _parts(declaration.type):
            for bad, reason in _faults(kind, env):
                if bad.any():
                    where = np.argwhere(bad)[0]
                    at = f" at [{', '.join(str(place + 1) for place in where)}]" if where.size else ""
                    raise DataError(
                        f"parameter `{declaration.name}` can have no value{at}: {reason}. Declared `{declaration}` at "
                        f"{declaration.location}. Data: {source}."
                    )


def _parts(kind: StanType) -> list[StanType]:
    return [kind, *(inner for element in kind.elements for inner in _parts(element))]


def _faults(kind: StanType, env: Mapping[str, Any]) -> Iterator[tuple[Array, str]]:
    """Where a bound can't be met, and what is then wrong."""
    for word in ("lower", "upper", "offset", "multiplier"):
        found = _value(kind, word, env)
        if found is not None:
            yield np.isnan(found), f"{word}={getattr(kind, word)} is NaN"
    scale = _value(kind, "multiplier", env)
    if scale is not None:
        bad = ~((scale > 0) & np.isfinite(scale))
        yield bad, f"multiplier={kind.multiplier} is {_first(scale, bad)}, and must be positive"
    lower, upper = _value(kind, "lower", env), _value(kind, "upper", env)
    if lower is not None and upper is not None:
        try:
            lower, upper = np.broadcast_arrays(lower, upper)
        except ValueError:  # shapes that do not fit: the engine says so
            return
        bad = lower >= upper
        yield bad, f"lower={_said(kind.lower, lower, bad)} is not below upper={_said(kind.upper, upper, bad)}"


def _value(kind: StanType, word: str, env: Mapping[str, Any]) -> Array | None:
    """A bound as numbers; None where there is none, or transformed data or other parameters decide it."""
    bound = getattr(kind, word)
    if bound is None:
        return None
    try:
        return np.asarray(bound.evaluate(env), dtype=np.float64)
    except (Unevaluable, TypeError, ValueError):
        return None


def _said(bound: object, values: Array, bad: Array) -> str:
    number = _first(values, bad)
    return number if str(bound) == number else f"{bound} = {number}"


def _first(values: Array, bad: Array) -> str:
    return f"{values[bad][0]:g}" if bad.any() else ""
