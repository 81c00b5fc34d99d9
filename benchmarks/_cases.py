"""Programs and data of the benchmarks that compare speeds, by name and number of units."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avistan.cli.bundled import models_root


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
