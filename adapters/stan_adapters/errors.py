"""Every error a user of the Stan side can meet.

Each message says what was seen, what was expected and what to do; the class says whose turn it is.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass


class AvistanError(Exception):
    """Base of every error that avistan raises on purpose. The command line prints it and exits with status 2.

    Example:
        >>> try:
        ...     model.fit(method="avo")
        ... except avi.AvistanError as error:
        ...     print(error)  # doctest: +ELLIPSIS
        unknown method 'avo'...
    """


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a Stan source file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class ProgramError(AvistanError):
    """The Stan program can't be read. `location` is the place, where one is known."""

    def __init__(self, message: str, location: Location | None = None) -> None:
        super().__init__(message if location is None else f"{location}: {message}")
        self.location = location


class DataError(AvistanError):
    """The data do not fit the program's declarations."""


class EngineError(AvistanError):
    """An engine is missing, or it refused the program or the data."""


class UnsupportedError(EngineError):
    """The program is good Stan that this engine does not know; another engine may."""


class BindingError(AvistanError):
    """A bound model was used wrongly: after `close`, or with arrays of another shape."""


class StructureError(AvistanError):
    """A level was named that the program does not have, or the evidence does not allow what was asked."""


class CmdStanError(AvistanError):
    """CmdStan is not installed, or it refused the program, the data or the run; the message has its reason."""


class EngineNotice(UserWarning):
    """Something about an engine that a user should know once: nothing is wrong with the result."""


_told: set[str] = set()


def notify_once(message: str) -> None:
    """An `EngineNotice`, unless this process has had it."""
    if message not in _told:
        _told.add(message)
        warnings.warn(message, EngineNotice, stacklevel=3)
