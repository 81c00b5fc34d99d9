"""Processes that a benchmark starts for one posterior each, with a limit of time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
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
