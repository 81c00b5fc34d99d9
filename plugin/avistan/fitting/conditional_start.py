"""Conditional factors q(z_n given theta), and correlations within units, started from curvature, without training.

The network keeps the means that it gives each unit; it learns the slopes and the precisions of some units by least
squares on its last hidden layer. The globals get the precision that is left when units depend on them, and one step of
Newton's towards the mean that all units together ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpy.typing as npt

from avistan.density.slots import register
from avistan.family.family import Family
from avistan.family.functions import MLP, LocalNu
from avistan.family.globals import GlobalGaussian
from avistan.family.method import Method
from avistan.family.ridge import ridge
from avistan.fitting.curvature import UnitPlaces, precision_without_units, read_curvature
from avistan.fitting.family_selection import grown, reframed
from avistan.fitting.natural_gradient import moved_globals, shift_of_globals
from avistan.fitting.shard_preparation import LargePreparation
from avistan.objective.elbo import unit_parameters
from avistan.runtime.device import on_device
from avistan.runtime.streams import Stream, generator, stream_key
from avistan.runtime.types import FloatArray, Rng
from avistan.start.preparation import Preparation
from stan_adapters.data.layout import IndexArray
from stan_adapters.shards.shard import Shard

InputRows = npt.NDArray[np.float32]

MAX_GLOBALS = 200  # two gradients for each, of every part and draw
_MOST_SLOPES = 20_000_000  # of all units, where there are no shards to look at instead
_SHARDS = 8  # of very many units, that are looked at
_PAIRS, _FEWEST_PAIRS, _UNIT_PAIRS = 16, 2, 16_000  # of draws: fewer of many units
_ROUNDS, _STILL = 5, 1.0  # readings, until the globals move by so few of their sds
_MOST_SHIFT = 20.0  # sds of a Newton step, beyond which something else is wrong
_NUMBERS, _MOST_PAIRS = 8_000_000, 16  # of draws of all units, for that step


def start_conditional(
    preparation: Preparation, family: Family, method: Method, inputs: InputRows
) -> tuple[Family, int] | None:
    """A family whose units depend on the globals, from one where they do not, and the gradients that it took.

    None where the method does not ask for it, or the function is no network, or curvature says nothing: a point was
    rejected, or the density is not concave in the globals.

    Args:
        family: with globals of their own; on minibatches, for the units of a shard.
        inputs: of all units, (N, R).
    """
    network, factor = family.inference, family.globals
    follows = method.conditional == "mean" and family.local.conditional == "none"
    shaped = method.flow or method.reach > 0
    if not (follows and not shaped and isinstance(network, MLP) and isinstance(factor, GlobalGaussian)):
        return None
    large = isinstance(preparation, LargePreparation)
    too_many = not large and preparation.index.size * factor.size > _MOST_SLOPES
    if factor.size > MAX_GLOBALS or factor.kind != "mean-field" or too_many:
        return None
    rng = generator(preparation.seed, Stream.CONDITIONAL_START, 0)
    return _rounds(
        preparation, grown(family, method), method, inputs, rng, within=family.local.kind == "diagonal"
    )


def center_globals(
    preparation: Preparation, family: Family, method: Method, inputs: InputRows
) -> tuple[Family, int] | None:
    """The family with its globals where all units together ask for, units moved along, and the gradients it took.

    On minibatches training leaves the globals where the noise of the last ones had moved them, or on their way: for
    them a step of training is far smaller than that noise. None where units do not depend on the globals, or through
    curves, the globals are transformed, or the function is no network. Arguments as of `start_conditional`.
    """
    factor = family.globals
    follows = family.local.directions > 0 and family.curve is None
    if not (follows and isinstance(family.inference, MLP) and isinstance(factor, GlobalGaussian)):
        return None
    if factor.size > MAX_GLOBALS or factor.warp is not None:
        return None
    rng = generator(preparation.seed, Stream.CONDITIONAL_START, 1)
    return _rounds(preparation, family, method, inputs, rng, within=False)


def _rounds(
    preparation: Preparation,
    family: Family,
    method: Method,
    inputs: InputRows,
    rng: Rng,
    *,
    within: bool,
) -> tuple[Family, int] | None:
    """Readings of curvature, each followed by a step of Newton's, until the globals stay where they are."""
    evaluations = 0
    for number in range(_ROUNDS):
        found = _round(preparation, reframed(family), method, inputs, rng, number, within=within)
        if found is None:
            return None
        family, shift, gradients = found
        evaluations += gradients
        if shift >= _STILL:  # far: another step shows whether the curvature there was another
            family, shift, gradients = _newton_step(preparation, family, inputs, 2 * number + 1)
            evaluations += gradients
        if shift < _STILL:
            break
    return family, evaluations


def _round(
    preparation: Preparation,
    family: Family,
    method: Method,
    inputs: InputRows,
    rng: Rng,
    number: int,
    *,
    within: bool,
) -> tuple[Family, float, int] | None:
    """The family after a reading of curvature, how far the globals then moved, in sds, and the gradients it took.

    Args:
        number: of the round.
        within: read the correlations within units too.
    """
    theta, sd = np.asarray(family.frame.global_center), np.asarray(family.frame.global_scale)
    with ExitStack() as stack:
        parts = list(_parts(preparation, family, inputs, rng, stack))
        pairs = int(
            np.clip(_UNIT_PAIRS // max(1, sum(len(part.numbers) for part in parts)), _FEWEST_PAIRS, _PAIRS)
        )
        curvatures = [read_curvature(part.units, theta, sd, rng, pairs) for part in parts]
    read = [curvature for curvature in curvatures if curvature is not None]
    if len(read) < len(parts):
        return None
    chosen = np.concatenate([part.numbers for part in parts])
    weight = len(inputs) / len(chosen)
    precision = weight * sum((curvature.precision for curvature in read), np.zeros((len(theta), len(theta))))
    if isinstance(preparation, LargePreparation):
        base = preparation.minibatches.base
        alone = precision_without_units(base.log_density_gradient, theta, sd)
        if alone is None:
            return None
        precision += (1 - weight * len(read)) * alone
    if not np.linalg.eigvalsh(precision)[0] > 0:
        return None
    factor = np.linalg.cholesky(np.linalg.inv(precision))
    if method.globals != "full-rank":
        factor = np.diag(np.diag(precision) ** -0.5)
    found = _with_factor(family, factor)
    if within and found.local.within:
        found = _with_precisions(found, inputs[chosen], np.concatenate([c.own for c in read]))
    found = _with_slopes(found, inputs[chosen], np.concatenate([c.slopes for c in read]) @ factor)
    found, shift, gradients = _newton_step(preparation, found, inputs, 2 * number)
    return found, shift, gradients + sum(curvature.gradient_evaluations for curvature in read)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some units, and their numbers (M,) in the whole."""

    units: UnitPlaces
    numbers: IndexArray


def _parts(
    preparation: Preparation, family: Family, inputs: InputRows, rng: Rng, stack: ExitStack
) -> Iterator[_Part]:
    """All units as one part, or some shards of very many."""

    def part(of: Preparation | Shard, numbers: IndexArray) -> _Part:
        mean, factor = _means_and_factors(family, inputs[numbers])
        at = {"index": of.index, "globals_index": of.globals_index}
        return _Part(UnitPlaces(model=of.model, mean=mean, factor=factor, **at), numbers)

    if not isinstance(preparation, LargePreparation):
        yield part(preparation, np.arange(len(inputs)))
        return
    large = preparation.minibatches
    chosen = rng.permutation(large.num_units)[: _SHARDS * large.size]
    for numbers in np.array_split(chosen, -(-len(chosen) // large.size)):
        shard = large.maker(numbers)
        stack.callback(shard.model.close)
        yield part(shard, shard.units)


def _parameters(family: Family, inputs: InputRows) -> Any:
    """What the network gives units with these inputs, a `LocalNu` of numpy's arrays."""
    nu = unit_parameters(family.inference, on_device(inputs, np.float32))
    return LocalNu(*map(np.asarray, nu))  # type: ignore[arg-type]


def _means_and_factors(family: Family, inputs: InputRows) -> tuple[FloatArray, FloatArray]:
    """Means (M, d) and L_n (M, d, d) of units on the unconstrained scale."""
    nu = _parameters(family, inputs)
    center, scale = np.asarray(family.frame.local_center), np.asarray(family.frame.local_scale)
    block = family.local.block
    factor = np.zeros((nu.loc.shape[1], block, block))
    factor[:, np.arange(block), np.arange(block)] = np.exp(nu.log_sd).T
    if family.local.within:
        rows, columns = np.tril_indices(block, -1)
        factor[:, rows, columns] = nu.below[: family.local.within].T
    return (center + scale * nu.loc).T, factor * scale.T[:, :, None]


def _with_factor(family: Family, factor: FloatArray) -> Family:
    """The family with this lower triangle L (G, G) of the standardized globals."""
    below = factor[np.tril_indices(len(factor), -1)] if family.globals.kind == "full-rank" else np.zeros(0)
    turned: Family = eqx.tree_at(
        lambda f: (f.globals.log_sd, f.globals.below),
        family,
        (on_device(np.log(np.diag(factor))), on_device(below)),
    )
    return turned


def _with_precisions(family: Family, inputs: InputRows, own: FloatArray) -> Family:
    """The family whose network gives units with these inputs the precisions -own (M, d, d), as nearly as it can.

    What it learns is the change of their Cholesky factors.
    """
    network, block = family.inference, family.local.block
    assert isinstance(network, MLP)
    scale = np.asarray(family.frame.local_scale)
    factor = np.linalg.cholesky(np.linalg.inv(-own)) / scale.T[:, :, None]
    now = _parameters(family, inputs)
    log_sd = np.log(np.diagonal(factor, axis1=1, axis2=2)) - now.log_sd.T
    rows, columns = np.tril_indices(block, -1)
    change = np.concatenate([log_sd, factor[:, rows, columns] - now.below.T], axis=1)
    coefficients, intercept = ridge(network.features(inputs), change)
    outputs = slice(block, 2 * block + len(rows))
    return replace(family, inference=network.changed(outputs, coefficients, intercept))


def _with_slopes(family: Family, inputs: InputRows, slopes: FloatArray) -> Family:
    """The family whose network gives slopes (M, d, G) along t to units with these inputs, as nearly as it can.

    Where globals are many, the directions are those along which the units' means move most, in their sds.
    """
    network, local = family.inference, family.local
    assert isinstance(network, MLP)
    now = _parameters(family, inputs)
    log_sd = now.log_sd
    slopes = slopes / np.asarray(family.frame.local_scale).T[:, :, None]
    if family.directions is not None:
        told = slopes * np.exp(-log_sd).T[:, :, None]
        _, vectors = np.linalg.eigh(np.einsum("mdg,mdh->gh", told, told))
        directions = vectors[:, ::-1][:, : local.directions].T
        family = replace(family, directions=on_device(directions))
        slopes = slopes @ directions.T
    slopes = slopes - now.slope.reshape(local.block, -1, len(inputs)).transpose(2, 0, 1)
    parts = [
        ridge(network.features(inputs), slopes[:, i], np.exp(-2 * log_sd[i])) for i in range(local.block)
    ]
    coefficients, intercept = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    start, stop = np.cumsum([0, *network.sizes])[3:5]
    moved: Family = replace(family, inference=network.changed(slice(start, stop), coefficients, intercept))
    return moved


def _newton_step(
    preparation: Preparation, family: Family, inputs: InputRows, number: int
) -> tuple[Family, float, int]:
    """The family with the globals' means, and with them the units', where all units' gradient is nearer to zero; how
    far they moved, in sds; the gradients that it took.

    Args:
        number: of the step, which has draws of its own.
    """
    whole = family
    if isinstance(preparation, LargePreparation):
        whole = preparation.minibatches.whole_family(family)
    draws = 2 * int(np.clip(_NUMBERS // (2 * whole.dim), 1, _MOST_PAIRS))
    key = stream_key(jax.random.key(preparation.seed), Stream.CONDITIONAL_START, number)
    with register(preparation.model) as slot:
        shift, accepted, made = shift_of_globals(
            whole, on_device(inputs, np.float32), slot.index, key, draws, at_mean=True
        )
    size = float(np.abs(shift).max())
    if accepted < made or not size < _MOST_SHIFT:
        return family, 0.0, made
    return moved_globals(family, shift), size, made
