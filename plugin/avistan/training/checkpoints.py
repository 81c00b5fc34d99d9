"""Training that survives: saved at chunk ends, so that an interrupted fit continues to the same bytes.

A checkpoint is a folder with a subfolder for each training run, chain-0, chain-1 and so on, and in it the last two
saves, named by the steps done. A save is made next to its place and renamed when complete, so a process that is killed
leaves whole saves and, at most, a leftover that the next one clears away. A save holds arrays, as orbax writes them,
and a header with a digest of every file, with what is fitted (program, data, options, versions, machine) and with how
its training began; whatever differs from the fit that would continue is an error that names it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from avistan.files.locks import held, holder, take
from avistan.files.outputs import check_folder_place
from avistan.runtime.limits import check_path
from avistan.runtime.types import StrPath
from avistan.training.checkpoint_saves import (
    CHAIN,
    STEPS,
    CheckpointError,
    Save,
    drop,
    entries,
    newest_of,
    read_arrays,
    read_header,
    saves_in,
    write_save,
)
from avistan.training.fingerprint import Arrays, differences

SECONDS = 5.0  # training between two saves
_ENDED = 0.2  # of these seconds, after which a training that ended is saved
_SHARE = 0.05  # of the time, at most, goes to saving
_KEPT = 2  # saves of a chain: should the last one be damaged, the one before is there
_LOCK = "checkpoint.lock"


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written, or there was none to continue from."""


# --- the folder ---------------------------------------------------------------------------------------------


def beside(output: StrPath) -> Path:
    """The checkpoint's folder of a fit that is written to `output`."""
    place = Path(output)
    place = place.resolve() if place.name in ("", "..") else place
    return place.with_name(f"{place.name}.checkpoint")


def check_checkpoint_place(folder: StrPath, *, resume: bool) -> None:
    """That training can be saved in a folder.

    Raises:
        CheckpointError: it holds an interrupted fit and `resume` is false.
        FitError: it holds something else, or can't be written.
    """
    check_path("checkpoint", folder)
    place = Path(folder)
    ours = [entry.name for entry in entries(place) if entry.name == _LOCK or CHAIN.fullmatch(entry.name)]
    check_folder_place(place, ours)
    saves = saves_in(place)
    if saves and not resume:
        raise CheckpointError(
            f"{place} holds an interrupted fit ({_told(saves)}): continue it with resume=True (command line: "
            "--resume), or delete the folder to start over."
        )


def holds_training(folder: StrPath) -> bool:
    """Whether there is something to continue."""
    return bool(saves_in(Path(folder)))


@contextlib.contextmanager
def interruptible(folder: StrPath) -> Iterator[None]:
    """Ctrl-C in the block tells, as the message of its `KeyboardInterrupt`, what the checkpoint kept."""
    try:
        yield
    except KeyboardInterrupt:
        saves = saves_in(Path(folder))
        if not saves:
            raise
        raise KeyboardInterrupt(
            f"{_told(saves)} are kept in {folder}: run the same command with --resume to continue."
        ) from None


@contextlib.contextmanager
def in_use(folder: StrPath, *, share: bool = False) -> Iterator[None]:
    """Keep a checkpoint's folder for this process during the block. Afterwards it is there if it holds something.

    Args:
        share: with the `Checkpoint` that is opened on it in the block.

    Raises:
        CheckpointError: another process is using it, and which.
    """
    place = Path(folder).resolve()
    new = [above for above in (place, *place.parents) if not above.exists()]
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, new or [place])
        mine = None
        while mine is None:
            place.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another process was done with it just now
                mine = stack.enter_context(held(place / _LOCK, share=share))
        if not mine:
            raise CheckpointError(
                f"{place} is in use by a fit that is still running: {holder(place / _LOCK)}. Wait for it, or give "
                "another folder."
            )
        yield


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def remove(folder: StrPath) -> None:
    """Delete a checkpoint; what else lies in its folder stays."""
    place = Path(folder)
    for save in saves_in(place):
        drop(save)
    for entry in entries(place):
        if CHAIN.fullmatch(entry.name):
            shutil.rmtree(entry)
    if (place / _LOCK).exists() and (left := take(place / _LOCK)) is not None:  # whoever held it is dead
        with left:
            (place / _LOCK).unlink()
    if place.is_dir() and not entries(place):
        place.rmdir()


class Checkpoint:
    """The saved training of one fit. A context: it holds the folder until its end; one without a save is gone then.

    Args:
        fit: what is fitted, as `describe_fit` says.
        resume: continue what the folder holds, from the start if it holds nothing.
        seconds: of training between two saves; 0 saves after every chunk.

    Raises:
        CheckpointError: the folder holds an interrupted fit and `resume` is false, or that of another fit, or a
            damaged one, or another process is using it.
        FitError: the folder holds something else or can't be written.
    """

    def __init__(
        self,
        folder: StrPath,
        fit: Mapping[str, Any],
        *,
        resume: bool = False,
        seconds: float | int | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        self._fit = _plain(fit)
        self._seconds = SECONDS if seconds is None else seconds
        self._held = contextlib.ExitStack()
        self._began: float | None = None  # of the first training run
        self._last, self._cost, self._failed = 0.0, 0.0, False
        check_checkpoint_place(folder, resume=resume)
        self._held.enter_context(in_use(self.folder))
        try:
            self._open(resume)
        except BaseException:
            self.close()
            raise

    def _open(self, resume: bool) -> None:
        newest = newest_of(saves_in(self.folder))
        if resume and not newest:
            warnings.warn(
                f"there is nothing to resume in {self.folder}: the fit starts from the beginning.",
                CheckpointWarning,
                stacklevel=4,
            )
        for save in newest:
            differing = differences(read_header(save)["fit"], self._fit)
            if differing:
                raise self._other(differing)
        for chain in entries(self.folder):
            if CHAIN.fullmatch(chain.name):
                for entry in chain.iterdir():
                    if not STEPS.fullmatch(entry.name):  # of a process that was killed while it saved
                        shutil.rmtree(entry, ignore_errors=True)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others use the folder; what is saved stays."""
        self._held.close()

    def chain(self, number: int = 0) -> ChainCheckpoint:
        """The checkpoint of one training run of this fit."""
        return ChainCheckpoint(self, number)

    def _other(self, differing: list[str]) -> CheckpointError:
        lines = "\n".join(differing)
        return CheckpointError(
            f"{self.folder} was saved by another fit and can't be continued by this one:\n{lines}\n"
            "Fit as it was started, or delete the folder to start over."
        )

    def _read(self, number: int, training: Mapping[str, Any]) -> Arrays | None:
        newest = [save for save in newest_of(saves_in(self.folder)) if save.chain == number]
        if not newest:
            return None
        header = read_header(newest[0])
        differing = differences(header["training"], _plain(training))
        if differing:
            raise self._other(differing)
        return read_arrays(newest[0], header)

    def _begin(self) -> None:
        self._last = time.monotonic()
        self._began = self._last if self._began is None else self._began

    def _due(self, finished: bool) -> bool:
        since = self._began if finished and self._began is not None else self._last
        wait = max(self._seconds, self._cost / _SHARE) if self._seconds else 0.0
        if (
            finished and self._cost == 0
        ):  # none yet: what follows, moves of the globals or a richer family, may take longer
            wait = self._seconds * _ENDED
        return not self._failed and time.monotonic() - since >= wait

    def _write(self, number: int, steps: int, training: Mapping[str, Any], arrays: Arrays) -> None:
        started, chain = time.monotonic(), self.folder / f"chain-{number}"
        try:
            chain.mkdir(parents=True, exist_ok=True)
            with _interrupts_wait():
                about = {"fit": self._fit, "training": _plain(training)}
                write_save(chain / f"{steps:09d}", about, arrays)
                for save in [save for save in saves_in(self.folder) if save.chain == number][:-_KEPT]:
                    drop(save)
        except CheckpointError:
            raise
        except Exception as error:  # a full disk, perhaps: training is worth more than its checkpoint
            self._failed = True
            with contextlib.suppress(OSError):  # earlier saves stay
                chain.rmdir()
            warnings.warn(
                f"the checkpoint {self.folder} can't be written, training goes on without: "
                f"{type(error).__name__}: {error}",
                CheckpointWarning,
                stacklevel=4,
            )
        self._last = time.monotonic()
        self._cost = self._last - started


class ChainCheckpoint:
    """The checkpoint of one training run. `load` comes first, then `save` at the end of each chunk."""

    def __init__(self, checkpoint: Checkpoint, number: int) -> None:
        self._checkpoint, self._number = checkpoint, number
        self._training: Mapping[str, Any] = {}

    @property
    def folder(self) -> Path:
        """The checkpoint's folder."""
        return self._checkpoint.folder

    def load(self, training: Mapping[str, Any]) -> Arrays | None:
        """The arrays of the last save; None where there is none.

        Args:
            training: how this run trains and begins, kept with every save.

        Raises:
            CheckpointError: the save is of another training, or damaged.
        """
        self._training = training
        self._checkpoint._begin()
        return self._checkpoint._read(self._number, training)

    def due(self, *, finished: bool = False) -> bool:
        """Whether to save now: often enough to lose little, seldom enough to cost little."""
        return self._checkpoint._due(finished)

    def save(self, steps: int, arrays: Arrays) -> None:
        """Save the arrays of a run after some steps; a failure is a warning."""
        self._checkpoint._write(self._number, steps, self._training, arrays)


@contextlib.contextmanager
def going_on(checkpoint: ChainCheckpoint | None) -> Iterator[None]:
    """Within the block a training takes up what was loaded. Arrays that it can't are a `CheckpointError`."""
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        if checkpoint is None:
            raise
        raise CheckpointError(
            f"{checkpoint.folder} holds arrays that this training can't go on from: {type(error).__name__}: {error}. "
            "Delete the folder to start over."
        ) from error


def _told(saves: list[Save]) -> str:
    newest = newest_of(saves)
    steps = f"{newest[-1].steps} steps"
    return steps if newest[-1].chain == 0 else f"{steps} of chain {newest[-1].chain}"


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it reads back from JSON; numpy's numbers are numbers."""
    plain: dict[str, Any] = json.loads(json.dumps(record, default=lambda value: value.item()))
    return plain


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: a save has threads of its own, which it would leave behind."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[0])
