"""A flow of single numbers: the sinh-arcsinh map, with which a factor becomes skewed or heavy-tailed.

    T(r) = sinh(delta asinh(r) + epsilon) - sinh(epsilon)

acts on a coordinate r in its own sds. epsilon skews, delta < 1 makes tails lighter and delta > 1 heavier; at
epsilon = 0, delta = 1 it is the identity, where a family that grows a flow starts. Slope and inverse have closed forms.

Source: Jones & Pewsey, "Sinh-arcsinh distributions", Biometrika 2009.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from avistan.family.parts import Moved, UnitParameters

NUMBERS = 2  # of an entry: epsilon and log delta, both raw
_MOST_SKEW, _MOST_TAIL = 1.5, 1.0  # of epsilon and log delta: raw numbers flatten towards them


class Bent(NamedTuple):
    """T(r), T'(r) and d log T'(r) / dr, entry by entry."""

    value: Any
    slope: Any
    curvature: Any


def bend(numbers: Any, r: Any) -> Bent:
    """T at r (S, ...) with numbers (2, ...)."""
    epsilon, log_delta = _of_raw(numbers)
    # By exponentials, exact to rounding in absolute terms: hyperbolic functions that are exact in relative terms, which
    # nothing here needs, are made of many more operations, to run and to compile.
    delta, skew = jnp.exp(log_delta), jnp.exp(epsilon)
    side, root = jnp.where(r < 0, -1.0, 1.0), jnp.sqrt(1 + r**2)
    power = jnp.exp(delta * side * jnp.log(side * r + root))
    up = skew * power
    down = 1 / up
    return Bent(
        value=0.5 * (power - 1) * (skew + down),
        slope=0.5 * (up + down) * delta / root,
        curvature=((up - down) / (up + down) * delta - r / root) / root,
    )


def straighten(numbers: Any, y: Any) -> Any:
    """r with T(r) = y; arguments as of `bend`."""
    epsilon, log_delta = _of_raw(numbers)
    return jnp.sinh((jnp.arcsinh(y + jnp.sinh(epsilon)) - epsilon) * jnp.exp(-log_delta))


def flattened(raw: Any, most: float, least: float | None = None) -> tuple[Any, Any]:
    """Values that flatten towards `most`, and -`least` (by default -`most`), and their derivative."""
    limit = most if least is None else jnp.where(raw > 0, most, least)
    flat = limit * jnp.tanh(raw / limit)
    return flat, 1 - (flat / limit) ** 2


def _of_raw(numbers: Any) -> tuple[Any, Any]:
    """Epsilon and log delta."""
    return flattened(numbers[0][None], _MOST_SKEW)[0], flattened(numbers[1][None], _MOST_TAIL)[0]


def transformed(numbers: Any, r: Any, pull: Any) -> tuple[Any, Any, Any]:
    """T of entries (S, ...) in their sds, the pull there, and the log slopes."""
    found = bend(numbers, r)
    return found.value, (pull + found.curvature) / found.slope, jnp.log(found.slope)


def of_units(units: UnitParameters, x: Moved) -> Moved:
    """T_n of what units have of their own, in their sds."""
    numbers = units.nu.warp.reshape(units.local.block, NUMBERS, -1).swapaxes(0, 1)
    value, pull, log_slopes = transformed(numbers, x.value, x.pull)
    return x._replace(value=value, pull=pull, log_q=x.log_q - jnp.sum(log_slopes, axis=1))
