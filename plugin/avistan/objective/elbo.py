"""ELBO estimates on common random numbers: methods that share a program and a seed share every normal.

Normals come in antithetic pairs (e, -e): what is odd in them, often most of the variance, cancels within a pair.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, PRNGKeyArray

from avistan.density.common_numbers import Words, fold, key_words, normals_at
from avistan.density.log_density import densities, log_density
from avistan.family.family import Family
from avistan.family.functions import MLP, AbstractInferenceFunction, LocalNu, Refined, Table
from avistan.family.normals import Noise
from avistan.objective.host_draws import Places, draw_pairs, drawn_on_host, mirrored
from avistan.objective.host_functions import unit_values
from avistan.objective.psis import pareto_khat
from avistan.runtime.device import on_device
from avistan.runtime.types import FloatArray

_NUMBERS_AT_ONCE = 4_000_000  # normals of a key
_DEVIATIONS_AT_ONCE = 1 << 24  # numbers that pairs of draws may take on the host
_POINTS_AT_ONCE = 1 << 19  # numbers of points that Stan gets together
_KEPT = 1 << 23  # normals that are kept for the next family, the latest used
_UNITS_AT_ONCE = 50_000  # whose parameters are computed together
_NUMBERS_IN_ALL, _FEWEST_DRAWS = 5_000_000, 20  # of an estimate
_ROWS = 200  # draws that are weighed at a time: few and many draws then share a compiled program


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Log weights log p - log q (M,) of M draws of q in antithetic pairs, nats; -inf where Stan rejected the draw."""

    log_weights: npt.NDArray[np.float64]

    @property
    def accepted(self) -> npt.NDArray[np.bool_]:
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
def paired_standard_error(values: npt.NDArray[np.float64]) -> float:
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
    """Log weights of `num_draws` draws (made even) of a family, in batches of bounded memory.

    Where there are very many parameters it draws less often, 20 times at least: the standard error of the ELBO grows
    with the root of their number only. Fewer draws are the first ones of more.

    Args:
        known: the first draws of the same family and key, which are not made again.
    """
    affordable = max(_FEWEST_DRAWS, _NUMBERS_IN_ALL // max(1, family.dim))
    pairs = max(1, min(num_draws, affordable) // 2)
    size = min(pairs, max(1, _NUMBERS_AT_ONCE // (2 * max(1, family.dim))))
    words, on_host = key_words(key), drawn_on_host(family)
    keep = _sharing > 0 and pairs * family.dim <= _KEPT
    made = np.empty(0) if known is None else known.log_weights[: 2 * pairs]
    batches = []
    for number in range(len(made) // 2 // size, -(-pairs // size)):
        first = max(0, len(made) // 2 - number * size)
        last = min(size, pairs - number * size) if on_host else size  # another length would compile again
        if last > first:
            batches.append(_Batch(fold(words, number), first, last - first, family.dim, keep=keep))
    weigh = _weighed_on_host if on_host else _weighed_by_xla
    more = weigh(family, inputs, slot, batches) if batches else []
    return Evaluation(np.concatenate([made, *more])[: 2 * pairs])


class _Batch:
    """Normals of the pairs of draws from `first` on (pairs, D), the same for every family; `keep` them for the next."""

    def __init__(self, words: Words, first: int, pairs: int, dim: int, *, keep: bool) -> None:
        self._words, self._first, self.pairs, self.dim, self._keep = words, first, pairs, dim, keep

    def whole(self) -> FloatArray:
        """All of them."""
        key = (self._words, self._first, self.pairs, self.dim)
        with _lock:
            if key in _kept:
                _kept.move_to_end(key)
                return _kept[key]
        made = normals_at(self._words, self._numbers(np.arange(self.dim)))
        made.flags.writeable = False
        if self._keep:
            with _lock:
                _kept[key] = made
                while sum(normals.size for normals in _kept.values()) > _KEPT:
                    _kept.popitem(last=False)
        return made

    def of(self, at: Places) -> FloatArray:
        """Those of some coordinates (pairs, n)."""
        if self._keep:
            return self.whole()[:, at]
        numbers = np.arange(at.start, at.stop, at.step) if isinstance(at, slice) else at
        return normals_at(self._words, self._numbers(numbers))

    def _numbers(self, coordinates: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Numbers of their normals (pairs, n) in the stream of the key."""
        pairs = self._first + np.arange(self.pairs)
        return self.dim * pairs[:, None] + coordinates


_lock = threading.Lock()
_kept: OrderedDict[tuple[Words, int, int, int], FloatArray] = OrderedDict()
_sharing = 0  # blocks that are running


@contextlib.contextmanager
def shared_normals() -> Iterator[None]:
    """Within the block the families of one seed share their normals; they are dropped when the last block ends.

    Blocks may be nested, and run in threads. Outside of them no normals are kept: what a fit of another seed left would
    never be asked for again.
    """
    global _sharing
    with _lock:
        _sharing += 1
    try:
        yield
    finally:
        with _lock:
            _sharing -= 1
            if not _sharing:
                _kept.clear()


def _weighed_on_host(
    family: Family, inputs: Float[Array, "N R"], slot: int, batches: Sequence[_Batch]
) -> Iterator[FloatArray]:
    """Log weights without a compiled program, for families that are `drawn_on_host`."""
    values = np.asarray(inputs, dtype=np.float32)
    dim, pairs = max(1, family.dim), max(batch.pairs for batch in batches)
    together = max(1, _DEVIATIONS_AT_ONCE // (dim * pairs * (1 if mirrored(family) else 2)))
    if together < len(batches):
        family = _tabulated_on_host(family, values)
    rows = max(1, _POINTS_AT_ONCE // (2 * dim))
    for start in range(0, len(batches), together):
        some = batches[start : start + together]
        drawn = draw_pairs(family, values, functools.partial(_joint, some))
        for first in range(0, len(drawn.log_q), rows):
            part = slice(first, first + rows)
            yield densities(slot, drawn.points(part)) - drawn.log_q[part].ravel()


def _joint(batches: Sequence[_Batch], at: Places) -> FloatArray:
    """Normals of some coordinates, of all batches."""
    return batches[0].of(at) if len(batches) == 1 else np.concatenate([batch.of(at) for batch in batches])


def _weighed_by_xla(
    family: Family, inputs: Float[Array, "N R"], slot: int, batches: Sequence[_Batch]
) -> Iterator[FloatArray]:
    """Log weights of any family."""
    family = tabulated(family, inputs)
    index = on_device(slot, np.int64)
    for batch in batches:
        noise = batch.whole()
        both = np.stack([noise, -noise], axis=1).reshape(2 * batch.pairs, batch.dim)
        few = _ROWS if len(both) % _ROWS == 0 else len(both)
        for rows in np.split(both, len(both) // few):
            yield np.asarray(_log_weights(family, inputs, index, on_device(rows)))


def _tabulated_on_host(family: Family, inputs: npt.NDArray[np.float32]) -> Family:
    """The same family with a network's outputs, single precision as they are, in a table."""
    if not isinstance(family.inference, MLP):
        return family
    parts: list[Any] = [np.empty((size, len(inputs)), dtype=np.float32) for size in family.local.sizes]
    for start in range(0, len(inputs), _UNITS_AT_ONCE):
        units = slice(start, start + _UNITS_AT_ONCE)
        for part, values in zip(parts, unit_values(family.inference, inputs, units), strict=True):
            part[:, units] = values
    tabled: Family = eqx.tree_at(lambda f: f.inference, family, Table(LocalNu(*parts)))
    return tabled


def tabulated(family: Family, inputs: Float[Array, "N R"]) -> Family:
    """The same family with the units' parameters in a table, made some units at a time, where they are very many.

    A network's hidden layers for all units at once would take far more memory than its outputs.
    """
    units, function = int(inputs.shape[0]), family.inference
    if units <= _UNITS_AT_ONCE or isinstance(function, Table):
        return family
    base = function.base if isinstance(function, Refined) else function
    whole = [np.array(part) for part in base.nu] if isinstance(base, Table) else _in_stretches(base, inputs)
    if isinstance(function, Refined):
        for all_units, own in zip(whole, function.nu, strict=True):
            all_units[:, np.asarray(function.units)] = own
    table = Table(LocalNu(*(jax.device_put(part) for part in whole)))
    tabled: Family = eqx.tree_at(lambda f: f.inference, family, table)
    return tabled


def _in_stretches(function: AbstractInferenceFunction, inputs: Float[Array, "N R"]) -> list[FloatArray]:
    """Each part of all units' parameters, made by one compiled program some units at a time."""
    padded = np.zeros((_UNITS_AT_ONCE, inputs.shape[1]), dtype=np.float32)
    whole: list[FloatArray] = []
    for start in range(0, len(inputs), _UNITS_AT_ONCE):
        some = np.asarray(inputs[start : start + _UNITS_AT_ONCE])
        padded[: len(some)] = some
        nu = _unit_parameters(function, on_device(padded))
        whole = whole or [np.empty((part.shape[0], len(inputs))) for part in nu]
        for all_units, part in zip(whole, nu, strict=True):
            all_units[:, start : start + len(some)] = np.asarray(part)[:, : len(some)]
    return whole


@eqx.filter_jit
def _unit_parameters(function: AbstractInferenceFunction, inputs: Float[Array, "N R"]) -> LocalNu:
    return function(inputs)


@eqx.filter_jit
def _log_weights(
    family: Family, inputs: Float[Array, "N R"], slot: Array, noise: Float[Array, "S D"]
) -> Float[Array, " S"]:
    draws = family.draw(_as_noise(family, noise), inputs)
    return log_density(slot, family.points(draws))[0] - draws.log_q


def _as_noise(family: Family, rows: Float[Array, "S D"]) -> Noise:
    return Noise(*family.split(rows), jax.random.split(jax.random.key(0), family.num_units))


@eqx.filter_jit
def sample(
    family: Family, inputs: Float[Array, "N R"], key: PRNGKeyArray, num_draws: int
) -> tuple[Float[Array, "S D"], Float[Array, " S"]]:
    """Independent draws of q on the unconstrained scale and their log densities in nats."""
    rows = jax.random.normal(key, (num_draws, family.dim), dtype=jnp.float64)
    draws = family.draw(_as_noise(family, rows), inputs)
    return family.points(draws), draws.log_q
