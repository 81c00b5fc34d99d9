"""Fits of the command line in processes of their own, for tests to interrupt; every chunk of training is saved.

A server that has imported everything forks them, and they load what the tests have compiled: a start costs little.
"""

import contextlib
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import arviz_base  # noqa: F401  imported here, so that no fit has to
import arviz_stats  # noqa: F401
import numpy as np
import orbax.checkpoint  # noqa: F401
import xarray as xr
import zarr  # noqa: F401

import avistan.files.outputs
import avistan.report.write
import avistan.training.checkpoints
import avistan.training.fingerprint
from avistan.cli.app import app
from stan_adapters.language.grammar import stan_parser

stan_parser()  # built here, so that no fit has to
avistan.training.fingerprint._sources()  # kept from here on: what was imported is what runs, whatever is edited
_UNDER_WAY = "*/*.partial"


def _wait_at(name: str) -> None:
    """Before anything is written to a place of that name, wait to be killed."""
    made_beside = avistan.files.outputs._made_beside

    @contextlib.contextmanager
    def waiting(place: Path) -> Iterator[Path]:
        with made_beside(place) as temporary:
            if place.name == name:
                time.sleep(3600)
            yield temporary

    avistan.files.outputs._made_beside = waiting


def _fit(arguments: list[str], log: Path, wait_at: str) -> None:
    avistan.training.checkpoints.SECONDS = 0.0
    _wait_at(wait_at)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    app(["fit", *arguments])


def _start_server() -> multiprocessing.context.ForkServerContext:
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class InterruptedFits:
    """Starts fits with the given arguments and interrupts them."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.folder, self.arguments = folder, arguments
        folder.mkdir(parents=True)
        self._context = _start_server()
        warm_up = self._context.Process(target=int)  # ends when the server has imported everything
        warm_up.start()
        warm_up.join()

    def start(self, name: str, *more: str, wait_at: str = "") -> multiprocessing.context.ForkServerProcess:
        """Start a fit; it waits before it writes to a place of the name `wait_at`."""
        arguments = [*self.arguments, "--output", str(self.output(name)), *more]
        process = self._context.Process(target=_fit, args=(arguments, self.log(name), wait_at))
        process.start()
        return process

    def output(self, name: str) -> Path:
        return self.folder / name

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}.checkpoint"

    def saves(self, name: str) -> list[str]:
        return sorted(path.name for path in self.checkpoint(name).glob("chain-*/*") if path.name.isdigit())

    def run(self, name: str, *more: str) -> float:
        """Seconds of a whole fit."""
        started = time.perf_counter()
        process = self.start(name, *more)
        process.join()
        assert process.exitcode == 0, f"exit status {process.exitcode}: {self.log(name).read_text()}"
        return time.perf_counter() - started

    def wait_for_saves(
        self, process: multiprocessing.context.ForkServerProcess, name: str, count: int
    ) -> None:
        """Until that many saves came by and another one is under way, or the fit is done."""
        seen: set[str] = set()
        while process.is_alive():
            seen |= {path.name for path in self.checkpoint(name).glob(_UNDER_WAY)}
            if len(seen) > count:
                return
            time.sleep(0.001)

    def wait_for_file(self, process: multiprocessing.context.ForkServerProcess, pattern: str) -> None:
        """Until a file is there, by its name below the folder of all fits, or the fit is done."""
        while process.is_alive() and not any(self.folder.glob(pattern)):
            time.sleep(0.001)

    def stop(
        self, process: multiprocessing.context.ForkServerProcess, number: int = signal.SIGKILL
    ) -> int | None:
        """Send a signal and wait. Returns the exit status."""
        if process.is_alive() and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it may end just now
                os.kill(process.pid, number)
        process.join()
        return process.exitcode


def bytes_that_matter(folder: Path) -> dict[str, bytes]:
    """All that a fit's folder holds but its times: files, arrays and numbers by name."""
    parts = {name: (folder / name).read_bytes() for name in ("program.stan", "data.json")}
    header = json.loads((folder / "fit.json").read_text())
    assert {"arrays.npz", "diagnosis.json", "diagnosis.npz", "posterior.nc"} < set(header.pop("files"))
    assert header.pop("digest")
    assert set(header.pop("timing")) == {"prepare", "compile", "train", "evaluate"}
    for chain in header["chains"]:
        assert chain.pop("seconds_train") > 0
        assert chain.pop("seconds_evaluate") > 0
        chain.pop("seconds_compile")
    parts["fit.json"] = json.dumps(header).encode()
    diagnosis = json.loads((folder / "diagnosis.json").read_text())
    assert diagnosis.pop("seconds") > 0
    parts["diagnosis.json"] = json.dumps(diagnosis).encode()
    with np.load(folder / "diagnosis.npz") as units:
        parts |= {f"diagnosis.npz {name}": units[name].tobytes() for name in units}
    times = re.compile(r"chain_\d+_trace_\d+_seconds(_compile)?")
    with np.load(folder / "arrays.npz") as arrays:
        parts |= {f"arrays.npz {n}": arrays[n].tobytes() for n in arrays if not times.fullmatch(n)}
    with xr.open_datatree(folder / "posterior.nc") as tree:
        for group in tree.subtree:
            parts |= {
                f"posterior.nc {group.path} {n}": v.values.tobytes() for n, v in group.variables.items()
            }
    return parts
