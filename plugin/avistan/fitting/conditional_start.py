"""Units begin to follow the globals, and their latents each other: by curvature, without training.

The network keeps the means that it gives each unit; it learns the slopes and the precisions of some units by least
squares on its last hidden layer. The globals get the precision that is left when units follow them, and one step of
Newton's towards the mean that all units together ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import equinox as eqx
import numpy as np
import numpy.typing as npt

from avistan.family.family import Family
from avistan.family.functions import MLP
from avistan.family.globals import GlobalGaussian
from avistan.family.method import Method
from avistan.family.ridge import ridge
from avistan.fitting.curvature import Units, precision_without_units, read_curvature
from avistan.fitting.family_selection import grown, reframed
from avistan.fitting.shard_preparation import LargePreparation
from avistan.objective.host_draws import Places, draw_pairs
from avistan.objective.host_functions import HostNu, global_values, unit_values
from avistan.runtime.device import on_device
from avistan.runtime.types import FloatArray
from avistan.start.preparation import Preparation
from stan_adapters.data.layout import IndexArray

Inputs = npt.NDArray[np.float32]

MAX_GLOBALS = 200  # two gradients for each, of every part and draw
_MOST_SLOPES = 20_000_000  # of all units, where there are no shards to look at instead
_SHARDS = 8  # of very many units, that are looked at
_PAIRS, _FEWEST_PAIRS, _UNIT_PAIRS = 16, 2, 16_000  # of draws: fewer of many units
_ROUNDS, _STILL = 5, 1.0  # readings, until the globals move by so few of their sds
_MOST_SHIFT = 20.0  # sds of a Newton step, beyond which something else is wrong
_NUMBERS, _MOST_PAIRS = 8_000_000, 16  # of draws of all units, for that step
_UNITS_AT_ONCE = 50_000  # whose network is evaluated together


def following(
    preparation: Preparation, family: Family, method: Method, inputs: Inputs
) -> tuple[Family, int] | None:
    """A family that follows the globals, grown from one that does not, and the gradients that it took.

    None where the method does not ask for it, or the function is no network, or curvature says nothing: a point was
    rejected, or the density is not concave in the globals.

    Args:
        family: with globals of their own; on minibatches, for the units of a shard.
        inputs: of all units, (N, R).
    """
    network, own = family.inference, family.globals
    follows = method.conditional == "mean" and family.local.conditional == "none"
    shaped = method.flow or method.reach > 0
    if not (follows and not shaped and isinstance(network, MLP) and isinstance(own, GlobalGaussian)):
        return None
    large = isinstance(preparation, LargePreparation)
    too_many = not large and preparation.index.size * own.size > _MOST_SLOPES
    if own.size > MAX_GLOBALS or own.kind != "mean-field" or too_many:
        return None
    rng = np.random.default_rng([preparation.seed, 9])
    return _rounds(
        preparation, grown(family, method), method, inputs, rng, within=family.local.kind == "diagonal"
    )


def with_settled_globals(
    preparation: Preparation, family: Family, method: Method, inputs: Inputs
) -> tuple[Family, int] | None:
    """The family with its globals where all units together ask for, units that follow them, and the gradients it took.

    On minibatches training leaves the globals where the noise of the last ones had moved them, or on their way: for
    them a step of training is far smaller than that noise. None where the family does not follow the globals, or along
    curves, the globals are bent, or the function is no network. Arguments as of `following`.
    """
    own = family.globals
    follows = family.local.directions > 0 and family.curve is None
    if not (follows and isinstance(family.inference, MLP) and isinstance(own, GlobalGaussian)):
        return None
    if own.size > MAX_GLOBALS or own.warp is not None:
        return None
    rng = np.random.default_rng([preparation.seed, 10])
    return _rounds(preparation, family, method, inputs, rng, within=False)


def _rounds(
    preparation: Preparation,
    family: Family,
    method: Method,
    inputs: Inputs,
    rng: np.random.Generator,
    *,
    within: bool,
) -> tuple[Family, int] | None:
    """Readings of curvature, each followed by a step of Newton's, until the globals stay where they are."""
    evaluations = 0
    for _ in range(_ROUNDS):
        found = _round(preparation, reframed(family), method, inputs, rng, within=within)
        if found is None:
            return None
        family, shift, gradients = found
        evaluations += gradients
        if shift >= _STILL:  # far: another step shows whether the curvature there was another
            family, shift, gradients = _newton_step(preparation, family, inputs, rng)
            evaluations += gradients
        if shift < _STILL:
            break
    return family, evaluations


def _round(
    preparation: Preparation,
    family: Family,
    method: Method,
    inputs: Inputs,
    rng: np.random.Generator,
    *,
    within: bool,
) -> tuple[Family, float, int] | None:
    """The family after a reading of curvature, how far the globals then moved, in sds, and the gradients it took.

    Args:
        within: read the correlations within units too.
    """
    theta, sd = np.asarray(family.frame.global_center), np.asarray(family.frame.global_scale)
    with ExitStack() as stack:
        parts = list(_parts(preparation, family, inputs, rng, stack))
        pairs = int(
            np.clip(_UNIT_PAIRS // max(1, sum(len(part.numbers) for part in parts)), _FEWEST_PAIRS, _PAIRS)
        )
        found = [read_curvature(part.units, theta, sd, rng, pairs) for part in parts]
    read = [curvature for curvature in found if curvature is not None]
    if len(read) < len(found):
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
    moved = _with_factor(family, factor)
    if within and moved.local.within:
        moved = _with_precisions(moved, inputs[chosen], np.concatenate([c.own for c in read]))
    moved = _with_slopes(moved, inputs[chosen], np.concatenate([c.slopes for c in read]) @ factor)
    moved, shift, gradients = _newton_step(preparation, moved, inputs, rng)
    return moved, shift, gradients + sum(curvature.gradient_evaluations for curvature in read)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some units, and their numbers (M,) in the whole."""

    units: Units
    numbers: IndexArray


def _parts(
    preparation: Preparation, family: Family, inputs: Inputs, rng: np.random.Generator, stack: ExitStack
) -> Iterator[_Part]:
    """All units as one part, or some shards of very many."""
    if not isinstance(preparation, LargePreparation):
        mean, factor = _means_and_factors(family, unit_values(family.inference, inputs, slice(None)))
        at = preparation.index, preparation.globals_index
        units = Units(model=preparation.model, index=at[0], globals_index=at[1], mean=mean, factor=factor)
        yield _Part(units, np.arange(len(inputs)))
        return
    large = preparation.minibatches
    chosen = rng.permutation(large.num_units)[: _SHARDS * large.size]
    for numbers in np.array_split(chosen, -(-len(chosen) // large.size)):
        shard = large.maker(numbers)
        stack.callback(shard.model.close)
        nu = unit_values(family.inference, inputs[shard.units], slice(None))
        mean, factor = _means_and_factors(family, nu)
        at = shard.index, shard.globals_index
        units = Units(model=shard.model, index=at[0], globals_index=at[1], mean=mean, factor=factor)
        yield _Part(units, shard.units)


def _means_and_factors(family: Family, nu: HostNu) -> tuple[FloatArray, FloatArray]:
    """Means (M, d) and L_n (M, d, d) of units on the unconstrained scale."""
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
    moved: Family = eqx.tree_at(
        lambda f: (f.globals.log_sd, f.globals.below),
        family,
        (on_device(np.log(np.diag(factor))), on_device(below)),
    )
    return moved


def _with_precisions(family: Family, inputs: Inputs, own: FloatArray) -> Family:
    """The family whose network gives units with these inputs the precisions -own (M, d, d), as nearly as it can.

    What it learns is the change of their Cholesky factors.
    """
    network, block = family.inference, family.local.block
    assert isinstance(network, MLP)
    scale = np.asarray(family.frame.local_scale)
    factor = np.linalg.cholesky(np.linalg.inv(-own)) / scale.T[:, :, None]
    now = unit_values(network, inputs, slice(None))
    log_sd = np.log(np.diagonal(factor, axis1=1, axis2=2)) - now.log_sd.T
    rows, columns = np.tril_indices(block, -1)
    change = np.concatenate([log_sd, factor[:, rows, columns] - now.below.T], axis=1)
    coefficients, intercept = ridge(network.features(inputs), change)
    outputs = slice(block, 2 * block + len(rows))
    return replace(family, inference=network.changed(outputs, coefficients, intercept))


def _with_slopes(family: Family, inputs: Inputs, slopes: FloatArray) -> Family:
    """The family whose network gives slopes (M, d, G) along t to units with these inputs, as nearly as it can.

    Where globals are many, the directions are those along which the units' means move most, in their sds.
    """
    network, local = family.inference, family.local
    assert isinstance(network, MLP)
    now = unit_values(network, inputs, slice(None))
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
    preparation: Preparation, family: Family, inputs: Inputs, rng: np.random.Generator
) -> tuple[Family, float, int]:
    """The family with the globals' means, and with them the units', where all units' gradient is nearer to zero; how
    far they moved, in sds; the gradients that it took.

    Along t, in which the precision is the identity, the step is the gradient itself.
    """
    model, index, at = preparation.model, preparation.index, preparation.globals_index
    whole = family
    if isinstance(preparation, LargePreparation):
        whole = preparation.minibatches.whole_family(family)
    pairs = int(np.clip(_NUMBERS // (2 * model.dim), 1, _MOST_PAIRS))
    noise = rng.standard_normal((pairs, model.dim))
    noise[:, at] = 0.0  # globals at their means
    drawn = draw_pairs(whole, inputs, partial(_columns, noise))
    total = np.zeros(model.dim)
    for pair in range(pairs):
        value, gradient = model.log_density_gradient(drawn.points(slice(pair, pair + 1)))
        if not np.isfinite(value).all():
            return family, 0.0, 2 * pairs
        total += gradient.sum(axis=0) / (2 * pairs)
    of_units = np.zeros(family.local.directions)
    for start in range(0, len(inputs), _UNITS_AT_ONCE):
        part = slice(start, start + _UNITS_AT_ONCE)
        scale = np.asarray(family.frame.local_scale)
        scale = (scale[:, part] if scale.shape[1] > 1 else scale)[:, None]
        slopes = unit_values(family.inference, inputs, part).slope
        along = scale * slopes.reshape(index.shape[1], len(of_units), -1)
        of_units += np.einsum("dkn,nd->k", along, total[index[part]])
    directions = None if family.directions is None else np.asarray(family.directions)
    factor = _factor(family)
    sd = np.asarray(family.frame.global_scale)
    shift = factor.T @ (sd * total[at]) + (of_units if directions is None else directions.T @ of_units)
    size = float(np.abs(shift).max())
    if not size < _MOST_SHIFT:
        return family, 0.0, 2 * pairs
    moved_along = shift if directions is None else directions @ shift
    network = family.inference
    assert isinstance(network, MLP)
    moved: Family = eqx.tree_at(
        lambda f: f.globals.loc, family, on_device(np.asarray(family.globals.loc) + factor @ shift)
    )
    return replace(moved, inference=network.moved_along(moved_along)), size, 2 * pairs


def _columns(noise: FloatArray, at: Places) -> FloatArray:
    return noise[:, at]


def _factor(family: Family) -> FloatArray:
    """L (G, G) of the standardized globals."""
    _, log_sd, below = global_values(family.globals)
    factor = np.diag(np.exp(log_sd))
    if family.globals.kind == "full-rank":
        factor[np.tril_indices(len(factor), -1)] = below
    return factor
