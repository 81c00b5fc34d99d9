"""Hard starts: does a fit end well where the posterior is far from 0 or on scales far from 1?

    python benchmarks/hard_starts.py [--only WORD] [--seeds 1 2 3]

Programs are those of tests/support/hard_programs.py, each fitted by `fvi` with default settings from the quick fit
without its paths (`off`) and with them (`on`). Best known is the best ELBO of these and of a fit whose quick fit began
at the point that the data were simulated at. Columns:

short: nats of ELBO below the best known; right is at most 1 nat or 0.1 % of it.
gradients: of the quick fit, those of paths included.
from NUTS: the largest difference of a mean on the unconstrained scale from that of stanli's NUTS, in NUTS's sds, with
    NUTS's largest R-hat: where this is above 1.05 NUTS had not arrived and the difference says nothing. Programs of
    more than 500 parameters go without NUTS.

Both starts look for their first point of finite density in the same boxes.

CmdStan's ADVI stands beside them, with its own default settings, where CMDSTAN or CMDSTAN_EXE is set.
"""

from __future__ import annotations

import argparse
import os
import runpy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from avistan.comparison.competitors import External
from avistan.comparison.references import Reference, nuts
from avistan.density.slots import register
from avistan.family.method import parse_method
from avistan.fitting.chains import evaluation_key
from avistan.fitting.options import FitOptions
from avistan.fitting.outcome import judge
from avistan.objective.elbo import evaluate
from avistan.runtime.precision import in_float64
from avistan.start.preparation import prepare, start_family
from avistan.start.quick_fit import QuickFit, StartError, quick_fit
from avistan.training.loop import train
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import AvistanError
from stan_adapters.language.program import Program

FloatArray = npt.NDArray[np.float64]

NATS, SHARE = 1.0, 0.001  # an ELBO this near the best known is right
DRAWS = 2000
ARRIVED = 1.05  # R-hat
MOST_SAMPLED = 500  # parameters


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One fit: its ELBO in nats (-inf where there is none) and means (D,)."""

    start: str
    seed: int
    outcome: str
    elbo: float = -np.inf
    gradients: int = 0
    mean: FloatArray | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="programs whose name has this in it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    with_advi = bool(os.environ.get("CMDSTAN") or os.environ.get("CMDSTAN_EXE"))
    if not with_advi:
        print("Neither CMDSTAN nor CMDSTAN_EXE is set: CmdStan's ADVI is left out.\n")
    print(
        f"{'program':<22}{'start':<8}{'seed':>4}  {'outcome':<15}{'ELBO':>15}{'short':>13}{'gradients':>11}"
        f"{'from NUTS':>11}"
    )
    path = Path(__file__).parents[1] / "tests" / "support" / "hard_programs.py"
    right: dict[str, list[bool]] = {}
    began = time.perf_counter()
    for name, make in programs(path).items():
        if arguments.only not in name:
            continue
        hard = make()
        program = Program.from_code(hard.code)
        with BoundModel(program, read_data(program, hard.data)) as model:
            for start, is_right in compare(name, model, hard.truth, arguments.seeds, with_advi):
                right.setdefault(start, []).append(is_right)
    told = ", ".join(f"{start}: {sum(found)} of {len(found)}" for start, found in right.items())
    print(f"\nRight by the ELBO: {told}. {time.perf_counter() - began:.0f} s.")


def programs(path: Path) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = runpy.run_path(str(path), run_name="hard_programs")["PROGRAMS"]
    return found


def compare(
    name: str, model: BoundModel, truth: dict[str, Any], seeds: list[int], with_advi: bool
) -> list[tuple[str, bool]]:
    """Print the rows of one program; which starts were right."""
    point = model.unconstrain({key: np.asarray(value, dtype=float) for key, value in truth.items()})
    known = fitted(model, "truth", 1, lambda: quick_fit(model, seed=1, start=point))
    rows = []
    for seed in seeds:
        rows += [
            fitted(model, "off", seed, lambda seed=seed: quick_fit(model, seed=seed, path=False)),
            fitted(model, "on", seed, lambda seed=seed: quick_fit(model, seed=seed)),
        ]
        if with_advi:
            rows.append(advi(model, seed))
    best = max(row.elbo for row in [known, *rows])
    reference = sampled(model)
    found = []
    for row in sorted(rows, key=lambda row: [row.start, row.seed]):
        short = best - row.elbo
        found.append((row.start, bool(short <= max(NATS, SHARE * abs(best)))))
        print(
            f"{name:<22}{row.start:<8}{row.seed:>4}  {row.outcome:<15}{row.elbo:>15.2f}{short:>13.2f}"
            f"{row.gradients:>11}{difference(row, reference):>11}",
            flush=True,
        )
    rhat = "no NUTS" if reference is None else f"NUTS's largest R-hat {reference.max_rhat:.3f}"
    print(f"{'':<22}best known {best:.2f}, from the truth {known.elbo:.2f}; {rhat}", flush=True)
    return found


@in_float64
def fitted(model: BoundModel, start: str, seed: int, make_quick: Callable[[], QuickFit]) -> Row:
    """`fvi` with default settings from a quick fit."""
    try:
        quick = make_quick()
    except StartError:
        return Row(start=start, seed=seed, outcome="no start")
    preparation = prepare(model, None, seed=seed, num_references=24, max_rank=16).started_at(quick)
    family, inputs = start_family(preparation, parse_method("fvi"))
    key = jax.random.key(seed)
    with register(model) as slot:
        family, trace = train(family, inputs, slot.index, FitOptions().training, jax.random.fold_in(key, 1))
        evaluation = evaluate(family, inputs, slot.index, evaluation_key(key), DRAWS)
    frame = family.frame
    mean = np.asarray(frame.global_center) + np.asarray(frame.global_scale) * np.asarray(
        family.globals.resolved().loc
    )
    return Row(
        start=start,
        seed=seed,
        outcome=judge(trace, evaluation).name,
        elbo=evaluation.elbo if np.isfinite(evaluation.elbo) else -np.inf,
        gradients=quick.gradient_evaluations,
        mean=mean,
    )


def advi(model: BoundModel, seed: int) -> Row:
    """CmdStan's ADVI; its ELBO on draws of ours."""
    try:
        with External(model, cmdstan_exe=os.environ.get("CMDSTAN_EXE")) as external:
            found = external.approximate("cmdstan-advi", seed=seed)
    except AvistanError:
        return Row(start="advi", seed=seed, outcome="failed")
    if found.mean_field is None:
        return Row(start="advi", seed=seed, outcome="no moments")
    mean, sd = found.mean_field
    half = np.random.default_rng([seed, 3]).standard_normal((DRAWS // 2, model.dim))
    noise = np.concatenate([half, -half])
    log_q = -0.5 * (noise**2).sum(axis=1) - np.log(sd).sum() - 0.5 * model.dim * np.log(2 * np.pi)
    weights = model.log_density_gradient(mean + sd * noise)[0] - log_q
    elbo = float(weights.mean()) if np.isfinite(weights).all() else -np.inf
    gradients = found.gradient_evaluations or 0
    return Row(start="advi", seed=seed, outcome="ended", elbo=elbo, gradients=gradients, mean=mean)


def sampled(model: BoundModel) -> Reference | None:
    """Draws of NUTS; None where it fails or has too many parameters."""
    if model.dim > MOST_SAMPLED:
        return None
    try:
        return nuts(model, seed=1)
    except AvistanError:
        return None


def difference(row: Row, reference: Reference | None) -> str:
    """The largest difference of means in sds of NUTS."""
    if row.mean is None or reference is None or not reference.max_rhat <= ARRIVED:
        return "-"
    draws = reference.theta.reshape(-1, len(row.mean))
    return f"{(np.abs(row.mean - draws.mean(axis=0)) / draws.std(axis=0)).max():.2f}"


if __name__ == "__main__":
    main()
