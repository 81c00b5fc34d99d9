"""Standard normals of draws of q: a unit's depend on its number alone, not on how many units are drawn with it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Noise(NamedTuple):
    """What S draws of q are functions of.

    Attributes:
        t: standard normals of the globals.
        e: of the units' latents.
        keys: of each unit; what a form draws besides (`student`) folds a number of its own into them.
    """

    t: Float[Array, "S G"]
    e: Float[Array, "S d N"]
    keys: PRNGKeyArray  # (N,)

    def mirrored(self) -> Noise:
        """The draws, each followed by the one with the normals' signs turned: antithetic pairs, (2 S, ...)."""

        def pairs(part: Array) -> Array:
            return jnp.stack([part, -part], axis=1).reshape(2 * len(part), *part.shape[1:])

        return Noise(pairs(self.t), pairs(self.e), self.keys)


def normals(
    key: PRNGKeyArray,
    units: Int[Array, " N"],
    draws: int,
    num_globals: int,
    block: int,
    dtype: DTypeLike = jnp.float64,
) -> Noise:
    """Standard normals of `draws` draws. The globals' are those of units with negative numbers.

    Args:
        units: numbers of the units in their level: unit n has the same normals in every batch that it is in.
        num_globals, block: G and d.

    Example: `normals(jax.random.key(1), jnp.arange(50), 8, num_globals=3, block=1)`.
    """
    width = max(1, block)
    of_globals = jnp.arange(-(-num_globals // width), dtype=units.dtype)  # in blocks of a unit's width
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.concatenate([-1 - of_globals, units]))
    e = jax.vmap(lambda own: jax.random.normal(own, (draws, width), dtype=dtype), out_axes=2)(keys)
    t, e = jnp.split(e, [len(of_globals)], axis=2)
    return Noise(t.reshape(draws, -1)[:, :num_globals], e[:, :block], keys[len(of_globals) :])
