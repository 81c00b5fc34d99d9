"""References and competitors from outside: NUTS through stanli's sampler."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from arviz_stats.base import array_stats

from stan_adapters.binding import BoundModel

from .errors import CompetitorError
from .posterior import to_datatree

FloatArray = npt.NDArray[np.float64]
REFERENCES = ("nuts",)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Draws to measure against, on the unconstrained scale.

    Attributes:
        name: such as "nuts".
        theta: (C, S, D) unconstrained draws.
        max_rhat, min_ess: over all coordinates: how far the reference itself can be trusted.
    """

    name: str
    theta: FloatArray
    seconds: float
    max_rhat: float
    min_ess: float
    divergences: int

    @property
    def mean(self) -> FloatArray:
        """Posterior means (D,)."""
        return np.asarray(self.theta.mean(axis=(0, 1)))

    @property
    def sd(self) -> FloatArray:
        """Posterior sds (D,)."""
        return np.asarray(self.theta.std(axis=(0, 1), ddof=1))

    @property
    def caveat(self) -> str:
        """What a reader must know before trusting it; empty if nothing."""
        remarks = []
        if not self.max_rhat < 1.05:
            remarks.append(f"its largest R-hat is {self.max_rhat:.3f}")
        if self.divergences:
            remarks.append(f"it had {self.divergences} divergent transitions")
        return f"The reference {self.name} is itself in doubt: {' and '.join(remarks)}." if remarks else ""

    def to_datatree(self, model: BoundModel) -> xr.DataTree:
        """The draws as an ArviZ DataTree with the program's own variables."""
        chains, _, dim = self.theta.shape
        values, _ = model.constrain(self.theta.reshape(-1, dim), generated_quantities=False)
        lp, _ = model.log_density_gradient(self.theta.reshape(-1, dim))
        return to_datatree(
            model.program,
            model.data,
            values,
            sample_stats={"lp": lp},
            num_chains=chains,
            attrs={"method": self.name},
        )


def nuts(
    model: BoundModel, *, seed: int, chains: int = 4, warmup: int = 1000, draws: int = 1000
) -> Reference:
    """NUTS draws by stanli's sampler, whose settings are CmdStan's.

    Source: Hoffman & Gelman, JMLR 2014; Betancourt, arXiv 1701.02434.

    Raises:
        CompetitorError: stanli can't sample the program, with its reason.
    """
    try:
        import stanli
    except ImportError as error:
        raise CompetitorError("the reference nuts needs stanli: run `pip install stanli`.") from error
    program = model.program.without_generated_quantities()
    started = time.perf_counter()
    try:
        sampler = stanli.Model(stan_code=program.source, data=model.data.to_json(), seed=seed)
        fit = sampler.sample(chains=chains, seed=seed, warmup=warmup, samples=draws, refresh=0)
    except RuntimeError as error:
        raise CompetitorError(f"stanli's NUTS failed on {program.name}: {error}") from error
    seconds = time.perf_counter() - started
    flat = {
        d.name: np.asarray(fit[d.name]).reshape(chains * draws, *model.layout[d.name].shape)
        for d in program.parameters
        if model.layout[d.name].size
    }
    flat |= {
        d.name: np.empty((chains * draws, *model.layout[d.name].shape))
        for d in program.parameters
        if not model.layout[d.name].size
    }
    theta = model.unconstrain_draws(flat).reshape(chains, draws, model.dim)
    return Reference(
        name="nuts",
        theta=theta,
        seconds=seconds,
        max_rhat=_worst(theta, "rhat", np.nanmax),
        min_ess=_worst(theta, "ess", np.nanmin),
        divergences=int(np.sum(fit.divergences)),
    )


def _worst(theta: FloatArray, statistic: str, pick: Any) -> float:
    """The worst R-hat or effective sample size over at most 2000 coordinates, evenly spread."""
    columns: Sequence[int] = np.unique(np.linspace(0, theta.shape[2] - 1, 2000).astype(int)).tolist()
    function = getattr(array_stats, statistic)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # constant columns divide by zero and are skipped as nan
        values = function(theta[:, :, columns], chain_axis=0, draw_axis=1)
    return float(pick(values))
