"""Linear response of a fit: a Gaussian whose precision is the log density's mean curvature at draws of the fit.

A mean-field fit is too narrow in parameters that depend on each other, above all in globals that all units inform; this
Gaussian is not. Units are separable, so one pair of gradients gives a column of the curvature for all units at once.
Source: Giordano, Broderick & Jordan, "Covariances, robustness, and variational Bayes", JMLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avistan.runtime.types import FloatArray
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray

_STEP = 1e-2  # of a finite difference, in sds of the fit


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """A Gaussian on the unconstrained scale, by blocks: globals, and units that are independent given the globals."""

    mean: FloatArray  # (D,)
    index: IndexArray  # (N, d)
    globals_index: IndexArray  # (G,)
    globals_covariance: FloatArray  # (G, G)
    local_covariance: FloatArray  # (N, d, d) given the globals
    slope: FloatArray  # (N, d, G) of a unit's mean in the globals

    def variance(self) -> FloatArray:
        """Marginal variances (D,)."""
        variance = np.empty(len(self.mean))
        variance[self.globals_index] = np.diag(self.globals_covariance)
        through = np.einsum("ndg,gh,ndh->nd", self.slope, self.globals_covariance, self.slope)
        variance[self.index] = np.diagonal(self.local_covariance, axis1=1, axis2=2) + through
        return variance

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """One draw (D,)."""
        moved = np.linalg.cholesky(self.globals_covariance) @ rng.standard_normal(len(self.globals_index))
        noise = rng.standard_normal(self.index.shape)
        own = np.einsum("nde,ne->nd", np.linalg.cholesky(self.local_covariance), noise)
        point = self.mean.copy()
        point[self.globals_index] += moved
        point[self.index] += own + self.slope @ moved
        return point


def linear_response(
    model: BoundModel,
    points: FloatArray,
    mean: FloatArray,
    sd: FloatArray,
    index: IndexArray,
    globals_index: IndexArray,
) -> Response | None:
    """The Gaussian whose precision is the mean curvature at `points` (M, D); None where that is not positive definite.

    Args:
        mean, sd: of the fit (D,); sds scale the finite differences.
        index, globals_index: positions of the units' blocks (N, d) and of the globals (G,); the units are taken to be
            independent given the globals.
    """
    columns = _curvature(model, points, sd, [*globals_index[:, None], *index.T])
    if columns is None:
        return None
    of_globals, of_locals = columns[: len(globals_index)], columns[len(globals_index) :]
    precision = _symmetric(of_globals[:, globals_index])
    local = _symmetric(np.moveaxis(of_locals[:, index], 0, 2))  # (N, d, d)
    between = np.moveaxis(of_globals[:, index], 0, 2)  # (N, d, G)
    try:
        np.linalg.cholesky(local)
        slope = -np.linalg.solve(local, between)
        root = np.linalg.inv(np.linalg.cholesky(precision + np.einsum("ndg,ndh->gh", between, slope)))
    except np.linalg.LinAlgError:
        return None
    return Response(mean, index, globals_index, root.T @ root, _symmetric(np.linalg.inv(local)), slope)


def _symmetric(matrices: FloatArray) -> FloatArray:
    return np.asarray((matrices + np.swapaxes(matrices, -1, -2)) / 2)


def _curvature(
    model: BoundModel, points: FloatArray, sd: FloatArray, moved: list[IndexArray]
) -> FloatArray | None:
    """Minus the mean change of the gradient (K, D) as the coordinates of each of K groups move together by one unit."""
    columns = np.empty((len(moved), model.dim))
    for number, places in enumerate(moved):
        size = _STEP * float(np.median(sd[places]))
        step = np.zeros(model.dim)
        step[places] = size
        up, gradient_up = model.log_density_gradient(points + step)
        down, gradient_down = model.log_density_gradient(points - step)
        usable = np.isfinite(up) & np.isfinite(down)
        if not usable.any():
            return None
        columns[number] = (gradient_down - gradient_up)[usable].mean(axis=0) / (2 * size)
    return columns
