"""Densities of single units, read from gradients of the whole model; no data are sliced.

Units are separable: U(theta, z) = c(theta) + sum_n u_n(z_n, theta). One gradient of the whole model then holds the
score of every unit at its own point, so whatever follows from scores is had for all units at once: conditional modes
by Newton steps, log density differences by quadrature along paths, integrals and draws along rays from the modes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np
from numpy.polynomial import legendre

from stan_adapters.data.layout import IndexArray
from stan_adapters.engine.abi import FloatArray
from stan_adapters.levels.probes import Density

_DIFFERENCE = 1e-4  # of a central difference of scores: its error is this squared
_MOST_NEWTON_STEPS = 30
_LONGEST_STEP = 2.0  # of a Newton step, in conditional sds
_BACK = 0.25  # of a step that ended where Stan rejects the point
_CLOSE = 1e-3  # a mode is found when the next step is shorter, in conditional sds
_FALL, _FALL_TOLERANCE = 45.0, 0.58  # r |du/dr| at the end of a ray, and how far its log may miss that
_GAUSSIAN_REACH = 6.3
_FARTHEST = 60.0
_MOST_SEARCH_STEPS = 6
Grade = Literal["coarse", "fine", "finest"]
# Scores on a ray, and its reach for a Gaussian.
_GRADES: Mapping[Grade, tuple[int, float]] = {
    "coarse": (4, 4.0),
    "fine": (8, _GAUSSIAN_REACH),
    "finest": (24, _GAUSSIAN_REACH),
}
_LINEAR = 2.0  # conditional sds up to which scores lie evenly on a ray
_MOST_RISE = 1.5  # of the rises that slopes at a ray's nodes add up to, whose quadrature is rough
_RAY_CELLS = 32  # of the fine grid from which draws are taken
_ROWS_AT_ONCE = 1 << 15  # units times draws whose fine grids are held at a time
_NUMBERS_AT_ONCE = 2_500_000  # float64 of one array of draws: a few of them stay below 200 MB

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, eq=False)
class Modes:
    """Conditional modes of all units at S points theta, and the curvature there.

    Attributes:
        z: (S, N, d).
        chol: (S, N, d, d) lower factors of the precisions -d2 u_n / dz2.
        log_density: (S,) U(theta, z), nats; -inf where Stan rejects the start of a search.
        decrement: (S, N) squared length of the next Newton step in conditional sds: near 0 at a mode.
    """

    z: FloatArray
    chol: FloatArray
    log_density: FloatArray
    decrement: FloatArray

    @property
    def block(self) -> int:
        return int(self.z.shape[2])

    @property
    def log_volume(self) -> FloatArray:
        """(S, N) log integrals of the Gaussians with these precisions and height 1."""
        log_det = np.log(np.diagonal(self.chol, axis1=2, axis2=3)).sum(axis=2)
        return np.asarray(0.5 * self.block * np.log(2 * np.pi) - log_det)

    @property
    def laplace(self) -> FloatArray:
        """(S,) Laplace's value of log integral exp U(theta, z) dz, nats."""
        return np.asarray(self.log_density + (self.log_volume + 0.5 * self.decrement).sum(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Conditionals:
    """Integrals of all units' conditional densities, and one draw from each.

    Attributes:
        correction: (S, N) log of integral exp u_n dz relative to the Gaussian at the mode, nats; nan where Stan
            rejected a point on a ray.
        z: (S, N, d) one draw of every unit given its theta; the modes where none was asked for.
    """

    correction: FloatArray
    z: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class UnitDensity:
    """A bound model with separable units at positions `index` (N, d) and globals at `globals_index` (G,)."""

    model: Density
    index: IndexArray
    globals_index: IndexArray
    _positions: IndexArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_positions", self.index.ravel())

    @property
    def num_units(self) -> int:
        return int(self.index.shape[0])

    @property
    def block(self) -> int:
        return int(self.index.shape[1])

    def batches(self, draws: int, *, copies: int = 1) -> Iterator[slice]:
        """Slices of draws, so small that arrays of `copies` numbers for each of their parameters fit in memory."""
        size = max(1, _NUMBERS_AT_ONCE // (max(1, self.model.dim) * copies))
        return (slice(start, min(start + size, draws)) for start in range(0, draws, size))

    def points(self, theta: FloatArray, z: FloatArray) -> FloatArray:
        """Unconstrained points (S, D) of globals (S, G) and locals (S, N, d)."""
        points = np.empty((len(theta), self.model.dim))
        points[:, self.globals_index] = theta
        points[:, self._positions] = z.reshape(len(z), -1)
        return points

    def scores(self, theta: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """U (S,) in nats and the scores d u_n / dz_n (S, N, d); -inf and zeros where Stan rejects a point."""
        lp, gradient = self.model.log_density_gradient(self.points(theta, z))
        return lp, np.take(gradient, self._positions, axis=1).reshape(z.shape)

    def differences(
        self, theta: FloatArray, start: FloatArray, end: FloatArray, *, nodes: int = 8
    ) -> FloatArray:
        """u_n(end_n, theta) - u_n(start_n, theta) of all units, (S, N) nats, from locals (S, N, d).

        The scores are integrated along the straight path by Gauss-Legendre quadrature, exactly where u_n is a
        polynomial of degree 2 `nodes` on it; nan where Stan rejects a point of the path.
        """
        place, weight = _unit_interval(nodes)
        path, total = end - start, np.zeros(start.shape[:2])
        for at, share in zip(place, weight, strict=True):
            lp, score = self.scores(theta, start + at * path)
            total += share * _dot(score, path)
            total[~np.isfinite(lp)] = np.nan
        return total

    def modes(self, theta: FloatArray, start: FloatArray) -> Modes:
        """Conditional modes of all units given theta (S, G), by damped Newton steps from (S, N, d).

        Curvature comes from central differences of scores, 2 d gradients for all units; where it is not that of a
        maximum, its absolute value leads the step.
        """
        z, chol = start.copy(), np.empty((*start.shape, self.block))
        log_density, decrement = np.full(len(z), -np.inf), np.full(start.shape[:2], np.inf)
        radius = np.full(start.shape[:2], _LONGEST_STEP)
        last, active = start.copy(), np.arange(len(z))
        for _ in range(_MOST_NEWTON_STEPS):
            lp, score = self.scores(theta[active], z[active])
            usable = np.isfinite(lp)
            back, at = active[~usable & np.isfinite(log_density[active])], active[usable]
            # One unit's long step loses the point for all: they go most of the way back together.
            z[back] = last[back] + _BACK * (z[back] - last[back])
            radius[back] *= _BACK
            if at.size:
                last[at] = z[at]
                factor = cholesky(self._precision(theta[at], z[at], score[usable]))
                whitened = solve_lower(factor, score[usable])
                length = _dot(whitened, whitened)
                # A score that did not fall says that the last step was too long for its unit.
                radius[at] *= np.where(length > decrement[at], 0.25, 1.5)
                log_density[at], chol[at], decrement[at] = lp[usable], factor, length
                left = (length > _CLOSE**2).any(axis=1)
                at, whitened, length = at[left], whitened[left], length[left]
                shorter = np.minimum(1.0, radius[at] / np.sqrt(np.maximum(length, 1e-300)))
                z[at] += solve_upper(factor[left], whitened * shorter[..., None])
            active = np.sort(np.concatenate([back, at]))
            if not active.size:
                break
        z[active] = last[active]
        return Modes(z, chol, log_density, decrement)

    def _precision(self, theta: FloatArray, z: FloatArray, score: FloatArray) -> FloatArray:
        """(S, N, d, d) minus the second derivatives of u_n; a point that Stan rejects counts as no curvature."""
        precision = np.empty((*z.shape, self.block))
        for k in range(self.block):
            move = np.zeros(self.block)
            move[k] = _DIFFERENCE
            lp, ahead = self.scores(theta, z + move)
            other, behind = self.scores(theta, z - move)
            precision[..., k] = (behind - ahead) / (2 * _DIFFERENCE)
            precision[~np.isfinite(lp + other), :, :, k] = 0.0
        return 0.5 * (precision + np.swapaxes(precision, 2, 3))

    def conditionals(
        self,
        theta: FloatArray,
        modes: Modes,
        directions: FloatArray,
        rng: Rng | None = None,
        *,
        grade: Grade = "fine",
    ) -> Conditionals:
        """Integrals of exp u_n over z_n for all units given theta (S, G); with `rng` also one draw of each z_n.

        In coordinates in which the curvature at the mode is the identity, the integral is a mean over directions of
        integrals along rays from the mode (with the weight r^(d-1)), and on a ray u_n follows from scores. With one
        latent this is quadrature, with two a periodic rule in the angle, with more a Monte Carlo mean over
        directions. A ray ends where its unit's density has become negligible, 60 conditional sds out at the
        latest. Errors are below 0.001 nats for a unit with tails like a Gaussian's or an exponential's; of tails like a
        Cauchy density's the mass beyond the end is missing.

        Args:
            directions: (S or 1, N, J, d) unit vectors, see `line_directions`. Keep them fixed over theta to compare
                integrals, draw them anew for every theta to use the draws.
            grade: "coarse" has rays of 4 conditional sds and a third of the gradients, for densities not far from
                Gaussian; "finest" more than twice as many as "fine", for spikes beside a wide mode.

        Source: spherical-radial integration, Genz & Monahan, SIAM Journal on Scientific Computing 1998.
        """
        usable = np.isfinite(modes.log_density)
        if not usable.any():
            return Conditionals(np.full(modes.z.shape[:2], np.nan), modes.z.copy())
        if not usable.all():
            own = directions if len(directions) == 1 else directions[usable]
            part = Modes(
                modes.z[usable], modes.chol[usable], modes.log_density[usable], modes.decrement[usable]
            )
            found = self.conditionals(theta[usable], part, own, rng, grade=grade)
            correction, z = np.full(modes.z.shape[:2], np.nan), modes.z.copy()
            correction[usable], z[usable] = found.correction, found.z
            return Conditionals(correction, z)
        rule = _Ray(self.block, *_GRADES[grade])
        shape = modes.z.shape[:2]
        total, best, z = np.full(shape, -np.inf), np.full(shape, -np.inf), modes.z.copy()
        lost = np.zeros(shape[0], dtype=bool)
        count = directions.shape[2]
        for j, side in product(range(count), (1.0, -1.0)):
            towards = np.broadcast_to(side * directions[:, :, j], modes.z.shape)
            step = solve_upper(modes.chol, towards)
            reach = rule.gaussian_reach if grade == "coarse" else self._reach(theta, modes, step)
            radius, stretch = bent(rule.nodes[:, None, None], np.atleast_2d(reach))
            slopes = np.empty((len(radius), *shape))
            for k, distance in enumerate(radius):
                lp, score = self.scores(theta, modes.z + distance[..., None] * step)
                lost |= ~np.isfinite(lp)
                slopes[k] = _dot(score, step)
            mass, place = rule.integrate(slopes, radius, stretch, np.broadcast_to(reach, shape), rng)
            total = np.logaddexp(total, mass)
            if rng is not None:
                ticket = mass + rng.gumbel(size=shape)  # the largest one is a ray drawn by its mass
                z = np.where((ticket > best)[..., None], modes.z + place[..., None] * step, z)
                best = np.maximum(best, ticket)
        correction = total - np.log(2 * count) - rule.log_gaussian
        correction[lost] = np.nan
        return Conditionals(correction, z)

    def _reach(self, theta: FloatArray, modes: Modes, step: FloatArray) -> FloatArray:
        """How far each ray goes, (S, N) in conditional sds: to where r |du/dr| is 25 to 80, 5 to 9 for a Gaussian.

        Found by a secant search in logarithms, because slopes may grow like a power or like an exponential.
        """
        shape = modes.z.shape[:2]
        place = np.full(shape, np.log(_GAUSSIAN_REACH))
        low, low_value = np.zeros(shape), np.full(shape, -np.log(_FALL))  # a Gaussian's at r = 1
        high, high_value = np.full(shape, np.inf), np.full(shape, np.inf)
        settled = np.zeros(shape, dtype=bool)
        active = np.arange(shape[0])
        for _ in range(_MOST_SEARCH_STEPS):
            if not active.size:
                break
            at = place[active]
            radius = np.exp(at)
            lp, score = self.scores(theta[active], modes.z[active] + radius[..., None] * step[active])
            fall = -radius * _dot(score, step[active])
            fall[~np.isfinite(lp)] = np.inf  # some unit is too far out: all that still search come back
            value = np.clip(np.log(np.maximum(fall, 1e-3)) - np.log(_FALL), None, 1e3)
            far = (value > 0) & ~settled[active]
            near = (value <= 0) & ~settled[active]
            for chosen, places, values in ((far, high, high_value), (near, low, low_value)):
                places[active] = np.where(chosen, at, places[active])
                values[active] = np.where(chosen, value, values[active])
            done = np.abs(value) < _FALL_TOLERANCE
            settled[active] |= done | (near & (at >= np.log(_FARTHEST)))
            lo, hi, lo_value, hi_value = low[active], high[active], low_value[active], high_value[active]
            with np.errstate(invalid="ignore"):
                secant = lo + (hi - lo) * np.clip(lo_value / (lo_value - hi_value), 0.1, 0.9)
            moved = np.where(np.isfinite(hi), secant, np.minimum(at + 1, np.log(_FARTHEST)))
            place[active] = np.where(settled[active], at, moved)
            active = active[~settled[active].all(axis=1)]
        return np.exp(place)


class _Ray:
    """Slopes at nodes of a ray from a mode -> the log integral along it, and a draw on it.

    Nodes are those of Gauss and Legendre on [0, 1], bent (`bent`) to lie dense at the mode and thin far out.
    """

    def __init__(self, block: int, nodes: int, gaussian_reach: float) -> None:
        points, weights = legendre.leggauss(nodes)
        self.nodes, self.gaussian_reach = 0.5 * (points + 1), gaussian_reach
        self._power, self._weights = block - 1, 0.5 * weights
        self._grid = np.linspace(0.0, 1.0, _RAY_CELLS + 1)
        self._to_nodes = _integration(points, points)
        self._to_grid = _integration(points, 2 * self._grid - 1)
        radius, stretch = bent(self.nodes[:, None, None], np.array([[gaussian_reach]]))
        reach = np.full((1, 1), gaussian_reach)
        self.log_gaussian = float(self.integrate(-radius, radius, stretch, reach, None)[0][0, 0])

    def integrate(
        self, slopes: FloatArray, radius: FloatArray, stretch: FloatArray, reach: FloatArray, rng: Rng | None
    ) -> tuple[FloatArray, FloatArray]:
        """Log integrals (S, N) of r^(d-1) exp(u) and draws of r (S, N), zeros without `rng`.

        Args:
            slopes: du/dr at the nodes, (K, S, N).
            radius, stretch: r there and its derivative by the node's share, (K, S, N), or (K, 1, 1) for all rays.
            reach: r at the end of each ray, (S, N).
        """
        far = reach.ravel()
        log_mass, place = np.empty(len(far)), np.zeros(len(far))
        along, change, distance = (part.reshape(len(part), -1) for part in (slopes, stretch, radius))
        common = change.shape[1] == 1
        for start in range(0, len(far), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            chosen = slice(None) if common else rows
            slope = along[:, rows] * change[:, chosen]
            # Between nodes whose slopes differ by orders of magnitude a polynomial rises where no slope does.
            highest = _MOST_RISE * (self._weights @ np.maximum(slope, 0.0))
            log_density = np.minimum(self._to_nodes.T @ slope, highest)
            top = np.maximum(log_density.max(axis=0), 0.0)
            density = np.exp(log_density - top) * (change[:, chosen] * self._measure(distance[:, chosen]))
            log_mass[rows] = top + np.log(np.maximum(self._weights @ density, 1e-300))
            if rng is not None:
                place[rows] = self._draw(slope.T, far[rows], highest, rng)
        return log_mass.reshape(reach.shape), place.reshape(reach.shape)

    def _measure(self, radius: FloatArray) -> FloatArray:
        """r^(d-1)."""
        return np.ones_like(radius) if self._power == 0 else radius**self._power

    def _draw(self, slopes: FloatArray, reach: FloatArray, highest: FloatArray, rng: Rng) -> FloatArray:
        """Draws of r (R,), as if its density were linear between the points of a fine grid, from du / d share."""
        radius, stretch = bent(self._grid, reach[:, None])
        log_density = np.minimum(slopes @ self._to_grid, highest[:, None])
        density = np.exp(log_density - log_density.max(axis=1, keepdims=True)) * stretch
        density *= self._measure(radius)
        cells = np.cumsum(density[:, :-1] + density[:, 1:], axis=1)
        cell = (cells < (rng.random(len(cells)) * cells[:, -1])[:, None]).sum(axis=1)
        left = np.take_along_axis(density, cell[:, None], axis=1)[:, 0]
        right = np.take_along_axis(density, cell[:, None] + 1, axis=1)[:, 0]
        share = rng.random(len(cells))
        root = np.sqrt(left**2 + share * (right**2 - left**2))
        within = np.where(left + root > 0, share * (left + right) / np.maximum(left + root, 1e-300), share)
        return bent(self._grid[cell] + within / _RAY_CELLS, reach)[0]


def bent(share: FloatArray, reach: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distances, hyperbolic sines of a share in [0, 1] that end at `reach`, and their derivatives."""
    bend = np.arcsinh(reach / _LINEAR)
    return _LINEAR * np.sinh(bend * share), _LINEAR * bend * np.cosh(bend * share)


def _integration(nodes: FloatArray, ends: FloatArray) -> FloatArray:
    """(K, E): values at Gauss-Legendre nodes of [-1, 1] times this are integrals over [0, 1] up to the ends, halved."""
    basis = np.stack([legendre.legval(ends, legendre.legint(row, lbnd=-1)) for row in np.eye(len(nodes))])
    return np.asarray(0.5 * np.linalg.solve(legendre.legvander(nodes, len(nodes) - 1).T, basis))


def line_directions(rng: Rng, shape: tuple[int, int], block: int, *, frames: int = 2) -> FloatArray:
    """Unit vectors (*shape, J, d): one line for one latent, else J = `frames` d lines.

    Two latents get evenly turned lines; more get random orthonormal frames.
    """
    if block == 1:
        return np.ones((*shape, 1, 1))
    if block == 2:
        lines = 2 * frames
        angle = np.pi / lines * (rng.random((*shape, 1)) + np.arange(lines))
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    normal = rng.standard_normal((*shape, frames, block))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    # A reflection in a random mirror has orthonormal rows.
    mirrored = np.eye(block) - 2 * normal[..., :, None] * normal[..., None, :]
    return mirrored.reshape(*shape, frames * block, block)


def cholesky(matrices: FloatArray) -> FloatArray:
    """Lower factors (..., d, d) of small symmetric matrices; pivots that are not positive count by their size.

    So a matrix that is not positive definite gets the factor of one that is, of about its size.
    """
    d = matrices.shape[-1]
    factor = np.zeros_like(matrices)
    for j in range(d):
        pivot = matrices[..., j, j] - (factor[..., j, :j] ** 2).sum(axis=-1)
        floor = 1e-8 * np.abs(matrices[..., j, j]) + 1e-12
        factor[..., j, j] = np.sqrt(np.maximum(np.abs(pivot), floor))
        for i in range(j + 1, d):
            rest = matrices[..., i, j] - (factor[..., i, :j] * factor[..., j, :j]).sum(axis=-1)
            factor[..., i, j] = rest / factor[..., j, j]
    return factor


def solve_lower(factor: FloatArray, right: FloatArray) -> FloatArray:
    """x with L x = right, for lower factors (..., d, d) and vectors (..., d)."""
    x = np.empty(np.broadcast_shapes(factor.shape[:-1], right.shape))
    for i in range(factor.shape[-1]):
        x[..., i] = (right[..., i] - (factor[..., i, :i] * x[..., :i]).sum(axis=-1)) / factor[..., i, i]
    return x


def solve_upper(factor: FloatArray, right: FloatArray) -> FloatArray:
    """x with L' x = right, for lower factors (..., d, d) and vectors (..., d)."""
    x = np.empty(np.broadcast_shapes(factor.shape[:-1], right.shape))
    for i in reversed(range(factor.shape[-1])):
        rest = (factor[..., i + 1 :, i] * x[..., i + 1 :]).sum(axis=-1)
        x[..., i] = (right[..., i] - rest) / factor[..., i, i]
    return x


def _dot(one: FloatArray, other: FloatArray) -> FloatArray:
    """Products (S, N) of vectors (S, N, d)."""
    if one.shape[2] == 1:
        return one[..., 0] * other[..., 0]
    return np.asarray(np.einsum("snd,snd->sn", one, other))


def _unit_interval(nodes: int) -> tuple[FloatArray, FloatArray]:
    points, weights = legendre.leggauss(nodes)
    return 0.5 * (points + 1), 0.5 * weights
