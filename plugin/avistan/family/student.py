"""Heavy-tailed units: Student's t in d dimensions in place of the Gaussian, r = e / sqrt(w / nu), w chi-squared.

    log q(r) = log Gamma((nu + d) / 2) - log Gamma(nu / 2) - d/2 log(nu pi) - (nu + d)/2 log(1 + r'r / nu)

nu = 2 + 98 exp(-3 raw) degrees of freedom, each unit's own: at raw = 0, where a family that grows tails starts, t is
within 1e-4 nats a latent of the Gaussian; at the least it has three. w is differentiated through its distribution
function.

Source: Student's t as a scale mixture, Andrews & Mallows, JRSS B 1974; Figurnov, Mohamed & Mnih, "Implicit
reparameterization gradients", NeurIPS 2018, as `jax.random.gamma` has it.
"""

from __future__ import annotations

from math import log, pi

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import PRNGKeyArray

from avistan.family.normals import Noise
from avistan.family.parts import Moved, UnitParameters

NUMBERS = 1  # of a unit: raw
_MIXING = 0  # folded into the key of a unit
_FEWEST, _MOST = 2.0, 98.0  # degrees of freedom that all have, and those that vanish
_RANGE = 4.6  # of the exponent, towards which it flattens: 3 degrees of freedom
_RATE = 3.0  # of the exponent in raw, whose steps are those of log sds


def degrees_of_freedom(raw: jax.Array) -> jax.Array:
    """nu of raw numbers; below raw = 0 there is nothing but the Gaussian."""
    return _FEWEST + _MOST * jnp.exp(-_RANGE * jnp.tanh(_RATE * raw / _RANGE))


def base(units: UnitParameters, noise: Noise) -> Moved:
    """Student's t draws from standard normals."""
    e = noise.e.astype(jnp.float64)
    draws, d = e.shape[:2]
    nu = degrees_of_freedom(units.nu.tail[0])
    w = 2 * jax.vmap(_gammas, in_axes=(0, 0, None), out_axes=1)(noise.keys, 0.5 * nu, draws)
    r = e * jnp.sqrt(nu[None] / w)[:, None]
    square = jnp.sum(r**2, axis=1)
    log_q = (gammaln(0.5 * (nu + d)) - gammaln(0.5 * nu) - 0.5 * d * (jnp.log(nu) + log(pi)))[None] - 0.5 * (
        nu + d
    )[None] * jnp.log1p(square / nu[None])
    pull = ((nu + d)[None] / (nu[None] + square))[:, None] * r
    return Moved(r, pull, log_q, jnp.zeros_like(units.at))


def _gammas(key: PRNGKeyArray, shape: jax.Array, draws: int) -> jax.Array:
    return jax.random.gamma(jax.random.fold_in(key, _MIXING), shape, (draws,), dtype=jnp.float64)
