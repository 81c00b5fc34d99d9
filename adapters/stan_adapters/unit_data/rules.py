"""Rules of slicing: what happens to each data entry when only some units of a level are kept.

They are proposed (`proposals`) or given by hand, and always verified (`slicing`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stan_adapters.data.stan_data import StanData
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Program


class Role(enum.StrEnum):
    """What a data entry is to the units of a level. The value is how a user writes it."""

    UNIT = "unit"  # axis k has an entry per unit
    ROW = "row"  # axis k runs over rows, which an index or spans assign to units
    INDEX = "index"  # an entry per row: the number of its unit
    SIZE_UNITS = "size"  # the number of units
    SIZE_ROWS = "rows"  # the number of rows
    START = "start"  # an entry per unit: its first row
    END = "end"  # its last row
    SIZES = "sizes"  # how many rows it has
    OFFSETS = "offsets"  # an entry per unit and one more: unit n ends before offset n + 1
    PLACE = "place"  # the number of its row; rows of no unit are shared out among all
    SHARED = "shared"  # kept whole


SPANS = (Role.START, Role.END, Role.SIZES, Role.OFFSETS)
OWNERS = (Role.INDEX, Role.PLACE, *SPANS)  # they say whose a row is


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to one data entry.

    Attributes:
        axis: for UNIT and ROW, the axis (from 0) that is cut. Other axes of the same declared size are cut with it.
        rows: for what speaks of rows (all but UNIT, SIZE_UNITS and SHARED), their declared size; None: found by the
            numbers.
        into: for INDEX, the declared size of the rows that it numbers; None: it numbers units.
        times: for SIZE_UNITS, how many it counts for each unit.
    """

    role: Role
    axis: int = 0
    rows: str | None = None
    into: str | None = None
    times: int = 1

    def __str__(self) -> str:
        if self.role is Role.SIZE_UNITS and self.times > 1:
            return f"{self.role}:{self.times}"
        axis = f":{self.axis}" if self.role in (Role.UNIT, Role.ROW) and self.axis else ""
        return f"{self.role}{axis}"


SHARED = Rule(Role.SHARED)
type Rules = dict[str, Rule]


def parse_rules(program: Program, given: Mapping[str, str | Rule]) -> Rules:
    """Rules that a user wrote by hand: `{"y": "unit:1", "g": "index", "first": "start"}`.

    Raises:
        StructureError: an entry that the program does not declare, or a word that is no rule; names both.
    """
    if not isinstance(given, Mapping):
        raise StructureError(f"slicing is a {type(given).__name__}, expected a dict of rules by data entry.")
    declared = [declaration.name for declaration in program.data]
    rules = {}
    for name, rule in given.items():
        if name not in declared:
            raise StructureError(
                f"slicing names {name!r}, which is no data entry of {program.name}. "
                f"Its data entries: {', '.join(declared) or 'none'}."
            )
        rules[name] = rule if isinstance(rule, Rule) else _parse_rule(name, rule)
    return rules


def _parse_rule(name: str, text: str) -> Rule:
    words = [role.value for role in Role]
    word, colon, axis = text.partition(":") if isinstance(text, str) else ("", "", "")
    numbered = word in ("unit", "row") or (word == "size" and axis != "0")
    if word not in words or (colon and not (axis.isdigit() and numbered)):
        raise StructureError(
            f"slicing[{name!r}] is {text!r}, expected one of {', '.join(words)}; `unit` and `row` may name an axis "
            "that counts from 0, as in 'unit:1', and `size` how many it counts for each unit, as in 'size:2'."
        )
    if word == "size":
        return Rule(Role.SIZE_UNITS, times=int(axis or 1))
    return Rule(Role(word), int(axis or 0))


def array_of(data: StanData, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The entry as an array; an empty one where it is a tuple, or computed by the program."""
    value = data.entries.get(name)
    return value if isinstance(value, np.ndarray) else np.zeros(0)
