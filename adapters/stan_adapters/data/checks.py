"""One data value against its declared type: kind of number, shape, bounds, constraints.

Engines accept some wrong shapes silently, so values are checked before an engine sees them, with the
tolerances of Stan.
"""

from __future__ import annotations

import numbers
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stan_adapters.data.missing import missing_entries
from stan_adapters.files.r_dump import RObject
from stan_adapters.language.expressions import Expression, Unevaluable
from stan_adapters.language.program import StanType

type Array = np.ndarray[Any, np.dtype[Any]]
type Entry = Array | tuple[Entry, ...] | list[Entry]  # a tuple is a Stan tuple, a list an array of tuples
type Dims = tuple[int | None, ...]  # None: the size can't be evaluated here, any will do

_MOST_DIMS = 64  # of an array of numpy's
TOLERANCE = 1e-8  # Stan Math's CONSTRAINT_TOLERANCE
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_INT32 = np.iinfo(np.int32)
_SPECIAL = {
    sign + word: value
    for word, number in (("nan", np.nan), ("inf", np.inf), ("infinity", np.inf))
    for sign, value in (("", number), ("+", number), ("-", -number))
}


class Misfit(Exception):
    """What is wrong with a value, as the end of a sentence whose subject is the value.

    `place` is where in a tuple or an array of tuples, as Stan would write it: `[2].1`.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(f"{message} (in {place})" if place else message)
        self.message = message
        self.place = place


def fit_value(raw: object, stan_type: StanType, env: Mapping[str, Any]) -> Entry:
    """`raw` as a read-only C-ordered array (int64, float64 or complex128) of exactly the declared shape.

    Tuples become Python tuples, arrays of tuples lists. `env` holds the data declared before it.

    Raises Misfit.
    """
    dims = declared_dims(stan_type, env)
    if stan_type.is_tuple:
        return _fit_tuples(raw, stan_type, env, dims)
    array = _as_array(raw)
    if stan_type.is_complex:
        array = _fit_complex(array, dims)
    else:
        array = _fit_shape(array, dims)
        array = _fit_integers(array) if stan_type.is_integer else _fit_reals(array)
    array = np.array(array, order="C")  # a copy: what the caller does to theirs later doesn't matter
    array.setflags(write=False)
    if stan_type.lower is not None or stan_type.upper is not None or stan_type.base in _REQUIREMENTS:
        _refuse_nan(array)
    _check_bounds(array, stan_type, env)
    _check_requirements(array, stan_type)
    return array


def declared_dims(stan_type: StanType, env: Mapping[str, Any]) -> Dims:
    """The declared dimensions as numbers; None where `env` doesn't give a size. Raises Misfit if negative."""
    dims: list[int | None] = []
    for expression in stan_type.dims:
        try:
            size = expression.evaluate(env)
        except Unevaluable:
            dims.append(None)
            continue
        if not isinstance(size, int | float) or not float(size).is_integer() or size < 0:
            raise Misfit(f"can't have the size {expression} = {size}: a size is an integer, 0 or larger")
        dims.append(int(size))
    return tuple(dims)


# ---- Numbers -----------------------------------------------------------------------------------------------


def _as_array(raw: object) -> Array:
    """Any array-like as int64, uint64, float64 or complex128."""
    if missing := missing_entries(raw):
        raise Misfit(f"has {missing}: Stan data can't be missing, drop or impute them")
    if hasattr(raw, "to_numpy") and not hasattr(raw, "__array__"):
        raw = _converted(raw.to_numpy)
    try:
        array: Array = _converted(lambda: np.asarray(raw))
        if array.dtype.kind in "US":  # numpy made strings of numbers beside a string
            array = np.asarray(raw, dtype=object)
    except Misfit as misfit:
        raise Misfit(_describe_ragged(raw) or misfit.message) from misfit
    if array.dtype.kind == "O":
        array = _from_objects(array)
    match array.dtype.kind:
        case "b" | "i":
            return array.astype(np.int64, copy=False)
        case "u":
            return array
        case "f":
            return _narrowed(array, np.float64)
        case "c":
            return _narrowed(array, np.complex128)
        case _:
            raise Misfit(f"holds {array.dtype}, expected numbers")


def _converted(convert: Callable[[], Any]) -> Any:
    try:
        return convert()
    except Exception as error:  # of whatever the object does to become an array
        raise Misfit(f"can't be read as an array: {str(error).rstrip('.')}") from error


def _narrowed(array: Array, dtype: type[Any]) -> Array:
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype, copy=False)
    if narrow is not array:
        _refuse(np.isinf(narrow) & ~np.isinf(array), array, "the largest double is 1.8e308")
    return np.asarray(narrow)


def _from_objects(array: Array) -> Array:
    values = [_number(item, index) for index, item in np.ndenumerate(array)]
    numeric = np.array(values) if values else np.zeros(0)
    return numeric.reshape(array.shape)


def _number(item: object, index: tuple[int, ...]) -> complex:
    at = _at(index)
    if isinstance(item, str):
        text = item.strip()
        if text.lower() in _SPECIAL:
            return _SPECIAL[text.lower()]
        if isinstance(item, RObject):
            raise Misfit(f"is {item}")
        instead = f"write {text} without quotes" if _NUMBER.fullmatch(text) else "number categories 1, 2, ..."
        raise Misfit(f"holds the string {reprlib.repr(item)}{at}, expected a number: {instead}")
    if isinstance(item, bool | np.bool_):
        return int(item)
    if isinstance(item, numbers.Integral):
        try:
            return int(item) if abs(int(item)) < 2**63 else float(int(item))
        except OverflowError:
            raise Misfit(f"holds an integer beyond 1e308{at}") from None
    if isinstance(item, numbers.Real):
        return float(item)
    if isinstance(item, numbers.Complex):
        return complex(item)
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        raise Misfit(f"is missing ({item}){at}: Stan data can't be missing, drop or impute it")
    if isinstance(item, list | tuple | np.ndarray):
        raise Misfit(f"mixes numbers and lists{at}: every part must have the same number of entries")
    raise Misfit(f"holds a {type(item).__name__}{at}, expected a number")


def _describe_ragged(raw: object, depth: int = 0) -> str | None:
    if not isinstance(raw, Sequence) or isinstance(raw, str) or depth > _MOST_DIMS:
        return None
    lengths = [len(item) if hasattr(item, "__len__") else None for item in raw]
    for position, length in enumerate(lengths):
        if length != lengths[0]:
            counts = ["a single number" if n is None else f"{n} entries" for n in (length, lengths[0])]
            return f"is ragged: [{position + 1}] has {counts[0]} where [1] has {counts[1]}"
    for position, item in enumerate(raw):
        if inner := _describe_ragged(item, depth + 1):
            return f"{inner}, within [{position + 1}]"
    return None


def _fit_integers(array: Array) -> Array:
    if array.dtype.kind == "c":
        raise Misfit("holds complex numbers, expected integers")
    if array.dtype.kind == "f":
        _refuse_nan(array)
        _refuse(array != np.trunc(array), array, "expected an integer")
    _refuse((array < _INT32.min) | (array > _INT32.max), array, "Stan's int has 32 bits")
    return array.astype(np.int64)


def _fit_reals(array: Array) -> Array:
    if array.dtype.kind == "c":
        raise Misfit("holds complex numbers, expected reals")
    return array.astype(np.float64)


def _fit_complex(array: Array, dims: Dims) -> Array:
    if array.dtype.kind != "c":
        if array.ndim == len(dims) + 1 and array.shape[-1] == 2:  # Stan JSON: [re, im]
            array = np.ascontiguousarray(array, dtype=np.float64).view(np.complex128)[..., 0]
        elif not _fits(array.shape, dims) and array.size:
            raise Misfit(
                f"has shape {array.shape}, expected {_shape((*dims, 2))} as pairs [re, im], or {_shape(dims)}"
            )
    array = _fit_shape(array.astype(np.complex128), dims)
    _refuse_nan(array)
    return array


def _refuse_nan(array: Array) -> None:
    bad = np.isnan(array)
    if bad.any():
        where = _at(np.argwhere(bad)[0].tolist())
        raise Misfit(f"is NaN{where}: Stan data can't be missing, drop or impute it")


def _refuse(bad: Array, array: Array, reason: str) -> None:
    if bad.any():
        index = tuple(np.argwhere(bad)[0].tolist())
        raise Misfit(f"is {array[index].item()}{_at(index)}: {reason}")


def _at(index: Sequence[int]) -> str:
    """Where, as Stan would index it."""
    return f" at [{', '.join(str(i + 1) for i in index)}]" if index else ""


# ---- Shapes ------------------------------------------------------------------------------------------------


def _fits(shape: tuple[int, ...], dims: Dims) -> bool:
    return len(shape) == len(dims) and all(b is None or a == b for a, b in zip(shape, dims, strict=True))


def _shape(dims: Dims) -> str:
    return (
        f"({', '.join('any' if size is None else str(size) for size in dims)}{',' if len(dims) == 1 else ''})"
    )


def _fit_shape(array: Array, dims: Dims) -> Array:
    if _fits(array.shape, dims):
        return array
    if 0 in dims and array.size == 0:  # JSON can't say more than [] for a 0 x 3 matrix
        until_zero = dims[: array.ndim]
        if array.shape == (0,) or (0 in until_zero and _fits(array.shape, until_zero)):
            return np.zeros([size or 0 for size in dims], dtype=array.dtype)
    seen = f"has shape {array.shape}" if array.ndim else "is a single number"
    expected = f"expected shape {_shape(dims)}" if dims else "expected a single number"
    raise Misfit(f"{seen}, {expected}{_shape_advice(array.shape, dims)}")


def _shape_advice(shape: tuple[int, ...], dims: Dims) -> str:
    if None in dims:
        return ""
    if len(dims) == 2 and shape == dims[::-1]:
        return "; it looks transposed: pass its transpose"
    if not dims:
        one = (
            "the number itself, not a list of one"
            if shape == (1,)
            else "one of its numbers, or declare an array"
        )
        return f"; pass {one}"
    if not shape and all(size == 1 for size in dims):
        return f"; pass a list: {'[' * len(dims)}x{']' * len(dims)}"
    if dims and np.prod(shape) == np.prod([size or 0 for size in dims]):
        return f"; the number of entries is right: pass them as shape {_shape(dims)}"
    return ""


def _fit_tuples(raw: object, stan_type: StanType, env: Mapping[str, Any], dims: Dims) -> Entry:
    if dims:
        items = _items(raw)
        if items is None or dims[0] not in (None, len(items)):
            seen = f"is of type {type(raw).__name__}" if items is None else f"has {len(items)} entries"
            wanted = "any number of" if dims[0] is None else dims[0]
            raise Misfit(f"{seen}, expected a list of {wanted} tuples")
        return [
            _within(f"[{i + 1}]", _fit_tuples, item, stan_type, env, dims[1:]) for i, item in enumerate(items)
        ]
    count = len(stan_type.elements)
    if isinstance(raw, Mapping):
        if set(raw) != {str(i + 1) for i in range(count)}:
            raise Misfit(f'has the keys {list(raw)}, expected "1" to "{count}", a tuple\'s components')
        raw = [raw[str(i + 1)] for i in range(count)]
    items = _items(raw)
    if items is None or len(items) != count:
        seen = f"is of type {type(raw).__name__}" if items is None else f"has {len(items)} entries"
        raise Misfit(f"{seen}, expected a tuple of {count} components")
    parts = enumerate(zip(stan_type.elements, items, strict=True), start=1)
    return tuple(_within(f".{i}", fit_value, item, element, env) for i, (element, item) in parts)


def _items(raw: object) -> list[Any] | None:
    listed = isinstance(raw, list | tuple) or (isinstance(raw, np.ndarray) and raw.ndim > 0)
    return list(raw) if listed else None  # type: ignore[call-overload]


def _within(place: str, fit: Callable[..., Entry], *arguments: object) -> Entry:
    try:
        return fit(*arguments)
    except Misfit as misfit:
        raise Misfit(misfit.message, place + misfit.place) from misfit


# ---- Bounds and constrained types --------------------------------------------------------------------------


def _check_bounds(array: Array, stan_type: StanType, env: Mapping[str, Any]) -> None:
    def check(bound: Expression | None, word: str, broken: Callable[[Any, Any], Array]) -> None:
        if bound is None:
            return
        try:
            limit = np.broadcast_to(bound.evaluate(env), array.shape)
        except (Unevaluable, ValueError):  # the engine will judge
            return
        bad = broken(array, limit)
        if bad.any():
            index = tuple(np.argwhere(bad)[0].tolist())
            value = limit[index].item()
            number = "" if bound.text == str(value) else f" = {value}"
            raise Misfit(f"is {array[index].item()}{_at(index)}, but {word}={bound}{number}")

    check(stan_type.lower, "lower", np.less)
    check(stan_type.upper, "upper", np.greater)


class _Requirement(NamedTuple):
    """`holds` judges the statistic that `measure` takes of each element (its own dimensions come last)."""

    text: str
    measure: Callable[[Array], Array]
    holds: Callable[[Array], Array]


def _near(target: float) -> Callable[[Array], Array]:
    return lambda statistic: np.abs(statistic - target) <= TOLERANCE


def _worst(sums: Array, target: float) -> Array:
    """Of each row of sums the one furthest from the target."""
    furthest = np.argmax(np.abs(sums - target), axis=-1)
    return np.take_along_axis(sums, furthest[..., None], axis=-1)[..., 0]


def _diagonal(x: Array) -> Array:
    return np.diagonal(x, axis1=-2, axis2=-1)


def _smallest_pivot(x: Array) -> Array:
    """The smallest squared diagonal of the Cholesky factor, or the smallest eigenvalue where there is none."""
    pivots = np.empty(x.shape[:-2])
    for index in np.ndindex(pivots.shape):
        try:
            pivots[index] = np.min(_diagonal(np.linalg.cholesky(x[index])) ** 2)
        except np.linalg.LinAlgError:
            pivots[index] = min(np.min(np.linalg.eigvalsh(x[index])), 0.0)
    return pivots


def _above_diagonal(x: Array) -> Array:
    return np.abs(np.triu(x, 1)).max((-2, -1))


_NOT_NEGATIVE = _Requirement("its smallest entry must be at least 0", lambda x: x.min(-1), lambda s: s >= 0)
_SUMS_TO_ONE = _Requirement("its entries must sum to 1", lambda x: x.sum(-1), _near(1))
_INCREASING = _Requirement(
    "each entry must exceed the one before; the smallest step",
    lambda x: np.diff(x).min(-1, initial=np.inf),
    lambda s: s > 0,
)
_SYMMETRIC = _Requirement(
    "it must be symmetric; its largest difference from its transpose",
    lambda x: np.abs(x - np.swapaxes(x, -1, -2)).max((-2, -1)),
    lambda s: s <= TOLERANCE,
)
_UNIT_DIAGONAL = _Requirement(
    "its diagonal must be 1; the entry furthest off", lambda x: _worst(_diagonal(x), 1.0), _near(1)
)
_POSITIVE_DEFINITE = _Requirement(
    "it must be positive definite; its smallest eigenvalue", _smallest_pivot, lambda s: s > 0
)
_TALL = _Requirement(
    "it must have at least as many rows as columns; rows minus columns",
    lambda x: np.full(x.shape[:-2], x.shape[-2] - x.shape[-1]),
    lambda s: s >= 0,
)
_LOWER_TRIANGULAR = _Requirement(
    "it must be lower triangular; its largest entry above the diagonal", _above_diagonal, lambda s: s == 0
)
_POSITIVE_DIAGONAL = _Requirement(
    "its diagonal must be positive; the smallest entry there", lambda x: _diagonal(x).min(-1), lambda s: s > 0
)
_ENTRIES_NOT_NEGATIVE = _NOT_NEGATIVE._replace(measure=lambda x: x.min((-2, -1)))

_REQUIREMENTS: dict[str, tuple[_Requirement, ...]] = {
    "simplex": (_NOT_NEGATIVE, _SUMS_TO_ONE),
    "ordered": (_INCREASING,),
    "positive_ordered": (_NOT_NEGATIVE, _INCREASING),
    "unit_vector": (_Requirement("its squares must sum to 1", lambda x: (x**2).sum(-1), _near(1)),),
    "sum_to_zero_vector": (_Requirement("its entries must sum to 0", lambda x: x.sum(-1), _near(0)),),
    "sum_to_zero_matrix": (
        _Requirement(
            "every row must sum to 0; the sum furthest off", lambda x: _worst(x.sum(-1), 0.0), _near(0)
        ),
        _Requirement(
            "every column must sum to 0; the sum furthest off", lambda x: _worst(x.sum(-2), 0.0), _near(0)
        ),
    ),
    "row_stochastic_matrix": (
        _ENTRIES_NOT_NEGATIVE,
        _Requirement(
            "every row must sum to 1; the sum furthest off", lambda x: _worst(x.sum(-1), 1.0), _near(1)
        ),
    ),
    "column_stochastic_matrix": (
        _ENTRIES_NOT_NEGATIVE,
        _Requirement(
            "every column must sum to 1; the sum furthest off", lambda x: _worst(x.sum(-2), 1.0), _near(1)
        ),
    ),
    "cov_matrix": (_SYMMETRIC, _POSITIVE_DEFINITE),
    "corr_matrix": (_SYMMETRIC, _UNIT_DIAGONAL, _POSITIVE_DEFINITE),
    "cholesky_factor_cov": (_TALL, _LOWER_TRIANGULAR, _POSITIVE_DIAGONAL),
    "cholesky_factor_corr": (
        _LOWER_TRIANGULAR,
        _POSITIVE_DIAGONAL,
        _Requirement(
            "the squares of every row must sum to 1; the sum furthest off",
            lambda x: _worst((x**2).sum(-1), 1.0),
            _near(1),
        ),
    ),
}


def _check_requirements(array: Array, stan_type: StanType) -> None:
    if array.size == 0:
        return
    for requirement in _REQUIREMENTS.get(stan_type.base, ()):
        statistic = np.asarray(requirement.measure(array))
        bad = ~np.asarray(requirement.holds(statistic))
        if bad.any():
            index = tuple(np.argwhere(bad)[0].tolist())
            seen = f"{requirement.text} is {statistic[index].item():.10g}"
            if "; " not in requirement.text:
                seen = f"{requirement.text}, not {statistic[index].item():.10g}"
            raise Misfit(f"is no {stan_type.base}{_at(index)}: {seen}")
