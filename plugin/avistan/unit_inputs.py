"""What an inference function reads of a unit: its signature, or declared data. Both serve new data of the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stan_adapters.binding import BoundModel
from stan_adapters.data import StanData
from stan_adapters.layout import IndexArray
from stan_adapters.signature import References, SignatureTransform, unit_scores

from .errors import MethodError

FloatArray = npt.NDArray[np.float64]
_TRANSFORM = ("center", "scale", "heavy", "mean", "components")


@dataclass(frozen=True, slots=True, eq=False)
class SignatureInput:
    """Unit inputs read through gradients at stored reference points."""

    references: References
    transform: SignatureTransform
    kind = "signature"

    def __call__(self, model: BoundModel, index: IndexArray, globals_index: IndexArray) -> FloatArray:
        """Inputs (N, R) of the units of a bound model."""
        return self.transform(unit_scores(model, index, globals_index, self.references))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that a saved fit needs of it."""
        return {"theta": self.references.theta, "z": self.references.z} | {
            name: getattr(self.transform, name) for name in _TRANSFORM
        }


@dataclass(frozen=True, slots=True, eq=False)
class DataInput:
    """Unit inputs from declared data: the rows of the named entries, standardized by the training data."""

    names: tuple[str, ...]
    mean: FloatArray  # (R,)
    sd: FloatArray  # (R,)
    kind = "data"

    def __call__(self, model: BoundModel, index: IndexArray, globals_index: IndexArray) -> FloatArray:
        """Inputs (N, R) of the units of a bound model."""
        return (unit_columns(model.data, self.names, len(index)) - self.mean) / self.sd

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything but the names that a saved fit needs of it."""
        return {"mean": self.mean, "sd": self.sd}


UnitInput = SignatureInput | DataInput


def make_data_input(data: StanData, names: tuple[str, ...], num_units: int) -> DataInput:
    """The input of declared data, standardized over these units; a column that never varies keeps its scale."""
    columns = unit_columns(data, names, num_units)
    sd = columns.std(axis=0)
    return DataInput(names, columns.mean(axis=0), np.where(sd > 0, sd, 1.0))


def read_unit_input(
    kind: str | None, arrays: Mapping[str, npt.NDArray[Any]], names: Sequence[str]
) -> UnitInput | None:
    """The inverse of `arrays()`."""
    if kind == SignatureInput.kind:
        transform = SignatureTransform(*(arrays[name] for name in _TRANSFORM))
        return SignatureInput(References(arrays["theta"], arrays["z"]), transform)
    if kind == DataInput.kind:
        return DataInput(tuple(names), arrays["mean"], arrays["sd"])
    return None


def unit_columns(data: StanData, names: tuple[str, ...], num_units: int) -> FloatArray:
    """Declared data entries with a row for each unit, side by side: (N, R).

    Raises:
        MethodError: an entry does not exist or has no row for each unit.
    """
    columns = []
    for name in names:
        if name not in data:
            raise MethodError(
                f"data({name}): the program declares no data entry {name!r}. Entries: {', '.join(data)}."
            )
        values = np.asarray(data[name])
        if values.ndim == 0 or len(values) != num_units:
            raise MethodError(
                f"data({name}): {name} has shape {values.shape}, not one row for each of the {num_units} units. "
                "The default input, the signature, serves any layout."
            )
        columns.append(values.reshape(num_units, -1).astype(np.float64))
    return np.concatenate(columns, axis=1)
