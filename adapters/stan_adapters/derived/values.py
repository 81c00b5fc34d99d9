"""The values of a program's transformed data, and which of them are others for a part of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import StanData
from stan_adapters.errors import EngineError
from stan_adapters.language.expressions import Unevaluable
from stan_adapters.language.program import Program
from stan_adapters.rewriting.computed_data import returning_computed_data

type Array = np.ndarray[Any, np.dtype[Any]]

_ROUNDING = 1e-12


class ComputedData:
    """What a program's block `transformed data` makes of data.

    The block alone is bound: neither the parameters nor the model are needed.

    Args:
        engine: as of `BoundModel`; no prebuilt library, which has no other program.
        seed: for random numbers of the block.
    """

    def __init__(self, program: Program, engine: str, seed: int) -> None:
        self.program, self.engine, self.seed = program, engine, seed
        self._returning, self._names = returning_computed_data(program)

    def of(self, data: StanData) -> dict[str, Array]:
        """The values by name, in the order of their declarations; tuples are left out.

        Raises:
            EngineError, DataError: the engine refuses the data, or can't return what it computed from them.
        """
        given = StanData(self._returning, data.entries, data.source)
        with BoundModel(self._returning, given, engine=self.engine, seed=self.seed) as model:
            found, failed = model.constrain(np.zeros((1, 0)))
        if failed:
            raise EngineError(f"{model.engine} can't return the transformed data of {self.program.name}.")
        values: dict[str, Array] = {}
        known = {name: value for name, value in data.entries.items() if isinstance(value, np.ndarray)}
        for output, name in self._names.items():
            kind = self.program.declaration(name).type
            if output in found:
                value = np.asarray(found[output][0])
            else:  # engines do not list what has no entries
                try:
                    value = np.zeros(kind.shape({**known, **values}))
                except Unevaluable as error:
                    raise EngineError(f"the size of `{name}` is not known: {error}.") from None
            values[name] = value.astype(np.int64) if kind.is_integer else value
        return values


def differs(one: Array, other: Array) -> bool:
    """Whether two arrays of one shape hold other numbers, by more than rounding."""
    if one.shape != other.shape:
        return True
    if one.dtype.kind == "i":
        return not np.array_equal(one, other)
    return not np.allclose(one, other, rtol=_ROUNDING, atol=_ROUNDING * _scale(one), equal_nan=True)


def _scale(values: Array) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0))


def of_all(whole: Mapping[str, Array], part: Mapping[str, Array], names: Iterable[str]) -> tuple[str, ...]:
    """The variables that have as many entries for a part of the data as for the whole, and other values."""
    return tuple(
        name for name in names if whole[name].shape == part[name].shape and differs(whole[name], part[name])
    )
