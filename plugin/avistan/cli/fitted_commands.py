"""The commands `avistan diagnose`, `posterior` and `predict`, which go on from the folder of a trained fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from avistan.cli.console import Refusal, answers
from avistan.cli.options import (
    Draws,
    FitEngine,
    Json,
    MustHold,
    check_fit_folder,
    check_must_hold,
    check_outside_fit,
    check_request,
    is_trusted,
)
from avistan.runtime.limits import check_numbers
from avistan.runtime.text import to_json

FitFolder = Annotated[Path, typer.Argument(metavar="FIT/", help="A folder that `avistan fit` wrote.")]
OwnSeed = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=2**32 - 1, show_default="the fit's", help="Of the random numbers."),
]


@answers
def diagnose(
    fit_folder: FitFolder,
    seed: OwnSeed = None,
    nuts: Annotated[
        bool,
        typer.Option("--nuts", help="Sample all parameters by NUTS too, and compare; as slow as that is."),
    ] = False,
    must_hold: MustHold = None,
    engine: FitEngine = None,
    json: Json = False,
) -> str:
    """Diagnose a fit, again or where that was interrupted, and write diagnosis.json beside it.

    Exit status 3 where it can't be trusted, or a variable of --must-hold can't.
    """
    check_fit_folder(fit_folder)

    from avistan.cli.fit_folder import one_step, opened_fit, put_diagnosis
    from avistan.saved.folder import DIAGNOSIS

    with opened_fit(fit_folder, engine) as loaded:
        check_must_hold(must_hold, loaded.model, loaded.level)
        with one_step("the fit was diagnosed", fit_folder, "diagnose"):
            diagnosis = loaded.diagnose(nuts=nuts, seed=seed)
            put_diagnosis(diagnosis, fit_folder)
    text = f"{diagnosis}\n\nwritten to {fit_folder}: {DIAGNOSIS}"
    if json:
        text = to_json(diagnosis.to_json() | {"output": str(fit_folder)})
    return text if is_trusted(diagnosis, must_hold) else Refusal(text)


@answers
def posterior(
    fit_folder: FitFolder,
    draws: Draws = 1000,
    seed: OwnSeed = None,
    resample: Annotated[
        Literal["auto", "none", "elbo"],
        typer.Option(
            "--resample", help="auto: corrected where that can be had; none: q's own; elbo: mix restarts."
        ),
    ] = "auto",
    engine: FitEngine = None,
    json: Json = False,
) -> str:
    """Write draws of a fit beside it (posterior.nc), in place of earlier ones; nothing is trained.

    They are marked with its diagnosis (attributes `trusted`, `not_holding`), if it has one. Where that failed: exit
    status 3.
    """
    check_numbers(draws=draws)
    check_fit_folder(fit_folder)

    from avistan.cli.fit_folder import one_step, opened_fit, put_draws, read_diagnosis

    with opened_fit(fit_folder, engine) as loaded:
        diagnosis = read_diagnosis(fit_folder)
        with one_step("draws were written", fit_folder, "posterior"):
            written = put_draws(loaded, diagnosis, fit_folder, draws, seed=seed, resample=resample)
    trusted = diagnosis is None or diagnosis.passed
    if not json:
        doubt = "" if trusted else f"\n\n{diagnosis}"
        text = f"{draws} draws of {loaded.method.name}, written to {fit_folder / written}{doubt}"
        return text if trusted else Refusal(text)
    text = to_json(
        {
            "program": loaded.model.program.name,
            "method": loaded.method.name,
            "draws": draws,
            "seed": loaded.seed if seed is None else seed,
            "resample": resample,
            "written": str(fit_folder / written),
            "trusted": None if diagnosis is None else diagnosis.passed,
        }
    )
    return text if trusted else Refusal(text)


@answers
def predict(
    fit_folder: FitFolder,
    data: Annotated[
        Path, typer.Argument(metavar="NEW.json", help="Data of new units, for the same program.")
    ],
    output: Annotated[Path, typer.Option("--output", help="The netCDF file to write.")],
    draws: Draws = 1000,
    seed: OwnSeed = None,
    engine: FitEngine = None,
    json: Json = False,
) -> str:
    """Posteriors of units never seen, from their own data and the fitted globals; nothing is trained."""
    check_request(output, data, draws=draws)
    check_outside_fit(output, fit_folder)
    check_fit_folder(fit_folder)

    from avistan.files.outputs import check_file_place
    from avistan.fit import load
    from avistan.posterior.datatree import unit_dim
    from avistan.report.write import write_netcdf

    check_file_place(output)
    loaded = load(fit_folder, engine=engine)
    tree = loaded.predict(data, draws, seed=seed)
    write_netcdf(tree, output)
    level = loaded.level
    assert level is not None
    units = int(tree["posterior"].sizes.get(unit_dim(level.name), 0))
    latents = ", ".join(level.latents)
    if not json:
        return f"{latents} of {units} new units of {level.name}, {draws} draws, written to {output}"
    return to_json(
        {
            "program": loaded.model.program.name,
            "method": loaded.method.name,
            "level": level.name,
            "units": units,
            "latents": list(level.latents),
            "draws": draws,
            "seed": loaded.seed if seed is None else seed,
            "output": str(output),
        }
    )
