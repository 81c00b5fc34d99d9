"""Files of data that R wrote: `dump`, or `stan_rdump` of the package rstan.

| R | value |
| --- | --- |
| `N <- 5`, `"N" <- 5L`, `N = 5` | a number, which is also a vector of length 1: R does not tell them apart |
| `c(1, -2.5, 1e3)`, `1:3`, `c(a = 1)` | a vector |
| `structure(c(1, 2, 3, 4), .Dim = c(2L, 2L))`, `dim = ` | an array, the first index running fastest |
| `numeric(0)`, `integer(0)`, `double(3)` | a vector of zeros, here of none |
| `TRUE`, `FALSE`, `Inf`, `NaN` | 1, 0, infinity, not a number |
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from stan_adapters.errors import DataError
from stan_adapters.files.text_files import data_text

_SUFFIXES = (".r", ".rdump", ".dump")
_PACKED = (".gz", ".zip")
_TOKEN = re.compile(
    r"(?P<plain>c\([-+0-9.eEL,\s]+\))|(?P<space>[ \t\r\f]+|\#[^\n]*)|(?P<line>[\n;])|(?P<assign><<?-|=)"
    r"|(?P<number>(?:0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)L?)"
    r'|(?P<name>[A-Za-z.][\w.]*)|(?P<quoted>"(?:[^"\\]|\\.)*"|`[^`]*`|\'(?:[^\'\\]|\\.)*\')|(?P<sign>[-+:(),])'
)
_WORDS = {"TRUE": 1, "FALSE": 0, "T": 1, "F": 0, "Inf": math.inf, "NaN": math.nan}
_MISSING = ("NA", "NA_integer_", "NA_real_", "NA_character_")
_EMPTY = ("numeric", "integer", "double", "logical", "vector")
_IGNORED = (".Dimnames", "dimnames", ".Names", "names")
_OF_CLASSES = ("levels", ".Label", "class", "row.names", "tsp")
_FACTOR = "a factor of R; dump its numbers, as.integer({name})"
_OBJECT = "an object of R; dump the numbers in it one by one, such as as.numeric({name}$column)"
_AS_IT_IS = ("as.integer", "as.numeric", "as.double", "as.vector")
_OTHERS = ("list", "data.frame", "factor", "as.Date")
_LONGEST_RANGE = 10**8

type Number = int | float | str | None  # text and NA are refused where an entry of the program holds them


class RNumber(float):
    """A number of an R file, which may have been a vector of length 1."""


class RObject(str):
    """What an R file has in place of numbers, called by what it is, and how R makes numbers of it."""


def is_r_dump(path: Path) -> bool:
    """Whether a path names an R file, packed or not."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in _SUFFIXES


def read_r_dump(file: Path) -> dict[str, Any]:
    """The variables of an R file: numbers (`RNumber`) and arrays of int64 or float64.

    Those that hold text or missing values (None) are arrays of objects; lists, factors and data frames are words that
    say so. The checks of an entry that the program declares refuse these.

    Raises:
        DataError: no such file; R code that is not data, with its line; a name given twice; a number that no double
            holds.
    """
    reader = _Reader(file, data_text(file))
    return reader.variables()


class _Reader:
    """Reads one file; `at` is the number of the next token."""

    def __init__(self, file: Path, text: str) -> None:
        self.file, self.text, self.name = file, text, ""
        self.tokens = list(self._tokens())
        self.at = 0

    def _tokens(self) -> Iterator[tuple[str, str, int]]:
        at = 0
        while at < len(self.text):
            found = _TOKEN.match(self.text, at)
            if found is None:
                self._refuse(at)
            if found.lastgroup != "space":
                yield str(found.lastgroup), found[0], at
            at = found.end()
        yield "end", "", at

    def variables(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while self._skip_lines() != "end":
            kind, word, at = self._next()
            if kind not in ("name", "quoted"):
                self._refuse(at)
            self.name = word.strip("\"'`")
            if self.tokens[self.at][0] != "assign":
                self._refuse(self.tokens[self.at][2])
            self._next()
            self._skip_lines()
            if self.name in values:
                raise DataError(f"{self.file} gives `{self.name}` more than once. Keep one.")
            values[self.name] = self._value()
            if self.tokens[self.at][0] not in ("line", "end"):
                self._refuse(self.tokens[self.at][2])
        return values

    # -- values -------------------------------------------------------------------------------------------------

    def _value(self) -> Any:
        """A number as `RNumber`, or an array."""
        kind, word, at = self._peek()
        if kind == "plain":
            self.at += 1
            return self._plain(word[2:-1], at)
        if kind == "name" and self.tokens[self.at + 1][1] == "(":
            self.at += 2
            if word == "structure":
                return self._structure()
            if word == "c":
                return self._vector()
            if word in _EMPTY:
                return self._zeros(word)
            if word in _AS_IT_IS:
                value = self._value()
                self._expect(")")
                return value
            if word in _OTHERS:
                self._skip_argument(past=True)
                return RObject((_FACTOR if word == "factor" else _OBJECT).format(name=self.name))
            self._refuse(at)
        if word == "NULL":
            self.at += 1
            return np.zeros(0)
        if word == "(":
            self.at += 1
            value = self._value()
            self._expect(")")
            return value
        numbers = self._numbers()
        if not isinstance(numbers, list):
            return numbers
        return RNumber(numbers[0]) if isinstance(numbers[0], int | float) else numbers[0]

    def _numbers(self) -> list[Number] | np.ndarray[Any, np.dtype[Any]]:
        """One number in a list, or a range."""
        first = self._number()
        if self._peek()[1] != ":":
            return [first]
        _, _, at = self._next()
        last = self._number()
        if not isinstance(first, int | float) or not isinstance(last, int | float):
            self._refuse(at)
        if first != int(first) or last != int(last) or abs(last - first) > _LONGEST_RANGE:
            self._refuse(at)
        step = 1 if last >= first else -1
        return np.arange(int(first), int(last) + step, step)

    def _number(self) -> Number:
        kind, word, at = self._next()
        sign = 1
        while word in ("-", "+"):
            sign = -sign if word == "-" else sign
            kind, word, at = self._next()
        if kind == "number":
            return sign * self._parsed(word)
        if word in _WORDS:
            return sign * _WORDS[word]
        if word in _MISSING:
            return None
        if kind == "quoted":
            return word[1:-1]
        self._refuse(at)

    def _parsed(self, word: str) -> int | float:
        digits = word.rstrip("L")
        if digits[:2] in ("0x", "0X"):
            return int(digits, 16)
        if digits.isdigit():
            return int(digits)
        number = float(digits)
        if math.isinf(number):
            raise DataError(
                f"{self.file}: `{self.name}` has the number {word}, and the largest is 1.8e308. Infinity is written as "
                "Inf."
            )
        return int(number) if word.endswith("L") and number.is_integer() else number

    def _vector(self) -> np.ndarray[Any, np.dtype[Any]]:
        """What follows `c(`; names of its entries are skipped."""
        parts: list[Any] = []
        plain: list[Number] = []
        while self._skip_lines() and self._peek()[1] != ")":
            if self._peek()[0] in ("name", "quoted") and self.tokens[self.at + 1][1] == "=":
                self.at += 2
                self._skip_lines()
            kind = self._peek()[0]
            if kind == "plain" or (kind == "name" and self.tokens[self.at + 1][1] == "("):
                found: Any = np.atleast_1d(self._value()).ravel(order="F")
            else:
                found = self._numbers()
            if isinstance(found, list):
                plain += found
            else:
                parts += [plain, found]
                plain = []
            self._skip_lines()
            if self._peek()[1] == ",":
                self.at += 1
            elif self._peek()[1] != ")":
                self._refuse(self._peek()[2])
        self.at += 1
        arrays = [self._array(part) for part in [*parts, plain] if len(part)]
        return np.concatenate(arrays) if arrays else np.zeros(0)

    def _plain(self, text: str, at: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Numbers between commas, of which there may be very many."""
        words = text.replace("L", "").split(",")
        try:
            if not any(letter in text for letter in ".eE"):
                return self._array([int(word) for word in words])
            array = np.array(words, dtype=np.float64)
        except ValueError:
            self._refuse(at)
        if np.isinf(array).any():
            self._parsed(words[int(np.argmax(np.isinf(array)))].strip().lstrip("+-"))
        return array

    def _array(self, numbers: Any) -> np.ndarray[Any, np.dtype[Any]]:
        """Numbers as int64 or, where one is beyond that or no integer, float64; with text or NA, of objects."""
        if isinstance(numbers, np.ndarray):
            return numbers
        if any(number is None or isinstance(number, str) for number in numbers):
            return np.array(numbers, dtype=object)
        array = np.array(numbers)
        return array if array.dtype.kind in "if" else array.astype(np.float64)

    def _zeros(self, word: str) -> np.ndarray[Any, np.dtype[Any]]:
        length = 0
        if self._peek()[1] != ")":
            if self._peek()[0] == "quoted":  # vector("numeric", 0)
                self.at += 1
                self._expect(",")
            if self._peek()[0] == "name":  # length = 0
                self.at += 2
            given = self._number()
            length = int(given) if isinstance(given, int | float) else 0
        self._expect(")")
        return np.zeros(min(length, _LONGEST_RANGE), dtype=np.int64 if word == "integer" else np.float64)

    def _structure(self) -> Any:
        self._skip_lines()
        value = self._value()
        dims: tuple[int, ...] | None = None
        self._skip_lines()
        while self._peek()[1] == ",":
            self.at += 1
            self._skip_lines()
            _, word, at = self._next()
            self._expect("=")
            self._skip_lines()
            word = word.strip("\"'`")
            if word in (".Dim", "dim"):
                dims = tuple(int(size) for size in np.atleast_1d(np.asarray(self._value())))
            elif word in _IGNORED:
                self._skip_argument()
            elif word in _OF_CLASSES:
                if not (isinstance(value, RObject) and "factor" in value):
                    told = _FACTOR if word in ("levels", ".Label") else _OBJECT
                    value = RObject(told.format(name=self.name))
                self._skip_argument()
            else:
                self._refuse(at)
            self._skip_lines()
        self._expect(")")
        if isinstance(value, str):
            return value
        values = np.atleast_1d(np.asarray(value))
        if dims is None:
            return values
        if math.prod(dims) != values.size:
            sizes = " x ".join(map(str, dims))
            raise DataError(f"{self.file}: `{self.name}` has {values.size} numbers for an array of {sizes}.")
        return np.ascontiguousarray(values.reshape(dims, order="F"))

    def _skip_argument(self, past: bool = False) -> None:
        """Skip to the comma or the bracket that ends an argument; or past the bracket that ends them all."""
        depth = 0
        while self._peek()[0] != "end":
            word = self._peek()[1]
            if not depth and (word == ")" or (word == "," and not past)):
                self.at += past
                return
            depth += (word == "(") - (word == ")")
            self.at += 1

    # -- tokens and errors --------------------------------------------------------------------------------------

    def _peek(self) -> tuple[str, str, int]:
        return self.tokens[self.at]

    def _next(self) -> tuple[str, str, int]:
        token = self.tokens[self.at]
        if token[0] == "end":
            self._refuse(token[2])
        self.at += 1
        return token

    def _skip_lines(self) -> str:
        while self.tokens[self.at][0] == "line":
            self.at += 1
        return self.tokens[self.at][0]

    def _expect(self, word: str) -> None:
        self._skip_lines()
        _, found, at = self._next()
        if found != word:
            self._refuse(at)

    def _begins_another(self, at: int) -> bool:
        """Whether a variable is assigned there."""
        number = next((k for k, (_, _, start) in enumerate(self.tokens) if start == at), len(self.tokens) - 1)
        kinds = [kind for kind, *_ in self.tokens[number : number + 2]]
        return kinds[0] in ("name", "quoted") and kinds[1:] == ["assign"]

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def _refuse(self, at: int) -> NoReturn:
        if at >= len(self.text):
            raise DataError(
                f"{self.file} ends within the value of `{self.name}`: close its bracket, or copy the file again."
            )
        rest = self.text[at : at + 30].split("\n")[0].rstrip()
        if self.name and self._begins_another(at):
            raise DataError(
                f"{self.file}:{self._line(at)}: `{rest}` begins within the value of `{self.name}`, a bracket of which "
                "is open: close it with `)`."
            )
        within = f" in the value of `{self.name}`" if self.name else ""
        raise DataError(
            f"{self.file}:{self._line(at)}: `{rest}`{within} is no data. An R file of data has lines such as "
            "`N <- 5` and `y <- c(1, 2)`, as R's `dump` writes them."
        )
