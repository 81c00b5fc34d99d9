"""What richer variational families buy on hierarchical programs, and what they cost.

    python benchmarks/families.py [--only WORD] [--draws 500] [--output PREFIX]

Every program is fitted by A-VI in each family with default settings, where the stopping rule decides the steps, and by
`auto`, whose row carries the family that it ended with. Columns:

ELBO: nats, up to the program's constant, with its standard error.
gain: ELBO over that of `diagonal` (mean-field globals, diagonal locals), on the draws that both share.
step: seconds of a training step over those of `diagonal`, measured in turns, the least of the rounds each.
sd, globals and locals: sds over those of NUTS, means over the parameters on the unconstrained scale.
corrected: of the globals of `auto` as `fit.posterior()` hands them out; empty where they could not be corrected.
corr: mean |error| of the correlations between a global and a latent, where NUTS's are beyond 0.3 either way; the line
    of NUTS has their number and mean size, and its largest R-hat. NUTS samples the centred schools and occupancy
    as non-centred programs, in whose coordinates it is at ease.
seconds: of the whole fit, the shared start apart, compilation included.

A second table has the step of every family on the program with 20 globals, of free factors (fvi) and of networks (avi).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from _family_programs import PROGRAMS, SAMPLED_AS
from _moments import STRONG, Moments, moments
from _steps import TimedSteps
from avistan.comparison.references import Reference, nuts
from avistan.density.slots import register
from avistan.family.method import parse_method
from avistan.fit import Fit
from avistan.fitting.options import FitOptions
from avistan.model import Model
from avistan.objective.elbo import gap
from avistan.pictures.house_style import COLOURS, GRID, INK, MUTED
from avistan.posterior.handed_out import unconstrained_posterior
from avistan.runtime.precision import in_float64
from avistan.start.preparation import prepare, split, start_family
from stan_adapters.levels.levels import Level

FloatArray = npt.NDArray[np.float64]

FAMILIES = {
    "diagonal": "avi",
    "full": "avi:full",
    "full-rank": "avi:full-rank",
    "full, full-rank": "avi:full:full-rank",
    "+ conditional": "avi:full:full-rank:conditional",
    "+ conditional scale": "avi:full:full-rank:conditional(mean+scale)",
    "+ curves": "avi:full:full-rank:conditional(curved)",
    "+ flow": "avi:full:full-rank:conditional(curved):flow",
}
STEPS_ON = "20 globals"
ROUNDS, CHUNK = 7, 50


@dataclass(frozen=True, kw_only=True)
class Row:
    """A family on a program."""

    program: str
    family: str
    elbo: float
    elbo_se: float
    gain: float
    gain_se: float
    step: float  # over diagonal's; nan for `auto`, which passes through several families
    sd_globals: float
    sd_corrected: float  # of `auto` alone; nan where they could not be corrected
    sd_locals: float
    corr_error: float
    seconds: float
    ended_as: str = ""


def main() -> None:
    given = parse_arguments()
    print(
        f"{'program':<21}{'family':<21}{'ELBO':>10}{'se':>7}{'gain':>9}{'se':>7}{'step':>7}"
        f"{'sd globals':>12}{'corrected':>11}{'sd locals':>11}{'corr':>7}{'seconds':>9}  auto ended with"
    )
    rows: list[Row] = []
    started = time.perf_counter()
    for program, make in PROGRAMS.items():
        if given.only in program:
            rows += measure(program, make(), given.draws)
    if given.only in STEPS_ON:
        print_steps()
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    draw(rows, given.output)


def measure(program: str, model: Model, draws: int) -> list[Row]:
    level = model.inspect().level
    assert level is not None
    sampled = SAMPLED_AS[program]() if program in SAMPLED_AS else model
    reference = nuts(sampled.bound, seed=1, warmup=draws, draws=draws)
    truth = moments(model, level, in_coordinates_of(model, sampled, reference))
    names = FAMILIES
    if level.block == 1:  # a full covariance of one latent is a diagonal one
        names = {family: name.replace(":full:", ":") for family, name in FAMILIES.items()}
        names = {family: name for family, name in names.items() if not family.startswith("full,")}
        names.pop("full")
    times = step_times(model, level, list(names.values()))
    fits: dict[str, Fit] = {}
    rows = []
    for family, name in {**names, "auto": "auto"}.items():
        started = time.perf_counter()
        fit = fits[family] = model.fit(method=name, seed=1)
        seconds = time.perf_counter() - started
        gain, gain_se = gap(fits["diagonal"].evaluation, fit.evaluation)
        own = moments(model, level, fit.unconstrained_draws(4000)[0])
        rows.append(
            Row(
                program=program,
                family=family,
                elbo=fit.elbo,
                elbo_se=fit.elbo_se,
                gain=gain,
                gain_se=gain_se,
                step=times[name] / times["avi"] if name in times else float("nan"),
                sd_globals=float(np.mean(own.sd_globals / truth.sd_globals)),
                sd_corrected=corrected_sd(fit, model, level, truth) if name == "auto" else float("nan"),
                sd_locals=float(np.mean(own.sd_locals / truth.sd_locals)),
                corr_error=own.corr_error(truth),
                seconds=seconds,
                ended_as=fit.method.name if name == "auto" else "",
            )
        )
        print_row(rows[-1])
    print_reference(program, reference, truth)
    return rows


def in_coordinates_of(model: Model, sampled: Model, reference: Reference) -> FloatArray:
    """Draws (S, D) of a program as those of another that writes the same posterior in other parameters."""
    theta = reference.theta.reshape(-1, sampled.bound.dim)
    if sampled is model:
        return theta
    values, _ = sampled.bound.constrain(theta, generated_quantities=False)
    return model.bound.unconstrain_draws(values)


@in_float64
def step_times(model: Model, level: Level, names: Sequence[str]) -> dict[str, float]:
    """Seconds of a step of each method, least of the rounds, all methods in turns."""
    options = FitOptions()
    preparation = prepare(
        model.bound, level, seed=1, num_references=options.num_references, max_rank=options.max_rank
    )
    rates = np.full(CHUNK, 1e-4)
    with register(model.bound) as slot:
        trainers = {}
        for name in names:
            family, inputs = start_family(preparation, parse_method(name))
            trainers[name] = TimedSteps(
                family, inputs, slot.index, jax.random.key(1), draws=options.draws_per_step
            )
            trainers[name].run(rates)
        least = dict.fromkeys(names, np.inf)
        for _ in range(ROUNDS):
            for name, trainer in trainers.items():
                started = time.perf_counter()
                trainer.run(rates)
                least[name] = min(least[name], (time.perf_counter() - started) / CHUNK)
    return least


def print_steps() -> None:
    """Steps of free factors and of networks in every family, microseconds and over the diagonal family's."""
    model = PROGRAMS[STEPS_ON]()
    level = model.inspect().level
    assert level is not None
    num_globals = len(split(model.bound, level)[1])
    print(
        f"\nSteps on {STEPS_ON!r}: G = {num_globals}, d = {level.block}, N = {level.num_units}, microseconds and ratio"
    )
    parts = {family: name.removeprefix("avi") for family, name in FAMILIES.items()}
    parts["low-rank(5)"] = ":low-rank(5)"
    found = {
        head: step_times(model, level, [head + part for part in parts.values()]) for head in ("fvi", "avi")
    }
    print(f"{'':<21}{'fvi':>9}{'ratio':>7}{'avi':>9}{'ratio':>7}")
    for family, part in parts.items():
        numbers = "".join(
            f"{1e6 * times[head + part]:>9.1f}{times[head + part] / times[head]:>7.2f}"
            for head, times in found.items()
        )
        print(f"{family:<21}{numbers}", flush=True)


def corrected_sd(fit: Fit, model: Model, level: Level, truth: Moments) -> float:
    """The globals' sds over NUTS's as they are handed out; nan where the correction can't be relied on."""
    if not fit.corrected().correction.reliable:
        return float("nan")
    theta = unconstrained_posterior(fit, 4000)
    return float(np.mean(moments(model, level, theta).sd_globals / truth.sd_globals))


def print_row(row: Row) -> None:
    step = "" if np.isnan(row.step) else f"{row.step:.2f}"
    corrected = "" if np.isnan(row.sd_corrected) else f"{row.sd_corrected:.3f}"
    corr = "" if np.isnan(row.corr_error) else f"{row.corr_error:.3f}"
    print(
        f"{row.program:<21}{row.family:<21}{nats(row.elbo):>10}{nats(row.elbo_se):>7}{nats(row.gain):>9}"
        f"{nats(row.gain_se):>7}"
        f"{step:>7}{row.sd_globals:>12.3f}{corrected:>11}{row.sd_locals:>11.3f}{corr:>7}{row.seconds:>9.1f}"
        f"  {row.ended_as}".rstrip(),
        flush=True,
    )


def nats(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1e6 else f"{value:.0e}"


def print_reference(program: str, reference: Reference, truth: Moments) -> None:
    strong = np.abs(truth.corr[np.abs(truth.corr) > STRONG])
    size = f", mean size {strong.mean():.2f}" if strong.size else ""
    print(
        f"{program:<21}NUTS: {reference.theta.shape[0]} x {reference.theta.shape[1]} draws in "
        f"{reference.seconds:.1f} s, R-hat {reference.max_rhat:.3f}, {reference.divergences} divergences; "
        f"{strong.size} strong of {truth.corr.size} correlations{size}",
        flush=True,
    )


def draw(rows: Sequence[Row], output: Path) -> None:
    """The table as a picture: one line a program, one mark a family, without those that failed by 100 nats."""
    rows = [row for row in rows if row.gain > -100]
    programs = list(dict.fromkeys(row.program for row in rows))
    families = [*FAMILIES, "auto"]
    panels = (
        ("nats gained on diagonal", "gain", None),
        ("sd of globals / NUTS's", "sd_globals", 1.0),
        ("error of correlations, globals and latents", "corr_error", 0.0),
        ("step time / diagonal's", "step", 3.0),
    )
    figure = Figure(figsize=(13, 0.62 * len(programs) + 1.6), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(panels), sharey=True)
    marks = dict(zip(families, "osD^v<P*X", strict=True))
    colours = dict(zip(families, (MUTED, *COLOURS, "#6b4fa0", INK), strict=True))
    for ax, (title, column, line) in zip(axes, panels, strict=True):
        if line is not None:
            ax.axvline(line, color=INK, linewidth=0.8, linestyle=":")
        for row in rows:
            place = programs.index(row.program) + 0.08 * (families.index(row.family) - 4)
            ax.plot(
                getattr(row, column),
                place,
                marks[row.family],
                color=colours[row.family],
                markersize=6,
                label=row.family,
            )
        ax.set_title(title, fontsize=10, color=INK)
        ax.grid(axis="x", color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        for side in ("top", "right", "left"):
            ax.spines[side].set_visible(False)
        for border in range(1, len(programs)):
            ax.axhline(border - 0.5, color=GRID, linewidth=0.6)
        ax.tick_params(axis="y", length=0)
    axes[0].set_xscale("symlog", linthresh=1)
    axes[0].set_xlim(-0.5, 120)
    axes[0].set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    axes[0].set_yticks(range(len(programs)), programs)
    axes[0].set_ylim(len(programs) - 0.5, -0.5)
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        [handles[family] for family in families if family in handles],
        [family for family in families if family in handles],
        loc="outside lower center",
        ncols=len(families),
        frameon=False,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output.with_suffix(".png"), dpi=110)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="programs whose name has this in it")
    parser.add_argument("--draws", type=int, default=500, help="of each of NUTS's 4 chains, after as many")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "families",
        help="where the picture goes, without its ending",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
