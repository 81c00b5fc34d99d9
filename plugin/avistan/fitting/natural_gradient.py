"""A step of all globals at once, with the units that depend on them, along the natural gradient of the ELBO.

Where units depend on the globals, moving these together is worth little against the tolerance of the ELBO and much in
their sds, and Adam's steps, entry by entry, are slow there. Along the standard normals t of q(theta) the posterior's
precision is near the identity, so the gradient itself is the step. It is Newton's where the globals are at their means.

Source: natural gradients, Amari, Neural Computation 1998.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from avistan.density.log_density import log_density
from avistan.family.family import Draws, Family
from avistan.family.functions import MLP, Table
from avistan.family.globals import GlobalGaussian
from avistan.family.normals import Noise
from avistan.objective.elbo import block_normals, block_size, tabulated
from avistan.runtime.device import on_device
from avistan.runtime.types import FloatArray

ROUNDS = 4
STILL = 0.1  # sds: with so many draws about the noise of a step
_DRAWS, _FEWEST_DRAWS, _NUMBERS = 64, 16, 2_000_000  # of a gradient, fewer of many parameters
_MOST_PARAMETERS = 250_000  # beyond which it costs more than it brings


@dataclass(frozen=True, slots=True, eq=False)
class GlobalStep:
    """A family moved along its globals, how far, in sds, and the gradients that it took."""

    family: Family
    size: float
    gradient_evaluations: int


def natural_gradient_step(
    family: Family, inputs: Float[Array, "N R"], slot: int, key: PRNGKeyArray
) -> GlobalStep | None:
    """The family one step of its globals further; None where `can_move` says so, of very many parameters, and where
    draws say nothing.

    Args:
        inputs: of all units.
        slot: of the model.
    """
    if not can_move(family) or family.dim > _MOST_PARAMETERS:
        return None
    draws = int(np.clip(_NUMBERS // family.dim, _FEWEST_DRAWS, _DRAWS))
    shift, accepted, made = shift_of_globals(family, inputs, slot, key, draws)
    if not accepted or not np.isfinite(shift).all():
        return None
    return GlobalStep(moved_globals(family, shift), float(np.abs(shift).max()), made)


def can_move(family: Family) -> bool:
    """Whether `moved_globals` serves a family: not with a second level among the globals, nor where units that follow
    these depend on each other, or come from a function that is neither a table nor a network.
    """
    local, factor = family.local, family.globals
    if not isinstance(factor, GlobalGaussian) or not factor.size:
        return False
    return not local.directions or (not local.reach and isinstance(family.inference, MLP | Table))


def shift_of_globals(
    family: Family,
    inputs: Float[Array, "N R"],
    slot: int,
    key: PRNGKeyArray,
    draws: int,
    *,
    at_mean: bool = False,
) -> tuple[FloatArray, int, int]:
    """The ELBO's derivatives (G,) by a move of the globals in t that units follow, from antithetic pairs of draws; the
    draws that Stan accepted, which alone count, and all that were made.

    Args:
        draws: at least so many, in blocks of one size.
        at_mean: leave the globals at their means; only units are drawn.
    """
    pairs = block_size(family.dim)
    family, index = tabulated(family, inputs), on_device(slot, np.int64)
    spread = on_device(0.0 if at_mean else 1.0)
    total, accepted = np.zeros(family.globals.size), 0
    blocks = -(-draws // (2 * pairs))
    for number in range(blocks):
        noise = block_normals(family, key, number, pairs)
        gradient, kept = _sums_of_derivatives(family, inputs, index, noise, spread)
        total, accepted = total + np.asarray(gradient), accepted + int(kept)
    return total / max(1, accepted), accepted, 2 * pairs * blocks


@jax.jit
def _sums_of_derivatives(
    family: Family, inputs: Float[Array, "N R"], slot: Int[Array, ""], noise: Noise, spread: Float[Array, ""]
) -> tuple[Float[Array, " G"], Int[Array, ""]]:
    """Sums over the accepted draws of these normals and their mirror images, and how many these are.

    The path derivative, as in `neg_elbo`: with the globals moved by L s, units are where they were at t + s.
    """
    noise = noise.mirrored()
    noise = noise._replace(t=spread * noise.t)

    def of_units(t: Float[Array, "S G"]) -> tuple[Array, Draws]:
        draws = family.draw(noise._replace(t=t), inputs)
        return draws.z, draws

    _, back_to_t, draws = jax.vjp(of_units, noise.t, has_aux=True)

    def log_p(theta: Float[Array, "S G"], z: Float[Array, "S d N"]) -> tuple[Array, Array]:
        lp, status = log_density(slot, family.points(draws._replace(theta=theta, z=z)))
        return jnp.sum(jnp.where(status == 0, lp, 0.0)), status == 0

    (of_theta, of_z), accepted = jax.grad(log_p, argnums=(0, 1), has_aux=True)(draws.theta, draws.z)
    by_theta = jnp.where(accepted[:, None], of_theta + draws.pull_theta, 0.0)
    (by_units,) = back_to_t(jnp.where(accepted[:, None, None], of_z + draws.pull_z, 0.0))

    def of_globals(shift: Float[Array, "1 G"]) -> Array:
        return family.frame.global_scale[None] * family.globals.resolved().moved(shift)

    _, back_to_shift = jax.vjp(of_globals, jnp.zeros((1, family.globals.size)))
    (by_globals,) = back_to_shift(jnp.sum(by_theta, axis=0, keepdims=True))
    return by_globals[0] + jnp.sum(by_units, axis=0), jnp.sum(accepted)


def moved_globals(family: Family, shift: FloatArray) -> Family:
    """The family with its globals moved by `shift` (G,) in t, and units where they were at each value of the globals.

    Requires `can_move(family)`. Log scales of units that flatten far out don't quite stay.
    """
    by_loc, along, curve = (
        None if part is None else np.asarray(part) for part in _moves(family, on_device(shift))
    )
    found: Family = eqx.tree_at(
        lambda f: f.globals.loc, family, on_device(np.asarray(family.globals.loc) + by_loc)
    )
    if along is None:
        return found
    function = family.inference
    assert isinstance(function, MLP | Table)
    function = function.moved_along(np.pad(along, (0, family.local.hidden)))
    return replace(found, inference=function, curve=None if curve is None else on_device(curve))


@jax.jit
def _moves(family: Family, shift: Float[Array, " G"]) -> tuple[Array, Array | None, Array | None]:
    """What a shift in t adds to the globals' means, how far it goes along the directions, and the curve after it."""
    by_loc = family.globals.resolved().moved(shift[None])[0]
    if not family.local.directions:
        return by_loc, None, None
    along = shift if family.directions is None else family.directions @ shift
    if family.curve is None:
        return by_loc, along, None
    return by_loc, along, family.curve.at[:, -1].add(family.curve[:, :-1] @ along)
