"""JSON files of Stan data as Python values; whatever is wrong with one is a `DataError` that names the file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from stan_adapters.errors import DataError
from stan_adapters.files.text_files import data_text, misnamed

_BEYOND_DOUBLES = re.compile(r"[eE]\+?(0*[3-9]\d\d|0*[1-9]\d{3})|\d{309}")  # perhaps: the parser then looks

# Words for numbers outside of strings; Python reads NaN, Infinity and -Infinity alone.
_SPECIAL = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<sign>[-+]?)\b(?P<word>inf|infinity|nan)\b', re.IGNORECASE)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file, packed or not.

    NaN, Inf and Infinity are floats as bare words; strings stay strings.

    Raises:
        DataError: a Stan program; no file, or none that can be read; no JSON, with line and column; no object, a name
            given twice, lists within lists without end, a number that no double holds.
    """
    text = data_text(file)
    parse_float = _finite if _BEYOND_DOUBLES.search(text) else None
    try:
        try:
            values = json.loads(text, object_pairs_hook=_object, parse_float=parse_float)
        except json.JSONDecodeError:
            if (named := _SPECIAL.sub(_as_python_writes, text)) == text:
                raise
            values = json.loads(named, object_pairs_hook=_object, parse_float=parse_float)
    except json.JSONDecodeError as error:
        if packed := misnamed(file):
            raise DataError(f"can't read the data file {file}: {packed}") from error
        where = f"{file}:{error.lineno}:{error.colno}"
        raise DataError(f"{where}: this is no JSON: {error.msg}. {_advice(text, error.pos)}") from error
    except RecursionError as error:
        raise DataError(
            f"{file} has lists within lists a thousand deep and more: data entries have a few dimensions."
        ) from error
    except _Refused as error:
        raise DataError(f"{file} {error}") from None
    except ValueError as error:  # Python's limit on the digits of an integer
        raise DataError(
            f"{file} has an integer of thousands of digits: Stan's int has 32 bits, and a real is written as 1e300."
        ) from error
    if not isinstance(values, dict):
        raise DataError(
            f"{file} holds a {type(values).__name__}, expected a JSON object: {{name: value, ...}}."
        )
    return values


class _Refused(Exception):
    """What is wrong with a file's content, as the end of a sentence."""


def _advice(text: str, position: int) -> str:
    """What to do about text that is no JSON."""
    rest = text[position : position + 2]
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments: leave this one out."
    if rest[:1] in ("}", "]", "'") or text[:position].rstrip()[-1:] == ",":
        return "JSON has no comma after the last item, and its strings stand in double quotes."
    return 'Data are one JSON object, such as {"N": 2, "y": [0.5, 1]}, or tables (*.parquet, *.zarr).'


def _as_python_writes(found: re.Match[str]) -> str:
    if found["word"] is None:
        return found[0]
    word = "NaN" if found["word"].lower() == "nan" else "Infinity"
    return f"-{word}" if found["sign"] == "-" and word == "Infinity" else word


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"gives `{twice}` more than once. Keep one.")
    return values


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Refused(f'has the number {digits}, and the largest is 1.8e308. Infinity is written as "Inf".')
    return number
