"""What engines get wrong: the table `engine_faults.toml`, and which of it holds for a version.

A version that the table does not know is asked: the fault's own example, of a known gradient, is run.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

_TABLE = Path(__file__).with_name("engine_faults.toml")


@dataclass(frozen=True, slots=True)
class FaultExample:
    """A program without data that shows a fault.

    Attributes:
        gradient: of the log density at the unconstrained point 0, as Stan defines it.
    """

    program: str
    gradient: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the table, whose first lines say what the fields mean."""

    name: str
    engine: str
    seen_in: tuple[str, ...]
    words: tuple[str, ...]
    remedy: str
    effect: str
    way_out: str
    example: FaultExample
    functions: tuple[str, ...] = ()
    code: str = field(default="", repr=False)
    blocks: tuple[str, ...] = ()

    def concerns(self, source: str) -> bool:
        """Whether a program may have to do with it, by its words."""
        return any(word in source for word in self.words)


@functools.cache
def known_faults(engine: str) -> tuple[Fault, ...]:
    """The faults of an engine, in any version."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    faults = []
    for row in table["fault"]:
        if row["engine"] == engine:
            example = FaultExample(row["example"]["program"], tuple(row["example"]["gradient"]))
            lists = {
                name: tuple(row[name]) for name in ("seen_in", "words", "functions", "blocks") if name in row
            }
            faults.append(Fault(**{**row, **lists, "example": example}))
    return tuple(faults)
