"""How far q's means and sds are off, read from the log density's gradients at draws of q.

Importance weights see only what q's draws reach. Where q is far too narrow along a ridge, as for a slope and an
intercept that nearly determine each other, they lie in a place where the density hardly changes, and weights of them
look fine. Gradients there still point the way: in the standard normals t of q(theta), the posterior's score is -t if q
is right. A regression of it on t gives the precision A and the place b of a Gaussian, A^-1 b away and with covariance
A^-1; exactly, for a posterior that is Gaussian, or one that q's flow makes so.

Source: Stein's identity for Gaussians, as in Opper & Archambeau, "The variational Gaussian approximation revisited",
Neural Computation 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avistan.posterior.approximation import Approximation
from avistan.runtime.types import FloatArray, Rng
from avistan.start.full_rank_start import score_regression
from stan_adapters.levels.probes import Density

MOST_GLOBALS = 500
_DRAWS, _FOR_EACH = 400, 8  # gradients at least, and for each parameter
_FLATTEST = 1e-6  # of a precision in q's sds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientGaussian:
    """The Gaussian that gradients at q's draws speak of, against q: both before q's flow, entry by entry.

    Attributes:
        shift: (G,) by how many of the Gaussian's sds q's means are off.
        sd_ratio: (G,) its sds over q's.
        flat: whether the density does not fall along some direction as far as q's draws go: then its sds are told as a
            thousand times q's, and may be anything above q's.
        gradient_evaluations: that it took.
    """

    shift: FloatArray
    sd_ratio: FloatArray
    flat: bool
    gradient_evaluations: int


def local_gaussian(model: Density, q: Approximation, rng: Rng) -> GradientGaussian | None:
    """Read the Gaussian of a model whose parameters are all globals of q; None for too many, or where Stan rejects most
    draws.
    """
    size = q.num_globals
    if not 0 < size <= MOST_GLOBALS:
        return None
    pairs = max(_DRAWS, _FOR_EACH * size) // 2
    read = score_regression(model, size, pairs, rng, at=q.globals_at, score=q.globals_score)
    if read is None:
        return None
    place, values, vectors = read
    flat = bool(values.min() <= _FLATTEST)
    values = np.maximum(values, _FLATTEST)
    turned = q.factor @ vectors
    mean = turned @ ((vectors.T @ place) / values)
    sd = np.sqrt((turned**2 / values).sum(axis=1))
    return GradientGaussian(
        shift=np.abs(mean) / sd,
        sd_ratio=sd / np.sqrt((q.factor**2).sum(axis=1)),
        flat=flat,
        gradient_evaluations=2 * pairs,
    )
