"""What an inference function reads of a unit: its signature, or declared data. Both serve new data of the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avistan.family.method import DataColumn
from avistan.runtime.errors import MethodError
from avistan.runtime.types import FloatArray
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.units.signature import References, SignatureTransform, signature_inputs

_TRANSFORM = ("center", "scale", "heavy", "mean", "components")
KNEE = 4.0


def pulled_in(inputs: FloatArray, knee: float) -> FloatArray:
    """Inputs (N, R), rows beyond a length of `knee` sqrt(R) shortened so that lengths grow as a logarithm from there.

    Whitened components have heavy tails, and a unit at 50 sds has leverage: the step that a network's weights take for
    all others moves it by many of its own sds, and from there it drives all others. The directions stay, and so does
    the order of lengths: nothing that the inputs say is lost.
    """
    if not inputs.size:
        return inputs
    length = np.maximum(np.sqrt(np.mean(inputs**2, axis=1, keepdims=True)) / knee, 1.0)
    return np.asarray(inputs * (1 + np.log(length)) / length)


@dataclass(frozen=True, slots=True, eq=False)
class SignatureInput:
    """Unit inputs read through gradients at stored reference points.

    Attributes:
        neighbours: on how many units to each side along the axis the signatures are read too. Those that do not exist
            count as the mean, 0, and a column for each place says so.
        knee: sds from the mean (root mean square of an input) from which on a unit's inputs grow as a logarithm only.
    """

    references: References
    transform: SignatureTransform
    neighbours: int = 0
    knee: float = KNEE
    kind = "signature"

    def __call__(self, model: BoundModel, index: IndexArray, globals_index: IndexArray) -> FloatArray:
        """Inputs (N, R) of the units of a bound model."""
        return self._beside(signature_inputs(model, index, globals_index, self.references, self.transform))

    def of_scores(self, scores: FloatArray) -> FloatArray:
        """Inputs (N, R) of raw scores (N, F)."""
        return self._beside(self.transform(scores))

    def _beside(self, own: FloatArray) -> FloatArray:
        """Signatures (N, R), those far out nearer, with those of the neighbours."""
        own = pulled_in(own, self.knee)
        if not self.neighbours:
            return own
        parts = [own]
        for offset in (sign * step for step in range(1, self.neighbours + 1) for sign in (-1, 1)):
            wanted = np.arange(len(own)) + offset
            exists = (wanted >= 0) & (wanted < len(own))
            there = np.where(exists[:, None], own[np.clip(wanted, 0, len(own) - 1)], 0.0)
            parts += [there, (~exists[:, None]).astype(np.float64)]
        return np.concatenate(parts, axis=1)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that a saved fit needs of it."""
        parts = {name: getattr(self.transform, name) for name in _TRANSFORM}
        own = {"theta": self.references.theta, "z": self.references.z}
        more = {"neighbours": np.asarray(self.neighbours), "knee": np.asarray(self.knee)}
        return own | more | parts


@dataclass(frozen=True, slots=True, eq=False)
class DataInput:
    """Unit inputs from declared data: rows of the named entries, standardized by the training data.

    A row that does not exist (before the first or after the last) counts as the mean, and a column says so.
    """

    columns: tuple[DataColumn, ...]
    mean: FloatArray  # (R,)
    sd: FloatArray  # (R,)
    marked: npt.NDArray[
        np.bool_
    ]  # (R,) columns with rows that do not exist: each adds a column of zeros and ones
    kind = "data"

    def __call__(self, model: BoundModel, index: IndexArray, globals_index: IndexArray) -> FloatArray:
        """Inputs (N, R) of the units of a bound model."""
        values = unit_columns(model.data, self.columns, len(index))
        missing = np.isnan(values)
        standard = np.where(missing, 0.0, (values - self.mean) / self.sd)
        return np.concatenate([standard, missing[:, self.marked].astype(np.float64)], axis=1)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything but the columns that a saved fit needs of it."""
        return {"mean": self.mean, "sd": self.sd, "marked": self.marked}


UnitInput = SignatureInput | DataInput


def make_data_input(data: StanData, columns: tuple[DataColumn, ...], num_units: int) -> DataInput:
    """The input of declared data, standardized over these units; a column that never varies keeps its scale."""
    values = unit_columns(data, columns, num_units)
    missing = np.isnan(values)
    weights = np.maximum((~missing).sum(axis=0), 1)
    mean = np.where(missing, 0.0, values).sum(axis=0) / weights
    sd = np.sqrt(np.where(missing, 0.0, (values - mean) ** 2).sum(axis=0) / weights)
    return DataInput(columns, mean, np.where(sd > 0, sd, 1.0), missing.any(axis=0))


def read_unit_input(
    kind: str | None, arrays: Mapping[str, npt.NDArray[Any]], columns: tuple[DataColumn, ...]
) -> UnitInput | None:
    """The inverse of `arrays()`; `columns` as in `Method.data`."""
    if kind == SignatureInput.kind:
        transform = SignatureTransform(*(arrays[name] for name in _TRANSFORM))
        references = References(arrays["theta"], arrays["z"])
        neighbours = int(arrays.get("neighbours", np.asarray(0)))
        return SignatureInput(references, transform, neighbours, float(arrays["knee"]))
    if kind == DataInput.kind:
        return DataInput(columns, arrays["mean"], arrays["sd"], arrays["marked"])
    return None


def unit_columns(data: StanData, columns: tuple[DataColumn, ...], num_units: int) -> FloatArray:
    """Rows of declared data for each unit, side by side: (N, R), NaN where a row does not exist.

    Rows are counted from the end, where a series with values before the first unit still ends with the last one: of an
    entry with M >= N rows, unit n's own row is n + M - N, and an offset counts from there.

    Raises:
        MethodError: an entry does not exist or has fewer rows than there are units.
    """
    parts = []
    for name, offsets in columns:
        if name not in data:
            raise MethodError(
                f"data({name}): the program declares no data entry {name!r}. Entries: {', '.join(data)}."
            )
        values = np.asarray(data[name])
        if values.ndim == 0 or len(values) < num_units:
            raise MethodError(
                f"data({name}): {name} has shape {values.shape}, not one row for each of the {num_units} units. "
                "The default input, the signature, serves any layout."
            )
        rows = values.reshape(len(values), -1).astype(np.float64)
        for offset in offsets:
            wanted = np.arange(len(rows) - num_units, len(rows)) + offset
            exists = (wanted >= 0) & (wanted < len(rows))
            parts.append(np.where(exists[:, None], rows[np.clip(wanted, 0, len(rows) - 1)], np.nan))
    return np.concatenate(parts, axis=1)
