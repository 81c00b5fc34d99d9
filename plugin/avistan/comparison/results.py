"""A comparison's result: the rows of all methods, the reference, and what they were measured under."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

from avistan.comparison.references import Reference
from avistan.comparison.rows import Row, best_elbo
from avistan.comparison.tables import WIDTH, ReportTable, accuracy, as_text, cost, repeats, results
from avistan.fitting.options import FitOptions
from avistan.runtime.text import finite
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.levels.levels import Level
from stan_adapters.structure.structure import Structure


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A competition's result. Prints as a table; `to_json` is what `avistan compare --json` prints.

    Attributes:
        reference_failure: why there is no reference although a sampler's was asked for; else empty.

    Example:
        >>> comparison["fvi"].gap_to_fvi
        0.0
        >>> print(comparison)  # doctest: +ELLIPSIS
        eight_schools: 8 units, 10 unconstrained parameters, seed 1
        ...
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
        return best_elbo(self.rows)

    def __getitem__(self, method: str) -> Row:
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(method)

    def to_json(self) -> dict[str, Any]:
        """What `avistan compare --json` prints; numbers that are not finite are None.

        Example:
            >>> comparison.to_json()["units"]
            8
        """
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
            "seconds_reference": None if self.reference is None else finite(self.reference.seconds),
            "methods": [row.to_json() for row in self.rows],
        }

    @property
    def tables(self) -> list[ReportTable]:
        """What the methods reached, how near the reference that is, the same over seeds, and what it cost."""
        rows = self.rows
        made = (results(rows), accuracy(rows, self.reference), repeats(rows, self.seeds))
        return [table for table in (*made, cost(rows, self.seconds_prepare)) if table is not None]

    def __str__(self) -> str:
        sizes = f"{self.units} units, {self.unconstrained_dim} unconstrained parameters"
        notes = [f"{row.method}: {row.reason}" for row in self.rows if row.reason and not row.failed]
        notes += [note for note in (self.reference_failure, self.reference and self.reference.caveat) if note]
        notes = [line for note in notes for line in textwrap.wrap(note, WIDTH)]
        blocks = [f"{self.program}: {sizes}, seed {self.seed}", as_text(self.tables), "\n".join(notes)]
        return "\n\n".join(block for block in blocks if block)
