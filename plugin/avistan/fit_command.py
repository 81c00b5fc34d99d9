"""The command `avistan fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import (
    DataFiles,
    Draws,
    DrawsPerStep,
    ElboDraws,
    Engine,
    EstimatorName,
    IncludePath,
    Json,
    LearningRate,
    LevelName,
    MaxRank,
    NumReferences,
    Seed,
    StanFile,
    Steps,
    given,
    open_model,
)
from .console import Refusal, answers, to_json


@answers
def fit(
    stan_file: StanFile,
    output: Annotated[Path, typer.Option("--output", help="A new folder, or one with an earlier fit.")],
    data: DataFiles = None,
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
            help="auto: grow beyond the method's own family while the ELBO pays for it; fixed.",
        ),
    ] = None,
    chains: Annotated[int, typer.Option("--chains", min=1, help="Independent restarts.")] = 1,
    engine: Engine = "auto",
    include_path: IncludePath = None,
    draws: Draws = 1000,
    steps: Steps = None,
    draws_per_step: DrawsPerStep = None,
    learning_rate: LearningRate = None,
    estimator: EstimatorName = None,
    num_references: NumReferences = None,
    max_rank: MaxRank = None,
    elbo_draws: ElboDraws = None,
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
        typer.Option("--resume", help="Continue an interrupted fit from its checkpoint beside the output."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write the posterior although the diagnosis fails.")
    ] = False,
    json: Json = False,
) -> str:
    """Fit by variational inference, diagnose, and write the fit and its posterior (posterior.nc) to a folder.

    Where the diagnosis fails, the fit and diagnosis.json are written and the posterior is not: exit status 3.
    """
    options = given(
        steps=steps,
        draws_per_step=draws_per_step,
        learning_rate=learning_rate,
        estimator=estimator and estimator.value,
        num_references=num_references,
        max_rank=max_rank,
        elbo_draws=elbo_draws,
    )
    from .checkpoints import beside, check_checkpoint_place, interruptible, remove
    from .deadline import time_limit
    from .files import DIAGNOSIS, POSTERIOR, POSTERIOR_STORE, write_netcdf
    from .fitted_posterior import is_large
    from .outcome import FitOutcome
    from .places import check_folder_place, whole_folder
    from .storage import FIT_FILES

    check_folder_place(output, FIT_FILES)
    checkpoint = beside(output)
    check_checkpoint_place(checkpoint, resume=resume)
    with interruptible(checkpoint), time_limit(max_seconds):
        model = open_model(stan_file, data, engine, include_path, level)
        structure = model.inspect(level=level)
        result = model.fit(
            method=method,
            seed=seed,
            level=level,
            family=family,
            chains=chains,
            checkpoint=checkpoint,
            resume=resume,
            **options,
        )
        improvement = result.improve()
        result, diagnosis = improvement.fit, improvement.diagnosis
        trusted = diagnosis.passed or force
        with whole_folder(output, FIT_FILES) as folder:
            result.save(folder)
            (folder / DIAGNOSIS).write_text(to_json(diagnosis.to_json()) + "\n")
            large = is_large(result, draws)
            written = POSTERIOR_STORE if large else POSTERIOR
            if not trusted:
                written = ""
            elif large:
                result.write_posterior(folder / written, draws)
            else:
                write_netcdf(result.posterior(draws), folder / written)
        if result.outcome is not FitOutcome.out_of_time:
            remove(checkpoint)
    if not json:
        told = (
            f"{written} ({draws} draws)"
            if written
            else "no draws, because the diagnosis failed (--force writes them)"
        )
        went_on = f"{improvement}\n\n" if improvement.rounds else ""
        text = f"{result}\n\n{went_on}{diagnosis}\n\nwritten to {output}: the fit, {DIAGNOSIS}, {told}"
        return text if trusted else Refusal(text)
    text = to_json(
        {
            "program": model.program.name,
            "method": result.method.name,
            "verdict": str(structure.verdict),
            "reason": result.reason or structure.reason,
            "outcome": result.outcome.name,
            "advice": result.outcome.value,
            "units": 0 if result.level is None else result.level.num_units,
            "engine": model.bound.engine,
            "seed": seed,
            "elbo": result.elbo,
            "elbo_se": result.elbo_se,
            "seconds": result.timing.prepare + result.timing.train + result.timing.evaluate,
            "seconds_compile": result.timing.compile,
            "steps": len(result.trace.elbo),
            "gradient_evaluations": result.gradient_evaluations,
            "variational_parameters": result.num_variational_parameters,
            "khat": result.evaluation.khat,
            "improvement": [made.to_json() for made in improvement.rounds],
            "diagnosis": diagnosis.to_json(),
            "output": str(output),
        }
    )
    return text if trusted else Refusal(text)
