"""ELBO estimates on common random numbers: methods that share a program and a seed share every normal.

Normals come in antithetic pairs (e, -e): what is odd in them, often most of the variance, cancels within a pair. Draws
are made and weighed in blocks, each with a key of its own and all of one shape, so that few and many draws share one
compiled program, and fewer draws are the first ones of more. The normals have a program of their own, which all
families of a model share: they take longer to compile than a family.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from avistan.density.log_density import log_density
from avistan.family.family import Family
from avistan.family.functions import AbstractInferenceFunction, LocalNu, Refined, Table
from avistan.family.normals import Noise, normals
from avistan.objective.psis import pareto_khat
from avistan.runtime.device import on_device
from avistan.runtime.types import BoolArray, FloatArray

_NUMBERS_AT_ONCE = 1 << 20  # of the points of a block and their mirror images, 8 MiB
_MOST_DRAWS = 16  # of a block, before their mirror images
_UNITS_AT_ONCE = 50_000  # whose parameters are computed together
_NUMBERS_IN_ALL, _FEWEST_DRAWS = 5_000_000, 20  # of an estimate


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Log weights log p - log q (M,) of M draws of q in antithetic pairs, nats; -inf where Stan rejected the draw."""

    log_weights: FloatArray

    @property
    def accepted(self) -> BoolArray:
        return np.isfinite(self.log_weights)

    @property
    @np.errstate(over="ignore")  # of weights near the largest numbers it is infinite
    def elbo(self) -> float:
        """Mean log weight of the accepted draws in nats; -inf if there were none."""
        kept = self.log_weights[self.accepted]
        return float(kept.mean()) if kept.size else -np.inf

    @property
    def elbo_se(self) -> float:
        """Standard error of `elbo` in nats, from the pairs."""
        return paired_standard_error(self.log_weights)

    @property
    def rejected_share(self) -> float:
        return float(1 - self.accepted.mean())

    @property
    def khat(self) -> float:
        """Pareto k-hat of the importance weights of all parameters together."""
        return pareto_khat(self.log_weights)


@np.errstate(over="ignore", invalid="ignore")  # then it is infinite or unknown
def paired_standard_error(values: FloatArray) -> float:
    """Standard error of the mean of values (M,) in antithetic pairs; pairs that are not finite are left out."""
    pairs = values.reshape(-1, 2).mean(axis=1)
    pairs = pairs[np.isfinite(pairs)]
    return float(pairs.std(ddof=1) / np.sqrt(len(pairs))) if len(pairs) > 1 else float("nan")


@np.errstate(over="ignore", invalid="ignore")  # then it is infinite or unknown
def gap(of: Evaluation, against: Evaluation) -> tuple[float, float]:
    """ELBO(against) - ELBO(of) in nats with its standard error, from the draws that both methods share."""
    both = of.accepted & against.accepted
    difference = np.where(both, against.log_weights, 0.0) - np.where(both, of.log_weights, 0.0)
    difference[~both] = np.nan
    return (float(np.nanmean(difference)) if both.any() else float("nan")), paired_standard_error(difference)


def evaluate(
    family: Family,
    inputs: Float[Array, "N R"],
    slot: int,
    key: PRNGKeyArray,
    num_draws: int,
    *,
    known: Evaluation | None = None,
) -> Evaluation:
    """Log weights of `num_draws` draws (made even) of a family, in blocks of bounded memory.

    Where there are very many parameters it draws less often, 20 times at least: the standard error of the ELBO grows
    with the root of their number only. Fewer draws are the first ones of more.

    Args:
        inputs: of all units.
        slot: of the model.
        known: the first draws of the same family and key, which are not made again.
    """
    affordable = max(_FEWEST_DRAWS, _NUMBERS_IN_ALL // max(1, family.dim))
    draws = 2 * max(1, min(num_draws, affordable) // 2)
    made = np.empty(0) if known is None else known.log_weights[:draws]
    size = 2 * block_size(family.dim)
    if len(made) == draws:
        return Evaluation(made)
    family, index, first = tabulated(family, inputs), on_device(slot, np.int64), len(made) // size
    blocks = (block_normals(family, key, number, size // 2) for number in range(first, -(-draws // size)))
    made_now = [np.asarray(_log_weights(family, inputs, index, noise)) for noise in blocks]
    more = np.concatenate(made_now)[len(made) - first * size :]
    return Evaluation(np.concatenate([made, more])[:draws])


def block_size(dim: int) -> int:
    """How many independent draws of so many parameters are made together."""
    return int(np.clip(_NUMBERS_AT_ONCE // (2 * max(1, dim)), 1, _MOST_DRAWS))


def block_normals(family: Family, key: PRNGKeyArray, number: int, draws: int) -> Noise:
    """The normals of a block of independent draws, the same in every family with these globals and units."""
    shape = family.num_units, draws, family.globals.size, family.local.block
    noise: Noise = _normals(key, on_device(number, np.uint32), *shape)
    return noise


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _normals(
    key: PRNGKeyArray, number: UInt32[Array, ""], units: int, draws: int, num_globals: int, block: int
) -> Noise:
    return normals(jax.random.fold_in(key, number), jnp.arange(units), draws, num_globals, block)


@jax.jit
def _log_weights(
    family: Family, inputs: Float[Array, "N R"], slot: Int[Array, ""], noise: Noise
) -> Float[Array, " S"]:
    """Of the draws of these normals, each followed by its mirror image."""
    draws = family.draw(noise.mirrored(), inputs)
    return log_density(slot, family.points(draws))[0] - draws.log_q


def draw_block(
    family: Family, inputs: Float[Array, "N R"], key: PRNGKeyArray, number: int, size: int
) -> tuple[Float[Array, "S D"], Float[Array, " S"]]:
    """Independent draws of q in Stan's coordinate order and their log densities in nats."""
    points, log_q = _points(family, inputs, block_normals(family, key, number, size))
    return points, log_q


@jax.jit
def _points(
    family: Family, inputs: Float[Array, "N R"], noise: Noise
) -> tuple[Float[Array, "S D"], Float[Array, " S"]]:
    draws = family.draw(noise, inputs)
    return family.points(draws), draws.log_q


def tabulated(family: Family, inputs: Float[Array, "N R"]) -> Family:
    """The same family with the units' parameters in a table, made some units at a time, where they are very many.

    A network's hidden layers for all units at once would take far more memory than its outputs.
    """
    if len(inputs) <= _UNITS_AT_ONCE or isinstance(family.inference, Table):
        return family
    table = Table(unit_parameters(family.inference, inputs))
    tabled: Family = eqx.tree_at(lambda f: f.inference, family, table)
    return tabled


def unit_parameters(function: AbstractInferenceFunction, inputs: Float[Array, "N R"]) -> LocalNu:
    """Variational parameters of all units on the standardized scale, `function(inputs)`, in bounded memory."""
    if isinstance(function, Table):
        return function.nu
    if len(inputs) <= _UNITS_AT_ONCE:
        nu: LocalNu = _parameters(function, inputs)
        return nu
    if isinstance(function, Refined):
        base = Table(unit_parameters(function.base, inputs))
        nu = _parameters(eqx.tree_at(lambda f: f.base, function, base), inputs)
        return nu
    padded = np.zeros((_UNITS_AT_ONCE, inputs.shape[1]), dtype=np.float32)
    whole: list[FloatArray] = []
    for start in range(0, len(inputs), _UNITS_AT_ONCE):
        some = np.asarray(inputs[start : start + _UNITS_AT_ONCE])
        padded[: len(some)] = some
        nu = _parameters(function, on_device(padded))
        whole = whole or [np.empty((part.shape[0], len(inputs))) for part in nu]
        for all_units, part in zip(whole, nu, strict=True):
            all_units[:, start : start + len(some)] = np.asarray(part)[:, : len(some)]
    return LocalNu(*(jax.device_put(part) for part in whole))


@jax.jit
def _parameters(function: AbstractInferenceFunction, inputs: Float[Array, "N R"]) -> LocalNu:
    return function(inputs)
