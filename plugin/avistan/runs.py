"""Training runs of a fit: independent restarts, each a chain, and the stages by which a family grows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from .arrays import on_device
from .checkpoints import Checkpoint
from .common_numbers import fold_in, make_key
from .evaluation import Evaluation, evaluate
from .families import Family
from .following import following
from .growth import (
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
from .log_density import register
from .methods import Method
from .minibatches import LargePreparation
from .options import FitOptions
from .outcome import FitOutcome, judge
from .preparation import Preparation, start_family
from .training import Progress, Trace, joined, train

# Draws on which a family that grew is judged, more while that leaves a doubt, but fewer of very many parameters; the
# last one's ELBO takes all that were asked for.
_JUDGED_DRAWS, _JUDGED_NUMBERS, _FEWEST = (200, 1000), 2_000_000, 100

_SHAPES_RATE = 0.5  # of the learning rate: exponents and bends are soon wild
_STAGES = 10  # more than the stages of a chain: separates their random numbers and checkpoints


@dataclass(frozen=True, kw_only=True, eq=False)
class Chain:
    """One restart.

    Attributes:
        inputs: unit inputs (N, R), the same for all restarts.
        traces: of each stage that was kept; the family changes between two.
        growth: the richer families that were tried.
        gradient_evaluations: of training, families that were not kept included.
    """

    family: Family = field(repr=False)
    inputs: npt.NDArray[np.float64] = field(repr=False)
    traces: tuple[Trace, ...] = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    growth: tuple[GrowthStep, ...] = ()
    gradient_evaluations: int
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
    return fold_in(key, 3)


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
    if (method.flow or method.conditional == "curved") and method.amortized and not tried:
        way = [without_shapes(method), method]
        made = [
            _run_chain(
                preparation.restarted(n) if n else preparation,
                n,
                way,
                options,
                progress,
                checkpoint,
                judged=False,
            )
            for n in range(chains)
        ]
        return method, tuple(chain for _, chain in made)
    found, first = _run_chain(preparation, 0, [method, *tried], options, progress, checkpoint, judged=True)
    kept = [method, *(m for m in tried if any(s.kept and s.method == m.name for s in first.growth))]
    others = [
        _run_chain(preparation.restarted(n), n, kept, options, progress, checkpoint, judged=False)[1]
        for n in range(1, chains)
    ]
    return found, (first, *others)


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
    key = make_key(preparation.seed)
    method = way[0]
    large = preparation.minibatches if isinstance(preparation, LargePreparation) else None
    if large is not None and method.function == "table":  # a minibatch would move few of its rows
        large = None
    family, inputs = start_family(preparation, method) if large is None else large.start_family(method)
    training = options.training if large is None else large.training(options.training, 0)
    with contextlib.ExitStack() as stack:
        slot = stack.enter_context(register(preparation.model))
        measure = None if large is None else stack.enter_context(large.measure(method, fold_in(key, 4)))
        _, values = preparation.unit_input(method)
        all_inputs = inputs if large is None else on_device(values, np.float32)

        seconds = 0.0

        def weigh(family: Family, draws: int) -> Evaluation:
            nonlocal seconds
            started = time.perf_counter()
            whole = family if large is None else large.whole_family(family)
            found = evaluate(whole, all_inputs, slot.index, evaluation_key(key), draws)
            seconds += time.perf_counter() - started
            return found

        def run(family: Family, stage: int, own_method: Method) -> tuple[Family, Trace]:
            run_number = number * _STAGES + stage
            own = fold_in(key, 1) if run_number == 0 else fold_in(key, 1000 + run_number)
            steps = options.steps
            if steps is not None and stage > 0:  # it begins at the optimum of the poorer family
                steps = max(1, steps // 2)
            saves = None if checkpoint is None else checkpoint.chain(run_number)
            given = training if large is None else large.training(options.training, stage)
            rate = given.learning_rate * (_SHAPES_RATE if stage and has_shapes(own_method) else 1.0)
            given = replace(given, steps=steps, learning_rate=rate)
            if large is None:
                return train(family, inputs, slot.index, given, own, progress, saves)
            with large.batches(method, run_number) as batches:
                return train(family, inputs, slot.index, given, own, progress, saves, batches, measure)

        affordable = max(_FEWEST, _JUDGED_NUMBERS // preparation.model.dim)
        looks = sorted({min(draws, affordable, options.elbo_draws) for draws in _JUDGED_DRAWS})

        def compared(candidate: Family, richer: Method) -> tuple[GrowthStep, dict[int, Evaluation]]:
            """What a candidate buys on the family, and its evaluations by the draws that were asked for."""
            found: dict[int, Evaluation] = {}
            for draws in looks:
                if draws not in known:
                    known[draws] = weigh(family, draws)
                found[draws] = weigh(candidate, draws)
                step = judge_step(richer, found[draws], known[draws])
                if not step.in_doubt:
                    break
            return step, found

        family, trace = run(family, 0, method)
        traces, evaluations = [trace], len(trace.elbo) * training.draws_per_step
        growth: list[GrowthStep] = []
        known: dict[int, Evaluation] = {}  # of the family, by the draws that were asked for
        for stage, richer in enumerate(way[1:], start=1):
            if judged and not worth_trying(richer, growth, preparation.model.dim):
                continue
            if judged and looks[0] not in known:
                known[looks[0]] = weigh(family, looks[0])
            if judged and leaves_nothing(known[max(known)]):
                break
            read = following(preparation, family, richer, np.asarray(all_inputs))
            if read is not None:
                candidate, gradients = read
                evaluations += gradients
            own_traces: list[Trace] = []
            step, found = compared(candidate, richer) if judged and read is not None else (None, {})
            if step is None or not step.kept:
                before = family if large is None else reframed(family)
                start = candidate if read is not None and not judged else grown(before, richer)
                candidate, trace = run(start, stage, richer)
                own_traces, evaluations = [trace], evaluations + len(trace.elbo) * training.draws_per_step
                step, found = compared(candidate, richer) if judged else (None, {})
            if step is not None:
                growth.append(step)
                if not step.kept:
                    continue
            method, family, known = richer, candidate, found
            traces += own_traces
        asked = max(known, default=0)
        if asked < options.elbo_draws and len(known[asked].log_weights if asked else ()) >= asked:
            known[options.elbo_draws] = weigh(family, options.elbo_draws)
        evaluation = known[max(known)]
    return method, Chain(
        family=family if large is None else large.whole_family(family),
        inputs=values,
        traces=tuple(traces),
        evaluation=evaluation,
        growth=tuple(growth),
        gradient_evaluations=evaluations,
        seconds_evaluate=seconds,
    )


def best_of(chains: Sequence[Chain]) -> int:
    """Number of the chain with the largest ELBO."""
    return int(np.argmax([chain.evaluation.elbo for chain in chains]))
