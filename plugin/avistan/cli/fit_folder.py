"""The folder of a fit on the command line, filled in steps: the trained fit, then its diagnosis, then its draws.

Each step is there whole or not at all, so what a crash or a kill costs is the step that was under way. A diagnosis or
draws never lie beside another fit than their own: a new fit takes the place of the whole folder.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from avistan.diagnosis.improvement import Round
from avistan.diagnosis.verdict import Diagnosis, Trust
from avistan.files.outputs import check_room, clear_leftovers, remove_folder, whole_file
from avistan.fit import Fit, load
from avistan.fitting.fitted import Fitted
from avistan.fitting.options import make_options
from avistan.fitting.outcome import FitOutcome
from avistan.model import Model
from avistan.posterior.fit_datatree import is_large, num_bytes
from avistan.report.write import POSTERIOR, POSTERIOR_STORE, write_netcdf
from avistan.runtime.errors import AvistanError, FitError
from avistan.runtime.text import to_json
from avistan.saved.arrays import ArrayError, read_arrays, write_arrays
from avistan.saved.folder import (
    DIAGNOSIS,
    FIT_FILES,
    UNITS,
    forget_file,
    is_as_recorded,
    read_asked,
    record_file,
)
from avistan.training.checkpoints import beside, in_use
from avistan.training.fingerprint import data_digests, differences

_DRAWS = (POSTERIOR, POSTERIOR_STORE)
_LEAST_SHARE = 0.5  # of the bytes of draws that a compressed store may come down to


# ---- The fit -----------------------------------------------------------------------------------------------


def what_is_asked(model: Model, options: Mapping[str, Any], **asked: Any) -> dict[str, Any]:
    """What a fit is asked for: strings and numbers by name, digests in place of data. As it reads back from JSON."""
    chosen = {name: value for name, value in asked.items() if value is not None}
    everything = chosen | {
        "program": model.program.digest,
        "data": data_digests(model.data),
        "options": asdict(make_options(options)),
    }
    plain: dict[str, Any] = json.loads(to_json(everything))
    return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is kept with a fit so that a later command can go on from it.

    Attributes:
        asked: as `what_is_asked` says.
        verdict, verdict_reason: of the program's structure.
        rounds: trainings from better optima that were made so far.
    """

    asked: Mapping[str, Any]
    verdict: str
    verdict_reason: str
    rounds: tuple[Round, ...] = ()

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("asked", "verdict", "verdict_reason")}
        return plain | {"rounds": [made.to_json() for made in self.rounds]}

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> About:
        """The inverse of `to_json`. Raises KeyError, TypeError or AttributeError where something else was written."""
        plain = {name: read[name] for name in ("asked", "verdict", "verdict_reason")}
        return cls(**plain, rounds=tuple(Round.from_json(made) for made in read["rounds"]))


def put_fit(fit: Fitted, folder: Path, about: About) -> None:
    """Put a trained fit in place, alone: whatever lay there before is gone."""
    Fit.of(fit).save(folder, asked=about.to_json())


def trained_fit(folder: Path, asked: Mapping[str, Any], engine: str) -> tuple[Fit, About] | None:
    """The fit in a folder, if it is the one that is asked for; None if there is none, or training ran out of time.

    Raises:
        FitError: it is another one, with the differences, or was not put there by `avistan fit`.
    """
    if not (folder / "fit.json").is_file():
        return None
    way_out = (
        "Fit as it was started, fit without --resume to replace it, or use `avistan diagnose` and `avistan posterior`, "
        "which take the fit as it is."
    )
    try:
        about = About.from_json(read_asked(folder))
        differing = "\n".join(differences(about.asked, asked, where="that fit"))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise FitError(
            f"{folder} holds a fit that was not put there by `avistan fit` and does not say how it was asked for, so "
            f"--resume can't tell whether it is this one. {way_out}"
        ) from error
    if differing:
        raise FitError(f"{folder} holds the fit of another call, and it is trained:\n{differing}\n{way_out}")
    fit = load(folder, engine=None if engine == "auto" else engine)
    return None if fit.outcome is FitOutcome.out_of_time else (fit, about)


# ---- Its diagnosis -----------------------------------------------------------------------------------------


def put_diagnosis(diagnosis: Diagnosis, folder: Path) -> None:
    """Put the diagnosis beside its fit; it counts from the moment when `diagnosis.json` is there."""
    (folder / DIAGNOSIS).unlink(missing_ok=True)
    with _put(folder, UNITS) as file:
        write_arrays(file, diagnosis.units)
    with _put(folder, DIAGNOSIS) as file:
        file.write_text(to_json(diagnosis.to_json()) + "\n")


@contextlib.contextmanager
def _put(folder: Path, name: str) -> Iterator[Path]:
    """A file to write, which appears beside a fit when it is whole, and which the fit then knows."""
    forget_file(folder, name)
    with whole_file(folder / name) as file:
        yield file
    record_file(folder, name)


def read_diagnosis(folder: Path) -> Diagnosis | None:
    """The diagnosis beside a fit; None where there is none, where it was changed or ran out of time."""
    if not all(is_as_recorded(folder, name) for name in (UNITS, DIAGNOSIS)):
        return None
    try:
        units = read_arrays(folder / UNITS)
        found = Diagnosis.from_json(json.loads((folder / DIAGNOSIS).read_text()), units)
    except (OSError, ArrayError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None if Trust.out_of_time in _failed(found) else found


def _failed(diagnosis: Diagnosis) -> set[Trust]:
    return {check.trouble for check in diagnosis.checks if check.passed is False}


# ---- Its draws ---------------------------------------------------------------------------------------------


def put_draws(
    fitted: Fitted,
    diagnosis: Diagnosis | None,
    folder: Path,
    draws: int,
    *,
    seed: int | None = None,
    resample: str = "auto",
) -> str:
    """Put draws beside their fit, in place of earlier ones, marked by what the diagnosis says of them. Returns the name
    of their file.

    Raises:
        FitError: the disk has no room for them.
    """
    fit, units = Fit.of(fitted), None if diagnosis is None else diagnosis.units
    if diagnosis is not None:
        fit.marked(diagnosis)
    for name in _DRAWS:
        forget_file(folder, name)
    if resample != "elbo" and is_large(fit, draws):
        check_room(folder, int(_LEAST_SHARE * num_bytes(fit, draws)), POSTERIOR_STORE)
        fit.write_posterior(
            folder / POSTERIOR_STORE, draws, seed=seed, unit_diagnostics=units, resample=resample
        )
        (folder / POSTERIOR).unlink(missing_ok=True)
        record_file(folder, POSTERIOR_STORE)
        return POSTERIOR_STORE
    tree = fit.posterior(draws, seed=seed, resample=resample, unit_diagnostics=units)
    write_netcdf(tree, folder / POSTERIOR)
    remove_folder(folder / POSTERIOR_STORE)
    record_file(folder, POSTERIOR)
    return POSTERIOR


def draws_there(folder: Path) -> str:
    """The name of the draws beside a fit; empty where there are none."""
    return next((name for name in _DRAWS if (folder / name).exists()), "")


@contextlib.contextmanager
def stored_tree(folder: Path) -> Iterator[xr.DataTree | None]:
    """The draws beside a fit, read as needed; None where there are none, or they were changed.

    Raises:
        FitError: the folder holds no fit.
    """
    for name, reader in zip(_DRAWS, ("h5netcdf", "zarr"), strict=True):
        if is_as_recorded(folder, name):
            with xr.open_datatree(folder / name, engine=reader) as tree:
                yield tree
            return
    yield None


# ---- Steps -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened_fit(folder: Path, engine: str | None) -> Iterator[Fit]:
    """The fit in a folder, for a command that puts something beside it; no other command does so meanwhile.

    Raises:
        FitError: the folder holds no fit that loads.
        CheckpointError: another process is filling the folder.
    """
    with in_use(beside(folder)):
        for name in FIT_FILES:
            clear_leftovers(folder / name)
        yield load(folder, engine=engine)


@contextlib.contextmanager
def one_step(doing: str, folder: Path, command: str) -> Iterator[None]:
    """A step after training. Whatever ends it, the message says where the fit is and how to do the step again."""
    told = (
        f"The fit itself is in {folder}: `avistan {command} {folder}`, or fit with --resume, goes on from it."
    )
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"while {doing}. {told}") from None
    except AvistanError as error:
        raise FitError(f"{error}\n{told}") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise FitError(f"{error.filename or folder}: {reason}.\n{told}") from error
    except Exception as error:
        error.add_note(told)
        raise
