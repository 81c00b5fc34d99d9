"""Simulation-based calibration: draws from the prior, data simulated from them, a refit of each, ranks of the truth.

Where a program, its simulator and the approximation agree, the rank of a true value among posterior draws is uniform.
Source: Talts, Betancourt, Simpson, Vehtari & Gelman, arXiv 1804.06788; Modrák et al., Bayesian Analysis 2023 (the log
density as a further quantity).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from avistan.calibration.ranking import Ranking
from avistan.calibration.ranks import Calibration
from avistan.calibration.simulator import SimulatorError, simulate
from avistan.family.method import check_choice
from avistan.fitting.fitted import Fitted, fit_method
from avistan.fitting.options import FitOptions, make_options
from avistan.fitting.outcome import FitOutcome
from avistan.model import Model
from avistan.runtime.errors import AvistanError, FitError, MethodError
from avistan.runtime.limits import (
    check_callable,
    check_engine,
    check_seed,
    number_between,
    whole_number,
)
from avistan.runtime.progress import part_of
from avistan.runtime.streams import Stream, derived_seeds, generator
from avistan.runtime.types import StrPath
from avistan.start.preparation import prepare
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import RawData, read_data
from stan_adapters.language.program import Program
from stan_adapters.levels.levels import make_level

OnSimulation = Callable[[int, int, float], None]  # simulations done, in all, nan


def calibrate(
    stan_file: StrPath | Program,
    simulator: StrPath | Program,
    *,
    data: RawData = None,
    method: str = "auto",
    simulations: int = 100,
    draws: int = 99,
    seed: int = 1,
    level: str | None = None,
    engine: str = "auto",
    entries: int = 8,
    log_density: bool = False,
    probability: float = 0.99,
    progress: OnSimulation | None = None,
    **options: Any,
) -> Calibration:
    """Rank true values in the posteriors of refits to simulated data.

    Args:
        stan_file: the program to fit.
        simulator: the program whose generated quantities draw parameters and data, see `simulation`; the same one
            again, if its own do.
        data: what the simulator does not draw, such as sizes and covariates.
        method: as in `Model.fit`; "auto" is resolved on the first data set and kept.
        simulations: R, how many data sets.
        draws: L, posterior draws that a true value is ranked in.
        entries: most scalars ranked of each parameter, spread evenly.
        log_density: rank the log density of all parameters too. It sees dependence that no parameter alone shows, and
            needs a simulator that gives every parameter.
        probability: of passing where everything is right.
        options: fields of `FitOptions`.

    Raises:
        SimulatorError: the simulator gives no parameter or no data of the program, or another shape than it declares.
        FitError: a number out of range, or no refit succeeded.

    Source: Talts, Betancourt, Simpson, Vehtari & Gelman, arXiv 1804.06788.

    Example:
        >>> program, simulator = folder / "normal.stan", folder / "simulator.stan"
        >>> model_block = "parameters { real mu; } model { mu ~ normal(0, 1); y ~ normal(mu, 1); }"
        >>> _ = program.write_text("data { real y; } " + model_block)
        >>> drawn = "real mu = normal_rng(0, 1); real y = normal_rng(mu, 1);"
        >>> _ = simulator.write_text("generated quantities { " + drawn + " }")
        >>> calibration = avi.calibrate(program, simulator, simulations=10, draws=9, steps=20)
        >>> calibration.num_simulations, [entry.name for entry in calibration.entries]
        (10, ['mu'])
    """
    whole_number("simulations", simulations)
    whole_number("draws", draws, "ranked_draws")
    whole_number("entries", entries)
    number_between("probability", probability, 0, 1, 0.99)
    check_seed(seed)
    check_choice(method, None)
    check_callable("progress", progress)
    engine = check_engine(engine)
    started = time.perf_counter()
    program, source = (p if isinstance(p, Program) else Program.from_file(p) for p in (stan_file, simulator))
    chosen = make_options(options)
    simulated = simulate(program, source, data, simulations, seed=seed, engine=engine)
    if log_density and simulated.missing:
        raise SimulatorError(
            f"log_density needs every parameter of {program.name}, and {source.name} does not give "
            f"{', '.join(simulated.missing)}: declare it in its generated quantities."
        )
    refits = _Refits(program, method, level, engine, chosen)
    ranked = Ranking(simulated.truth, entries, draws, log_density, generator(seed, Stream.RANKING))
    failures = []
    seeds = derived_seeds(seed, Stream.SIMULATIONS, count=simulations)
    for number, (values, own_seed) in enumerate(zip(simulated.data_sets(), seeds, strict=True)):
        try:
            with part_of(f"simulation {number + 1} of {simulations}"):
                ranked.add(number, refits(values, own_seed))
        except MethodError:
            raise
        except AvistanError as error:
            failures.append(f"data set {number + 1}: {error}")
        if progress is not None:
            progress(number + 1, simulations, float("nan"))
    if refits.template is None or not ranked.count:
        raise FitError(f"none of the {simulations} refits succeeded. {failures[0]}")
    return Calibration(
        program=program.name,
        simulator=source.name,
        method=refits.template.method.name,
        reason=refits.template.reason,
        num_simulations=ranked.count,
        num_draws=draws,
        seed=seed,
        probability=probability,
        entries=ranked.entries(probability),
        failures=tuple(failures),
        not_simulated=simulated.missing,
        seconds=time.perf_counter() - started,
        options=chosen,
    )


# ---- Refits ------------------------------------------------------------------------------------------------


class _Refits:
    """Fits to data sets of one shape. The first that succeeds settles method and level for the others.

    Compiled steps are shared, so a refit costs its training alone.
    """

    def __init__(
        self, program: Program, method: str, level: str | None, engine: str, options: FitOptions
    ) -> None:
        self.program, self.method, self.level, self.engine = program, method, level, engine
        self.options = options
        self.template: Fitted | None = None

    def __call__(self, values: Mapping[str, Any], seed: int) -> Fitted:
        """A fit to one data set.

        Raises:
            AvistanError: the fit failed.
        """
        if self.template is None:
            fit = self._first(values, seed)
        else:
            model = BoundModel(self.program, read_data(self.program, values), engine=self.engine)
            kept = self.template.level
            level = None if kept is None else make_level(model.layout, kept.name, kept.members)
            counts = {name: getattr(self.options, name) for name in ("num_references", "max_rank")}
            fit = fit_method(prepare(model, level, seed=seed, **counts), self.template.method, self.options)
        if fit.outcome is FitOutcome.nonfinite:
            raise FitError(fit.outcome.value)
        if self.template is None:
            self.template = fit
        return fit

    def _first(self, values: Mapping[str, Any], seed: int) -> Fitted:
        model = Model(stan_code=self.program.source, data=dict(values), engine=self.engine, level=self.level)
        return model.fit(
            method=self.method,
            seed=seed,
            **asdict(self.options),
        )
