"""What a fit costs against the number of units: seconds, peak memory and gradients, each fit in a fresh process.

    python benchmarks/scaling.py [--sizes 1000,10000,100000,1000000] [--largest] [--output PREFIX]

`linear` (a latent and an observation each) and a 2PL with 20 items, both by `Model.fit(seed=1)`. Seconds are those of
the whole process, Python and imports included; those of the fit alone stand beside them. Memory is the process's
largest resident set; what Python and the imports take before any data stands in the head. Gradients are those of
training; a minibatch's counts as one, and is cheaper than one of all units. `--largest` adds 10^7 units to `linear`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from _cases import Case, item_response, linear

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LARGEST = 10_000_000
PROGRAMS = {"linear": linear, "2PL, 20 items": lambda units: item_response(units, 20)}


def main() -> None:
    arguments = parse_arguments()
    if arguments.one:
        print(json.dumps(one(*arguments.one)))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    idle = run(["", ""])["memory"]
    print(f"Python and imports alone: {idle:.0f} MiB")
    print(f"{'program':<16}{'units':>10}{'seconds':>10}{'fit alone':>11}{'MiB':>8}{'gradients':>11}  method")
    for name, make in PROGRAMS.items():
        found[name] = []
        for units in [*arguments.sizes, *([LARGEST] if arguments.largest and name == "linear" else [])]:
            row = measure(make(units))
            found[name].append(row | {"units": units})
            print(
                f"{name:<16}{units:>10}{row['seconds']:>10.2f}{row['fit']:>11.2f}{row['memory']:>8.0f}"
                f"{row['gradients']:>11}  {row['method']}, {row['outcome']}",
                flush=True,
            )
    if arguments.output:
        draw(found, idle).savefig(f"{arguments.output}.png", dpi=150)


def measure(case: Case) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data_file = Path(folder) / "data.json"
        data_file.write_text(json.dumps(case.data()))
        return run([str(case.stan_file), str(data_file)])


def run(given: list[str]) -> dict[str, Any]:
    """What a fresh process found, and its seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--one", *given], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"seconds": time.perf_counter() - started}


def one(stan_file: str, data_file: str) -> dict[str, Any]:
    """Fit in this process; without a program only what the imports take."""
    import avistan as avi

    made = avi.Model
    found: dict[str, Any] = {}
    if stan_file:
        started = time.perf_counter()
        model = made(stan_file, data=data_file)
        fit = model.fit(seed=1)
        found = {
            "fit": time.perf_counter() - started,
            "gradients": fit.gradient_evaluations,
            "elbo": fit.elbo,
            "method": fit.method.name,
            "outcome": fit.outcome.name,
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found | {"memory": peak / (2**20 if sys.platform == "darwin" else 2**10)}


def draw(found: dict[str, list[dict[str, Any]]], idle: float) -> Figure:
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    what = (("seconds", "seconds of the process"), ("memory", "peak memory, MiB"), ("gradients", "gradients"))
    for axes, (key, label) in zip(figure.subplots(1, 3), what, strict=True):
        for name, rows in found.items():
            axes.loglog([row["units"] for row in rows], [row[key] for row in rows], "o-", label=name)
        if key == "memory":
            axes.axhline(idle, color="0.6", linestyle=":", label="imports alone")
        axes.set_xlabel("units")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=1 if key == "seconds" else None)
        axes.legend(frameon=False)
    return figure


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=numbers, default=list(SIZES), help="numbers of units")
    parser.add_argument("--largest", action="store_true", help=f"linear with {LARGEST} units too")
    parser.add_argument("--output", help="prefix of the figure, such as benchmarks/results/scaling")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(float(part)) for part in text.split(",")]


if __name__ == "__main__":
    main()
