"""What a terminal shows of the work: a bar for each training, and one line for what has no bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import isfinite
from typing import TYPE_CHECKING

from avistan.runtime.progress import reporting

if TYPE_CHECKING:
    from rich.status import Status

    from avistan.runtime.progress import Progress

type MakeBar = Callable[[str], Progress | None]
_line: ContextVar[Status | None] = ContextVar("line", default=None)


def shown(asked: bool | None) -> bool:
    """Whether to show bars: if not said, where standard error is a terminal, so that they can move."""
    return sys.stderr.isatty() if asked is None else asked


@contextmanager
def quiet() -> Iterator[MakeBar]:
    """No bars."""
    yield lambda name: None


@contextmanager
def one_line() -> Iterator[None]:
    """The stage of the work in the block, on a line that moves and then is gone; bars take its place."""
    from rich.console import Console

    with Console(stderr=True).status("starting") as line:
        token = _line.set(line)
        try:
            with reporting(lambda record: line.update(str(record))):
                yield
        finally:
            _line.reset(token)


@contextmanager
def _without_line() -> Iterator[None]:
    line = _line.get()
    if line is not None:
        line.stop()
    try:
        yield
    finally:
        if line is not None:
            line.start()


@contextmanager
def bars() -> Iterator[MakeBar]:
    """A bar for each method: steps, the ELBO of the latest chunk, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[elbo]}"),
        TimeRemainingColumn(),
    )
    with _without_line(), RichProgress(*columns, console=Console(stderr=True)) as display:

        def make(name: str) -> Progress:
            task = display.add_task(name, total=None, elbo="")

            def update(done: int, total: int, elbo: float) -> None:
                shown = f"ELBO {elbo:.1f}" if isfinite(elbo) else ""
                display.update(task, completed=done, total=total, elbo=shown)

            return update

        yield make
