"""The command `avistan summary`: tables of the draws beside a fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avistan.cli.console import answers
from avistan.cli.fitted_commands import FitFolder
from avistan.cli.options import FitEngine, Json, check_outside_fit
from avistan.runtime.text import to_json

if TYPE_CHECKING:
    from avistan.posterior.summaries import Draws


@answers
def summary(
    fit_folder: FitFolder,
    var: Annotated[
        list[str] | None,
        typer.Option("--var", help="A variable, of units or not; can be given several times."),
    ] = None,
    units: Annotated[
        bool, typer.Option("--units", help="The variables of units instead of the others.")
    ] = False,
    quantile: Annotated[
        list[float] | None,
        typer.Option(
            "--quantile", show_default="0.05, 0.5, 0.95", help="A probability; several times for several."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="A CSV file for the whole table; what is printed is shortened."),
    ] = None,
    engine: FitEngine = None,
    json: Json = False,
) -> str:
    """Print means, sds and quantiles of the draws that lie with a fit, or of 1000 new ones where none do."""
    from avistan.files.outputs import check_file_place, whole_file
    from avistan.posterior.summaries import QUANTILES, summarize

    if output is not None:
        check_file_place(output)
        check_outside_fit(output, fit_folder)
    with stored_draws(fit_folder, engine) as draws:
        table = summarize(draws, var_names=var, units=units, quantiles=quantile or QUANTILES)
    if output is not None:
        with whole_file(output) as file:
            table.to_csv(file, index_label="variable")
    if json:
        rows = table.reset_index(names="variable").to_dict("records")
        return to_json(
            {"rows": rows, "notes": list(table.notes), "output": None if output is None else str(output)}
        )
    written = "" if output is None else f"\n\n{len(table)} rows written to {output}"
    return f"{table!r}{written}"


@contextlib.contextmanager
def stored_draws(folder: Path, engine: str | None) -> Iterator[Draws]:
    """The draws beside a fit, read as needed; new ones where none are, or where they were changed.

    Raises:
        FitError: the folder holds no fit.
    """
    from avistan.cli.fit_folder import stored_tree
    from avistan.fit import load
    from avistan.posterior.summaries import draws_of_tree

    with stored_tree(folder) as tree:
        yield draws_of_tree(load(folder, engine=engine).posterior() if tree is None else tree)
