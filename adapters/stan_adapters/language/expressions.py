"""Expressions of declarations (sizes, bounds): read by the grammar, evaluated on data as Stan would."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lark import Token, Tree
from lark.exceptions import UnexpectedInput

from stan_adapters.errors import ProgramError
from stan_adapters.language.grammar import stan_parser

type Value = Any  # an int, a float, an array of either, or what stands for a Stan tuple
type Node = Tree[Token] | Token | None


class Unevaluable(Exception):
    """An expression has no value here: an unknown name, a user's function, or what Stan would reject too."""


@dataclass(frozen=True, slots=True)
class Expression:
    """One Stan expression.

    `text` is canonical (one spacing, no comments): equality and hashing go by it.
    `names` are the variables it mentions, functions left out.
    """

    text: str
    names: frozenset[str] = field(compare=False, repr=False)
    _tree: Node = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Read one expression. Raises ProgramError."""
        try:
            tree = stan_parser().parse(text, start="expression")
        except UnexpectedInput as error:
            raise ProgramError(
                f"`{text}` is no Stan expression; reading stopped at column {error.column}"
            ) from error
        return cls.from_tree(tree)

    @classmethod
    def from_tree(cls, tree: Node) -> Expression:
        """The expression of a parse tree of `stan.lark`."""
        return cls(_render(tree), frozenset(_names(tree)), tree)

    def evaluate(self, env: Mapping[str, Value]) -> int | float | np.ndarray[Any, Any]:
        """The value, with `env` giving the variables' values (numbers, arrays, tuples; indices count from 1).

        Raises Unevaluable.
        """
        return _plain(_evaluate(self._tree, env))  # type: ignore[no-any-return]

    @property
    def branches(self) -> tuple[Expression, Expression, Expression] | None:
        """Condition, value if it holds and value if not, of `c ? a : b`; None of any other expression."""
        tree = self._tree
        while isinstance(tree, Tree) and tree.data == "parens":
            tree = tree.children[0]
        if not isinstance(tree, Tree) or tree.data != "ternary":
            return None
        condition, yes, no = map(Expression.from_tree, tree.children)
        return condition, yes, no

    def __str__(self) -> str:
        return self.text


# ---- Reading a tree ----------------------------------------------------------------------------------------


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, Tree):
        if node.data == "name":
            yield str(node.children[0])
        for child in node.children:
            yield from _names(child)


def _render(node: Node) -> str:
    if node is None:
        return ""
    if isinstance(node, Token):
        return str(node)
    parts = [_render(child) for child in node.children]
    match node.data:
        case "binary":
            return f"{parts[0]} {parts[1]} {parts[2]}"
        case "ternary":
            return f"{parts[0]} ? {parts[1]} : {parts[2]}"
        case "transpose":
            return f"{parts[0]}'"
        case "indexed":
            return f"{parts[0]}[{', '.join(parts[1:])}]"
        case "call":
            return f"{parts[0]}({', '.join(parts[1:]).replace(', |, ', ' | ')})"
        case "parens" | "tuple":
            return f"({', '.join(parts)})"
        case "array":
            return f"{{{', '.join(parts)}}}"
        case "row_vector":
            return f"[{', '.join(parts)}]"
        case _:  # name, number, unary, component, range, at: their tokens one after another
            return "".join(parts)


# ---- Evaluating --------------------------------------------------------------------------------------------


def _evaluate(node: Node, env: Mapping[str, Value]) -> Value:
    assert isinstance(node, Tree)
    children: Sequence[Node] = node.children
    match node.data:
        case "number":
            return _number(str(children[0]))
        case "name":
            if children[0] not in env:
                raise Unevaluable(f"`{children[0]}` is not known here")
            return _plain(env[str(children[0])])
        case "parens":
            return _evaluate(children[0], env)
        case "unary":
            return _unary(str(children[0]), _evaluate(children[1], env))
        case "binary":
            return _binary(children, env)
        case "ternary":
            return _evaluate(children[1 if _truth(_evaluate(children[0], env)) else 2], env)
        case "transpose":
            return np.transpose(_evaluate(children[0], env))
        case "component":
            return _component(_evaluate(children[0], env), int(str(children[1])[1:]))
        case "indexed":
            return _indexed(_evaluate(children[0], env), [_index(child, env) for child in children[1:]])
        case "call":
            return _call(children, env)
        case "tuple":
            return tuple(_evaluate(child, env) for child in children)
        case _:  # array, row_vector
            return np.array([_evaluate(child, env) for child in children])


def _plain(value: Value) -> Value:
    """Numbers as Python's own, everything else as an array; tuples and arrays of tuples stay as they are."""
    if type(value) in (int, float):
        return value
    if _holds_tuples(value):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise Unevaluable(f"arithmetic on {array.dtype} is not done here")
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    return array.item() if array.ndim == 0 else array


def _holds_tuples(value: Value) -> bool:
    return isinstance(value, tuple) or (isinstance(value, list) and bool(value) and _holds_tuples(value[0]))


def _number(text: str) -> int | float:
    if text.endswith("i"):
        raise Unevaluable("complex arithmetic is not done here")
    return float(text) if any(c in ".eE" for c in text) else int(text)


def _truth(value: Value) -> bool:
    if isinstance(value, int | float):
        return value != 0
    raise Unevaluable("a condition must be a number")


def _whole(value: Value) -> bool:
    return isinstance(value, int)


def _scalar(value: Value) -> bool:
    return isinstance(value, int | float)


def _unary(operator: str, value: Value) -> Value:
    if operator == "!":
        return int(not _truth(value))
    return -value if operator == "-" else value


def _binary(children: Sequence[Node], env: Mapping[str, Value]) -> Value:
    operator = str(children[1])
    left = _evaluate(children[0], env)
    if operator in ("&&", "||"):
        decided = operator == "||"
        return int(decided if _truth(left) == decided else _truth(_evaluate(children[2], env)))
    right = _evaluate(children[2], env)
    if operator in _COMPARISONS:
        if not (_scalar(left) and _scalar(right)):
            raise Unevaluable(f"`{operator}` compares two numbers")
        return int(_COMPARISONS[operator](left, right))
    if operator in ("/", "%", "%/%") and _whole(left) and _whole(right):
        return _whole_division(operator, left, right)
    if operator in ("%", "%/%"):
        raise Unevaluable(f"`{operator}` divides integers")
    return _arithmetic(operator, left, right)


def _whole_division(operator: str, left: int, right: int) -> int:
    if right == 0:
        raise Unevaluable("integer division by zero")
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)  # towards zero, as in C++
    return left - quotient * right if operator == "%" else quotient


def _arithmetic(operator: str, left: Value, right: Value) -> Value:
    if isinstance(left, tuple | list) or isinstance(right, tuple | list):
        raise Unevaluable(f"`{operator}` is not done on tuples")
    scalars = _scalar(left) + _scalar(right)
    if scalars == 0 and operator == "*":
        if left.ndim != 2 or left.shape[1] != right.shape[0]:  # a vector's orientation is not known here
            raise Unevaluable("this product is not done here")
        return left @ right
    if scalars == 0 and np.shape(left) != np.shape(right):
        raise Unevaluable(f"`{operator}` on shapes {np.shape(left)} and {np.shape(right)}")
    if (scalars < 2 and operator == "^") or (operator == "/" and not _scalar(right)) or operator == "\\":
        raise Unevaluable("matrix powers and linear systems are not done here")
    if operator in ("/", "./", "^", ".^"):  # real also where both sides are integers
        left, right = np.float64(left), np.float64(right)
    with np.errstate(all="ignore"):
        return _plain(_ARITHMETIC[operator.removeprefix(".")](left, right))


_COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, Callable[[Value, Value], Value]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": lambda a, b: a**b,
}


# ---- Indexing ----------------------------------------------------------------------------------------------


def _index(node: Node, env: Mapping[str, Value]) -> Value:
    """A number or an array of numbers for `at`; a pair (first, last), None where open, else."""
    assert isinstance(node, Tree)
    if node.data == "at":
        return _evaluate(node.children[0], env)
    if node.data == "everything":
        return (None, None)
    first, _, last = node.children
    return (
        None if first is None else _evaluate(first, env),
        None if last is None else _evaluate(last, env),
    )


def _indexed(value: Value, indices: Sequence[Value]) -> Value:
    """Stan's indexing: from 1, ranges closed, several multi-indices combine as a grid."""
    for index in reversed(range(len(indices))):  # from the right, so that axes on the left keep their number
        value = _take(value, indices[index], axis=index)
    return _plain(value)


def _take(value: Value, index: Value, axis: int) -> Value:
    if isinstance(value, list):  # an array of tuples
        if axis:
            return [_take(item, index, axis - 1) for item in value]
        length = len(value)
    elif np.ndim(value) <= axis:
        raise Unevaluable("more indices than dimensions")
    else:
        length = np.shape(value)[axis]
    if isinstance(index, tuple):
        first, last = 1 if index[0] is None else index[0], length if index[1] is None else index[1]
        index = np.arange(first, last + 1)
    where = np.asarray(index)
    if where.size and (where.dtype.kind != "i" or where.min() < 1 or where.max() > length):
        raise Unevaluable(f"index {index} is outside 1..{length}")
    where = where.astype(np.int64) - 1
    if isinstance(value, list):
        return value[int(where)] if where.ndim == 0 else [value[i] for i in where]
    return np.take(value, where, axis=axis)


def _component(value: Value, number: int) -> Value:
    if not isinstance(value, tuple) or not 1 <= number <= len(value):
        raise Unevaluable(f"there is no tuple component .{number}")
    return _plain(value[number - 1])


# ---- Functions ---------------------------------------------------------------------------------------------


def _call(children: Sequence[Node], env: Mapping[str, Value]) -> Value:
    name = str(children[0])
    if name not in _FUNCTIONS:
        raise Unevaluable(f"the function `{name}` is not evaluated here")
    arguments = [_evaluate(child, env) for child in children[1:] if isinstance(child, Tree)]
    try:
        with np.errstate(all="ignore"):
            return _plain(_FUNCTIONS[name](*arguments))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise Unevaluable(f"`{name}` on these arguments: {error}") from error


def _real(function: Callable[..., Any]) -> Callable[..., Value]:
    """An elementwise function that is real also on integers."""
    return lambda *arguments: function(*(np.asarray(argument, dtype=np.float64) for argument in arguments))


def _size(value: Value) -> int:
    if _scalar(value):
        return 1
    if np.ndim(value) > 1 and value.dtype.kind == "f":  # a matrix counts its entries, an array its rows
        raise ValueError("the size of a matrix and of an array of arrays differ")
    return len(value)


def _matrix_side(axis: int) -> Callable[[Value], int]:
    def side(value: Value) -> int:
        if np.ndim(value) != 2:
            raise ValueError("only a matrix's sides are known here")
        return int(np.shape(value)[axis])

    return side


def _extremum(pick: Callable[[Any], Any]) -> Callable[..., Value]:
    return lambda *arguments: pick(np.asarray(arguments[0] if len(arguments) == 1 else arguments))


def _rep(value: Value, *sizes: int) -> Value:
    array = np.asarray(value)
    return np.broadcast_to(array, (*sizes, *array.shape)).copy()


def _rep_matrix(value: Value, rows: int, cols: int) -> Value:
    if not _scalar(value):
        raise ValueError("only a number is repeated here")
    return np.full((rows, cols), float(value))


def _to_int(value: Value) -> int:
    if not math.isfinite(value):
        raise ValueError("not finite")
    return int(value)


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    # shapes
    "size": _size,
    "num_elements": lambda x: np.size(x),
    "dims": lambda x: np.array(np.shape(x), dtype=np.int64),
    "rows": _matrix_side(0),
    "cols": _matrix_side(1),
    # reductions
    "max": _extremum(np.max),
    "min": _extremum(np.min),
    "sum": lambda x: np.sum(x),
    "prod": lambda x: np.prod(x),
    "mean": _real(np.mean),
    # containers
    "rep_vector": lambda x, n: _rep(float(x), n),
    "rep_row_vector": lambda x, n: _rep(float(x), n),
    "rep_matrix": _rep_matrix,
    "rep_array": _rep,
    "zeros_vector": lambda n: np.zeros(n),
    "ones_vector": lambda n: np.ones(n),
    "zeros_row_vector": lambda n: np.zeros(n),
    "ones_row_vector": lambda n: np.ones(n),
    "to_vector": _real(lambda x: np.ravel(x, order="F")),
    # integers
    "abs": lambda x: np.abs(x),
    "choose": math.comb,
    "int_step": lambda x: int(x > 0),
    "to_int": _to_int,
    # constants
    "pi": lambda: math.pi,
    "e": lambda: math.e,
    "sqrt2": lambda: math.sqrt(2),
    "log2": lambda *x: _real(np.log2)(*x) if x else math.log(2),
    "log10": lambda *x: _real(np.log10)(*x) if x else math.log(10),
    "machine_precision": lambda: float(np.finfo(np.float64).eps),
    "positive_infinity": lambda: math.inf,
    "negative_infinity": lambda: -math.inf,
    "not_a_number": lambda: math.nan,
    # reals
    "pow": lambda x, y: _real(np.power)(x, y),
    "square": _real(np.square),
    "inv": _real(lambda x: 1 / x),
    "inv_sqrt": _real(lambda x: 1 / np.sqrt(x)),
    "inv_square": _real(lambda x: 1 / np.square(x)),
    "inv_logit": _real(lambda x: 1 / (1 + np.exp(-x))),
    "logit": _real(lambda x: np.log(x) - np.log1p(-x)),
    "round": _real(lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x)),
    "step": _real(lambda x: np.where(x < 0, 0.0, 1.0)),
    "fabs": _real(np.abs),
    "fmax": _real(np.fmax),
    "fmin": _real(np.fmin),
    "fdim": _real(lambda x, y: np.fmax(x - y, 0.0)),
    "fmod": _real(np.fmod),
    **{
        name: _real(getattr(np, name))
        for name in (
            "floor",
            "ceil",
            "trunc",
            "exp",
            "exp2",
            "expm1",
            "log",
            "log1p",
            "sqrt",
            "cbrt",
            "hypot",
        )
    },
}
