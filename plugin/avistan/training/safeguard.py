"""The best state that training has seen: steps that lead far below it are taken back, and no run ends below it.

The ELBO of a chunk of steps is held against that of the best chunk. Where it is far lower, and draws that both share
say so too, training goes back to where the best chunk ended, with smaller steps. At the end the result is held against
the start and the best chunk in the same way, where the trace leaves a doubt.

Source: steps that are taken back, in the spirit of trust regions: Conn, Gould & Toint, Trust-Region Methods, 2000.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from avistan.objective.elbo import Evaluation, gap
from avistan.runtime.types import FloatArray
from avistan.training.fingerprint import Arrays
from avistan.training.stopping import NATS, SHARE

_FALL = 10.0  # tolerances by which a chunk must lie below the best one, and
_NOISES = 6.0  # standard errors of a chunk's mean
_BATCHES = 2  # of common draws, on each of which it must
_CLOCK = ("steps", "step", "opt_state.steps", "key")  # of a state: random numbers are not used twice
_ERRORS = 3.0  # standard errors by which another family must be better than the result


@runtime_checkable
class Steps[F](Protocol):
    """What can go back to a state that it was in."""

    @property
    def family(self) -> F: ...

    def arrays(self) -> Arrays: ...

    def restore(self, arrays: Arrays) -> None: ...


class Safeguard[F]:
    """The best chunk of a training run.

    Args:
        steps: on which training is; stands at the start.
        measure: ELBOs of families on common draws; without it nothing is taken back.
    """

    def __init__(self, steps: Steps[F], measure: Callable[[F, int], Evaluation] | None) -> None:
        self._steps, self._measure = steps, measure
        self._start = steps.family
        self._first = self._last = (np.nan, np.nan)  # mean and standard error of a chunk, nats
        self._best = (-np.inf, 0.0)
        self._doubt = 1.0  # more after an alarm that draws did not confirm
        self._state: Arrays = {}

    def went_wrong(self, elbo: FloatArray) -> bool:
        """Whether the chunk that just ended, with these ELBO estimates (steps,), is taken back; then it is already."""
        found = _level(elbo)
        if np.isnan(self._first[0]):
            self._first = found
        self._last = found
        if found[0] > self._best[0]:
            self._best, self._state = found, self._steps.arrays()
            return False
        if self._measure is None or not self._state:
            return False
        noise = float(np.hypot(found[1], self._best[1]))
        least = _FALL * max(NATS, SHARE * abs(self._best[0]))
        if not self._best[0] - found[0] > self._doubt * max(least, _NOISES * noise):
            return False
        now = self._steps.arrays()
        here = self._steps.family
        self._steps.restore({**self._state, **{name: now[name] for name in _CLOCK if name in now}})
        best = self._steps.family
        if all(self._below(here, best, number, least) for number in range(_BATCHES)):
            return True
        self._steps.restore(now)
        self._doubt *= 2
        return False

    def _below(self, family: F, best: F, number: int, least: float) -> bool:
        assert self._measure is not None
        fall = self._measure(best, number).elbo - self._measure(family, number).elbo
        return bool(fall > least) or bool(np.isnan(fall))

    def left_the_numbers(self, elbo: FloatArray) -> bool:
        """Whether no estimate of the chunk that just ended, and not every parameter, is finite: no step leads back."""
        if np.isfinite(elbo).any():
            return False
        state = self._steps.arrays().values()
        return not all(np.isfinite(part).all() for part in state if part.dtype.kind == "f")

    def best_of(self, result: F) -> F:
        """The result, or the start or the best chunk's end where these are surely better on common draws."""
        if self._measure is None or np.isnan(self._first[0]):
            return result
        others: list[Callable[[], F]] = []
        if not _surely_above(self._last, self._first):
            others.append(lambda: self._start)
        if self._state and _surely_above(self._best, self._last):
            others.append(self._at_best)
        if not others:
            return result
        own = self._measured(result)
        for make in others:
            other = make()
            found = self._measured(other)
            gain, error = gap(own, found)
            if gain > _ERRORS * error or (np.isfinite(found.elbo) and not np.isfinite(own.elbo)):
                result, own = other, found
        return result

    def _at_best(self) -> F:
        now = self._steps.arrays()
        self._steps.restore(self._state)
        family = self._steps.family
        self._steps.restore(now)
        return family

    def _measured(self, family: F) -> Evaluation:
        assert self._measure is not None
        return Evaluation(
            np.concatenate([self._measure(family, number).log_weights for number in range(_BATCHES)])
        )

    def arrays(self) -> Arrays:
        """The state by name, for a checkpoint."""
        numbers = [*self._first, *self._last, *self._best, self._doubt]
        state = {f"best.{name}": values for name, values in self._state.items()}
        return {"safeguard": np.array(numbers), **state}

    def restore(self, arrays: Arrays) -> None:
        """Go on from a state that `arrays` gave."""
        numbers = [float(number) for number in arrays["safeguard"]]
        self._first, self._last, self._best = (
            (numbers[0], numbers[1]),
            (numbers[2], numbers[3]),
            (numbers[4], numbers[5]),
        )
        self._doubt = numbers[6]
        own = {name: values for name, values in arrays.items() if name.startswith("best.")}
        self._state = {name.removeprefix("best."): values for name, values in own.items()}


def _level(elbo: FloatArray) -> tuple[float, float]:
    """The mean of a chunk's ELBO estimates, -inf without any, and its standard error by their median deviation."""
    kept = elbo[np.isfinite(elbo)]
    if not kept.size:
        return -np.inf, 0.0
    spread = 1.4826 * float(np.median(np.abs(kept - np.median(kept))))
    return float(kept.mean()), spread / float(np.sqrt(kept.size))


def _surely_above(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] - other[0] > _ERRORS * float(np.hypot(one[1], other[1]))
