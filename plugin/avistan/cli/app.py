"""The command line: `avistan inspect`, `fit`, what goes on from a fit, `compare`, `sbc`, and small helpers.

Only what a command needs is imported when it runs: help, the list of models and errors of usage never load JAX.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avistan.cli.compare_command import compare
from avistan.cli.console import answers, standard_streams
from avistan.cli.doctor import doctor
from avistan.cli.examples import as_table, examples, models_root
from avistan.cli.export_command import export
from avistan.cli.fit_command import fit
from avistan.cli.fitted_commands import diagnose, posterior, predict
from avistan.cli.options import (
    DataFiles,
    Engine,
    IncludePath,
    Json,
    LevelName,
    Seed,
    StanFile,
    check_request,
    check_there,
    open_model,
)
from avistan.cli.sbc_command import sbc
from avistan.cli.summary_command import summary
from avistan.runtime.errors import AvistanError, FitError
from avistan.runtime.text import to_json
from avistan.runtime.versions import __version__
from stan_adapters.files.names import did_you_mean

app = typer.Typer(
    name="avistan",
    help="Amortized variational inference for existing Stan programs.",
    epilog="Answers go to standard output (--json: one JSON object), errors to standard error with exit status 2. "
    "Status 3: the answer is a no (fit: its diagnosis failed; sbc: ranks are not uniform).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Entry point of the command `avistan`."""
    with standard_streams():
        app(prog_name="avistan")


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"avistan {__version__}")
        raise typer.Exit()
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, help="Print the version and exit.", callback=_print_version),
    ] = False,
) -> None: ...


@app.command()
@answers
def inspect(
    stan_file: StanFile,
    data: DataFiles = None,
    level: LevelName = None,
    seed: Seed = 1,
    engine: Engine = "auto",
    include_path: IncludePath = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="A PNG of what depends on what, for a sample of units.")
    ] = None,
    json: Json = False,
) -> str:
    """Find the levels of units, probe them, and say whether amortization can be lossless."""
    from avistan.files.outputs import check_file_place

    if plot is not None:
        check_file_place(plot)
    check_request(plot, stan_file, data)
    check_there(stan_file, data)
    if plot is not None and plot.suffix.lower() != ".png":
        raise FitError(f"--plot {plot}: the picture is a PNG. Give a path that ends in .png.")
    model = open_model(stan_file, data, engine, include_path, level)
    structure = model.inspect(level=level, seed=seed)
    if plot is not None:
        from avistan.report.write import write_dependence

        write_dependence(model, structure, plot, seed=seed)
    return to_json(structure.to_json()) if json else str(structure)


@app.command()
@answers
def modernize(stan_file: StanFile, include_path: IncludePath = None) -> str:
    """Print the program in today's syntax, as it is fitted; what it includes stands in it."""
    from stan_adapters.language.program import Program

    return Program.from_file(stan_file, include_path or ()).source.rstrip("\n")


app.command()(fit)
app.command()(diagnose)
app.command()(posterior)
app.command()(summary)
app.command()(export)
app.command()(predict)
app.command()(compare)


@app.command()
@answers
def models(
    name: Annotated[str | None, typer.Argument(help="An example: print the paths of its files.")] = None,
    json: Json = False,
) -> str:
    """List the bundled examples, or the files of one."""
    known = {example.name: example for example in examples(models_root())}
    if name is None:
        chosen = list(known.values())
    elif name in known:
        chosen = [known[name]]
    else:
        hint = did_you_mean(name, known)
        raise AvistanError(f"there is no bundled example {name!r}.{hint} Examples: {', '.join(known)}.")
    if json:
        return to_json({"models": [example.to_json() for example in chosen]})
    if name is not None:
        return "\n".join(str(file) for file in chosen[0].files)
    return as_table(chosen)


app.command()(sbc)
app.command()(doctor)
