"""The competition: methods from one start, on common random numbers, against one reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from avistan.comparison import text_table as comparison_table
from avistan.comparison.competitors import COMPETITORS, Approximation, External, Reference
from avistan.comparison.elbo_curves import Curve, Reached, curve, first_at
from avistan.density.log_density import register
from avistan.family.family import mean_field_family
from avistan.family.method import FACTORIZED, parse_method
from avistan.fit import Fit
from avistan.fitting.chains import evaluation_key
from avistan.fitting.fitted import fit_method
from avistan.fitting.options import FitOptions
from avistan.objective.elbo import Evaluation, evaluate, gap, shared_normals
from avistan.runtime.errors import AvistanError
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import Progress
from avistan.runtime.types import FloatArray
from avistan.start.preparation import Preparation
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.levels.levels import Level
from stan_adapters.structure.structure import Structure

MakeProgress = Callable[[str], Progress | None]

ONE_NAT = 1.0
ONE_PER_MILLE = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Marginal posteriors against a reference, on the unconstrained scale, averaged over coordinates.

    Attributes:
        mean_error: |mean - reference mean| in reference sds.
        sd_ratio: sd over reference sd.
    """

    mean_error: float
    sd_ratio: float
    mean_error_globals: float
    sd_ratio_globals: float
    mean_error_locals: float
    sd_ratio_locals: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a method took. Seconds of training, of compilation before it, and of the final estimate after it."""

    seconds: float
    seconds_compile: float
    seconds_evaluate: float
    steps: int | None
    gradient_evaluations: int | None
    variational_parameters: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One method's result. A method that failed has the outcome "failed" and its reason, and nothing else.

    Attributes:
        outcome: a `FitOutcome`'s name, "done" for a method from outside, or "failed".
        elbo, elbo_se: nats, in the engine's constant; None where the approximation's density is not known.
        gap_to_fvi, gap_se: ELBO of F-VI in the same family, or else of the row "fvi", minus this one's, nats.
        within_nat, within_per_mille: when training first came within 1 nat, and within 0.1 %, of the best ELBO of all.
        repeats: the rows of the same method with other seeds.
    """

    method: str
    outcome: str
    reason: str = ""
    fit: Fit | None = field(default=None, repr=False)
    approximation: Approximation | None = field(default=None, repr=False)
    evaluation: Evaluation | None = field(default=None, repr=False)
    elbo: float | None = None
    elbo_se: float | None = None
    gap_to_fvi: float | None = None
    gap_se: float | None = None
    cost: Cost | None = None
    curve: Curve | None = field(default=None, repr=False)
    within_nat: Reached | None = None
    within_per_mille: Reached | None = None
    mean: FloatArray | None = field(default=None, repr=False)  # (D,) marginals, unconstrained
    sd: FloatArray | None = field(default=None, repr=False)
    accuracy: Accuracy | None = None
    repeats: tuple[Row, ...] = field(default=(), repr=False)

    @property
    def failed(self) -> bool:
        return self.outcome == "failed"

    @property
    def khat(self) -> float | None:
        """Pareto k-hat of all parameters together, where the density of the approximation is known."""
        return None if self.evaluation is None else self.evaluation.khat

    def draws(self, number: int) -> FloatArray:
        """At most `number` unconstrained draws (S, D).

        Raises:
            AvistanError: the method failed.
        """
        if self.fit is not None:
            return np.asarray(self.fit.unconstrained_draws(number)[0])
        if self.approximation is not None:
            return self.approximation.theta[:number]
        raise AvistanError(f"{self.method} failed and has no draws: {self.reason}")

    def to_json(self) -> dict[str, Any]:
        cost, accuracy = self.cost, self.accuracy
        row: dict[str, Any] = {
            "method": self.method,
            "outcome": self.outcome,
            "elbo": self.elbo,
            "elbo_se": self.elbo_se,
            "gap_to_fvi": self.gap_to_fvi,
            "gap_se": self.gap_se,
            **{name: cost and getattr(cost, name) for name in Cost.__dataclass_fields__},
            "khat": self.khat,
            "steps_to_1_nat": self.within_nat and self.within_nat.steps,
            "seconds_to_1_nat": self.within_nat and self.within_nat.seconds,
            "steps_to_0.1_percent": self.within_per_mille and self.within_per_mille.steps,
            "seconds_to_0.1_percent": self.within_per_mille and self.within_per_mille.seconds,
            **{f"reference_{n}": accuracy and getattr(accuracy, n) for n in Accuracy.__dataclass_fields__},
            "reason": self.reason,
        }
        if self.repeats:
            every = (self, *self.repeats)
            row["repeats"] = {
                "outcome": [r.outcome for r in every],
                "elbo": [r.elbo for r in every],
                "gap_to_fvi": [r.gap_to_fvi for r in every],
                "seconds": [r.cost and r.cost.seconds for r in every],
            }
        return row


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A competition's result. Prints as a table; `to_json` is what `avistan compare --json` prints.

    Attributes:
        reference_failure: why there is no reference although a sampler's was asked for; else empty.
    """

    model: BoundModel = field(repr=False)
    structure: Structure = field(repr=False)
    units: int
    unconstrained_dim: int
    seeds: tuple[int, ...]
    options: FitOptions
    level: Level | None = field(repr=False)
    reference: Reference | None = field(repr=False)
    rows: tuple[Row, ...]
    seconds_prepare: float
    reference_failure: str = ""

    @property
    def program(self) -> str:
        return self.structure.program

    @property
    def seed(self) -> int:
        return self.seeds[0]

    @property
    def best_elbo(self) -> float | None:
        """The largest ELBO of all methods, nats."""
        return _best(self.rows)

    def __getitem__(self, method: str) -> Row:
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(method)

    def to_json(self) -> dict[str, Any]:
        return {
            "program": self.program,
            "verdict": str(self.structure.verdict),
            "engine": self.model.engine,
            "units": self.units,
            "unconstrained_dim": self.unconstrained_dim,
            "seed": self.seed,
            "seeds": list(self.seeds),
            "options": asdict(self.options),
            "reference": None if self.reference is None else self.reference.name,
            "reference_failure": self.reference_failure,
            "seconds_prepare": self.seconds_prepare,
            "seconds_reference": None if self.reference is None else _finite(self.reference.seconds),
            "methods": [row.to_json() for row in self.rows],
        }

    def __str__(self) -> str:
        return comparison_table.as_text(self)


@shared_normals()
def run_competition(
    preparations: Sequence[tuple[Preparation, float]],
    methods: Sequence[str],
    options: FitOptions,
    *,
    structure: Structure,
    external: External,
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
        reference_failure: why the reference that was asked for is missing.

    Raises:
        MethodError: a name that is no method, before anything runs.
    """
    for name in methods:
        meaning(name)
    rounds = [
        _one_round(made, seconds, methods, options, external, reference, progress, number)
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
    if isinstance(name, str) and name in COMPETITORS:
        return name
    return replace(parse_method(name), name="")


def _one_round(
    preparation: Preparation,
    seconds_prepare: float,
    methods: Sequence[str],
    options: FitOptions,
    external: External,
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
                if bar is not None:
                    bar(1, 1, row.elbo if row.elbo is not None else np.nan)
            else:
                row = _inside(preparation, name, options, seconds_prepare, bar)
        except AvistanError as error:
            rows.append(Row(method=name, outcome="failed", reason=str(error)))
            continue
        measured = None
        if reference is not None and row.mean is not None and row.sd is not None:
            measured = accuracy(row.mean, row.sd, reference, preparation.level)
        rows.append(replace(row, accuracy=measured))
    best = _best(rows)
    return [_with_milestones(_with_gap(row, rows), best) for row in rows]


def _inside(
    preparation: Preparation, name: str, options: FitOptions, seconds_prepare: float, bar: Progress | None
) -> Row:
    """A method of avistan's own."""
    fit = Fit.of(
        fit_method(preparation, parse_method(name), options, seconds_prepare=seconds_prepare, progress=bar)
    )
    mean, sd = fit.marginals()
    return Row(
        method=fit.method.name,
        outcome=fit.outcome.name,
        reason=fit.outcome.value,
        fit=fit,
        evaluation=fit.evaluation,
        elbo=_finite(fit.elbo),
        elbo_se=_finite(fit.elbo_se),
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
        elbo, elbo_se = _finite(evaluation.elbo), _finite(evaluation.elbo_se)
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
    inputs = jnp.zeros((0, 0), dtype=jnp.float32)
    with register(preparation.model) as slot:
        key = evaluation_key(jax.random.key(preparation.seed))
        return evaluate(mean_field_family(mean, sd), inputs, slot.index, key, options.elbo_draws)


def _with_gap(row: Row, rows: Sequence[Row]) -> Row:
    """The row with its gap to F-VI: from common draws where both densities are known, else from both estimates."""
    other = _baseline(row, rows)
    if other is None:
        return row
    if row.evaluation is not None and other.evaluation is not None:
        value, se = gap(row.evaluation, other.evaluation)
        return replace(row, gap_to_fvi=_finite(value), gap_se=_finite(se))
    if row.elbo is None or row.elbo_se is None or other.elbo is None or other.elbo_se is None:
        return row
    return replace(row, gap_to_fvi=other.elbo - row.elbo, gap_se=float(np.hypot(row.elbo_se, other.elbo_se)))


def _baseline(row: Row, rows: Sequence[Row]) -> Row | None:
    """F-VI in the row's own family if it takes part, else the paper's, which is factorized."""
    tables = [r for r in rows if r.fit is not None and r.fit.method.function == "table"]
    own = FACTORIZED if row.fit is None else row.fit.method.family
    for family in (own, FACTORIZED):
        for table in tables:
            if table.fit is not None and table.fit.method.family == family:
                return table
    return None


def _with_milestones(row: Row, best: float | None) -> Row:
    if row.curve is None or best is None:
        return row
    return replace(
        row,
        within_nat=first_at(row.curve, best - ONE_NAT),
        within_per_mille=first_at(row.curve, best - ONE_PER_MILLE * abs(best)),
    )


def _best(rows: Sequence[Row]) -> float | None:
    return max((row.elbo for row in rows if row.elbo is not None), default=None)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def accuracy(mean: FloatArray, sd: FloatArray, reference: Reference, level: Level | None) -> Accuracy:
    """Errors of marginal means and sds (D,) against a reference; `level` says which coordinates are local."""
    error = np.abs(mean - reference.mean) / reference.sd
    ratio = sd / reference.sd
    is_local = np.zeros(len(sd), dtype=bool)
    if level is not None:
        is_local[level.index.ravel()] = True

    def average(values: FloatArray, chosen: npt.NDArray[np.bool_]) -> float:
        return float(values[chosen].mean()) if chosen.any() else float("nan")

    every = np.ones(len(sd), dtype=bool)
    return Accuracy(
        mean_error=average(error, every),
        sd_ratio=average(ratio, every),
        mean_error_globals=average(error, ~is_local),
        sd_ratio_globals=average(ratio, ~is_local),
        mean_error_locals=average(error, is_local),
        sd_ratio_locals=average(ratio, is_local),
    )
