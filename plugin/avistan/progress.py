"""Progress bars on standard error, one for each method."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite

from .training import Progress

MakeBar = Callable[[str], Progress | None]


def shown(asked: bool | None) -> bool:
    """Whether to show bars: if not said, where standard error is a terminal, so that they can move."""
    return sys.stderr.isatty() if asked is None else asked


@contextmanager
def quiet() -> Iterator[MakeBar]:
    """No bars."""
    yield lambda name: None


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
    with RichProgress(*columns, console=Console(stderr=True)) as display:

        def make(name: str) -> Progress:
            task = display.add_task(name, total=None, elbo="")

            def update(done: int, total: int, elbo: float) -> None:
                shown = f"ELBO {elbo:.1f}" if isfinite(elbo) else ""
                display.update(task, completed=done, total=total, elbo=shown)

            return update

        yield make
