"""What the gate found: checks with their numbers, what they mean, and what to do. One text for all readers."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from avistan.files.records import read_record
from avistan.runtime.errors import FitError
from avistan.runtime.text import finite
from avistan.runtime.types import FloatArray

if TYPE_CHECKING:
    import xarray as xr

    from avistan.start.quick_fit import QuickFit

_WIDTH = 110
_WORSE_IF_LARGE = ("conditional_error",)


class Trust(enum.Enum):
    """Whether a fit can be trusted, and why not; the value is advice, empty where none is needed.

    Ordered: a fit with several troubles is named after the first of them, because that one may cause the others.
    """

    passed = ""
    draws_rejected = (
        "Stan's log density is not finite where the fit puts draws: declare the parameters' constraints, or try "
        "another seed."
    )
    out_of_time = (
        "The time limit passed: go on with a larger one (command line: --resume, --max-seconds), or diagnose the fit "
        "again without one."
    )
    diverged = (
        "Training led to parameters that are not finite: fit with a lower learning_rate (command line: "
        "--learning-rate), or look for a posterior that is improper."
    )
    stopped_early = (
        "Training had not finished: fit again with more steps (command line: --steps), say twice as many."
    )
    below_quick_fit = (
        "The inference function can't say what free normals of the units say: fit with --method fvi (method='fvi'), or "
        "with a wider network."
    )
    better_optimum = (
        "Another start reaches a better optimum: go on from it with fit.improve(), as `avistan fit` does by itself, or "
        "fit with chains=4 (command line: --chains 4)."
    )
    better_start_tried = (
        "Another start looks better, and training that went on from it ended in no fit that is clearly better: "
        "fit with chains=4 (command line: --chains 4) or another seed, or sample with NUTS."
    )
    worse_restarts = (
        "Restarts that ended in a worse optimum are among the fit's draws: drop them with fit.keep_chains([...]), or "
        "mix them by their ELBO with fit.posterior(resample='elbo')."
    )
    several_modes = (
        "Starts end in different places of like density: the posterior has several modes, and the fit covers one of "
        "them. If they are relabellings of each other, order the parameters (`ordered`); else sample with NUTS."
    )
    globals_misfit = (
        "Draws of the globals are not known to be those of the posterior. Where each unit has few rows, write its "
        "latents non-centred, where it has many, centred; look for parameters that the data do not tell apart; or "
        "sample longer with NUTS from fit.warm_start()."
    )
    units_misfit = (
        "Many units are drawn from other places than their conditional densities: try richer families "
        "(family='auto') if it has not, look at the worst units' data, or use NUTS."
    )
    not_judged = (
        "A check that decides could not be made, so nothing says that the fit is good: see which one, and compare "
        "with NUTS."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of a diagnosis.

    Attributes:
        name: what was checked.
        passed: None where the check was not run, or only informs.
        value, threshold: the number and its limit, in `unit`; None where there is none.
        finding: a sentence that says what the number means here.
        trouble: what a failure is called.
    """

    name: str
    passed: bool | None
    finding: str
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    trouble: Trust = Trust.passed

    @classmethod
    def of_number(
        cls, name: str, value: float, limit: float, finding: str, trouble: Trust, *, unit: str = ""
    ) -> Check:
        """A number that passes up to its limit."""
        return cls(
            name=name,
            passed=value <= limit,
            finding=finding,
            value=value,
            threshold=limit,
            unit=unit,
            trouble=trouble,
        )

    @property
    def status(self) -> str:
        return {True: "passed", False: "FAILED", None: "-"}[self.passed]

    def to_json(self) -> dict[str, Any]:
        plain = {name: value for name, value in asdict(self).items() if name != "trouble"}
        advice = self.trouble.value if self.passed is False else ""
        return plain | {"value": finite(self.value), "threshold": finite(self.threshold), "advice": advice}

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Check:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError where something else was written."""
        parts = {name: value for name, value in read.items() if name != "advice"}
        return read_record(cls, parts | {"trouble": read["advice"]}, "a check")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """Whether the draws of a global can be relied on.

    Attributes:
        error: uncertainty of its entries' means, the worst of them, in sds; infinite where it isn't known.
    """

    name: str
    holds: bool
    error: float

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "holds": self.holds, "error": finite(self.error)}

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Variable:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError where something else was written."""
        error = float("inf") if read["error"] is None else read["error"]
        return read_record(cls, {**read, "error": error}, "a variable")


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """The plain fields of a diagnosis, as they are read back."""

    program: str
    method: str
    level: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diagnosis:
    """The verdict on a fit: `passed`, or the first trouble with its advice. Prints as a table.

    Attributes:
        checks: in the order in which they were made.
        units: per-unit numbers, each (N,): `conditional_error` of the mean that a unit is drawn with, in conditional
            sds, and `conditional_sd_ratio`, the factor by which its sd is off, both on average over the globals.
        variables: the globals, and whether each can be relied on.
        level: name of the units' size; None without one.
        seconds: what the checks took.
        better_start: a quick fit in a better optimum, which `Fit.improve` goes on from; None where none was found.
    """

    program: str
    method: str
    checks: tuple[Check, ...]
    units: dict[str, FloatArray] = field(repr=False)
    variables: tuple[Variable, ...] = ()
    level: str | None
    seconds: float
    better_start: QuickFit | None = field(default=None, repr=False)

    @property
    def outcome(self) -> Trust:
        return next(iter(self._troubles), Trust.passed)

    @property
    def _troubles(self) -> list[Trust]:
        """Of the checks that failed, in the order of `Trust`."""
        failed = [check.trouble for check in self.checks if check.passed is False]
        return [trouble for trouble in Trust if trouble in failed]

    @property
    def passed(self) -> bool:
        return self.outcome is Trust.passed

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def holds(self, names: Collection[str]) -> bool:
        """Whether the draws of these variables can be relied on, whatever became of the others.

        Raises:
            FitError: a name is no global's.
        """
        known = {variable.name: variable.holds for variable in self.variables}
        if unknown := sorted(set(names) - set(known)):
            raise FitError(f"no global is named {unknown[0]!r}. There are {', '.join(known) or 'none'}.")
        others = [trouble for trouble in self._troubles if trouble is not Trust.globals_misfit]
        return not others and all(known[name] for name in names)

    def worst_units(self, name: str = "conditional_error", count: int = 5) -> list[tuple[int, float]]:
        """Units with the largest numbers of a kind: their numbers, counted from 1, and the numbers."""
        values = self.units.get(name, np.empty(0))
        order = np.argsort(np.where(np.isfinite(values), -values, np.inf))[:count]
        return [(int(unit) + 1, float(values[unit])) for unit in order if np.isfinite(values[unit])]

    def to_json(self) -> dict[str, Any]:
        return {
            "program": self.program,
            "method": self.method,
            "passed": self.passed,
            "outcome": self.outcome.name,
            "advice": self.outcome.value,
            "checks": [check.to_json() for check in self.checks],
            "variables": [variable.to_json() for variable in self.variables],
            "level": self.level,
            "worst_units": {
                name: [[unit, value] for unit, value in self.worst_units(name)]
                for name in _WORSE_IF_LARGE
                if name in self.units
            },
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, read: Mapping[str, Any], units: Mapping[str, FloatArray]) -> Diagnosis:
        """The inverse of `to_json`, with the numbers of single units. Raises KeyError, TypeError or ValueError."""
        checks = tuple(Check.from_json(check) for check in read["checks"])
        sizes = {values.shape for values in units.values() if values.dtype.kind == "f"}
        if len(sizes) > 1 or any(values.ndim != 1 or values.dtype.kind != "f" for values in units.values()):
            raise ValueError("numbers of single units are no numbers, or of different units")
        about = read_record(
            _About, {name: read[name] for name in _About.__dataclass_fields__}, "the diagnosis"
        )
        variables = tuple(Variable.from_json(variable) for variable in read["variables"])
        return cls(**asdict(about), checks=checks, units=dict(units), variables=variables)

    def to_dataset(self) -> xr.Dataset:
        """Per-unit numbers over the level's dim, for a group `unit_diagnostics`; empty without a level."""
        import xarray as xr

        dim = self.level if self.level is not None and self.level.isidentifier() else "unit"
        return xr.Dataset({name: (dim, values) for name, values in self.units.items()})

    def __str__(self) -> str:
        verdict = "passed" if self.passed else f"NO, {self.outcome.name.replace('_', ' ')}"
        lines = [f"{self.method} fit of {self.program}: {verdict}", ""]
        for check in self.checks:
            number = "" if check.value is None else f"{check.value:.3g}"
            unit = f" {check.unit}" if check.unit else ""
            limit = "" if check.threshold is None else f"(limit {check.threshold:.3g}{unit})"
            lines.append(f"{check.status:<8}{check.name:<28}{number:>9}  {limit}".rstrip())
            lines += _wrapped(check.finding, " " * 8, " " * 8)
        if self.variables:
            for word, holds in (("hold", True), ("do not hold", False)):
                names = ", ".join(variable.name for variable in self.variables if variable.holds is holds)
                lines += _wrapped(f"{word}: {names}", "", " " * 8) if names else []
        if told := self._troubles:
            lines += ["", "What to do:"]
            for trouble in told:
                lines += _wrapped(trouble.value, "- ", "  ")
        return "\n".join(lines)


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )
