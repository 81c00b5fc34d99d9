"""CPU and wall seconds of a whole process to a posterior worth 400 effective draws: `avistan fit` against NUTS.

    python benchmarks/time_to_posterior.py [--programs DIR [--only NAME,...]] [--cases linear-1000,...] [--large]
        [--warm-only] [--limit SECONDS] [--output FILE]

avistan: `avistan fit PROGRAM DATA --output FOLDER`: it trains, corrects, diagnoses and writes 1000 draws.
    Once with an empty cache of compiled programs (cold), then with the one that this leaves (warm).
NUTS: stanli's, with Python, imports and binding: 4 chains of 1000 steps of warm-up, and 100 draws each, or as many
    more as it takes until the globals' bulk effective draws are at least 400; only the last run counts.

ESS: fewest effective draws of a global (a parameter that is no unit's latent), copies counted once. NUTS that is
stopped after the limit makes a lower bound of the ratio, marked >=. A ratio is NUTS's seconds over avistan's warm ones.
Bars, of CPU seconds: no program slower than 1.5 times NUTS, or than 5 s where that is more; 10 times faster at 10^4
units and 50 times at 10^5.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from _posteriors import Moments, Posterior, component, read_bank
from _processes import HERE, Measured, asked, measured

LIMIT = 900.0  # wall seconds of a process
EFFECTIVE = 400.0
WARMUP, FIRST, MOST = 1000, 100, 12_800  # steps of warm-up; draws of a chain in the first run, and at most
MARGIN, LONGER = 1.2, (1.5, 8.0)  # more draws than the last run says; how many times as many the next run has
SLOWER, ANYWAY = 1.5, 5.0  # times NUTS's seconds, and seconds that are always granted
FASTER = {10_000: 10.0, 100_000: 50.0}  # by units
SMALL = 100  # numbers of a variable that counts as global where NUTS does not say which are
USUAL = ("linear-1000", "2pl-1000", "linear-10000", "2pl-10000")
LARGE = ("linear-100000", "2pl-100000")
REFUSED = 3  # exit status of a fit whose diagnosis fails
HEADER = f"{'case':<48}{'':<14}{'CPU s':>9}{'wall s':>9}{'MiB':>8}{'ESS':>8}  remarks"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A process to a posterior: seconds, MiB, and the fewest effective draws of a global."""

    cpu: float
    wall: float
    memory: float = math.nan
    ess: float = math.nan
    remark: str = ""
    stopped: bool = False

    def __str__(self) -> str:
        return f"{self.cpu:>9.2f}{self.wall:>9.2f}{_whole(self.memory):>8}{_whole(self.ess):>8}  {self.remark}".rstrip()


def _whole(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "-"


def main() -> None:
    arguments = parse_arguments()
    with contextlib.ExitStack() as stack:
        outputs = [sys.stdout]
        if arguments.output:
            outputs.append(stack.enter_context(open(arguments.output, "w")))

        def tell(text: str) -> None:
            for output in outputs:
                print(text, file=output, flush=True)

        tell(HEADER)
        verdicts = []
        for posterior, units in posteriors(
            arguments, Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ):
            nuts, labels = nuts_run(posterior, arguments.limit)
            tell(f"{posterior.name:<48}{'NUTS':<14}{nuts}")
            runs = avistan_runs(posterior, labels, arguments)
            for cache, run in runs.items():
                tell(f"{posterior.name:<48}{'avistan ' + cache:<14}{run}")
            ok, text = judged(runs["warm"], nuts, units)
            verdicts.append(ok)
            tell(f"{posterior.name:<48}{text}")
        tell(f"\n{sum(verdicts)} of {len(verdicts)} within their bars")


def posteriors(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[Posterior, int | None]]:
    """Programs with their data, and the number of units where it is part of the case."""
    if arguments.programs:
        bank = read_bank(arguments.programs)
        for name in arguments.only.split(",") if arguments.only else bank:
            yield bank[name], None
    if arguments.cases:
        cases = [name for name in arguments.cases.split(",") if name != "none"]
    else:
        cases = [*USUAL, *(LARGE if arguments.large else ())]
    for name in cases:
        folder = scratch / name
        folder.mkdir()
        subprocess.run([sys.executable, str(HERE / "_cases.py"), name, str(folder)], check=True)
        (program,) = folder.glob("*.stan")
        yield Posterior(name, program, folder / "data.json"), int(name.rpartition("-")[2])


# ---- Runs --------------------------------------------------------------------------------------------------


def nuts_run(posterior: Posterior, limit: float) -> tuple[Run, list[str] | None]:
    """The run that was long enough, or the one that was stopped, and the labels of globals where they are known."""
    draws, labels = FIRST, None
    while True:
        settings = ["1", str(WARMUP), str(draws)]
        answer = asked("_nuts_run.py", posterior.program, posterior.data, labels, *settings, limit=limit)
        if answer["trouble"]:
            wall = answer["wall"]
            return Run(cpu=wall, wall=wall, remark=answer["trouble"], stopped=wall >= limit), labels
        variables = {label: found for label, found in answer["variables"].items() if not found["constant"]}
        labels = list(variables)
        ess = min((found["ess"] for found in variables.values()), default=math.nan)
        rhat = max((found["rhat"] for found in variables.values()), default=math.nan)
        enough = ess >= EFFECTIVE
        if enough or draws >= MOST:
            seconds = answer["seconds"]
            remark = f"{draws} draws of a chain, R-hat {rhat:.3f}" + (
                "" if enough else ", too few effective draws"
            )
            return Run(cpu=seconds["cpu"], wall=seconds["wall"], ess=ess, remark=remark), labels
        draws = longer(draws, ess)


def longer(draws: int, ess: float) -> int:
    """Draws of a chain that should be worth `EFFECTIVE`, when so many were worth `ess`."""
    factor = MARGIN * EFFECTIVE / ess if ess > 0 else LONGER[1]
    return min(math.ceil(draws * min(max(factor, LONGER[0]), LONGER[1])), MOST)


def avistan_runs(
    posterior: Posterior, labels: list[str] | None, arguments: argparse.Namespace
) -> dict[str, Run]:
    """By the state of the cache, cold first."""
    runs = {}
    with tempfile.TemporaryDirectory() as scratch:
        for cache in ("cold", "warm"):
            output = Path(scratch) / cache
            given = [posterior.program, posterior.data, "--output", output]
            found = measured(
                [sys.executable, "-m", "avistan", "fit", *given],
                limit=arguments.limit,
                AVISTAN_CACHE_DIR=str(Path(scratch) / "compiled"),
            )
            runs[cache] = Run(
                cpu=found.cpu,
                wall=found.wall,
                memory=found.memory,
                ess=effective_draws(output, labels) if found.status >= 0 else math.nan,
                remark=remark(found, output),
                stopped=found.status < 0,
            )
    if arguments.warm_only:
        del runs["cold"]
    return runs


def remark(found: Measured, output: Path) -> str:
    """How `avistan fit` ended, and what its diagnosis said."""
    if found.status < 0:
        return "stopped"
    if found.status not in (0, REFUSED):
        return f"status {found.status}: {found.said.splitlines()[-1] if found.said else ''}"
    diagnosis = json.loads((output / "diagnosis.json").read_text())
    return "passed" if diagnosis["passed"] else f"refused: {diagnosis['outcome']}"


def effective_draws(output: Path, labels: list[str] | None) -> float:
    """Fewest effective draws of a global in a fit's folder; nan where there are no draws."""
    import xarray

    engines = {"posterior.nc": "h5netcdf", "posterior.zarr": "zarr"}
    stores = [(output / name, engine) for name, engine in engines.items() if (output / name).exists()]
    if not stores:
        return math.nan
    with xarray.open_datatree(stores[0][0], engine=stores[0][1]) as tree:
        posterior = tree["posterior"]
        columns = []
        for name in [str(name) for name in posterior.data_vars]:
            places = {component(label)[1] for label in labels or [] if component(label)[0] == name}
            size = posterior[name].size // (posterior.sizes["chain"] * posterior.sizes["draw"])
            if not places and (labels is not None or size > SMALL):
                continue
            values = np.asarray(posterior[name].transpose("chain", "draw", ...), dtype=np.float64)
            columns += [values[(..., *place)] for place in places or np.ndindex(values.shape[2:])]
    moments = [Moments.of(column) for column in columns]
    return min(((own.sd / own.mean_se) ** 2 for own in moments if own.mean_se > 0), default=math.nan)


# ---- Bars --------------------------------------------------------------------------------------------------


def judged(own: Run, nuts: Run, units: int | None) -> tuple[bool, str]:
    """Whether avistan is as fast as it should be, and the line that says so."""
    bound = ">= " if nuts.stopped else ""
    text = f"NUTS/avistan: CPU {bound}{nuts.cpu / own.cpu:.2f}, wall {bound}{nuts.wall / own.wall:.2f}"
    faster = FASTER.get(units or 0)
    if faster is None:
        most = max(SLOWER * nuts.cpu, ANYWAY)
        fast, bar = own.cpu <= most, f"at most {most:.1f} s"
    else:
        fast, bar = nuts.cpu / own.cpu >= faster, f"at least {faster:.0f}"
    enough = own.ess >= EFFECTIVE
    ok = fast and enough and not own.stopped
    said = "" if enough else f"; fewer than {EFFECTIVE:.0f} effective draws"
    return ok, f"{text} ({bar}: {'yes' if ok else 'NO'}{said})"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", type=Path, help="a bank's folder, as gate_accuracy.py reads it")
    parser.add_argument("--only", help="names of the bank, separated by commas")
    parser.add_argument(
        "--cases", help=f"of _cases.py, separated by commas, or none; default {','.join(USUAL)}"
    )
    parser.add_argument("--large", action="store_true", help=f"also {','.join(LARGE)}")
    parser.add_argument("--warm-only", action="store_true", help="don't show the run that fills the cache")
    parser.add_argument("--limit", type=float, default=LIMIT, help="wall seconds of a process")
    parser.add_argument("--output", type=Path, help="also write the text there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
