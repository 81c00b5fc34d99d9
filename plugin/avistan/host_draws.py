"""Draws of Gaussian families in numpy, in antithetic pairs, some units at a time.

What a family adds to its mean is linear in its normals. So the draws of a pair (e, -e) are the mean plus and minus one
deviation, and have the same density.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .families import Family, LevelGlobals
from .host_functions import HostNu, global_values, hosted, unit_values
from .path_gradient import form_of

FloatArray = npt.NDArray[np.float64]
Places = slice | npt.NDArray[np.int64]  # some coordinates of the whole vector
Noise = Callable[[Places], FloatArray]  # their normals, (pairs, n)

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_NUMBERS_AT_ONCE = 1 << 22  # of units' parameters and normals


class Pairs(NamedTuple):
    """The draws mean + deviations and mean - deviations, on the unconstrained scale, and log q of both in nats."""

    mean: FloatArray  # (D,)
    deviations: FloatArray  # (pairs, D)
    log_q: FloatArray  # (pairs,)


def drawn_on_host(family: Family) -> bool:
    """Whether `draw_pairs` serves a family: `path_gradient` covers it, and numpy knows its functions."""
    functions = [family.inference]
    if isinstance(family.globals, LevelGlobals):
        functions.append(family.globals.inference)
    return form_of(family) is not None and all(map(hosted, functions))


def draw_pairs(family: Family, inputs: npt.NDArray[np.float32], noise: Noise) -> Pairs:
    """What `family.draw` makes of normals and of their negatives; `inputs` (N, R), and the family `drawn_on_host`."""
    frame, place = family.frame, family.placement
    at = _places(np.asarray(place.global_index))
    t = noise(at)
    directions = None if family.directions is None else np.asarray(family.directions)
    along = t if directions is None else t @ directions.T
    loc, log_sd, below = global_values(family.globals)
    mean, deviations = np.empty(family.dim), np.empty((len(t), family.dim))
    scale = np.asarray(frame.global_scale)
    mean[at] = np.asarray(frame.global_center) + scale * loc
    moved = t * np.exp(log_sd)
    if family.globals.kind == "full-rank":
        lower = np.zeros((len(loc), len(loc)))
        lower[np.tril_indices(len(loc), -1)] = below
        moved += t @ lower.T
    deviations[:, at] = scale * moved
    log_det, squares = np.asarray(frame.global_log_scale).sum() + log_sd.sum(), _squares(t)
    local_index = np.asarray(place.local_index)
    stretch = max(1, _NUMBERS_AT_ONCE // (family.local.num_parameters + family.local.block * len(t) + 1))
    for start in range(0, len(local_index), stretch):
        units = slice(start, start + stretch)
        nu = unit_values(family.inference, inputs, units)
        at_latents = [_places(latent) for latent in local_index[units].T]
        normals = [noise(at) for at in at_latents]
        center, moves, more = _of_units(family, nu, units, normals, along)
        for at, own, by in zip(at_latents, center, moves, strict=True):
            mean[at], deviations[:, at] = own, by
        log_det, squares = log_det + more, squares + sum(_squares(latent) for latent in normals)
    return Pairs(mean, deviations, -0.5 * squares - log_det - family.dim * _HALF_LOG_2PI)


def _places(at: npt.NDArray[np.int64]) -> Places:
    """Coordinates (n,), as a slice where their distances are equal: numpy is much faster with these."""
    if len(at) < 2:
        return at
    step = int(at[1] - at[0])
    even = step > 0 and bool((np.diff(at) == step).all())
    return slice(int(at[0]), int(at[-1]) + 1, step) if even else at


def _squares(normals: FloatArray) -> FloatArray:
    found: FloatArray = np.einsum("pn,pn->p", normals, normals)
    return found


def _of_units(
    family: Family, nu: HostNu, units: slice, e: Sequence[FloatArray], along: FloatArray
) -> tuple[FloatArray, list[FloatArray], float]:
    """Means (d, n) and deviations, (pairs, n) of each latent, of some units; the log determinant of their factors."""
    local, frame = family.local, family.frame
    own = frame.local_scale.shape[1] != 1
    parts = (np.asarray(part) for part in (frame.local_center, frame.local_scale, frame.local_log_scale))
    center, scale, log_scale = (part[:, units] if own else part for part in parts)
    log_sd = log_scale + nu.log_sd
    moved = [sd * normals for sd, normals in zip(np.exp(log_sd), e, strict=True)]
    if local.kind == "full":
        pairs = ((i, j) for i in range(local.block) for j in range(i))
        for (i, j), below in zip(pairs, nu.below, strict=True):
            moved[i] += (scale[i] * below) * e[j]
    if local.conditional != "none":
        slope = nu.slope.reshape(local.block, local.directions, -1)
        for i in range(local.block):
            moved[i] += along @ (scale[i] * slope[i])
    return center + scale * nu.loc, moved, float(log_sd.sum())
