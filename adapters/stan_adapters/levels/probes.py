"""Numerical probes of a candidate level. None reads the program's statements: only gradients are compared.

Units are *separable* when U(theta, z) = c(theta) + sum_n u_n(z_n, theta): the score of unit n, dU/dz_n, then does not
move with any other unit's latents. For each bit b of the unit number the latents of all units with bit b set are moved
at once and the scores of all others compared, so ceil(log2 N) gradients cover every pair of units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from stan_adapters.data.layout import IndexArray, Layout
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import StructureError
from stan_adapters.levels.levels import Level

TOLERANCE = 1e-10  # relative change of a score that rounding explains
_ROUNDING = 1e-15  # of the largest score: what sums over all units leave behind
NUM_POINTS = 3
_RADII = (0.3, 1.0, 0.05)  # a likelihood that is saturated far out is not close to 0
_SHRINK = (1.0, 0.5, 0.2)
_WIDE = (2.0, 4.0, 8.0)
_WIDE_TRIES = 80  # points with all units alike, where independent ones are all rejected
_MOVES = (0.7, 0.1, 0.01)  # a move that Stan rejects is tried smaller
_FAR_MOVES = (1000.0, 30.0)  # a likelihood with corners (double exponential) is linear nearby
_SHAPE_PROBES = 8  # single units moved to see how far a coupling reaches
_CLEAR = 1e-4  # a change that needs no further probe
_MANY_NUMBERS, _TOGETHER = 100_000, 2  # parameters whose gradients take long enough to be taken side by side

BoolArray = npt.NDArray[np.bool_]


@runtime_checkable
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
        shape: "band", "graph", "dense", or "groups": no single unit moved another one, only many together did.
        reach: the largest distance |m - n| along the axis at which a score moved.
        share: mean share of the other units whose scores moved.
        probed: the units that were moved, shape (P,).
        moved: whether unit n's score moved with probed unit p, shape (P, N).
    """

    shape: str
    reach: int
    share: float
    probed: IndexArray = field(repr=False)
    moved: BoolArray = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Random points of finite density: theta (P, D), gradient (P, D), and the gradients it took to find them."""

    theta: FloatArray
    gradient: FloatArray
    evaluations: int


def probe_points(
    model: Density, rng: np.random.Generator, count: int = NUM_POINTS, *, layout: Layout | None = None
) -> Points:
    """Random unconstrained points of finite density around 0, at different distances.

    Args:
        count: how many at most; fewer where Stan rejects many.
        layout: of the parameters; lets the search try points at which all units are alike when others are rejected.

    Raises:
        StructureError: none of the points has a finite density; with the model's own reason.
    """
    found: list[tuple[FloatArray, FloatArray]] = []
    evaluations = 0

    def is_finite(point: FloatArray) -> bool:
        nonlocal evaluations
        lp, gradient = model.log_density_gradient(point)
        evaluations += 1
        if np.isfinite(lp):
            found.append((point, gradient))
        return bool(np.isfinite(lp))

    for number in range(count):
        radius = _RADII[number % len(_RADII)]
        any(is_finite(rng.uniform(-radius * shrink, radius * shrink, model.dim)) for shrink in _SHRINK)
    if not found:
        radii = (0.0, *np.repeat(_WIDE, _WIDE_TRIES)) if layout is not None else (0.0,)
        any(is_finite(_alike(layout, model.dim, radius, rng)) for radius in radii)
    if not found:
        reason = model.why_rejected(np.zeros(model.dim)) or "no reason given"
        raise StructureError(
            f"the log density is not finite at any of {evaluations} random points: {reason}. Check the data and the "
            "bounds of the parameters: a parameter needs the bounds that its distribution has."
        )
    theta, gradients = (np.array(part) for part in zip(*found, strict=True))
    return Points(theta, gradients, evaluations)


def side_by_side(model: Density) -> int:
    """How many gradients of a model are worth being taken side by side: they take memory too."""
    return _TOGETHER if model.dim > _MANY_NUMBERS else 1


def gradients_at(model: Density, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log densities (S,) and gradients (S, D) at few points (S, D)."""
    if len(points) == 1:
        lp, gradient = model.log_density_gradient(points[0])
        return np.array([lp]), np.asarray(gradient)[None]
    return model.log_density_gradient(points)


class Prober:
    """A model at a few points of finite density, and a count of the gradients taken, those for the points included."""

    def __init__(self, model: Density, points: Points, rng: np.random.Generator) -> None:
        self.model, self.points, self.rng = model, points, rng
        self.evaluations = points.evaluations

    def move(self, positions: IndexArray, point: int, sizes: Sequence[float] = _MOVES) -> FloatArray | None:
        """Relative change (D,) of every score when the given positions move; None if Stan rejects every move.

        The change is relative to the score, or to a typical one where that is small. `sizes` are tried in order.
        """
        return self.moves([(positions, point)], sizes)[0]

    def moves(
        self, which: Sequence[tuple[IndexArray, int]], sizes: Sequence[float] = _MOVES
    ) -> list[FloatArray | None]:
        """As `move`, of several positions and points, whose gradients are taken side by side."""
        found: list[FloatArray | None] = [None] * len(which)
        points = [point % len(self.points.theta) for _, point in which]
        directions = [
            self.rng.uniform(0.5, 1.0, positions.shape) * self.rng.choice([-1.0, 1.0], positions.shape)
            for positions, _ in which
        ]
        for size in sizes:
            left = [number for number, change in enumerate(found) if change is None]
            if not left:
                break
            moved = self.points.theta[[points[number] for number in left]]
            for row, number in zip(moved, left, strict=True):
                row[which[number][0]] += size * directions[number]
            lp, after = gradients_at(self.model, moved)
            self.evaluations += len(left)
            for row, number in enumerate(left):
                if np.isfinite(lp[row]):
                    found[number] = _relative(self.points.gradient[points[number]], after[row])
        return found


@dataclass(frozen=True, slots=True)
class Separability:
    """What bit splits say of a level.

    Attributes:
        statistic: the largest relative change of a score under moves of other units' latents.
        tested: every pair of units was compared, and some unit's own score moved with its own latents.
        touched: (D,) the scores outside the level that moved with it.
    """

    statistic: float
    tested: bool
    touched: BoolArray = field(repr=False)
    evaluations: int

    @property
    def holds(self) -> bool:
        return self.tested and self.statistic <= TOLERANCE


def separability(prober: Prober, level: Level, rounds: int) -> Separability:
    """Does any unit's score move with other units' latents? Stops at a change that leaves no doubt.

    Args:
        rounds: how many times every pair of units is compared, each time at another point.
    """
    start, statistic, own = prober.evaluations, 0.0, False
    bits = max(1, (level.num_units - 1).bit_length())
    touched, seen = np.zeros(prober.model.dim, dtype=bool), np.zeros(bits, dtype=bool)
    together = side_by_side(prober.model)
    for first in range(0, rounds * bits, together):
        turns = range(first, min(first + together, rounds * bits))
        masks = [bit_split(level.num_units, turn % bits) for turn in turns]
        which = [
            (level.index[mask], turn % bits + turn // bits) for mask, turn in zip(masks, turns, strict=True)
        ]
        for turn, mask, change in zip(turns, masks, prober.moves(which), strict=True):
            if change is None:
                continue
            seen[turn % bits] = True
            touched |= change > TOLERANCE
            statistic = max(statistic, float(change[level.index[~mask]].max(initial=0.0)))
            own = own or bool((change[level.index[mask]] > TOLERANCE).any())
        if statistic > _CLEAR:
            break
    if statistic <= TOLERANCE:
        mask = prober.rng.permutation(level.num_units) % 2 == 1
        change = prober.move(level.index[mask], 0, _FAR_MOVES)
        if change is not None:
            statistic = max(statistic, float(change[level.index[~mask]].max(initial=0.0)))
    touched[level.index] = False
    done = bool(seen.all()) or statistic > TOLERANCE
    return Separability(
        statistic, done and (own or statistic > TOLERANCE), touched, prober.evaluations - start
    )


def coupling(prober: Prober, level: Level) -> Coupling:
    """The shape of a coupling, from moving single units."""
    n = level.num_units
    probed = np.unique(np.linspace(0, n - 1, min(n, _SHAPE_PROBES)).round().astype(np.int64))
    moved = np.zeros((len(probed), n), dtype=bool)
    for p, unit in enumerate(probed):
        change = prober.move(level.index[unit], p)
        if change is not None:
            moved[p] = (change[level.index] > TOLERANCE).any(axis=1)
    distance = np.abs(np.arange(n)[None] - probed[:, None])
    others = moved & (distance > 0)
    reach = int(distance[others].max(initial=0))
    within = (distance > 0) & (distance <= reach)
    share = float(others.sum() / max(1, len(probed) * (n - 1)))
    fill = float(others[within].mean()) if within.any() else 0.0
    if reach == 0:
        shape = "groups"
    elif n >= 2 * reach + 2 and (reach == 1 or (fill > 0.4 and reach <= max(2, n // 5))):
        shape = "band"
    else:
        shape = "dense" if fill > 0.4 else "graph"
    return Coupling(shape, reach, share, probed, moved)


def member_couplings(prober: Prober, level: Level, layout: Layout, most: int) -> set[frozenset[str]]:
    """The pairs of a level's parameters that couple its units; one name alone couples its own entries.

    Args:
        most: splits tried for each parameter, most of them random halves of the units.
    """
    columns = level.member_columns(layout)
    found: set[frozenset[str]] = set()
    units = np.arange(level.num_units)
    for moving, own in columns.items():
        for turn in range(most):
            mask = units % 2 == 1 if turn == 0 else prober.rng.permutation(units) % 2 == 1
            change = prober.move(level.index[mask][:, own], turn)
            if change is not None:
                found |= {
                    frozenset((moving, other))
                    for other, theirs in columns.items()
                    if change[level.index[~mask][:, theirs]].max(initial=0.0) > TOLERANCE
                }
            if frozenset((moving,)) in found:
                break
    return found


def uncoupled_groups(names: Sequence[str], couplings: set[frozenset[str]]) -> list[list[str]]:
    """Groups of parameters in which no pair couples units, largest first; parameters that couple alone are left out."""
    left = [name for name in names if frozenset((name,)) not in couplings]
    groups = []
    while left:
        group: list[str] = []
        for name in left:
            if all(frozenset((name, other)) not in couplings for other in group):
                group.append(name)
        groups.append(group)
        left = [name for name in left if name not in group]
    return sorted(groups, key=len, reverse=True)


def bit_split(count: int, bit: int) -> BoolArray:
    """Units (count,) whose number has a bit set; ceil(log2 N) bits tell every two units apart."""
    return (np.arange(count) >> bit & 1).astype(bool)


def _relative(before: FloatArray, after: FloatArray) -> FloatArray:
    """Change of scores (D,) relative to their size, or to a typical score where they are small."""
    size = np.abs(before) + np.abs(after)
    rounding = _ROUNDING * size.max(initial=0.0)
    change = np.abs(after - before) - rounding
    return np.asarray(np.where(change > 0, change / (size + 1e-3 * np.median(size) + 1e-300), 0.0))


def _alike(layout: Layout | None, dim: int, radius: float, rng: np.random.Generator) -> FloatArray:
    """A point (D,) whose entries differ little along each container's first axis: all units nearly alike."""
    point = np.zeros(dim)
    for container in layout.containers if layout is not None else ():
        blocks = (
            container.positions(0)
            if container.axes
            else np.arange(container.offset, container.offset + container.size)[None]
        )
        common = rng.uniform(-radius, radius, blocks.shape[1])
        point[blocks] = common + 0.02 * rng.standard_normal(blocks.shape)
    return point
