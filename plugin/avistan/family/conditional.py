"""Units that depend on the globals: y_n = m_n + A_n a(t) + exp(C_n a(t)) x_n.

    s = W t,    a(t) = [s ; log(1 + exp(V s + c))]         W (K0, G), V (H, K0), c (H,)

A unit's mean and log scale are linear in the directions a(t), with rates A_n and C_n of its own: straight directions,
and curved ones, the hidden units of one small network of the globals that all units share. W is the identity where
globals are few. The log scales flatten within a range.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from avistan.family.flow import flattened
from avistan.family.parts import Moved, UnitParameters
from avistan.runtime.streams import Stream, generator

HIDDEN = 8  # H


class Along(NamedTuple):
    """Where draws stand along the K = K0 + H directions, (S, K), and the slopes of the curved ones, (S, H)."""

    value: Any
    slope: Any


def along(t: Any, straight: Any, curve: Any) -> Along:
    """Of standard normals t (S, G).

    Args:
        straight: W, None for the identity.
        curve: V and, as its last column, c, (H, K0 + 1); None without curved directions.
    """
    s = t if straight is None else t @ straight.T
    if curve is None:
        return Along(s, s[:, :0])
    raw = s @ curve[:, :-1].T + curve[None, :, -1]
    return Along(jnp.concatenate([s, jnp.logaddexp(raw, 0.0)], axis=1), 0.5 * (1 + jnp.tanh(0.5 * raw)))


def through_curve(back: Any, slope: Any, curve: Any) -> Any:
    """Derivatives by s (S, K0) of what has derivatives `back` (S, K) by along(t)."""
    if curve is None:
        return back
    hidden = len(curve)
    return back[:, :-hidden] + (slope * back[:, -hidden:]) @ curve[:, :-1]


def start_curve(num_straight: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Random V, its rows of length 1, and c, standard normal."""
    weights = generator(0, Stream.CURVES).normal(size=(HIDDEN, num_straight + 1))
    weights[:, :-1] /= np.linalg.norm(weights[:, :-1], axis=1, keepdims=True)
    return weights


def scales(units: UnitParameters, x: Moved) -> Moved:
    """exp(C_n a(t)) x."""
    rates = units.per_direction(units.nu.growth)[: units.local.block]
    raw = jnp.einsum("dkn,sk->sdn", rates, units.at)
    growth, slope = flattened(raw, units.local.growth_range, units.local.shrink_range)
    through = units.along(rates, slope * (x.pull * x.value - 1))
    return Moved(
        value=jnp.exp(growth) * x.value,
        pull=jnp.exp(-growth) * x.pull,
        log_q=x.log_q - jnp.sum(growth, axis=1),
        back=x.back - through,
    )


def means(units: UnitParameters, x: Moved) -> Moved:
    """x + A_n a(t)."""
    slope = units.per_direction(units.nu.slope)
    value = x.value + jnp.einsum("dkn,sk->sdn", slope, units.at)
    return x._replace(value=value, back=x.back - units.along(slope, x.pull))
