"""Does training end in time? The stopping rule on a bank of programs, against how far it had to go.

    python benchmarks/stopping.py [--only WORD] [--seeds 11,12,13] [--programs tests/structure]

Every run is the rule's own. It is short by what the best ELBO that is known of its family has more, on draws that all
share; known are the run itself at the mean of every 250 steps, and a run of five times its steps along a cosine. Needed
are the fewest steps (a multiple of 250) from which on the run's means stay within the limit, `stopping.tolerance`: 1
nat, or 0.001 a parameter if that is no more than 0.1 % of the ELBO. The column `0.1 %` is the ratio to the steps needed
for 0.1 % of the ELBO, where this is more than 1 nat. Runs that the guard ended are told as such to the user.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import runpy
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from _steps import TimedSteps
from avistan.cli.examples import models_root
from avistan.density.slots import register
from avistan.family.family import Family
from avistan.family.method import parse_method
from avistan.fitting.chains import evaluation_key
from avistan.fitting.options import FitOptions
from avistan.objective.elbo import Evaluation, evaluate, gap
from avistan.runtime.precision import in_float64
from avistan.start.preparation import Preparation, prepare, start_family
from avistan.training.loop import TrainingOptions, train
from avistan.training.stopping import MEASURE_DRAWS, SHARE, Ending, StoppingRule, tolerance
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program
from stan_adapters.structure.structure import inspect_structure

BOTH, SEEDS = ("avi", "fvi"), (1, 2, 3)
BUNDLED: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "linear": (BOTH, (1,)),
    "lsat_2pl": (BOTH, (1,)),
    "eight_schools": (BOTH, SEEDS),
    "eight_schools_centered": ((*BOTH, "avi:full-rank:conditional"), SEEDS),
    "random_slopes": ((*BOTH, "fvi:full"), SEEDS),
    "nonlinear": (BOTH, (1,)),
    "saw_time_series": (BOTH, (1,)),
    "state_space": (("fvi",), SEEDS),
    "bnn": (("avi",), (1,)),
}
CASES: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "horseshoe": (("fvi", "fvi:full-rank"), SEEDS),
    "gaussian_process": (("fvi", "fvi:full-rank"), SEEDS),
    "random_walk": (("fvi", "fvi:full-rank"), (1,)),
    "ar1_non_centred": (("fvi",), (1,)),
    "ar2": (("fvi",), (1,)),
    "icar": (("fvi",), (1,)),
    "hidden_markov": (("fvi",), (1,)),
    "mixture": (("fvi",), (1,)),
    "topics": (("fvi",), (1,)),
    "soft_sum_to_zero": (("fvi",), (1,)),
    "partial_sums": (BOTH, (1,)),
    "item_response_long": (BOTH, (1,)),
    "occupancy": (BOTH, (1,)),
    "measurement_error": (BOTH, (1,)),
    "correlated_effects": ((*BOTH, "avi:full:full-rank:conditional"), (1,)),
    "panel_of_walks": (BOTH, (1,)),
    "nested": (("avi",), (1,)),
    "ragged_sizes": (("avi",), (1,)),
    "positive_locals": (("avi",), (1,)),
}
SMALLER = {"nonlinear": 1000, "bnn": 40}  # units
FORMER_STEPS = 4000
DRAWS = 1000
WINDOW = 250  # steps of a mean
LONGER = 5


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run; steps needed are None if the run never stayed within the tolerance."""

    program: str
    method: str
    seed: int
    steps: int
    needed: int | None
    needed_by_share: int | None
    short: float
    short_se: float
    tolerance: float
    ended: Ending
    seconds: float

    @property
    def is_short(self) -> bool:
        return self.short > self.tolerance

    def ratio(self, needed: int | None) -> float:
        return float("nan") if needed is None else self.steps / needed


def main() -> None:
    arguments = parse_arguments()
    print(
        f"{'program':<23}{'method':<32}{'seed':>4}{'steps':>7}{'needed':>8}{'ratio':>7}{'0.1 %':>7}"
        f"{'short':>8}{'se':>6}{'limit':>7}  {'ended':<8}{'s':>6}"
    )
    started, runs = time.perf_counter(), []
    for name, model, methods, seeds in programs(arguments.programs, arguments.only):
        with model:
            for run in runs_of(name, model, methods, arguments.seeds or seeds):
                runs.append(run)
                print(
                    f"{run.program:<23}{run.method:<32}{run.seed:>4}{run.steps:>7}{run.needed or 'never':>8}"
                    f"{run.ratio(run.needed):>7.2f}{run.ratio(run.needed_by_share):>7.2f}{run.short:>8.2f}"
                    f"{run.short_se:>6.2f}{run.tolerance:>7.2f}  {run.ended.name:<8}{run.seconds:>6.1f}",
                    flush=True,
                )
    summary(runs, time.perf_counter() - started)


def summary(runs: list[Run], seconds: float) -> None:
    settled = [run for run in runs if run.ended is Ending.settled]
    short = [run for run in settled if run.is_short]
    ratios = np.array([run.ratio(run.needed) for run in settled])
    by_share = np.array([run.ratio(run.needed_by_share) for run in settled])
    steps = np.array([run.steps for run in settled])
    print(
        f"\n{len({run.program for run in runs})} programs, {len(runs)} runs; the rule ended {len(settled)}, its guard "
        f"{len(runs) - len(settled)}.\n"
        f"Of those that the rule ended, {len(short)} are short ({100 * len(short) / len(settled):.1f} %), the worst by "
        f"{max(run.short / run.tolerance for run in settled):.2f} tolerances.\n"
        f"Steps over needed ones: median {np.nanmedian(ratios):.2f}, largest {np.nanmax(ratios):.2f}, above 3 in "
        f"{(ratios > 3).sum()}; by 0.1 % of the ELBO: largest {np.nanmax(by_share):.2f}, above 3 in "
        f"{(by_share > 3).sum()}.\n"
        f"Steps: median {np.median(steps):.0f}, largest {steps.max()}, all together "
        f"{100 * (1 - steps.sum() / (FORMER_STEPS * len(steps))):.0f} % fewer than {FORMER_STEPS} each. "
        f"{seconds:.0f} s."
    )


def programs(folder: Path, only: str) -> Iterator[tuple[str, BoundModel, tuple[str, ...], tuple[int, ...]]]:
    cases = structure_cases(folder)
    for name, (methods, seeds) in {**BUNDLED, **CASES}.items():
        if only in name:
            yield name, bundled(name) if name in BUNDLED else bind(cases[name]), methods, seeds


def bundled(name: str) -> BoundModel:
    folder = models_root() / name.removesuffix("_centered")
    program = Program.from_file(folder / f"{name}.stan")
    data = json.loads((folder / "data.json").read_text())
    if name == "nonlinear":
        data = {"N": SMALLER[name], "x": data["x"][: SMALLER[name]]}
    if name == "bnn":
        data = runpy.run_path(str(folder / "simulate.py"))["simulate"](N=SMALLER[name])
    return BoundModel(program, read_data(program, data))


def structure_cases(folder: Path) -> dict[str, Any]:
    """The table of tiny programs with makers of their data."""
    spec = importlib.util.spec_from_file_location("structure_case_table", folder / "cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    cases: dict[str, Any] = module.CASES
    return cases


def bind(case: Any) -> BoundModel:
    program = Program.from_file(case.stan_file)
    return BoundModel(program, read_data(program, case.make_data(np.random.default_rng(3))))


@in_float64
def runs_of(name: str, model: BoundModel, methods: tuple[str, ...], seeds: tuple[int, ...]) -> list[Run]:
    level = inspect_structure(model).level
    found = []
    for seed in seeds:
        preparation = prepare(model, level, seed=seed, num_references=24, max_rank=16)
        found += [one_run(name, preparation, method) for method in methods]
    return found


def one_run(name: str, preparation: Preparation, method: str) -> Run:
    options = FitOptions().training
    family, inputs = start_family(preparation, parse_method(method))
    key = jax.random.key(preparation.seed)
    with register(preparation.model) as slot:

        def measure(of: Family, number: int) -> Evaluation:
            own = jax.random.fold_in(key, 100 + number)
            return evaluate(of, inputs, slot.index, own, MEASURE_DRAWS)

        def elbo(of: Family) -> Evaluation:
            return evaluate(of, inputs, slot.index, evaluation_key(key), DRAWS)

        stepping = TimedSteps(
            family, inputs, slot.index, jax.random.fold_in(key, 1), draws=options.draws_per_step
        )
        rule = StoppingRule(family, measure, options.learning_rate)
        stepping.training.compile()
        started, steps, means, on_the_way = time.perf_counter(), 0, [], []
        while (rates := rule.rates(steps)).size:
            chunk = stepping.run(rates)
            steps += len(rates)
            means.append(chunk.mean)
            rule.see(steps, chunk)
            if steps % WINDOW == 0:
                on_the_way.append(mean_of(means))
                means = []
        result = rule.result(stepping.training.family(stepping.state.moved))
        seconds = time.perf_counter() - started
        long = TrainingOptions(steps=LONGER * steps)
        longer, _ = train(family, inputs, slot.index, long, jax.random.fold_in(key, 1))
        ended, known = elbo(result), [elbo(of) for of in on_the_way]
        best = max([ended, elbo(longer), *known], key=lambda found: found.elbo)
    behind = np.array([gap(found, best)[0] for found in known])
    limit = tolerance(best.elbo, preparation.model.dim)
    short, error = gap(ended, best)
    return Run(
        program=name,
        method=method,
        seed=preparation.seed,
        steps=steps,
        needed=steps_needed(behind, limit),
        needed_by_share=steps_needed(behind, max(limit, SHARE * abs(best.elbo))),
        short=short,
        short_se=error,
        tolerance=limit,
        ended=rule.ended,
        seconds=seconds,
    )


def mean_of(families: list[Family]) -> Family:
    """The family at the mean of the parameters."""
    numbers = [eqx.filter(family, eqx.is_inexact_array) for family in families]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *numbers)
    family: Family = eqx.combine(mean, families[0])
    return family


def steps_needed(behind: np.ndarray, limit: float) -> int | None:
    """From when on the means stay within a limit of the best; None if not even the last one is."""
    outside = np.flatnonzero(behind > limit)
    after = outside[-1] + 1 if outside.size else 0
    return None if after == len(behind) else WINDOW * (int(after) + 1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="programs whose name has this in it")
    parser.add_argument(
        "--seeds",
        type=lambda text: tuple(map(int, text.split(","))),
        help="of every program, in place of the bank's own, on which the rule was made",
    )
    parser.add_argument(
        "--programs",
        type=Path,
        default=Path(__file__).parents[1] / "tests" / "structure",
        help="tiny programs",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
