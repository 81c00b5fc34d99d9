"""Draws of a fit: as ArviZ's DataTree, as arrays, as tables, as starts for MCMC."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from avistan.fitting.fitted import Fitted
from avistan.posterior.draws import marginals, unconstrained_draws
from avistan.runtime.errors import FitError
from avistan.runtime.progress import ProgressCallback, reporting
from avistan.start.preparation import once
from stan_adapters.bound.bound_model import ConstrainedDraws

if TYPE_CHECKING:  # what not every fit needs takes long to load: whoever needs it loads it
    import pandas as pd
    import xarray as xr

    from avistan.posterior.corrected import Corrected
    from avistan.posterior.datatree import Names
    from avistan.posterior.warm_start import WarmStart


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnFit(Fitted):
    """A fitted posterior and the draws of it; attributes as in `Fitted`. What takes long is kept."""

    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def unconstrained_draws(
        self, draws: int = 1000, *, seed: int | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Draws of q on the unconstrained scale, and their log densities.

        Args:
            draws: S.
            seed: default the fit's; fewer draws are the first ones of more.

        Returns: draws (S, D) in Stan's order, and log q (S,) in nats.

        Raises:
            FitError: `draws` is not positive.

        Example:
            >>> theta, log_q = fit.unconstrained_draws(100)
            >>> theta.shape, log_q.shape
            ((100, 10), (100,))
        """
        return unconstrained_draws(self, draws, seed=seed)

    def marginals(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Means and sds (D,) of q on the unconstrained scale: exact where q is factorized, else from 4000 draws.

        Example:
            >>> means, sds = fit.marginals()
            >>> means.shape, sds.shape
            ((10,), (10,))
        """
        return marginals(self)

    def posterior(
        self,
        draws: int = 1000,
        *,
        seed: int | None = None,
        resample: str = "auto",
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

        The globals are drawn from p(theta | x), the units integrated out, and the units from their conditional
        densities given these, wherever that can be had; attributes of the tree say how (`correction`,
        `effective_draws`), or that these are q's own draws (`correction` is "none").

        Groups: posterior, sample_stats (`lp`, nats; of q's own draws `log_q` and `log_weight` too), observed_data,
        constant_data, elbo_trace, certificate where the fit knows it, and those asked for. Dims are (chain, draw), and
        for the units the level's declared size. Once the fit is diagnosed, attributes say what that found: `trusted`,
        and `not_holding`, the globals that can't be relied on.

        Args:
            draws: of all chains together.
            resample: "none" gives q's own draws, `draws` from each restart, a chain each; "elbo" mixes these, weighted
                by exp(ELBO), as one chain.
            unconstrained: add the group unconstrained_posterior, with one variable for each parameter.
            coords, dims, log_likelihood, posterior_predictive: as in `arviz_base.from_cmdstanpy`; a variable `log_lik`
                becomes the group log_likelihood by default. A mapping {label: name} also renames.
            log_prior: names of log prior densities, for power scaling; `lprior` by default where the program has it.
            unit_diagnostics: numbers for each unit, (N, ...) by name, for a group of that name; by default those of
                `diagnose`, if it was called.
            progress_callback: as of `Model.fit`.

        Raises:
            FitError: `draws` is not positive, or a name that the program does not have.

        Source: Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", JMLR 2024.

        Example:
            >>> tree = fit.posterior(100)
            >>> tree["posterior"]["theta"].dims, tree["posterior"]["theta"].shape
            (('chain', 'draw', 'J'), (1, 100, 8))
        """
        from avistan.posterior import handed_out

        given: dict[str, Any] = {
            "unconstrained": unconstrained,
            "coords": coords,
            "dims": dims,
            "log_likelihood": log_likelihood,
            "posterior_predictive": posterior_predictive,
            "log_prior": log_prior,
            "unit_diagnostics": unit_diagnostics,
        }
        with reporting(progress_callback):
            return handed_out.posterior(self, draws, seed, resample, self._diagnosed(), **given)

    def corrected(self, seed: int | None = None) -> Corrected:
        """How the posterior that the fit hands out is corrected, by default with its seed; prints as a sentence.

        Example:
            >>> fit.corrected().correction.reliable
            True
        """
        from avistan.posterior.corrected import corrected

        return corrected(self, seed)

    def write_posterior(
        self, path: str | os.PathLike[str], draws: int = 1000, *, seed: int | None = None, **datatree: Any
    ) -> None:
        """Write what `posterior` returns to a zarr store, never holding more than a few draws of all units.

        `xarray.open_datatree(path, engine="zarr")` reads it, a part at a time. Arguments as in `posterior`; the draws
        are the same.

        Raises:
            FitError: the path holds something else or can't be written, or as in `posterior`.

        Example:
            >>> fit.write_posterior(folder / "posterior.zarr", 100)
            >>> import xarray
            >>> with xarray.open_datatree(folder / "posterior.zarr", engine="zarr") as tree:
            ...     tree["posterior"]["mu"].shape
            (1, 100)
        """
        from avistan.posterior import handed_out

        handed_out.write_posterior(self, path, draws, seed, self._diagnosed(), **datatree)

    def _diagnosed(self) -> dict[str, Any]:
        """What the diagnosis says, if there is one: of single units, and of the draws."""
        diagnosis = self._kept.get("diagnosis")
        if diagnosis is None:
            return {}
        off = [variable.name for variable in diagnosis.variables if not variable.holds]
        return {"units": diagnosis.units, "trusted": int(diagnosis.passed), "not_holding": off}

    def _default_draws(self) -> ConstrainedDraws:
        from avistan.posterior.handed_out import default_draws

        return once(self._kept, "draws", lambda: default_draws(self))

    def stan_variable(self, name: str) -> npt.NDArray[Any]:
        """1000 draws of a variable, shape (1000, *declared shape), on the program's own scale.

        Raises:
            FitError: the program has no such variable; names those that it has.

        Example:
            >>> fit.stan_variable("theta").shape
            (1000, 8)
        """
        draws = self._default_draws()
        if name not in draws:
            raise FitError(f"the program has no output {name!r}. It has {', '.join(draws)}.")
        return draws[name]

    def draws_pd(self) -> pd.DataFrame:
        """1000 draws, one column for each scalar, named as in CmdStan: `theta[3]`.

        Example:
            >>> fit.draws_pd()["theta[3]"].shape
            (1000,)
        """
        from avistan.posterior.handed_out import as_table

        return as_table(self._default_draws())

    def summary(
        self,
        var_names: str | Sequence[str] | None = None,
        *,
        units: bool = False,
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
        progress_callback: ProgressCallback | None = None,
        **arviz: Any,
    ) -> pd.DataFrame:
        """Means, sds and quantiles of 1000 draws, in a row for each number; prints with notes on what it leaves out.

        By default the variables that are not of units, with R-hat where there are several chains, and effective sample
        sizes where these are Markov chains.

        Args:
            var_names: variables, of units or not.
            units: those of units instead.
            quantiles: probabilities.
            progress_callback: as of `Model.fit`.
            arviz: any argument of `arviz_stats.summary` gives ArviZ's own table instead, which takes some 3 ms for each
                number.

        Raises:
            FitError: no such variable, quantiles that are no probabilities, or no units.

        Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner, Bayesian Analysis 2021.

        Example:
            >>> list(fit.summary(["mu", "tau"]).index)
            ['mu', 'tau']
            >>> fit.summary(units=True).loc["theta[7]"].index.tolist()
            ['mean', 'sd', 'q5', 'q50', 'q95']
        """
        with reporting(progress_callback):
            if arviz:
                import arviz_stats

                table: pd.DataFrame = arviz_stats.summary(self.posterior(), var_names=var_names, **arviz)
                return table
            from avistan.posterior.handed_out import to_summarize
            from avistan.posterior.summaries import summarize

            draws = to_summarize(self, self._default_draws())
            return summarize(draws, var_names=var_names, units=units, quantiles=quantiles)

    def to_cmdstan(
        self,
        folder: str | os.PathLike[str],
        draws: int = 1000,
        *,
        seed: int | None = None,
        progress_callback: ProgressCallback | None = None,
    ) -> list[Path]:
        """Write draws as CmdStan's CSV files, a file for each chain: what `posterior` gives, never all of it held.

        cmdstanpy's `from_csv` reads the folder, and so do rstan's `read_stan_csv`, cmdstanr's `read_cmdstan_csv` and,
        from these, the R packages posterior, bayesplot and loo. `lp__` leaves out the program's constants, as that of
        CmdStan's NUTS does. Independent draws are one chain: R-hat, which compares chains, means nothing of them.

        Returns: the files.

        Raises:
            FitError: `draws` is not positive, or the folder holds other files, can't be written or has no room.

        Example:
            >>> [path.name for path in fit.to_cmdstan(folder / "csv", 100)]
            ['eight_schools_1.csv']
        """
        from avistan.export.cmdstan import write_cmdstan
        from avistan.export.parts import of_fit

        with reporting(progress_callback), of_fit(self, draws, seed, self.marks()) as drawn:
            return write_cmdstan(drawn, folder)

    def unit_table(self, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> pd.DataFrame:
        """A row for each number of each unit: mean, sd, quantiles, how far its inputs are from those of others,
        and what `diagnose` found about it, if it was called. Units count from 1, as in Stan.

        Raises:
            FitError: the fit has no units.

        Example:
            >>> fit.unit_table()[["unit", "variable", "mean"]].shape
            (24, 3)
        """
        from avistan.export.tables import unit_table
        from avistan.posterior.handed_out import to_summarize

        draws = to_summarize(self, self._default_draws())
        return unit_table(self, draws, diagnosed=self.unit_numbers(), quantiles=quantiles)

    def unit_numbers(self) -> Mapping[str, npt.ArrayLike] | None:
        """Numbers of single units, each (N,), that the diagnosis found; None without one.

        Example:
            >>> fit.diagnose() and sorted(fit.unit_numbers())
            ['conditional_error', 'conditional_sd_ratio']
        """
        return self._diagnosed().get("units")

    def marks(self) -> dict[str, Any]:
        """What the diagnosis says of the draws, as attributes of a DataTree has it; empty without one.

        Example:
            >>> fit.diagnose() and sorted(fit.marks())
            ['not_holding', 'trusted']
        """
        return {name: value for name, value in self._diagnosed().items() if name != "units"}

    def create_inits(self, seed: int | None = None, chains: int = 4) -> list[dict[str, npt.NDArray[Any]]]:
        """Starting values for `chains` MCMC chains: one draw each of all parameters, constrained, by name.

        Raises:
            FitError: `chains` is not positive.

        Example:
            >>> inits = fit.create_inits(chains=2)
            >>> len(inits), sorted(inits[0])
            (2, ['mu', 'tau', 'theta_raw'])
        """
        from avistan.posterior.handed_out import starting_values

        return starting_values(self, chains, seed)

    def warm_start(self, chains: int = 4, *, seed: int | None = None) -> WarmStart:
        """Starts and an inverse metric for MCMC, with the arguments of CmdStanPy, stanli and nutpie.

        Args:
            chains: C, starting points.
            seed: default the fit's.

        Raises:
            FitError: `chains` is not positive.

        Source: linear response, Giordano, Broderick & Jordan, JMLR 2018, where the fit allows it.

        Example:
            >>> start = fit.warm_start(chains=2)
            >>> start.theta.shape, start.inverse_metric.shape
            ((2, 10), (10,))
        """
        from avistan.posterior.warm_start import warm_start

        return warm_start(self, chains=chains, seed=seed)
