"""The competition: methods from one start, on common random numbers, against one reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .competitors import Reference
from .errors import AvistanError
from .evaluation import gap
from .fit import Fit, fit_method
from .methods import parse_method
from .options import FitOptions
from .preparation import Preparation
from .training import Progress

FloatArray = npt.NDArray[np.float64]
MakeProgress = Callable[[str], Progress | None]


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One method's result. A method that failed has an outcome "failed" and its reason, and no numbers."""

    method: str
    outcome: str
    reason: str = ""
    fit: Fit | None = field(default=None, repr=False)
    gap_to_fvi: float | None = None
    gap_se: float | None = None
    accuracy: Accuracy | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        fit, accuracy = self.fit, self.accuracy
        row: dict[str, Any] = {
            "method": self.method,
            "outcome": self.outcome,
            "elbo": None if fit is None else fit.elbo,
            "elbo_se": None if fit is None else fit.elbo_se,
            "gap_to_fvi": self.gap_to_fvi,
            "gap_se": self.gap_se,
            "seconds": self.seconds,
            "seconds_compile": None if fit is None else fit.timing.compile,
            "steps": None if fit is None else len(fit.trace.elbo),
            "gradient_evaluations": None if fit is None else fit.gradient_evaluations,
            "variational_parameters": None if fit is None else fit.num_variational_parameters,
            "khat": None if fit is None else fit.evaluation.khat,
            "reference_mean_error": None if accuracy is None else accuracy.mean_error,
            "reference_sd_ratio": None if accuracy is None else accuracy.sd_ratio,
            "reference_mean_error_globals": None if accuracy is None else accuracy.mean_error_globals,
            "reference_sd_ratio_globals": None if accuracy is None else accuracy.sd_ratio_globals,
            "reference_mean_error_locals": None if accuracy is None else accuracy.mean_error_locals,
            "reference_sd_ratio_locals": None if accuracy is None else accuracy.sd_ratio_locals,
            "reason": self.reason,
        }
        return {key: None if isinstance(v, float) and not np.isfinite(v) else v for key, v in row.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A competition's result. Prints as a table; `to_json` is what `avistan compare --json` prints."""

    program: str
    units: int
    unconstrained_dim: int
    seed: int
    reference: Reference | None = field(repr=False)
    rows: tuple[Row, ...]
    seconds_prepare: float

    def __getitem__(self, method: str) -> Row:
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(method)

    def to_json(self) -> dict[str, Any]:
        return {
            "program": self.program,
            "units": self.units,
            "unconstrained_dim": self.unconstrained_dim,
            "seed": self.seed,
            "reference": None if self.reference is None else self.reference.name,
            "seconds_prepare": self.seconds_prepare,
            "seconds_reference": None if self.reference is None else self.reference.seconds,
            "methods": [row.to_json() for row in self.rows],
        }

    def __str__(self) -> str:
        lines = [
            f"{self.program}: {self.units} units, {self.unconstrained_dim} unconstrained parameters, seed {self.seed}",
            "",
            f"{'method':<20}{'outcome':<15}{'ELBO':>12}{'+-':>7}{'gap to F-VI':>13}{'+-':>8}"
            f"{'seconds':>9}{'compile':>9}{'params':>8}{'k-hat':>7}",
        ]
        notes = []
        for row in self.rows:
            fit = row.fit
            if fit is None:
                lines.append(f"{row.method:<20}{row.outcome:<15}")
                notes.append(f"{row.method}: {row.reason}")
                continue
            lines.append(
                f"{row.method:<20}{row.outcome:<15}{fit.elbo:>12.2f}{fit.elbo_se:>7.2f}{_number(row.gap_to_fvi, 13, 3)}"
                f"{_number(row.gap_se, 8, 3)}{row.seconds or 0:>9.2f}{fit.timing.compile:>9.2f}"
                f"{fit.num_variational_parameters:>8}{_number(fit.evaluation.khat, 7, 2)}"
            )
            if fit.outcome.value:
                notes.append(f"{row.method}: {fit.outcome.value}")
        measured = [row for row in self.rows if row.accuracy is not None]
        if self.reference is not None and measured:
            lines += [
                "",
                f"against {self.reference.name} ({self.reference.seconds:.1f} s, {self.reference.theta.shape[0]} x "
                f"{self.reference.theta.shape[1]} draws, largest R-hat {self.reference.max_rhat:.3f}):",
                f"{'':<20}{'mean error, sds':>32}{'sd ratio':>24}",
                f"{'method':<20}{'globals':>20}{'locals':>12}{'globals':>12}{'locals':>12}",
            ]
            for row in measured:
                a = row.accuracy
                assert a is not None
                lines.append(
                    f"{row.method:<20}{_number(a.mean_error_globals, 20, 3)}{_number(a.mean_error_locals, 12, 3)}"
                    f"{_number(a.sd_ratio_globals, 12, 3)}{_number(a.sd_ratio_locals, 12, 3)}"
                )
            if self.reference.caveat:
                notes.append(self.reference.caveat)
        if notes:
            lines += ["", *notes]
        return "\n".join(lines)


def _number(value: float | None, width: int, digits: int) -> str:
    return f"{'-' if value is None or not np.isfinite(value) else format(value, f'.{digits}f'):>{width}}"


def run_competition(
    preparation: Preparation,
    methods: Sequence[str],
    options: FitOptions,
    *,
    reference: Reference | None = None,
    seconds_prepare: float = 0.0,
    progress: MakeProgress | None = None,
) -> Comparison:
    """Fit every method from the shared start and measure them on the same draws.

    A method that can't serve the program is a row with its reason. The gap is measured against the row "fvi" with the
    same local factor, where there is one.

    Raises:
        MethodError: a name that is no method, before anything runs.
    """
    parsed = [parse_method(name) for name in methods]
    rows: list[Row] = []
    for method in parsed:
        started = time.perf_counter()
        try:
            fit = fit_method(
                preparation,
                method,
                options,
                seconds_prepare=seconds_prepare,
                progress=progress(method.name) if progress else None,
            )
        except AvistanError as error:
            rows.append(Row(method=method.name, outcome="failed", reason=str(error)))
            continue
        rows.append(
            Row(
                method=method.name,
                outcome=fit.outcome.name,
                fit=fit,
                accuracy=None if reference is None else accuracy(fit, reference),
                seconds=time.perf_counter() - started - fit.timing.compile,
            )
        )
    return Comparison(
        program=preparation.model.program.name,
        units=len(preparation.index),
        unconstrained_dim=preparation.model.dim,
        seed=preparation.seed,
        reference=reference,
        rows=tuple(_with_gap(row, rows) for row in rows),
        seconds_prepare=seconds_prepare,
    )


def _with_gap(row: Row, rows: Sequence[Row]) -> Row:
    if row.fit is None:
        return row
    for other in rows:
        if other.fit is None or other.fit.method.function != "table":
            continue
        if other.fit.method.local == row.fit.method.local:
            value, se = gap(row.fit.evaluation, other.fit.evaluation)
            return replace(row, gap_to_fvi=value, gap_se=se)
    return row


def accuracy(fit: Fit, reference: Reference, draws: int = 4000) -> Accuracy:
    """Errors of a fit's marginal means and sds against a reference."""
    theta, _ = fit.unconstrained_draws(draws)
    sd = reference.sd
    error = np.abs(theta.mean(axis=0) - reference.mean) / sd
    ratio = theta.std(axis=0, ddof=1) / sd
    is_local = np.zeros(len(sd), dtype=bool)
    if fit.level is not None:
        is_local[fit.level.index.ravel()] = True

    def mean(values: FloatArray, chosen: npt.NDArray[np.bool_]) -> float:
        return float(values[chosen].mean()) if chosen.any() else float("nan")

    every = np.ones(len(sd), dtype=bool)
    return Accuracy(
        mean_error=mean(error, every),
        sd_ratio=mean(ratio, every),
        mean_error_globals=mean(error, ~is_local),
        sd_ratio_globals=mean(ratio, ~is_local),
        mean_error_locals=mean(error, is_local),
        sd_ratio_locals=mean(ratio, is_local),
    )
