"""Banks of programs, references of their posteriors, and how far draws are from a reference."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

MEAN, SD_LOW, SD_HIGH = 0.2, 0.85, 1.18  # limits of a global: sds off in the mean, and the ratio of sds
STANDARD_ERRORS = 3.0  # by which a limit must be exceeded
UNRESOLVED = 0.05  # standard error of a log sd from which on widths between quantiles are compared instead
INDEPENDENT = 10_000  # draws behind a reference that does not say how precise it is
HEAVY = 1.4  # its sd over that of a normal variable as wide, from which on it is not taken to be resolved
NORMAL_WIDTH = 3.29  # between the 5 and 95 % quantiles of a normal variable, in sds


@dataclass(frozen=True)
class Moments:
    """Moments of a variable with their Monte Carlo errors.

    Attributes:
        width: between the 5 and 95 % quantiles.
        mean_se: in the variable's unit.
        log_sd_se, log_width_se: of the logarithms.
    """

    mean: float
    sd: float
    width: float
    mean_se: float
    log_sd_se: float
    log_width_se: float

    @classmethod
    def of(cls, draws: FloatArray) -> Moments:
        """Of draws (C, S); copies of a draw, which resampling makes, count as one with that weight."""
        import arviz_stats

        def effective(values: FloatArray, **options: Any) -> float:
            found = float(arviz_stats.ess(values, chain_axis=0, draw_axis=1, **options))
            return max(min(found, distinct), 1.0) if math.isfinite(found) else 1.0

        flat = draws.ravel()
        distinct = effective_copies(flat)
        mean, sd = float(flat.mean()), float(flat.std(ddof=1))
        if not sd > 0:
            return cls(mean, sd, 0.0, 0.0, 0.0, 0.0)
        squares = ((draws - mean) / sd) ** 2
        low, high = np.quantile(flat, [0.05, 0.95])
        width = float(high - low)
        ends = [
            float(arviz_stats.mcse(draws, chain_axis=0, draw_axis=1, method="quantile", prob=prob))
            for prob in (0.05, 0.95)
        ]
        copies = max(math.sqrt(draws.size / distinct), 1.0)
        return cls(
            mean=mean,
            sd=sd,
            width=width,
            mean_se=sd / math.sqrt(effective(draws, method="mean")),
            log_sd_se=float(squares.std()) / 2 / math.sqrt(effective(squares, method="mean")),
            log_width_se=copies * math.hypot(*ends) / width if width > 0 else 0.0,
        )

    @classmethod
    def read(cls, numbers: Mapping[str, float]) -> Moments:
        return cls(**numbers)


def effective_copies(values: FloatArray) -> float:
    """Draws that are worth as much as these with their copies: (sum of counts)^2 / sum of counts^2."""
    _, counts = np.unique(values, return_counts=True)
    return float(counts.sum() ** 2 / (counts.astype(float) ** 2).sum())


# ---- Banks and references ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """A program with its data."""

    name: str
    program: Path
    data: Path


def read_bank(folder: Path) -> dict[str, Posterior]:
    """Posteriors by name: folders NAME with one .stan and one .json file, or NAME.stan beside NAME.json.

    Raises:
        ValueError: a folder holds something else; names it.
    """
    found = {}
    for place in sorted(folder.iterdir()):
        if place.is_dir():
            programs, data = sorted(place.glob("*.stan")), sorted(place.glob("*.json"))
            if len(programs) != 1 or len(data) != 1:
                raise ValueError(
                    f"{place} holds {len(programs)} .stan and {len(data)} .json files: a posterior is a folder with "
                    "one of each."
                )
            found[place.name] = Posterior(place.name, programs[0], data[0])
        elif place.suffix == ".stan" and place.with_suffix(".json").is_file():
            found[place.stem] = Posterior(place.stem, place, place.with_suffix(".json"))
    return found


def read_references(file: Path) -> dict[str, dict[str, Moments]]:
    """Moments by posterior and variable, such as `beta[2]`.

    FILE is JSON with `posteriors`, {name: {variable: [mean, sd, 5 %, 50 %, 95 %]}}, and, where they are known, `errors`
    of the same form, [standard error of the mean, of the log sd]; else the draws are taken for 10,000 independent ones
    of normal variables, and an sd that is far above what the quantiles say for open.
    """
    stored = json.loads(file.read_text())
    errors = stored.get("errors", {})
    return {
        name: {
            variable: reference(numbers, errors.get(name, {}).get(variable))
            for variable, numbers in variables.items()
        }
        for name, variables in stored["posteriors"].items()
    }


def reference(numbers: list[float], errors: list[float] | None) -> Moments:
    mean, sd, low, _, high = numbers
    heavy = sd > HEAVY * (high - low) / NORMAL_WIDTH
    known = (sd / math.sqrt(INDEPENDENT), math.inf if heavy else 1 / math.sqrt(2 * INDEPENDENT))
    mean_se, log_sd_se = errors or known
    # The width between quantiles of a normal variable has an error 0.91 times that of its mean in sds.
    log_width_se = 0.91 * mean_se / sd if sd > 0 else 0.0
    return Moments(mean, sd, high - low, mean_se, log_sd_se, log_width_se)


def component(label: str) -> tuple[str, tuple[int, ...]]:
    """The variable and the place, from 0, that a label such as `beta[2,1]` names.

    Raises:
        ValueError: it is no such label.
    """
    parts = re.fullmatch(r"([A-Za-z]\w*)(?:\[(\d+(?:,\d+)*)\])?", label)
    if parts is None:
        raise ValueError(f"{label!r} is no variable and no component of one, such as 'beta[2,1]'.")
    places = parts[2].split(",") if parts[2] else ()
    return parts[1], tuple(int(place) - 1 for place in places)


# ---- Judgement ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distance:
    """How far a variable's draws are from its reference.

    Attributes:
        mean: |error| of the mean in the reference's sds.
        log_ratio: log of the ratio of sds, or of widths between quantiles where Monte Carlo error leaves the sds open.
        mean_se, log_ratio_se: Monte Carlo errors of both together.
    """

    variable: str
    mean: float
    mean_se: float
    log_ratio: float
    log_ratio_se: float

    @classmethod
    def between(cls, variable: str, own: Moments, truth: Moments) -> Distance:
        log_ratio, error = _log(own.sd / truth.sd), math.hypot(own.log_sd_se, truth.log_sd_se)
        if error > UNRESOLVED:
            log_ratio = _log(own.width / truth.width)
            error = math.hypot(own.log_width_se, truth.log_width_se)
        return cls(
            variable,
            mean=abs(own.mean - truth.mean) / truth.sd,
            mean_se=math.hypot(own.mean_se, truth.mean_se) / truth.sd,
            log_ratio=log_ratio,
            log_ratio_se=error,
        )

    @property
    def excess(self) -> float:
        """What counts of its errors, after the Monte Carlo error, over the limit; above 1 is bad."""
        mean = max(self.mean - STANDARD_ERRORS * self.mean_se, 0.0) / MEAN
        sure = max(abs(self.log_ratio) - STANDARD_ERRORS * self.log_ratio_se, 0.0)
        return max(mean, sure / abs(math.log(SD_LOW if self.log_ratio < 0 else SD_HIGH)))

    @property
    def bad(self) -> bool:
        return not self.excess <= 1

    def __str__(self) -> str:
        return f"{self.variable}: mean off by {self.mean:.2f} sds, sd ratio {math.exp(self.log_ratio):.2f}"


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio > 0 else -math.inf


def distances(own: Mapping[str, Moments], truth: Mapping[str, Moments]) -> list[Distance]:
    """Of the variables that both have, without constants, such as the first entry of a correlations' factor."""
    return [
        Distance.between(variable, own[variable], true)
        for variable, true in truth.items()
        if variable in own and true.sd > 0
    ]


def worst(found: Iterable[Distance]) -> Distance:
    return max(found, key=lambda distance: (distance.excess, distance.mean + abs(distance.log_ratio)))


def mean_log_ratio(found: Iterable[Distance]) -> float:
    """Mean |log sd ratio|."""
    return float(np.mean([abs(distance.log_ratio) for distance in found]))
