"""Inference functions in numpy: what is asked for now and then is not worth a compiled program."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from avistan.family.functions import (
    LOG_SD_RANGE,
    MLP,
    AbstractInferenceFunction,
    Constant,
    LocalNu,
    Polynomial,
    Table,
)
from avistan.family.globals import GlobalGaussian, LevelGlobals
from avistan.runtime.types import FloatArray

HostNu = Any  # a `LocalNu` of numpy's arrays
_HOSTED = Table | Constant | Polynomial | MLP


def hosted(function: AbstractInferenceFunction) -> bool:
    """Whether `unit_values` knows the function."""
    return isinstance(function, _HOSTED)


def unit_values(function: AbstractInferenceFunction, inputs: npt.NDArray[np.float32], units: slice) -> HostNu:
    """What `function(inputs)` gives for some of the units, in numpy: parts (P, n) in float64. Inputs are (N, R)."""
    if isinstance(function, Table):
        return _nu(np.asarray(part)[:, units] for part in function.nu)
    x = inputs[units]
    if isinstance(function, Constant):
        one = (np.asarray(part) for part in function.nu)
        return _nu(np.broadcast_to(part, (len(part), len(x))) for part in one)
    if isinstance(function, Polynomial):
        raw = np.asarray(function.coefficients).T @ _monomials(function, x.astype(np.float64))
    elif isinstance(function, MLP):
        raw = _outputs(function, x.T).astype(np.float64) + np.asarray(function.start)[:, None]
    else:
        raise TypeError(f"{type(function).__name__} has no counterpart in numpy.")
    parts = np.split(raw, np.cumsum(function.sizes)[:-1])
    parts[1] = LOG_SD_RANGE * np.tanh(parts[1] / LOG_SD_RANGE)
    return _nu(parts)


def _nu(parts: Iterable[npt.NDArray[Any]]) -> HostNu:
    return LocalNu(*parts)  # type: ignore[arg-type]


def _monomials(function: Polynomial, x: FloatArray) -> FloatArray:
    scale = 1 / math.sqrt(max(1, len(function.exponents)))
    rows = [np.ones(len(x)), *(scale * np.prod(x[:, list(term)], axis=1) for term in function.exponents)]
    return np.stack(rows)


def _outputs(function: MLP, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """As the method of that name, inputs (R, n)."""
    hidden = x
    for weights, bias in function.layers[:-1]:
        hidden = np.asarray(weights).T @ hidden + np.asarray(bias)[:, None]
        with np.errstate(over="ignore"):  # x / inf is the limit
            hidden = hidden / (1 + np.exp(-hidden))
    weights, bias = function.layers[-1]
    out = np.asarray(weights).T @ hidden + np.asarray(bias)[:, None]
    if function.linear is not None:
        out += np.asarray(function.linear).T @ x
    return np.asarray(out)


def global_values(factor: GlobalGaussian | LevelGlobals) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`loc`, `log_sd` and `below` of `factor.resolved()`, in numpy."""
    if isinstance(factor, GlobalGaussian):
        return np.asarray(factor.loc), np.asarray(factor.log_sd), np.asarray(factor.below)
    free, place = factor.free, factor.placement
    nu = unit_values(factor.inference, np.asarray(factor.inputs), slice(None))
    at_free, at_units = np.asarray(place.global_index), np.asarray(place.local_index).T
    together = []
    for own, of_units in ((free.loc, nu.loc), (free.log_sd, nu.log_sd)):
        values = np.empty(factor.size)
        values[at_free], values[at_units] = np.asarray(own), of_units
        together.append(values)
    return together[0], together[1], np.asarray(free.below)
