"""Quadrature for conditional densities of units, of which only scores are known: where to ask, and what follows.

In coordinates in which a rough mean is zero and a rough covariance the identity, an integral over a unit's latents is a
mean over directions of integrals along lines through that mean. On a line the log density follows from its slopes: what
they differ by from a Gaussian's is interpolated by a cubic spline; where that is not enough, through a hyperbolic sine,
so that slopes which grow like an exponential are met too.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass

import numpy as np

from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray

REACH = 5.0  # sds from the rough mean at which lines end
_LINEAR = 2.0  # sds up to which nodes lie evenly
_CELLS = (10, 20, 20)  # of the grid of a ray on which densities are added up, by grade
DRAWING = 40  # where draws are chosen on it
# Cells between nodes by grade, of one latent and of more; lines of two latents.
_LINE, _LINES = (8, 8, 16), (6, 6, 12)
_LINES_OF_TWO = (4, 4, 8)
_FINE = 20  # steps of a cell, in which splines are added up
_GOLDEN = 0.5 * (1 + 5**0.5)


class Grade(enum.IntEnum):
    """How carefully lines are followed, and at what price."""

    straight = 0
    bent = 1
    fine = 2


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """Where slopes are read, and what a ray's log density is of them.

    Attributes:
        directions: (J, d) unit vectors of the lines.
        nodes: (K,) places on a line, odd in number, with 0 in the middle.
        radii: (M,) of a grid on a ray, from 0.
        spline: (M + 2, K) values at the grid, and a step before and after it, of a cubic spline through values at the
            nodes; where lines are straight, (M, K) integrals of that spline from 0 to the grid.
        measure: (M,) weights of the grid's points: those of the trapezoidal rule times r^(d-1).
        log_gaussian: what the rule gives for the standard Gaussian's integral, less that integral, nats.
    """

    directions: FloatArray
    nodes: FloatArray
    radii: FloatArray
    spline: FloatArray
    measure: FloatArray
    log_gaussian: float
    straight: bool

    @property
    def offsets(self) -> FloatArray:
        """(E, d) points in standardized coordinates whose scores are read: the centre, then those of each line."""
        away = self.nodes[self.nodes != 0]
        lines = self.directions[:, None, :] * away[None, :, None]
        return np.concatenate([np.zeros((1, lines.shape[2])), lines.reshape(-1, lines.shape[2])])

    @property
    def widths(self) -> FloatArray:
        """(M,) of the cells that the grid's points stand for in `measure`."""
        width = np.full(len(self.radii), self.radii[1])
        width[[0, -1]] *= 0.5
        return width

    @property
    def evaluations(self) -> int:
        """Gradients that one set of integrals takes: E."""
        return len(self.offsets)


@functools.cache
def make_rule(block: int, grade: Grade = Grade.bent, cells: int | None = None) -> Rule:
    """The rule for units of d latents: the fine one has twice as many nodes on each line as the bent one, and for two
    latents twice as many lines.
    """
    from scipy.interpolate import CubicSpline

    straight = grade is Grade.straight
    cells = cells or _CELLS[grade]
    count = (_LINE if block == 1 else _LINES)[grade]
    bend = np.arcsinh(REACH / _LINEAR)
    nodes = _LINEAR * np.sinh(bend * np.linspace(-1, 1, count + 1))
    nodes[count // 2] = 0.0
    radii = np.linspace(0, REACH, cells + 1)
    at = CubicSpline(np.arcsinh(nodes / _LINEAR), np.eye(len(nodes)))
    if straight:
        steps = np.linspace(0, REACH, _FINE * cells + 1)
        values = at(np.arcsinh(steps / _LINEAR))
        risen = np.cumsum(0.5 * (values[1:] + values[:-1]) * steps[1], axis=0)
        spline = np.concatenate([np.zeros((1, count + 1)), risen[_FINE - 1 :: _FINE]])
    else:
        wider = np.concatenate([[-radii[1]], radii, [REACH + radii[1]]])
        spline = at(np.arcsinh(wider / _LINEAR))
    measure = radii ** (block - 1) * REACH / cells
    measure[[0, -1]] *= 0.5
    if block == 2:
        measure[0] += radii[1] ** 2 / 12  # by Euler and Maclaurin: r^(d-1) has a slope at 0
    directions = _directions(block, grade)
    mass = 2 * len(directions) * float(measure @ np.exp(-0.5 * radii**2))
    return Rule(
        directions=directions,
        nodes=nodes,
        radii=radii,
        spline=spline,
        measure=measure,
        log_gaussian=float(np.log(mass)) - 0.5 * block * float(np.log(2 * np.pi)),
        straight=straight,
    )


def _directions(block: int, grade: Grade) -> FloatArray:
    """Lines (J, d) spread evenly over the sphere: exact for polynomials of degree 7 or 15 (d = 2), 5 (d = 3, 4) or 3.

    Source: Stroud, "Approximate calculation of multiple integrals", 1971, for the icosahedron and the 24-cell.
    """
    if block == 1:
        return np.ones((1, 1))
    if block == 2:
        lines = _LINES_OF_TWO[grade]
        angle = np.pi * np.arange(lines) / lines
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if block == 3:
        found = [np.roll([0.0, 1.0, side * _GOLDEN], turn) for turn in range(3) for side in (1, -1)]
        return np.asarray(np.array(found) / np.hypot(1.0, _GOLDEN))
    axes = np.eye(block)
    if block == 4:
        pairs = [axes[i] + side * axes[j] for i in range(4) for j in range(i) for side in (1, -1)]
        return np.asarray(np.array(pairs) / np.sqrt(2))
    # Orthonormal frames, as many as tell all entries of a covariance.
    rng = generator(0, Stream.LINES, block)
    frames = (block + 1) // 2 + 1
    return np.concatenate([np.linalg.qr(rng.standard_normal((block, block)))[0] for _ in range(frames)])
