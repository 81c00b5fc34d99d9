"""Draws of q in batches of bounded memory: unconstrained, with their densities, and as the program's variables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from avistan.family.family import Family
from avistan.family.normals import Noise
from avistan.fitting.fitted import Fitted
from avistan.objective.elbo import sample, tabulated
from avistan.runtime.limits import check_memory, check_seed, whole_number
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import begin_stage, report_step
from avistan.runtime.types import FloatArray
from stan_adapters.bound.bound_model import BoundModel, ConstrainedDraws
from stan_adapters.data.layout import declared_shape

FITTED_UNITS, NEW_UNITS = 4, 5  # purposes of random numbers
_NUMBERS_AT_ONCE = 2**22  # of an array of draws: 32 MiB
_OUTPUTS_PER_PARAMETER = (
    8  # outputs that weigh as much as one parameter, whose draws pass through several arrays
)


class DrawsWarning(UserWarning):
    """Some draws could not be turned into the program's variables."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Consecutive draws of one chain.

    Attributes:
        chain, start: which chain, and the number of the first draw in it.
        theta: unconstrained points (S, D).
        lp, log_q: Stan's log density (-inf where rejected) and q's, nats, (S,).
        values: the program's variables, each (S, *declared shape); NaN in rows that Stan rejected.
        num_rejected: how many such rows.
    """

    chain: int
    start: int
    theta: FloatArray
    lp: FloatArray
    log_q: FloatArray
    values: ConstrainedDraws
    num_rejected: int

    @property
    def sample_stats(self) -> dict[str, FloatArray]:
        return {"lp": self.lp, "log_q": self.log_q, "log_weight": self.lp - self.log_q}


def numbers_per_draw(model: BoundModel) -> tuple[int, int]:
    """How many parameters, on the unconstrained scale, and derived outputs one draw of a bound model has."""
    declared = (*model.program.transformed_parameters, *model.program.generated_quantities)
    shapes = (declared_shape(variable.type, model.data) for variable in declared)
    return model.dim, sum(prod(shape) for shape in shapes if shape is not None)


def batch_size(model: BoundModel) -> int:
    """How many draws of a bound model are held at a time."""
    parameters, outputs = numbers_per_draw(model)
    return max(1, _NUMBERS_AT_ONCE // max(parameters, outputs // _OUTPUTS_PER_PARAMETER, 1))


@in_float64
def unconstrained_draws(
    fit: Fitted, draws: int = 1000, *, seed: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Draws of the best chain's q (S, D) and log q (S,) in nats: those that `draw_batches` gives for a first chain.

    Raises:
        FitError: `draws` is not positive, or takes more memory than there is.
    """
    size = 2 * 8 * whole_number("draws", draws) * fit.model.dim
    check_memory(f"draws={draws} of {fit.model.dim} parameters", size, "Give fewer draws.")
    chain, given = (fit.family, fit.inputs), fit.seed if seed is None else seed
    parts = [part[2:] for part in _unconstrained_batches(fit.model, [chain], draws, given, FITTED_UNITS)]
    theta, log_q = zip(*parts, strict=True)
    return np.concatenate(theta), np.concatenate(log_q)


@in_float64
def marginals(fit: Fitted) -> tuple[FloatArray, FloatArray]:
    """Means and sds (D,) of q on the unconstrained scale: exact where q is factorized, else from 4000 draws."""
    if fit.family.factorized:
        noise = jnp.stack([jnp.zeros(fit.family.dim), jnp.ones(fit.family.dim)])
        family, keys = fit.family, jax.random.split(jax.random.key(0), fit.family.num_units)
        drawn = family.draw(Noise(*family.split(noise), keys), jnp.asarray(fit.inputs, dtype=jnp.float32))
        theta = np.asarray(family.points(drawn))
        return theta[0], theta[1] - theta[0]
    theta = unconstrained_draws(fit, 4000)[0]
    return theta.mean(axis=0), theta.std(axis=0, ddof=1)


def draw_batches(
    model: BoundModel, chains: Sequence[tuple[Family, FloatArray]], draws: int, *, seed: int, purpose: int
) -> Iterator[Batch]:
    """Draws of each chain, a batch at a time; what a draw is does not depend on who reads the batches.

    Args:
        chains: families, with unit inputs (N, R), of one bound model.
        draws: of each chain.
        seed: of the draws and of random generated quantities.
        purpose: separates streams of one seed, see `FITTED_UNITS` and `NEW_UNITS`.

    Raises:
        FitError: `draws` is not positive.
    """
    begin_stage("draws of the posterior")
    for chain, start, theta, log_q in _unconstrained_batches(model, chains, draws, seed, purpose):
        lp, _ = model.log_density_gradient(theta)
        of_batch = np.random.SeedSequence((seed, chain, start)).generate_state(1)[0]
        stan_seed = int(of_batch) if chain or start else seed
        values, num_rejected = model.constrain(theta, seed=stan_seed)
        yield Batch(
            chain=chain,
            start=start,
            theta=theta,
            lp=lp,
            log_q=log_q,
            values=values,
            num_rejected=num_rejected,
        )
        report_step(chain * draws + start + len(theta), draws * len(chains))


def _unconstrained_batches(
    model: BoundModel,
    chains: Sequence[tuple[Family, FloatArray]],
    draws: int,
    seed: int,
    purpose: int,
) -> Iterator[tuple[int, int, FloatArray, FloatArray]]:
    """Chain, number of the first draw, draws of q and log q."""
    draws, seed = whole_number("draws", draws), check_seed(seed)
    size = min(draws, batch_size(model))
    for chain, (fitted, inputs) in enumerate(chains):
        family = _tabulated(fitted, inputs)
        for number, start in enumerate(range(0, draws, size)):
            where = (purpose, *([chain] if chain else []), *([number] if size < draws else []))
            theta, log_q = _sample(family, inputs, seed, where, size)
            yield chain, start, theta[: draws - start], log_q[: draws - start]


@in_float64
def _tabulated(family: Family, inputs: FloatArray) -> Family:
    return tabulated(family, jnp.asarray(inputs, dtype=jnp.float32))


@in_float64
def _sample(
    family: Family, inputs: FloatArray, seed: int, where: tuple[int, ...], draws: int
) -> tuple[FloatArray, FloatArray]:
    """Draws of q and log q; `where` names the stream of random numbers."""
    key = jax.random.key(seed)
    for part in where:
        key = jax.random.fold_in(key, part)
    theta, log_q = sample(family, jnp.asarray(inputs, dtype=jnp.float32), key, draws)
    return np.asarray(theta), np.asarray(log_q)


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches one after another as a single one; `chain` and `start` are those of the first."""
    if len(batches) == 1:
        return batches[0]

    def together(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate(parts)

    return Batch(
        chain=batches[0].chain,
        start=batches[0].start,
        theta=together([batch.theta for batch in batches]),
        lp=together([batch.lp for batch in batches]),
        log_q=together([batch.log_q for batch in batches]),
        values={name: together([batch.values[name] for batch in batches]) for name in batches[0].values},
        num_rejected=sum(batch.num_rejected for batch in batches),
    )


def warn_of_rejected(num_rejected: int, draws: int, program: str, *, stacklevel: int = 3) -> None:
    """A `DrawsWarning` where Stan rejected some of the draws; `stacklevel` as in `warnings.warn`."""
    if num_rejected:
        warnings.warn(
            f"Stan rejected {num_rejected} of {draws} draws of {program} in transformed parameters or generated "
            "quantities; all their values are NaN.",
            DrawsWarning,
            stacklevel=stacklevel + 1,
        )
