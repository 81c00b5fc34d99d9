"""Warm-up of NUTS from a fit and from nothing, until R-hat is below 1.01, side by side in one run.

    python benchmarks/warm_start.py [--models random_slopes,lsat_2pl,eight_schools] [--draws 2000] [--seed 1]

stanli's NUTS with 4 chains: its own start with warm-ups from 100 to the default of 1000 iterations, and `warm_start` of
an `auto` fit with 25, 50 and 100. Counted are the leapfrog steps, which are gradients, of all chains together: those of
the warm-up, and those of the warm-up and the draws up to the first checkpoint from which the largest rank-normalized
R-hat of all parameters stays below 1.01. The fit's own gradients stand beside them; a fit is there for other reasons,
and where it is not, they count.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import stanli
from arviz_stats.base import array_stats

import avistan as avi
from avistan.posterior.warm_start import warm_start

LIMIT = 1.01
COLD, WARM = (100, 150, 300, 1000), (25, 50, 100)
CHECKPOINTS = 20
LEAPFROGS = stanli.SAMPLER_COLUMNS.index("n_leapfrog__")


@dataclass(frozen=True)
class Run:
    warmup_gradients: int
    max_rhat: float  # of all draws
    gradients_to_limit: int | None  # warm-up included
    divergences: int
    seconds: float


def main() -> None:
    arguments = parse_arguments()
    for name in arguments.models.split(","):
        folder = avi.models_root() / name
        model = avi.Model(folder / f"{name}.stan", data=folder / "data.json")
        measure(model, arguments.draws, arguments.seed)


def measure(model: avi.Model, draws: int, seed: int) -> None:
    fit = model.fit(seed=seed)
    start = warm_start(fit)
    program = model.program.without_generated_quantities()
    sampler = stanli.Model(stan_code=program.source, data=model.data.to_json(), seed=seed)
    print(
        f"\n{model.program.name}: {model.bound.dim} parameters, 4 chains of {draws} draws; the {fit.method.name} fit "
        f"took {fit.gradient_evaluations} gradients, its warm start {start.gradient_evaluations}"
    )
    print(
        f"{'start':<8}{'iterations':>11}{'warm-up gradients':>19}{'max R-hat':>11}{'gradients to 1.01':>19}"
        f"{'divergent':>11}{'seconds':>9}"
    )
    runs: dict[tuple[str, int], Run] = {}
    for kind, lengths in (("cold", COLD), ("warm", WARM)):
        for length in lengths:
            given = start.stanli(length) if kind == "warm" else {"warmup": length, "chains": 4}
            run = runs[kind, length] = sample(sampler, given | {"seed": seed}, draws)
            reached = "-" if run.gradients_to_limit is None else str(run.gradients_to_limit)
            print(
                f"{kind:<8}{length:>11}{run.warmup_gradients:>19}{run.max_rhat:>11.4f}{reached:>19}"
                f"{run.divergences:>11}{run.seconds:>9.1f}",
                flush=True,
            )
    compare(runs)


def compare(runs: dict[tuple[str, int], Run]) -> None:
    """The cheapest warm-up of each kind whose draws reach the limit, and the default one."""
    best = {}
    for kind in ("cold", "warm"):
        reaching = [
            run.warmup_gradients for (k, _), run in runs.items() if k == kind and run.max_rhat < LIMIT
        ]
        if not reaching:
            print(f"no {kind} start reached R-hat {LIMIT}: more draws are needed")
            return
        best[kind] = min(reaching)
    default = runs["cold", 1000].warmup_gradients
    print(
        f"warm-up gradients to R-hat below {LIMIT}: warm {best['warm']}; cold {best['cold']} at its shortest, "
        f"{best['cold'] / best['warm']:.1f} times as many, and {default} by default, {default / best['warm']:.1f} times"
    )


def sample(sampler: stanli.Model, given: dict[str, Any], draws: int) -> Run:
    started = time.perf_counter()
    fit = sampler.sample(samples=draws, save_warmup=True, refresh=0, **given)
    seconds = time.perf_counter() - started
    warmup = given["warmup"]
    gradients = fit.sampler_stats[:, :, LEAPFROGS].sum(axis=0).cumsum()
    kept = fit.draws()[:, warmup:]
    ends = np.linspace(0, draws, CHECKPOINTS + 1).astype(int)[1:]
    rhats = [max_rhat(kept[:, :end]) for end in ends]
    above = [place for place, rhat in enumerate(rhats) if not rhat < LIMIT]
    first = above[-1] + 1 if above else 0
    return Run(
        warmup_gradients=int(gradients[warmup - 1]),
        max_rhat=rhats[-1],
        gradients_to_limit=int(gradients[warmup + ends[first] - 1]) if first < len(ends) else None,
        divergences=int(fit.divergences.sum()),
        seconds=seconds,
    )


def max_rhat(draws: np.ndarray) -> float:
    """The largest rank-normalized R-hat of draws (C, S, P)."""
    return float(np.max(array_stats.rhat(draws, chain_axis=0, draw_axis=1)))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="random_slopes,lsat_2pl,eight_schools")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
