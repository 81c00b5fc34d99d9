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

import numpy as np
import numpy.typing as npt

from avistan.calibration.ranks import Calibration, Entry
from avistan.calibration.simulator import SimulatorError, simulate
from avistan.calibration.uniformity import p_value, shape
from avistan.family.method import check_choice
from avistan.fitting.fitted import Fitted, fit_method
from avistan.fitting.options import FitOptions, make_options
from avistan.fitting.outcome import FitOutcome
from avistan.model import Model
from avistan.posterior.draws import unconstrained_draws
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
from avistan.runtime.types import FloatArray, IntArray, StrPath
from avistan.start.preparation import prepare
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import RawData, read_data
from stan_adapters.language.program import Program
from stan_adapters.levels.levels import make_level

OnSimulation = Callable[[int, int, float], None]  # simulations done, in all, nan

LOG_DENSITY = "lp__"


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
    ranked = _Ranking(simulated.truth, entries, draws, log_density, generator(seed, Stream.RANKING))
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


# ---- Ranks -------------------------------------------------------------------------------------------------


class _Ranking:
    """Collects ranks of true values, refit by refit."""

    def __init__(
        self,
        truth: Mapping[str, npt.NDArray[Any]],
        most: int,
        num_draws: int,
        log_density: bool,
        rng: np.random.Generator,
    ) -> None:
        self.truth, self.num_draws, self.log_density, self.rng = truth, num_draws, log_density, rng
        self.places = {name: _spread(values[0].size, most) for name, values in truth.items()}
        self.rows: list[dict[str, tuple[FloatArray, IntArray]]] = []

    @property
    def count(self) -> int:
        return len(self.rows)

    def add(self, number: int, fit: Fitted) -> None:
        """Rank the truth of one simulation in the draws of its fit.

        Raises:
            SimulatorError: the simulator gives a parameter another shape than the program.
            FitError: a draw can't be constrained.
        """
        theta, _ = unconstrained_draws(fit, self.num_draws)
        values, _ = fit.model.constrain(theta, transformed_parameters=False, generated_quantities=False)
        row = {}
        for name, places in self.places.items():
            truth, posterior = self.truth[name][number], values[name]
            if posterior.shape[1:] != truth.shape:
                raise SimulatorError(
                    f"the simulator gives {name} the shape {truth.shape}, {fit.model.program.name} declares "
                    f"{posterior.shape[1:]}."
                )
            at, of = truth.reshape(-1)[places], posterior.reshape(self.num_draws, -1)[:, places]
            if not np.isfinite(of).all():
                raise FitError(f"posterior draws of {name} are not finite.")
            row[name] = (at, self._rank(at, of))
        if self.log_density:
            point = fit.model.unconstrain({name: self.truth[name][number] for name in self.places})
            at = fit.model.log_density_gradient(point[None])[0]
            row[LOG_DENSITY] = (at, self._rank(at, fit.model.log_density_gradient(theta)[0][:, None]))
        self.rows.append(row)

    def entries(self, probability: float) -> tuple[Entry, ...]:
        """Every scalar that the simulator varies, with its verdict.

        Raises:
            SimulatorError: it varies none.
        """
        found = []
        for variable in self.rows[0]:
            truth = np.stack([row[variable][0] for row in self.rows])
            ranks = np.stack([row[variable][1] for row in self.rows])
            whole, places = (), [0]
            if variable != LOG_DENSITY:
                whole, places = self.truth[variable].shape[1:], self.places[variable]
            found += [
                (_label(variable, whole, place), variable, truth[:, column], ranks[:, column])
                for column, place in enumerate(places)
                if np.ptp(truth[:, column]) > 0  # the diagonal of a correlation matrix does not vary
            ]
        if not found:
            raise SimulatorError(
                "every true value is the same in all simulations: the simulator draws nothing."
            )
        allowed = (1 - probability) / len(found)
        return tuple(self._judged(*given, allowed) for given in found)

    def _judged(self, name: str, variable: str, truth: FloatArray, ranks: IntArray, allowed: float) -> Entry:
        p = p_value(ranks, self.num_draws)
        return Entry(
            name=name,
            variable=variable,
            truth=truth,
            ranks=ranks,
            p_value=p,
            passed=p > allowed,
            shape=None if p > allowed else shape(ranks, self.num_draws),
        )

    def _rank(self, truth: FloatArray, draws: FloatArray) -> IntArray:
        """Ranks (P,) of true values (P,) in draws (L, P), ties broken at random."""
        below, ties = (draws < truth[None]).sum(axis=0), (draws == truth[None]).sum(axis=0)
        return np.asarray(below + self.rng.integers(0, ties + 1), dtype=np.int64)


def _spread(total: int, most: int) -> list[int]:
    return [int(i) for i in np.unique(np.linspace(0, total - 1, min(most, total)).round())] if total else []


def _label(name: str, shape: tuple[int, ...], flat: int) -> str:
    """`a[2,3]`, counted from 1 as in Stan."""
    return f"{name}[{','.join(str(i + 1) for i in np.unravel_index(flat, shape))}]" if shape else name
