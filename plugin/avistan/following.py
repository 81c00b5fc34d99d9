"""Units of a level trained on minibatches begin to follow the globals: by curvature, without training.

The network keeps what it gives each unit; it learns the slopes of some shards' units by least squares on its last
hidden layer. The globals get the precision that is left when units follow them, and one step of Newton's towards the
mean that all units together ask for.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import equinox as eqx
import numpy as np
import numpy.typing as npt

from stan_adapters.shards import Shard

from .arrays import on_device
from .curvature import Curvature, Units, precision_without_units, read_curvature
from .families import Family, GlobalGaussian
from .growth import grown
from .host_functions import HostNu, unit_values
from .inference_functions import MLP
from .methods import Method
from .minibatches import Minibatches
from .projection import ridge

FloatArray = npt.NDArray[np.float64]
Inputs = npt.NDArray[np.float32]

MAX_GLOBALS = 200  # two gradients for each, of every shard and draw
_SHARDS, _PAIRS = 8, 2  # of units, and of draws of them
_MOST_SHIFT = 5.0  # sds of a Newton step, beyond which something else is wrong
_NUMBERS, _MOST_PAIRS = 8_000_000, 16  # of draws of all units, for that step


def following(
    large: Minibatches, family: Family, method: Method, inputs: Inputs
) -> tuple[Family, int] | None:
    """A family that follows the globals, grown from one that does not, and the shards' gradients that it took.

    None where the method does not ask for it, or the function is no network, or curvature says nothing: a point was
    rejected, or the density is not concave in the globals.

    Args:
        family: on shards, its globals standardized by their own means and sds (`Minibatches.reframed`).
        inputs: of all units, (N, R).
    """
    network, globals_ = family.inference, family.globals
    follows = method.conditional != "none" and family.local.conditional == "none"
    if not (follows and isinstance(network, MLP) and isinstance(globals_, GlobalGaussian)):
        return None
    if globals_.size > MAX_GLOBALS:
        return None
    rng = np.random.default_rng([large.seed, 9])
    theta, sd = np.asarray(family.frame.global_center), np.asarray(family.frame.global_scale)
    chosen = rng.permutation(large.num_units)[: _SHARDS * large.size]
    found: list[Curvature] = []
    with ExitStack() as stack:
        for numbers in np.array_split(chosen, min(_SHARDS, -(-len(chosen) // large.size))):
            shard = large.maker(numbers)
            stack.callback(shard.model.close)
            read = read_curvature(_units(shard, family, inputs[shard.units]), theta, sd, rng, _PAIRS)
            if read is None:
                return None
            found.append(read)
    alone = precision_without_units(large.base.log_density_gradient, theta, sd)
    if alone is None:
        return None
    weight = large.num_units / len(chosen)
    precision = weight * sum(read.precision for read in found) + (1 - weight * len(found)) * alone
    if not np.linalg.eigvalsh(precision)[0] > 0:
        return None
    factor = np.linalg.cholesky(np.linalg.inv(precision))
    if method.globals != "full-rank":
        factor = np.diag(np.diag(precision) ** -0.5)
    slopes = np.concatenate([read.slopes for read in found]) @ factor
    moved = _with_factor(grown(family, method), factor)
    moved = _with_slopes(moved, inputs[chosen], slopes)
    moved = _newton_step(large, moved, factor, inputs, rng)
    return moved, sum(read.gradient_evaluations for read in found)


def _units(shard: Shard, family: Family, inputs: Inputs) -> Units:
    mean, factor = _means_and_factors(family, unit_values(family.inference, inputs, slice(None)))
    return Units(
        model=shard.model, index=shard.index, globals_index=shard.globals_index, mean=mean, factor=factor
    )


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


def _with_slopes(family: Family, inputs: Inputs, slopes: FloatArray) -> Family:
    """The family whose network gives slopes (M, d, G) along t to units with these inputs, as nearly as it can.

    Where globals are many, the directions are those along which the units' means move most, in their sds.
    """
    network, local = family.inference, family.local
    assert isinstance(network, MLP)
    log_sd = unit_values(network, inputs, slice(None)).log_sd
    slopes = slopes / np.asarray(family.frame.local_scale).T[:, :, None]
    if family.directions is not None:
        told = slopes * np.exp(-log_sd).T[:, :, None]
        _, vectors = np.linalg.eigh(np.einsum("mdg,mdh->gh", told, told))
        directions = vectors[:, ::-1][:, : local.directions].T
        family = replace(family, directions=on_device(directions))
        slopes = slopes @ directions.T
    parts = [
        ridge(network.features(inputs), slopes[:, i], np.exp(-2 * log_sd[i])) for i in range(local.block)
    ]
    coefficients, intercept = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    start, stop = np.cumsum([0, *network.sizes])[3:5]
    moved: Family = replace(
        family, inference=network.with_outputs(slice(start, stop), coefficients, intercept)
    )
    return moved


def _newton_step(
    large: Minibatches, family: Family, factor: FloatArray, inputs: Inputs, rng: np.random.Generator
) -> Family:
    """The family with the globals' means, and with them the units', where all units' gradient is nearer to zero.

    Along t, in which the precision is the identity, the step is the gradient itself.
    """
    level, model = large.maker.level, large.maker.model
    at = level.globals_index(model.dim)
    nu = unit_values(family.inference, inputs, slice(None))
    mean, own = _means_and_factors(family, nu)
    units = Units(model=model, index=level.index, globals_index=at, mean=mean, factor=own)
    theta, sd = np.asarray(family.frame.global_center), np.asarray(family.frame.global_scale)
    scale = np.asarray(family.frame.local_scale)[:, None]
    along = scale * nu.slope.reshape(level.block, family.local.directions, -1)
    pairs = int(np.clip(_NUMBERS // (2 * model.dim), 1, _MOST_PAIRS))
    total, count = np.zeros(len(theta)), 0
    for _ in range(pairs):
        noise = rng.standard_normal(mean.shape)
        for sign in (1.0, -1.0):
            value, gradient = model.log_density_gradient(units.point(theta, sign * noise))
            if not np.isfinite(value):
                return family
            of_units = np.einsum("dkn,nd->k", along, gradient[level.index])
            if family.directions is not None:
                of_units = np.asarray(family.directions).T @ of_units
            total, count = total + factor.T @ (sd * gradient[at]) + of_units, count + 1
    shift = total / count
    if not np.abs(shift).max() < _MOST_SHIFT:
        return family
    moved_along = shift if family.directions is None else np.asarray(family.directions) @ shift
    network = family.inference
    assert isinstance(network, MLP)
    moved: Family = eqx.tree_at(
        lambda f: f.globals.loc, family, on_device(np.asarray(family.globals.loc) + factor @ shift)
    )
    return replace(moved, inference=network.moved_along(moved_along))
