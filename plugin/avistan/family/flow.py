"""A flow of single numbers: the sinh-arcsinh map, with which a factor becomes skewed or heavy-tailed.

    T(r) = sinh(delta asinh(r) + epsilon) - sinh(epsilon)

acts on a coordinate r in its own sds. epsilon skews, delta < 1 makes tails lighter and delta > 1 heavier; at
epsilon = 0, delta = 1 it is the identity, where a family that grows a flow starts. Slope and inverse have closed forms.

Source: Jones & Pewsey, "Sinh-arcsinh distributions", Biometrika 2009.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from avistan.family.parts import Moved, Units

NUMBERS = 2  # of an entry: epsilon and log delta, both raw
_MOST_SKEW, _MOST_TAIL = 1.5, 1.0  # of epsilon and log delta: raw numbers flatten towards them


class Bent(NamedTuple):
    """T(r), log T'(r) and d log T'(r) / dr, entry by entry."""

    value: Any
    log_slope: Any
    curvature: Any


def bend(numbers: Any, r: Any) -> Bent:
    """T at r (S, ...) with numbers (2, ...); JAX arrays, or numpy's if both are."""
    xp: Any = np if isinstance(r, np.ndarray) and isinstance(numbers, np.ndarray) else jnp
    (epsilon, _), (log_delta, _) = _of_raw(numbers)
    delta = xp.exp(log_delta)
    u = delta * xp.arcsinh(r) + epsilon
    square = 1 + r**2
    log_cosh = xp.abs(u) + xp.log1p(xp.exp(-2 * xp.abs(u))) - np.log(2)
    return Bent(
        value=xp.sinh(u) - xp.sinh(epsilon),
        log_slope=log_cosh + log_delta - 0.5 * xp.log(square),
        curvature=xp.tanh(u) * delta / xp.sqrt(square) - r / square,
    )


def number_slopes(numbers: Any, r: Any) -> Any:
    """d T(r) / d numbers, (2, S, ...); arguments as of `bend`, in numpy."""
    (epsilon, of_skew), (log_delta, of_tail) = _of_raw(numbers)
    power = np.exp(log_delta) * np.arcsinh(r)
    cosh = np.cosh(power + epsilon)
    return np.stack([of_skew * (cosh - np.cosh(epsilon)), of_tail * cosh * power])


def straighten(numbers: Any, y: Any) -> Any:
    """r with T(r) = y; arguments as of `bend`."""
    xp: Any = np if isinstance(y, np.ndarray) and isinstance(numbers, np.ndarray) else jnp
    (epsilon, _), (log_delta, _) = _of_raw(numbers)
    return xp.sinh((xp.arcsinh(y + xp.sinh(epsilon)) - epsilon) * xp.exp(-log_delta))


def flattened(raw: Any, most: float, least: float | None = None) -> tuple[Any, Any]:
    """Values that flatten towards `most`, and -`least` (by default -`most`), and their derivative; of a JAX array, or
    numpy's.
    """
    xp: Any = np if isinstance(raw, np.ndarray) else jnp
    limit = most if least is None else xp.where(raw > 0, most, least)
    flat = limit * xp.tanh(raw / limit)
    return flat, 1 - (flat / limit) ** 2


def _of_raw(numbers: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Epsilon and log delta, each with its derivative by the raw number."""
    return flattened(numbers[0][None], _MOST_SKEW), flattened(numbers[1][None], _MOST_TAIL)


def transformed(numbers: Any, sd: Any, moved: Any, pull: Any) -> tuple[Any, Any, Any]:
    """What moves entries (S, ...), its pull, and the log slopes, after the flow in units of their sds (...)."""
    found = bend(numbers, moved / sd[None])
    return (
        sd[None] * found.value,
        (pull + found.curvature / sd[None]) * jnp.exp(-found.log_slope),
        found.log_slope,
    )


def of_units(units: Units, x: Moved) -> Moved:
    """T_n of what units have of their own, in their sds."""
    numbers = units.nu.warp.reshape(units.local.block, NUMBERS, -1).swapaxes(0, 1)
    value, pull, log_slopes = transformed(numbers, jnp.exp(units.nu.log_sd), x.value, x.pull)
    return x._replace(value=value, pull=pull, log_q=x.log_q - jnp.sum(log_slopes, axis=1))
