"""Training runs of a fit: independent restarts, each a chain, and the stages by which a family grows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from avistan.density.slots import register
from avistan.family.family import Family
from avistan.family.method import Method, parse_method
from avistan.fitting.conditional_start import center_globals, start_conditional
from avistan.fitting.family_selection import (
    GrowthStep,
    grown,
    has_shapes,
    judge_step,
    leaves_nothing,
    reframed,
    stages,
    without_shapes,
    worth_trying,
)
from avistan.fitting.natural_gradient import ROUNDS, STILL, natural_gradient_step
from avistan.fitting.options import FitOptions
from avistan.fitting.outcome import FitOutcome, judge
from avistan.fitting.shard_preparation import LargePreparation
from avistan.objective.elbo import Evaluation, evaluate, gap
from avistan.runtime.deadline import out_of_time
from avistan.runtime.device import on_device
from avistan.runtime.progress import Progress, begin_stage
from avistan.runtime.streams import Stream, generator, stream_key
from avistan.start.full_rank_start import full_rank_start
from avistan.start.preparation import Preparation, start_family
from avistan.training.checkpoints import Checkpoint
from avistan.training.loop import Trace, joined, train, with_unit_steps
from avistan.training.stopping import Ending, tolerance
from avistan.training.unit_rows import has_rows

# Draws on which a family that grew is judged, more while that leaves a doubt, but fewer of very many parameters; the
# last one's ELBO takes all that were asked for.
_JUDGED_DRAWS, _JUDGED_NUMBERS, _OF_MANY = (200, 400, 1000), 2_000_000, (10, 100)

_SHAPES_RATE = 0.5  # of the learning rate: exponents and bends are soon wild
_ERRORS = 3.0  # standard errors by which the quick fit must be better than a function to say so
_FREE = parse_method("fvi")
_STAGES = 10  # more than the stages of a chain: separates their random numbers and checkpoints


@dataclass(frozen=True, kw_only=True, eq=False)
class Chain:
    """One restart.

    Attributes:
        inputs: unit inputs (N, R), the same for all restarts.
        traces: of each stage that was kept; the family changes between two.
        growth: the richer families that were tried.
        gradient_evaluations, seconds_train, seconds_compile: of training, families that were not kept and the reading
            of curvature included.
    """

    family: Family = field(repr=False)
    inputs: npt.NDArray[np.float64] = field(repr=False)
    traces: tuple[Trace, ...] = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    growth: tuple[GrowthStep, ...] = ()
    gradient_evaluations: int
    seconds_train: float
    seconds_compile: float
    seconds_evaluate: float

    @property
    def trace(self) -> Trace:
        """All stages one after the other."""
        return joined(self.traces)

    @property
    def outcome(self) -> FitOutcome:
        return judge(self.traces[-1], self.evaluation)


def evaluation_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """The key of the ELBO's draws: the same for every method of one seed."""
    return stream_key(key, Stream.ELBO)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite shows in the outcome
def run_chains(
    preparation: Preparation,
    method: Method,
    options: FitOptions,
    *,
    chains: int = 1,
    grow: bool = False,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Method, tuple[Chain, ...]]:
    """Train a method from `chains` starts, the first at the shared one and the others at random ones.

    A network with a flow or curves, which begins at weights that say little of a unit's shape, first trains without.

    Growth is decided by the first chain; the others take the same way, so that all chains are of one family, the method
    that is returned.
    """
    units, block = preparation.index.shape
    by_path = isinstance(preparation, LargePreparation)
    sizes = block, len(preparation.globals_index)
    tried = stages(method, *sizes, num_units=units, by_path=by_path) if grow else []
    shaped = (method.flow or method.conditional == "curved") and method.amortized and not tried
    way, given = [method, *tried], (options, progress, checkpoint)
    if shaped:
        way = [without_shapes(method), method]
    found, first = _run_chain(preparation, 0, way, *given, judged=not shaped)
    if not shaped:
        way = [method, *(m for m in tried if any(s.kept and s.method == m.name for s in first.growth))]
    others = [
        _run_chain(preparation.restarted(n), n, way, *given, judged=False)[1]
        for n in range(1, chains)
        if not out_of_time()
    ]
    return method if shaped else found, (first, *others)


class _Weights:
    """Log weights of draws of a family, made as they are asked for."""

    def __init__(self, weigh: Callable[[Evaluation, int], Evaluation]) -> None:
        self._weigh, self._asked = weigh, 0
        self.made = Evaluation(np.empty(0))

    def first(self, draws: int) -> Evaluation:
        """Of that many draws, or fewer where there are very many parameters."""
        if draws > self._asked:
            self.made, self._asked = self._weigh(self.made, draws), draws
        return Evaluation(self.made.log_weights[:draws])


@dataclass(frozen=True, eq=False)
class _Stage:
    """A family on the way, the traces that led to it, and what it is worth."""

    method: Method
    family: Family
    traces: tuple[Trace, ...]
    weights: _Weights


class _ChainRun:
    """What the stages of one chain share; open while the block lasts. Arguments as of `_run_chain`."""

    def __init__(
        self,
        preparation: Preparation,
        number: int,
        method: Method,
        options: FitOptions,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._preparation, self._number, self._method, self._options = preparation, number, method, options
        self._progress, self._checkpoint = progress, checkpoint
        self._key = jax.random.key(preparation.seed)
        self._large = (
            preparation.minibatches_of(method) if isinstance(preparation, LargePreparation) else None
        )
        if self._large is not None and method.function == "table":  # a minibatch would move few of its rows
            self._large = None
        self.seconds_train = self.seconds_compile = self.seconds_evaluate = 0.0
        self.gradient_evaluations = 0
        self.cut = False  # by a limit of time
        affordable = _JUDGED_NUMBERS // preparation.model.dim
        looks = (
            [min(draws, affordable) for draws in _JUDGED_DRAWS] if affordable > max(_OF_MANY) else _OF_MANY
        )
        self._looks = sorted({min(draws, options.elbo_draws) for draws in looks})

    def __enter__(self) -> _ChainRun:
        method, large = self._method, self._large
        own = start_family(self._preparation, method) if large is None else large.start_family(method)
        self._start, self._inputs = own
        with contextlib.ExitStack() as stack:
            self._slot = stack.enter_context(register(self._preparation.model)).index
            _, self.values = self._preparation.unit_input(method)
            self._all_inputs, self._batches, self._measure = self._inputs, None, None
            if large is not None:
                self._all_inputs = on_device(self.values, np.float32)
                self._batches = stack.enter_context(large.batches(self.values, self._number * _STAGES))
                self._measure = stack.enter_context(large.measure(self.values, self._key))
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._opened.close()

    def whole(self, family: Family) -> Family:
        """The same family for all units."""
        return family if self._large is None else self._large.whole_family(family)

    def first(self) -> _Stage:
        """The method's own family, trained."""
        turned = self._turned(self._start)
        family, trace = self._train(self._start if turned is None else turned, 0, self._method)
        return self._stage(self._method, family, (trace,))

    def with_last_steps(self, found: _Stage) -> _Stage:
        """The stage after natural-gradient steps of the globals, as long as they are long and the ELBO rises.

        A given number of steps is left as it is. On minibatches every stage but the first ends with steps of its own,
        and in a factorized family of so many units they are worth far less than the tolerance.
        """
        if self._large is not None or self._options.steps is not None:
            return found
        if isinstance(self._preparation, LargePreparation) and has_rows(found.family):
            return found
        begin_stage("steps of the globals", next="the ELBO")
        for count in range(ROUNDS):
            if out_of_time():
                self.cut = True
                break
            started = time.perf_counter()
            key = stream_key(self._key, Stream.NATURAL_GRADIENT, count)
            step = natural_gradient_step(found.family, self._inputs, self._slot, key)
            self.seconds_train += time.perf_counter() - started
            if step is None:
                break
            self.gradient_evaluations += step.gradient_evaluations
            if step.size < STILL:
                break
            moved = self._stage(found.method, step.family, found.traces)
            gain, error = gap(found.weights.first(self._looks[0]), moved.weights.first(self._looks[0]))
            if not gain > error:
                break
            found = moved
        return found

    def short_of_quick_fit(self, found: _Stage) -> bool:
        """Whether a function of signatures ends surely below the quick fit, and by more than the tolerance.

        On minibatches the quick fit is itself a function's; a function of declared data was chosen for what it is.
        """
        method = found.method
        if not method.amortized or method.data or isinstance(self._preparation, LargePreparation):
            return False
        free, _ = start_family(self._preparation, _FREE)
        quick = self._stage(_FREE, free, found.traces).weights
        for draws in (*self._looks, self._options.elbo_draws):  # more while that is in doubt
            reached = quick.first(draws)
            more, error = gap(found.weights.first(draws), reached)
            least = tolerance(reached.elbo, self._preparation.model.dim)
            if abs(more - least) > _ERRORS * error:
                break
        return more > max(least, _ERRORS * error)

    def leaves_nothing(self, before: _Stage) -> bool:
        """Whether no richer family can bring what it would have to."""
        before.weights.first(self._looks[0])
        return leaves_nothing(before.weights.made)

    def next(self, before: _Stage, number: int, richer: Method) -> _Stage:
        """A richer family, whatever it brings."""
        start = self._from_curvature(before, richer)
        return self._trained(before, number, richer, start)

    def judged(self, before: _Stage, number: int, richer: Method) -> tuple[_Stage, GrowthStep]:
        """A richer family, and what it brings: one started from curvature if that pays, else one that is trained.

        On minibatches the correlations within units, which are told by some of the units, are trained anyway.
        """
        start = self._from_curvature(before, richer)
        if start is not None:
            found = self._stage(richer, start, before.traces)
            step = self._compared(found, before)
            trained = self._large is None or richer.local == before.method.local
            if step.kept and trained and start.placement.local_index.size > 0:
                return found, step
            start = start if step.kept else None
        found = self._trained(before, number, richer, start)
        return found, self._compared(found, before)

    def _from_curvature(self, before: _Stage, richer: Method) -> Family | None:
        started = time.perf_counter()
        begin_stage(f"reading curvature for {richer.name}", next="its training, if the ELBO asks for it")
        read = start_conditional(self._preparation, before.family, richer, np.asarray(self._all_inputs))
        self.seconds_train += time.perf_counter() - started
        if read is None:
            correlated = before.method.globals != richer.globals
            return self._turned(grown(before.family, richer)) if correlated else None
        family, gradients = read
        self.gradient_evaluations += gradients
        return family

    def _turned(self, family: Family) -> Family | None:
        """The family at the curvature of a density that has no units, if the ELBO at once is the better for it."""
        started = time.perf_counter()
        rng = generator(self._preparation.seed, Stream.STARTS_OF_CHAINS, self._number)
        read = full_rank_start(self._preparation.model, family, rng)
        if read is None:
            return None
        self.seconds_train += time.perf_counter() - started
        turned, gradients = read
        self.gradient_evaluations += gradients
        before, after = (
            self._stage(self._method, one, ()).weights.first(self._looks[0]) for one in (family, turned)
        )
        gain, error = gap(before, after)
        return turned if gain > error else None

    def _trained(self, before: _Stage, number: int, richer: Method, start: Family | None) -> _Stage:
        """Trained from a start, by default from what came before."""
        if start is None:
            start = grown(before.family if self._large is None else reframed(before.family), richer)
        family, trace = self._train(start, number, richer)
        found = self._stage(richer, family, (*before.traces, trace))
        if self._large is None:
            return found
        started = time.perf_counter()
        again = center_globals(self._preparation, family, richer, np.asarray(self._all_inputs))
        self.seconds_train += time.perf_counter() - started
        if again is None:
            return found
        family, gradients = again
        self.gradient_evaluations += gradients
        moved = self._stage(richer, family, found.traces)
        step = self._compared(moved, found)
        return found if step.gain < -step.gain_se else moved

    def _train(self, family: Family, stage: int, method: Method) -> tuple[Family, Trace]:
        number = self._number * _STAGES + stage
        key = stream_key(self._key, Stream.TRAINING, number)
        steps, given = self._options.steps, self._options.training
        if steps is not None and stage > 0:  # it begins at the optimum of the poorer family
            steps = max(1, steps // 2)
        saves = None if self._checkpoint is None else self._checkpoint.chain(number)
        shaped = stage > 0 and has_shapes(method)
        if self._large is not None:
            given = self._large.training(given, richer=stage > 0, shaped=shaped)
        elif self._preparation.separable and given.estimator == "path" and has_rows(family):
            given = with_unit_steps(given, family.num_units)
        begin_stage(f"training {method.name}", next="the ELBO, and richer families if these may pay")
        rate = given.learning_rate * (_SHAPES_RATE if shaped else 1.0)
        given = replace(given, steps=steps, learning_rate=rate)
        found, trace = train(
            family, self._inputs, self._slot, given, key, self._progress, saves, self._batches, self._measure
        )
        if self._batches is not None:
            self._batches.passed(len(trace.elbo))
        self.gradient_evaluations += len(trace.elbo) * given.draws_per_step
        self.seconds_train += float(trace.seconds[-1])
        self.seconds_compile += trace.seconds_compile
        return found, trace

    def _stage(self, method: Method, family: Family, traces: tuple[Trace, ...]) -> _Stage:
        def weigh(known: Evaluation, draws: int) -> Evaluation:
            started = time.perf_counter()
            key = evaluation_key(self._key)
            whole = self.whole(family)
            found = evaluate(whole, self._all_inputs, self._slot, key, draws, known=known)
            self.seconds_evaluate += time.perf_counter() - started
            return found

        return _Stage(method, family, traces, _Weights(weigh))

    def _compared(self, found: _Stage, before: _Stage) -> GrowthStep:
        """What a family buys on the one before, on more draws while that is in doubt."""
        for draws in self._looks:
            step = judge_step(found.method, found.weights.first(draws), before.weights.first(draws))
            if not step.in_doubt:
                break
        return step


def _run_chain(
    preparation: Preparation,
    number: int,
    way: Sequence[Method],
    options: FitOptions,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
    *,
    judged: bool,
) -> tuple[Method, Chain]:
    """One chain through its stages; judged stages that bring too little are dropped."""
    with _ChainRun(preparation, number, way[0], options, progress, checkpoint) as run:
        best, growth = run.first(), list[GrowthStep]()
        run.cut = _cut_off(best)
        for stage, richer in enumerate(way[1:], start=1):
            run.cut = run.cut or out_of_time()
            if run.cut:
                break
            if not judged:
                best = run.next(best, stage, richer)
            elif worth_trying(richer, growth, preparation.model.dim, best.weights.made):
                if run.leaves_nothing(best):
                    break
                found, step = run.judged(best, stage, richer)
                growth.append(step)
                best, run.cut = found if step.kept else best, _cut_off(found)
        if not run.cut:
            best = run.with_last_steps(best)
        begin_stage("the ELBO", next="the diagnosis")
        short = not run.cut and not _diverged(best) and run.short_of_quick_fit(best)
        ended = Ending.out_of_time if run.cut else Ending.short if short else None
        return best.method, Chain(
            evaluation=best.weights.first(options.elbo_draws),
            family=run.whole(best.family),
            inputs=run.values,
            traces=_marked(best.traces, ended) if ended is not None else best.traces,
            growth=tuple(growth),
            gradient_evaluations=run.gradient_evaluations,
            seconds_train=run.seconds_train,
            seconds_compile=run.seconds_compile,
            seconds_evaluate=run.seconds_evaluate,
        )


def _cut_off(found: _Stage) -> bool:
    return found.traces[-1].ended is Ending.out_of_time


def _diverged(found: _Stage) -> bool:
    return found.traces[-1].ended is Ending.diverged


def _marked(traces: tuple[Trace, ...], ended: Ending) -> tuple[Trace, ...]:
    """The traces of a chain of which more is to be said than how its last stage ended."""
    return (*traces[:-1], replace(traces[-1], ended=ended))


def best_of(chains: Sequence[Chain]) -> int:
    """Number of the chain with the largest ELBO."""
    return int(np.argmax([chain.evaluation.elbo for chain in chains]))
