"""The command `avistan sbc`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avistan.cli.console import Refusal, answers
from avistan.cli.options import (
    Engine,
    IncludePath,
    Json,
    LevelName,
    Seed,
    StanFile,
    check_request,
    check_there,
    takes_fit_options,
)
from avistan.runtime.limits import whole_number
from avistan.runtime.text import to_json

if TYPE_CHECKING:
    from avistan.calibration.ranks import Calibration

RESULT, RANKS, PICTURE = "sbc.json", "ranks.nc", "ecdf.png"
SBC_FILES = (RESULT, RANKS, PICTURE)


@answers
@takes_fit_options("steps", "draws_per_step", "learning_rate")
def sbc(
    stan_file: StanFile,
    simulator: Annotated[
        Path,
        typer.Argument(
            metavar="SIMULATOR.stan",
            help="Its generated quantities draw parameters and data of MODEL.stan, by their names; or MODEL.stan "
            "again, if its own do, by names with an underscore after them.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", help="A new folder, or one with an earlier calibration.")
    ],
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA.json",
            help="What the simulator does not draw, such as sizes and covariates, as (gzipped) JSON.",
        ),
    ] = None,
    simulations: Annotated[int, typer.Option("--simulations", min=10, help="Data sets to refit.")] = 100,
    draws: Annotated[int, typer.Option("--draws", min=9, help="Posterior draws of each refit.")] = 99,
    method: Annotated[str, typer.Option("--method", help="As in fit.")] = "auto",
    seed: Seed = 1,
    entries: Annotated[
        int, typer.Option("--entries", min=1, help="Most scalars ranked of each parameter.")
    ] = 8,
    log_density: Annotated[
        bool, typer.Option("--log-density", help="Rank the log density of all parameters too.")
    ] = False,
    probability: Annotated[
        float, typer.Option("--probability", help="Of passing where everything is right.")
    ] = 0.99,
    level: LevelName = None,
    engine: Engine = "auto",
    include_path: IncludePath = None,
    json: Json = False,
    **options: Any,
) -> str:
    """Simulation-based calibration: refit data simulated from the prior and rank the true values.

    Exit status 3 where the ranks of a parameter are not uniform.
    """
    check_request(output, stan_file, simulator, data, simulations=simulations, entries=entries)
    check_there(stan_file, [data] if data is not None else None)

    from avistan.calibration.sbc import calibrate
    from avistan.files.outputs import check_folder_place
    from avistan.runtime.progress_bars import bars, quiet, shown
    from stan_adapters.language.program import Program

    whole_number("draws", draws, "ranked_draws")
    check_folder_place(output, SBC_FILES, mark=RESULT)
    with bars() if shown(None) else quiet() as progress:
        found = calibrate(
            Program.from_file(stan_file, include_path or ()),
            Program.from_file(simulator, include_path or ()),
            data=data,
            method=method,
            simulations=simulations,
            draws=draws,
            seed=seed,
            level=level,
            engine=engine,
            entries=entries,
            log_density=log_density,
            probability=probability,
            progress=progress("refits"),
            **options,
        )
    write_calibration(found, output)
    text = f"{found}\n\nwritten to {output}: {', '.join(SBC_FILES)}"
    if json:
        text = to_json(found.to_json() | {"output": str(output)})
    return text if found.passed else Refusal(text)


def write_calibration(calibration: Calibration, output: Path) -> None:
    """Write the files named in `SBC_FILES` to a folder, whole or not at all.

    Raises:
        FitError: the folder holds something else or can't be written.
    """
    from avistan.files.outputs import whole_folder
    from avistan.report.figures import save
    from avistan.report.sbc_figure import ecdf
    from avistan.report.write import write_netcdf

    with whole_folder(output, SBC_FILES) as folder:
        (folder / RESULT).write_text(to_json(calibration.to_json()) + "\n")
        write_netcdf(calibration.to_datatree(), folder / RANKS)
        save(ecdf(calibration), folder / PICTURE)
