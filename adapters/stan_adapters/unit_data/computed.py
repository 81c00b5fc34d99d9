"""Which transformed data become data so that a program can be cut: what is computed from the data of several units.

The block `transformed data` is evaluated on the data of each half of the units beside that of all. What has as many
entries and other numbers there, such as the means by which predictors are centred, is computed from all: it is kept as
it is for the whole. So is what decides how many parameters there are. What is computed row by row is computed anew from
the rows of a part. Where that is not enough, all transformed data become data and are cut like these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from lark.exceptions import UnexpectedInput

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import type_of
from stan_adapters.derived import ComputedData, Derivation, derive, derive_with_number
from stan_adapters.derived.values import Array, of_all
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError
from stan_adapters.language.expressions import Expression
from stan_adapters.language.program import Program
from stan_adapters.levels.levels import Level
from stan_adapters.rewriting.reductions import with_named_reductions
from stan_adapters.unit_data.parts import ENGINES
from stan_adapters.unit_data.plan import Plan

_MOST = 2000  # units in a half


@dataclass(eq=False)
class Computed:
    """The derived programs of one bound model, as far as they are asked for."""

    model: BoundModel
    level: Level
    theta: FloatArray
    rng: np.random.Generator
    bindings: int = 0
    evaluations: int = 0
    _evaluated: ComputedData | None = field(init=False, default=None)
    _whole: dict[str, Array] = field(init=False, default_factory=dict)
    _tried: list[frozenset[str]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        program = self.model.program
        if not program.transformed_data or self.model.engine not in ENGINES:
            return
        named: Program | None = None
        with suppress(UnexpectedInput, AvistanError):
            named = with_named_reductions(program)
        for source in dict.fromkeys([named, program]):
            self.bindings += 1
            try:
                if source is not None:
                    self._evaluated = ComputedData(source, "stanli", self.model.seed)  # compiles in no time
                    self._whole = self._evaluated.of(self.model.data)
                    return
            except (UnexpectedInput, AvistanError):  # what can't be read or returned stays as it is
                self._evaluated = None

    def of_all_units(self, plan: Plan, *, own_size: bool = True) -> Iterator[tuple[Derivation, BoundModel]]:
        """With what is computed from all units as data, and what sizes parameters: a program where there is such.

        Args:
            plan: a way to write the data of some units.
            own_size: whether the number of the units counts among what sizes parameters.
        """
        if names := self._aggregates(plan):
            sizes = [size for member in self.level.members for size in self._dims(member.name)]
            own = {name for size in sizes for name in size.names}
            yield from self._derived(names | (self._sizing() if own_size else self._sizing() - own))

    def sizes(self) -> Iterator[tuple[Derivation, BoundModel]]:
        """With what sizes parameters as data."""
        yield from self._derived(self._sizing())

    def everything(self) -> Iterator[tuple[Derivation, BoundModel]]:
        """With all transformed data as data."""
        yield from self._derived({d.name for d in self.model.program.transformed_data} & self._whole.keys())

    def number_of_units(self) -> Iterator[tuple[Derivation, BoundModel]]:
        """With the number of units as data, where it is written in the program."""
        sizes = {
            self._dims(m.name)[m.axis].text for m in self.level.members if m.axis < len(self._dims(m.name))
        }
        written = [size for size in sizes if size.isdigit()]
        if len(sizes) == 1 and written and self.model.engine in ENGINES:
            self.bindings += 1
            try:
                found = derive_with_number(self.model, written[0], self.theta)
            except AvistanError:
                return
            self.evaluations += 2 * len(self.theta)
            yield found

    def _sizing(self) -> set[str]:
        sizes = [size for declared in self.model.program.parameters for size in self._dims(declared.name)]
        return {name for size in sizes for name in size.names if name in self._whole}

    def _dims(self, name: str) -> tuple[Expression, ...]:
        return type_of(self.model.program.parameters, name).dims

    def _aggregates(self, plan: Plan) -> set[str]:
        if self._evaluated is None:
            return set()
        real = [name for name, value in self._whole.items() if value.dtype.kind == "f"]
        order, found = self.rng.permutation(self.level.num_units), set()
        for half in np.array_split(order, 2) if real else ():  # an extreme or a first entry is in one of them
            self.bindings += 1
            with suppress(AvistanError):
                part = self._evaluated.of(plan.subset(np.sort(half[:_MOST])))
                found |= set(of_all(self._whole, part, real))
        return found

    def _derived(self, names: set[str]) -> Iterator[tuple[Derivation, BoundModel]]:
        if self._evaluated is None or not names or frozenset(names) in self._tried:
            return
        self._tried.append(frozenset(names))
        self.bindings += 1
        try:
            found = derive(self.model, self._evaluated, self._whole, names, self.theta)
        except AvistanError:
            return
        self.evaluations += 2 * len(self.theta)
        yield found
