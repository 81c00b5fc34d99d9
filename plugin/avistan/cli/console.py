"""Manners of the command line.

Answers stand alone on standard output; errors and warnings are one message each on standard error, and whatever the
user can put right ends with exit status 2.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import typer

from avistan.runtime.progress import heartbeat
from stan_adapters.errors import AvistanError, EngineNotice

BAD_INPUT, REFUSED, INTERRUPTED = 2, 3, 130


class Refusal(str):
    """An answer that says no: printed as any other, with exit status 3."""


def answers[**P](command: Callable[P, str]) -> Callable[P, None]:
    """A command that prints the text it returns, and nothing if it fails."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _warnings_as_lines(), _standard_output_kept_clean(), _waiting():
                text = command(*args, **kwargs)
        except AvistanError as error:
            _stop(str(error))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _stop(f"{where}{error.strerror or error}")
        except KeyboardInterrupt as interrupt:
            tell(f"\ninterrupted: {interrupt or 'nothing was written.'}")
            raise typer.Exit(INTERRUPTED) from None
        _print_answer(text)
        if isinstance(text, Refusal):
            raise typer.Exit(REFUSED)

    return run


def tell(text: str) -> None:
    """A line on standard error. Where that is full or closed, what is being done goes on."""
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """A standard stream that was closed is not the next file opened; help that can't be printed is one message."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            os.set_inheritable(number, True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  open as long as the process runs
    try:
        yield
    except OSError as error:
        _cannot_answer(error)
        raise SystemExit(BAD_INPUT) from None


def _print_answer(text: str) -> None:
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        typer.echo(text)
    except OSError as error:
        _cannot_answer(error)
        raise typer.Exit(BAD_INPUT) from None


def _cannot_answer(error: OSError) -> None:
    """Say so, and let what is left in the buffer go nowhere when the process ends."""
    with contextlib.suppress(OSError, AttributeError):  # a test's standard output has no number
        if sys.stdout.fileno() == 1:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    tell(
        f"error: standard output can't be written: {error.strerror or error}. What the command writes to files is "
        "there."
    )


def _stop(message: str) -> NoReturn:
    tell(f"error: {message}")
    raise typer.Exit(BAD_INPUT) from None


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    """What is being done, for whoever waits: a line that moves on a terminal, else one from time to time."""
    if sys.stderr.isatty():
        from avistan.runtime.progress_bars import one_line

        with one_line():
            yield
    else:
        with heartbeat(lambda line: typer.echo(line, err=True)):
            yield


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    def show(message: Warning | str, *rest: Any, **more: Any) -> None:
        kind = "note" if isinstance(message, EngineNotice) else "warning"
        tell(f"{kind}: {message}")

    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _standard_output_kept_clean() -> Iterator[None]:
    """What libraries print inside, a Stan program's `print` included, goes to standard error."""
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # standard output or standard error is closed
        kept = -1
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept >= 0:
            os.dup2(kept, 1)
            os.close(kept)
