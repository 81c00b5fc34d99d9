"""Variables as columns, in Stan's order: first index fastest, complex numbers as two columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from avistan.export.parts import Outgoing, Part
from avistan.runtime.types import FloatArray


def csv_names(drawn: Outgoing) -> list[str]:
    """As CmdStan writes them: `a.2.3`, `z.1.real`."""
    return [".".join((name, *places)) for name, places in _places(drawn)]


def r_names(drawn: Outgoing) -> list[str]:
    """As R's posterior and cmdstanpy have them: `a[2,3]`."""
    return [f"{name}[{','.join(places)}]" if places else name for name, places in _places(drawn)]


def _places(drawn: Outgoing) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, shape in drawn.shapes.items():
        for reverse in np.ndindex(*reversed(shape)):
            place = tuple(str(index + 1) for index in reversed(reverse))
            if name in drawn.is_complex:
                yield name, (*place, "real")
                yield name, (*place, "imag")
            else:
                yield name, place


def flat(drawn: Outgoing, part: Part) -> FloatArray:
    """The columns (S, K) of a part."""
    return np.concatenate([_columns(part.values[name]) for name in drawn.shapes], axis=1)


def _columns(values: npt.NDArray[Any]) -> FloatArray:
    rows = len(values)
    ordered = values.transpose(0, *range(values.ndim - 1, 0, -1)).reshape(rows, -1)
    if ordered.dtype.kind == "c":
        return np.ascontiguousarray(ordered, dtype=np.complex128).view(np.float64)
    return ordered.astype(np.float64, copy=False)


def told(attrs: Mapping[str, Any]) -> dict[str, str]:
    """What attributes of draws say, each in a line."""
    chosen = ("method", "outcome", "elbo", "seed", "correction", "effective_draws", "trusted", "not_holding")
    return {name: " ".join(str(attrs[name]).split()) for name in chosen if name in attrs}
