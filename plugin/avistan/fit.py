"""The result of a fit: draws, ELBO, outcome, new units; saved and loaded as a folder."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import arviz_stats
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from stan_adapters.binding import BoundModel, Draws
from stan_adapters.data import RawData, read_data
from stan_adapters.levels import Level, Member, make_level

from .errors import FitError
from .evaluation import Evaluation, evaluate, sample
from .families import Family, make_placement, num_variational_parameters
from .log_density import register
from .methods import Method, parse_method
from .options import FitOptions
from .outcome import FitOutcome, judge
from .posterior import Names, to_datatree
from .precision import in_float64
from .preparation import Preparation, skeleton, split, start_family
from .storage import open_fit, write_fit
from .training import Progress, Trace, train
from .unit_inputs import UnitInput, read_unit_input


class DrawsWarning(UserWarning):
    """Some draws could not be turned into the program's variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of a fit. `prepare` (quick fit, signatures) is shared by all methods of a comparison."""

    prepare: float
    compile: float
    train: float
    evaluate: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fitted variational posterior.

    Attributes:
        model: the bound model; stays open as long as the fit is used.
        level: the amortized level, None where every parameter is global.
        reason: why this method was used, in a sentence.
        unit_input, inputs: what the inference function reads, and its values (N, R).
        trace: ELBO (nats) and rejected draws of every step.
    """

    model: BoundModel
    level: Level | None
    method: Method
    options: FitOptions
    seed: int
    reason: str
    family: Family = field(repr=False)
    unit_input: UnitInput | None = field(repr=False)
    inputs: npt.NDArray[np.float64] = field(repr=False)
    trace: Trace = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    timing: Timing
    gradient_evaluations: int
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    # -- what was found -----------------------------------------------------------------------------------------

    @property
    def elbo(self) -> float:
        """Evidence lower bound in nats, up to the program's constant; larger is better."""
        return self.evaluation.elbo

    @property
    def elbo_se(self) -> float:
        """Standard error of `elbo` in nats."""
        return self.evaluation.elbo_se

    @property
    def outcome(self) -> FitOutcome:
        return judge(self.trace, self.evaluation)

    @property
    def num_variational_parameters(self) -> int:
        return num_variational_parameters(self.family)

    def __str__(self) -> str:
        of = "" if self.level is None else f", {self.level.num_units} units of {self.level.name}"
        advice = f"\n{self.outcome.value}" if self.outcome.value else ""
        start = self.timing.prepare + self.timing.compile
        return (
            f"{self.method.name} fit of {self.model.program.name}{of}: "
            f"ELBO {self.elbo:.2f} +- {self.elbo_se:.2f} nats, {self.outcome.name} after {len(self.trace.elbo)} steps, "
            f"{self.timing.train:.1f} s (+ {start:.1f} s start). {self.reason}{advice}"
        )

    # -- draws --------------------------------------------------------------------------------------------------

    @in_float64
    def unconstrained_draws(
        self, draws: int = 1000, *, seed: int | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Draws of q (S, D) on the unconstrained scale and log q (S,) in nats."""
        _check_draws(draws)
        key = jax.random.fold_in(jax.random.key(self.seed if seed is None else seed), 4)
        theta, log_q = sample(self.family, jnp.asarray(self.inputs, dtype=jnp.float32), key, draws)
        return np.asarray(theta), np.asarray(log_q)

    def posterior(
        self,
        draws: int = 1000,
        *,
        seed: int | None = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        log_likelihood: Names | bool = None,
        posterior_predictive: Names = None,
    ) -> xr.DataTree:
        """Draws as an ArviZ DataTree: posterior, sample_stats (`lp`, `log_q`), observed_data and constant_data.

        Dims are (chain, draw) and, for the units, the level's declared size. Arguments as in `arviz_base`'s converters;
        a variable `log_lik` becomes the group log_likelihood by default.
        """
        theta, log_q = self.unconstrained_draws(draws, seed=seed)
        lp, _ = self.model.log_density_gradient(theta)
        values = _constrained(self.model, theta, self.seed if seed is None else seed)
        return to_datatree(
            self.model.program,
            self.model.data,
            values,
            sample_stats={"lp": lp, "log_q": log_q},
            unit_size=None if self.level is None else self.level.name,
            coords=coords,
            dims=dims,
            log_likelihood=log_likelihood,
            posterior_predictive=posterior_predictive,
            attrs=self._attrs(draws, seed),
        )

    def _attrs(self, draws: int, seed: int | None) -> dict[str, Any]:
        from . import __version__

        return {
            "inference_library": "avistan",
            "inference_library_version": __version__,
            "program": self.model.program.name,
            "program_digest": self.model.program.digest,
            "engine": self.model.engine,
            "method": self.method.name,
            "outcome": self.outcome.name,
            "elbo": self.elbo,
            "elbo_se": self.elbo_se,
            "seed": self.seed if seed is None else seed,
            "draws": draws,
        } | asdict(self.options)

    def _default_draws(self) -> Draws:
        if "draws" not in self._kept:
            theta, _ = self.unconstrained_draws(1000)
            self._kept["draws"] = _constrained(self.model, theta, self.seed)
        draws: Draws = self._kept["draws"]
        return draws

    def stan_variable(self, name: str) -> npt.NDArray[Any]:
        """1000 draws of a variable, shape (1000, *declared shape)."""
        draws = self._default_draws()
        if name not in draws:
            raise FitError(f"the program has no output {name!r}. It has {', '.join(draws)}.")
        return draws[name]

    def draws_pd(self) -> pd.DataFrame:
        """1000 draws, one column for each scalar, named as in CmdStan: `theta[3]`."""
        columns = {}
        for name, values in self._default_draws().items():
            for place in np.ndindex(values.shape[1:]):
                label = f"{name}[{','.join(str(i + 1) for i in place)}]" if place else name
                columns[label] = values[(slice(None), *place)]
        return pd.DataFrame(columns)

    def summary(self, **kwargs: Any) -> pd.DataFrame:
        """`arviz_stats.summary` of the posterior."""
        table: pd.DataFrame = arviz_stats.summary(self.posterior(), **kwargs)
        return table

    def create_inits(self, seed: int | None = None, chains: int = 4) -> list[dict[str, npt.NDArray[Any]]]:
        """Starting values for `chains` MCMC chains: one draw each of all parameters, constrained, by name."""
        theta, _ = self.unconstrained_draws(chains, seed=seed)
        draws, _ = self.model.constrain(theta, transformed_parameters=False, generated_quantities=False)
        return [{name: values[chain] for name, values in draws.items()} for chain in range(chains)]

    # -- new units ----------------------------------------------------------------------------------------------

    @in_float64
    def predict(
        self, data: RawData, draws: int = 1000, *, seed: int | None = None, **datatree: Any
    ) -> xr.DataTree:
        """Posterior of units never seen, from their own data and the fitted globals; nothing is trained.

        Args:
            data: of the same program, with the new units in place of the fitted ones.
            datatree: `coords`, `dims`, `log_likelihood`, `posterior_predictive`, as in `posterior`.

        Returns: a DataTree whose group `posterior` has the globals' draws and the new units' latents, and whose group
            `predictions` has the latents and the generated quantities of the new units.

        Raises:
            FitError: the fit has no inference function (F-VI), or the data change the globals' sizes.
        """
        if self.level is None or self.method.function == "table":
            raise FitError(
                f"{self.method.name} has a free factor for each fitted unit and none for new ones: "
                "fit with method='avi'."
            )
        _check_draws(draws)
        program = self.model.program
        given = seed if seed is not None else self.seed
        with BoundModel(program, read_data(program, data), engine=self.model.engine_choice) as model:
            level = self._level_of(model)
            globals_index = level.globals_index(model.dim)
            inputs = np.zeros((level.num_units, self.inputs.shape[1]))
            if self.unit_input is not None:
                inputs = self.unit_input(model, level.index, globals_index)
            family = eqx.tree_at(
                lambda f: f.placement, self.family, make_placement(globals_index, level.index)
            )
            key = jax.random.fold_in(jax.random.key(given), 5)
            theta, log_q = sample(family, jnp.asarray(inputs, dtype=jnp.float32), key, draws)
            points = np.asarray(theta)
            lp, _ = model.log_density_gradient(points)
            values = _constrained(model, points, given)
            tree = to_datatree(
                program,
                model.data,
                values,
                sample_stats={"lp": lp, "log_q": np.asarray(log_q)},
                unit_size=level.name,
                attrs=self._attrs(draws, seed),
                **datatree,
            )
        globals_names = {d.name for d in program.parameters} - set(level.latents)
        groups = [
            tree["posterior"],
            *([tree["posterior_predictive"]] if "posterior_predictive" in tree else []),
        ]
        kept = [group.to_dataset().drop_vars(globals_names, errors="ignore") for group in groups]
        tree["predictions"] = xr.DataTree(xr.merge(kept))
        return tree

    def _level_of(self, model: BoundModel) -> Level:
        """The fitted level in data of other units.

        Raises:
            FitError: a global parameter or a unit's block has another size than in the fit.
        """
        assert self.level is not None
        local = set(self.level.latents)
        for fitted, new in zip(self.model.layout.containers, model.layout.containers, strict=True):
            if fitted.name not in local and fitted.size != new.size:
                raise FitError(
                    f"{fitted.name} is a global of the fit with {fitted.size} unconstrained entries; the new data "
                    f"give it {new.size}. New units need data that leave the globals as they were."
                )
        level = make_level(model.layout, self.level.name, self.level.members)
        if level.block != self.level.block:
            raise FitError(
                f"a unit of {level.name} has {self.level.block} latents in the fit and {level.block} in the new data."
            )
        return level

    # -- storage ------------------------------------------------------------------------------------------------

    @in_float64
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit, its program and its data to a folder, which `avistan.load` reads back.

        Raises:
            FitError: the path holds something else or can't be written.
        """
        level = self.level
        header = {
            "engine": self.model.engine_choice,
            "method": self.method.name,
            "options": asdict(self.options),
            "seed": self.seed,
            "reason": self.reason,
            "outcome": self.outcome.name,
            "elbo": self.elbo,
            "elbo_se": self.elbo_se,
            "level": level and {"name": level.name, "members": [[m.name, m.axis] for m in level.members]},
            "unit_input": None if self.unit_input is None else self.unit_input.kind,
            "data_names": list(self.method.data),
            "timing": asdict(self.timing),
            "gradient_evaluations": self.gradient_evaluations,
        }
        arrays = {
            "inputs": self.inputs,
            "log_weights": self.evaluation.log_weights,
            "trace_elbo": self.trace.elbo,
            "trace_num_rejected": self.trace.num_rejected,
            "trace_chunk_steps": self.trace.chunk_steps,
            "trace_seconds": self.trace.seconds,
        }
        if self.unit_input is not None:
            arrays |= {f"input_{name}": values for name, values in self.unit_input.arrays().items()}
        write_fit(
            path,
            header=header,
            arrays=arrays,
            leaves=(self.family.globals, self.family.inference, self.family.frame),
            program=self.model.program,
            data=self.model.data,
        )


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise FitError(f"draws={draws}: give a positive whole number.")


def _constrained(model: BoundModel, theta: npt.NDArray[np.float64], seed: int) -> Draws:
    """All variables of unconstrained draws (S, D), with a warning where Stan rejected some: those rows are NaN."""
    values, failed = model.constrain(theta, seed=seed)
    if failed:
        warnings.warn(
            f"Stan rejected {failed} of {len(theta)} draws of {model.program.name} in transformed parameters or "
            "generated quantities; all their values are NaN.",
            DrawsWarning,
            stacklevel=3,
        )
    return values


@in_float64
def load(path: str | os.PathLike[str]) -> Fit:
    """Read a fit that `Fit.save` wrote; its program and data come with it.

    Raises:
        FitError: the folder is no saved fit, is damaged, or was written by another format.
    """
    with open_fit(path) as saved:
        header, arrays = saved.header, saved.arrays
        method = parse_method(header["method"])
        model = BoundModel(saved.program, saved.data, engine=header["engine"])
        level = None
        if header["level"] is not None:
            members = [Member(name, axis) for name, axis in header["level"]["members"]]
            level = make_level(model.layout, header["level"]["name"], members)
        index, globals_index = split(model, level)
        empty = skeleton(method, index.shape, len(globals_index), arrays["inputs"].shape[1])
        leaves = saved.read_leaves((empty.globals, empty.inference, empty.frame))
        family = eqx.tree_at(
            lambda f: (f.globals, f.inference, f.frame, f.placement),
            empty,
            (*leaves, make_placement(globals_index, index)),
        )
        unit_arrays = {k.removeprefix("input_"): v for k, v in arrays.items() if k.startswith("input_")}
        return Fit(
            model=model,
            level=level,
            method=method,
            options=FitOptions(**header["options"]),
            seed=header["seed"],
            reason=header["reason"],
            family=family,
            unit_input=read_unit_input(header["unit_input"], unit_arrays, header["data_names"]),
            inputs=arrays["inputs"],
            trace=Trace(
                elbo=arrays["trace_elbo"],
                num_rejected=arrays["trace_num_rejected"],
                chunk_steps=arrays["trace_chunk_steps"],
                seconds=arrays["trace_seconds"],
                seconds_compile=header["timing"]["compile"],
            ),
            evaluation=Evaluation(arrays["log_weights"]),
            timing=Timing(**header["timing"]),
            gradient_evaluations=header["gradient_evaluations"],
        )


@in_float64
def fit_method(
    preparation: Preparation,
    method: Method,
    options: FitOptions,
    *,
    reason: str = "",
    seconds_prepare: float = 0.0,
    progress: Progress | None = None,
) -> Fit:
    """Train and evaluate one method from the shared start.

    Methods that share a preparation and a seed share every random number of training and evaluation.
    """
    seed = preparation.seed
    family, inputs = start_family(preparation, method)
    key = jax.random.key(seed)
    with register(preparation.model) as slot:
        family, trace = train(
            family, inputs, slot.index, options.training, jax.random.fold_in(key, 1), progress
        )
        started = time.perf_counter()
        evaluation = evaluate(family, inputs, slot.index, jax.random.fold_in(key, 3), options.elbo_draws)
        seconds_evaluate = time.perf_counter() - started
    unit_input, values = preparation.unit_input(method)
    return Fit(
        model=preparation.model,
        level=preparation.level,
        method=method,
        options=options,
        seed=seed,
        reason=reason,
        family=family,
        unit_input=unit_input,
        inputs=values,
        trace=trace,
        evaluation=evaluation,
        timing=Timing(
            prepare=seconds_prepare,
            compile=trace.seconds_compile,
            train=float(trace.seconds[-1]),
            evaluate=seconds_evaluate,
        ),
        gradient_evaluations=options.steps * options.draws_per_step,
    )
