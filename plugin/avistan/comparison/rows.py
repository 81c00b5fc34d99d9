"""What a comparison says of a method: its result, its cost, its accuracy, and what others make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from avistan.comparison.competitors import OutsideDraws
from avistan.comparison.elbo_curves import Curve, Reached, first_at
from avistan.comparison.references import Reference
from avistan.family.method import FACTORIZED
from avistan.fit import Fit
from avistan.objective.elbo import Evaluation, gap
from avistan.posterior.handed_out import unconstrained_posterior
from avistan.runtime.errors import AvistanError
from avistan.runtime.text import finite
from avistan.runtime.types import FloatArray
from stan_adapters.levels.levels import Level

AUTO = "auto"  # the fit that `Model.fit` gives, with the posterior that it hands out
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
    approximation: OutsideDraws | None = field(default=None, repr=False)
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
    def function(self) -> str | None:
        """Where the variational parameters of a unit come from, as in `Method`; None for a method from outside."""
        return None if self.fit is None else self.fit.method.function

    @property
    def amortized(self) -> bool:
        """Whether it learned a function of the unit's input."""
        return self.fit is not None and self.fit.method.amortized

    @property
    def khat(self) -> float | None:
        """Pareto k-hat of all parameters together, where the density of the approximation is known."""
        return None if self.evaluation is None else self.evaluation.khat

    def draws(self, number: int) -> FloatArray:
        """At most `number` unconstrained draws (S, D); of `auto` those that its fit hands out, else q's.

        Raises:
            AvistanError: the method failed.
        """
        if self.fit is not None and self.method == AUTO:
            return unconstrained_posterior(self.fit, number)
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


def accuracy(mean: FloatArray, sd: FloatArray, reference: Reference, level: Level | None) -> Accuracy:
    """Errors of marginal means and sds (D,) against a reference; `level` says which coordinates are local."""
    error = np.abs(mean - reference.mean) / reference.sd
    ratio = sd / reference.sd
    is_local = np.zeros(len(sd), dtype=bool)
    if level is not None:
        is_local[level.index.ravel()] = True

    averages = {}
    for part, chosen in (("", np.ones_like(is_local)), ("_globals", ~is_local), ("_locals", is_local)):
        for what, values in (("mean_error", error), ("sd_ratio", ratio)):
            averages[what + part] = float(values[chosen].mean()) if chosen.any() else float("nan")
    return Accuracy(**averages)


def with_gap(row: Row, rows: Sequence[Row]) -> Row:
    """The row with its gap to F-VI: from common draws where both densities are known, else from both estimates."""
    other = free_factors(rows, row)
    if other is None:
        return row
    if row.evaluation is not None and other.evaluation is not None:
        value, se = gap(row.evaluation, other.evaluation)
        return replace(row, gap_to_fvi=finite(value), gap_se=finite(se))
    if row.elbo is None or row.elbo_se is None or other.elbo is None or other.elbo_se is None:
        return row
    return replace(row, gap_to_fvi=other.elbo - row.elbo, gap_se=float(np.hypot(row.elbo_se, other.elbo_se)))


def free_factors(rows: Sequence[Row], like: Row | None = None) -> Row | None:
    """The row of F-VI in a row's own family, else in the paper's: what gaps are measured against."""
    own = FACTORIZED if like is None or like.fit is None else like.fit.method.family
    for family in (own, FACTORIZED):
        for row in rows:
            if row.method == AUTO or row.function != "table" or row.fit is None:
                continue
            if row.fit.method.family == family:
                return row
    return None


def with_milestones(row: Row, best: float | None) -> Row:
    """The row with when its training came near the best ELBO of all, nats."""
    if row.curve is None or best is None:
        return row
    return replace(
        row,
        within_nat=first_at(row.curve, best - ONE_NAT),
        within_per_mille=first_at(row.curve, best - ONE_PER_MILLE * abs(best)),
    )


def best_elbo(rows: Sequence[Row]) -> float | None:
    """The largest ELBO, nats; None where no method has one."""
    return max((row.elbo for row in rows if row.elbo is not None), default=None)
