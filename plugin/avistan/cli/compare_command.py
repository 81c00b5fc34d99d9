"""The command `avistan compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from avistan.cli.console import answers
from avistan.cli.options import (
    DataFiles,
    Draws,
    Engine,
    IncludePath,
    Json,
    LevelName,
    Seed,
    StanFile,
    check_request,
    check_there,
    given,
    open_model,
    split_methods,
    split_variables,
    takes_fit_options,
)
from avistan.family.method import check_methods
from avistan.runtime.errors import FitError
from avistan.runtime.limits import check_numbers
from avistan.runtime.text import to_json


@answers
@takes_fit_options()
def compare(
    stan_file: StanFile,
    data: DataFiles = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            show_default="print the table alone",
            help="Write a report here: a new folder, or one with an earlier report.",
        ),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            help="Separated by commas: methods as in fit, pathfinder, cmdstan-advi, cmdstan-pathfinder.",
        ),
    ] = "auto,avi,fvi,constant",
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            help="Measure every method against nuts, cmdstan-nuts or draws: CSV of CmdStan (a file, a folder, a quoted "
            "pattern, or this option several times), netCDF or zarr of ArviZ, *.json.zip of posteriordb.",
        ),
    ] = None,
    seed: Seed = 1,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="How many seeds, counted up from --seed.")
    ] = 1,
    cmdstan_exe: Annotated[
        Path | None, typer.Option("--cmdstan-exe", help="The program compiled by CmdStan.")
    ] = None,
    variables: Annotated[
        str | None,
        typer.Option(
            "--variables",
            help="Shown in the report's forest plot, such as tau,theta[3].",
            show_default="the parameters",
        ),
    ] = None,
    level: LevelName = None,
    engine: Engine = "auto",
    include_path: IncludePath = None,
    draws: Draws = 1000,
    reference_chains: Annotated[
        int | None,
        typer.Option("--reference-chains", min=1, show_default="4", help="Chains of the reference."),
    ] = None,
    reference_warmup: Annotated[
        int | None,
        typer.Option("--reference-warmup", min=1, show_default="1000", help="Warm-up of each chain."),
    ] = None,
    reference_draws: Annotated[
        int | None, typer.Option("--reference-draws", min=2, show_default="1000", help="Draws of each chain.")
    ] = None,
    json: Json = False,
    **options: Any,
) -> str:
    """Fit several methods from one start and measure them on the same draws: a table, and a report with pictures."""
    check_request(output, stan_file, data, cmdstan_exe, draws=draws, repeats=repeats)
    check_there(stan_file, data)

    from avistan.comparison.competition import meaning
    from avistan.files.outputs import check_folder_place, whole_folder
    from avistan.posterior.budget import check_draws
    from avistan.report.intervals import check_variables
    from avistan.report.write import COMPARISON, PAGE, REPORT, best_row, write_report

    check_numbers(
        reference_chains=reference_chains,
        reference_warmup=reference_warmup,
        reference_draws=reference_draws,
    )
    if output is not None:
        check_folder_place(output, REPORT, mark=COMPARISON)
    elif variables is not None:
        raise FitError(
            "--variables chooses what the report's pictures show: give --output too, where it goes."
        )
    names = split_methods(methods)
    check_methods(names, meaning)
    model = open_model(stan_file, data, engine, include_path, level)
    check_draws(model.bound, draws)
    shown_variables = None if variables is None else split_variables(variables)
    if shown_variables is not None:
        check_variables(model.bound, shown_variables)
    comparison = model.compare(
        names,
        reference=reference[0] if reference and len(reference) == 1 else reference or None,
        seed=seed,
        repeats=repeats,
        level=level,
        cmdstan_exe=cmdstan_exe,
        reference_options=given(chains=reference_chains, warmup=reference_warmup, draws=reference_draws),
        **options,
    )
    if output is None:
        told = "Nothing was written: --output FOLDER writes a report with pictures and the posterior."
        return to_json(comparison.to_json()) if json else f"{comparison}\n\n{told}"
    shown = best_row(comparison)
    with whole_folder(output, REPORT) as folder:
        write_report(comparison, folder, draws, variables=shown_variables)
    if json:
        return to_json(comparison.to_json())
    files = f"written to {output}: {', '.join(REPORT)} (posterior: {shown.method})"
    return f"{comparison}\n\n{files}\nopen {output / PAGE} in a browser"
