"""Numerical checks of a slicing: bound models on subsets of units must be the parts of the whole.

With U_A the log density of the program bound to the data of the units A, at shared globals and with each unit's
latents in its own place:

- *exchangeability*: U of permuted units at permuted latents is U;
- *subset additivity*: U_{A+B} + U_0 = U_A + U_B, or, where the program refuses to have no units,
  U_{A+B+C} + U_C = U_{A+C} + U_{B+C}; where there are two units in all, U_A + U_B - U_{A+B} at any latents.

Gradients are compared as well, at no further cost: they show failures that cancel in the density.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError, StructureError
from stan_adapters.levels.levels import Level
from stan_adapters.levels.probes import Probe, probe_points
from stan_adapters.unit_data.parts import Part, PartError, make_part, rebind
from stan_adapters.unit_data.rules import array_of

TOLERANCE = 1e-8  # relative change that rounding explains
MAX_UNITS = 2000  # units in one random subset
_MAX_PERMUTED = (
    20_000  # of more units a sample is permuted: binding all of them again would take their memory twice
)
_MOST_SPLIT = 200  # units that are split; in the whole they have the same scores
_FEW = 9  # units in a small one
_SINGLES = 4
_ADDITIVITY_POINTS = 2
_ORDERS = 2  # in which all units are written, where the program refuses the first
_TRIES = 3  # random subsets; some programs refuse a few of them (a last group without rows)

Subset = Callable[[IndexArray], StanData]


def random_points(model: BoundModel, rng: np.random.Generator, count: int) -> tuple[FloatArray, int]:
    """At most `count` points (P, D) of finite density, and the evaluations that took. Raises StructureError."""
    points = probe_points(model, rng, count, layout=model.layout)
    return points.theta, points.evaluations


@dataclass(eq=False)
class Checker:
    """Binds subsets of one model's units and counts what that takes.

    Attributes:
        occupied: whether a unit has rows, shape (N,), or None. Some programs refuse data whose last unit has none, so
            the random subsets end with one that has.
        smallest: the fewest units that were bound when additivity was checked.
        theta: (P, D) random points of the whole model.
    """

    whole: BoundModel
    level: Level
    subset: Subset
    theta: FloatArray
    rng: np.random.Generator
    occupied: npt.NDArray[np.bool_] | None = None
    bindings: int = 0
    evaluations: int = 0
    last_error: str = ""
    smallest: int = field(init=False)
    _among: FloatArray | None = field(init=False, default=None)  # the blocks' gradients in the whole

    def __post_init__(self) -> None:
        self.smallest = self.level.num_units

    @property
    def _globals(self) -> IndexArray:
        return self.level.globals_index(self.whole.dim)

    def bind_some(self, units: IndexArray, count: int) -> Part:
        """A random sample of the given units that binds. Raises AvistanError when none of a few does."""
        error: AvistanError | None = None
        for _ in range(_TRIES):
            try:
                return self.bind(self._ordered(self.rng.permutation(units)[:count]))
            except AvistanError as refused:
                error = refused
        raise error or StructureError("no sample of units was tried.")

    def bind(self, units: IndexArray) -> Part:
        """Raises AvistanError: the data can't be made, the engine refuses them, or the parameters do not match."""
        data = self.subset(units)
        self.bindings += 1
        model = rebind(self.whole, data)
        try:
            return make_part(self.whole, self.level, model, units)
        except PartError:
            model.close()
            raise

    def evaluate(self, part: Part) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Log densities (P,), gradients of the globals (P, G) and of the blocks (P, M, d) at the whole's points."""
        theta = self.place(part)
        lp, gradient = part.model.log_density_gradient(theta)
        self.evaluations += len(theta)
        rejected = ~np.isfinite(lp)
        if rejected.all():
            self.last_error = part.model.why_rejected(theta[0])
        gradient[rejected] = np.nan  # a gradient of 0 would be compared
        return lp, gradient[:, part.globals], gradient[:, part.locals]

    def place(self, part: Part) -> FloatArray:
        """The whole's points (P, D), with globals shared and each unit's latents in its own place."""
        theta = np.zeros((len(self.theta), part.model.dim))
        theta[:, part.globals] = self.theta[:, self._globals]
        theta[:, part.locals] = self.theta[:, self.level.index[part.units]]
        return theta

    def exchangeability(self) -> Probe:
        """Permute units, data and latents together; of many units a sample, whose scores must be those of the whole.

        Raises PartError, and AvistanError where nothing binds.
        """
        before = self.evaluations
        lp, gradient = self.whole.log_density_gradient(self.theta)
        self.evaluations += len(lp)

        def permuted(units: IndexArray, expected: tuple[FloatArray, FloatArray, FloatArray]) -> float:
            """`expected` is what the units gave in their order: densities, gradients of globals and of blocks."""
            order = self._ordered(units[self.rng.permutation(len(units))])
            place = np.zeros(self.level.num_units, dtype=np.int64)
            place[units] = np.arange(len(units))
            part = self.bind(order)
            with part.model:
                other_lp, other_globals, other_locals = self.evaluate(part)
            return max(
                _difference([expected[0]], [other_lp], np.abs(expected[0]) + 1),
                _difference([expected[1]], [other_globals]),
                _difference([expected[2][:, place[order]]], [other_locals]),
            )

        def attempt() -> float:
            units = np.arange(self.level.num_units)
            if len(units) <= _MAX_PERMUTED:
                everyone = lp, gradient[:, self._globals], gradient[:, self.level.index]
                return permuted(units, everyone)
            sample = self._ordered(self.rng.permutation(units)[:_MAX_PERMUTED])
            part = self.bind(sample)
            with part.model:
                found = self.evaluate(part)
            own = _difference([gradient[:, self.level.index[sample]]], [found[2]])
            return max(own, permuted(sample, found))

        statistic = self._first_that_works(attempt, _ORDERS)
        return self._probe("exchangeability", statistic, before)

    def additivity(self) -> Probe:
        """Split random units in two or three, many of them and a few. Raises as `exchangeability`."""
        before, theta = self.evaluations, self.theta
        self.theta = theta[:_ADDITIVITY_POINTS]
        count = min(self.level.num_units, _MOST_SPLIT)
        empty = self._empty()
        split = self._split_two if empty is None and count == 2 else self._split
        if count < self.level.num_units:
            _, gradient = self.whole.log_density_gradient(self.theta)
            self.evaluations += len(gradient)
            self._among = gradient[:, self.level.index]
        statistic = self._first_that_works(lambda: split(count, empty))
        if count > _FEW and statistic <= TOLERANCE:
            try:
                few = self._first_that_works(lambda: self._split(_FEW, empty))
            except AvistanError:  # a program that needs, say, every category to occur: `smallest` tells
                few = 0.0
            statistic = max(statistic, few)
        if empty is not None:
            empty.model.close()
        self._bind_single_units()
        self.theta = theta
        return self._probe("subset additivity", statistic, before)

    def _bind_single_units(self) -> None:
        """Globals whose size is computed from an array (a largest category) must not depend on who is there.

        Raises PartError.
        """
        declared = (d for d in self.whole.program.parameters if d.name not in self.level.latents)
        sizes = [size for declaration in declared for size in declaration.type.dims]
        if all(array_of(self.whole.data, name).ndim == 0 for size in sizes for name in size.names):
            return
        for unit in self.rng.permutation(self.level.num_units)[:_SINGLES]:
            try:
                self.bind(np.array([unit])).model.close()
            except PartError:
                raise
            except AvistanError:  # too few units for the program, which says nothing of its globals
                continue

    def _empty(self) -> Part | None:
        """The program on no units, or None where it refuses that."""
        try:
            part = self.bind(np.zeros(0, dtype=np.int64))
        except AvistanError:
            return None
        if np.isfinite(self.evaluate(part)[0]).all():
            return part
        part.model.close()
        return None

    def _ordered(self, units: IndexArray) -> IndexArray:
        """The units with one that has rows at the end, if there is any."""
        if self.occupied is None or not self.occupied[units].any():
            return units
        last = int(np.flatnonzero(self.occupied[units])[-1])
        return np.append(np.delete(units, last), units[last])

    def _everyone(self, units: IndexArray) -> Part:
        """The whole model as the part of all units, listed in some order."""
        return Part(self.whole, units, self._globals, self.level.index[units])

    def _split(self, count: int, empty: Part | None) -> float:
        chosen = self.rng.permutation(self.level.num_units)[:count]
        if empty is not None:
            cut = int(self.rng.integers(max(1, count // 3), max(2, count - count // 3)))
            common, first, second = chosen[:0], chosen[:cut], chosen[cut:]
        else:
            third = max(1, count // 3)
            common, first, second = chosen[:third], chosen[third : 2 * third], chosen[2 * third :]
        common, first, second = (self._ordered(units) for units in (common, first, second))
        groups = [np.concatenate([first, second, common]), np.concatenate([first, common]),
                  np.concatenate([second, common])]  # fmt: skip
        parts: list[Part] = []
        try:
            for units in groups:
                parts.append(self.bind(units) if len(units) < self.level.num_units else self._everyone(units))
            parts.append(empty if empty is not None else self.bind(common))
            results = [self.evaluate(part) for part in parts]
        finally:
            for part in parts:
                if part is not empty and part.model is not self.whole:
                    part.model.close()
        if all(np.isfinite(lp).any() for lp, _, _ in results):
            self.smallest = min(self.smallest, *(len(part.units) for part in parts))
        (all_lp, all_g, all_l), (a_lp, a_g, a_l), (b_lp, b_g, b_l), (c_lp, c_g, _) = results
        own = np.concatenate([a_l[:, : len(first)], b_l[:, : len(second)]], axis=1)
        among = all_l if self._among is None else self._among[:, groups[0]]
        return max(
            _difference([among], [all_l]),
            _difference(
                [all_lp, c_lp], [a_lp, b_lp], 1.0 + np.sum([np.abs(lp) for lp, _, _ in results], axis=0)
            ),
            _difference([all_g, c_g], [a_g, b_g]),
            _difference([all_l[:, : len(first) + len(second)]], [own]),
        )

    def _split_two(self, _: int, __: Part | None) -> float:
        """Two units of a program that refuses to have none: U_A + U_B - U_{A+B} must not depend on their latents."""
        theta, both = self.theta, self._everyone(np.arange(2))
        apart: list[Part] = []
        try:
            self.theta = theta[[0, 0]]
            self.theta[:, self.level.index] = theta[:, self.level.index]
            apart = [self.bind(np.array([0])), self.bind(np.array([1]))]
            results = [self.evaluate(part) for part in (both, *apart)]
        finally:
            self.theta = theta
            for part in apart:
                part.model.close()
        self.smallest = 1
        (all_lp, all_g, all_l), (a_lp, a_g, a_l), (b_lp, b_g, b_l) = results
        scale = 1.0 + np.sum([np.abs(lp[:1]) + np.abs(lp[1:]) for lp, _, _ in results], axis=0)
        return max(
            _difference([a_lp[:1], b_lp[:1], all_lp[1:]], [a_lp[1:], b_lp[1:], all_lp[:1]], scale),
            _difference([a_g[:1], b_g[:1], all_g[1:]], [a_g[1:], b_g[1:], all_g[:1]]),
            _difference([all_l], [np.concatenate([a_l, b_l], axis=1)]),
        )

    def _first_that_works(self, attempt: Callable[[], float], tries: int = _TRIES) -> float:
        """A statistic of the first random subset that binds and is finite.

        Raises PartError at once (another subset has the same problem), the engine's error when all tries fail.
        """
        error: AvistanError | None = None
        for _ in range(tries):
            try:
                statistic = attempt()
            except PartError:
                raise
            except AvistanError as refused:
                error = refused
                continue
            if np.isfinite(statistic):
                return statistic
        raise error or StructureError(
            f"the log density of subsets of units is not finite: {self.last_error or 'no reason given'}."
        )

    def _probe(self, name: str, statistic: float, before: int) -> Probe:
        title = f"{name} of {self.level.name}"
        return Probe(title, statistic <= TOLERANCE, statistic, TOLERANCE, self.evaluations - before)


def _difference(
    left: Sequence[FloatArray], right: Sequence[FloatArray], scale: FloatArray | None = None
) -> float:
    """Largest |sum(left) - sum(right)| relative to the terms, over points where all are finite; NaN if none is.

    An entry is compared with its own terms plus a typical one, so that rounding in a sum that cancels is no finding.
    """
    terms = [*left, *right]
    if terms[0].size == 0:
        return 0.0
    finite = np.logical_and.reduce([np.isfinite(t).reshape(len(t), -1).all(axis=1) for t in terms])
    if not finite.any():
        return float("nan")
    size = np.sum([np.abs(t[finite]) for t in terms], axis=0)
    if scale is None:
        axes = tuple(range(1, size.ndim))
        scale_here = size + size.mean(axis=axes, keepdims=True) + 1e-300
    else:
        scale_here = scale[finite]
    gap = np.abs(np.sum([t[finite] for t in left], axis=0) - np.sum([t[finite] for t in right], axis=0))
    return float((gap / scale_here).max())
