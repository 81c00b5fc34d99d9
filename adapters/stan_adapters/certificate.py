"""Numerical probes of a candidate level. None reads the program's statements: only gradients are compared.

Units are *separable* when U(theta, z) = c(theta) + sum_n u_n(z_n, theta): the score of unit n, dU/dz_n, then does not
move with any other unit's latents. For each bit b of the unit number the latents of all units with bit b set are moved
at once and the scores of all others compared, so ceil(log2 N) gradients cover every pair of units.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .abi import FloatArray
from .errors import StructureError
from .levels import Level

TOLERANCE = 1e-8  # relative change of a score that rounding explains
NUM_POINTS = 3  # probe points: a saturated likelihood can hide a coupling at one of them
_SHAPE_PROBES = 12  # single units moved to see how far a coupling reaches
_RADII = (1.0, 0.5, 0.2, 0.05, 0.0)


class Density(Protocol):
    """What the probes need of a bound model."""

    dim: int

    def log_density_gradient(self, theta: npt.ArrayLike) -> tuple[FloatArray, FloatArray]: ...

    def why_rejected(self, theta: npt.ArrayLike) -> str: ...


@dataclass(frozen=True, slots=True)
class Probe:
    """One line of evidence: a number against its tolerance."""

    probe: str
    holds: bool
    statistic: float
    tolerance: float
    evaluations: int


@dataclass(frozen=True, slots=True)
class Coupling:
    """How units of a level depend on each other, seen by moving single units.

    Attributes:
        shape: "band", "dense" or "graph".
        reach: the largest distance |m - n| along the axis at which a score moved, or None where only groups were seen.
        share: mean share of the other units whose scores moved.
        probed: the units that were moved, shape (P,).
        moved: whether unit n's score moved with probed unit p, shape (P, N).
    """

    shape: str
    reach: int
    share: float
    probed: npt.NDArray[np.int64]
    moved: npt.NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Points:
    """Random points of finite density, their scores and the size of a move."""

    theta: FloatArray  # (P, D)
    gradient: FloatArray  # (P, D)
    evaluations: int


def probe_points(model: Density, rng: np.random.Generator, count: int = NUM_POINTS) -> Points:
    """Random unconstrained points of finite density, drawn uniformly in shrinking boxes around 0.

    Raises:
        StructureError: none of the boxes has such a point; with the model's own reason.
    """
    found: list[tuple[FloatArray, FloatArray]] = []
    evaluations = 0
    for radius in _RADII:
        for _ in range(2 * count if radius else 1):
            if len(found) == count:
                break
            point = rng.uniform(-radius, radius, model.dim)
            lp, gradient = model.log_density_gradient(point)
            evaluations += 1
            if np.isfinite(lp):
                found.append((point, gradient))
    if found:
        theta, gradients = (np.array(part) for part in zip(*found, strict=True))
        return Points(theta, gradients, evaluations)
    raise StructureError(
        f"the log density is not finite at any of {evaluations} random points, nor at 0: "
        f"{model.why_rejected(np.zeros(model.dim)) or 'no reason given'}. Check the data and the bounds of the parameters."
    )


def separability(model: Density, level: Level, points: Points, rng: np.random.Generator) -> Probe:
    """Does any unit's score move with other units' latents? The statistic is the largest relative change.

    Raises:
        StructureError: no unit's own score moves with its own latents, so nothing can be learned here.
    """
    statistic, own, evaluations = 0.0, False, 0
    for theta, gradient in zip(points.theta, points.gradient, strict=True):
        for mask in bit_splits(level.num_units):
            change, used = _scores_after_move(model, level, theta, gradient, mask, rng)
            evaluations += used
            if change is None:
                continue
            statistic = max(statistic, float(change[~mask].max(initial=0.0)))
            own = own or bool((change[mask] > TOLERANCE).any())
    if not own:
        raise StructureError(
            f"the scores of {', '.join(level.latents)} do not move with their own values at any probed point, so level "
            f"{level.name} can't be tested. Check that these parameters enter the model."
        )
    return Probe(f"separability of {level.name}", statistic <= TOLERANCE, statistic, TOLERANCE, evaluations)


def coupling(model: Density, level: Level, points: Points, rng: np.random.Generator) -> tuple[Coupling, int]:
    """The shape of a coupling, from moving single units; and the evaluations it took."""
    n = level.num_units
    probed = np.unique(np.linspace(0, n - 1, min(n, _SHAPE_PROBES)).round().astype(np.int64))
    moved = np.zeros((len(probed), n), dtype=bool)
    evaluations = 0
    for p, unit in enumerate(probed):
        mask = np.zeros(n, dtype=bool)
        mask[unit] = True
        point = p % len(points.theta)
        change, used = _scores_after_move(
            model, level, points.theta[point], points.gradient[point], mask, rng
        )
        evaluations += used
        if change is not None:
            moved[p] = change > TOLERANCE
    distance = np.abs(np.arange(n)[None] - probed[:, None])
    others = moved & (distance > 0)
    reach = int(distance[others].max(initial=0))
    share = float(others.sum() / max(1, len(probed) * (n - 1)))
    limit = max(3, n // 20) if n > 8 else 1
    shape = "band" if 0 < reach <= limit else "dense" if share > 0.4 else "graph"
    return Coupling(shape, reach, share, probed, moved), evaluations


def couples_members(
    model: Density, level: Level, columns: dict[str, slice], points: Points, rng: np.random.Generator
) -> tuple[dict[tuple[str, str], float], int]:
    """Largest relative change of parameter b's scores when parameter a moves in other units, for all pairs (a, b)."""
    changes: dict[tuple[str, str], float] = {}
    evaluations = 0
    for moving, own in columns.items():
        for number, mask in enumerate(bit_splits(level.num_units)):
            point = number % len(points.theta)
            theta, gradient = points.theta[point], points.gradient[point]
            delta, used = _difference(model, level.index[:, own][mask], theta, gradient, rng)
            evaluations += used
            if delta is None:
                continue
            for other, theirs in columns.items():
                change = _relative(delta, gradient, level.index[:, theirs])[~mask].max(initial=0.0)
                key = (moving, other)
                changes[key] = max(changes.get(key, 0.0), float(change))
    return changes, evaluations


def bit_splits(count: int) -> list[npt.NDArray[np.bool_]]:
    """ceil(log2 N) masks over unit numbers such that every two units differ in at least one of them."""
    units = np.arange(count)
    return [(units >> bit & 1).astype(bool) for bit in range(max(1, (count - 1).bit_length()))]


def _scores_after_move(
    model: Density,
    level: Level,
    theta: FloatArray,
    gradient: FloatArray,
    mask: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[FloatArray | None, int]:
    """Relative change of every unit's score (N,) when the latents of the masked units move; None if all rejected."""
    delta, used = _difference(model, level.index[mask], theta, gradient, rng)
    return (None if delta is None else _relative(delta, gradient, level.index)), used


def _difference(
    model: Density, positions: npt.NDArray[np.int64], theta: FloatArray, gradient: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray | None, int]:
    """Change of the whole gradient when the given positions move, in smaller and smaller steps until Stan accepts."""
    direction = rng.uniform(0.5, 1.0, positions.shape) * rng.choice([-1.0, 1.0], positions.shape)
    for used, size in enumerate((0.7, 0.1, 0.01), start=1):
        moved = theta.copy()
        moved[positions] += size * direction
        lp, after = model.log_density_gradient(moved)
        if np.isfinite(lp):
            return after - gradient, used
    return None, 3


def _relative(delta: FloatArray, gradient: FloatArray, index: npt.NDArray[np.int64]) -> FloatArray:
    """Change of each unit's score relative to its size, or to a typical score where it is small: shape (N,)."""
    scores = np.abs(gradient[index])
    typical = np.median(scores, axis=0, keepdims=True)
    return np.asarray((np.abs(delta[index]) / (scores + typical + 1e-300)).max(axis=1, initial=0.0))
