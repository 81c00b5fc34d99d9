"""Processes that a benchmark starts for one posterior each, with a limit of time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def run(script: str, *arguments: str | Path, limit: float, **environment: str) -> str:
    """Runs a script of this folder to its end: why there was none, or an empty text.

    The process and those that it started are stopped after `limit` wall seconds.
    """
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths} | environment,
        start_new_session=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"stopped after {limit:.0f} s"
    if process.returncode:
        lines = said.strip().splitlines() or [f"ended with status {process.returncode}"]
        return lines[-1]
    return ""


def asked(
    script: str, program: Path, data: Path, variables: Any, *further: str, limit: float
) -> dict[str, Any]:
    """The answer of `script PROGRAM DATA VARIABLES.json ANSWER.json FURTHER...`, with `trouble` where it did not end,
    and the wall seconds of its process.
    """
    with tempfile.TemporaryDirectory(prefix="avistan-bank-") as scratch:
        labels, answer = Path(scratch) / "variables.json", Path(scratch) / "answer.json"
        labels.write_text(json.dumps(variables))
        began = time.perf_counter()
        trouble = run(script, program, data, labels, answer, *further, limit=limit)
        found: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {}
        return found | {"trouble": trouble, "wall": time.perf_counter() - began}


@dataclass(frozen=True)
class Measured:
    """What a process took, its children included, and how it ended; seconds, MiB."""

    cpu: float
    wall: float
    memory: float
    status: int
    said: str


def measured(command: Sequence[str | Path], *, limit: float, **environment: str) -> Measured:
    """Runs a command to its end, or to its stop after `limit` wall seconds, which is status -9."""
    with tempfile.TemporaryFile() as words:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=words,
            stderr=words,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment,
            start_new_session=True,
        )
        stop = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        stop.start()
        _, status, usage = os.wait4(process.pid, 0)
        stop.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        words.seek(0)
        said = words.read().decode(errors="replace").strip()
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Measured(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / unit, process.returncode, said)
