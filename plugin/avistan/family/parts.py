"""What the parts of the units' factors read, and what they hand on."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from avistan.family.functions import LocalNu


class UnitParameters(NamedTuple):
    """What a part reads.

    Attributes:
        nu: parameters on the unconstrained scale.
        local: their form (`locals.LocalGaussian`).
        at: where draws stand along the directions of the globals, (S, K); (S, 0) where units don't depend on them.
        band_scales: of B_n and D_n (b d d, 1 or N).
        weight: of the units in sums over them, (1, 1, 1 or N).
    """

    nu: LocalNu
    local: Any
    at: Float[Array, "S K"]
    band_scales: Float[Array, "P M"]
    weight: Float[Array, "1 1 M"]

    def along(self, rates: Float[Array, "d K N"], values: Float[Array, "S d N"]) -> Float[Array, "S K"]:
        """Weighted sums over units and latents of values times rates, for each direction."""
        # As a product of two matrices along their rows: of more axes XLA would copy the rates first.
        rows = jnp.moveaxis(rates, 1, 0).reshape(rates.shape[1], -1)
        return (values * self.weight).reshape(len(values), -1) @ rows.T

    def per_direction(self, values: Float[Array, "dK N"]) -> Float[Array, "d K N"]:
        """Rates as rows, directions, units."""
        return values.reshape(-1, self.local.directions, values.shape[1])


class Moved(NamedTuple):
    """Draws on their way.

    Attributes:
        value: what units are moved by.
        pull: -d log q / d value, of each unit.
        log_q: log density of `value`, of each unit, nats.
        back: -d log q / d at, through the directions of the globals, units weighted.
    """

    value: Float[Array, "S d N"]
    pull: Float[Array, "S d N"]
    log_q: Float[Array, "S N"]
    back: Float[Array, "S K"]
