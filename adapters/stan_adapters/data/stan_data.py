"""Stan data: read from a mapping, a JSON file or an R dump, checked against declarations, written as Stan JSON."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson

from stan_adapters.data.bounds import check_bounds
from stan_adapters.data.checks import Array, Entry, Misfit, declared_dims, fit_value
from stan_adapters.data.given import as_declared
from stan_adapters.errors import DataError
from stan_adapters.files.json_files import read_json
from stan_adapters.files.names import nearest
from stan_adapters.files.r_dump import is_r_dump, read_r_dump
from stan_adapters.language.old_syntax import RESERVED_SINCE
from stan_adapters.language.program import Declaration, Program, StrPath

type RawData = Mapping[str, Any] | StrPath | None

_DICT = "the dict passed as data="
_NONE = "the data, of which none were given (data=, or a file after the program)"


class DataWarning(UserWarning):
    """Data that are legal and perhaps not what was meant."""


@dataclass(frozen=True, eq=False)
class StanData(Mapping[str, Entry]):
    """Checked values of a program's data block, in the order of their declarations.

    Arrays are read-only, int64, float64 or complex128, array dimensions first, then the vector's or matrix's
    own. Stan tuples are Python tuples, arrays of them lists. `source` says where the values came from.

    `labels` names what an index numbers, where a table gave words: entry n of `labels["g"]` is what `g` calls n + 1.
    They live in memory only: a saved fit has the numbers.
    """

    program: Program = field(repr=False)
    entries: Mapping[str, Entry] = field(repr=False)
    source: str
    labels: Mapping[str, Array] = field(default_factory=dict, repr=False)

    @property
    def undefined(self) -> dict[str, int]:
        """How many NaN an entry holds, of those that hold any; Stan allows them in reals without bounds."""
        reals = {
            name: e for name, e in self.entries.items() if isinstance(e, np.ndarray) and e.dtype.kind == "f"
        }
        counts = {name: int(np.isnan(array).sum()) for name, array in reals.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def infinite(self) -> list[str]:
        """Entries that hold infinity, which Stan allows."""
        arrays = {name: entry for name, entry in self.entries.items() if isinstance(entry, np.ndarray)}
        return [name for name, array in arrays.items() if np.isinf(array).any()]

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StanData) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        """Stan JSON as every engine reads it: NaN and infinities are the strings "NaN", "Inf" and "-Inf"."""
        values = {name: _json_value(value) for name, value in self.entries.items()}
        return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).decode()

    def replace(self, **values: object) -> StanData:
        """The same data with some values exchanged, all checked again. Raises DataError."""
        return _check(self.program, {**self.entries, **values}, self.source)


def read_data(program: Program, data: RawData, source: str | None = None) -> StanData:
    """Check `data` (a mapping, the path of a JSON file or an R dump, packed or not, or None) against the data block.

    Integral floats and booleans are accepted for int, a list of one number for a number, and an entry of size zero may
    be left out. `source` says in errors where a mapping came from. Raises DataError at the first problem; warns
    (DataWarning) about entries that the program does not declare, about lists of one number and about `true` in a JSON
    file. `sources.read` also takes several files and tables.
    """
    if source is None:
        if isinstance(data, StanData):
            source = data.source
        else:
            source = _NONE if data is None else _DICT if isinstance(data, Mapping) else str(data)
    return _check(program, read_values(data), source)


def read_values(data: RawData) -> dict[str, Any]:
    """The raw values of a mapping or file, not compared with any program. Raises DataError."""
    if data is None:
        return {}
    if isinstance(data, Mapping):
        for name in data:
            if not isinstance(name, str):
                raise DataError(
                    f"data has the key {name!r}, a {type(name).__name__}: keys are the names of data entries."
                )
        return dict(data)
    if isinstance(data, str) and data.lstrip().startswith("{"):
        raise DataError("data is a path or a dict, and this is JSON text. Pass json.loads(...) of it.")
    if not isinstance(data, str | os.PathLike):
        hint = " Make a dict of it, an entry for each name." if hasattr(data, "columns") else ""
        raise DataError(f"data is a {type(data).__name__}, expected a dict or the path of a JSON file.{hint}")
    file = Path(data)
    if is_r_dump(file):
        return read_r_dump(file)
    values = read_json(file)
    if logical := [name for name, value in values.items() if _has_logical(value)]:
        names = ", ".join(f"`{name}`" for name in logical)
        warnings.warn(
            f"true and false are read as 1 and 0: {names}. Write numbers for CmdStan, which refuses the words. "
            f"Data: {file}.",
            DataWarning,
            stacklevel=3,
        )
    return values


def _has_logical(value: object) -> bool:
    """Whether a value of a JSON file has `true` or `false` in it."""
    if isinstance(value, dict):
        return any(map(_has_logical, value.values()))
    if not isinstance(value, list):
        return isinstance(value, bool)
    kinds = set(map(type, value))
    return bool in kinds or (bool(kinds & {list, dict}) and any(map(_has_logical, value)))


def _json_value(value: Entry) -> Any:
    if isinstance(value, tuple):
        return {str(position): _json_value(item) for position, item in enumerate(value, start=1)}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if value.dtype.kind == "c":
        value = np.stack([value.real, value.imag], axis=-1)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        named = value.astype(object)
        for word, where in (
            ("NaN", np.isnan(value)),
            ("Inf", np.isposinf(value)),
            ("-Inf", np.isneginf(value)),
        ):
            named[where] = word
        return named.tolist()
    return np.ascontiguousarray(value) if value.ndim else value.item()


# ---- Names and values --------------------------------------------------------------------------------------


def _check(program: Program, values: Mapping[str, Any], source: str) -> StanData:
    values = _with_names_of_today(program, values)
    entries: dict[str, Entry] = {}
    boxed: list[str] = []
    for declaration in program.data:
        if declaration.name in values:
            raw = values[declaration.name]
        elif _may_be_left_out(declaration, entries):
            raw = []
        else:
            _refuse_missing(program, values, entries, source)
        raw, was_boxed = as_declared(raw, declaration.type, entries)
        boxed += [declaration.name] * was_boxed
        try:
            entries[declaration.name] = fit_value(raw, declaration.type, entries)
        except Misfit as misfit:
            where = f"{_declared(declaration, entries)}. Data: {source}."
            raise DataError(f"data entry `{declaration.name}` {misfit}. {where}") from None
    check_bounds(program, entries, source)
    _warn_about_extras(program, values, source)
    if boxed:
        names = ", ".join(f"`{name}`" for name in boxed)
        warnings.warn(
            f"lists of one number stand for single numbers: {names}. They are read so (jsonlite of R writes numbers "
            f"with auto_unbox = TRUE). Data: {source}.",
            DataWarning,
            stacklevel=4,
        )
    return StanData(program, entries, source)


def _with_names_of_today(program: Program, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values of entries that old programs call by what are words of the language now, as `offset`: `offset_`."""
    declared = {declaration.name for declaration in program.data}
    names = {
        word: f"{word}_" for word in RESERVED_SINCE if f"{word}_" in declared and f"{word}_" not in values
    }
    return {names.get(name, name): value for name, value in values.items()}


def _may_be_left_out(declaration: Declaration, entries: Mapping[str, Entry]) -> bool:
    try:
        return 0 in declared_dims(declaration.type, entries)
    except Misfit:
        return False


def _refuse_missing(
    program: Program, values: Mapping[str, Any], entries: Mapping[str, Entry], source: str
) -> NoReturn:
    missing = [d for d in program.data if d.name not in values and not _may_be_left_out(d, entries)]
    spare = [name for name in values if all(name != d.name for d in program.data)]
    lines = []
    for declaration in missing:
        near = nearest(declaration.name, spare)
        lines.append(
            f"`{declaration.name}`, declared `{declaration}` at {declaration.location}"
            + (f" (did you mean `{near}`?)" if near else "")
        )
    noun = "entry" if len(missing) == 1 else "entries"
    given = ", ".join(values) or "none"
    them = "it" if len(missing) == 1 else "them"
    raise DataError(f"data has no {noun} {'; '.join(lines)}. Entries given: {given}. Add {them} to {source}.")


def _declared(declaration: Declaration, entries: Mapping[str, Entry]) -> str:
    """`matrix[N, K] y` with N = 2, K = 3, and where that stands."""
    known = [
        f"{name} = {value.item()}"
        for name in sorted(declaration.type.names)
        if isinstance(value := entries.get(name), np.ndarray) and value.ndim == 0
    ]
    numbers = f" with {', '.join(known)}" if known else ""
    return f"Declared `{declaration}`{numbers} at {declaration.location}"


def _warn_about_extras(program: Program, values: Mapping[str, Any], source: str) -> None:
    declared = [declaration.name for declaration in program.data]
    extras = []
    for name in values:
        if name not in declared:
            near = nearest(name, (d for d in declared if d not in values))
            extras.append(f"`{name}`" + (f" (did you mean `{near}`?)" if near else ""))
    if extras:
        message = (
            f"data entries that program `{program.name}` does not declare are not used: {', '.join(extras)}."
        )
        warnings.warn(f"{message} Data: {source}.", DataWarning, stacklevel=4)
