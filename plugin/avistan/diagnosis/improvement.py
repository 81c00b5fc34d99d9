"""Where a diagnosis finds a better optimum, the same method trained from there, all stages, and diagnosed again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from avistan.diagnosis.checks import diagnose
from avistan.diagnosis.restarts import LIKE
from avistan.diagnosis.verdict import Check, Diagnosis, Trust
from avistan.files.records import read_record
from avistan.fitting.fitted import Fitted, Origin, fit_method
from avistan.fitting.outcome import FitOutcome
from avistan.objective.elbo import gap
from avistan.runtime.deadline import out_of_time
from avistan.runtime.progress import begin_stage
from avistan.runtime.text import finite, with_error
from avistan.start.preparation import prepare
from avistan.start.quick_fit import QuickFit

_logger = logging.getLogger(__name__)

MOST_ROUNDS = 2
_ERRORS = 3.0  # standard errors by which a fit must be better to take the place of the one before
REASON = "Training began at a better optimum, which the diagnosis of an earlier fit found."


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A training from an optimum that a diagnosis found.

    Attributes:
        elbo, elbo_se: where it ended, nats; nan where it could not be made.
        gain, gain_se: what that is above the fit before, on common draws, nats.
        taken: whether it took that fit's place.
        problem: why it could not be made; empty where it was.
    """

    elbo: float = float("nan")
    elbo_se: float = float("nan")
    gain: float = float("nan")
    gain_se: float = float("nan")
    taken: bool = False
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"The diagnosis found a better optimum, but training from there failed: {self.problem}"
        end = (
            "and takes its place" if self.taken else "which is not clearly better, so the fit before is kept"
        )
        return (
            f"The diagnosis found a better optimum. Training went on from there, to an ELBO of "
            f"{with_error(self.elbo, self.elbo_se)}: {with_error(self.gain, self.gain_se, sign=True)} against the fit "
            f"before, {end}."
        )

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Round:
        """The inverse of `to_json`. Raises AttributeError or ValueError where something else was written."""
        parts = {name: float("nan") if part is None else part for name, part in read.items()}
        return read_record(cls, parts, "a round")

    def to_json(self) -> dict[str, Any]:
        numbers = ("elbo", "elbo_se", "gain", "gain_se")
        return asdict(self) | {name: finite(getattr(self, name)) for name in numbers}


@dataclass(frozen=True, kw_only=True, eq=False)
class Improvement[F: Fitted]:
    """A fit and its diagnosis after going on from better optima; without any, both as they were. Prints as sentences.

    Attributes:
        fit: the best of all.
        diagnosis: of that fit.
        rounds: one for each better optimum that was gone on from.
    """

    fit: F = field(repr=False)
    diagnosis: Diagnosis = field(repr=False)
    rounds: tuple[Round, ...] = ()

    def __str__(self) -> str:
        return "\n".join(str(made) for made in self.rounds)


def improve(
    fit: Fitted,
    diagnosis: Diagnosis | None = None,
    *,
    most_rounds: int = MOST_ROUNDS,
    made: Sequence[Round] = (),
    origin: Callable[[], Origin] | None = None,
    keep: Callable[[Fitted, Sequence[Round]], None] | None = None,
) -> Improvement[Fitted]:
    """Go on from the better optimum that a fit's diagnosis found, and diagnose the result, as long as that finds one.

    Args:
        diagnosis: of the fit, if it was diagnosed already.
        most_rounds: trainings, at most.
        made: rounds that led to this fit, if it goes on after an interruption.
        origin: what a loaded fit was trained from.
        keep: called with a fit that took the place of the one before, and all rounds so far, before it is diagnosed.
    """
    diagnosis, rounds = diagnosis or diagnose(fit), list(made)
    tried = {"trouble": Trust.better_start_tried}  # other advice than to go on from there
    while diagnosis.better_start is not None and len(rounds) < most_rounds and not out_of_time():
        begin_stage("going on from a better optimum", next="training, and another diagnosis")
        try:
            other = _trained_from(fit, diagnosis.better_start, origin)
        except Exception as error:  # whatever it is, the fit before is not lost
            _logger.debug("training from a better optimum failed", exc_info=True)
            rounds.append(Round(problem=f"{type(error).__name__}: {error}"))
            diagnosis = _told(diagnosis, "Training from the best of them failed.", **tried)
            break
        gain, gain_se = gap(fit.evaluation, other.evaluation)
        taken = bool(gain > _ERRORS * gain_se)
        rounds.append(Round(elbo=other.elbo, elbo_se=other.elbo_se, gain=gain, gain_se=gain_se, taken=taken))
        if not taken:
            if gain < -LIKE - _ERRORS * gain_se and other.outcome is not FitOutcome.out_of_time:
                became = f"Trained to its end, the best of them is {-gain:.1f} nats lower."  # another, worse optimum
                diagnosis = replace(_told(diagnosis, became, passed=True), better_start=None)
            elif other.outcome is not FitOutcome.out_of_time:
                became = "Training went on from the best of them, and its end is not clearly better."
                diagnosis = _told(diagnosis, became, **tried)
            break
        if keep is not None:
            keep(other, tuple(rounds))
        fit, diagnosis = other, diagnose(other)
    return Improvement(fit=fit, diagnosis=diagnosis, rounds=tuple(rounds))


def _trained_from(fit: Fitted, start: QuickFit, given: Callable[[], Origin] | None) -> Fitted:
    """The same method trained from a start; its seconds are those of both fits."""
    origin = fit.origin or (_origin_of(fit) if given is None else given())
    other = fit_method(
        origin.preparation.started_at(start),
        origin.method,
        fit.options,
        grow=origin.grow,
        reason=fit.reason if REASON in fit.reason else f"{fit.reason} {REASON}".lstrip(),
        certificate=fit.certificate,
    )
    seconds = {
        name: getattr(fit.timing, name) + getattr(other.timing, name)
        for name in ("prepare", "compile", "train", "evaluate")
    }
    return replace(other, timing=replace(other.timing, **seconds))


def _origin_of(fit: Fitted) -> Origin:
    """For a fit that was loaded: its own method, which does not grow, from a start on all units."""
    preparation = prepare(
        fit.model,
        fit.level,
        seed=fit.seed,
        num_references=fit.options.num_references,
        max_rank=fit.options.max_rank,
        others=() if fit.second is None else (fit.second,),
    )
    return Origin(preparation=preparation, method=fit.method, grow=False)


def _told(diagnosis: Diagnosis, what_became: str, **changes: Any) -> Diagnosis:
    """The diagnosis whose check of other starts says what became of the better one."""

    def told(check: Check) -> Check:
        if check.name != "other starts":
            return check
        return replace(check, finding=f"{check.finding} {what_became}", **changes)

    return replace(diagnosis, checks=tuple(told(check) for check in diagnosis.checks))
