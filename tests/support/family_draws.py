"""Draws of a family in Stan's coordinate order, from rows of standard normals in that order."""

from typing import NamedTuple

import jax

from avistan.family.family import Family
from avistan.family.normals import Noise


class Drawn(NamedTuple):
    """Points, their log densities and the path derivative's half."""

    theta: jax.Array  # (S, D)
    log_q: jax.Array  # (S,)
    pull: jax.Array  # (S, D)


def as_noise(family: Family, rows: jax.Array) -> Noise:
    return Noise(*family.split(rows), jax.random.split(jax.random.key(0), family.num_units))


def drawn(family: Family, rows: jax.Array, inputs: jax.Array) -> Drawn:
    draws = family.draw(as_noise(family, rows), inputs)
    pull = jax.vmap(family.placement)(draws.pull_theta, draws.pull_z)
    return Drawn(family.points(draws), draws.log_q, pull)
