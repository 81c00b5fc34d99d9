"""Where globals and units stand in Stan's vector, and the fixed centres and scales that standardize them."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from avistan.runtime.device import on_device
from stan_adapters.data.layout import IndexArray


class Placement(eqx.Module):
    """Puts G globals and N x d locals into the order of the unconstrained vector."""

    order: Int[Array, " D"]  # order[i] = place of coordinate i in [globals, locals (d, N)]
    inverse: Int[Array, " D"]
    global_index: Int[Array, " G"]
    local_index: Int[Array, "N d"]

    def __call__(self, of_globals: Float[Array, " G"], of_locals: Float[Array, "d N"]) -> Float[Array, " D"]:
        return _permute(jnp.concatenate([of_globals, of_locals.reshape(-1)]), self.order, self.inverse)


@jax.custom_vjp
def _permute(values: Array, order: Array, inverse: Array) -> Array:
    return values[order]


def _permute_forward(values: Array, order: Array, inverse: Array) -> tuple[Array, tuple[Array, Array]]:
    return values[order], (order, inverse)


def _permute_backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, None, None]:
    return cotangent[saved[1]], None, None  # the transpose of a permutation is a gather, not a scatter


_permute.defvjp(_permute_forward, _permute_backward)


def make_placement(globals_index: IndexArray, local_index: IndexArray) -> Placement:
    """The placement of a level: globals at positions (G,), unit n's block at row n of (N, d)."""
    position = np.concatenate([globals_index, local_index.T.ravel()])
    order = np.argsort(position)
    return Placement(*map(on_device, (order, position, globals_index, local_index)))


class Frame(eqx.Module):
    """Fixed centres and scales: (G,) for globals; for locals one column for all units, (d, 1), or one each, (d, N)."""

    global_center: Float[Array, " G"]
    global_scale: Float[Array, " G"]
    global_log_scale: Float[Array, " G"]
    local_center: Float[Array, "d M"]
    local_scale: Float[Array, "d M"]
    local_log_scale: Float[Array, "d M"]


def make_frame(
    global_center: ArrayLike, global_scale: ArrayLike, local_center: ArrayLike, local_scale: ArrayLike
) -> Frame:
    """A frame of centres and positive scales, shapes as in `Frame`."""
    center, scale, unit_center, unit_scale = (
        np.asarray(part) for part in (global_center, global_scale, local_center, local_scale)
    )
    parts = (center, scale, np.log(scale), unit_center, unit_scale, np.log(unit_scale))
    return Frame(*map(on_device, parts))
