"""The competition: methods from one start, on common random numbers, against one reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import jax
import numpy as np

from avistan.comparison.competitors import COMPETITORS, External
from avistan.comparison.elbo_curves import curve
from avistan.comparison.references import Reference
from avistan.comparison.results import Comparison
from avistan.comparison.rows import AUTO, Cost, Row, accuracy, best_elbo, with_gap, with_milestones
from avistan.density.slots import register
from avistan.family.family import mean_field_family
from avistan.family.method import parse_method
from avistan.fit import Fit
from avistan.fitting.chains import evaluation_key
from avistan.fitting.fitted import fit_method
from avistan.fitting.options import FitOptions
from avistan.objective.elbo import Evaluation, evaluate
from avistan.runtime.device import zeros
from avistan.runtime.errors import AvistanError
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import Progress
from avistan.runtime.text import finite
from avistan.runtime.types import FloatArray
from avistan.start.preparation import Preparation
from stan_adapters.structure.structure import Structure

MakeProgress = Callable[[str], Progress | None]
MakeAuto = Callable[[int], Fit]  # of a seed

_DRAWS = 4000  # that moments of corrected draws are taken from


def run_competition(
    preparations: Sequence[tuple[Preparation, float]],
    methods: Sequence[str],
    options: FitOptions,
    *,
    structure: Structure,
    external: External,
    auto: MakeAuto,
    reference: Reference | None = None,
    reference_failure: str = "",
    progress: MakeProgress | None = None,
) -> Comparison:
    """Fit every method from the shared start and measure them on the same draws.

    A given number of steps is the same for all methods; without one, the stopping rule ends each by the same tests, and
    the table says after how many steps. A method that can't serve the program is a row with its reason. The gap is
    measured against F-VI in the same family, where it takes part, else against the row "fvi".

    Args:
        preparations: for each seed the start that its methods share, and the seconds it took.
        auto: the fit that `Model.fit` gives by default; it may have a start of its own.
        reference_failure: why the reference that was asked for is missing.

    Raises:
        MethodError: a name that is no method, before anything runs.
    """
    for name in methods:
        meaning(name)
    rounds = [
        _one_round(made, seconds, methods, options, external, auto, reference, progress, number)
        for number, (made, seconds) in enumerate(preparations)
    ]
    first = preparations[0][0]
    return Comparison(
        model=first.model,
        structure=structure,
        units=len(first.index),
        unconstrained_dim=first.model.dim,
        seeds=tuple(made.seed for made, _ in preparations),
        options=options,
        level=first.level,
        reference=reference,
        rows=tuple(replace(same[0], repeats=same[1:]) for same in zip(*rounds, strict=True)),
        seconds_prepare=preparations[0][1],
        reference_failure=reference_failure,
    )


def meaning(name: str) -> Hashable:
    """What a method's or a competitor's name stands for: equal for two names of the same.

    Raises:
        MethodError: it is none, with what there is.
    """
    if isinstance(name, str) and name in (AUTO, *COMPETITORS):
        return name
    return replace(parse_method(name), name="")


def _one_round(
    preparation: Preparation,
    seconds_prepare: float,
    methods: Sequence[str],
    options: FitOptions,
    external: External,
    auto: MakeAuto,
    reference: Reference | None,
    progress: MakeProgress | None,
    number: int,
) -> list[Row]:
    rows = []
    for name in methods:
        bar = progress(name if number == 0 else f"{name}, seed {preparation.seed}") if progress else None
        try:
            if name in COMPETITORS:
                row = _outside(external, name, preparation, options)
            elif name == AUTO:
                row = _of_fit(AUTO, auto(preparation.seed))
            else:
                row = _inside(preparation, name, options, seconds_prepare, bar)
            if bar is not None and name in (AUTO, *COMPETITORS):
                bar(1, 1, row.elbo if row.elbo is not None else np.nan)
            if reference is not None and name == AUTO:
                row = _corrected(row)
        except AvistanError as error:
            rows.append(Row(method=name, outcome="failed", reason=str(error)))
            continue
        measured = None
        if reference is not None and row.mean is not None and row.sd is not None:
            measured = accuracy(row.mean, row.sd, reference, preparation.level)
        rows.append(replace(row, accuracy=measured))
    best = best_elbo(rows)
    return [with_milestones(with_gap(row, rows), best) for row in rows]


def _inside(
    preparation: Preparation, name: str, options: FitOptions, seconds_prepare: float, bar: Progress | None
) -> Row:
    """A method of avistan's own."""
    fit = fit_method(preparation, parse_method(name), options, seconds_prepare=seconds_prepare, progress=bar)
    return _of_fit(fit.method.name, Fit.of(fit))


def _of_fit(name: str, fit: Fit) -> Row:
    mean, sd = fit.marginals()
    ended = f"ended with {fit.method.name}. " if name == AUTO else ""
    return Row(
        method=name,
        outcome=fit.outcome.name,
        reason=f"{ended}{fit.outcome.value}".strip(),
        fit=fit,
        evaluation=fit.evaluation,
        elbo=finite(fit.elbo),
        elbo_se=finite(fit.elbo_se),
        cost=Cost(
            seconds=fit.timing.train,
            seconds_compile=fit.timing.compile,
            seconds_evaluate=fit.timing.evaluate,
            steps=len(fit.trace.elbo),
            gradient_evaluations=fit.gradient_evaluations,
            variational_parameters=fit.num_variational_parameters,
        ),
        curve=curve(fit.trace),
        mean=mean,
        sd=sd,
    )


def _corrected(row: Row) -> Row:
    """The row with means and sds of the draws that its fit hands out."""
    assert row.fit is not None
    theta = row.draws(_DRAWS)
    reason = f"{row.reason} {row.fit.corrected()}".strip()
    return replace(row, mean=theta.mean(axis=0), sd=theta.std(axis=0, ddof=1), reason=reason)


def _outside(external: External, name: str, preparation: Preparation, options: FitOptions) -> Row:
    """A method from outside; a mean-field Gaussian is measured as avistan's own are."""
    made = external.approximate(name, seed=preparation.seed)
    mean, sd = made.theta.mean(axis=0), made.theta.std(axis=0, ddof=1)
    evaluation, elbo, elbo_se, seconds = None, made.elbo, made.elbo_se, 0.0
    if made.mean_field is not None:
        mean, sd = made.mean_field
        started = time.perf_counter()
        evaluation = _evaluate_mean_field(preparation, mean, sd, options)
        seconds = time.perf_counter() - started
        elbo, elbo_se = finite(evaluation.elbo), finite(evaluation.elbo_se)
    return Row(
        method=name,
        outcome="done",
        reason=made.caveat,
        approximation=made,
        evaluation=evaluation,
        elbo=elbo,
        elbo_se=elbo_se,
        cost=Cost(
            seconds=made.seconds,
            seconds_compile=made.seconds_compile,
            seconds_evaluate=seconds,
            steps=made.steps,
            gradient_evaluations=made.gradient_evaluations,
            variational_parameters=None if made.mean_field is None else 2 * len(mean),
        ),
        curve=made.trace,
        mean=mean,
        sd=sd,
    )


@in_float64
def _evaluate_mean_field(
    preparation: Preparation, mean: FloatArray, sd: FloatArray, options: FitOptions
) -> Evaluation:
    family = mean_field_family(mean, sd, preparation.index)
    with register(preparation.model) as slot:
        key = evaluation_key(jax.random.key(preparation.seed))
        inputs = zeros(len(preparation.index), 0, dtype=np.float32)
        return evaluate(family, inputs, slot.index, key, options.elbo_draws)
