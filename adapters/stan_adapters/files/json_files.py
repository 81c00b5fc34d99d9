"""JSON files of Stan data as Python values; whatever is wrong with one is a `DataError` that names the file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from stan_adapters.errors import DataError
from stan_adapters.files.names import nearest
from stan_adapters.files.text_files import UnreadableFile, read_text

_BEYOND_DOUBLES = re.compile(r"[eE]\+?(0*[3-9]\d\d|0*[1-9]\d{3})|\d{309}")  # perhaps: the parser then looks


def read_json(file: Path) -> dict[str, Any]:
    """The object in a (gzipped) JSON file. NaN and infinities are floats, as words or as strings that stay strings.

    Raises:
        DataError: a Stan program; no file, or none that can be read; no JSON, with line and column; no object, a name
            given twice, lists within lists without end, a number that no double holds.
    """
    if file.suffix == ".stan":
        raise DataError(
            f"{file} is a Stan program, and data were expected: give one program, and then its data."
        )
    try:
        text = read_text(file)
    except FileNotFoundError:
        names = [path.name for path in file.parent.iterdir()] if file.parent.is_dir() else []
        near = nearest(file.name, names)
        raise DataError(
            f"there is no data file {file}." + (f" Did you mean {file.parent / near}?" if near else "")
        ) from None
    except UnreadableFile as error:
        raise DataError(f"can't read the data file {file}: {error}") from error
    parse_float = _finite if _BEYOND_DOUBLES.search(text) else None
    try:
        values = json.loads(text, object_pairs_hook=_object, parse_float=parse_float)
    except json.JSONDecodeError as error:
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
