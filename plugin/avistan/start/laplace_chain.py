"""Where a banded factor starts: Laplace's approximation of units that depend on their neighbours.

A mean-field fit of a walk is far from its posterior, above all in the scales of its steps, and the way from there is
long: globals and units only move together. Given the globals the units' curvature is a band, so that a Newton step
costs a few gradients and one banded solve. The globals climb the marginal density in which the units are integrated
out by Laplace's formula. Source: Rue, Martino & Chopin, "Approximate Bayesian inference for latent Gaussian models by
using integrated nested Laplace approximations", JRSS B 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avistan.runtime.types import FloatArray
from stan_adapters.data.layout import IndexArray
from stan_adapters.levels.probes import Density

MAX_GLOBALS = 12  # whose marginal density is climbed; more of them stay where they are
_NEWTON_STEPS = 50
_SETTLED = 1e-6  # nats that a Newton step may still gain
_LENGTHS = np.array([0.5, 0.25, 0.1, 0.03, 0.01, 1e-3])  # of a Newton step where all of it leads down
_RIDGES = (0.0, 1e-2, 0.1, 1.0, 10.0)  # times the curvature's diagonal, where that is not positive definite
_STEP = 1e-4  # of a gradient's difference
_GLOBAL_STEP = 1e-2  # of a difference of marginal densities, in sds of the start
_CLIMB_STEPS, _SLOPE = (
    40,
    0.05,
)  # at most, and nats by unconstrained unit at which climbing stops for 100 units
_WIDEST = 3.0  # unconstrained sd of a global


@dataclass(frozen=True, slots=True, eq=False)
class UnitChain:
    """Units' modes given globals, and the Gaussian Markov chain with their curvature: x_n = L_n e_n + sum_k B_nk x_n-k.

    Attributes:
        z: (N, d) modes.
        factor: (N, d, d), L_n.
        bands: (N, b, d, d), B_n.
        log_marginal: log p(theta, x) by Laplace's formula, nats up to a constant.
    """

    z: FloatArray
    factor: FloatArray
    bands: FloatArray
    log_marginal: float


@dataclass(frozen=True, slots=True, eq=False)
class ChainStart:
    """Laplace's approximation of globals and units: at its centre, and a sd of each global to both sides.

    Attributes:
        theta: (G,) centre.
        sd: (G,) of the globals.
        chain: at the centre.
        beside: chains at theta - sd and theta + sd of each global in turn; empty where the globals were not moved.
    """

    theta: FloatArray
    sd: FloatArray
    chain: UnitChain
    beside: tuple[tuple[UnitChain, UnitChain], ...]


class _Units:
    """A model as a function of its coupled units, the globals fixed."""

    def __init__(self, model: Density, index: IndexArray, globals_index: IndexArray, reach: int) -> None:
        self.model, self.index, self.globals_index = model, index, globals_index
        self.num_units, self.block = index.shape
        self.reach = min(reach, self.num_units - 1)

    def _gradients(self, theta: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Log densities (S,) and scores (S, N, d) at units (S, N, d)."""
        points = np.empty((len(z), self.model.dim))
        points[:, self.globals_index] = theta
        points[:, self.index] = z
        lp, gradient = self.model.log_density_gradient(points)
        return lp, gradient[:, self.index]

    def _curvature(self, theta: FloatArray, z: FloatArray) -> FloatArray:
        """Minus the second derivatives as blocks (N, 2 b + 1, d, d): entry (n, b + k) couples units n and n + k.

        Units that are more than 2 b places apart share no neighbour, so all of them move at once.
        """
        period, d = 2 * self.reach + 1, self.block
        moves = np.zeros((period, d, self.num_units, d))
        for color in range(period):
            for latent in range(d):
                moves[color, latent, color::period, latent] = _STEP * np.maximum(
                    1.0, np.abs(z[color::period, latent])
                )
        flat = moves.reshape(-1, self.num_units, d)
        _, scores = self._gradients(theta, np.concatenate([z + flat, z - flat]))
        change = (scores[: len(flat)] - scores[len(flat) :]).reshape(period, d, self.num_units, d)
        blocks = np.zeros((self.num_units, period, d, d))
        units = np.arange(self.num_units)
        for k in range(-self.reach, self.reach + 1):
            there = units[(units + k >= 0) & (units + k < self.num_units)]
            moved = there + k
            step = 2 * _STEP * np.maximum(1.0, np.abs(z[moved]))  # (M, d)
            column = np.moveaxis(change[:, :, there], 2, 0)[
                np.arange(len(there)), moved % period
            ]  # (M, d moved, d)
            blocks[there, self.reach + k] = -np.swapaxes(column / step[:, :, None], 1, 2)
        return blocks

    def _banded(self, blocks: FloatArray) -> FloatArray:
        """The blocks as scipy's lower band form, units and latents in reverse order."""
        d, size = self.block, self.num_units * self.block
        width = (self.reach + 1) * d
        band = np.zeros((width, size))
        for k in range(self.reach + 1):
            for row in range(d):
                for column in range(d):
                    below = k * d + row - column  # of entry (n + k, row), (n, column)
                    if below < 0 or (k == 0 and column > row):
                        continue
                    later = blocks[k:, self.reach - k, row, column]
                    earlier = blocks[: self.num_units - k, self.reach + k, column, row]
                    # In reverse order the later entry is the column.
                    at = size - 1 - (np.arange(k, self.num_units) * d + row)
                    band[below, at] = 0.5 * (later + earlier)
        return band

    def _factored(self, theta: FloatArray, z: FloatArray) -> FloatArray | None:
        """The banded Cholesky factor of the curvature, or of what a ridge makes of it."""
        from scipy.linalg import LinAlgError, cholesky_banded

        band = self._banded(self._curvature(theta, z))
        if not np.isfinite(band).all():
            return None
        diagonal = np.abs(band[0]) + 1e-8
        for ridge in _RIDGES:
            ridged = band.copy()
            ridged[0] += ridge * diagonal
            try:
                return np.asarray(cholesky_banded(ridged, lower=True))
            except LinAlgError:
                continue
        return None

    def chain(self, theta: FloatArray, z: FloatArray) -> UnitChain | None:
        """The units' modes by Newton's method from z (N, d), and their curvature; None where there is none."""
        from scipy.linalg import cho_solve_banded

        (lp,), (score,) = self._gradients(theta, z[None])
        if not np.isfinite(lp):
            return None
        for _ in range(_NEWTON_STEPS):
            factor = self._factored(theta, z)
            if factor is None:
                return None
            step = cho_solve_banded((factor, True), score.ravel()[::-1])[::-1].reshape(z.shape)
            tried = z + step[None]
            values, scores = self._gradients(theta, tried)
            if not values[0] > lp:
                tried = z + _LENGTHS[:, None, None] * step
                values, scores = self._gradients(theta, tried)
                values = np.where(np.isfinite(values), values, -np.inf)
            best = int(np.argmax(values))
            gain = values[best] - lp
            if not gain > 0:
                break
            z, lp, score = tried[best], values[best], scores[best]
            if gain < _SETTLED:
                break
        factor = self._factored(theta, z)
        if factor is None:
            return None
        return UnitChain(z, *self._unpacked(factor), float(lp - np.log(factor[0]).sum()))

    def _unpacked(self, factor: FloatArray) -> tuple[FloatArray, FloatArray]:
        """L_n and B_n of a Cholesky factor C in reverse order: R = C' in the right order has P = R' R."""
        d, size = self.block, self.num_units * self.block

        def entries(k: int) -> FloatArray:
            """Blocks (N, d, d) of R at (n, n - k)."""
            found = np.zeros((self.num_units, d, d))
            for row in range(d):
                for column in range(d):
                    below = k * d + row - column
                    if below >= 0:
                        at = size - 1 - (np.arange(k, self.num_units) * d + row)
                        found[k:, row, column] = factor[below, at]
            return found

        local = np.linalg.inv(entries(0))
        bands = [-local @ entries(k) for k in range(1, self.reach + 1)]
        return local, np.stack(bands, axis=1)


def chain_start(
    model: Density,
    index: IndexArray,
    globals_index: IndexArray,
    mean: FloatArray,
    reach: int,
) -> ChainStart | None:
    """Laplace's approximation from a rough fit's means (D,).

    Args:
        index: (N, d) positions of the units, in their order along the axis.
        globals_index: (G,).
        reach: b, on how many units to each side a unit's curvature depends.

    Returns: None where the curvature or the density is not what Newton's method needs.
    """
    from scipy.optimize import minimize

    units = _Units(model, index, globals_index, reach)
    theta = mean[globals_index].copy()
    chain = units.chain(theta, mean[index])
    if chain is None:
        return None
    size = len(theta)
    if not 0 < size <= MAX_GLOBALS:
        return ChainStart(theta, np.ones(size), chain, ())
    near = [chain]

    def loss(at: FloatArray) -> float:
        found = units.chain(at, near[0].z)
        return 1e10 if found is None else -found.log_marginal

    def slope(at: FloatArray) -> FloatArray:
        found = units.chain(at, near[0].z)
        if found is not None:
            near[0] = found
        ends = [(loss(at + move), loss(at - move)) for move in _GLOBAL_STEP * np.eye(size)]
        gradient = np.array([(up - down) / (2 * _GLOBAL_STEP) for up, down in ends])
        return np.where(np.abs(gradient) < 1e6, gradient, 0.0)

    settled = _SLOPE * max(
        1.0, np.sqrt(units.num_units / 100)
    )  # sds of globals fall with the root of the units
    options = {"maxiter": _CLIMB_STEPS, "gtol": settled}
    climbed = minimize(loss, theta, jac=slope, method="BFGS", options=options)
    theta = np.asarray(climbed.x)
    center = units.chain(theta, near[0].z)
    if center is None or not center.log_marginal >= chain.log_marginal:
        return ChainStart(mean[globals_index], np.ones(size), chain, ())
    sd = np.empty(size)
    for number, move in enumerate(_GLOBAL_STEP * np.eye(size)):
        bend = loss(theta + move) + loss(theta - move) + 2 * center.log_marginal
        sd[number] = min(_WIDEST, _GLOBAL_STEP / np.sqrt(bend)) if bend > 0 else _WIDEST
    beside = []
    for move in np.diag(sd):
        low, high = units.chain(theta - move, center.z), units.chain(theta + move, center.z)
        if low is None or high is None:
            return ChainStart(theta, sd, center, ())
        beside.append((low, high))
    return ChainStart(theta, sd, center, tuple(beside))
