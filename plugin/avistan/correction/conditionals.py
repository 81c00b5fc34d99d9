"""Conditional densities p(z_n | theta, x) of separable units, from scores of the whole program: integrals and draws.

Units are separable: log p(theta, z, x) = c(theta) + sum_n u_n(z_n, theta). One gradient of the whole holds the score of
every unit at its own point, so that a few of them say what all units' conditional densities are. Nothing here looks at
a unit's data. Shapes: S draws of the globals, N units with d latents each, G globals.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpy.polynomial.hermite_e import hermegauss

from avistan.correction.rules import DRAWING, Grade, Rule, make_rule
from avistan.density.log_density import block_gradient
from avistan.family.family import Family
from avistan.family.normals import Noise
from avistan.runtime.types import FloatArray

_ROWS_AT_ONCE = 1024  # draws of units whose densities are held together
_LOWEST, _HIGHEST = -700.0, 300.0  # nats between which densities relative to the centre are added up
_STEEPEST = 30.0  # arcsinh of a slope
_QUANTILES = 5  # of a unit's conditional density at which gradients are averaged
_MOST_SKEWED = 1.0  # of which quantiles are expanded
_FLATTEST = 1e-6  # share of a variance that its Cholesky pivot keeps at least


class Places(NamedTuple):
    """Rough means of units' conditional densities, and factors F with rough covariances F F'.

    Attributes:
        center: unconstrained.
        factor: columns are directions of independent coordinates; lower triangles where `integrate` made them.
    """

    center: Float[Array, "S d N"]
    factor: Float[Array, "S d d N"]


class Integrals(NamedTuple):
    """What conditional densities are.

    Attributes:
        log_marginal: log of the integral of p(theta, z, x) over all units, nats up to the program's constant; nan
            where Stan rejected a point.
        gradient: about that of `log_marginal` by the globals.
        places: means, and Cholesky factors of covariances.
        shift, turn: what led from the rough places to these, see `moved_by`.
        usable: whether Stan accepted all points.
    """

    log_marginal: Float[Array, " S"]
    gradient: Float[Array, "S G"]
    places: Places
    shift: Float[Array, "S d N"]
    turn: Float[Array, "S d d N"]
    usable: Bool[Array, " S"]

    @property
    def farthest(self) -> tuple[Float[Array, "S N"], Float[Array, "S N"]]:
        """How far each unit's rough place was off: in sds, and in log sds."""
        return jnp.abs(self.shift).max(axis=1), jnp.abs(jnp.log(jnp.abs(_diagonal(self.turn)))).max(axis=1)


def _read(
    slot: Int[Array, ""], theta: Float[Array, "S G"], places: Places, rule: Rule
) -> tuple[Float[Array, "K R S N"], Float[Array, " S"], Bool[Array, " S"]]:
    """Slopes along the 2 J rays of every unit at the nodes of their lines, what a Gaussian's lack, as arcsinh unless
    lines are straight; the log density at the rough means; and whether Stan accepted all points.
    """
    draws, block, units = places.center.shape
    offsets = jnp.asarray(rule.offsets)
    points = places.center[:, None] + jnp.einsum("sabn,eb->sean", places.factor, offsets)
    rows = len(rule.offsets)
    lp, _, of_z, status = block_gradient(
        slot, jnp.repeat(theta, rows, axis=0), points.reshape(draws * rows, block, units)
    )
    scores = of_z.reshape(draws, rows, block, units)
    along = jnp.einsum("sabn,sean->sebn", places.factor, scores)  # by standardized coordinates
    lines, count = len(rule.directions), len(rule.nodes)
    away = along[:, 1:].reshape(draws, lines, count - 1, block, units)
    middle = jnp.broadcast_to(along[:, None, :1], (draws, lines, 1, block, units))
    in_order = jnp.concatenate([away[:, :, : count // 2], middle, away[:, :, count // 2 :]], axis=2)
    slopes = jnp.einsum("sjkbn,jb->kjsn", in_order, jnp.asarray(rule.directions))
    excess = slopes + jnp.asarray(rule.nodes)[:, None, None, None]
    bent = excess if rule.straight else jnp.arcsinh(excess)
    return (
        jnp.concatenate([bent, -bent[::-1]], axis=1),
        lp.reshape(draws, rows)[:, 0],
        (status.reshape(draws, rows) == 0).all(axis=1),
    )


def _densities(bent: Float[Array, K * rays], rule: Rule) -> Float[Array, M * rays]:
    """Densities at the points of rays' grids, relative to those at the centres.

    Bent slopes are added up by the cubic through four points of the grid.
    """
    gaussian = -0.5 * jnp.expand_dims(rule.radii**2, tuple(range(1, bent.ndim)))
    if rule.straight:
        risen = jnp.tensordot(jnp.asarray(rule.spline), bent, axes=1)
        return jnp.exp(jnp.clip(risen + gaussian, _LOWEST, _HIGHEST))
    growth = jnp.exp(jnp.clip(jnp.tensordot(rule.spline, bent, axes=1), -_STEEPEST, _STEEPEST))
    slopes = 0.5 * (growth - 1 / growth)  # hyperbolic sines, for a fifth of their price
    steps = 13 * (slopes[1:-2] + slopes[2:-1]) - slopes[:-3] - slopes[3:]
    width = float(rule.radii[1])

    def one(risen: Array, step: Array) -> tuple[Array, Array]:
        risen = risen + width / 24 * step
        return risen, risen

    nothing = jnp.zeros(bent.shape[1:])
    _, rises = jax.lax.scan(one, nothing, steps)
    log_density = jnp.concatenate([nothing[None], rises]) + gaussian
    return jnp.exp(jnp.clip(log_density, _LOWEST, _HIGHEST))


@functools.partial(jax.jit, static_argnames="grade")
def integrate(
    slot: Int[Array, ""], theta: Float[Array, "S G"], places: Places, *, grade: Grade = Grade.bent
) -> Integrals:
    """Integrals, means and covariances of all units' conditional densities, and the gradient by the globals.

    Errors of log masses are below 0.005 nats where the rough mean is within a sd, and the rough sd within a third.
    The gradient is that of the whole by the globals, averaged over points of the units: for one latent the quantiles at
    the nodes of Gauss and Hermite (on straight lines by four moments), for more 2 d points of equal weight, with the
    densities' means and covariances.

    Args:
        slot: of the model, with its layout.
        grade: of the lines.

    Source: spherical-radial integration, Genz & Monahan, SIAM Journal on Scientific Computing 1998; Fisher's identity;
    McNamee & Stenger, Numerische Mathematik 1967, for the points;
    Cornish & Fisher, Revue de l'Institut International de Statistique 1938, for quantiles by moments.
    """
    rule = make_rule(places.center.shape[1], grade)
    rays, lp, usable = _read(slot, theta, places, rule)
    log_mass, mean, spread, points = _in_blocks(functools.partial(_moments, rule=rule), rays)
    mean, spread, points = (_draws_first(part) for part in (mean, spread, points))
    lower = _cholesky(jnp.einsum("sabn,scbn->sacn", places.factor, places.factor))
    volume = jnp.sum(jnp.log(_diagonal(lower)), axis=1)
    found = moved_by(places, mean, spread)
    if places.center.shape[1] == 1:
        weights = _quantile_rule()[1]
        units = places.center[None] + places.factor[None, :, 0] * jnp.moveaxis(points, 1, 0)[:, :, None]
    else:
        units, weights = _cubature(found)
    gradient, reached = _mean_gradient(slot, theta, units, weights)
    usable = usable & reached
    log_marginal = jnp.where(usable, lp + jnp.sum(log_mass + volume, axis=1), jnp.nan)
    return Integrals(log_marginal, gradient, found, mean, spread, usable)


def _draws_first(values: Float[Array, "*shape S N"]) -> Float[Array, "S *shape N"]:
    return jnp.moveaxis(values, -2, 0)


def _in_blocks(compute: Callable[..., Any], *values: Array) -> Any:
    """What a function of arrays (..., P) gives for all draws and units of arrays (..., S, N).

    Some are computed at a time: so few that caches hold them.
    """
    draws, units = values[0].shape[-2:]
    rows = draws * units
    size = min(rows, _ROWS_AT_ONCE)
    blocks = -(-rows // size)

    def split(part: Array) -> Array:
        flat = part.reshape(*part.shape[:-2], rows)
        padded = jnp.pad(flat, [(0, 0)] * (flat.ndim - 1) + [(0, blocks * size - rows)])
        return jnp.moveaxis(padded.reshape(*flat.shape[:-1], blocks, size), -2, 0)

    def together(part: Array) -> Array:
        flat = jnp.moveaxis(part, 0, -2).reshape(*part.shape[1:-1], blocks * size)
        return flat[..., :rows].reshape(*part.shape[1:-1], draws, units)

    return jax.tree.map(together, jax.lax.map(lambda parts: compute(*parts), tuple(map(split, values))))


def _moments(bent: Float[Array, "K R P"], *, rule: Rule) -> tuple[Array, Array, Array, Array]:
    """Log masses (P,) without the volume, means (d, P), factors of covariances (d, d, P), and quantiles (Q, P) of one
    latent, in standardized coordinates.
    """
    directions = np.concatenate([rule.directions, -rule.directions])
    powers = jnp.asarray(rule.measure * rule.radii ** np.arange(3)[:, None])
    densities = _densities(bent, rule)
    sums = jnp.tensordot(powers, densities, axes=1)
    mass = jnp.sum(sums[0], axis=0)
    mean = jnp.einsum("rp,rd->dp", sums[1], directions) / mass[None]
    square = jnp.einsum("rp,rd,re->dep", sums[2], directions, directions) / mass[None, None]
    spread = _cholesky((square - mean[:, None] * mean[None])[None])[0]
    if len(mean) > 1:
        points = mass[None]
    elif rule.straight:
        points = _expansion(densities, rule, mean[0], spread[0, 0])
    else:
        points = _quantiles(densities, rule, mean[0], spread[0, 0])
    return jnp.log(mass) - rule.log_gaussian, mean, spread, points


def _quantile_rule() -> tuple[FloatArray, FloatArray]:
    """Standard normals, and weights that sum to one."""
    normals, weights = hermegauss(_QUANTILES)
    return normals, weights / weights.sum()


def num_points(block: int, grade: Grade = Grade.bent) -> int:
    """Gradients that one draw's integrals take."""
    return make_rule(block, grade).evaluations + (_QUANTILES if block == 1 else 2 * block)


def _expansion(
    densities: Float[Array, "M 2 P"], rule: Rule, mean: Float[Array, " P"], spread: Float[Array, " P"]
) -> Float[Array, "Q P"]:
    """About the quantiles, by skewness and kurtosis."""
    sides = jnp.asarray(np.stack([rule.radii, -rule.radii], axis=1))[:, :, None]
    heights = jnp.asarray(rule.measure)[:, None, None] * densities
    heights = heights / jnp.sum(heights, axis=(0, 1), keepdims=True)
    away = (sides - mean[None, None]) / spread[None, None]
    skew = jnp.clip(jnp.sum(heights * away**3, axis=(0, 1)), -_MOST_SKEWED, _MOST_SKEWED)
    excess = jnp.clip(jnp.sum(heights * away**4, axis=(0, 1)) - 3, -_MOST_SKEWED, _MOST_SKEWED)
    normals, weights = _quantile_rule()
    x = jnp.asarray(normals)[:, None]
    place = x + skew[None] / 6 * (x**2 - 1) + excess[None] / 24 * (x**3 - 3 * x)
    place = place - skew[None] ** 2 / 36 * (2 * x**3 - 5 * x)
    return _matched(place, weights, mean, spread)


def _matched(
    place: Float[Array, "Q P"], weights: FloatArray, mean: Float[Array, " P"], spread: Float[Array, " P"]
) -> Float[Array, "Q P"]:
    """Points moved so that they have a mean and a sd."""
    center = jnp.tensordot(weights, place, axes=1)
    wide = jnp.sqrt(jnp.tensordot(weights, (place - center[None]) ** 2, axes=1))
    moved: Array = mean[None] + (place - center[None]) * (spread / wide)[None]
    return moved


def _quantiles(
    densities: Float[Array, "M 2 P"], rule: Rule, mean: Float[Array, " P"], spread: Float[Array, " P"]
) -> Float[Array, "Q P"]:
    """Quantiles at the normals of the rule, moved to the exact means and sds."""
    normals, weights = _quantile_rule()
    line = _line(densities)
    at = jax.lax.map(lambda share: _quantile(line, jnp.broadcast_to(share, line.shape[1:])), ndtr(normals))
    place = (at - (len(densities) - 1)) * float(rule.radii[1])
    return _matched(place, weights, mean, spread)


def _cubature(places: Places) -> tuple[Float[Array, "Q S d N"], FloatArray]:
    block = places.center.shape[1]
    offsets = jnp.sqrt(block) * jnp.concatenate([jnp.eye(block), -jnp.eye(block)])
    points = places.center[None] + jnp.einsum("sabn,qb->qsan", places.factor, offsets)
    return points, np.full(2 * block, 0.5 / block)


def _mean_gradient(
    slot: Int[Array, ""], theta: Float[Array, "S G"], points: Float[Array, "Q S d N"], weights: FloatArray
) -> tuple[Float[Array, "S G"], Bool[Array, " S"]]:
    count, draws = points.shape[:2]
    flat = points.reshape(count * draws, *points.shape[2:])
    _, of_theta, _, status = block_gradient(slot, jnp.tile(theta, (count, 1)), flat)
    mean = jnp.tensordot(weights, of_theta.reshape(count, draws, -1), axes=1)
    return mean, (status.reshape(count, draws) == 0).all(axis=0)


@functools.partial(jax.jit, static_argnames="grade")
def draw_units(
    slot: Int[Array, ""],
    theta: Float[Array, "S G"],
    places: Places,
    key: PRNGKeyArray,
    shares: Float[Array, "Q S N"],
    *,
    grade: Grade = Grade.bent,
) -> tuple[Float[Array, "Q S d N"], Bool[Array, " S"]]:
    """Q draws of every unit given each row of globals, and whether Stan accepted all points.

    Args:
        key: of what turns the lines, where there is more than one latent.
        shares: uniform numbers that choose the draws. For one latent a draw is the quantile of its share.
    """
    rule = make_rule(places.center.shape[1], grade, DRAWING)
    rotated = places._replace(factor=_turned(places.factor, key))
    rays, _, usable = _read(slot, theta, rotated, rule)
    moved = _in_blocks(functools.partial(_drawn, rule=rule), rays, shares)
    return rotated.center[None] + jnp.einsum("sabn,qbsn->qsan", rotated.factor, moved), usable


def _drawn(bent: Float[Array, "K R P"], shares: Float[Array, "Q P"], *, rule: Rule) -> Float[Array, "Q d P"]:
    """Draws in standardized coordinates."""
    heights = jnp.asarray(rule.measure / rule.widths)[:, None, None] * _densities(bent, rule)
    width = float(rule.radii[1])
    if rule.directions.shape[1] == 1:  # one axis from left to right
        line = _line(heights)
        at: Array = jax.lax.map(lambda share: _quantile(line, share), shares)
        return (width * (at - (len(heights) - 1)))[:, None]
    directions = jnp.asarray(np.concatenate([rule.directions, -rule.directions]))
    masses = jnp.sum(0.5 * (heights[:-1] + heights[1:]), axis=0)
    ends = jnp.cumsum(masses, axis=0)

    def one(share: Float[Array, " P"]) -> Float[Array, "d P"]:
        wanted = share * ends[-1]
        ray = jnp.minimum(jnp.sum(ends < wanted[None], axis=0), len(ends) - 1)
        own = jnp.take_along_axis(heights, ray[None, None], axis=1)[:, 0]
        within = (wanted - _at(ends - masses, ray)) / _at(masses, ray)
        return (_quantile(own, within) * width)[None] * directions[ray].T

    drawn: Array = jax.lax.map(one, shares)
    return drawn


def _line(heights: Float[Array, "M 2 P"]) -> Float[Array, "2*M-1 P"]:
    """The two rays of one latent as an axis from left to right."""
    return jnp.concatenate([heights[:0:-1, 1], heights[:, 0]])


def _quantile(heights: Float[Array, "M P"], share: Float[Array, " P"]) -> Float[Array, " P"]:
    """Quantiles of densities that are linear between points 0, 1, .. M - 1 with these heights."""
    wanted = share * (jnp.sum(heights, axis=0) - 0.5 * (heights[0] + heights[-1]))

    def cell(
        carried: tuple[Array, Array, Array, Array], right: Array
    ) -> tuple[tuple[Array, Array, Array, Array], None]:
        left, reached, number, found = carried
        mass = 0.5 * (left + right)
        here = (reached < wanted) & (reached + mass >= wanted)
        entered = jnp.stack([number * jnp.ones_like(left), reached, left, right])
        return (right, reached + mass, number + 1, jnp.where(here[None], entered, found)), None

    nothing = jnp.zeros_like(share)
    last = jnp.stack([nothing + len(heights) - 2, nothing, heights[-2], heights[-1]])
    begun = (heights[0], nothing, jnp.zeros(()), last)
    (_, _, _, (number, reached, left, right)), _ = jax.lax.scan(cell, begun, heights[1:])
    mass = jnp.maximum(0.5 * (left + right), 1e-300)
    within = jnp.clip((wanted - reached) / mass, 0.0, 1.0)
    root = jnp.sqrt(left**2 + within * (right**2 - left**2))
    return number + within * (left + right) / jnp.maximum(left + root, 1e-300)


def _at(values: Float[Array, "R P"], chosen: Int[Array, " P"]) -> Float[Array, " P"]:
    return jnp.take_along_axis(values, chosen[None], axis=0)[0]


@jax.jit
def rough_places(
    family: Family,
    theta: Float[Array, "S G"],
    inputs: Float[Array, "N R"],
    shift: Float[Array, "d N"],
    turn: Float[Array, "d d N"],
) -> Places:
    """Where q has the units given globals, moved: its conditional medians, and what a normal of one does to them."""
    block, units = family.local.block, family.num_units
    keys = jnp.broadcast_to(jax.random.key(0), (units,))
    t = family.standard(theta)

    def drawn(normals: Float[Array, " d"]) -> Float[Array, "S d N"]:
        e = jnp.broadcast_to(normals[None, :, None], (len(theta), block, units))
        return family.draw(Noise(t, e, keys), inputs).z

    rows = jnp.concatenate([jnp.zeros((1, block)), jnp.eye(block), -jnp.eye(block)])
    center, *sides = jax.lax.map(drawn, rows)
    columns = [0.5 * (ahead - behind) for ahead, behind in zip(sides[:block], sides[block:], strict=True)]
    return moved_by(Places(center, jnp.stack(columns, axis=2)), shift[None], turn[None])


def moved_by(places: Places, shift: Float[Array, "S d N"], turn: Float[Array, "S d d N"]) -> Places:
    """Places moved by `shift` in units of their factors, and these times `turn`."""
    return Places(
        places.center + jnp.sum(places.factor * shift[:, None], axis=2),
        jnp.sum(places.factor[:, :, :, None] * turn[:, None], axis=2),
    )


@jax.jit
def standardized(places: Places, z: Float[Array, "S d N"]) -> Float[Array, "S d N"]:
    """The coordinates of units in places with lower factors."""
    return _solved(places.factor, (z - places.center)[:, :, None])[:, :, 0]


@jax.jit
def move_between(before: Places, after: Places) -> tuple[Float[Array, "S d N"], Float[Array, "S d d N"]]:
    """The `shift` and `turn` of each draw that lead from places with lower factors to others."""
    return standardized(before, after.center), _solved(before.factor, after.factor)


def _diagonal(factor: Float[Array, "S d d N"]) -> Float[Array, "S d N"]:
    return jnp.stack([factor[:, i, i] for i in range(factor.shape[1])], axis=1)


def _cholesky(matrices: Float[Array, "S d d N"]) -> Float[Array, "S d d N"]:
    """Lower factors; a pivot that rounding made too small keeps a share of its variance."""
    d = matrices.shape[1]
    columns: dict[tuple[int, int], Array] = {}
    for j in range(d):
        pivot = matrices[:, j, j] - sum(columns[j, k] ** 2 for k in range(j))
        columns[j, j] = jnp.sqrt(jnp.maximum(pivot, _FLATTEST * jnp.abs(matrices[:, j, j]) + 1e-300))
        for i in range(j + 1, d):
            rest = matrices[:, i, j] - sum(columns[i, k] * columns[j, k] for k in range(j))
            columns[i, j] = rest / columns[j, j]
    nothing = jnp.zeros_like(matrices[:, 0, 0])
    rows = [jnp.stack([columns.get((i, j), nothing) for j in range(d)], axis=1) for i in range(d)]
    return jnp.stack(rows, axis=1)


def _solved(factor: Float[Array, "S d d N"], right: Float[Array, "S d M N"]) -> Float[Array, "S d M N"]:
    """X with L X = right, for lower L."""
    found: list[Array] = []
    for i in range(factor.shape[1]):
        rest = right[:, i] - sum(factor[:, i, k, None] * found[k] for k in range(i))
        found.append(rest / factor[:, i, i, None])
    return jnp.stack(found, axis=1)


@jax.jit
def turned(places: Places, key: PRNGKeyArray) -> Places:
    """Places along whose lines other points lie, if there is more than one latent."""
    return places._replace(factor=_turned(places.factor, key))


def _turned(factor: Float[Array, "S d d N"], key: PRNGKeyArray) -> Float[Array, "S d d N"]:
    """Factors times random orthogonal matrices, one for each unit and draw: reflections in a random mirror."""
    block = factor.shape[1]
    if block == 1:
        return factor
    mirror = jax.random.normal(key, (factor.shape[0], block, factor.shape[3]))
    mirror = mirror / jnp.linalg.norm(mirror, axis=1, keepdims=True)
    along = jnp.einsum("sabn,sbn->san", factor, mirror)
    reflected: Array = factor - 2 * along[:, :, None] * mirror[:, None]
    return reflected
