"""Arguments and options that commands share."""

from __future__ import annotations

import functools
import glob
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from avistan.files.outputs import check_apart
from avistan.runtime.errors import FitError, MethodError
from avistan.runtime.limits import check_numbers

if TYPE_CHECKING:
    from avistan.diagnosis.verdict import Diagnosis
    from avistan.model import Model
    from stan_adapters.bound.bound_model import BoundModel
    from stan_adapters.levels.levels import Level

StanFile = Annotated[Path, typer.Argument(metavar="MODEL.stan", help="The Stan program.")]
DataFiles = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="DATA.json",
        help="Its data as JSON or an R dump (*.R), gzipped or zipped too; not needed if it declares none. Several "
        "files or a quoted pattern: each holds some units. Or tables: *.parquet, *.csv, with JSON next to them, or "
        "*.zarr.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
LevelName = Annotated[
    str | None,
    typer.Option("--level", help="The level to amortize: its declared size or one of its latents."),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="The same seed gives the same result.")
]
Engine = Annotated[
    str, typer.Option("--engine", help="auto, stanli, bridgestan or the path of a *_model.so.")
]
FitEngine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        show_default="the fit's",
        help="auto, stanli, bridgestan or the path of a *_model.so, which a saved fit can't name itself.",
    ),
]
IncludePath = Annotated[
    list[Path] | None,
    typer.Option("--include-path", help="Where #include looks first; can be given several times."),
]
MustHold = Annotated[
    str | None,
    typer.Option(
        "--must-hold",
        metavar="NAME,NAME",
        show_default="all",
        help="The globals whose draws must be reliable; exit status 3 where one is not.",
    ),
]
Draws = Annotated[int, typer.Option("--draws", min=1, help="Draws in the netCDF file, of all chains.")]


# Options of a fit. Their defaults stand in FitOptions; here they are only shown.
FIT_OPTIONS: dict[str, Any] = {
    "steps": Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, show_default="until it no longer pays", help="Adam steps: exactly that many."
        ),
    ],
    "draws_per_step": Annotated[
        int | None, typer.Option("--draws-per-step", min=1, show_default="8", help="Stan gradients a step.")
    ],
    "learning_rate": Annotated[
        float | None, typer.Option("--learning-rate", show_default="0.02", help="Adam's learning rate.")
    ],
    "estimator": Annotated[
        Literal["path", "entropy"] | None,
        typer.Option("--estimator", show_default="path", help="How the ELBO's gradient is estimated."),
    ],
    "num_references": Annotated[
        int | None,
        typer.Option("--num-references", min=1, show_default="24", help="Gradients that make a signature."),
    ],
    "max_rank": Annotated[
        int | None,
        typer.Option("--max-rank", min=1, show_default="16", help="Most components of a signature kept."),
    ],
    "elbo_draws": Annotated[
        int | None,
        typer.Option("--elbo-draws", min=1, show_default="2000", help="Draws of the final ELBO estimate."),
    ],
}


def takes_fit_options(*names: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Gives a command options of a fit, by default all: its `**options` are those that were given a value.

    Raises (the command):
        FitError: one is out of range.
    """
    known = {name: FIT_OPTIONS[name] for name in names or FIT_OPTIONS}

    def decorate(command: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(command)
        def run(**values: Any) -> str:
            options = {name: values.pop(name) for name in known}
            return command(**values, **given(**options))

        *own, _ = inspect.signature(command, eval_str=True).parameters.values()  # the last is **options
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [part.replace(kind=keyword) for part in own]
        parameters += [
            inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in known.items()
        ]
        run.__signature__ = inspect.Signature(parameters, return_annotation=str)  # type: ignore[attr-defined]
        run.__annotations__ = {part.name: part.annotation for part in parameters} | {"return": str}
        return run

    return decorate


def split_methods(text: str) -> list[str]:
    """Names of methods separated by commas outside parentheses: "avi:data(x,y),fvi" are two.

    Raises:
        MethodError: an empty name.
    """
    names, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            names.append("")
        else:
            names[-1] += character
    names = [name.strip() for name in names]
    if not all(names):
        raise MethodError(f"--methods {text!r} has an empty name: give names separated by single commas.")
    return names


def split_variables(text: str) -> list[str]:
    """Names of variables separated by commas outside brackets: "tau,theta[1,2]" are two."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text)]


def check_must_hold(must_hold: str | None, model: BoundModel, level: Level | None) -> None:
    """That --must-hold names globals of the program.

    Args:
        level: whose units' latents are no globals; None where there is none.

    Raises:
        FitError: one is none, with those that there are.
    """
    if must_hold is None:
        return
    latents = () if level is None else level.latents
    known = [part.name for part in model.layout.containers if part.size and part.name not in latents]
    for name in split_variables(must_hold):
        if name not in known:
            raise FitError(f"--must-hold {name!r}: the program's globals are {', '.join(known) or 'none'}.")


def is_trusted(diagnosis: Diagnosis, must_hold: str | None) -> bool:
    """Whether the draws hold: all of them, or those that --must-hold names. What was not judged does not hold."""
    if must_hold is None:
        return diagnosis.passed
    names = split_variables(must_hold)
    return set(names) <= {variable.name for variable in diagnosis.variables} and diagnosis.holds(names)


def open_model(
    stan_file: Path,
    data: list[Path] | None,
    engine: str,
    include_path: list[Path] | None,
    level: str | None,
) -> Model:
    """The program bound to its data."""
    from avistan.model import Model

    return Model(stan_file, data=data or None, engine=engine, include_paths=include_path or (), level=level)


def check_request(
    output: Path | None, stan_file: Path, *others: Path | list[Path] | None, **numbers: int | None
) -> None:
    """That numbers are in range, and that the output replaces nothing that is read.

    Args:
        others: further files, or lists of them.

    Raises:
        FitError: one is not, or it does.
    """
    check_numbers(**numbers)
    if output is not None:
        lists = [other if isinstance(other, list) else [other] for other in others if other is not None]
        check_apart(output, [stan_file, *(file for files in lists for file in files)])


def check_there(stan_file: Path, data: list[Path] | None) -> None:
    """That the files of a program and its data exist: said at once, before what takes a while to load.

    Raises:
        ProgramError, DataError: one does not.
    """
    if not stan_file.exists():
        from stan_adapters.language.source_text import read_program

        read_program(stan_file, None)
    for file in data or ():
        if not file.exists() and not glob.has_magic(str(file)):
            from stan_adapters.files.text_files import data_text

            data_text(file)


def check_fit_folder(folder: Path) -> None:
    """That a folder holds a saved fit, as `check_there`.

    Raises:
        FitError: it does not.
    """
    if not (folder / "fit.json").exists():
        raise FitError(f"{folder} is not a saved fit: it has no fit.json. Save one with fit.save(path).")


def check_outside_fit(output: Path, fit_folder: Path) -> None:
    """That an output doesn't lie in a fit's folder. Raises FitError."""
    if output.resolve().is_relative_to(fit_folder.resolve()):
        raise FitError(f"{output} lies in the fit {fit_folder} and would change it: give another path.")


def given(**options: Any) -> dict[str, Any]:
    """The options that were given a value, all of them in range.

    Raises:
        FitError: one is out of range.
    """
    check_numbers(**options)
    return {name: value for name, value in options.items() if value is not None}
