"""How units depend on globals, read through gradients: the start of a family whose units depend on the globals.

At its optimum, a Gaussian's precision is the expected curvature -E[H] of the log density. For separable units that is
an arrow, so with A_n = -E[H_zz]^-1 E[H_z theta] the units' means depend on the globals, and the globals' precision is
Lambda = -E[H_theta theta] - sum_n E[H_theta z] A_n. Differences of gradients give every block of all units at once:
2 (G + d) gradients for each draw. Of very many units some are enough for Lambda, and a network is taught their slopes.

Training could find the same. On minibatches it hardly does: the noise of units moves the globals by many of their sds
in a step, and what the dependence gains on the ELBO does not grow with the number of units.

Source: Opper & Archambeau, "The variational Gaussian approximation revisited", Neural Computation 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avistan.runtime.types import FloatArray
from stan_adapters.data.layout import IndexArray
from stan_adapters.levels.probes import Density

_STEP = 0.5  # sds of a unit, in differences
_NUMBERS_AT_ONCE = 4_000_000  # of points that Stan gets together


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitPlaces:
    """Some units of a model, and where q has them.

    Attributes:
        index, globals_index: positions of their blocks (M, d) and of the globals (G,).
        mean: (M, d).
        factor: L_n, lower triangles (M, d, d).
    """

    model: Density
    index: IndexArray
    globals_index: IndexArray
    mean: FloatArray
    factor: FloatArray

    def point(self, theta: FloatArray, noise: FloatArray) -> FloatArray:
        """A point (D,) with the globals at theta (G,) and the units at standard normals (M, d)."""
        point = np.empty(self.model.dim)
        point[self.globals_index] = theta
        point[self.index] = self.mean + np.einsum("mij,mj->mi", self.factor, noise)
        return point


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curvature:
    """Expected curvature of M units' part of a density, the globals in their sds.

    Attributes:
        own: E[H_zz] of each unit, negative definite, (M, d, d).
        slopes: A_n, how far a unit's mean moves where a global moves by an sd, (M, d, G).
        precision: the units' part of Lambda, (G, G).
        gradient_evaluations: that it took.
    """

    own: FloatArray
    slopes: FloatArray
    precision: FloatArray
    gradient_evaluations: int


def read_curvature(
    units: UnitPlaces, theta: FloatArray, sd: FloatArray, rng: np.random.Generator, pairs: int
) -> Curvature | None:
    """Curvature of a density over antithetic pairs of draws of its units; None where a point was rejected.

    Args:
        theta, sd: centre and sds of the globals (G,).
    """
    num_units, block = units.mean.shape
    width = np.sqrt((units.factor**2).sum(axis=2))
    own, cross = np.zeros((num_units, block, block)), np.zeros((num_units, block, len(theta)))
    inner = np.zeros((len(theta), len(theta)))
    for _ in range(pairs):
        noise = rng.standard_normal((num_units, block))
        for sign in (1.0, -1.0):
            point = units.point(theta, sign * noise)
            moves = [*zip(units.globals_index, sd, strict=True)]
            moves += [(units.index[:, i], _STEP * width[:, i]) for i in range(block)]
            for number, change in _changes(units.model, point, moves):
                if change is None:
                    return None
                if number < len(theta):
                    inner[number] += change[units.globals_index] * sd
                    cross[:, :, number] += change[units.index]
                else:
                    i = number - len(theta)
                    own[:, :, i] += change[units.index] / moves[number][1][:, None]
    count = 2 * pairs
    own = 0.5 * (own + own.transpose(0, 2, 1)) / count
    concave = (np.linalg.eigvalsh(own) < 0).all(axis=1)
    own[~concave] = -np.linalg.inv(units.factor @ units.factor.transpose(0, 2, 1))[~concave]
    cross /= count
    slopes = -np.linalg.solve(own, cross)
    inner = inner / count + np.einsum("mdg,mdh->gh", cross, slopes)
    evaluations = 2 * count * (len(theta) + block)
    return Curvature(
        own=own, slopes=slopes, precision=-0.5 * (inner + inner.T), gradient_evaluations=evaluations
    )


def precision_without_units(
    gradient: Callable[[FloatArray], tuple[FloatArray, FloatArray]], theta: FloatArray, sd: FloatArray
) -> FloatArray | None:
    """-H (G, G) of a density of the globals alone, these in sds; None where a point was rejected.

    Args:
        gradient: log densities (S,) and gradients (S, G) at globals (S, G).
    """
    ends = np.concatenate([theta + np.diag(sd), theta - np.diag(sd)])
    value, slope = gradient(ends)
    if not np.isfinite(value).all():
        return None
    curvature = 0.5 * (slope[: len(theta)] - slope[len(theta) :]) * sd
    return -0.5 * (curvature + curvature.T)


def _changes(
    model: Density, point: FloatArray, moves: Sequence[tuple[Any, Any]]
) -> Iterator[tuple[int, FloatArray | None]]:
    """Half the change of the gradient (D,) from minus to plus each move, given by places and sizes; None where a point
    was rejected. As many at a time as fit a bounded memory.
    """
    together = max(1, _NUMBERS_AT_ONCE // (2 * model.dim))
    for first in range(0, len(moves), together):
        some = moves[first : first + together]
        ends = np.tile(point, (2 * len(some), 1))
        for row, (at, size) in enumerate(some):
            ends[2 * row, at] += size
            ends[2 * row + 1, at] -= size
        value, gradient = model.log_density_gradient(ends)
        for row in range(len(some)):
            both = slice(2 * row, 2 * row + 2)
            accepted = np.isfinite(value[both]).all()
            yield first + row, 0.5 * (gradient[2 * row] - gradient[2 * row + 1]) if accepted else None
