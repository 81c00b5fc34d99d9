"""q of a fit, asked in numpy: what it draws, and its factors given the globals, on the unconstrained scale.

All of it is `Family.draw`, compiled once for a fixed number of rows: more rows are computed some at a time, and the
last of them are padded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from avistan.family.family import Draws, Family
from avistan.family.functions import AbstractInferenceFunction, LocalNu, Table
from avistan.family.normals import Noise, normals
from avistan.objective.elbo import tabulated
from avistan.runtime.device import on_device
from avistan.runtime.precision import in_float64
from avistan.runtime.streams import Stream, stream_key
from avistan.runtime.types import FloatArray, Rng

_ROWS = 128  # that are asked for at a time, and fewer
_NUMBERS = 1 << 20  # where they would have more numbers than this


class Approximation(eqx.Module):
    """q(theta) prod_n q(z_n | theta) of a family whose units' parameters stand in a table.

    Shapes: S draws, G globals, N units with d latents each, D parameters in all, in Stan's order.

    Example: `q = approximation(fit.family, fit.inputs)`, then `q.log_q_globals(q.draw_globals(rng, 100))`.
    """

    family: Family

    @property
    def num_globals(self) -> int:
        """G."""
        return self.family.globals.size

    @property
    def nu(self) -> LocalNu:
        """The units' parameters, standardized."""
        assert isinstance(self.family.inference, Table)
        return self.family.inference.nu

    def with_units(self, nu: LocalNu) -> Approximation:
        """The same with other parameters (standardized) of the units."""
        return Approximation(replace(self.family, inference=Table(nu)))

    def draw_globals(self, rng: Rng, draws: int) -> FloatArray:
        """Draws (S, G) of theta."""
        return self.globals_at(rng.standard_normal((draws, self.num_globals)))

    def globals_at(self, t: FloatArray) -> FloatArray:
        """theta (S, G) of standard normals (S, G)."""
        return _by_rows(_globals_at, self.family, t)[0]

    def log_q_globals(self, theta: FloatArray) -> FloatArray:
        """log q(theta) (S,) of globals (S, G), nats."""
        return _by_rows(_log_q_globals, self.family, theta)[0]

    def globals_score(self, t: FloatArray, gradient: FloatArray) -> FloatArray:
        """The score (S, G) of standard normals (S, G) under a density that has this gradient (S, G) by theta there."""
        return _by_rows(_globals_score, self.family, t, gradient)[0]

    def centers(self, theta: FloatArray) -> FloatArray:
        """Where (S, N, d) units are given globals (S, G) if their own normals are zero: the conditional medians."""
        return _by_rows(_centers, self.family, theta)[0]

    @property
    def center(self) -> FloatArray:
        """The point (D,) whose standard normals are all zero."""
        (point,) = _by_rows(_points_at_zero, self.family, np.zeros((1, self.num_globals)))[0]
        return np.asarray(point)

    @property
    @in_float64
    def factor(self) -> FloatArray:
        """The factor L (G, G) of the standardized globals, theta = loc + T(L t)."""
        return np.asarray(self.family.globals.resolved().factor())

    def draw_units(self, rng: Rng, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """A draw (S, N, d) of the units given each row of globals (S, G), and its log q(z_n | theta) (S, N) in nats."""
        keys = rng.integers(1 << 32, size=(len(theta), 2), dtype=np.uint32)
        z, log_q = _by_rows(_units_given, self.family, theta, keys)
        return z, log_q

    @in_float64
    def draw_pairs(self, seed: int, batch: int, pairs: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Antithetic pairs of draws, one after the other: theta (2 P, G), z (2 P, N, d), log q(z_n | theta) (2 P, N).

        Approximations of the same units have the same standard normals at the same seed and batch.
        """
        key = stream_key(jax.random.key(seed), Stream.REFINEMENT_GAIN, batch)
        theta, z, log_q = map(np.asarray, _pairs(self.family, key, pairs))
        return theta, z, log_q


@in_float64
def approximation(family: Family, inputs: FloatArray) -> Approximation:
    """q of a family at unit inputs (N, R)."""
    values = on_device(inputs, np.float32)
    found = tabulated(family, values).inference
    nu = found.nu if isinstance(found, Table) else _parameters(found, values)
    return Approximation(replace(family, inference=Table(nu)))


@in_float64
def _by_rows(
    compiled: Callable[..., tuple[Array, ...]], family: Family, *rows: npt.NDArray[Any]
) -> tuple[FloatArray, ...]:
    """What a compiled function gives for rows (S, ...), a fixed number of them at a time."""
    count = len(rows[0])
    size = int(np.clip(_NUMBERS // max(1, family.dim), 1, _ROWS))
    parts = []
    for start in range(0, count, size):
        some = [part[start : start + size] for part in rows]
        missing = size - len(some[0])
        if missing:
            some = [np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for part in some]
        made = compiled(family, *map(on_device, some))
        parts.append([np.asarray(part)[: size - missing] for part in made])
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _center(family: Family, t: Float[Array, "S G"]) -> Draws:
    """The family where the units' standard normals are zero."""
    e = jnp.zeros((len(t), family.local.block, family.num_units))
    keys = jnp.broadcast_to(jax.random.key(0), (family.num_units,))
    return family.draw(Noise(t, e, keys), no_inputs(family))


def no_inputs(family: Family) -> Float[Array, "N 0"]:
    """The inputs of a table, which reads none."""
    return jnp.zeros((family.num_units, 0), dtype=jnp.float32)


@eqx.filter_jit
def _parameters(function: AbstractInferenceFunction, inputs: Float[Array, "N R"]) -> LocalNu:
    return function(inputs)


@eqx.filter_jit
def _globals_at(family: Family, t: Float[Array, "S G"]) -> tuple[Array]:
    return (family.draw_globals(t).theta,)


@eqx.filter_jit
def _log_q_globals(family: Family, theta: Float[Array, "S G"]) -> tuple[Array]:
    return (family.draw_globals(family.standard(theta)).log_q,)


@eqx.filter_jit
def _globals_score(family: Family, t: Float[Array, "S G"], gradient: Float[Array, "S G"]) -> tuple[Array]:
    """With log q(theta(t)) = log N(t) - log |J|, J' gradient + d log |J| / dt is J' (gradient + pull) - t."""
    _, back = jax.vjp(lambda at: family.draw_globals(at).theta, t)
    return (back(gradient + family.draw_globals(t).pull)[0] - t,)


@eqx.filter_jit
def _centers(family: Family, theta: Float[Array, "S G"]) -> tuple[Array]:
    return (jnp.swapaxes(_center(family, family.standard(theta)).z, 1, 2),)


@eqx.filter_jit
def _points_at_zero(family: Family, t: Float[Array, "S G"]) -> tuple[Array]:
    return (family.points(_center(family, t)),)


@eqx.filter_jit
def _units_given(
    family: Family, theta: Float[Array, "S G"], keys: UInt32[Array, "S 2"]
) -> tuple[Array, Array]:
    def one(t: Float[Array, " G"], words: Array) -> tuple[Array, Array]:
        drawn = family.draw(
            _normals(family, jax.random.wrap_key_data(words), 1)._replace(t=t[None]), no_inputs(family)
        )
        return drawn.z[0].T, drawn.log_q_units[0]

    return jax.vmap(one)(family.standard(theta), keys)


@eqx.filter_jit
def _pairs(family: Family, key: PRNGKeyArray, pairs: int) -> tuple[Array, Array, Array]:
    drawn = family.draw(pairs_of(family, key, pairs), no_inputs(family))
    return drawn.theta, jnp.swapaxes(drawn.z, 1, 2), drawn.log_q_units


def pairs_of(family: Family, key: PRNGKeyArray, pairs: int) -> Noise:
    """Standard normals of antithetic pairs of draws."""
    return _normals(family, key, pairs).mirrored()


def _normals(family: Family, key: PRNGKeyArray, draws: int) -> Noise:
    return normals(key, jnp.arange(family.num_units), draws, family.globals.size, family.local.block)
