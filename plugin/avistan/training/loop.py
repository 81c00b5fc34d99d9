"""The loop that every method shares: chunks of steps, and what is decided between two of them.

Nothing of a step returns to Python within a chunk (`steps`). The same seed gives the same bytes on the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from avistan.family.family import Family
from avistan.objective.elbo import Evaluation, evaluate
from avistan.objective.gradient import Estimator
from avistan.runtime.deadline import out_of_time
from avistan.runtime.progress import Progress, report_step
from avistan.runtime.streams import Stream, stream_key
from avistan.runtime.types import FloatArray, IntArray
from avistan.training.batches import MANY, Batches
from avistan.training.checkpoints import ChainCheckpoint, going_on
from avistan.training.fingerprint import Arrays
from avistan.training.safeguard import Safeguard
from avistan.training.steps import Training, named, restored
from avistan.training.stopping import MEASURE_DRAWS, QUICK, USUAL, Ending, FixedBudget, Measure, StoppingRule
from avistan.training.unit_rows import FASTER

NO_SLOT = -1  # in place of the whole model, where batches are given
# Numbers drawn for an ELBO that the stopping rule compares, where steps are few: it is not to take longer than they.
_MEASURE_NUMBERS, _FEWEST_DRAWS = 1_000_000, 8
_FEWER_DRAWS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How to train; one record for every method of a comparison.

    Attributes:
        steps: None trains until it no longer pays (`stopping.StoppingRule`); a number, that many steps, the learning
            rate falling along a cosine.
        draws_per_step: Stan gradients a step.
        learning_rate: Adam's, on the standardized scale, before it falls.
        estimator: see `gradient.neg_elbo`.
        chunk: steps between two looks at the trace, of a given number of steps.
        unit_steps: units' rows take natural-gradient steps on pairs of draws (`unit_rows`); the number of draws is
            even.
    """

    steps: int | None = None
    draws_per_step: int = 8
    learning_rate: float = 0.02
    estimator: Estimator = "path"
    chunk: int = 250
    unit_steps: bool = False


def with_unit_steps(options: TrainingOptions, units: int) -> TrainingOptions:
    """Options with natural-gradient steps of the rows of so many units, and longer ones of all else.

    Where the number of steps is not given and units are many, fewer draws a step do: what they leave is small against
    the tolerance.
    """
    fewer = _FEWER_DRAWS if options.steps is None and units >= MANY else 1
    draws = options.draws_per_step // fewer
    return replace(
        options,
        unit_steps=True,
        draws_per_step=2 * max(1, -(-draws // 2)),
        learning_rate=FASTER * options.learning_rate,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What training saw: one entry a step, and a time stamp for the start and the end of each chunk."""

    elbo: FloatArray  # (steps,) nats, nan where every draw was rejected
    num_rejected: IntArray  # (steps,)
    chunk_steps: IntArray  # (chunks + 1,) steps done at each time stamp
    seconds: FloatArray  # (chunks + 1,) since the first step, compilation excluded
    seconds_compile: float
    ended: Ending = Ending.given


def joined(traces: Sequence[Trace]) -> Trace:
    """Runs one after the other as one."""
    first, *rest = traces
    for trace in rest:
        first = Trace(
            elbo=np.concatenate([first.elbo, trace.elbo]),
            num_rejected=np.concatenate([first.num_rejected, trace.num_rejected]),
            chunk_steps=np.concatenate([first.chunk_steps, first.chunk_steps[-1] + trace.chunk_steps[1:]]),
            seconds=np.concatenate([first.seconds, first.seconds[-1] + trace.seconds[1:]]),
            seconds_compile=first.seconds_compile + trace.seconds_compile,
            ended=trace.ended,
        )
    return first


def train(
    family: Family,
    inputs: Float[Array, "N R"],
    slot: int,
    options: TrainingOptions,
    key: PRNGKeyArray,
    progress: Progress | None = None,
    checkpoint: ChainCheckpoint | None = None,
    batches: Batches | None = None,
    measure: Measure | None = None,
) -> tuple[Family, Trace]:
    """Train a family against one registered model; `progress` is called between chunks.

    Where a limit of time (`deadline`) passes, it ends at the end of a chunk, saved, with the best state so far.

    With a checkpoint, training goes on from its last save, to the same bytes as without the interruption; the times of
    the trace are those of both runs together.

    Args:
        measure: ELBOs that the stopping rule compares; by default of the model in the slot, with batches none.

    Raises:
        CheckpointError: the save is damaged or of another training.
    """
    steps = Training(
        family,
        inputs,
        slot,
        key,
        draws=options.draws_per_step,
        estimator=options.estimator,
        batches=batches,
        unit_steps=options.unit_steps,
    )
    if measure is None and batches is None:
        draws = MEASURE_DRAWS
        if options.unit_steps:
            draws = int(np.clip(_MEASURE_NUMBERS // family.dim, _FEWEST_DRAWS, draws))
        measure = _measure_of(inputs, slot, key, draws)
    plan: FixedBudget | StoppingRule
    if options.steps is None:
        dim = None if batches is None else batches.dim
        plan = StoppingRule(
            family, measure, options.learning_rate, dim=dim, pace=QUICK if options.unit_steps else USUAL
        )
    else:
        plan = FixedBudget(options.steps, options.chunk, options.learning_rate)
    saved = None
    if checkpoint is not None:
        saved = checkpoint.load({"training": asdict(options), "start of training": steps.digest()})
    state = steps.start()
    guard = Safeguard(state, lambda state: steps.family(state.moved), measure)
    seen = _Seen()
    if saved is not None:
        with going_on(checkpoint):
            seen = _Seen.of(saved)
            plan.restore(saved)
            guard.restore(saved)
            state = restored(state, saved)
    started = time.perf_counter()
    if plan.rates(seen.steps).size:
        steps.compile()
    seen.seconds_compile += time.perf_counter() - started
    if saved is not None and progress is not None:
        progress(seen.steps, plan.most_steps, float(seen.elbos[0][-1]))
    started, cut, lost = time.perf_counter() - seen.seconds[-1], False, False
    while (rates := plan.rates(seen.steps)).size:
        state, chunk = steps.run(state, rates)
        seen.add(chunk.elbo, chunk.num_rejected, time.perf_counter() - started)
        before, state = state, guard.kept(state, chunk.elbo)
        if state is before:
            plan.see(seen.steps, chunk)
        else:
            plan.retreat(seen.steps)
        latest = float(chunk.elbo[-1])
        report_step(seen.steps, options.steps, latest)
        lost = guard.left_the_numbers(state, chunk.elbo)
        finished = lost or not plan.rates(seen.steps).size
        cut = not finished and out_of_time()
        if checkpoint is not None and (cut or checkpoint.due(finished=finished)):
            checkpoint.save(seen.steps, {**named(state), **plan.arrays(), **guard.arrays(), **seen.arrays()})
            started = time.perf_counter() - seen.seconds[-1]  # saving is no training
        if progress is not None:
            progress(seen.steps, seen.steps if finished else plan.most_steps, latest)
        if cut or lost:
            break
    ended = Ending.diverged if lost else Ending.out_of_time if cut else plan.ended
    last = steps.family(state.moved)
    return guard.best_of(plan.so_far(last) if cut else plan.result(last)), seen.trace(ended)


def _measure_of(inputs: Float[Array, "N R"], slot: int, key: PRNGKeyArray, draws: int) -> Measure:
    def measure(family: Family, number: int) -> Evaluation:
        return evaluate(family, inputs, slot, stream_key(key, Stream.STOPPING, number), draws)

    return measure


@dataclass(slots=True, eq=False)
class _Seen:
    """A trace on its way."""

    elbos: list[FloatArray] = field(default_factory=list)
    rejected: list[IntArray] = field(default_factory=list)
    chunk_steps: list[int] = field(default_factory=lambda: [0])
    seconds: list[float] = field(default_factory=lambda: [0.0])
    seconds_compile: float = 0.0

    @property
    def steps(self) -> int:
        return self.chunk_steps[-1]

    def add(self, elbo: FloatArray, rejected: IntArray, seconds: float) -> None:
        self.elbos.append(elbo)
        self.rejected.append(rejected)
        self.chunk_steps.append(self.steps + len(elbo))
        self.seconds.append(seconds)

    def trace(self, ended: Ending) -> Trace:
        return Trace(
            elbo=np.concatenate(self.elbos),
            num_rejected=np.concatenate(self.rejected),
            chunk_steps=np.array(self.chunk_steps, dtype=np.int64),
            seconds=np.array(self.seconds),
            seconds_compile=self.seconds_compile,
            ended=ended,
        )

    def arrays(self) -> Arrays:
        """By name, for a checkpoint."""
        trace = asdict(self.trace(Ending.given))
        return {f"trace.{name}": np.asarray(values) for name, values in trace.items() if name != "ended"}

    @classmethod
    def of(cls, arrays: Arrays) -> _Seen:
        """What `arrays` gave."""
        return cls(
            [arrays["trace.elbo"]],
            [arrays["trace.num_rejected"]],
            arrays["trace.chunk_steps"].tolist(),
            arrays["trace.seconds"].tolist(),
            float(arrays["trace.seconds_compile"]),
        )
