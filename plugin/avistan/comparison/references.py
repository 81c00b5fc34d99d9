"""References: posterior draws to measure approximations against, sampled here or read from a file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from avistan.foreign.cmdstan_csv import APPROXIMATE, CALLED
from avistan.foreign.sources import read_draws
from avistan.runtime.errors import CompetitorError
from avistan.runtime.types import FloatArray
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import BindingError
from stan_adapters.samplers import stanli as algorithms
from stan_adapters.samplers.stanli import SamplerDraws

if TYPE_CHECKING:
    import xarray as xr

_COMPARED = 20  # draws of each chain whose log density says which statistics are theirs
_SECONDS, _DIVERGENCES = "sampling_time", "divergences"  # attributes of a tree; the first is ArviZ's
_UNKNOWN = -1  # divergences


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Draws to measure against, on the unconstrained scale.

    Attributes:
        name: such as "nuts".
        theta: (C, S, D) unconstrained draws.
        seconds: that sampling took; nan where that is not known.
        max_rhat, min_ess: over all coordinates: how far the reference itself can be trusted.
        divergences: divergent transitions of the draws; None where that can't be told.
        doubt: what else speaks against it; empty if nothing.

    Source: R-hat and effective sample size, Vehtari, Gelman, Simpson, Carpenter & Bürkner, Bayesian Analysis 2021.

    Example:
        >>> theta = np.random.default_rng(1).normal(size=(4, 250, 10))  # or draws of a sampler
        >>> reference = avi.Reference(name="mine", theta=theta, seconds=2.0, max_rhat=1.0, min_ess=1e3, divergences=0)
        >>> reference.mean.shape, reference.sd.shape, reference.caveat
        ((10,), (10,), '')
    """

    name: str
    theta: FloatArray
    seconds: float
    max_rhat: float
    min_ess: float
    divergences: int | None
    doubt: str = ""

    @classmethod
    def of(cls, name: str, draws: SamplerDraws) -> Reference:
        """A reference of a sampler's draws (C, S, D).

        Example:
            >>> from avistan.comparison.references import nuts
            >>> nuts(model.bound, seed=1, chains=2, warmup=100, draws=100).name
            'nuts'
        """
        return cls(
            name=name,
            theta=draws.theta,
            seconds=draws.seconds,
            max_rhat=_worst(draws.theta, "rhat", np.nanmax),
            min_ess=_worst(draws.theta, "ess", np.nanmin),
            divergences=draws.divergences,
        )

    @property
    def called(self) -> str:
        """Its name in prose."""
        return {"nuts": "NUTS", "cmdstan-nuts": "CmdStan's NUTS"}.get(self.name, self.name)

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
        if self.divergences is None:
            remarks.append(
                "which of its transitions diverged can't be told, because its group sample_stats has other draws than "
                "its group posterior"
            )
        elif self.divergences:
            remarks.append(f"it had {self.divergences} divergent transitions")
        if self.doubt:
            remarks.append(self.doubt)
        return f"The reference {self.name} is itself in doubt: {' and '.join(remarks)}." if remarks else ""

    def to_datatree(self, model: BoundModel) -> xr.DataTree:
        """The draws as an ArviZ DataTree with the program's own variables; `reference_from` reads it back.

        Example:
            >>> reference.to_datatree(model.bound)["posterior"]["theta"].shape
            (4, 250, 8)
        """
        from avistan.posterior.datatree import to_datatree

        chains, _, dim = self.theta.shape
        values, _ = model.constrain(self.theta.reshape(-1, dim), generated_quantities=False)
        lp, _ = model.log_density_gradient(self.theta.reshape(-1, dim))
        return to_datatree(
            model.program,
            model.data,
            values,
            sample_stats={"lp": lp},
            num_chains=chains,
            attrs={
                "method": self.name,
                _SECONDS: self.seconds,
                _DIVERGENCES: _UNKNOWN if self.divergences is None else self.divergences,
            },
        )


def nuts(
    model: BoundModel, *, seed: int, chains: int = 4, warmup: int = 1000, draws: int = 1000
) -> Reference:
    """NUTS draws by stanli's sampler, whose settings are CmdStan's.

    Raises:
        EngineError: stanli can't sample the program, with its reason.
    """
    return Reference.of("nuts", algorithms.nuts(model, seed=seed, chains=chains, warmup=warmup, draws=draws))


def reference_from(source: Any, model: BoundModel) -> Reference:
    """Posterior draws of the same program and data that were made elsewhere.

    Args:
        source: CSV files of CmdStan (a path, several, a folder or a pattern; of NUTS, or of ADVI, Pathfinder or
            Laplace); a fit of cmdstanpy; a DataTree, or a netCDF file or zarr folder of ArviZ, with a group `posterior`
            that holds every parameter with dims (chain, draw, ...); draws of posteriordb (`.json.zip`).

    Raises:
        CompetitorError: the file can't be read, or its draws are not those of the model's parameters.
    """
    wanted = [container.name for container in model.layout.containers if 0 not in container.shape]
    tree, name = read_draws(source, wanted)
    if "posterior" not in tree.children:
        there = ", ".join(tree.children) or "none"
        raise CompetitorError(f"the reference {name} has no group `posterior`; its groups: {there}.")
    posterior = tree["posterior"].to_dataset()
    values = {
        c.name: _values(name, posterior, c.name, c.shape) for c in model.layout.containers if 0 not in c.shape
    }
    if not values:
        raise CompetitorError(f"{model.program.name} has no parameters, so there is nothing to compare.")
    sizes = {parameter: array.shape[:2] for parameter, array in values.items()}
    chains, draws = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1 or chains * draws < 2:
        raise CompetitorError(
            f"the reference {name} needs as many draws, two or more, of every parameter: {sizes}."
        )
    flat = {parameter: array.reshape(chains * draws, *array.shape[2:]) for parameter, array in values.items()}
    try:
        theta = model.unconstrain_draws(flat)
    except BindingError as error:
        raise CompetitorError(
            f"draws of the reference {name} lie outside the support of {model.program.name}: {error}"
        ) from error
    if not np.isfinite(theta).all():
        worst = model.layout.label(int(np.flatnonzero(~np.isfinite(theta).all(axis=0))[0]))
        raise CompetitorError(f"draws of the reference {name} lie on the edge of the support: {worst}.")
    theta = theta.reshape(chains, draws, model.dim)
    _refuse_constants(name, theta, model)
    attrs = dict(tree.attrs) | dict(posterior.attrs)
    found = Reference.of(name, SamplerDraws(theta=theta, seconds=float(attrs.get(_SECONDS, np.nan))))
    found = replace(found, doubt=_doubt(tree, theta, model))
    if _DIVERGENCES not in attrs:
        return replace(found, divergences=_divergences(tree, theta, model))
    known = int(attrs[_DIVERGENCES])
    return replace(found, divergences=None if known == _UNKNOWN else known)


def _doubt(tree: xr.DataTree, theta: FloatArray, model: BoundModel) -> str:
    """What the log densities that CmdStan wrote, and its method, say against draws (C, S, D); empty if nothing."""
    method = tree.attrs.get("algorithm")
    if method not in CALLED:
        return ""
    remarks = (
        [f"it is {CALLED[method]}, which approximates the posterior itself"] if method in APPROXIMATE else []
    )
    stats = tree.children.get("sample_stats")
    if stats is not None and "lp" in stats:
        some = np.unique(np.linspace(0, theta.shape[1] - 1, _COMPARED).astype(int))
        density = np.stack([model.log_density_gradient(points)[0] for points in theta[:, some]])
        apart = np.asarray(stats["lp"].values)[:, some] - density
        # constants that one has and the other lacks do not matter, nor does rounding of what was written as text
        if not np.std(apart) <= max(0.2 * np.std(density), 1e-5 * float(np.abs(density).max(initial=0.0))):
            remarks.append(
                "its log densities are not those of this program and these data (are they the same? Versions of Stan "
                "differ in simplexes, too)"
            )
    return " and ".join(remarks)


def _refuse_constants(name: str, theta: FloatArray, model: BoundModel) -> None:
    """That draws (C, S, D) move in every coordinate. Raises CompetitorError."""
    still = np.flatnonzero(np.ptp(theta, axis=(0, 1)) == 0)
    if still.size:
        more = f" and of {still.size - 1} other numbers" if still.size > 1 else ""
        raise CompetitorError(
            f"all {theta.shape[0] * theta.shape[1]} draws of the reference {name} are the same in "
            f"{model.layout.label(int(still[0]))}{more}: that is a point, not draws of a posterior. Give the "
            "draws of a sampler."
        )


def _divergences(tree: xr.DataTree, theta: FloatArray, model: BoundModel) -> int | None:
    """Divergent transitions of the draws (C, S, D) themselves; 0 where the tree tells of none, None where it can't be
    told which of those that it has belong to the draws.

    The statistics may hold the warm-up too, before the draws (ArviZ 1.3, of CmdStanPy with save_warmup=True): the log
    density at the draws says where these are.
    """
    stats = tree.children.get("sample_stats")
    if stats is None or "diverging" not in stats:
        return 0
    diverging = stats["diverging"]
    if not {"chain", "draw"} <= set(diverging.dims):
        return None
    values = np.asarray(diverging.transpose("chain", "draw", ...).values, dtype=bool)
    chains, draws = theta.shape[:2]
    if values.ndim != 2 or len(values) != chains or values.shape[1] < draws:
        return None
    if values.shape[1] == draws:
        return int(values.sum())
    if {"chain", "draw"} != set(stats["lp"].dims if "lp" in stats else ()):
        return None
    lp = np.asarray(stats["lp"].transpose("chain", "draw").values, dtype=np.float64)
    some = np.unique(np.linspace(0, draws - 1, _COMPARED).astype(int))
    density = np.stack([model.log_density_gradient(points)[0] for points in theta[:, some]])
    first = values.shape[1] - draws
    starts = [start for start in (first, 0) if _moves_with(lp[:, start + some], density)]
    return int(values[:, starts[0] : starts[0] + draws].sum()) if starts else None


def _moves_with(lp: FloatArray, density: FloatArray) -> bool:
    """Whether two log densities of the same draws differ by a constant alone."""
    apart = lp - density
    spread = np.ptp(density)
    return bool(np.isfinite(apart).all() and np.ptp(apart) <= 1e-3 * max(spread, 1e-3))


def _values(name: str, posterior: xr.Dataset, parameter: str, shape: tuple[int, ...]) -> FloatArray:
    """Draws (C, S, *shape) of one parameter."""
    if parameter not in posterior:
        there = ", ".join(map(str, posterior.data_vars)) or "nothing"
        raise CompetitorError(
            f"the reference {name} has no parameter {parameter!r}; its posterior has {there}."
        )
    array = posterior[parameter]
    if not {"chain", "draw"} <= set(array.dims):
        raise CompetitorError(
            f"{parameter} of the reference {name} has dims {array.dims}; it needs dims chain and draw."
        )
    array = array.transpose("chain", "draw", ...)
    if array.shape[2:] != shape:
        raise CompetitorError(
            f"{parameter} of the reference {name} has shape {array.shape[2:]} a draw, the program and its data give "
            f"{shape}. Are the data the same?"
        )
    try:
        values = np.asarray(array.values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CompetitorError(f"{parameter} of the reference {name} is not numeric: {error}") from error
    if not np.isfinite(values).all():
        count = int(np.sum(~np.isfinite(values)))
        raise CompetitorError(f"{parameter} of the reference {name} has {count} values that are not finite.")
    return values


def _worst(theta: FloatArray, statistic: str, pick: Any) -> float:
    """The worst R-hat or effective sample size over at most 2000 coordinates, evenly spread."""
    from arviz_stats.base import array_stats

    columns: Sequence[int] = np.unique(np.linspace(0, theta.shape[2] - 1, 2000).astype(int)).tolist()
    function = getattr(array_stats, statistic)
    with warnings.catch_warnings():
        # constant columns divide by zero and are skipped as nan
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(pick(function(theta[:, :, columns], chain_axis=0, draw_axis=1)))
