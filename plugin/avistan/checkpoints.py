"""Training that survives: saved at chunk ends, so that an interrupted fit continues to the same bytes.

A checkpoint is a folder with a subfolder for each training run, chain-0, chain-1 and so on, and in it the last two
saves, named by the steps done. A save is made beside its place and renamed when complete, so a process that is killed
leaves whole saves and, at most, a leftover that the next one clears away. A save holds arrays, as orbax writes them,
and a header with a digest of every file, with what is fitted (program, data, options, versions, machine) and with how
its training began; whatever differs from the fit that would continue is an error that names it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from .digests import folder_digests, record_digest
from .errors import AvistanError
from .locks import held, holder, take
from .places import StrPath, check_folder_place
from .provenance import Arrays, differences
from .records import RecordError, read_record

FORMAT = 3
SECONDS = 5.0  # training between two saves
_ENDED = 0.2  # of these seconds, after which a training that ended is saved
_SHARE = 0.05  # of the time, at most, goes to saving
_KEPT = 2  # saves of a chain: should the last one be damaged, the one before is there
_LOCK = "checkpoint.lock"
_CHAIN, _STEPS = re.compile(r"chain-\d+"), re.compile(r"\d+")
_HEADER, _ARRAYS = "header.json", "arrays"


class CheckpointError(AvistanError):
    """A checkpoint is damaged, in use, of another fit, or in the way."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written, or there was none to continue from."""


# --- the folder ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """A complete save: where it is, of which chain, after how many steps."""

    path: Path
    chain: int
    steps: int


def beside(output: StrPath) -> Path:
    """The checkpoint's folder of a fit that is written to `output`."""
    place = Path(output)
    return place.with_name(f"{place.name}.checkpoint")


def check_checkpoint_place(folder: StrPath, *, resume: bool) -> None:
    """That training can be saved in a folder.

    Raises:
        CheckpointError: it holds an interrupted fit and `resume` is false.
        FitError: it holds something else, or can't be written.
    """
    place = Path(folder)
    ours = [entry.name for entry in _entries(place) if entry.name == _LOCK or _CHAIN.fullmatch(entry.name)]
    check_folder_place(place, ours)
    saves = _saves(place)
    if saves and not resume:
        raise CheckpointError(
            f"{place} holds an interrupted fit ({_told(saves)}): continue it with resume=True (command line: "
            "--resume), or delete the folder to start over."
        )


def holds_training(folder: StrPath) -> bool:
    """Whether there is something to continue."""
    return bool(_saves(Path(folder)))


@contextlib.contextmanager
def interruptible(folder: StrPath) -> Iterator[None]:
    """Ctrl-C in the block tells, as the message of its `KeyboardInterrupt`, what the checkpoint kept."""
    try:
        yield
    except KeyboardInterrupt:
        saves = _saves(Path(folder))
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
    for save in _saves(place):
        _drop(save)
    for entry in _entries(place):
        if _CHAIN.fullmatch(entry.name):
            shutil.rmtree(entry)
    if (place / _LOCK).exists() and (left := take(place / _LOCK)) is not None:  # whoever held it is dead
        with left:
            (place / _LOCK).unlink()
    if place.is_dir() and not _entries(place):
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
        newest = _newest(_saves(self.folder))
        if resume and not newest:
            warnings.warn(
                f"there is nothing to resume in {self.folder}: the fit starts from the beginning.",
                CheckpointWarning,
                stacklevel=4,
            )
        for save in newest:
            differing = differences(_read_header(save)["fit"], self._fit)
            if differing:
                raise self._other(differing)
        for chain in _entries(self.folder):
            if _CHAIN.fullmatch(chain.name):
                for entry in chain.iterdir():
                    if not _STEPS.fullmatch(entry.name):  # of a process that was killed while it saved
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
        newest = [save for save in _newest(_saves(self.folder)) if save.chain == number]
        if not newest:
            return None
        header = _read_header(newest[0])
        differing = differences(header["training"], _plain(training))
        if differing:
            raise self._other(differing)
        return _read_arrays(newest[0], header)

    def _begin(self) -> None:
        self._last = time.monotonic()
        self._began = self._last if self._began is None else self._began

    def _due(self, finished: bool) -> bool:
        since = self._began if finished and self._began is not None else self._last
        wait = max(self._seconds, self._cost / _SHARE) if self._seconds else 0.0
        if (
            finished and self._cost == 0
        ):  # none yet: what follows, settling or a richer family, may take longer
            wait = self._seconds * _ENDED
        return not self._failed and time.monotonic() - since >= wait

    def _write(self, number: int, steps: int, training: Mapping[str, Any], arrays: Arrays) -> None:
        started = time.monotonic()
        try:
            chain = self.folder / f"chain-{number}"
            chain.mkdir(parents=True, exist_ok=True)
            with _interrupts_wait():
                about = {"fit": self._fit, "training": _plain(training)}
                _write_save(chain / f"{steps:09d}", about, arrays)
                for save in [save for save in _saves(self.folder) if save.chain == number][:-_KEPT]:
                    _drop(save)
        except CheckpointError:
            raise
        except Exception as error:  # a full disk, perhaps: training is worth more than its checkpoint
            self._failed = True
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


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _saves(folder: Path) -> list[_Place]:
    """All complete saves, by chain and steps."""
    found = [
        _Place(entry, int(chain.name.partition("-")[2]), int(entry.name))
        for chain in _entries(folder)
        if _CHAIN.fullmatch(chain.name) and chain.is_dir()
        for entry in chain.iterdir()
        if _STEPS.fullmatch(entry.name)
    ]
    return sorted(found, key=lambda save: (save.chain, save.steps))


def _drop(save: _Place) -> None:
    """Delete a save, which is none from the first moment on: a kill leaves no half of it."""
    dropped = save.path.with_name(f"{save.path.name}.dropped")
    save.path.rename(dropped)
    shutil.rmtree(dropped, ignore_errors=True)


def _newest(saves: list[_Place]) -> list[_Place]:
    """The last save of each chain."""
    return list({save.chain: save for save in saves}.values())


def _told(saves: list[_Place]) -> str:
    newest = _newest(saves)
    steps = f"{newest[-1].steps} steps"
    return steps if newest[-1].chain == 0 else f"{steps} of chain {newest[-1].chain}"


# --- one save -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Header:
    """What `header.json` says beside its digest; `arrays` have a type and a shape each."""

    format: int
    fit: Mapping[str, Any]
    training: Mapping[str, Any]
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]
    files: Mapping[str, str]


def _write_save(path: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a save beside its place and put it there when it is whole."""
    import orbax.checkpoint as orbax  # here, because most fits end before their first save

    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    filled = {name: values for name, values in arrays.items() if values.size}  # orbax takes no empty ones
    with orbax.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(partial / _ARRAYS, args=orbax.args.PyTreeSave(filled))
    header = {
        "format": FORMAT,
        **about,
        "arrays": {name: [values.dtype.str, list(values.shape)] for name, values in arrays.items()},
        "files": folder_digests(partial / _ARRAYS),
    }
    (partial / _HEADER).write_text(json.dumps({"digest": record_digest(header), **header}, indent=1))
    partial.rename(path)


def _read_header(save: _Place) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads((save.path / _HEADER).read_text())
        known = header.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise _damaged(save, f"{_HEADER}: {type(error).__name__}: {error}") from error
    if known != record_digest(header):
        raise _damaged(save, f"{_HEADER} changed since the save")
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{save.path} has format {header.get('format')}, this version of avistan reads {FORMAT}. {_ways_out(save)}"
        )
    try:
        read_record(_Header, header, _HEADER)
    except RecordError as error:
        raise _damaged(save, str(error)) from error
    return header


def _read_arrays(save: _Place, header: Mapping[str, Any]) -> Arrays:
    """The arrays of a save whose files are what was written: a reader of damaged files may fail in any way."""
    import orbax.checkpoint as orbax

    if any(path.is_symlink() for path in save.path.rglob("*")):
        raise _damaged(save, "it holds links to files elsewhere")
    differing = differences(header["files"], folder_digests(save.path / _ARRAYS))
    if differing:
        raise _damaged(
            save, f"{_ARRAYS}: {len(differing)} of {len(header['files'])} files changed since the save"
        )
    try:
        kinds = {name: (np.dtype(kind), tuple(shape)) for name, (kind, shape) in header["arrays"].items()}
        wanted = {
            name: orbax.RestoreArgs(restore_type=np.ndarray)
            for name, (_, shape) in kinds.items()
            if 0 not in shape
        }
        with orbax.PyTreeCheckpointer() as checkpointer:
            restored = checkpointer.restore(
                save.path / _ARRAYS, args=orbax.args.PyTreeRestore(restore_args=wanted)
            )
        return {
            name: np.asarray(restored[name], kind) if name in wanted else np.empty(shape, kind)
            for name, (kind, shape) in kinds.items()
        }
    except Exception as error:
        raise _damaged(save, f"{_ARRAYS}: {type(error).__name__}: {error}") from error


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it reads back from JSON; numpy's numbers are numbers."""
    plain: dict[str, Any] = json.loads(json.dumps(record, default=lambda value: value.item()))
    return plain


def _damaged(save: _Place, reason: str) -> CheckpointError:
    return CheckpointError(f"{save.path} is damaged: {reason}. {_ways_out(save)}")


def _ways_out(save: _Place) -> str:
    folder = save.path.parents[1]
    of_chain = [other.steps for other in _saves(folder) if other.chain == save.chain]
    if of_chain[0] < save.steps:
        return f"Delete it to continue from the save at {of_chain[-2]} steps, or {folder} to start over."
    return f"Delete {folder} to start over."


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
