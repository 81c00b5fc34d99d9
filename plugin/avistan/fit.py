"""The result of a fit: draws, ELBO, outcome, new units; saved and loaded as a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from avistan.diagnosis.improvement import Improvement, Origin, improve
from avistan.diagnosis.verdict import Diagnosis
from avistan.family.family import Family, num_variational_parameters
from avistan.family.method import Method
from avistan.fitting.chains import Chain, best_of, run_chains
from avistan.fitting.family_selection import GrowthStep
from avistan.fitting.options import FitOptions
from avistan.fitting.outcome import FitOutcome
from avistan.objective.elbo import Evaluation
from avistan.posterior.draws import FITTED_UNITS, unconstrained, warn_of_rejected
from avistan.runtime.errors import FitError
from avistan.runtime.limits import whole_number
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import Progress, ProgressCallback, reporting
from avistan.runtime.text import with_error
from avistan.runtime.threads import one_blas_thread
from avistan.saved import parts as saving
from avistan.start.preparation import Preparation
from avistan.start.unit_inputs import UnitInput
from avistan.training.checkpoints import Checkpoint
from avistan.training.loop import Trace
from avistan.training.stopping import Ending
from stan_adapters.bound.bound_model import BoundModel, Draws
from stan_adapters.levels.levels import Level
from stan_adapters.levels.probes import Probe
from stan_adapters.sources import DataSource

if TYPE_CHECKING:  # what not every fit needs takes long to load: whoever needs it loads it
    import pandas as pd
    import xarray as xr

    from avistan.posterior.datatree import Names
    from avistan.posterior.warm_start import WarmStart

_TRACE = tuple(Trace.__dataclass_fields__)


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
        method: of all chains; where the family grew, the one that it ended with.
        reason: why this method was used, in a sentence.
        unit_input: what the inference function reads.
        second: the second amortized level, None where there is one level at most.
        chains: independent restarts. What a fit says of itself (`elbo`, `trace`, `outcome`) is of the best one.
        certificate: the probes that the level passed.
    """

    model: BoundModel
    level: Level | None
    method: Method
    options: FitOptions
    seed: int
    reason: str
    unit_input: UnitInput | None = field(repr=False)
    chains: tuple[Chain, ...]
    timing: Timing
    certificate: tuple[Probe, ...] = field(default=(), repr=False)
    second: Level | None = None
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    # -- what was found -----------------------------------------------------------------------------------------

    @property
    def best(self) -> Chain:
        """The chain with the largest ELBO."""
        return self.chains[best_of(self.chains)]

    @property
    def family(self) -> Family:
        """q of the best chain."""
        return self.best.family

    @property
    def inputs(self) -> npt.NDArray[np.float64]:
        """Unit inputs (N, R)."""
        return self.best.inputs

    @property
    def trace(self) -> Trace:
        """ELBO (nats) and rejected draws of every step of the best chain."""
        return self.best.trace

    @property
    def evaluation(self) -> Evaluation:
        return self.best.evaluation

    @property
    def growth(self) -> tuple[GrowthStep, ...]:
        """The richer families that were tried, and what each bought."""
        return self.chains[0].growth

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
        return self.best.outcome

    @property
    def num_variational_parameters(self) -> int:
        return num_variational_parameters(self.family)

    @property
    def gradient_evaluations(self) -> int:
        """Stan gradients of training, all chains together."""
        return sum(chain.gradient_evaluations for chain in self.chains)

    def keep_chains(self, numbers: Sequence[int]) -> Fit:
        """The fit with only some of its restarts, numbered from 0: what ended in a worse optimum can be dropped.

        Raises:
            FitError: no such restart, or none at all.
        """
        known = range(len(self.chains))
        if not isinstance(numbers, Sequence) or not numbers or any(number not in known for number in numbers):
            raise FitError(f"keep_chains({numbers!r}): give a list of the restarts 0 to {known[-1]}.")
        return replace(self, chains=tuple(self.chains[number] for number in numbers), _kept={})

    def __str__(self) -> str:
        levels = [level for level in (self.level, self.second) if level is not None]
        of = ", " * bool(levels) + " and ".join(
            f"{level.num_units} units of {level.name}" for level in levels
        )
        reason = f" {self.reason}" if self.reason else ""
        advice = f"\n{self.outcome.value}" if self.outcome.value else ""
        start = self.timing.prepare + self.timing.compile
        steps = len(self.trace.elbo)
        ended = f"{self.outcome.name} after {steps} steps"
        if self.outcome is FitOutcome.settled and self.trace.ended is Ending.given:
            ended = f"after the {steps} steps asked for"
        return (
            f"{self.method.name} fit of {self.model.program.name}{of}, engine {self.model.engine}: "
            f"ELBO {with_error(self.elbo, self.elbo_se)}, {ended}, "
            f"{self.timing.train:.1f} s (+ {start:.1f} s start).{reason}{advice}"
            f"{self._restarts()}{self._grown()}"
        )

    def _restarts(self) -> str:
        if len(self.chains) < 2:
            return ""
        elbos = ", ".join(f"{chain.evaluation.elbo:.2f}" for chain in self.chains)
        return f"\nELBOs of {len(self.chains)} restarts: {elbos}."

    def _grown(self) -> str:
        return "".join(
            f"\n{step.method}: {with_error(step.gain, step.gain_se, sign=True)}, {'kept' if step.kept else 'not kept'}."
            for step in self.growth
        )

    def diagnose(
        self,
        *,
        nuts: bool = False,
        seed: int | None = None,
        progress_callback: ProgressCallback | None = None,
    ) -> Diagnosis:
        """Whether the fit can be trusted: what passed, what failed, the numbers, and what to do. Prints as a table.

        Takes longer than the fit, often several times. A diagnosis is kept, and its numbers of single units become a
        group of `posterior`.

        Args:
            nuts: also sample the units' latents by Markov chains with the globals held at draws, and compare.
            seed: of the checks; default the fit's.
            progress_callback: as of `Model.fit`.
        """
        from avistan.diagnosis.checks import diagnose

        key = f"diagnosis {seed} {nuts}"
        if key not in self._kept:
            with reporting(progress_callback):
                self._kept[key] = self._kept["diagnosis"] = diagnose(self, seed=seed, nuts=nuts)
        found: Diagnosis = self._kept[key]
        return found

    def improve(self) -> Improvement:
        """Go on from the better optimum that `diagnose` found: the same method, trained from there and diagnosed again.

        At most two trainings. The result holds the better fit and its diagnosis; where no better optimum was found,
        this fit and its own.
        """
        return improve(self, fit_method)

    @property
    def origin(self) -> Origin | None:
        """What this fit was trained from; None if it was loaded."""
        origin: Origin | None = self._kept.get("origin")
        return origin

    def refine(self, units: Sequence[int] | None = None, *, steps: int = 300) -> Fit:
        """The fit with chosen units freed from the inference function (F-VI from the amortized start).

        Args:
            units: numbers counted from 0, as in ArviZ's coordinates (a diagnosis and Stan count from 1: their unit n is
                n - 1 here); None frees all.
            steps: Adam steps, with the globals held.

        Raises:
            FitError: no separable level, or no such unit.
        """
        from avistan.posterior.refine_locals import refine

        return refine(self, units, steps=steps)

    # -- draws --------------------------------------------------------------------------------------------------

    @in_float64
    def unconstrained_draws(
        self, draws: int = 1000, *, seed: int | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Draws of q (S, D) on the unconstrained scale and log q (S,) in nats."""
        given = self.seed if seed is None else seed
        return unconstrained(self.model, self.family, self.inputs, draws, seed=given, purpose=FITTED_UNITS)

    @in_float64
    def marginals(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Means and sds (D,) of q on the unconstrained scale: exact where q is factorized, else from 4000 draws."""
        family = self.family
        if family.factorized:
            noise = jnp.stack([jnp.zeros(family.dim), jnp.ones(family.dim)])
            theta = np.asarray(family.draw(noise, jnp.asarray(self.inputs, dtype=jnp.float32)).theta)
            return theta[0], theta[1] - theta[0]
        theta = self.unconstrained_draws(4000)[0]
        return theta.mean(axis=0), theta.std(axis=0, ddof=1)

    def posterior(
        self,
        draws: int = 1000,
        *,
        seed: int | None = None,
        resample: str | None = None,
        unconstrained: bool = False,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        log_likelihood: Names | bool = None,
        posterior_predictive: Names = None,
        log_prior: Names | bool = None,
        unit_diagnostics: Mapping[str, npt.ArrayLike] | None = None,
        progress_callback: ProgressCallback | None = None,
    ) -> xr.DataTree:
        """Draws as an ArviZ DataTree.

        Groups: posterior, sample_stats (`lp`, `log_q`, `log_weight`, nats), observed_data, constant_data, elbo_trace,
        certificate where the fit knows it, and those asked for. Dims are (chain, draw), one chain for each restart, and
        for the units the level's declared size.

        Args:
            draws: of each chain.
            resample: "psis" corrects the globals by Pareto smoothed importance weights with the locals integrated out;
                "elbo" mixes the restarts, weighted by exp(ELBO). The result is one chain.
            unconstrained: add the group unconstrained_posterior, with one variable for each parameter.
            coords, dims, log_likelihood, posterior_predictive: as in `arviz_base.from_cmdstanpy`; a variable `log_lik`
                becomes the group log_likelihood by default. A mapping {label: name} also renames.
            log_prior: names of log prior densities, for power scaling; `lprior` by default where the program has it.
            unit_diagnostics: numbers for each unit, (N, ...) by name, for a group of that name; by default those of
                `diagnose`, if it was called.
            progress_callback: as of `Model.fit`.

        Raises:
            FitError: `draws` is not positive, a name that the program does not have, or unreliable weights.
        """
        from avistan.posterior import fit_datatree as fitted_posterior

        ways = {
            None: fitted_posterior.posterior,
            "psis": fitted_posterior.corrected_posterior,
            "elbo": fitted_posterior.weighted_posterior,
        }
        if not isinstance(resample, str | None) or resample not in ways:
            raise FitError(f"resample={resample!r}: choose 'psis', 'elbo' or None.")
        if unit_diagnostics is None and "diagnosis" in self._kept:
            unit_diagnostics = self._kept["diagnosis"].units
        with reporting(progress_callback):
            return ways[resample](
                self,
                draws,
                seed,
                unconstrained=unconstrained,
                coords=coords,
                dims=dims,
                log_likelihood=log_likelihood,
                posterior_predictive=posterior_predictive,
                log_prior=log_prior,
                unit_values=unit_diagnostics,
                attrs=self._attrs(draws, seed),
            )

    def write_posterior(
        self, path: str | os.PathLike[str], draws: int = 1000, *, seed: int | None = None, **datatree: Any
    ) -> None:
        """Write what `posterior` returns to a zarr store, never holding more than a few draws of all units.

        `xarray.open_datatree(path, engine="zarr")` reads it, a part at a time. Arguments as in `posterior`; the draws
        are the same.

        Raises:
            FitError: the path holds something else or can't be written, or as in `posterior`.
        """
        from avistan.posterior import fit_datatree as fitted_posterior

        unit_values = datatree.pop("unit_diagnostics", None)
        attrs = self._attrs(draws, seed)
        fitted_posterior.write_posterior(
            self, path, draws, seed, unit_values=unit_values, attrs=attrs, **datatree
        )

    def _attrs(self, draws: int, seed: int | None) -> dict[str, Any]:
        from avistan.runtime.versions import __version__

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
        import pandas as pd

        columns = {}
        for name, values in self._default_draws().items():
            for place in np.ndindex(values.shape[1:]):
                label = f"{name}[{','.join(str(i + 1) for i in place)}]" if place else name
                columns[label] = values[(slice(None), *place)]
        return pd.DataFrame(columns)

    def summary(self, **kwargs: Any) -> pd.DataFrame:
        """`arviz_stats.summary` of the posterior."""
        import arviz_stats

        table: pd.DataFrame = arviz_stats.summary(self.posterior(), **kwargs)
        return table

    def create_inits(self, seed: int | None = None, chains: int = 4) -> list[dict[str, npt.NDArray[Any]]]:
        """Starting values for `chains` MCMC chains: one draw each of all parameters, constrained, by name."""
        theta, _ = self.unconstrained_draws(whole_number("chains", chains), seed=seed)
        draws, _ = self.model.constrain(theta, transformed_parameters=False, generated_quantities=False)
        return [{name: np.asarray(v[chain]) for name, v in draws.items()} for chain in range(chains)]

    def warm_start(self, chains: int = 4, *, seed: int | None = None) -> WarmStart:
        """Starts and an inverse metric for MCMC, with the arguments of CmdStanPy, stanli and nutpie."""
        from avistan.posterior.warm_start import warm_start

        return warm_start(self, chains=chains, seed=seed)

    # -- new units ----------------------------------------------------------------------------------------------

    def predict(
        self, data: DataSource, draws: int = 1000, *, seed: int | None = None, **datatree: Any
    ) -> xr.DataTree:
        """Posterior of units never seen, from their own data and the fitted globals; nothing is trained.

        Args:
            data: of the same program, with the new units in place of the fitted ones.
            datatree: `coords`, `dims`, `log_likelihood`, `posterior_predictive`, `log_prior`, as in `posterior`.

        Returns: a DataTree whose group `posterior` has the globals' draws and the new units' latents, whose group
            `predictions` has only what belongs to the new units, and whose group `unit_diagnostics` has their distance
            from the fitted units (1 is typical of those among themselves).

        Raises:
            FitError: the method has free factors of the fitted units, or the new data change the globals.

        Warns:
            NewUnitsWarning: units are unlike those that were fitted, with how many, which is worst and how far.
        """
        from avistan.posterior.predict import predict

        return predict(self, data, draws, seed, attrs=self._attrs(draws, seed), **datatree)

    # -- storage ------------------------------------------------------------------------------------------------

    @in_float64
    def save(self, path: str | os.PathLike[str], *, asked: Mapping[str, Any] | None = None) -> None:
        """Write the fit, its program and its data to a folder, which `avistan.load` reads back.

        Args:
            asked: plain JSON to keep with the fit, such as how it was asked for; `storage.read_asked` returns it.

        Raises:
            FitError: the path holds something else or can't be written.
        """
        saving.write(self, path, asked)


def _constrained(model: BoundModel, theta: npt.NDArray[np.float64], seed: int) -> Draws:
    """All variables of unconstrained draws (S, D), with a warning where Stan rejected some: those rows are NaN."""
    values, failed = model.constrain(theta, seed=seed)
    warn_of_rejected(failed, len(theta), model.program.name)
    return values


@in_float64
def load(path: str | os.PathLike[str], *, engine: str | None = None) -> Fit:
    """Read a fit that `Fit.save` wrote; its program and data come with it.

    A folder is data: nothing in it runs, and each file must be what was saved.

    Args:
        engine: as in `Model`; by default the one that the fit was made with, unless that was a prebuilt library, which
            only the caller may name.

    Raises:
        FitError: the folder is no saved fit, was changed or damaged (with the file's name), was written by another
            format, or needs an engine to be named.

    Warns:
        ChangedFileWarning: draws or a diagnosis that lie with the fit were changed.

    Example: `avistan.load("fit/").predict("new.json")`.
    """
    fields = saving.read(path, engine)
    return Fit(**fields | {"timing": Timing(**fields["timing"])})


@one_blas_thread
@in_float64
def fit_method(
    preparation: Preparation,
    method: Method,
    options: FitOptions,
    *,
    chains: int = 1,
    grow: bool = False,
    reason: str = "",
    certificate: Sequence[Probe] = (),
    seconds_prepare: float = 0.0,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Train and evaluate one method; training is saved to `checkpoint` and continued from it.

    Methods that share a preparation and a seed share every random number of training and evaluation.

    Args:
        chains: independent restarts.
        grow: try richer families too, and keep what pays.
    """
    ended, made = run_chains(
        preparation, method, options, chains=chains, grow=grow, progress=progress, checkpoint=checkpoint
    )
    unit_input, _ = preparation.unit_input(method)
    return Fit(
        model=preparation.model,
        level=preparation.level,
        method=ended,
        options=options,
        seed=preparation.seed,
        reason=reason,
        unit_input=unit_input,
        chains=made,
        timing=Timing(
            prepare=seconds_prepare,
            compile=sum(chain.seconds_compile for chain in made),
            train=sum(chain.seconds_train for chain in made),
            evaluate=sum(chain.seconds_evaluate for chain in made),
        ),
        certificate=tuple(certificate),
        second=None if ended.second is None else preparation.second_level(ended),
        _kept={"origin": Origin(preparation=preparation, method=method, grow=grow)},
    )
