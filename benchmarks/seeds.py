"""Does a fit end in the same place whatever its seed, and does its outcome say so where it does not?

    python benchmarks/seeds.py [--programs NAME,NAME ..] [--seeds 10] [--method auto]

Every program is bound once and fitted with default settings from each seed, 1 and up, in one process. A fit is short by
what the best seed's ELBO has more; it counts as short beyond max(1 nat, 0.1 % of the ELBO) and 3 standard errors. Of
those the outcome should say something; the ones that are `settled` are silent. Wanted: at most 1 % of all fits silent
and short, and none of them by more than 10 nats.

Programs: the bundled examples (the nonlinear one with 1000 of its units; the networks take minutes), those of
`_family_programs`, `_further_programs`, `_seed_programs`, tests/support/hard_programs.py, and of tests/structure those
that benchmarks/stopping.py takes too. With --all-structure all of tests/structure are fitted.
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _family_programs import PROGRAMS
from _further_programs import FURTHER
from _seed_programs import SEED_PROGRAMS
from avistan.cli.examples import models_root
from avistan.fitting.outcome import FitOutcome
from avistan.model import Model
from stan_adapters.errors import AvistanError
from stopping import CASES, SMALLER, structure_cases

NATS, SHARE, ERRORS = 1.0, 1e-3, 3.0
MOST_SHARE, MOST_NATS = 0.01, 10.0  # of all fits, short and silent; of one of them
BUNDLED = ("linear", "nonlinear", "saw_time_series", "state_space")  # others are in `_family_programs`
SLOW = ("graded responses", "network")  # half a minute a fit
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fit: its ELBO and standard error in nats, NaN where there is none, gradients and seconds of CPU."""

    seed: int
    outcome: str
    silent: bool
    elbo: float
    elbo_se: float
    gradients: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", help="names, separated by commas; by default the bank")
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 1 on")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--all-structure", action="store_true", help="all programs of tests/structure")
    arguments = parser.parse_args()
    bank = programs(every_case=arguments.all_structure)
    names = list(bank) if arguments.programs is None else arguments.programs.split(",")
    unknown = [name for name in names if name not in bank]
    if unknown:
        parser.error(f"no program {', '.join(unknown)}; there are: {', '.join(bank)}")
    print(
        f"{'program':<24}{'fits':>5}{'best ELBO':>14}{'se':>8}{'largest short':>15}{'short':>7}{'silent':>8}"
        f"{'gradients':>11}{'s':>7}  outcomes other than settled; seeds that are short: nats"
    )
    began, told = time.perf_counter(), []
    for name in names:
        rows = fits(bank[name](), arguments.seeds, arguments.method)
        told.append(summary(name, rows))
    fitted, short, silent = (sum(part[i] for part in told) for i in range(3))
    worst = max((part[3] for part in told), default=0.0)
    print(
        f"\n{len(names)} programs, {fitted} fits: {short} short, {silent} of them silent "
        f"({100 * silent / max(fitted, 1):.1f} %; wanted: at most {100 * MOST_SHARE:.0f} %), the worst of these by "
        f"{worst:.1f} nats (wanted: at most {MOST_NATS:.0f}). {time.perf_counter() - began:.0f} s."
    )


def programs(*, every_case: bool = False) -> dict[str, Callable[[], Model]]:
    """Makers of models by name."""
    hard = runpy.run_path(str(ROOT / "tests" / "support" / "hard_programs.py"), run_name="hard_programs")
    cases = structure_cases(ROOT / "tests" / "structure")

    def of_case(name: str) -> Model:
        return Model(cases[name].stan_file, data=cases[name].make_data(np.random.default_rng(3)))

    def of_hard(make: Callable[[], Any]) -> Model:
        made = make()
        return Model(stan_code=made.code, data=made.data)

    def of_own(name: str) -> Model:
        code, data = SEED_PROGRAMS[name]()
        return Model(stan_code=code, data=data)

    found: dict[str, Callable[[], Model]] = {name: lambda name=name: bundled(name) for name in BUNDLED}
    found |= PROGRAMS
    found |= {name: make for name, make in FURTHER.items() if name not in SLOW}
    found |= {name: lambda name=name: of_own(name) for name in SEED_PROGRAMS}
    found |= {f"hard {name}": lambda make=make: of_hard(make) for name, make in hard["PROGRAMS"].items()}
    for name in cases if every_case else CASES:
        found[name] = lambda name=name: of_case(name)
    return {re.sub("[^a-z0-9]+", "_", name.lower()): make for name, make in found.items()}


def bundled(name: str) -> Model:
    folder = models_root() / name
    data: dict[str, Any] = json.loads((folder / "data.json").read_text())
    if name == "nonlinear":
        data = {"N": SMALLER[name], "x": data["x"][: SMALLER[name]]}
    return Model(folder / f"{name}.stan", data=data)


def fits(model: Model, seeds: int, method: str) -> list[Row]:
    with model.bound:
        return [one_fit(model, seed, method) for seed in range(1, seeds + 1)]


def one_fit(model: Model, seed: int, method: str) -> Row:
    began = time.process_time()
    try:
        fit = model.fit(method=method, seed=seed, show_progress=False)
    except AvistanError as error:  # a fit that says so is not silent
        return Row(
            seed=seed,
            outcome=type(error).__name__,
            silent=False,
            elbo=float("nan"),
            elbo_se=float("nan"),
            gradients=0,
            seconds=time.process_time() - began,
        )
    chain = fit.chains[0]
    return Row(
        seed=seed,
        outcome=chain.outcome.name,
        silent=chain.outcome is FitOutcome.settled,
        elbo=chain.evaluation.elbo,
        elbo_se=chain.evaluation.elbo_se,
        gradients=chain.gradient_evaluations,
        seconds=time.process_time() - began,
    )


def summary(name: str, rows: list[Row]) -> tuple[int, int, int, float]:
    """Print a program's line; fits, short ones, silent ones among these, and the most nats of a silent one."""
    ended = [row for row in rows if np.isfinite(row.elbo)]
    best = max(ended, key=lambda row: row.elbo, default=None)
    gradients = int(np.median([row.gradients for row in rows]))
    seconds = float(np.median([row.seconds for row in rows]))
    short: list[tuple[Row, float]] = []
    if best is not None:
        for row in rows:
            nats = best.elbo - row.elbo if np.isfinite(row.elbo) else np.inf
            error = ERRORS * float(np.hypot(best.elbo_se, row.elbo_se))
            if not nats <= max(NATS, SHARE * abs(best.elbo), error):
                short.append((row, nats))
    silent = [nats for row, nats in short if row.silent]
    others: dict[str, int] = {}
    for row in rows:
        if not row.silent:
            others[row.outcome] = others.get(row.outcome, 0) + 1
    largest = (
        max((best.elbo - row.elbo for row in ended), default=float("nan")) if best is not None else np.nan
    )
    seen = ", ".join(f"{outcome} {count}" for outcome, count in others.items())
    where = ", ".join(f"{row.seed}{'' if row.silent else ' (told)'}: {nats:.1f}" for row, nats in short)
    said = "; ".join(filter(None, (seen, where)))
    print(
        f"{name:<24}{len(rows):>5}{best.elbo if best else np.nan:>14.2f}{best.elbo_se if best else np.nan:>8.2f}"
        f"{largest:>15.2f}{len(short):>7}{len(silent):>8}{gradients:>11}{seconds:>7.1f}  {said}",
        flush=True,
    )
    return len(rows), len(short), len(silent), max(silent, default=0.0)


if __name__ == "__main__":
    main()
