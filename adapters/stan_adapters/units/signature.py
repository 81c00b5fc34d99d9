"""Score signatures: unit inputs for an inference function, read through gradients.

With all units at one reference point z^(k) and the globals at theta^(k), one gradient of the whole model gives
s_n^(k) = d u_n(z^(k), theta^(k)) / dz_n for all N units at once. For separable units the collection over k says all
that matters for z_n: covariates, exposures, all rows of a group, neighbours' observations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stan_adapters.data.layout import IndexArray
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import StructureError
from stan_adapters.levels.probes import Density, gradients_at, side_by_side

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
MOST_FITTED = 20_000  # units whose scores decide a transform; of more, a random sample
_ROWS_AT_ONCE = 1 << 16  # units transformed at a time
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
    theta, z, scores = zip(*_usable(model, index, globals_index, references), strict=True)
    return References(np.array(theta), np.array(z)), np.concatenate(scores, axis=1)


def unit_scores(
    model: Density, index: IndexArray, globals_index: IndexArray, references: References
) -> FloatArray:
    """Scores (N, K d) of all units at given references; every one of them must be usable.

    Raises:
        StructureError: the density is not finite at a reference, with the model's reason.
    """
    return np.concatenate(list(_each_score(model, index, globals_index, references)), axis=1)


def fit_signatures(
    model: Density,
    index: IndexArray,
    globals_index: IndexArray,
    references: References,
    *,
    max_rank: int,
    seed: int = 0,
) -> tuple[References, SignatureTransform, FloatArray]:
    """The usable references, the transform of the scores there, and the unit inputs (N, R).

    The transform of more than 20000 units is that of a random sample of 20000, which `seed` chooses; only whether a
    column has outliers is asked of all. Scores are then never held for all references at once: a second gradient at
    each reference gives the inputs.

    Raises:
        StructureError: as `usable_references`.
    """
    units = len(index)
    if units <= MOST_FITTED:
        usable, scores = usable_references(model, index, globals_index, references)
        transform = fit_transform(scores, max_rank=max_rank)
        return usable, transform, transform(scores)
    sample = np.sort(np.random.default_rng(seed).choice(units, MOST_FITTED, replace=False))
    theta, z, scores_of_sample, low, high = [], [], [], [], []
    for at_theta, at_z, score in _usable(model, index, globals_index, references):
        theta.append(at_theta)
        z.append(at_z)
        scores_of_sample.append(score[sample])
        low.append(score.min(axis=0))
        high.append(score.max(axis=0))
    usable = References(np.array(theta), np.array(z))
    extremes = np.concatenate(low), np.concatenate(high)
    transform = fit_transform(np.concatenate(scores_of_sample, axis=1), max_rank=max_rank, extremes=extremes)
    return usable, transform, signature_inputs(model, index, globals_index, usable, transform)


def signature_inputs(
    model: Density,
    index: IndexArray,
    globals_index: IndexArray,
    references: References,
    transform: SignatureTransform,
) -> FloatArray:
    """Unit inputs (N, R) at given references: `transform(unit_scores(..))`, of many units reference by reference.

    Raises:
        StructureError: as `unit_scores`.
    """
    if len(index) <= MOST_FITTED:
        return transform(unit_scores(model, index, globals_index, references))
    inputs = np.zeros((len(index), transform.components.shape[1]))
    start = 0
    for score in _each_score(model, index, globals_index, references):
        part = transform.of_columns(slice(start, start + score.shape[1]))
        for row in range(0, len(score), _ROWS_AT_ONCE):
            rows = slice(row, row + _ROWS_AT_ONCE)
            inputs[rows] += part(score[rows])
        start += score.shape[1]
    return inputs


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

    def of_columns(self, columns: slice) -> SignatureTransform:
        """The transform of some columns of the scores: inputs are sums over columns."""
        return SignatureTransform(
            self.center[columns],
            self.scale[columns],
            self.heavy[columns],
            self.mean[columns],
            self.components[columns],
        )

    def _bounded(self, scores: FloatArray) -> FloatArray:
        varies = self.scale > 0
        scaled = np.where(varies, (scores - self.center) / np.where(varies, self.scale, 1.0), 0.0)
        return np.where(self.heavy, _KNEE * np.arcsinh(scaled / _KNEE), scaled)


def fit_transform(
    scores: FloatArray,
    *,
    max_rank: int,
    min_share: float = 1e-8,
    extremes: tuple[FloatArray, FloatArray] | None = None,
) -> SignatureTransform:
    """The transform of raw scores (N, F).

    Args:
        max_rank: most components to keep.
        min_share: components with a smaller share of the variance are rounding, not information.
        extremes: smallest and largest scores (F,) of all units, where `scores` are those of a sample.
    """
    center = np.median(scores, axis=0)
    deviation = np.abs(scores - center)
    mad, sd = 1.4826 * np.median(deviation, axis=0), scores.std(axis=0)
    farthest = deviation.max(axis=0, initial=0.0)
    if extremes is not None:
        farthest = np.maximum(center - extremes[0], extremes[1] - center)
    scale = np.where(mad > 0.05 * sd, mad, sd)  # units without rows can make the median deviation 0
    floor = 1e-10 * (np.abs(center) + farthest)
    scale = np.where(sd > floor, scale, 0.0)
    heavy = farthest > _LIGHT_TAIL * scale
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


def _usable(
    model: Density, index: IndexArray, globals_index: IndexArray, references: References
) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """theta, z and the scores (N, d) of each usable reference. Raises as `usable_references`, after the last one."""
    found = 0
    for k in range(references.count):
        for pull in _SHRINK:
            at_theta = references.theta[0] + pull * (references.theta[k] - references.theta[0])
            at_z = references.z[0] + pull * (references.z[k] - references.z[0])
            score = _scores_at(model, index, globals_index, at_theta, at_z)
            if score is not None:
                found += 1
                yield at_theta, at_z, score
                break
    if found < max(2, references.count // 2):
        reason = model.why_rejected(
            _assemble(model.dim, index, globals_index, references.theta[0], references.z[0])
        )
        raise StructureError(
            f"only {found} of {references.count} reference points have a finite log density with all units at one "
            f"common point ({reason or 'no reason given'}). Use a function of declared data instead, or method='fvi'."
        )


def _each_score(
    model: Density, index: IndexArray, globals_index: IndexArray, references: References
) -> Iterator[FloatArray]:
    """Scores (N, d) at one reference after the other. Raises as `unit_scores`."""
    together = side_by_side(model)
    for first in range(0, references.count, together):
        some = range(first, min(first + together, references.count))
        points = np.array(
            [_assemble(model.dim, index, globals_index, references.theta[k], references.z[k]) for k in some]
        )
        lp, gradient = gradients_at(model, points)
        for row in range(len(some)):
            if not np.isfinite(lp[row]):
                reason = model.why_rejected(points[row])
                raise StructureError(
                    f"the log density of these data is not finite at a reference point of the fit: {reason}. "
                    "Are the new data on the scale of the data that were fitted?"
                )
            yield gradient[row, index]
