"""Cases run on an engine: right, wrong, rejected or refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import AvistanError
from stan_adapters.language.program import Program

from .cases import Case
from .places import PLACES, data_for, program

TOLERANCE = 1e-8  # relative to the larger of 1 and the right number


@dataclass(frozen=True)
class Outcome:
    """`kind` is "right", "wrong" or "refused"; `detail` has the numbers, or the message of a refusal."""

    case: Case
    place: str
    kind: str
    detail: str = ""


# Stan Math's own derivatives of these are series and rational approximations that end early (their values do not).
APPROXIMATE = re.compile(
    r"gamma_q|(std_)?normal_lc?cdf|(inv_)?gamma_l?c?cdf|(scaled_)?(inv_)?chi_square_l?c?cdf|ordered_probit"
    r"|T\[.*\];"  # truncation goes through these
)
APPROXIMATELY = 1e-4


def near(got: float, right: float, case: Case | None = None) -> bool:
    """Whether a number is right; a derivative is asked with its case, which may be one of Stan's approximate ones."""
    approximate = case is not None and APPROXIMATE.search(case.code)
    return bool(abs(got - right) <= (APPROXIMATELY if approximate else TOLERANCE) * max(1.0, abs(right)))


def run(cases: Sequence[Case], place: str, engine: str = "stanli") -> Iterator[Outcome]:
    """What became of each case: all in one program, and each alone where that program is not right as a whole."""
    outcomes = together(cases, place, engine)
    if len(cases) == 1 or all(outcome.kind == "right" for outcome in outcomes):
        yield from outcomes
    else:
        for case in cases:
            yield from together([case], place, engine)


def together(cases: Sequence[Case], place: str, engine: str = "stanli") -> list[Outcome]:
    """What became of each case with all of them in one program: if that is refused, all are."""
    differentiated = PLACES[place][2]
    points = sorted({point for case in cases for point in case.points}) if differentiated else [0.0]
    try:
        numbers = _numbers(cases, place, points, engine)
    except AvistanError as error:
        return [Outcome(case, place, "refused", f"{type(error).__name__}: {error}") for case in cases]
    outcomes = []
    for case, column in zip(cases, numbers, strict=True):
        faults = []
        for point, got in zip(points, column, strict=True):
            if differentiated and point not in case.points:
                continue
            if isinstance(got, str):
                faults.append(f"rejected: {got}")
                continue
            right = case.value(point), case.slope(point) if differentiated else 0.0
            if not (near(got[0], right[0]) and near(got[1], right[1], case)):
                faults.append(f"(value, derivative) {got} is not {right} at {point}")
        outcomes.append(Outcome(case, place, "wrong" if faults else "right", "; ".join(faults)))
    return outcomes


def _numbers(
    cases: Sequence[Case], place: str, points: Sequence[float], engine: str
) -> list[list[tuple[float, float] | str]]:
    """Of each case, and at each point: its value and derivative, or why the engine rejects the point."""
    stan = Program.from_code(program(cases, place), name="case")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = read_data(stan, data_for(cases, place))
    count = len(cases)
    found: list[list[tuple[float, float] | str]] = [[] for _ in cases]
    with BoundModel(stan, data, engine=engine) as bound:
        for point in points:
            theta = np.concatenate([np.full(count, point), np.ones(count)])
            if PLACES[place][0] == "generated quantities":
                draws, _ = bound.constrain(theta)
                for number, column in enumerate(found, 1):
                    column.append((float(draws[f"s{number}"][0]), 0.0))
                continue
            value, gradient = bound.log_density_gradient(theta)
            failure = "" if np.isfinite(value) else bound.why_rejected(theta) or "not finite"
            if not failure and not near(float(value), float(gradient[count:].sum())):
                failure = f"target is {value}, its parts are {gradient[count:]}"
            for j, column in enumerate(found):
                column.append(failure or (float(gradient[count + j]), float(gradient[j])))
    return found
