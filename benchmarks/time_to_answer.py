"""Seconds from the start of a process to an answer, every contender in its own process, side by side in one run.

    python benchmarks/time_to_answer.py [--cases linear-1000,...] [--contenders avi,...] [--output PREFIX]

An answer is an approximation whose ELBO is within 0.1 % and within 1 nat per 1000 units of the best mean field's. That
optimum is exact for `linear`; elsewhere it is that of a long fit of F-VI by avistan. Whatever was fitted is measured by
one estimate: draws of q against Stan's own density, the same normals for all, so that differences are far more precise
than either ELBO. `auto` may end in a richer family, above that optimum.

Contenders: avistan's `auto` and `fvi`, each with an empty compile cache (cold) and with the one that leaves (warm);
NumPyro's SVI with AutoNormal and Adam (0.02, halved every 2000 steps: at a constant 0.01 it stays nats away), in
compiled chunks of 500 steps, looked at after each, cold and with JAX's own cache (warm); stanli's NUTS (4 chains,
1000 + 1000) and Pathfinder, which aim at other things and have no ELBO here; and, where CMDSTAN or CMDSTAN_EXE is set,
CmdStan's ADVI with its defaults, and with all of its 10000 iterations and of ten times as many (`cmdstan-advi-10000`,
`cmdstan-advi-100000`), because by its defaults it mostly ends early. Seconds include Python, imports (of bytecode, as
after an installation), reading the data, compilation, and, for avistan, the check of structure and the final estimate.
Of CmdStan they leave out the C++ compilation, which comes before, and what the adapter adds (binding, the comparison
with the model): they are Python, imports, and CmdStan's run with its output read. Beyond 3900 parameters its ELBO is
that of its draws.

CPU are seconds of the process on all processors, where avistan's or NumPyro's were taken.

The last lines of a table are ADVI's seconds over avistan's. Where ADVI never got to an answer it is its whole run that
is divided, so the ratio is a lower bound, marked >=.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

import avistan
import avistan as avi
import stan_adapters
from _arguments import names
from _cases import CASES, Case
from avistan.density.slots import register
from avistan.family.family import mean_field_family
from avistan.fitting.chains import evaluation_key
from avistan.objective.elbo import Evaluation, evaluate, gap
from avistan.runtime.device import zeros
from avistan.runtime.errors import AvistanError
from avistan.runtime.precision import in_float64
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import CmdStanError
from stan_adapters.language.program import Program

FloatArray = npt.NDArray[np.float64]
HERE = Path(__file__).resolve().parent
USUAL_CASES = ("linear-1000", "linear-10000", "linear-100000", "lsat", "random_slopes", "2pl-100000")
ADVI = ("cmdstan-advi", "cmdstan-advi-10000", "cmdstan-advi-100000")
CONTENDERS = ("auto", "fvi", "numpyro", "nuts", "pathfinder", *ADVI)
CACHED = ("auto", "fvi", "numpyro")  # measured cold and warm
NUTS_UNITS = 10_000  # at most
LONG_NUMBERS = 3e9  # numbers drawn in a long fit, at most
DRAWS_NUMBERS, MOST_DRAWS = 2e7, 2000  # of an estimate
LIMIT = 900.0  # seconds of a process, at most
WEIGHTS = "log_weights.npy"  # of a fit by avistan, on the normals that its seed gives


@dataclass
class Result:
    """What a contender did. Attributes:

    seconds: to an answer; None where it never got there, or has no ELBO.
    cpu: CPU seconds of its process to that answer, where they were taken.
    short: nats below the optimum, at its answer or else at its best; infinite where it was stopped.
    total: seconds of the whole process.
    """

    contender: str
    seconds: float | None = None
    cpu: float | None = None
    short: float | None = None
    total: float | None = None
    split: dict[str, float] = field(default_factory=dict)
    remark: str = ""


def main() -> None:
    arguments = parse_arguments()
    for package in (avistan, stan_adapters):
        compileall.compile_dir(Path(package.__file__).parent, quiet=2)
    tables = {}
    for name in arguments.cases:
        case = CASES[name]()
        tables[case.name] = measure(case, arguments.contenders, arguments.limit)
    if arguments.answers:
        arguments.answers.write_text(json.dumps(answers(arguments.cases, list(tables.values()))))
    if arguments.output:
        draw(tables).savefig(f"{arguments.output}.png", dpi=150)


def answers(cases: list[str], tables: list[list[Result]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Seconds and CPU seconds to an answer, by case and contender."""
    return {
        case: {result.contender: {"seconds": result.seconds, "cpu": result.cpu} for result in results}
        for case, results in zip(cases, tables, strict=True)
    }


def measure(case: Case, contenders: list[str], limit: float = LIMIT) -> list[Result]:
    data = case.data()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data_file = folder / "data.json"
        data_file.write_text(json.dumps(data))
        runs: dict[str, tuple[dict[str, Any] | str, Path]] = {}
        for contender in contenders:
            if contender == "nuts" and case.units > NUTS_UNITS:
                continue
            if contender in ADVI and not (os.environ.get("CMDSTAN") or os.environ.get("CMDSTAN_EXE")):
                continue
            for heat in ("cold", "warm") if contender in CACHED else ("",):
                place = folder / f"{contender}-{heat}"
                place.mkdir()
                answer: dict[str, Any] | str
                try:
                    executable = cmdstan_executable(case, folder) if contender in ADVI else ""
                    answer = start(contender, case, data_file, place, folder / "cache", limit, executable)
                except AvistanError as error:
                    answer = str(error)
                runs[f"{contender} {heat}".strip()] = (answer, place)
        model = avi.Model(case.stan_file, data=data_file)
        return report(case, model, runs)


def cmdstan_executable(case: Case, folder: Path) -> str:
    """CMDSTAN_EXE, or the case's program compiled with the CmdStan in CMDSTAN.

    Raises:
        CmdStanError: it doesn't compile.
    """
    given = os.environ.get("CMDSTAN_EXE")
    if given:
        return given
    import cmdstanpy

    source = folder / "program.stan"
    source.write_text(Program.from_file(case.stan_file).without_generated_quantities().source)
    try:
        return str(cmdstanpy.CmdStanModel(stan_file=source).exe_file)
    except (ValueError, RuntimeError, OSError) as error:
        raise CmdStanError(f"CmdStan can't compile {case.name}: {error}") from error


def start(
    contender: str, case: Case, data_file: Path, place: Path, cache: Path, limit: float, executable: str
) -> dict[str, Any] | str:
    """The contender's answer, or why it has none; `executable` is CmdStan's, for its ADVI."""
    own = str(cache / contender)
    environment = os.environ | {
        "AVISTAN_CACHE_DIR": own,
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
    }
    environment.pop("AVISTAN_NO_CACHE", None)
    if executable:
        environment["CMDSTAN_EXE"] = executable
    if contender == "numpyro":
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": own,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_ENABLE_X64": "0",
        }
    command = [
        sys.executable,
        str(HERE / "_contender.py"),
        contender,
        str(case.stan_file),
        str(data_file),
        str(place),
    ]
    try:
        done = subprocess.run(
            [*command, repr(time.time())],
            capture_output=True,
            text=True,
            env=environment,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"seconds": limit, "remark": f"stopped after {limit:.0f} s", "stopped": True}
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    answer: dict[str, Any] = json.loads((place / "answer.json").read_text())
    return answer


@in_float64
def report(case: Case, model: avi.Model, runs: dict[str, tuple[dict[str, Any] | str, Path]]) -> list[Result]:
    bound, units = model.bound, case.units
    fitted = [np.load(place / WEIGHTS) for _, place in runs.values() if (place / WEIGHTS).exists()]
    draws = len(fitted[0]) if fitted else int(min(MOST_DRAWS, max(40, DRAWS_NUMBERS // bound.dim) // 2 * 2))
    estimate = Estimate(bound, draws)
    best, how = optimum(case, model, estimate)
    near = min(0.001 * abs(best.elbo), units / 1000)
    print(
        f"\n{case.name}: {bound.dim} parameters; optimum {best.elbo:.2f} ({how}); an answer is within {near:.2f} nats"
    )
    print(f"{'contender':<20}{'seconds':>9}{'CPU':>9}{'short, nats':>13}{'whole run':>11}  remarks")
    results = []
    for contender, (answer, place) in runs.items():
        result = judged(contender, answer, place, estimate, best, near)
        results.append(result)
        seconds = "never" if result.seconds is None else f"{result.seconds:.2f}"
        if result.short is None:
            seconds = "-"
        short = "-" if result.short is None else f"{result.short:.2f}"
        cpu = "-" if result.cpu is None else f"{result.cpu:.2f}"
        total = "-" if result.total is None else f"{result.total:.2f}"
        split = ", ".join(f"{name} {value:.2f}" for name, value in result.split.items())
        remarks = "; ".join(filter(None, [result.remark, split]))
        print(
            f"{contender:<20}{seconds:>9}{cpu:>9}{short:>13}{total:>11}  {remarks}",
            flush=True,
        )
    for line in ratios(results):
        print(line, flush=True)
    return results


def ratios(results: list[Result]) -> list[str]:
    """ADVI's seconds over avistan's, a line for each of its settings that ran."""
    return [ratio(result, results) for result in results if result.contender in ADVI]


def ratio(advi: Result, results: list[Result]) -> str:
    length = advi.seconds if advi.seconds is not None else advi.total
    if length is None:
        return f"{advi.contender} / avistan: ADVI failed, no ratio"
    bound = "" if advi.seconds is not None else ">= "
    parts = [
        f"{result.contender} "
        + ("never" if result.seconds is None else f"{bound}{length / result.seconds:.1f}")
        for result in results
        if result.contender.startswith(("auto", "fvi"))
    ]
    return f"{advi.contender} / avistan: {', '.join(parts)}"


def judged(
    contender: str, answer: dict[str, Any] | str, place: Path, estimate: Estimate, best: Best, near: float
) -> Result:
    if isinstance(answer, str):
        return Result(contender, remark=answer)
    result = Result(contender, total=answer["seconds"], split=answer.get("split", {}))
    result.remark = answer.get("remark", "")
    if answer.get("stopped"):
        result.short = np.inf
        return result
    if "elbo_se" in answer:  # the approximation is known by its draws alone
        result.short = best.elbo - answer["elbo"]
        result.seconds = answer["seconds"] if result.short < near else None
        result.remark = f"its ELBO's standard error is {answer['elbo_se']:.2f}"
    if (place / WEIGHTS).exists():
        own = Evaluation(np.load(place / WEIGHTS))
        result.short = best.short(own) if len(own.log_weights) == estimate.draws else best.elbo - own.elbo
        if result.short < near:
            result.seconds, result.cpu = answer["seconds"], answer["cpu"]
        result.remark = f"{answer['family']}, {answer['gradients']} gradients"
    for seconds, cpu, mean, sd in moments_of(place, estimate.model):
        short = best.short(estimate.of(mean, sd))
        if result.short is None or short < result.short:
            result.short = short
        if short < near:
            result.seconds, result.cpu, result.short = seconds, cpu, short
            break
    return result


def moments_of(place: Path, model: BoundModel) -> list[tuple[float, float | None, FloatArray, FloatArray]]:
    """Seconds, CPU seconds, means (D,) and sds (D,) in Stan's order, of every look at a mean-field contender."""
    if (place / "moments.npz").exists():
        with np.load(place / "moments.npz") as found:
            return [(float(found["seconds"][0]), None, found["mean"], found["sd"])]
    if not (place / "snapshots.npz").exists():
        return []
    with np.load(place / "snapshots.npz") as found:
        looks = []
        for number, (seconds, cpu) in enumerate(zip(found["seconds"], found["cpu"], strict=True)):
            parts = [
                np.concatenate([found[f"{part}.{c.name}"][number].ravel() for c in model.layout.containers])
                for part in ("loc", "scale")
            ]
            mean, sd = (part.astype(np.float64) for part in parts)
            looks.append((float(seconds), float(cpu), mean, sd))
        return looks


class Estimate:
    """ELBOs of mean-field Gaussians on the same normals."""

    def __init__(self, model: BoundModel, draws: int) -> None:
        self.model, self.draws = model, draws

    def of(self, mean: FloatArray, sd: FloatArray) -> Evaluation:
        with register(self.model) as slot:
            family, nothing = mean_field_family(mean, sd), zeros(0, 0, dtype=np.float32)
            return evaluate(family, nothing, slot.index, evaluation_key(jax.random.key(1)), self.draws)


@dataclass
class Best:
    """The optimum: its ELBO, and its estimate on the common normals."""

    elbo: float
    evaluation: Evaluation

    def short(self, other: Evaluation) -> float:
        """Nats that another is below it."""
        return gap(other, self.evaluation)[0]


def optimum(case: Case, model: avi.Model, estimate: Estimate) -> tuple[Best, str]:
    if case.program == "linear":
        import runpy

        exact = runpy.run_path(str(case.stan_file.with_name("closed_form.py")))["mean_field_optimum"](
            case.data()
        )
        return Best(exact.elbo, estimate.of(exact.mean, exact.sd)), "exact"
    steps = int(np.clip(LONG_NUMBERS / (16 * model.bound.dim), 1000, 20_000))
    fit = model.fit(method="fvi", steps=steps, draws_per_step=16, seed=1)
    mean, sd = fit.marginals()
    evaluation = estimate.of(mean, sd)
    return Best(evaluation.elbo, evaluation), f"F-VI, {steps} steps of 16 draws"


def draw(tables: dict[str, list[Result]]) -> Figure:
    """Seconds to an answer, a panel for each problem; an empty bar never got there, a grey one has no ELBO."""
    figure = Figure(figsize=(3.4 * len(tables), 3.2), layout="constrained")
    for axes, (name, results) in zip(
        np.atleast_1d(figure.subplots(1, len(tables), squeeze=True)), tables.items(), strict=True
    ):
        shown = [result for result in reversed(results) if result.total is not None]
        for row, result in enumerate(shown):
            reached = result.seconds is not None or result.short is None
            length = result.seconds if result.seconds is not None else result.total
            color = "C0" if result.contender.startswith(("auto", "fvi")) else "C1"
            color = "0.7" if result.short is None else color
            axes.barh(row, length, color=color if reached else "none", edgecolor=color)
        axes.set_yticks(range(len(shown)), [result.contender for result in shown])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds from process start")
        axes.set_title(name)
    return figure


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=names(CASES), default=list(USUAL_CASES), help=", ".join(CASES))
    parser.add_argument(
        "--contenders", type=names(CONTENDERS), default=list(CONTENDERS), help=", ".join(CONTENDERS)
    )
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of a process, at most")
    parser.add_argument("--answers", type=Path, help="file of the seconds to an answer, JSON")
    parser.add_argument("--output", help="prefix of the figure, such as benchmarks/results/time_to_answer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
