"""What is being done now, for people who wait: records, which stages of the work report, and who listens to them.

A stage says that it begins (`begin_stage`), and one with steps how far it is (`report_step`). Whoever wants to know
opens `reporting` around the work; without a listener nothing happens. Listeners hold for the calls in their block, in
this thread alone, and may be nested: each gets every record, with the seconds since it began to listen.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from math import isfinite

from avistan.runtime.deadline import seconds_left

Progress = Callable[[int, int, float], None]  # steps done, steps in all, current ELBO in nats

HEARTBEAT = 20.0  # seconds between two lines where standard error is no terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressRecord:
    """What is being done, and how far it is.

    Attributes:
        stage: such as "training avi" or "diagnosis: other starts".
        step, steps: done, and in all where that is known; None in a stage without steps.
        elbo: of the last chunk of steps, nats; None where there is none.
        seconds: since the listener began to listen.
        seconds_left: of this stage, as its steps go, and no more than a limit of time leaves; None where that is not
            known.
        next: what comes after this stage; empty where that is not known.

    Example:
        >>> records = []
        >>> _ = model.fit(method="fvi", steps=20, progress_callback=records.append)
        >>> any(record.stage.startswith("training") for record in records)
        True
    """

    stage: str
    step: int | None = None
    steps: int | None = None
    elbo: float | None = None
    seconds: float = 0.0
    seconds_left: float | None = None
    next: str = ""

    def __str__(self) -> str:
        parts = [f"{self.seconds:.0f} s: {self.stage}"]
        if self.step is not None:
            parts.append(f"step {self.step}" + ("" if self.steps is None else f" of {self.steps}"))
        if self.elbo is not None:
            parts.append(f"ELBO {self.elbo:.1f}")
        if self.seconds_left is not None:
            parts.append(f"about {self.seconds_left:.0f} s left of this")
        if self.next:
            parts.append(f"next: {self.next}")
        return ", ".join(parts)


ProgressCallback = Callable[[ProgressRecord], None]


@dataclass(eq=False)
class _Listener:
    callback: ProgressCallback
    clock: Callable[[], float]
    began: float = 0.0
    stage_began: float = 0.0
    first_step: int = 0
    latest: ProgressRecord = field(default_factory=lambda: ProgressRecord(stage="starting"))

    def __post_init__(self) -> None:
        self.began = self.stage_began = self.clock()

    def now(self) -> ProgressRecord:
        """The latest record, as old as it is now."""
        return replace(self.latest, seconds=self.clock() - self.began)

    def enter(self, record: ProgressRecord) -> None:
        self.stage_began, self.first_step = self.clock(), -1
        self.see(record)

    def see(self, record: ProgressRecord) -> None:
        now, left = self.clock(), None
        if record.step is not None:
            if self.first_step < 0:  # what a checkpoint brought took no time here
                self.stage_began, self.first_step = now, record.step
            elif record.steps is not None and record.step > self.first_step:
                a_step = (now - self.stage_began) / (record.step - self.first_step)
                left = a_step * max(0, record.steps - record.step)
            limit = seconds_left()
            if isfinite(limit):
                left = max(0.0, limit if left is None else min(left, limit))
        self.latest = replace(record, seconds=now - self.began, seconds_left=left)
        self.callback(self.latest)


_listeners: ContextVar[tuple[_Listener, ...]] = ContextVar("listeners", default=())
_whole: ContextVar[str] = ContextVar("whole", default="")


@contextlib.contextmanager
def reporting(
    callback: ProgressCallback | None, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Call `callback` with a record whenever a stage of the work in the block begins or gets on; None calls nobody.

    What the callback raises ends the work.
    """
    if callback is None:
        yield
        return
    with _listening(_Listener(callback, clock)):
        yield


@contextlib.contextmanager
def _listening(listener: _Listener) -> Iterator[None]:
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextlib.contextmanager
def part_of(whole: str) -> Iterator[None]:
    """Stages that begin in the block are told as parts of something larger, such as "simulation 3 of 20"."""
    token = _whole.set(f"{_whole.get()}{whole}: ")
    try:
        yield
    finally:
        _whole.reset(token)


def begin_stage(name: str, *, next: str = "") -> None:
    """Say that a stage begins, and what comes after it."""
    for listener in _listeners.get():
        listener.enter(ProgressRecord(stage=f"{_whole.get()}{name}", next=next))


def report_step(done: int, steps: int | None = None, elbo: float | None = None) -> None:
    """Say how far the stage is: steps done, and in all if that is known; the ELBO in nats."""
    for listener in _listeners.get():
        known = elbo if elbo is not None and isfinite(elbo) else None
        listener.see(replace(listener.latest, step=done, steps=steps, elbo=known))


@contextlib.contextmanager
def heartbeat(
    write: Callable[[str], None],
    *,
    seconds: float | int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Write one line about the work in the block every so many seconds, from a thread of its own, whatever it does.

    Work that is done sooner writes nothing.
    """
    listener, ended = _Listener(lambda record: None, clock), threading.Event()
    between = HEARTBEAT if seconds is None else seconds

    def beat() -> None:
        while not ended.wait(between):
            with contextlib.suppress(OSError, ValueError):  # standard error may be closed
                write(str(listener.now()))

    thread = threading.Thread(target=beat, name="avistan-heartbeat", daemon=True)
    thread.start()
    try:
        with _listening(listener):
            yield
    finally:
        ended.set()
        thread.join()
