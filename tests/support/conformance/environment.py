"""The variables that every case of the bank may use, in Stan and in numpy.

Each real variable is a line through its value, `base + t * slope`: in places where a case must be differentiated the
program says just that with a parameter for `t`, and numpy says it with a number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variable:
    """`type` is Stan's, without the name: "array[2] vector[3]". `slope` is None for integers."""

    type: str
    base: npt.NDArray[np.generic]
    slope: Array | None

    def at(self, t: float) -> npt.NDArray[np.generic]:
        return self.base if self.slope is None else self.base + t * self.slope


def _real(kind: str, base: object, slope: object) -> Variable:
    return Variable(kind, np.array(base, dtype=float), np.array(slope, dtype=float))


def _int(kind: str, base: object) -> Variable:
    return Variable(kind, np.array(base), None)


def _bumps(shape: tuple[int, ...], start: float) -> Array:
    """Slopes without a pattern, in (-1, 1)."""
    return np.sin(start + 1.7 * np.arange(1, np.prod(shape, dtype=int) + 1)).reshape(shape)


_FACTOR = np.array([[1.3, 0, 0], [-0.4, 0.9, 0], [0.25, 0.6, 1.1]])
_FACTOR_SLOPE = np.array([[0.3, 0, 0], [0.5, -0.2, 0], [-0.4, 0.1, 0.25]])
_CORR = np.array([[1.0, 0, 0], [0.3, 0.0, 0], [-0.2, 0.45, 0]])
_CORR[1, 1], _CORR[2, 2] = np.sqrt(1 - 0.3**2), np.sqrt(1 - 0.2**2 - 0.45**2)

# Constructs: one of each container.
VARIABLES: dict[str, Variable] = {
    "one": _int("int", 1),
    "i": _int("int", 2),
    "n": _int("int", 3),
    "zero": _int("int", 0),
    "seven": _int("int", 7),
    "minus": _int("int", -3),
    "k": _int("array[3] int", [3, 1, 2]),
    "few": _int("array[2] int", [3, 1]),
    "again": _int("array[5] int", [2, 1, 2, 3, 1]),
    "sizes": _int("array[3] int", [2, 0, 3]),
    "counts": _int("array[5] int", [4, 0, 1, 7, 2]),
    "none": _int("array[0] int", []),
    "d": _int("array[3,2] int", [[1, 2], [3, 4], [5, 6]]),
    "e": _int("array[2,3] int", [[6, -1, 4], [0, 3, 2]]),
    "c": _int("array[2,2,2] int", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
    "a": _real("real", 0.7, 0.8),
    "b": _real("real", 1.9, -0.6),
    "u": _real("real", 0.3, 0.35),
    "neg": _real("real", -1.3, 0.45),
    "ra": _real("array[3] real", [0.4, -1.2, 2.5], [0.7, 0.3, -0.5]),
    "rp": _real("array[3] real", [0.4, 1.2, 2.5], [0.2, -0.3, 0.5]),
    "rb": _real("array[2,3] real", [[0.2, 1.4, -0.3], [2.2, -0.7, 0.9]], _bumps((2, 3), 0.2)),
    "rc": _real("array[2,2,2] real", np.linspace(-1.1, 2.3, 8).reshape(2, 2, 2), _bumps((2, 2, 2), 0.9)),
    "v": _real("vector[3]", [0.6, -1.5, 2.1], [0.4, 0.9, -0.7]),
    "w": _real("vector[3]", [1.1, 0.5, -0.8], [-0.3, 0.6, 0.2]),
    "vp": _real("vector[3]", [0.6, 1.5, 2.1], [0.3, -0.4, 0.5]),
    "v2": _real("vector[2]", [-0.4, 1.3], [0.5, 0.8]),
    "v5": _real("vector[5]", [0.3, -0.9, 1.8, 0.1, -2.2], _bumps((5,), 0.4)),
    "rv": _real("row_vector[3]", [0.9, -0.2, 1.6], [0.5, 0.35, -0.25]),
    "rw": _real("row_vector[3]", [-1.4, 0.8, 0.3], [0.15, -0.6, 0.9]),
    "r2": _real("row_vector[2]", [0.7, -1.1], [0.3, -0.2]),
    "p": _real("vector[3]", [0.2, 0.5, 0.3], [0.1, -0.3, 0.2]),
    "q": _real("vector[3]", [0.6, 0.15, 0.25], [-0.2, 0.15, 0.05]),
    "o": _real("vector[3]", [-1.1, 0.3, 1.2], [0.2, 0.1, 0.35]),
    "m": _real("matrix[3,2]", [[0.5, -0.4], [1.2, 0.8], [-0.9, 2.0]], _bumps((3, 2), 1.1)),
    "mt": _real("matrix[2,3]", [[0.3, 1.5, -0.6], [-1.2, 0.7, 0.9]], _bumps((2, 3), 2.3)),
    "A": _real(
        "matrix[3,3]", [[1.5, 0.3, -0.4], [-0.2, 1.1, 0.6], [0.5, -0.7, 0.9]], _bumps((3, 3), 0.6) * 0.5
    ),
    "S": _real(
        "matrix[3,3]",
        [[2.1, 0.4, -0.3], [0.4, 1.6, 0.5], [-0.3, 0.5, 1.3]],
        [[0.3, 0.1, -0.2], [0.1, -0.2, 0.15], [-0.2, 0.15, 0.25]],
    ),
    "L": _real("matrix[3,3]", _FACTOR, _FACTOR_SLOPE),
    "LR": _real("matrix[3,3]", _CORR, np.zeros((3, 3))),
    "B": _real("matrix[2,2]", [[0.8, 0.5], [-0.3, 1.4]], [[0.2, -0.5], [0.4, 0.3]]),
    "P": _real("matrix[2,2]", [[1.4, 0.3], [0.3, 0.9]], [[0.2, 0.1], [0.1, -0.3]]),
    "av": _real("array[2] vector[3]", [[0.1, 0.7, -0.5], [1.3, -0.8, 0.4]], _bumps((2, 3), 1.9)),
    "arv": _real("array[2] row_vector[3]", [[0.9, -0.1, 0.6], [-1.2, 0.5, 0.2]], _bumps((2, 3), 0.7)),
    "am": _real(
        "array[2] matrix[2,2]", [[[0.7, 0.2], [-0.5, 1.2]], [[1.1, -0.9], [0.4, 0.3]]], _bumps((2, 2, 2), 1.5)
    ),
    "avv": _real(
        "array[2,2] vector[2]",
        [[[0.3, 1.0], [-0.6, 0.5]], [[1.4, -0.2], [0.8, -1.1]]],
        _bumps((2, 2, 2), 0.1),
    ),
}

# Distributions: four arguments of each support, each a scalar and three containers. R: reals, P: positive, U: unit
# interval, N: counts, B: zero or one, K: categories of three, M: numbers of trials, above all
# counts. L: below -2.5, H: above 2.5.
_SUPPORTS = {
    "R": ([[-0.4, 0.7, 1.6], [0.9, -1.1, 0.2], [0.5, 1.2, -0.3], [-0.8, 0.1, 1.1]], 0.5),
    "P": ([[0.8, 1.7, 2.4], [1.3, 0.6, 2.1], [2.2, 1.1, 0.9], [1.6, 2.5, 0.7]], 0.3),
    "U": ([[0.3, 0.55, 0.8], [0.6, 0.25, 0.4], [0.45, 0.7, 0.35], [0.5, 0.2, 0.65]], 0.12),
    "L": ([[-2.6, -3.1, -4.2], [-3.5, -2.9, -5.1], [-4.4, -3.3, -2.7], [-3.8, -4.6, -3.2]], 0.3),
    "H": ([[2.6, 3.1, 4.2], [3.5, 2.9, 5.1], [4.4, 3.3, 2.7], [3.8, 4.6, 3.2]], 0.3),
}
_COUNTS = {"N": [3, 1, 5], "B": [1, 0, 1], "K": [2, 3, 1], "M": [6, 8, 7]}

ARGUMENTS: dict[str, Variable] = {}
for _support, (_values, _size) in _SUPPORTS.items():
    for _slot, _value in enumerate(_values, 1):
        _slope = _size * _bumps((3,), 0.8 * _slot + len(ARGUMENTS))
        _slope = np.where(np.abs(_slope) < 0.2 * _size, _size, _slope)
        ARGUMENTS[f"{_support}{_slot}s"] = _real("real", _value[0], _slope[0])
        for _letter, _kind in (("v", "vector[3]"), ("r", "row_vector[3]"), ("a", "array[3] real")):
            ARGUMENTS[f"{_support}{_slot}{_letter}"] = _real(_kind, _value, _slope)
for _support, _ints in _COUNTS.items():
    ARGUMENTS[f"{_support}1s"] = _int("int", _ints[0])
    ARGUMENTS[f"{_support}1a"] = _int("array[3] int", _ints)
VARIABLES |= ARGUMENTS
