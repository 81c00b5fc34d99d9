"""The best state that training has seen: steps that lead far below it are taken back, and no run ends below it.

The ELBO of a chunk of steps is held against that of the best chunk. Where it is far lower, and draws that both share
say so too, training goes back to where the best chunk ended, with smaller steps. At the end the result is held against
the start and the best chunk in the same way, where the trace leaves a doubt.

Source: steps that are taken back, in the spirit of trust regions: Conn, Gould & Toint, Trust-Region Methods, 2000.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from avistan.objective.elbo import Evaluation, gap
from avistan.runtime.types import FloatArray
from avistan.training.fingerprint import Arrays
from avistan.training.steps import State, named, restored
from avistan.training.stopping import NATS, SHARE

_FALL = 10.0  # tolerances by which a chunk must lie below the best one, and
_NOISES = 6.0  # standard errors of a chunk's mean
_BATCHES = 2  # of common draws, on each of which it must
_ERRORS = 3.0  # standard errors by which another family must be better than the result


class Safeguard[F]:
    """The best chunk of a training run.

    Args:
        start: the state before the first step.
        family: of a state.
        measure: ELBOs of families on common draws; without it nothing is taken back.
    """

    def __init__(
        self, start: State, family: Callable[[State], F], measure: Callable[[F, int], Evaluation] | None
    ) -> None:
        self._start, self._family, self._measure = start, family, measure
        self._first = self._last = (np.nan, np.nan)  # mean and standard error of a chunk, nats
        self._best = (-np.inf, 0.0)
        self._opening = np.nan  # the estimate of the first step, where training began
        self._doubt = 1.0  # more after an alarm that draws did not confirm
        self._state: State | None = None  # at the end of the best chunk

    def kept(self, state: State, elbo: FloatArray) -> State:
        """Where training goes on after a chunk with these ELBO estimates (steps,) that ended in a state: there, or
        where the best chunk ended, with random numbers that were not used yet.
        """
        found = _level(elbo)
        if np.isnan(self._first[0]):
            self._first, self._opening = found, float(elbo[0])
        self._last = found
        if found[0] > self._best[0]:
            self._best, self._state = found, state
            return state
        if self._measure is None or self._state is None:
            return state
        noise = float(np.hypot(found[1], self._best[1]))
        least = _FALL * max(NATS, SHARE * abs(self._best[0]))
        if not self._best[0] - found[0] > self._doubt * max(least, _NOISES * noise):
            return state
        here, best = self._family(state), self._family(self._state)
        if all(self._below(here, best, number, least) for number in range(_BATCHES)):
            return self._state._replace(key=state.key, step=state.step)
        self._doubt *= 2
        return state

    def _below(self, family: F, best: F, number: int, least: float) -> bool:
        assert self._measure is not None
        fall = self._measure(best, number).elbo - self._measure(family, number).elbo
        return bool(fall > least) or bool(np.isnan(fall))

    @staticmethod
    def left_the_numbers(state: State, elbo: FloatArray) -> bool:
        """Whether no estimate of the chunk that just ended, and not every parameter, is finite: no step leads back."""
        return not np.isfinite(elbo).any() and not all(
            np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.moved)
        )

    def best_of(self, result: F) -> F:
        """The result, or the start or the best chunk's end where these are surely better on common draws."""
        if self._measure is None or np.isnan(self._first[0]):
            return result
        others: list[State] = []
        if not _surely_above(self._last, self._first) or not self._last[0] > self._opening:
            others.append(self._start)
        if self._state is not None and _surely_above(self._best, self._last):
            others.append(self._state)
        if not others:
            return result
        least = self._measured(result)
        for state in others:
            other = self._family(state)
            found = self._measured(other)
            gain, error = gap(least, found)
            if gain > _ERRORS * error or (np.isfinite(found.elbo) and not np.isfinite(least.elbo)):
                result, least = other, found
        return result

    def _measured(self, family: F) -> Evaluation:
        assert self._measure is not None
        return Evaluation(
            np.concatenate([self._measure(family, number).log_weights for number in range(_BATCHES)])
        )

    def arrays(self) -> Arrays:
        """The state by name, for a checkpoint."""
        numbers = np.array([*self._first, *self._last, *self._best, self._doubt, self._opening])
        state = {} if self._state is None else named(self._state)
        return {"safeguard": numbers} | {f"best.{name}": values for name, values in state.items()}

    def restore(self, arrays: Arrays) -> None:
        """Go on from a state that `arrays` gave."""
        first, last, best, (self._doubt, self._opening) = np.split(arrays["safeguard"], [2, 4, 6])
        self._first, self._last, self._best = ((float(a), float(b)) for a, b in (first, last, best))
        found = {name.removeprefix("best."): values for name, values in arrays.items() if name[:5] == "best."}
        self._state = restored(self._start, found) if found else None


def _level(elbo: FloatArray) -> tuple[float, float]:
    """The mean of a chunk's ELBO estimates, -inf without any, and its standard error by their median deviation."""
    kept = elbo[np.isfinite(elbo)]
    if not kept.size:
        return -np.inf, 0.0
    spread = 1.4826 * float(np.median(np.abs(kept - np.median(kept))))
    return float(kept.mean()), spread / float(np.sqrt(kept.size))


def _surely_above(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] - other[0] > _ERRORS * float(np.hypot(one[1], other[1]))
