"""Draws of families in numpy, in antithetic pairs, some units at a time.

What a Gaussian family adds to its mean is linear in its normals. So the draws of a pair (e, -e) are the mean plus and
minus one deviation, and have the same density. Where scales follow the globals, or a flow bends what moves, each draw
has its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from avistan.family.conditional import along
from avistan.family.family import Family
from avistan.family.flow import NUMBERS, bend, flattened
from avistan.family.globals import LevelGlobals
from avistan.objective.host_functions import HostNu, global_values, hosted, unit_values
from avistan.objective.step import form_of
from avistan.runtime.types import FloatArray

Places = slice | npt.NDArray[np.int64]  # some coordinates of the whole vector
Noise = Callable[[Places], FloatArray]  # their normals, (pairs, n)

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_NUMBERS_AT_ONCE = 1 << 16  # of units' parameters and normals, which then stay in the processor's cache


class Pairs(NamedTuple):
    """Draws of normals and of their negatives, as deviations from a mean on the unconstrained scale.

    Attributes:
        deviations: (1, pairs, D) of the normals; (2, pairs, D) of the negatives too, unless the family is `mirrored`.
        log_q: nats, (pairs, 2).
    """

    mean: FloatArray  # (D,)
    deviations: FloatArray
    log_q: FloatArray

    def points(self, pairs: slice) -> FloatArray:
        """The draws of some pairs (2 n, D), the two of a pair one after the other."""
        one, *other = self.deviations[:, pairs]
        both = [self.mean + one, self.mean + other[0] if other else self.mean - one]
        return np.stack(both, axis=1).reshape(-1, len(self.mean))


def drawn_on_host(family: Family) -> bool:
    """Whether `draw_pairs` serves a family: `path_gradient` covers it, and numpy knows its functions."""
    functions = [family.inference]
    if isinstance(family.globals, LevelGlobals):
        functions.append(family.globals.inference)
    return form_of(family) is not None and all(map(hosted, functions))


def mirrored(family: Family) -> bool:
    """Whether the draws of normals and of their negatives are mirror images about the mean: q is a Gaussian."""
    flow = family.local.flow or family.globals.warp is not None
    return not flow and not family.local.scaled


def draw_pairs(family: Family, inputs: npt.NDArray[np.float32], noise: Noise) -> Pairs:
    """What `family.draw` makes of normals and of their negatives; `inputs` (N, R), and the family `drawn_on_host`."""
    frame, place = family.frame, family.placement
    at = _places(np.asarray(place.global_index))
    t = noise(at)
    loc, log_sd, below = global_values(family.globals)
    signs = 1 if mirrored(family) else 2
    straight, curve = (
        None if part is None else np.asarray(part) for part in (family.directions, family.curve)
    )
    moved_along = np.stack([along(signed, straight, curve).value for signed in _signed(t, signs)])
    mean, deviations = np.empty(family.dim), np.empty((signs, len(t), family.dim))
    scale = np.asarray(frame.global_scale)
    mean[at] = np.asarray(frame.global_center) + scale * loc
    moved = t * np.exp(log_sd)
    if family.globals.kind == "full-rank":
        lower = np.zeros((len(loc), len(loc)))
        lower[np.tril_indices(len(loc), -1)] = below
        moved += t @ lower.T
    own, log_slopes = _bent(family.globals.warp, np.exp(log_sd), _signed(moved, signs))
    deviations[:, :, at] = scale * own
    log_det = np.asarray(frame.global_log_scale).sum() + log_sd.sum() + log_slopes
    squares = _squares(t)
    local_index = np.asarray(place.local_index)
    of_draws = signs * family.local.block * len(t)
    stretch = max(1, _NUMBERS_AT_ONCE // (family.local.num_parameters + of_draws + 1))
    for start in range(0, len(local_index), stretch):
        units = slice(start, start + stretch)
        nu = unit_values(family.inference, inputs, units)
        at_latents = [_places(latent) for latent in local_index[units].T]
        normals = [noise(at) for at in at_latents]
        center, moves, more = _of_units(family, nu, units, normals, moved_along)
        for at, own, by in zip(at_latents, center, moves, strict=True):
            mean[at], deviations[:, :, at] = own, by
        log_det, squares = log_det + more, squares + sum(_squares(latent) for latent in normals)
    log_q = -0.5 * squares - log_det - family.dim * _HALF_LOG_2PI
    return Pairs(mean, deviations, np.broadcast_to(log_q, (2, len(t))).T)


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


def _signed(values: FloatArray, signs: int) -> FloatArray:
    """Values, and their negatives where there are two signs, (signs, ...)."""
    return values[None] if signs == 1 else np.stack([values, -values])


def _bent(numbers: Any, sd: FloatArray, moved: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What moves entries (signs, pairs, n), through a flow if there is one; sums of its log slopes, (signs, pairs)."""
    if numbers is None:
        return moved, np.zeros((1, 1))
    bent = bend(np.asarray(numbers), moved / sd)
    return sd * bent.value, bent.log_slope.sum(axis=2)


def _of_units(
    family: Family, nu: HostNu, units: slice, e: Sequence[FloatArray], at: FloatArray
) -> tuple[FloatArray, list[FloatArray], FloatArray]:
    """Means (d, n) and deviations, (signs, pairs, n) of each latent, of some units; the log determinants of their
    factors, (signs, pairs) or (1, 1). `at`: where the globals are along the directions, (signs, pairs, K).
    """
    local, frame, signs = family.local, family.frame, 1 if mirrored(family) else 2
    own = frame.local_scale.shape[1] != 1
    parts = (np.asarray(part) for part in (frame.local_center, frame.local_scale, frame.local_log_scale))
    center, scale, log_scale = (part[:, units] if own else part for part in parts)
    log_sd = log_scale + nu.log_sd
    moved = [sd * normals for sd, normals in zip(np.exp(log_sd), e, strict=True)]
    if local.kind == "full":
        pairs = ((i, j) for i in range(local.block) for j in range(i))
        for (i, j), below in zip(pairs, nu.below, strict=True):
            moved[i] += (scale[i] * below) * e[j]
    log_det = np.full((1, 1), log_sd.sum())
    moves = [_signed(own, signs) for own in moved]
    if local.flow:
        numbers = nu.warp.reshape(local.block, NUMBERS, -1)
        for i, of_latent in enumerate(numbers):
            moves[i], log_slopes = _bent(of_latent, np.exp(log_sd[i]), moves[i])
            log_det = log_det + log_slopes
    if local.scaled:
        rates = nu.growth.reshape(local.block, local.directions, -1)
        for i in range(local.block):
            grown, _ = flattened(at @ rates[i], local.growth_range, local.shrink_range)
            moves[i] *= np.exp(grown)
            log_det = log_det + grown.sum(axis=2)
    if local.conditional != "none":
        slope = nu.slope.reshape(local.block, local.directions, -1)
        for i in range(local.block):
            moves[i] += at @ (scale[i] * slope[i])
    return center + scale * nu.loc, moves, log_det
