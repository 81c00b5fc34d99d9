"""Whole fits of this working tree against those of another revision, side by side in one run.

    python benchmarks/against_commit.py REV [--cases lsat,...] [--methods auto,fvi] [--repeats 1] [--warm-only]
        [--numpyro] [--environments FOLDER]

The first run for a REV installs it into a virtual environment of its own with the versions of `constraints.txt`, which
takes minutes; later runs find it there. The new code is what this interpreter imports.

A run is a process: Python, imports, `Model(program, data=file).fit(method, seed=1)`; the next repeat has seed 2. Old
and new take turns, and the order changes with every repeat: first each with an empty compile cache (cold), then each
with the cache that its cold run left (warm). CPU seconds are user and system time of the process and of those that it
started; memory is its largest resident set. Of several repeats the smallest seconds and memory count, and the mean of
the ELBOs, whose standard error then has the spread between seeds in it; that of a single repeat is of the draws alone,
and two fits that end at different steps may differ by more. On a shared machine CPU seconds say more than wall seconds.

The bars are those that the change to one training loop in JAX was held against, printed with each ratio:

- warm, CPU of `auto`: at most 1.15 times for 2PL with 10^5 and 10^6 persons and linear with 10^6 units, there with at
  most 1.1 times the memory; at most 2 times for the smaller cases;
- warm, CPU of `fvi`: at most 3 times;
- cold, wall: at most 1.5 times where the old fit takes more than 10 s, at most 8 s more where it takes less;
- the ELBO: not lower than the old one's by more than 3 standard errors of the difference.

`--numpyro` (needs the extra `bench`) runs `time_to_answer.py` for `auto` and NumPyro's SVI on the small cases, and
prints the seconds to an answer of one over the other's, with the bar 1.

The last table counts lines of code (`code_lines.py`), with the bar 0.8.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _arguments import names
from code_lines import count, git

HERE = Path(__file__).resolve().parent
LARGE = ("2pl-100000", "linear-1000000", "2pl-1000000")
CASES = ("lsat", "random_slopes", "linear-10000", "linear-100000", *LARGE)
SMALL = ("lsat", "random_slopes", "linear-10000")  # those with NumPyro
METHODS = ("auto", "fvi")
CPU_LARGE, CPU_SMALL, CPU_FVI, MEMORY = 1.15, 2.0, 3.0, 1.1
LONG, COLD_RATIO, COLD_MORE = 10.0, 1.5, 8.0  # wall seconds of a cold fit
STANDARD_ERRORS = 3.0
CODE = 0.8
HEADER = (
    f"{'case':<16}{'method':<7}{'cache':<6}{'':<5}{'CPU s':>9}{'wall s':>9}{'MiB':>8}{'ELBO':>14}{'se':>8}"
    f"{'gradients':>11}  family"
)


@dataclass(frozen=True)
class Run:
    """What a process took, and what its fit says of itself; seconds, MiB, nats."""

    cpu: float
    wall: float
    memory: float
    elbo: float
    elbo_se: float
    family: str
    gradients: int
    seconds: dict[str, float]


def combined(runs: list[Run]) -> Run:
    """Smallest seconds and memory, the mean ELBO, and the rest of the first run."""
    elbos = [run.elbo for run in runs]
    variance = statistics.fmean(run.elbo_se**2 for run in runs)
    if len(runs) > 1:
        variance = max(variance, statistics.variance(elbos))
    return replace(
        runs[0],
        cpu=min(run.cpu for run in runs),
        wall=min(run.wall for run in runs),
        memory=min(run.memory for run in runs),
        elbo=statistics.fmean(elbos),
        elbo_se=math.sqrt(variance / len(runs)),
    )


def main() -> None:
    arguments = parse_arguments()
    revision = git("rev-parse", "--verify", f"{arguments.revision}^{{commit}}").strip()
    pythons = {"old": environment(revision, arguments.environments), "new": sys.executable}
    compile_sources()
    print(f"old is {arguments.revision} ({revision[:12]}), new the working tree; {os.cpu_count()} CPUs")
    print(HEADER, flush=True)
    for case in arguments.cases:
        with tempfile.TemporaryDirectory(prefix="avistan-against-") as folder:
            subprocess.run([sys.executable, str(HERE / "_cases.py"), case, folder], check=True)
            for method in arguments.methods:
                compare(case, method, Path(folder), pythons, arguments)
    if arguments.numpyro:
        numpyro([case for case in arguments.cases if case in SMALL], arguments.methods)
    code(arguments.revision, revision)


def environment(revision: str, folder: Path) -> str:
    """The interpreter of the environment with that revision, which is made where it is not there yet."""
    place = folder.expanduser().absolute() / revision[:12]
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = place / "installed"
    if installed.exists():
        return str(python)
    print(f"installing {revision[:12]} into {place}: once, takes minutes", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    with tempfile.TemporaryDirectory(prefix="avistan-source-") as scratch:
        archive = Path(scratch) / "source.tar"
        source = Path(scratch) / "source"
        git("archive", "--format=tar", f"--output={archive}", revision)
        shutil.unpack_archive(archive, source, filter="data")
        constraints = str(source / "constraints.txt")
        pinned = {"PIP_CONSTRAINT": constraints, "PIP_BUILD_CONSTRAINT": constraints}
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(source)],
            check=True,
            env=without_path() | pinned,
        )
    installed.touch()
    return str(python)


def without_path() -> dict[str, str]:
    """The environment's variables, without paths that would put this working tree before what is installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def compile_sources() -> None:
    """Bytecode of the new code, as an installation has it: the first of the processes would make it."""
    for package in ("avistan", "stan_adapters"):
        found = importlib.util.find_spec(package)
        for folder in found.submodule_search_locations or () if found else ():
            compileall.compile_dir(folder, quiet=2)


def compare(
    case: str, method: str, folder: Path, pythons: dict[str, str], arguments: argparse.Namespace
) -> None:
    """Runs of both revisions in turns, and their table."""
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for repeat in range(arguments.repeats):
        order = ("old", "new") if repeat % 2 == 0 else ("new", "old")
        for cache in ("cold", "warm"):
            for side in order:
                kept = folder / f"cache-{method}-{side}"
                if cache == "cold":
                    if arguments.warm_only and repeat:
                        continue
                    shutil.rmtree(kept, ignore_errors=True)
                run = whole_fit(pythons[side], side == "new", method, repeat + 1, folder, kept)
                runs[cache, side].append(run)
    best = {key: combined(these) for key, these in runs.items()}
    for cache in ("cold", "warm"):
        for side in ("old", "new"):
            print(row(case, method, cache, side, best[cache, side]), flush=True)
        print(verdicts(case, method, cache, best[cache, "old"], best[cache, "new"]), flush=True)


def whole_fit(python: str, new: bool, method: str, seed: int, folder: Path, cache: Path) -> Run:
    """A fit in a process of its own.

    Raises:
        SystemExit: it failed; with its last words.
    """
    (program,) = folder.glob("*.stan")
    answer, words = folder / "answer.json", folder / "stderr.txt"
    variables = dict(os.environ) if new else without_path()
    variables.pop("AVISTAN_NO_CACHE", None)
    variables["AVISTAN_CACHE_DIR"] = str(cache)
    given = [method, str(program), str(folder / "data.json"), str(answer), str(seed)]
    command = [python, str(HERE / "_whole_fit.py"), *given]
    with open(words, "wb") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=variables, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command)}\nended with status {process.returncode}:\n{words.read_text()[-2000:]}"
        )
    found: dict[str, Any] = json.loads(answer.read_text())
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / unit, **found)


def row(case: str, method: str, cache: str, side: str, run: Run) -> str:
    parts = ", ".join(f"{name} {value:.1f}" for name, value in run.seconds.items())
    return (
        f"{case:<16}{method:<7}{cache:<6}{side:<5}{run.cpu:>9.2f}{run.wall:>9.2f}{run.memory:>8.0f}"
        f"{run.elbo:>14.2f}{run.elbo_se:>8.2f}{run.gradients:>11}  {run.family}; {parts}"
    )


def verdicts(case: str, method: str, cache: str, old: Run, new: Run) -> str:
    """Ratios of new to old, each with its bar where it has one."""
    cpu_bar = wall_bar = memory_bar = more_bar = None
    if cache == "warm":
        cpu_bar = CPU_FVI if method == "fvi" else CPU_LARGE if case in LARGE else CPU_SMALL
        memory_bar = MEMORY if case in LARGE and method == "auto" else None
    elif old.wall > LONG:
        wall_bar = COLD_RATIO
    else:
        more_bar = COLD_MORE
    better, se = new.elbo - old.elbo, math.hypot(new.elbo_se, old.elbo_se)
    parts = [
        judged("CPU", new.cpu / old.cpu, cpu_bar),
        judged("wall", new.wall / old.wall, wall_bar),
        *([judged("wall s more", new.wall - old.wall, more_bar)] if more_bar is not None else []),
        judged("memory", new.memory / old.memory, memory_bar),
        f"ELBO {better:+.2f} (se {se:.2f}) {passed(better >= -STANDARD_ERRORS * se)}",
    ]
    return f"{case:<16}{method:<7}{cache:<6}{'n/o':<5}{'; '.join(parts)}"


def judged(what: str, value: float, bar: float | None) -> str:
    if bar is None:
        return f"{what} {value:.2f}"
    return f"{what} {value:.2f} (bar {bar:g}) {passed(value <= bar)}"


def passed(good: bool) -> str:
    return "pass" if good else "FAIL"


def numpyro(cases: list[str], methods: list[str]) -> None:
    """Seconds to an answer of `auto` over those of NumPyro's SVI, cold and warm."""
    if not cases or "auto" not in methods:
        return
    with tempfile.TemporaryDirectory(prefix="avistan-against-") as folder:
        answers = Path(folder) / "answers.json"
        command = [sys.executable, str(HERE / "time_to_answer.py"), "--contenders", "auto,numpyro"]
        subprocess.run([*command, "--cases", ",".join(cases), "--answers", str(answers)], check=True)
        found = json.loads(answers.read_text())
    print("\nauto over NumPyro's SVI, seconds to an answer")
    for case, contenders in found.items():
        for cache in ("cold", "warm"):
            ours, theirs = contenders.get(f"auto {cache}", {}), contenders.get(f"numpyro {cache}", {})
            parts = []
            for what in ("cpu", "seconds"):
                if ours.get(what) is None:
                    parts.append(f"{what}: auto never got there FAIL")
                elif theirs.get(what) is None:
                    parts.append(f"{what}: NumPyro never got there pass")
                else:
                    name = "CPU" if what == "cpu" else "wall"
                    parts.append(
                        f"{judged(name, ours[what] / theirs[what], 1.0)} ({ours[what]:.2f} / {theirs[what]:.2f} s)"
                    )
            print(f"{case:<16}{'auto':<7}{cache:<11}{'; '.join(parts)}")


def code(name: str, revision: str) -> None:
    old, new = count("plugin", revision), count("plugin", None)
    print(f"\nlines of code in plugin/{'Python':>10}{'native':>9}{'total':>9}")
    print(f"{name:<24}{old.python:>10}{old.native:>9}{old.total:>9}")
    verdict = judged("lines", new.total / old.total, CODE)
    print(f"{'working tree':<24}{new.python:>10}{new.native:>9}{new.total:>9}  {verdict}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", metavar="REV", help="a revision of this repository")
    parser.add_argument("--cases", type=names(CASES), default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--methods", type=names(METHODS), default=list(METHODS), help=", ".join(METHODS))
    parser.add_argument("--repeats", type=int, default=1, help="cold and warm runs of each side")
    parser.add_argument("--warm-only", action="store_true", help="cold runs only to fill the caches, once")
    parser.add_argument("--numpyro", action="store_true", help="NumPyro's SVI beside `auto`, small cases")
    parser.add_argument(
        "--environments",
        type=Path,
        default=user_cache() / "avistan-environments",
        help="folder of installed revisions (%(default)s)",
    )
    return parser.parse_args()


def user_cache() -> Path:
    usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / usual)


if __name__ == "__main__":
    main()
