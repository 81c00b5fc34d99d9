"""The command line: `avistan inspect`, `fit`, `diagnose`, `posterior`, `predict`, `compare`, `sbc`, `models`.

Only what a command needs is imported when it runs: help, the list of models and errors of usage never load JAX.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avistan.cli.bundled import models_root
from avistan.cli.console import answers, standard_streams
from avistan.cli.fit_command import fit
from avistan.cli.fitted_commands import diagnose, posterior
from avistan.cli.options import (
    DataFiles,
    Draws,
    DrawsPerStep,
    ElboDraws,
    Engine,
    EstimatorName,
    FitEngine,
    IncludePath,
    Json,
    LearningRate,
    LevelName,
    MaxRank,
    NumReferences,
    Seed,
    StanFile,
    Steps,
    check_request,
    given,
    open_model,
    split_methods,
    split_variables,
)
from avistan.cli.sbc_command import sbc
from avistan.family.method import check_methods
from avistan.runtime.errors import AvistanError, FitError
from avistan.runtime.limits import check_numbers
from avistan.runtime.text import to_json
from avistan.runtime.versions import __version__
from stan_adapters.files.names import did_you_mean

app = typer.Typer(
    name="avistan",
    help="Amortized variational inference for existing Stan programs.",
    epilog="Answers go to standard output (--json: one JSON object), errors to standard error with exit status 2. "
    "Status 3: the answer is a no (fit: its diagnosis failed; sbc: ranks are not uniform).",
    add_completion=False,
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
    if plot is not None and plot.suffix.lower() != ".png":
        raise FitError(f"--plot {plot}: the picture is a PNG. Give a path that ends in .png.")
    model = open_model(stan_file, data, engine, include_path, level)
    structure = model.inspect(level=level, seed=seed)
    if plot is not None:
        from avistan.report.write import write_dependence

        write_dependence(model, structure, plot, seed=seed)
    return to_json(structure.to_json()) if json else str(structure)


app.command()(fit)
app.command()(diagnose)
app.command()(posterior)


@app.command()
@answers
def predict(
    fit_folder: Annotated[Path, typer.Argument(metavar="FIT/", help="A folder that `avistan fit` wrote.")],
    data: Annotated[
        Path, typer.Argument(metavar="NEW.json", help="Data of new units, for the same program.")
    ],
    output: Annotated[Path, typer.Option("--output", help="The netCDF file to write.")],
    draws: Draws = 1000,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**32 - 1, show_default="the fit's", help="Of the draws."),
    ] = None,
    engine: FitEngine = None,
    json: Json = False,
) -> str:
    """Posteriors of units never seen, from their own data and the fitted globals; nothing is trained."""
    from avistan.files.outputs import check_file_place
    from avistan.fit import load
    from avistan.report.write import write_netcdf

    check_request(output, data, draws=draws)
    check_file_place(output)
    if output.resolve().is_relative_to(fit_folder.resolve()):
        raise FitError(f"{output} lies in the fit {fit_folder} and would change it: give another path.")
    loaded = load(fit_folder, engine=engine)
    tree = loaded.predict(data, draws, seed=seed)
    write_netcdf(tree, output)
    level = loaded.level
    assert level is not None
    units = int(tree["posterior"].sizes.get(level.name, 0))
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


@app.command()
@answers
def compare(
    stan_file: StanFile,
    output: Annotated[Path, typer.Option("--output", help="A new folder, or one with an earlier report.")],
    data: DataFiles = None,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            help="Separated by commas: methods as in fit, pathfinder, cmdstan-advi, cmdstan-pathfinder.",
        ),
    ] = "avi,fvi,constant",
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", help="Measure every method against nuts, cmdstan-nuts or draws in a netCDF file."
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
    steps: Steps = None,
    draws_per_step: DrawsPerStep = None,
    learning_rate: LearningRate = None,
    estimator: EstimatorName = None,
    num_references: NumReferences = None,
    max_rank: MaxRank = None,
    elbo_draws: ElboDraws = None,
    json: Json = False,
) -> str:
    """Fit several methods from one start, measure them on the same draws, and write a report with pictures."""
    options = given(
        steps=steps,
        draws_per_step=draws_per_step,
        learning_rate=learning_rate,
        estimator=estimator and estimator.value,
        num_references=num_references,
        max_rank=max_rank,
        elbo_draws=elbo_draws,
    )
    from avistan.comparison.competition import meaning
    from avistan.files.outputs import check_folder_place, whole_folder
    from avistan.posterior.budget import check_draws
    from avistan.report.intervals import check_variables
    from avistan.report.write import COMPARISON, PAGE, REPORT, best_row, write_report

    check_request(output, stan_file, data, cmdstan_exe, draws=draws, repeats=repeats)
    check_numbers(
        reference_chains=reference_chains,
        reference_warmup=reference_warmup,
        reference_draws=reference_draws,
    )
    check_folder_place(output, REPORT, mark=COMPARISON)
    names = split_methods(methods)
    check_methods(names, meaning)
    model = open_model(stan_file, data, engine, include_path, level)
    check_draws(model.bound, draws)
    shown_variables = None if variables is None else split_variables(variables)
    if shown_variables is not None:
        check_variables(model.bound, shown_variables)
    comparison = model.compare(
        names,
        reference=reference,
        seed=seed,
        repeats=repeats,
        level=level,
        cmdstan_exe=cmdstan_exe,
        reference_options=given(chains=reference_chains, warmup=reference_warmup, draws=reference_draws),
        **options,
    )
    shown = best_row(comparison)
    with whole_folder(output, REPORT) as folder:
        write_report(comparison, folder, draws, variables=shown_variables)
    if json:
        return to_json(comparison.to_json())
    files = f"written to {output}: {', '.join(REPORT)} (posterior: {shown.method})"
    return f"{comparison}\n\n{files}\nopen {output / PAGE} in a browser"


@app.command()
@answers
def models(
    name: Annotated[str | None, typer.Argument(help="An example: print the paths of its files.")] = None,
    json: Json = False,
) -> str:
    """List the bundled examples, or the files of one."""
    from avistan.cli.examples import as_table, examples

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
