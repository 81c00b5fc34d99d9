"""F-VI as a competitor: CPU seconds of a whole process to a fit near the optimum, against NumPyro's SVI and a revision.

    python benchmarks/fvi_speed.py [REV] [--cases 2pl-100000,...] [--environments FOLDER] [--numpyro PYTHON]

One run has all of them side by side, each in processes of its own (Python, imports, data, compilation, the check of
structure and the final estimate of the ELBO included), cold with an empty compile cache and then warm. NumPyro's SVI is
that of `time_to_answer.py`, looked at every 500 steps: its seconds are those to the first look within a nat per 1000
units of the optimum, and never more than it was given. REV is installed once, as by `against_commit.py`.

The optimum is exact for `linear`. Elsewhere it is that of the learning rule without steps of units' own: Adam on every
parameter, a given number of steps of 16 draws. `short` is how far a fit ends below it on common draws; beside that of
the stopping rule stands that of a longer training, which shows that the optimum is the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import avistan as avi
from _arguments import names
from _cases import CASES, Case
from _processes import measured
from against_commit import compile_sources, environment, user_cache
from avistan.density.slots import register
from avistan.family.method import parse_method
from avistan.fitting.chains import evaluation_key
from avistan.fitting.options import FitOptions
from avistan.objective.elbo import Evaluation, evaluate, gap
from avistan.runtime.precision import in_float64
from avistan.start.preparation import start_family
from avistan.training.loop import TrainingOptions, train
from code_lines import git
from time_to_answer import Best, Estimate, judged

HERE = Path(__file__).resolve().parent
USUAL = ("lsat", "random_slopes", "2pl-1000", "2pl-10000", "2pl-100000", "linear-10000", "linear-100000")
LONG_NUMBERS, FEWEST, MOST = 6e8, 600, 20_000  # numbers drawn by the long training; its steps
LONG_DRAWS, LONGER = 16, 400
LIMIT = 1500.0  # wall seconds of a process
# Of the warm CPU seconds, at most: those of NumPyro, and of f3623f4.
OF_NUMPYRO, OF_REVISION = (
    {"2pl-100000": 0.25},
    {"2pl-100000": 0.12, "linear-10000": 1.3, "linear-100000": 1.0},
)


@dataclass(frozen=True)
class Fit:
    """CPU seconds of a process, and what its fit says of itself (nats)."""

    cpu: float
    elbo: float
    elbo_se: float
    gradients: int


def main() -> None:
    arguments = parse_arguments()
    compile_sources()
    old = None
    if arguments.revision:
        revision = git("rev-parse", "--verify", f"{arguments.revision}^{{commit}}").strip()
        old = environment(revision, arguments.environments)
    for name in arguments.cases:
        with tempfile.TemporaryDirectory(prefix="avistan-fvi-") as folder:
            case = CASES[name]()
            (Path(folder) / "data.json").write_text(json.dumps(case.data()))
            compare(name, case, Path(folder), old, arguments)


def compare(name: str, case: Case, folder: Path, old: str | None, arguments: argparse.Namespace) -> None:
    data, near = folder / "data.json", case.units / 1000
    new = {heat: fitted(sys.executable, case, data, folder / "new") for heat in ("cold", "warm")}
    model = avi.Model(case.stan_file, data=data)
    best, own, longer, how = optimum(case, model)
    short, error = gap(own, best)
    print(f"\n{case.name}: {model.bound.dim} parameters; optimum {best.elbo:.2f} ({how})", flush=True)
    for heat, fit in new.items():
        print(
            f"  fvi {heat:<12}{fit.cpu:8.2f} s CPU   short {short:.2f} +- {error:.2f} nats   {fit.gradients} gradients",
            flush=True,
        )
    left, error = gap(longer, best)
    print(f"  fvi, {LONGER} steps: short {left:.2f} +- {error:.2f} nats", flush=True)
    if old is not None:
        for heat in ("cold", "warm"):
            before = fitted(old, case, data, folder / "old", **{"PYTHONPATH": ""})
            print(
                f"  {arguments.revision} {heat:<8}{before.cpu:8.2f} s CPU   ELBO {before.elbo:.2f} +- "
                f"{before.elbo_se:.2f} nats   {before.gradients} gradients",
                flush=True,
            )
        told("its CPU", new["warm"].cpu / before.cpu, OF_REVISION.get(name))
    if arguments.numpyro:
        for heat in ("cold", "warm"):
            seconds = numpyro(arguments.numpyro, case, data, folder, heat, model, best, near)
        if seconds is not None:
            told("NumPyro's CPU", new["warm"].cpu / seconds, OF_NUMPYRO.get(name))


def fitted(python: str, case: Case, data: Path, cache: Path, **environment: str) -> Fit:
    """A fit in a process of its own. Raises RuntimeError where it fails."""
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        command = [python, HERE / "_whole_fit.py", "fvi", case.stan_file, data, answer]
        found = measured(command, limit=LIMIT, AVISTAN_CACHE_DIR=str(cache), **environment)
        if found.status:
            raise RuntimeError(found.said)
        said = json.loads(answer.read_text())
    return Fit(found.cpu, said["elbo"], said["elbo_se"], said["gradients"])


def numpyro(
    python: str,
    case: Case,
    data: Path,
    folder: Path,
    heat: str,
    model: avi.Model,
    best: Evaluation,
    near: float,
) -> float | None:
    """CPU seconds to an answer; None where there was none."""
    place = folder / f"numpyro-{heat}"
    place.mkdir()
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "JAX_ENABLE_X64": "0"}
    cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [python, HERE / "_contender.py", "numpyro", case.stan_file, data, place, repr(time.time())]
    run = measured(command, limit=LIMIT, PYTHONPATH=str(HERE), **cache)
    if run.status:
        raise RuntimeError(run.said)
    seconds, short = judged_numpyro(place, model, best, near)
    shown = "never there" if seconds is None else f"{seconds:8.2f} s CPU"
    print(f"  NumPyro {heat:<8}{shown}   short {short:.2f} nats", flush=True)
    return seconds


@in_float64
def judged_numpyro(
    place: Path, model: avi.Model, best: Evaluation, near: float
) -> tuple[float | None, float]:
    """CPU seconds and nats below the optimum at the first look that is near enough, else None and those of the best."""
    answer: dict[str, Any] = json.loads((place / "answer.json").read_text())
    estimate = Estimate(model.bound, len(best.log_weights))
    found = judged("numpyro", answer, place, estimate, Best(best.elbo, best), near)
    assert found.short is not None
    return found.cpu, found.short


@in_float64
def optimum(case: Case, model: avi.Model) -> tuple[Evaluation, Evaluation, Evaluation, str]:
    """The optimum, the fit of this tree and that of a longer training, on the same draws; how the optimum was found."""
    fit, longer = (model.fit(method="fvi", seed=1, steps=steps) for steps in (None, LONGER))
    draws = len(fit.evaluation.log_weights)
    if case.program == "linear":
        import runpy

        exact = runpy.run_path(str(case.stan_file.with_name("closed_form.py")))["mean_field_optimum"](
            case.data()
        )
        estimate = Estimate(model.bound, draws)
        own, more = (estimate.of(*some.marginals()) for some in (fit, longer))
        return estimate.of(exact.mean, exact.sd), own, more, "exact"
    steps = int(np.clip(LONG_NUMBERS / (LONG_DRAWS * model.bound.dim), FEWEST, MOST))
    preparation = model.origin(method="fvi", seed=1).preparation
    family, inputs = start_family(preparation, parse_method("fvi"))
    options = TrainingOptions(
        steps=steps, draws_per_step=LONG_DRAWS, learning_rate=FitOptions().learning_rate
    )
    key = evaluation_key(jax.random.key(1))
    with register(model.bound) as slot:
        long, _ = train(family, inputs, slot.index, options, jax.random.key(9))
        best = evaluate(long, inputs, slot.index, key, draws)
    return best, fit.evaluation, longer.evaluation, f"Adam, {steps} steps of {LONG_DRAWS} draws"


def told(of: str, ratio: float, bar: float | None) -> None:
    held = "" if bar is None else f"   bar {bar:.2f}: {'held' if ratio <= bar else 'NOT HELD'}"
    print(f"    warm, times {of}: {ratio:.3f}{held}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", nargs="?", help="a revision to compare with")
    parser.add_argument("--cases", type=names(CASES), default=list(USUAL))
    parser.add_argument("--environments", type=Path, default=user_cache() / "avistan-environments")
    parser.add_argument("--numpyro", default="", metavar="PYTHON", help="an interpreter that has NumPyro")
    return parser.parse_args()


if __name__ == "__main__":
    main()
