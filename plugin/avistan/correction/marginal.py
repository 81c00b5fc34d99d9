"""log p(theta, x) of separable units, its gradient, and draws of the units given theta, some draws at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from avistan.correction.approximation import Approximation, no_inputs
from avistan.correction.conditionals import (
    Integrals,
    Places,
    draw_units,
    integrate,
    move_between,
    num_points,
    rough_places,
    standardized,
    turned,
)
from avistan.correction.rules import Grade, make_rule
from avistan.density.slots import register, set_layout
from avistan.runtime.device import on_device
from avistan.runtime.types import FloatArray, Rng
from stan_adapters.bound.bound_model import BoundModel

_NUMBERS_AT_ONCE = 1 << 22  # of the points of a batch
_MOST_ROWS = 8  # draws of the globals in a batch
_MOST_PASSES = 12  # towards the units' places at one draw, and of any other draw
_MOST_AGAIN = 8
_STILL = 0.1  # sds, and of log sds, by which places move when they are found
_FAR, _UNLIKE = (
    (0.7, 1.0, 1.0),
    (0.3, 0.4, 0.4),
)  # sds from, and log sds by which, a rough place may be off, by grade
_NEARER = 0.6  # of the lines' length after Stan rejected a point
# Grades of integrals, and how many lead to their places, until they are good enough.
_GRADES = ((Grade.straight, 1), (Grade.bent, 1), (Grade.bent, 2), (Grade.fine, 1), (Grade.fine, 3))
_DENSER = 0.9  # of the lines' length, with which integrals are made again for comparison
_SHORTEST = 0.5  # of the lines' length, with which integrals still hold
_ROUGH = 0.03  # nats (sd over draws) by which integrals may differ


@dataclass(slots=True, eq=False)
class Adjustment:
    """How the places of the units differ from where q has them, learnt at one draw of the globals.

    Attributes:
        shift: (d, N), in units of q's factors.
        turn: (d, d, N) by which these are multiplied.
        passes: integrals that lead to the places of each draw.
        grade: of the lines that integrals follow.
        error: sd over draws of the difference between integrals of other points, nats; nan if unknown.
    """

    shift: FloatArray
    turn: FloatArray
    passes: int = 1
    grade: Grade = Grade.straight
    error: float = float("nan")


@dataclass(slots=True, eq=False)
class Marginal:
    """The density of the globals with the units integrated out, as a function of rows of globals (S, G).

    Attributes:
        q: gives rough places of the units.
        index: the model's slot.
        evaluations: gradients of all data that were made so far.
        asked, lost: draws of the globals at which units were integrated out, and those at which they could not be.
        rows: of a batch.
    """

    q: Approximation
    index: Array
    adjustment: Adjustment
    evaluations: int = 0
    asked: int = 0
    lost: int = 0
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        numbers = make_rule(self.block).evaluations * max(1, self.q.family.dim)
        self.rows = int(np.clip(_NUMBERS_AT_ONCE // numbers, 1, _MOST_ROWS))

    @property
    def size(self) -> int:
        """G."""
        return self.q.num_globals

    @property
    def block(self) -> int:
        """d."""
        return int(self.q.family.local.block)

    @property
    def evaluations_each(self) -> int:
        """Gradients that one value takes."""
        return num_points(self.block, self.adjustment.grade) * self.adjustment.passes

    # -- values -------------------------------------------------------------------------------------------------

    def log_p_gradient(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log p(theta, x) (S,) in nats up to the program's constant, and about its gradient (S, G); nan where Stan
        rejected points.
        """

        def found(rows: Array) -> tuple[Any, ...]:
            made = self._integrals(rows)
            return made.log_marginal, np.where(np.asarray(made.usable)[:, None], made.gradient, np.nan)

        log_p, gradient = self._by_rows(found, theta)
        return log_p, gradient

    def units(self, theta: FloatArray, rng: Rng) -> FloatArray:
        """A draw (S, d, N) of all units given each row; nan where Stan rejected points."""

        def drawn(rows: Array) -> tuple[Any, ...]:
            shares = on_device(rng.random((1, len(rows), self.q.family.num_units)))
            return (self._draws(rows, shares, rng)[0],)

        return self._by_rows(drawn, theta)[0]

    def standardized(self, theta: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Draws of all units given rows of globals, in the coordinates that `restored` takes; and how far off
        these are: conditional means and log sds (S, N), the larger of a unit's latents, in conditional sds.

        The draws of one unit are stratified over the rows.
        """
        strata = rng.permuted(np.tile(np.arange(len(theta))[:, None], self.q.family.num_units), axis=0)
        shares = (strata + rng.random(strata.shape)) / len(theta)

        def drawn(rows: Array, share: Array) -> tuple[Any, ...]:
            rough = self._rough(rows)
            z, found = self._draws(rows, share[None], rng)
            shift, turn = move_between(rough, found)
            diagonal = np.abs(np.stack([np.asarray(turn[:, i, i]) for i in range(self.block)], axis=1))
            e = standardized(rough, z)
            return e, np.abs(shift / diagonal).max(axis=1), np.abs(np.log(diagonal)).max(axis=1)

        made = self._by_rows(drawn, theta, shares)
        return made[0], made[1], made[2]

    def restored(self, theta: FloatArray, e: FloatArray) -> FloatArray:
        """Units (S, d, N) given globals (S, G) of standardized draws (S, d, N)."""

        def moved(rows: Array, part: Array) -> tuple[Array]:
            rough = self._rough(rows)
            return (rough.center + np.einsum("sabn,sbn->san", rough.factor, part),)

        return self._by_rows(moved, theta, e)[0]

    # -- places -------------------------------------------------------------------------------------------------

    def calibrate(self, theta: FloatArray) -> bool:
        """Learn at some globals (S, G) how the units' places differ from q's; whether they were found."""
        rows = on_device(np.resize(theta, (self.rows, self.size)))
        begun = self._rough(rows)
        for grade in (Grade.straight, Grade.bent):
            self.adjustment.grade = grade
            places, length, settled = begun, np.ones(self.rows), False
            for _ in range(_MOST_PASSES):
                found = self._once(rows, places, length)
                usable = np.asarray(found.usable)
                places, length = _next(found, places), np.where(usable, 1.0, _NEARER * length)
                away, unlike = (np.asarray(part)[usable] for part in found.farthest)
                settled = bool(usable.any() and away.max() < _STILL and unlike.max() < _STILL)
                if settled:
                    break
            if settled:
                break
        if not usable.any():
            return False
        shift, turn = (np.asarray(part)[usable] for part in move_between(begun, places))
        self.adjustment.shift, self.adjustment.turn = np.median(shift, axis=0), np.median(turn, axis=0)
        return True

    def check(self, theta: FloatArray) -> None:
        """Hold integrals at globals (S, G) against such from other points, and take finer ones if they differ."""
        some = theta[: self.rows]
        for grade, passes in (pair for pair in _GRADES if pair[0] >= self.adjustment.grade):
            self.adjustment.grade, self.adjustment.passes = grade, passes

            def both(rows: Array) -> tuple[Array, Array]:
                found = self._integrals(rows)
                other = turned(found.places, jax.random.key(0)) if self.block > 1 else found.places
                again = self._once(rows, other, np.full(len(rows), _DENSER))
                return found.log_marginal, again.log_marginal

            one, two = self._by_rows(both, some)
            difference = (one - two)[np.isfinite(one - two)]
            self.adjustment.error = float(difference.std()) if len(difference) > 1 else float("nan")
            if self.adjustment.error <= _ROUGH:
                break

    def _rough(self, rows: Array) -> Places:
        moves = on_device(self.adjustment.shift), on_device(self.adjustment.turn)
        made: Places = rough_places(self.q.family, rows, no_inputs(self.q.family), *moves)
        return made

    def _once(self, rows: Array, places: Places, length: FloatArray) -> Integrals:
        """Integrals from places, along lines of these lengths (S,)."""
        self.evaluations += len(rows) * num_points(self.block, self.adjustment.grade)
        scaled = places._replace(factor=places.factor * on_device(length)[:, None, None, None])
        made: Integrals = integrate(self.index, rows, scaled, grade=self.adjustment.grade)
        return made

    def _integrals(self, rows: Array) -> Integrals:
        """Integrals at rows of globals, from places that are not far off; not usable where these aren't found."""
        places, length, grade = self._rough(rows), np.ones(len(rows)), self.adjustment.grade
        for number in range(_MOST_AGAIN + self.adjustment.passes):
            found = self._once(rows, places, length)
            usable = np.asarray(found.usable)
            away, unlike = (
                np.nan_to_num(np.asarray(part), nan=np.inf).max(axis=1) for part in found.farthest
            )
            good = usable & (away <= _FAR[grade]) & (unlike <= _UNLIKE[grade]) & (length > _SHORTEST)
            last = number + 1 >= self.adjustment.passes
            if (last and good.all()) or length.min() < _SHORTEST**4:
                break
            places, length = _next(found, places), np.where(usable, 1.0, _NEARER * length)
        self.asked += len(rows)
        self.lost += int((~good).sum())
        log_marginal = jnp.where(on_device(good), found.log_marginal, jnp.nan)
        return found._replace(usable=on_device(good), log_marginal=log_marginal)

    def _draws(self, rows: Array, shares: Array, rng: Rng) -> tuple[FloatArray, Places]:
        """Draws (S, d, N) of shares (1, S, N), and the places of the units' conditional densities."""
        found = self._integrals(rows)
        self.evaluations += len(rows) * make_rule(self.block, self.adjustment.grade).evaluations
        key = jax.random.key(int(rng.integers(1 << 32)))
        z, usable = draw_units(self.index, rows, found.places, key, shares, grade=self.adjustment.grade)
        kept = np.asarray(usable & found.usable)[:, None, None]
        return np.where(kept, z[0], np.nan), found.places

    def _by_rows(self, made: Callable[..., tuple[Any, ...]], *given: FloatArray) -> tuple[FloatArray, ...]:
        """What a function gives for rows, a fixed number of them at a time."""
        parts = []
        for start in range(0, len(given[0]), self.rows):
            some = [part[start : start + self.rows] for part in given]
            missing = self.rows - len(some[0])
            if missing:
                some = [np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for part in some]
            found = made(*map(on_device, some))
            parts.append([np.asarray(part)[: self.rows - missing] for part in found])
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _next(found: Integrals, places: Places) -> Places:
    """What integrals found, where they were found."""
    keep = found.usable[:, None, None]
    return Places(
        jnp.where(keep, found.places.center, places.center),
        jnp.where(keep[..., None], found.places.factor, places.factor),
    )


@contextmanager
def marginal_density(
    model: BoundModel, q: Approximation, adjustment: Adjustment | None = None
) -> Iterator[Marginal]:
    """The marginal density of a model's globals, open while the block runs."""
    placement, block, units = q.family.placement, q.family.local.block, q.family.num_units
    with register(model) as slot:
        set_layout(slot.index, np.asarray(placement.global_index), np.asarray(placement.local_index).T)
        if adjustment is None:
            turn = np.repeat(np.eye(block)[:, :, None], units, axis=2)
            adjustment = Adjustment(shift=np.zeros((block, units)), turn=turn)
        yield Marginal(q=q, index=on_device(slot.index, np.int64), adjustment=adjustment)
