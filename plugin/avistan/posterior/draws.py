"""Draws of q in batches of bounded memory: unconstrained, with their densities, and as the program's variables."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, PRNGKeyArray

from avistan.family.family import Family, mean_and_sd
from avistan.fitting.fitted import Fitted
from avistan.objective.elbo import block_size, draw_block, tabulated
from avistan.runtime.device import on_device
from avistan.runtime.limits import check_memory, check_seed, whole_number
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import begin_stage, report_step
from avistan.runtime.streams import Stream, derived_seeds, stream_key
from avistan.runtime.types import FloatArray
from stan_adapters.bound.bound_model import BoundModel, ConstrainedDraws
from stan_adapters.data.layout import declared_shape

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
        lp: Stan's log density (S,), nats; -inf where rejected.
        log_q: q's, of q's own draws.
        values: the program's variables, each (S, *declared shape); NaN in rows that Stan rejected.
        num_rejected: how many such rows.
    """

    chain: int
    start: int
    theta: FloatArray
    lp: FloatArray
    log_q: FloatArray | None
    values: ConstrainedDraws
    num_rejected: int

    @property
    def sample_stats(self) -> dict[str, FloatArray]:
        if self.log_q is None:
            return {"lp": self.lp}
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
    parts = _unconstrained_batches(fit.model, [chain], draws, given, Stream.FITTED_UNITS)
    theta, log_q = zip(*(part[2:] for part in parts), strict=True)
    return np.concatenate(theta), np.concatenate(log_q)


@in_float64
def marginals(fit: Fitted) -> tuple[FloatArray, FloatArray]:
    """Means and sds (D,) of q on the unconstrained scale: exact where q is factorized, else from 4000 draws."""
    if fit.family.factorized:
        inputs = on_device(fit.inputs, np.float32)
        mean, sd = mean_and_sd(tabulated(fit.family, inputs), inputs)
        return np.asarray(mean), np.asarray(sd)
    theta = unconstrained_draws(fit, 4000)[0]
    return theta.mean(axis=0), theta.std(axis=0, ddof=1)


def draw_batches(
    model: BoundModel, chains: Sequence[tuple[Family, FloatArray]], draws: int, *, seed: int, purpose: Stream
) -> Iterator[Batch]:
    """Draws of each chain, a batch at a time; fewer draws are the first ones of more.

    Args:
        chains: families, with unit inputs (N, R), of one bound model.
        draws: of each chain.
        seed: of the draws and of random generated quantities.
        purpose: separates streams of one seed: `FITTED_UNITS` or `NEW_UNITS`.

    Raises:
        FitError: `draws` is not positive.
    """
    rows = _unconstrained_batches(model, chains, draws, seed, purpose)
    return completed(model, rows, draws * len(chains), draws, seed)


def completed(
    model: BoundModel,
    rows: Iterable[tuple[int, int, FloatArray, FloatArray | None]],
    in_all: int,
    each: int,
    seed: int,
) -> Iterator[Batch]:
    """Batches of chain, first draw, points and perhaps log q, with the program's variables and densities.

    Args:
        in_all, each: draws of all chains and of one.
    """
    begin_stage("draws of the posterior")
    for chain, start, theta, log_q in rows:
        lp, _ = model.log_density_gradient(theta)
        (of_batch,) = derived_seeds(seed, Stream.GENERATED_QUANTITIES, chain, start)
        stan_seed = of_batch if chain or start else seed
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
        report_step(chain * each + start + len(theta), in_all)


def _unconstrained_batches(
    model: BoundModel, chains: Sequence[tuple[Family, FloatArray]], draws: int, seed: int, purpose: Stream
) -> Iterator[tuple[int, int, FloatArray, FloatArray]]:
    """Chain, number of the first draw, draws of q and log q. Blocks of one size have keys of their own, whatever the
    batches are that they come in.
    """
    draws, seed = whole_number("draws", draws), check_seed(seed)
    held = batch_size(model)
    block = min(block_size(model.dim), held)
    step = held // block * block
    for chain, (fitted, inputs) in enumerate(chains):
        given = _ready(fitted, inputs, seed, purpose, chain)
        for start in range(0, draws, step):
            stop = min(draws, start + step)
            theta, log_q = _draw_blocks(*given, range(start // block, -(-stop // block)), block)
            yield chain, start, theta[: stop - start], log_q[: stop - start]


@in_float64
def _ready(
    family: Family, inputs: FloatArray, seed: int, purpose: Stream, chain: int
) -> tuple[Family, Float[Array, "N R"], PRNGKeyArray]:
    """What the draws of a chain share."""
    values = on_device(inputs, np.float32)
    return tabulated(family, values), values, stream_key(jax.random.key(seed), purpose, chain)


@in_float64
def _draw_blocks(
    family: Family, inputs: Float[Array, "N R"], key: PRNGKeyArray, blocks: range, size: int
) -> tuple[FloatArray, FloatArray]:
    """Draws of q and log q of some blocks of draws."""
    drawn = [draw_block(family, inputs, key, number, size) for number in blocks]
    theta, log_q = zip(*drawn, strict=True)
    return np.concatenate(theta), np.concatenate(log_q)


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches one after another as a single one; `chain` and `start` are those of the first."""
    if len(batches) == 1:
        return batches[0]

    def together(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate(parts)

    log_q = [batch.log_q for batch in batches if batch.log_q is not None]
    return Batch(
        chain=batches[0].chain,
        start=batches[0].start,
        theta=together([batch.theta for batch in batches]),
        lp=together([batch.lp for batch in batches]),
        log_q=together(log_q) if log_q else None,
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
