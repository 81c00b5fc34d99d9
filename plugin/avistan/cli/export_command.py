"""The command `avistan export`: draws and units of a fit in the formats of other tools."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avistan.cli.console import answers
from avistan.cli.fitted_commands import FitFolder, OwnSeed
from avistan.cli.options import FitEngine, Json, check_outside_fit
from avistan.runtime.errors import FitError
from avistan.runtime.limits import check_numbers
from avistan.runtime.text import several, to_json

if TYPE_CHECKING:
    import xarray as xr

    from avistan.fit import Fit


@answers
def export(
    fit_folder: FitFolder,
    output: Annotated[
        Path,
        typer.Option("--output", help="A folder for cmdstan and zarr, else a file (.parquet, .csv or .nc)."),
    ],
    format: Annotated[
        Literal["cmdstan", "parquet", "netcdf", "zarr", "draws"],
        typer.Option(
            "--format",
            help="cmdstan: CSV files that cmdstanpy and R read; draws: a table with a row for each draw; netcdf, zarr: "
            "for ArviZ; parquet: a table of the units (mean, sd, quantiles, distance of inputs).",
        ),
    ] = "cmdstan",
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws", min=1, show_default="those that lie with the fit", help="New draws, so many."
        ),
    ] = None,
    seed: OwnSeed = None,
    engine: FitEngine = None,
    json: Json = False,
) -> str:
    """Write draws of a fit, or a table of its units, for other tools; nothing is trained.

    The draws are those that lie with the fit, unless new ones are asked for (--draws, --seed).
    """
    from avistan.cli.fit_folder import opened_fit, read_diagnosis
    from avistan.export.tables import check_table_path
    from avistan.files.outputs import check_file_place

    check_numbers(draws=draws)
    check_outside_fit(output, fit_folder)
    if format in ("parquet", "draws"):
        check_table_path(output)
    if format == "netcdf" and output.suffix not in (".nc", ".netcdf", ".h5"):
        raise FitError(f"--output {output}: give a path that ends in .nc for --format netcdf.")
    if format in ("parquet", "draws", "netcdf"):
        check_file_place(output)
    with opened_fit(fit_folder, engine) as loaded:
        diagnosis = read_diagnosis(fit_folder)
        if diagnosis is not None:
            loaded.marked(diagnosis)
        stored = draws is None and seed is None
        written = _written(loaded, fit_folder, output, format, draws or 1000, seed, stored=stored)
    size = _bytes(output)
    if json:
        told = {"format": format, "output": str(output), "written": written, "bytes": size}
        return to_json({"program": loaded.model.program.name, **told})
    from stan_adapters.files.memory import in_bytes

    return f"{written}, {in_bytes(size)}, written to {output}"


def _written(
    loaded: Fit, folder: Path, output: Path, format: str, draws: int, seed: int | None, *, stored: bool
) -> str:
    """Write; returns what, in words."""
    from avistan.cli.fit_folder import stored_tree
    from avistan.export.cmdstan import write_cmdstan
    from avistan.export.parts import of_fit, of_tree
    from avistan.export.tables import unit_table, write_draws, write_table
    from avistan.posterior.summaries import draws_of_tree
    from avistan.report.write import write_netcdf

    with stored_tree(folder) if stored else contextlib.nullcontext() as tree:
        if format == "parquet":
            found = draws_of_tree(loaded.posterior(draws, seed=seed) if tree is None else tree)
            table = unit_table(loaded, found, diagnosed=loaded.unit_numbers())
            write_table(table, output)
            return f"{len(table)} rows of units"
        if format == "netcdf":
            held = loaded.posterior(draws, seed=seed) if tree is None else tree.load()
            write_netcdf(held, output)
            return f"{held['posterior'].sizes['chain'] * held['posterior'].sizes['draw']} draws"
        if format == "zarr":
            if tree is None:
                loaded.write_posterior(output, draws, seed=seed)
                return f"{draws} draws"
            _copy_zarr(tree, output)
            return f"{tree['posterior'].sizes['chain'] * tree['posterior'].sizes['draw']} draws"
        with contextlib.ExitStack() as stack:
            if tree is None:
                drawn = stack.enter_context(of_fit(loaded, draws, seed, loaded.marks()))
            else:
                drawn = of_tree(tree, loaded.model)
            if format == "draws":
                return f"{write_draws(drawn, output)} draws of {drawn.numbers} numbers"
            files = write_cmdstan(drawn, output)
            return f"{drawn.chains * drawn.each} draws of {drawn.numbers} numbers in {several(len(files), 'file')}"


def _copy_zarr(tree: xr.DataTree, output: Path) -> None:
    from avistan.files.outputs import whole_folder
    from avistan.posterior.zarr_store import GROUPS

    with whole_folder(output, GROUPS) as folder:
        for group in tree.subtree:
            for variable in group.variables.values():
                variable.encoding = {}
        tree.to_zarr(folder, mode="w", zarr_format=2, consolidated=True)


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
