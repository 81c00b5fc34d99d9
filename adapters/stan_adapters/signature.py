"""Score signatures: unit inputs for an inference function, read through gradients.

With all units at one reference point z^(k) and the globals at theta^(k), one gradient of the whole model gives
s_n^(k) = d u_n(z^(k), theta^(k)) / dz_n for all N units at once. For separable units the collection over k says all
that matters for z_n: covariates, exposures, all rows of a group, neighbours' observations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .abi import FloatArray
from .certificate import Density
from .errors import StructureError
from .layout import IndexArray

_SHRINK = (
    1.0,
    0.7,
    0.5,
    0.35,
    0.25,
    0.15,
    0.1,
    0.05,
)  # shares of its way from the centre that a reference tries
_LIGHT_TAIL = 6.0  # columns whose scaled scores stay within this many robust sds are left as they are
_KNEE = 3.0  # in the others, scores beyond this many robust sds grow like a logarithm


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """K reference points: globals (K, G) in the order of the level's globals, and one common local point (K, d)."""

    theta: FloatArray
    z: FloatArray

    @property
    def count(self) -> int:
        return len(self.theta)


def draw_references(
    rng: np.random.Generator,
    count: int,
    *,
    theta_mean: FloatArray,
    theta_sd: FloatArray,
    z_mean: FloatArray,
    z_sd: FloatArray,
) -> References:
    """References around a quick fit: the centre first, then normal draws.

    Args:
        theta_mean, theta_sd: the quick fit's globals, shape (G,).
        z_mean, z_sd: centre and spread of the local latents over all units, shape (d,).
    """
    theta = theta_mean + theta_sd * rng.standard_normal((count, len(theta_mean)))
    z = z_mean + z_sd * rng.standard_normal((count, len(z_mean)))
    theta[0], z[0] = theta_mean, z_mean
    return References(theta, z)


def usable_references(
    model: Density, index: IndexArray, globals_index: IndexArray, references: References
) -> tuple[References, FloatArray]:
    """The references at which the density is finite, pulled towards the first one where it was not, and the scores.

    Returns: the references and the scores (N, K d) of all units there.

    Raises:
        StructureError: fewer than half of the references (or fewer than 2) could be used.
    """
    theta, z, scores = [], [], []
    for k in range(references.count):
        for pull in _SHRINK:
            at_theta = references.theta[0] + pull * (references.theta[k] - references.theta[0])
            at_z = references.z[0] + pull * (references.z[k] - references.z[0])
            score = _scores_at(model, index, globals_index, at_theta, at_z)
            if score is not None:
                theta.append(at_theta)
                z.append(at_z)
                scores.append(score)
                break
    if len(theta) < max(2, references.count // 2):
        reason = model.why_rejected(
            _assemble(model.dim, index, globals_index, references.theta[0], references.z[0])
        )
        raise StructureError(
            f"only {len(theta)} of {references.count} reference points have a finite log density with all units at one "
            f"common point ({reason or 'no reason given'}). Use a function of declared data instead, or method='fvi'."
        )
    return References(np.array(theta), np.array(z)), np.concatenate(scores, axis=1)


def unit_scores(
    model: Density, index: IndexArray, globals_index: IndexArray, references: References
) -> FloatArray:
    """Scores (N, K d) of all units at given references; every one of them must be usable.

    Raises:
        StructureError: the density is not finite at a reference, with the model's reason.
    """
    scores = []
    for theta, z in zip(references.theta, references.z, strict=True):
        score = _scores_at(model, index, globals_index, theta, z)
        if score is None:
            reason = model.why_rejected(_assemble(model.dim, index, globals_index, theta, z))
            raise StructureError(
                f"the log density of these data is not finite at a reference point of the fit: {reason}. "
                "Are the new data on the scale of the data that were fitted?"
            )
        scores.append(score)
    return np.concatenate(scores, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class SignatureTransform:
    """From raw scores (N, F) to unit inputs (N, R): robust scaling, arcsinh, whitened principal components.

    Stored with a fit, so that other data of the same program give inputs of the same meaning.
    """

    center: FloatArray  # (F,) median
    scale: FloatArray  # (F,) robust sd; 0 marks a column that never varied
    heavy: npt.NDArray[np.bool_]  # (F,) whether the column goes through arcsinh
    mean: FloatArray  # (F,) mean after that
    components: FloatArray  # (F, R) whitening projection

    def __call__(self, scores: FloatArray) -> FloatArray:
        """Unit inputs (N, R) of raw scores (N, F)."""
        return (self._bounded(scores) - self.mean) @ self.components

    def _bounded(self, scores: FloatArray) -> FloatArray:
        varies = self.scale > 0
        scaled = np.where(varies, (scores - self.center) / np.where(varies, self.scale, 1.0), 0.0)
        return np.where(self.heavy, _KNEE * np.arcsinh(scaled / _KNEE), scaled)


def fit_transform(scores: FloatArray, *, max_rank: int, min_share: float = 1e-8) -> SignatureTransform:
    """The transform of raw scores (N, F).

    Args:
        max_rank: most components to keep.
        min_share: components with a smaller share of the variance are rounding, not information.
    """
    center = np.median(scores, axis=0)
    deviation = np.abs(scores - center)
    mad, sd = 1.4826 * np.median(deviation, axis=0), scores.std(axis=0)
    scale = np.where(mad > 0.05 * sd, mad, sd)  # units without rows can make the median deviation 0
    floor = 1e-10 * (np.abs(center) + deviation.max(axis=0, initial=0.0))
    scale = np.where(sd > floor, scale, 0.0)
    heavy = deviation.max(axis=0, initial=0.0) > _LIGHT_TAIL * scale
    raw = SignatureTransform(center, scale, heavy, np.zeros_like(center), np.zeros((scores.shape[1], 0)))
    bounded = raw._bounded(scores)
    mean = bounded.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d((bounded - mean).T @ (bounded - mean)) / len(bounded))
    order = np.argsort(values)[::-1][:max_rank]
    order = order[values[order] > min_share * max(values.sum(), 1e-300)]
    vectors = vectors[:, order]
    vectors *= np.sign(
        vectors[np.abs(vectors).argmax(axis=0), np.arange(len(order))]
    )  # the sign is a convention
    return SignatureTransform(center, scale, heavy, mean, vectors / np.sqrt(values[order]))


def _assemble(
    dim: int, index: IndexArray, globals_index: IndexArray, theta: FloatArray, z: FloatArray
) -> FloatArray:
    point = np.empty(dim)
    point[globals_index] = theta
    point[index] = z
    return point


def _scores_at(
    model: Density, index: IndexArray, globals_index: IndexArray, theta: FloatArray, z: FloatArray
) -> FloatArray | None:
    lp, gradient = model.log_density_gradient(_assemble(model.dim, index, globals_index, theta, z))
    return gradient[index] if np.isfinite(lp) else None
