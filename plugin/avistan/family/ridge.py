"""Ridge regression, with which an inference function starts near the units' own quick fits."""

from __future__ import annotations

import numpy as np

from avistan.runtime.types import FloatArray

# Relative to the number of rows. Smaller ones would make the coefficients of a network's readout so large that a step
# of its hidden layers moves the output far.
_PENALTIES = np.logspace(-2, 1, 10)
_WEIGHT_RANGE = 100.0  # no row weighs more than this times the median


def ridge(
    features: FloatArray, targets: FloatArray, weights: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Coefficients (F, P) and intercepts (P,) of targets (N, P) on features (N, F), weighted by rows (N,).

    The penalty of each target is chosen by generalized cross-validation; the intercept has none.
    Source: Golub, Heath & Wahba, Technometrics 1979.
    """
    rows = len(features)
    w = np.ones(rows) if weights is None else np.minimum(weights, _WEIGHT_RANGE * np.median(weights))
    w = w / w.sum()
    feature_mean, target_mean = w @ features, w @ targets
    centred = features - feature_mean
    scale = np.sqrt(w @ centred**2)
    scale = np.where(scale > 1e-9 * max(scale.max(initial=0.0), 1e-300), scale, np.inf)
    root = np.sqrt(rows * w)[:, None]
    x, y = root * centred / scale, root * (targets - target_mean)
    eigenvalues, vectors = np.linalg.eigh(x.T @ x)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    along = vectors.T @ (x.T @ y)  # (F, P)
    chosen, smallest = np.zeros_like(along), np.full(targets.shape[1], np.inf)
    for penalty in rows * _PENALTIES:
        shrunk = along / (eigenvalues + penalty)[:, None]
        residual = (y**2).sum(axis=0) - (2 * along * shrunk - eigenvalues[:, None] * shrunk**2).sum(axis=0)
        freedom = rows - 1 - (eigenvalues / (eigenvalues + penalty)).sum()
        score = np.maximum(residual, 0.0) / max(freedom, 1e-3) ** 2
        better = score < smallest
        chosen, smallest = np.where(better, shrunk, chosen), np.where(better, score, smallest)
    coefficients = (vectors @ chosen) / scale[:, None]
    return coefficients, target_mean - feature_mean @ coefficients
