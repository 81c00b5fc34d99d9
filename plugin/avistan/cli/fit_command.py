"""The command `avistan fit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avistan.cli.console import Refusal, answers, tell
from avistan.cli.options import (
    DataFiles,
    Draws,
    Engine,
    IncludePath,
    Json,
    LevelName,
    MustHold,
    Seed,
    StanFile,
    check_must_hold,
    check_request,
    check_there,
    is_trusted,
    open_model,
    takes_fit_options,
)
from avistan.family.method import check_choice
from avistan.runtime.errors import FitError
from avistan.runtime.text import to_json

if TYPE_CHECKING:
    from avistan.cli.fit_folder import About
    from avistan.diagnosis.improvement import Improvement, Round
    from avistan.fitting.fitted import Fitted, Origin
    from avistan.model import Model


@answers
@takes_fit_options()
def fit(
    stan_file: StanFile,
    data: DataFiles = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            show_default="print the answer alone",
            help="Write the fit here: a new folder, or one with an earlier fit.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method", help="auto, avi, avi:mlp(W), avi:polynomial(K), avi:data(NAME), fvi, constant."
        ),
    ] = "auto",
    seed: Seed = 1,
    level: LevelName = None,
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            show_default="auto with --method auto",
            help="auto: try families richer than the method's own and keep them while the ELBO pays; fixed.",
        ),
    ] = None,
    chains: Annotated[int, typer.Option("--chains", min=1, help="Independent restarts.")] = 1,
    engine: Engine = "auto",
    include_path: IncludePath = None,
    draws: Draws = 1000,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            "--max-seconds",
            show_default="no limit",
            help="End training after so many seconds with the best state so far, for --resume to go on. Checks that "
            "time is out for are a no.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue an interrupted fit: from its checkpoint next to the output, or at the step after training "
            "that is missing.",
        ),
    ] = False,
    must_hold: MustHold = None,
    json: Json = False,
    **options: Any,
) -> str:
    """Fit by variational inference, correct and diagnose; write the fit and its posterior (posterior.nc) to a folder.

    Without --output the fit, its diagnosis and a summary are printed and nothing is kept.

    The fit is written first: what interrupts its diagnosis or its draws costs that step alone, and --resume does it.

    The draws are marked with the diagnosis (attributes `trusted`, `not_holding`). Where it fails, or a variable of
    --must-hold can't be relied on: exit status 3.
    """
    check_request(output, stan_file, data, chains=chains, draws=draws)
    check_choice(method, family)
    check_there(stan_file, data)

    from avistan.cli.fit_folder import About, put_fit, trained_fit, what_is_asked
    from avistan.files.outputs import check_folder_place
    from avistan.fitting.budget import check_training
    from avistan.fitting.options import make_options
    from avistan.fitting.outcome import FitOutcome
    from avistan.posterior.fit_datatree import check_posterior
    from avistan.runtime.deadline import time_limit
    from avistan.saved.folder import DIAGNOSIS, FIT_FILES
    from avistan.training.checkpoints import (
        beside,
        holds_training,
        in_use,
        interruptible,
        remove,
    )

    shared: dict[str, Any] = {"method": method, "seed": seed, "level": level, "family": family}
    if output is None:
        if resume:
            raise FitError("--resume goes on from what an earlier fit left: give its --output.")
        with time_limit(max_seconds):
            model = open_model(stan_file, data, engine, include_path, level)
            return _printed(model, must_hold, json=json, chains=chains, **shared, **options)
    check_folder_place(output, FIT_FILES, mark=FIT_FILES[0])
    checkpoint = beside(output)
    with in_use(checkpoint, share=True), time_limit(max_seconds):
        with interruptible(checkpoint):
            model = open_model(stan_file, data, engine, include_path, level)
            check_training(model.bound, make_options(options), chains=chains)
            check_posterior(model.bound, draws, chains, output)
            asked = what_is_asked(model, options, engine=engine, chains=chains, **shared)
            known = None
            if resume and not holds_training(checkpoint):
                known = trained_fit(output, asked, engine)
            if known is None:
                structure = model.inspect(level=level)
                check_must_hold(must_hold, model.bound, structure.level)
                result = model.fit(checkpoint=checkpoint, resume=resume, chains=chains, **shared, **options)
                about = About(asked=asked, verdict=str(structure.verdict), verdict_reason=structure.reason)
                put_fit(result, output, about)
            else:
                result, about = known
                check_must_hold(must_hold, model.bound, result.level)
            if result.outcome is not FitOutcome.out_of_time:
                remove(checkpoint)
        improvement, drawn = _diagnosed_and_drawn(
            result, about, output, draws, origin=lambda: model.origin(**shared, **options)
        )
    diagnosis = improvement.diagnosis
    if json:
        text = _as_json(improvement, output, about)
    else:
        went_on = f"{improvement}\n\n" if improvement.rounds else ""
        text = (
            f"{improvement.fit}\n\n{went_on}{diagnosis}\n\nwritten to {output}: the fit, {DIAGNOSIS}, {drawn}"
        )
    return text if is_trusted(diagnosis, must_hold) else Refusal(text)


def _printed(model: Model, must_hold: str | None, *, json: bool, level: str | None, **options: Any) -> str:
    """A fit that is diagnosed and summarized, and kept nowhere."""
    from avistan.cli.fit_folder import About

    structure = model.inspect(level=level)
    check_must_hold(must_hold, model.bound, structure.level)
    improvement = model.fit(level=level, **options).improve()
    about = About(asked={}, verdict=str(structure.verdict), verdict_reason=structure.reason)
    if json:
        text = _as_json(improvement, None, about)
    else:
        went_on = f"{improvement}\n\n" if improvement.rounds else ""
        text = (
            f"{improvement.fit}\n\n{went_on}{improvement.diagnosis}\n\n{improvement.fit.summary()!r}\n\n"
            "Nothing was written: --output FOLDER keeps the fit, its diagnosis and its draws."
        )
    return text if is_trusted(improvement.diagnosis, must_hold) else Refusal(text)


def _diagnosed_and_drawn(
    result: Fitted, about: About, output: Path, draws: int, *, origin: Callable[[], Origin]
) -> tuple[Improvement[Fitted], str]:
    """A fit in place with its diagnosis, and what to say of its draws; both are made where they are missing."""
    from avistan.cli.fit_folder import (
        draws_there,
        one_step,
        put_diagnosis,
        put_draws,
        put_fit,
        read_diagnosis,
    )
    from avistan.diagnosis.improvement import Improvement, improve

    def keep(fit: Fitted, rounds: Sequence[Round]) -> None:
        put_fit(fit, output, replace(about, rounds=tuple(rounds)))

    diagnosis, drawn = read_diagnosis(output), draws_there(output)
    complete = diagnosis is not None
    if diagnosis is None:
        with one_step("the fit was diagnosed", output, "diagnose"):
            made = improve(result, made=about.rounds, origin=origin, keep=keep)
            if made.rounds and not made.rounds[-1].taken:
                keep(made.fit, made.rounds)  # it was kept up to the last round that was taken
            put_diagnosis(made.diagnosis, output)
    else:
        made = Improvement(fit=result, diagnosis=diagnosis, rounds=about.rounds)
    if not drawn:
        complete = False
        with one_step("draws were written", output, "posterior"):
            drawn = f"{put_draws(made.fit, made.diagnosis, output, draws)} ({draws} draws)"
    if complete:
        tell(f"{output} is complete: nothing was left to do. Without --resume it is fitted anew.")
    return made, drawn


def _as_json(improvement: Improvement[Any], output: Path | None, about: About) -> str:
    result = improvement.fit
    return to_json(
        {
            "program": result.model.program.name,
            "method": result.method.name,
            "verdict": about.verdict,
            "reason": result.reason or about.verdict_reason,
            "outcome": result.outcome.name,
            "advice": result.outcome.value,
            "units": 0 if result.level is None else result.level.num_units,
            "engine": result.model.engine,
            "seed": result.seed,
            "elbo": result.elbo,
            "elbo_se": result.elbo_se,
            "seconds": result.timing.prepare + result.timing.train + result.timing.evaluate,
            "seconds_compile": result.timing.compile,
            "steps": len(result.trace.elbo),
            "gradient_evaluations": result.gradient_evaluations,
            "variational_parameters": result.num_variational_parameters,
            "khat": result.evaluation.khat,
            "improvement": [made.to_json() for made in improvement.rounds],
            "diagnosis": improvement.diagnosis.to_json(),
            "output": None if output is None else str(output),
        }
    )
