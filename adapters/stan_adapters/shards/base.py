"""What a density is without its units, and the check that minibatches and this base add up to the whole.

U_0(theta) is the log density of the program bound to no units. Where the program refuses that, it is
U_A + U_B - U_{A+B} with any fixed latents of the units A and B, which cancel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError, StructureError
from stan_adapters.levels.probes import Probe, probe_points
from stan_adapters.shards.shard import Shard, ShardMaker, partition

TOLERANCE = 1e-8  # relative change that rounding explains
_CHECKED_UNITS = 2000  # most units whose parts are compared with their whole
_CHECKED_PARTS = 3
_POINTS = 2
_TRIES = 4  # random units; some programs refuse a few of them


@dataclass(frozen=True, slots=True, eq=False)
class BaseTerm:
    """coefficient * U(template with the globals at `globals_index`).

    Attributes:
        globals_index: (G,) positions in the model's unconstrained vector, in the whole level's order.
        template: (D,) a point of the model; what is not global stays as it is there.
    """

    coefficient: float
    model: BoundModel
    globals_index: IndexArray
    template: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """U_0(theta), what a density is without its units: the sum of one or three terms.

    Attributes:
        probe: random parts of units put together with this base against their whole.
    """

    terms: tuple[BaseTerm, ...]
    probe: Probe

    def log_density_gradient(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """U_0 (S,) and its gradients (S, G) at globals (S, G); -inf and 0 where a term rejects the point."""
        return _sum_terms(self.terms, theta)

    def close(self) -> None:
        for term in self.terms:
            term.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_base(maker: ShardMaker, locals_at: FloatArray, *, seed: int = 0) -> Base:
    """The base of a model's shards, compared with the whole at random points.

    Args:
        locals_at: latents of finite density, (N, d) or (d,) for all units alike; only used where the program refuses
            to have no units.
        seed: chooses the units of the terms, and what the check compares.

    Raises:
        StructureError: random parts of the units do not add up to their whole, or nothing binds.
    """
    rng = np.random.default_rng(seed)
    theta = probe_points(maker.model, rng, _POINTS, layout=maker.model.layout).theta
    globals_at = theta[:, maker.level.globals_index(maker.model.dim)]
    terms = _find_terms(maker, np.broadcast_to(locals_at, maker.level.index.shape), globals_at, rng)
    try:
        probe = _check_parts(maker, terms, theta, rng)
        if not probe.holds:
            raise StructureError(
                f"the log densities of minibatches of {maker.level.name} do not add up to the whole (relative "
                f"difference {probe.statistic:.1g}, tolerance {probe.tolerance:.0g}): train on all units at once."
            )
    except AvistanError:
        for term in terms:
            term.model.close()
        raise
    return Base(terms, probe)


def compare_with_whole(
    whole: Shard, terms: Sequence[BaseTerm], shards: Sequence[Shard], theta: FloatArray, z: FloatArray
) -> Probe:
    """U_0 + sum over a partition of (U_B - U_0) against U: log densities and gradients.

    Args:
        whole: the units together (`ShardMaker.everyone`).
        shards: a partition of its units.
        theta, z: globals (S, G) and blocks (S, N, d) of all units of the level, where to compare.
    """
    lp, gradient = whole.model.log_density_gradient(whole.place(theta, z[:, whole.units]))
    whole_globals, whole_blocks = gradient[:, whole.globals_index], gradient[:, whole.index]
    base_lp, base_globals = _sum_terms(terms, theta)
    parts = [((1 - len(shards)) * base_lp, (1 - len(shards)) * base_globals)]
    worst = 0.0
    place = np.zeros(z.shape[1], dtype=np.int64)
    place[whole.units] = np.arange(whole.num_units)
    for shard in shards:
        part_lp, gradient = shard.model.log_density_gradient(shard.place(theta, z[:, shard.units]))
        parts.append((part_lp, gradient[:, shard.globals_index]))
        worst = max(worst, _change([whole_blocks[:, place[shard.units]]], [gradient[:, shard.index]]))
    worst = max(worst, _change([lp], [part for part, _ in parts], floor=1.0))
    worst = max(worst, _change([whole_globals], [part for _, part in parts]))
    evaluations = len(theta) * (len(shards) + len(terms) + 1)
    return Probe("minibatches add up", worst <= TOLERANCE, worst, TOLERANCE, evaluations)


def _find_terms(
    maker: ShardMaker, locals_at: FloatArray, globals_at: FloatArray, rng: np.random.Generator
) -> tuple[BaseTerm, ...]:
    """No units, or as few as the program takes."""
    error: AvistanError | None = None
    try:
        return _terms(maker, ((1.0, np.zeros(0, dtype=np.int64)),), locals_at, globals_at)
    except AvistanError:
        pass  # the usual refusal: a program on integer outcomes without any
    fewest = min(max(maker.slicing.smallest, 1), maker.level.num_units // 2)
    for count in sorted({1, fewest} - {0}):
        for _ in range(_TRIES):
            units = rng.permutation(maker.level.num_units)[: 2 * count].astype(np.int64)
            first, second = units[:count], units[count:]
            if not len(second):
                break
            try:
                parts = (1.0, first), (1.0, second), (-1.0, units)
                return _terms(maker, parts, locals_at, globals_at)
            except AvistanError as refused:
                error = refused
    raise error or StructureError(
        f"{maker.level.num_units} units of {maker.level.name} can't be split in parts."
    )


def _terms(
    maker: ShardMaker,
    parts: Sequence[tuple[float, IndexArray]],
    locals_at: FloatArray,
    globals_at: FloatArray,
) -> tuple[BaseTerm, ...]:
    """Bound and finite, or none is kept. Raises AvistanError."""
    with ExitStack() as opened:
        terms = []
        for coefficient, units in parts:
            shard = maker(units)
            opened.callback(shard.model.close)
            template = shard.place(np.zeros(len(shard.globals_index)), locals_at[shard.units])
            terms.append(BaseTerm(coefficient, shard.model, shard.globals_index, template))
            points = _points_of(terms[-1], globals_at)
            if not np.isfinite(shard.model.log_density_gradient(points)[0]).all():
                raise StructureError(
                    f"the log density of {len(units)} units of {maker.level.name} is not finite: "
                    f"{shard.model.why_rejected(points[0])}."
                )
        opened.pop_all()
        return tuple(terms)


def _check_parts(
    maker: ShardMaker, terms: Sequence[BaseTerm], theta: FloatArray, rng: np.random.Generator
) -> Probe:
    """Random parts of all units, or of as many as are quickly bound, against their whole."""
    count = min(maker.level.num_units, _CHECKED_UNITS)
    chosen = rng.permutation(maker.level.num_units)[:count].astype(np.int64)
    with ExitStack() as opened:

        def bind(units: IndexArray) -> Shard:
            shard = maker(units)
            opened.callback(shard.model.close)
            return shard

        whole = bind(chosen) if count < maker.level.num_units else maker.everyone()
        parts = partition(rng, count, math.ceil(count / _CHECKED_PARTS))
        shards = [bind(chosen[part]) for part in parts]
        at = maker.level.globals_index(maker.model.dim)
        return compare_with_whole(whole, terms, shards, theta[:, at], theta[:, maker.level.index])


def _points_of(term: BaseTerm, theta: FloatArray) -> FloatArray:
    points = np.tile(term.template, (len(theta), 1))
    points[:, term.globals_index] = theta
    return points


def _sum_terms(terms: Sequence[BaseTerm], theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    lp, gradient = np.zeros(len(theta)), np.zeros_like(theta)
    rejected = np.zeros(len(theta), dtype=bool)
    for term in terms:
        term_lp, term_gradient = term.model.log_density_gradient(_points_of(term, theta))
        rejected |= ~np.isfinite(term_lp)
        lp += term.coefficient * np.where(rejected, 0.0, term_lp)
        gradient += term.coefficient * term_gradient[:, term.globals_index]
    lp[rejected], gradient[rejected] = -np.inf, 0.0
    return lp, gradient


def _change(left: Sequence[FloatArray], right: Sequence[FloatArray], floor: float = 0.0) -> float:
    """Largest |sum(left) - sum(right)| relative to the terms plus a typical one; infinite where one is not finite."""
    terms = [*left, *right]
    if not terms[0].size:
        return 0.0
    if not all(np.isfinite(term).all() for term in terms):
        return math.inf
    size = np.sum([np.abs(term) for term in terms], axis=0)
    typical = size.mean(axis=tuple(range(1, size.ndim)), keepdims=True)
    gap = np.abs(np.sum(left, axis=0) - np.sum(right, axis=0))
    return float((gap / (size + typical + floor + 1e-300)).max())
