"""Programs and data of the benchmarks that compare speeds, by name and number of units.

    python benchmarks/_cases.py NAME FOLDER

writes a case's program and its data as `data.json`, in a process of its own: what a benchmark's process once held in
memory counts into the peak of the processes that it starts.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avistan.cli.examples import models_root


@dataclass(frozen=True)
class Case:
    """A program and its data. `program` names the folder and file of a bundled example."""

    name: str
    program: str
    units: int
    data: Callable[[], dict[str, Any]]

    @property
    def stan_file(self) -> Path:
        return models_root() / self.program / f"{self.program}.stan"


def linear(units: int) -> Case:
    def simulate() -> dict[str, Any]:
        found: dict[str, Any] = runpy.run_path(str(models_root() / "linear" / "simulate.py"))["simulate"](
            units
        )
        return found

    return Case(f"linear {units}", "linear", units, simulate)


def item_response(persons: int, items: int) -> Case:
    """The 2PL program with simulated answers."""

    def simulate() -> dict[str, Any]:
        rng = np.random.default_rng(7)
        a, b = rng.lognormal(0, 0.4, items), rng.normal(0.5, 1, items)
        right = rng.random((persons, items)) < 1 / (1 + np.exp(-(b + a * rng.normal(size=(persons, 1)))))
        return {"N": persons, "I": items, "y": right.astype(int).tolist()}

    return Case(f"2PL {persons} x {items}", "lsat_2pl", persons, simulate)


def bundled(program: str, units: str) -> Case:
    data = json.loads((models_root() / program / "data.json").read_text())
    return Case(program, program, data[units], lambda: data)


CASES: dict[str, Callable[[], Case]] = {
    "lsat": lambda: bundled("lsat_2pl", "N"),
    "random_slopes": lambda: bundled("random_slopes", "J"),
    "linear-1000": lambda: linear(1000),
    "linear-10000": lambda: linear(10_000),
    "linear-100000": lambda: linear(100_000),
    "linear-1000000": lambda: linear(1_000_000),
    "2pl-1000": lambda: item_response(1000, 5),
    "2pl-10000": lambda: item_response(10_000, 5),
    "2pl-100000": lambda: item_response(100_000, 5),
    "2pl-1000000": lambda: item_response(1_000_000, 20),
}


def main() -> None:
    name, folder = sys.argv[1:]
    case = CASES[name]()
    shutil.copy(case.stan_file, folder)
    with open(Path(folder) / "data.json", "w") as file:
        json.dump(case.data(), file)


if __name__ == "__main__":
    main()
