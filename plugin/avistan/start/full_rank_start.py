"""Full-rank globals of a program without units begin where the density's curvature says, before they are trained.

Along a ridge, as of an intercept and a slope that nearly determine each other, a factorized q is as narrow as the ridge
is across. A full covariance that begins there gains nats only after very many steps of single entries, each step
gains less than the noise, and the ELBO would seem to be stationary. In the standard normals t of q the score is -t if q
is right, so a regression of the score on t says by how much q has to widen, turn and move.

Source: natural gradients of Gaussians by Stein's identity, as in Khan & Rue, "The Bayesian learning rule", JMLR 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from avistan.family.family import Family
from avistan.family.globals import GlobalGaussian
from avistan.runtime.device import on_device
from avistan.runtime.types import FloatArray
from stan_adapters.levels.probes import Density

MAX_GLOBALS = 200
_ROUNDS = 12
_DRAWS, _FOR_EACH = 100, 6  # gradients of a round at least, and for each global
_TRUST = 10.0  # a round changes the variance along any direction by this factor at most
_FLATTEST = 1e-6  # of a precision in q's variances: less, and the density is not concave there
_STILL = 1.5  # factor of variances, below which another round would find noise
_FAR = 3.0  # sds that the mean moves in a round


def full_rank_start(model: Density, family: Family, rng: np.random.Generator) -> tuple[Family, int] | None:
    """The family with its globals at the Gaussian nearest to the density, and the gradients that it took.

    Args:
        family: with full-rank globals without a flow, and no units.

    Returns: None where there is nothing to turn, or too much, and where Stan rejects most draws.
    """
    factor, frame = family.globals, family.frame
    if not isinstance(factor, GlobalGaussian) or factor.kind != "full-rank" or factor.warp is not None:
        return None
    if family.placement.local_index.size or not 1 < factor.size <= MAX_GLOBALS:
        return None
    at, scale = np.asarray(family.placement.global_index), np.asarray(frame.global_scale)
    mean = np.asarray(frame.global_center) + scale * np.asarray(factor.loc)
    lower = scale[:, None] * np.asarray(factor.factor())
    evaluations = 0
    for round_number in range(_ROUNDS):
        moved = _round(model, at, mean, lower, rng)
        if moved is None:
            if round_number == 0:
                return None
            break
        mean, lower, change, gradients = moved
        evaluations += gradients
        if change < _STILL:
            break
    standardized = lower / scale[:, None]
    turned = replace(
        factor,
        loc=on_device((mean - np.asarray(frame.global_center)) / scale),
        log_sd=on_device(np.log(np.diag(standardized))),
        below=on_device(standardized[np.tril_indices(factor.size, -1)]),
    )
    return replace(family, globals=turned), evaluations


def _round(
    model: Density, at: npt.NDArray[np.integer], mean: FloatArray, lower: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, float, int] | None:
    """Mean (G,) and lower factor (G, G) after one reading, the largest factor by which a variance changed, and the
    gradients that it took; None where Stan rejects most draws.
    """
    size = len(mean)
    pairs = max(_DRAWS, _FOR_EACH * size) // 2

    def points(t: FloatArray) -> FloatArray:
        theta = np.empty(t.shape)
        theta[:, at] = mean + t @ lower.T
        return theta

    read = score_regression(
        model, size, pairs, rng, at=points, score=lambda t, gradient: gradient[:, at] @ lower
    )
    if read is None:
        return None
    place, values, vectors = read
    wider = np.where(values > _FLATTEST, 1 / np.maximum(values, _FLATTEST), _TRUST)
    wider = np.clip(wider, 1 / _TRUST, _TRUST)
    step = vectors @ (wider * (vectors.T @ place))
    length = float(np.linalg.norm(step / np.sqrt(wider.max())))
    step *= min(1.0, _FAR / length) if length > 0 else 1.0
    turned = lower @ (vectors * np.sqrt(wider))
    change = float(np.maximum(wider, 1 / wider).max())
    return mean + lower @ step, np.linalg.cholesky(turned @ turned.T), change, 2 * pairs


def score_regression(
    model: Density,
    size: int,
    pairs: int,
    rng: np.random.Generator,
    *,
    at: Callable[[FloatArray], FloatArray],
    score: Callable[[FloatArray, FloatArray], FloatArray],
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """The Gaussian in standard normals t that scores at antithetic pairs of them speak of: b, and the eigenvalues and
    eigenvectors of its precision A, from a regression of the score b - A t on t. None where Stan rejects most draws.

    Args:
        at: points (S, size) of a density at normals (S, size).
        score: by t (S, size), from t and the density's gradient there.
    """
    t = rng.standard_normal((pairs, size))
    t = np.concatenate([t, -t])
    log_p, gradient = model.log_density_gradient(at(t))
    usable = np.isfinite(log_p) & np.isfinite(gradient).all(axis=1)
    if usable.sum() < max(2 * (size + 1), pairs):
        return None
    design = np.column_stack([np.ones(int(usable.sum())), t[usable]])
    rows, *_ = np.linalg.lstsq(design, score(t[usable], gradient[usable]), rcond=None)
    return rows[0], *np.linalg.eigh(-0.5 * (rows[1:] + rows[1:].T))
