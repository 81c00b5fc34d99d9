"""What `fit.json` says of a saved fit: types and ranges, checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from avistan.fitting.family_selection import GrowthStep
from avistan.fitting.fitted import Timing
from avistan.fitting.options import FitOptions
from stan_adapters.levels.probes import Probe

LIBRARY = "library"  # the engine of a fit that was made with a prebuilt library, which no folder may name
ENGINES = ("auto", "stanli", "bridgestan")  # that a folder may name
_MOST = 2**62  # of a count
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """What a file (or folder) of a saved fit was when it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMember:
    """A parameter with entries of each unit, as `stan_adapters.levels.levels.Member` has it."""

    name: str
    axis: int
    width: int = 1
    apart: bool = False
    places: tuple[int, ...] = ()
    size: int = 0

    def __post_init__(self) -> None:
        distinct = len(set(self.places)) == len(self.places)
        inside = all(0 <= place < self.size for place in self.places)
        if self.axis < 0 or self.width < 1 or not (distinct and inside) or len(self.places) % self.width:
            raise ValueError("the entries of a unit need an axis, or distinct places within the parameter")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedLevel:
    """A level: what its units are called, and its parameters.

    `inputs`: how many numbers the inference function of a second level reads of a unit; 0 for the first level.
    """

    name: str
    members: tuple[SavedMember, ...]
    inputs: int = 0

    def __post_init__(self) -> None:
        if not self.members or not 0 <= self.inputs <= _MOST:
            raise ValueError("a level needs parameters and a number of inputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedChain:
    """One restart. `witness`: log weights of two draws, by which a loaded fit is recognised."""

    stages: int
    refined: int
    growth: tuple[GrowthStep, ...]
    gradient_evaluations: int
    seconds_train: float
    seconds_compile: float
    seconds_evaluate: float
    witness: tuple[float, float]

    def __post_init__(self) -> None:
        if not 1 <= self.stages <= 1000:
            raise ValueError(f"`stages` is {self.stages}, expected a positive number")
        if not (0 <= self.refined <= _MOST and 0 <= self.gradient_evaluations <= _MOST):
            raise ValueError("a count is negative or too large")
        _refuse_seconds(self.seconds_train, self.seconds_compile, self.seconds_evaluate)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedHeader:
    """All of `fit.json` but its own digest.

    Attributes:
        engine: one of `ENGINES`, or "library": a prebuilt one, whose file's name is `library`.
        parameters: how many numbers the program's parameters have, constrained.
        asked: how the fit was asked for, in the words of who saved it; decides nothing here.
        files: what the folder's files were when they were written, by name.
    """

    format: int
    program: str
    program_digest: str
    versions: Mapping[str, str]
    engine: Literal["auto", "stanli", "bridgestan", "library"]
    library: str
    method: str
    options: FitOptions
    seed: int
    reason: str
    outcome: str
    elbo: float
    elbo_se: float
    parameters: int
    level: SavedLevel | None
    second: SavedLevel | None
    unit_input: Literal["signature", "data"] | None
    timing: Timing
    chains: tuple[SavedChain, ...]
    certificate: tuple[Probe, ...]
    asked: Mapping[str, Any]
    files: Mapping[str, SavedFile]

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` is {self.seed}, expected a number from 0 to {2**32 - 1}")
        _refuse_seconds(*asdict(self.timing).values())
        if not self.chains:
            raise ValueError("`chains` is empty")
        if not 0 <= self.parameters <= _MOST:
            raise ValueError("`parameters` is no count")
        if not 0 < len(self.program) <= _LONGEST_NAME or set(self.program) & set("/\\\0"):
            raise ValueError(f"`program` is {self.program[:40]!r}, which is no program's name")
        if (self.second is not None) != (":levels" in self.method) or (self.second and not self.level):
            raise ValueError(f"the method {self.method[:80]!r} has other levels")


def _refuse_seconds(*seconds: float) -> None:
    if any(not math.isfinite(value) or value < 0 for value in seconds):
        raise ValueError("seconds are not finite or negative")
