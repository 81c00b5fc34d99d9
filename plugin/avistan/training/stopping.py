"""When training ends: a rule that watches the iterates, or a fixed number of steps.

Training runs at a constant rate until it no longer gets anywhere; then the rate falls to almost nothing, and a mean of
the last iterates is the result. "No longer" is two tests of the second half of all steps at that rate, whose two halves
are compared; the first half is the way there. The iterates are stationary: R-hat, the halves taken as chains, is near 1
for globals and units, means and log sds. And the ELBO at the mean of the later iterates is hardly larger than at the
mean of the earlier ones, on draws that both share: means of iterates, because these have lost most of the noise of
single ones, and common draws, because the difference is then far less noisy than either ELBO. Should the falling rate
itself have gained much, a stage at a third of the rate follows. Families with curves (`directions`), if they gain at
all, train for a minimum of steps.

Source: in the spirit of Welandawe, Andersen, Vehtari & Huggins, "A framework for improving the reliability of black-box
variational inference", JMLR 2024, who watch R-hat of the iterates over windows, average them, and lower the rate while
that is predicted to pay.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from avistan.family.family import Family
from avistan.objective.elbo import Evaluation, gap
from avistan.runtime.types import FloatArray
from avistan.training.fingerprint import Arrays
from avistan.training.iterate_means import BlockMeans, Leaves, leaves_of, numbered, with_leaves
from avistan.training.optimizer import FINAL_RATE, WARM_UP_STEPS, learning_rates
from avistan.training.steps import Chunk

Measure = Callable[[Family, int], Evaluation]  # on a batch of random numbers, the same for all families


class Pace(NamedTuple):
    """Steps of a chunk, and until the rate is at its peak."""

    chunk: int
    warm_up: int


USUAL = Pace(25, WARM_UP_STEPS)
QUICK = Pace(10, 20)  # where parameters go straight to where they belong (`unit_rows`)

MEASURE_DRAWS = 96  # of a batch on which ELBOs are compared
# Batches where one leaves a doubt: these, or as many as chunks since the last look, since training too ends doubts.
FEWEST_BATCHES, MOST_BATCHES = 4, 16
MOST_STEPS = 20_000  # a guard, not a setting
FEWEST_CURVED = 2000  # steps of a family with curves, at the first rate, if they bring anything
NATS, SHARE = 1.0, 1e-3  # see `tolerance`
MOST_RHAT = 1.2
RESOLUTION = 0.2  # posterior sds: R-hat takes movements well below for none

_LEFT = 0.85  # of the tolerance, may be left to gain when the rate begins to fall
_ERRORS = 3.0  # standard errors within which a gain is in doubt
_BLOCKS, _BLOCK_CHUNKS = 8, 1  # the fewest blocks that are judged, and the chunks of the first ones
_SHORTEST = _BLOCKS * _BLOCK_CHUNKS * 3 // 2  # chunks of a stage
_FEWEST_MEANS = 4  # of chunks of the trace, in a half, whose noise can be told
_RATE_DROP = 3.0  # from stage to stage


def tolerance(elbo: float, dim: int) -> float:
    """How far from its optimum an ELBO may end, nats: 1, or 0.001 a parameter if that is no more than 0.1 % of it."""
    return max(NATS, SHARE * min(abs(elbo), dim))


class Ending(enum.IntEnum):
    """What ended a training run: the number of steps that was given, the stopping rule, the rule's guard, or a limit of
    time, or parameters that are not finite; or, whatever did, that it is short of the quick fit.
    """

    given = 0
    settled = 1
    spent = 2
    out_of_time = 3
    short = 4
    diverged = 5


class FixedBudget:
    """A given number of steps along a cosine; the last iterate is the result."""

    ended = Ending.given

    def __init__(self, steps: int, chunk: int, peak: float) -> None:
        self.most_steps, self._chunk = steps, chunk
        self._rates = np.array(learning_rates(peak, steps))

    def rates(self, done: int) -> FloatArray:
        """Learning rates of the chunk after `done` steps; none when training ends."""
        return self._rates[done : done + self._chunk]

    def see(self, done: int, chunk: Chunk) -> None:
        """A chunk that ended after `done` steps."""

    def retreat(self, done: int) -> None:
        """A chunk that was taken back: smaller steps from here on."""
        self._rates[done:] /= _RATE_DROP

    def result(self, last: Family) -> Family:
        """What training ends with, given the last iterate."""
        return last

    def so_far(self, last: Family) -> Family:
        """What training ends with if it ends now, given the last iterate."""
        return last

    def arrays(self) -> Arrays:
        """The state by name, for a checkpoint."""
        return {"rule.rates": self._rates}

    def restore(self, arrays: Arrays) -> None:
        """Go on from a state that `arrays` gave."""
        self._rates = np.array(arrays["rule.rates"])


class StoppingRule:
    """Train until it no longer pays; see the module.

    Let C / t be how far the ELBO is from its optimum after t steps, as slow an approach as training mostly shows. Then
    from a mean over steps around t1 to one around t2 it gains C / t1 - C / t2, which gives C. The rate falls when C / t
    is surely below 0.85 of the tolerance, and the half as many steps of the falling rate bring that to 0.6. An
    exponential approach leaves much less. benchmarks/stopping.py measures how often a run ends short.

    Args:
        family: where training begins.
        measure: ELBOs of families, for comparison. None takes them from the trace, with the noise that it has: then the
            gain counts only where it is significant.
        peak: the learning rate to begin with.
        dim: parameters of the whole model, where `family` is for a part of the units.
        pace: of the steps.
    """

    def __init__(
        self,
        family: Family,
        measure: Measure | None,
        peak: float,
        *,
        dim: int | None = None,
        most_steps: int = MOST_STEPS,
        pace: Pace = USUAL,
    ) -> None:
        self._family, self._measure, self._peak = family, measure, peak
        self._dim = family.dim if dim is None else dim
        self.most_steps, self._pace = most_steps, pace
        self.ended = Ending.settled
        self._stage = self._began = 0
        self._falls = (0, 0)  # from which step to which the rate falls; (0, 0) before that is known
        self._done = False
        self._means = BlockMeans(_BLOCKS, _BLOCK_CHUNKS)
        self._steady: Leaves = []  # mean of the iterates before the rate fell
        self._rows: list[FloatArray] = []
        self._elbos: list[float] = []

    def rates(self, done: int) -> FloatArray:
        if self._done:
            return np.empty(0)
        steps = done + np.arange(self._pace.chunk)
        rate = self._peak / _RATE_DROP**self._stage
        start, stop = self._falls
        if stop:
            return np.asarray(rate * (FINAL_RATE + (1 - FINAL_RATE) * (stop - steps) / (stop - start)))
        return np.asarray(rate * np.minimum(1.0, 0.1 + 0.9 * steps / self._pace.warm_up))

    def see(self, done: int, chunk: Chunk) -> None:
        self._means.add(leaves_of(chunk.mean))
        if not self._falls[1]:
            finite = chunk.elbo[np.isfinite(chunk.elbo)]
            self._rows.append(chunk.watched)
            self._elbos.append(float(finite.mean()) if finite.size else np.nan)
            if (self._settled() and self._long_enough(done)) or self._out_of_steps(done):
                self._begin_fall(done)
        elif done == self._falls[1]:
            if self.ended is Ending.spent or self._measure is None or self._gains_little(1, 1.0):
                self._done = True
            elif self.most_steps - done < self._shortest:
                self._done, self.ended = True, Ending.spent
            else:
                self._next_stage(done)

    def retreat(self, done: int) -> None:
        """A chunk that was taken back: a stage of smaller steps from here, or the end where too few are left."""
        self._steady = []
        if self.most_steps - done < self._shortest:
            self._done, self.ended = True, Ending.spent
        else:
            self._next_stage(done)

    @property
    def _shortest(self) -> int:
        """Steps of a stage."""
        return _SHORTEST * self._pace.chunk

    def _next_stage(self, done: int) -> None:
        self._stage, self._began, self._falls = self._stage + 1, done, (0, 0)
        self._means, self._rows, self._elbos = BlockMeans(_BLOCKS, _BLOCK_CHUNKS), [], []

    def _begin_fall(self, done: int) -> None:
        chunk = self._pace.chunk
        pairs = max(1, (done - self._began) // 2 // (2 * chunk))
        self._falls = done, done + pairs * 2 * chunk
        self._steady = self._means.last(max(1, self._means.count // 4))
        self._means = BlockMeans(_BLOCKS, pairs)

    def _out_of_steps(self, done: int) -> bool:
        """Whether the falling rate takes the steps that are left."""
        if done - self._began < (self.most_steps - self._began) * 2 // 3:
            return False
        self.ended = Ending.spent
        return True

    def _settled(self) -> bool:
        count, chunks = self._means.count, self._means.chunks
        if self._means.partial or count < _BLOCKS or count % 2:
            return False
        quarter = count // 4
        window = -2 * quarter * chunks
        if not _rhats(np.array(self._rows[window:]), self._family.globals.size).max() <= MOST_RHAT:
            return False
        share = _LEFT * (1 / (1 - 1.5 * quarter / count) - 1 / (1 - 0.5 * quarter / count))
        if self._measure is not None:
            return self._gains_little(quarter, share)
        halves = np.array(self._elbos[window:]).reshape(2, -1)
        if halves.shape[1] < _FEWEST_MEANS:
            return False
        gain = float(halves[1].mean() - halves[0].mean())
        error = float(np.sqrt(halves.var(axis=1, ddof=1).sum() / halves.shape[1]))
        return gain <= max(share * tolerance(float(halves[1].mean()), self._dim), _ERRORS * error)

    def _long_enough(self, done: int) -> bool:
        """Whether curves have had their steps, or surely gained nothing by the way so far; others need none.

        Where units depend on globals through curves, q reaches into the neck of a funnel step by step: few draws are
        there, and what the rest of it is worth in nats is little against the tolerance, but much of the globals' sds.
        """
        if self._family.curve is None or done >= FEWEST_CURVED:
            return True
        if self._measure is None:
            return False
        later = self._with(self._means.last(self._means.count // 2))
        start, end = np.empty(0), np.empty(0)
        for number in range(MOST_BATCHES):
            start = np.append(start, self._measure(self._family, number).log_weights)
            end = np.append(end, self._measure(later, number).log_weights)
            gain, error = gap(Evaluation(start), Evaluation(end))
            if gain > _ERRORS * error:
                return False
        return True

    def _gains_little(self, blocks: int, share: float) -> bool:
        """Whether the mean over the last blocks surely gains less than a share of the tolerance on those before."""
        assert self._measure is not None
        earlier, later = (self._with(self._means.last(blocks, before)) for before in (blocks, 0))
        before, after = np.empty(0), np.empty(0)
        most = min(MOST_BATCHES, max(FEWEST_BATCHES, 2 * self._means.chunks))
        for number in range(most):
            before = np.append(before, self._measure(earlier, number).log_weights)
            after = np.append(after, self._measure(later, number).log_weights)
            gain, error = gap(Evaluation(before), Evaluation(after))
            little = share * tolerance(Evaluation(after).elbo, self._dim)
            if not abs(gain - little) < _ERRORS * error:
                break
        return gain + _ERRORS * error <= little

    def result(self, last: Family) -> Family:
        """The best of a short mean of iterates, a long one and the last iterate, by the ELBO: where the noise of the
        iterates is what is left, long means are better, where the way is not quite done, late ones.
        """
        if not self._means.count:  # of a stage that was taken back
            return last
        later, whole = self._with(self._means.last(1)), self._means.last(2)
        if self._measure is None:
            return later
        families = [later, last]
        if self._steady:
            families.insert(
                1, self._with([(x + 2 * y) / 3 for x, y in zip(self._steady, whole, strict=True)])
            )
        return families[int(np.argmax([self._measure(family, 0).elbo for family in families]))]

    def so_far(self, last: Family) -> Family:
        """What training ends with if it ends now: the best of the last iterate and means of the latest ones."""
        families = [last]
        if self._means.count:
            families.append(self._with(self._means.last(max(1, self._means.count // 4))))
        if self._steady:
            families.append(self._with(self._steady))
        if self._measure is None:
            return families[min(1, len(families) - 1)]  # a mean has less of the noise of single iterates
        elbos = np.nan_to_num([self._measure(family, 0).elbo for family in families], nan=-np.inf)
        return families[int(np.argmax(elbos))]

    def _with(self, leaves: Leaves) -> Family:
        return with_leaves(self._family, leaves)

    def arrays(self) -> Arrays:
        numbers = [self._stage, self._began, *self._falls, self._done, self.ended]
        found = {
            "rule.numbers": np.array(numbers, dtype=np.int64),
            "rule.rows": np.array(self._rows),
            "rule.elbos": np.array(self._elbos),
            **{f"rule.{name}": values for name, values in self._means.arrays().items()},
        }
        return found | {f"rule.steady.{i}": leaf for i, leaf in enumerate(self._steady)}

    def restore(self, arrays: Arrays) -> None:
        own = {name.removeprefix("rule."): values for name, values in arrays.items()}
        self._stage, self._began, start, stop, done, ended = own["numbers"].tolist()
        self._falls, self._done, self.ended = (start, stop), bool(done), Ending(ended)
        self._rows, self._elbos = list(own["rows"]), own["elbos"].tolist()
        self._means = BlockMeans.of(_BLOCKS, own)
        self._steady = numbered(own, "steady")


def _rhats(rows: FloatArray, size: int) -> FloatArray:
    """R-hats of rows (T, Q) as of `Chunk.watched`: of means and log sds of G globals and of units, means in sds."""
    means, log_sds = rows[:, :size], rows[:, size : 2 * size]
    means = means / np.exp(log_sds.mean(axis=0))
    unit_means, unit_log_sds = np.split(rows[:, 2 * size :], 2, axis=1)
    unit_means = unit_means / np.exp(unit_log_sds.mean(axis=0))
    parts = (means, log_sds, unit_means, unit_log_sds)
    return np.array([rhat(part) for part in parts if part.shape[1]])


def rhat(values: FloatArray) -> float:
    """R-hat of the two halves of a series (T, Q), of its Q parts together.

    Source: Gelman & Rubin, "Inference from iterative simulation using multiple sequences", Statistical Science 1992.
    """
    half = len(values) // 2
    halves = values[-2 * half :].reshape(2, half, -1)
    floor = RESOLUTION**2 * values.shape[1]
    within = float(halves.var(axis=1, ddof=1).mean(axis=0).sum()) + floor
    between = float(halves.mean(axis=1).var(axis=0, ddof=1).sum())
    return float(np.sqrt((half - 1) / half + between / within))
