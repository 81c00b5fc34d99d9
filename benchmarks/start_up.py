"""CPU and wall seconds of processes that do little: help, errors of usage, the import, and a small fit, cold and warm.

    python benchmarks/start_up.py [--repeats 5]

Each is a process of its own; the least of some repeats is printed, beside the bar that CPU seconds are held against. A
fit is `avistan fit` on eight schools, to draws and a diagnosis on disk: cold with an empty cache of compiled programs,
warm with the one that leaves. Bytecode is made before, as an installation does.
"""

from __future__ import annotations

import argparse
import compileall
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import avistan
import stan_adapters
from _processes import Measured, measured
from avistan.cli.examples import models_root

LIMIT = 120.0  # wall seconds of a process
SCHOOLS = models_root() / "eight_schools"
PROGRAM, DATA = str(SCHOOLS / "eight_schools.stan"), str(SCHOOLS / "data.json")


@dataclass(frozen=True)
class Row:
    """What is measured. Attributes:

    status: that the process ends with.
    bar: CPU seconds.
    """

    name: str
    command: tuple[str, ...]
    status: int
    bar: float


COMMAND = (sys.executable, "-m", "avistan")
ROWS = (
    Row("import avistan", (sys.executable, "-c", "import avistan"), 0, 0.15),
    Row("avistan --help", (*COMMAND, "--help"), 0, 0.3),
    Row("avistan fit --help", (*COMMAND, "fit", "--help"), 0, 0.3),
    Row("an unknown option", (*COMMAND, "fit", "--nonsense"), 2, 0.3),
    Row("an unknown method", (*COMMAND, "fit", PROGRAM, DATA, "--output", "new", "--method", "avii"), 2, 0.3),
    Row("no such program", (*COMMAND, "fit", "none.stan", "--output", "new"), 2, 0.3),
    Row("no such data", (*COMMAND, "fit", PROGRAM, "none.json", "--output", "new"), 2, 0.3),
    Row("no such fit", (*COMMAND, "diagnose", "none"), 2, 0.3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="processes of each kind, fits apart")
    repeats = parser.parse_args().repeats
    for package in (avistan, stan_adapters):
        compileall.compile_dir(Path(package.__file__).parent, quiet=2)
    print(f"{'process':<24}{'CPU, s':>9}{'wall, s':>9}{'bar, s':>8}")
    for row in ROWS:
        show(row.name, least([ran(row) for _ in range(repeats)]), row.bar)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fit = Row("", (*COMMAND, "fit", PROGRAM, DATA, "--output", str(folder / "fit")), 0, 0.0)
        show("eight schools, cold", ran(fit, folder / "cache"), 10.0)
        show("eight schools, warm", least([ran(fit, folder / "cache") for _ in range(2)]), 3.0)


def ran(row: Row, cache: Path | None = None) -> Measured:
    """One process. Raises RuntimeError where it does not end as it should."""
    environment = {} if cache is None else {"AVISTAN_CACHE_DIR": str(cache)}
    found = measured(row.command, limit=LIMIT, **environment)
    if found.status != row.status:
        raise RuntimeError(f"{' '.join(row.command)} ended with status {found.status}: {found.said}")
    return found


def least(runs: list[Measured]) -> Measured:
    return min(runs, key=lambda run: run.cpu)


def show(name: str, run: Measured, bar: float) -> None:
    print(f"{name:<24}{run.cpu:>9.2f}{run.wall:>9.2f}{bar:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
