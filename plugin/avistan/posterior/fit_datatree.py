"""The posterior of a fit: every restart a chain, in memory or written a batch of draws at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from avistan.fitting.fitted import Fitted
from avistan.posterior.budget import check_draws
from avistan.posterior.corrected import Corrected, num_chains, posterior_batches
from avistan.posterior.datatree import certificate, elbo_trace, to_datatree, unit_diagnostics, unit_dim
from avistan.posterior.draws import Batch, joined, numbers_per_draw, warn_of_rejected
from avistan.posterior.zarr_store import write_batches
from avistan.runtime.errors import FitError
from avistan.runtime.limits import check_path, check_seed
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray, StrPath
from avistan.runtime.versions import __version__
from stan_adapters.bound.bound_model import BoundModel, ConstrainedDraws

_HELD = "Give fewer draws, or write them a batch at a time with Fit.write_posterior."
_LARGE = 2**30  # bytes of all draws from which a posterior is better written than held


def check_resample(resample: object) -> None:
    """That it is a way to choose draws. Raises FitError."""
    if not isinstance(resample, str) or resample not in ("auto", "none", "elbo"):
        now = " What 'psis' did is part of 'auto'." if resample == "psis" else ""
        raise FitError(f"resample={resample!r}: choose 'auto', 'none' or 'elbo'.{now}")


def posterior(
    fit: Fitted, made: Corrected | None, draws: int, seed: int | None, **options: Any
) -> xr.DataTree:
    """The DataTree of a fit; options as in `Fit.posterior`.

    Args:
        made: how it is corrected; None gives q's own draws, `draws` of every restart.
        draws: of all Markov chains together.
    """
    drawn, attrs = _drawn(fit, made, draws, seed), attributes(fit, draws, seed, made)
    chains = num_chains(fit, made)
    return _tree(fit, drawn.values, drawn.theta, drawn.sample_stats, chains, attrs=attrs, **options)


def _drawn(fit: Fitted, made: Corrected | None, draws: int, seed: int | None) -> Batch:
    """Draws of all chains, one after the other."""
    _check(fit, draws, seed)
    with posterior_batches(fit, made, _each(fit, made, draws), seed) as batches:
        drawn = joined(list(batches))
    warn_of_rejected(drawn.num_rejected, len(drawn.theta), fit.model.program.name, stacklevel=5)
    return drawn


def _each(fit: Fitted, made: Corrected | None, draws: int) -> int:
    """Draws of each chain: q gives as many from each restart, Markov chains share them."""
    return draws if made is None or made.is_q else max(1, draws // num_chains(fit, made))


def is_large(fit: Fitted, draws: int) -> bool:
    """Whether a posterior of so many draws is better written batch by batch than held in memory."""
    return num_bytes(fit, draws) > _LARGE


def num_bytes(fit: Fitted, draws: int) -> int:
    """Of all draws in memory."""
    return 8 * draws * len(fit.chains) * sum(numbers_per_draw(fit.model))


def check_posterior(model: BoundModel, draws: int, chains: int, folder: Path) -> None:
    """That a posterior can be held, or written to a folder where it `is_large`, before anything is trained.

    Raises:
        FitError: it can't, with what it would take.
    """
    large = draws * chains * sum(numbers_per_draw(model)) > _LARGE
    check_draws(model, draws, chains=chains, folder=folder if large else None)


def weighted_posterior(fit: Fitted, draws: int, seed: int | None, **options: Any) -> xr.DataTree:
    """The DataTree of the mixture of all restarts, weighted by exp(ELBO); one chain.

    `sample_stats` says which restart a draw is from, the attribute `weights` how the restarts weigh. The ELBO bounds
    the mass that q covers: restarts in separate modes are weighted by it, restarts in one mode compete.
    """
    drawn = _drawn(fit, None, draws, seed)
    elbos = np.array([chain.evaluation.elbo for chain in fit.chains])
    weights = np.exp(elbos - elbos.max())
    weights /= weights.sum()
    rng = generator(fit.seed if seed is None else seed, Stream.MIXTURE)
    restart = rng.choice(len(weights), size=draws, p=weights)
    rows = restart * draws + np.arange(draws)
    values = {name: value[rows] for name, value in drawn.values.items()}
    attrs = attributes(fit, draws, seed) | {"resample": "elbo", "weights": weights.tolist()}
    stats = {"lp": drawn.lp[rows], "restart": restart}
    return _tree(fit, values, drawn.theta[rows], stats, 1, attrs=attrs, **options)


def write_posterior(
    fit: Fitted, made: Corrected | None, path: StrPath, draws: int, seed: int | None, **options: Any
) -> None:
    """Write the same DataTree to a zarr store without ever holding it.

    Raises:
        FitError: the path holds something else or can't be written.
    """
    check_path("path", path)
    _check(fit, draws, seed, folder=Path(path))
    num_rejected, attrs = 0, attributes(fit, draws, seed, made)
    each, chains = _each(fit, made, draws), num_chains(fit, made)

    def trees(batches: Iterator[Batch]) -> Iterator[tuple[int, int, xr.DataTree]]:
        nonlocal num_rejected
        for batch in batches:
            num_rejected += batch.num_rejected
            tree = _tree(fit, batch.values, batch.theta, batch.sample_stats, 1, attrs=attrs, **options)
            yield batch.chain, batch.start, tree

    with posterior_batches(fit, made, each, seed) as batches:
        write_batches(trees(batches), path, chains=chains, draws=each)
    warn_of_rejected(num_rejected, each * chains, fit.model.program.name, stacklevel=4)


def attributes(fit: Fitted, draws: int, seed: int | None, made: Corrected | None = None) -> dict[str, Any]:
    """What a DataTree says of the fit that it is drawn from, and of how it is corrected."""
    return {
        "inference_library": "avistan",
        "inference_library_version": __version__,
        "program": fit.model.program.name,
        "program_digest": fit.model.program.digest,
        "engine": fit.model.engine,
        "method": fit.method.name,
        "outcome": fit.outcome.name,
        "elbo": fit.elbo,
        "elbo_se": fit.elbo_se,
        "seed": fit.seed if seed is None else seed,
        "draws": draws,
        **_units(fit),
        **asdict(fit.options),
        **({"correction": "none"} if made is None else made.attributes()),
    }


def _units(fit: Fitted) -> dict[str, Any]:
    """What the units are called, how many there are, and which parameters are theirs, of both levels."""
    if fit.level is None:
        return {}
    second = () if fit.second is None else fit.second.latents
    return {
        "level": fit.level.name,
        "units": fit.level.num_units,
        "latents": ", ".join([*fit.level.latents, *second]),  # netCDF keeps no list of one name
        **({} if fit.second is None else {"second_level": fit.second.name}),
    }


def _check(fit: Fitted, draws: int, seed: int | None, folder: Path | None = None) -> None:
    """That so many draws of every chain can be made, and held or written to a folder. Raises FitError."""
    if seed is not None:
        check_seed(seed)
    check_draws(fit.model, draws, chains=len(fit.chains), folder=folder, advice=_HELD)


def _tree(
    fit: Fitted,
    values: ConstrainedDraws,
    theta: FloatArray,
    sample_stats: Mapping[str, npt.NDArray[Any]],
    num_chains: int,
    *,
    unconstrained: bool = False,
    unit_values: Mapping[str, npt.ArrayLike] | None = None,
    marks: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any],
    **options: Any,
) -> xr.DataTree:
    groups = {"elbo_trace": elbo_trace([chain.traces for chain in fit.chains])}
    if fit.certificate:
        groups["certificate"] = certificate(fit.certificate)
    if unit_values:
        if fit.level is None:
            raise FitError(
                "unit_diagnostics need a level of units, and every parameter of this fit is global."
            )
        groups["unit_diagnostics"] = unit_diagnostics(fit.level.name, unit_values)
        if groups["unit_diagnostics"].sizes.get(unit_dim(fit.level.name), 0) != fit.level.num_units:
            raise FitError(f"unit_diagnostics need an entry for each of the {fit.level.num_units} units.")
    return to_datatree(
        fit.model.program,
        fit.model.data,
        values,
        sample_stats=sample_stats,
        num_chains=num_chains,
        unit_size=None if fit.level is None else fit.level.name,
        unconstrained=(fit.model.layout, theta) if unconstrained else None,
        groups=groups,
        attrs={**attrs, **(marks or {})},
        **options,
    )
