"""The mean-field optimum of nonlinear.stan, by quadrature: no Monte Carlo and no stopping rule of a stochastic fit.

The unconstrained vector is (theta, z_1, ..., z_N), D = N + 1. Given z the density is quadratic in theta, and given
q(theta) = normal(mean, sd) each unit has a problem of its own in two numbers, the mean and the sd of q(z_n). A unit can
have several local optima (theta + z sin(z) + z is not monotone), so the best point of a fine grid starts its Newton
steps. The two halves alternate until the ELBO stands still. Every ELBO is in nats and has the full entropy of q; the
loss of Margossian & Blei (UAI 2024) is 0.5 * D * log(2 * pi) minus it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_MEANS = np.linspace(-7, 7, 401)
_SDS = np.geomspace(0.02, 2, 30)


@dataclass(frozen=True)
class GaussianFactors:
    """A fully factorized Gaussian over (theta, z_1, ..., z_N) and its ELBO in nats."""

    mean: np.ndarray  # (N + 1,)
    sd: np.ndarray  # (N + 1,)
    elbo: float


def mean_field_optimum(
    data: dict[str, Any], theta: float = 0.0, tolerance: float = 1e-7, most_rounds: int = 500
) -> GaussianFactors:
    """The best factorized Gaussian that alternating between q(theta) and all q(z_n) finds from a mean of q(theta).

    At the end every unit has looked at the whole grid again and found nothing better.

    Raises:
        RuntimeError: the ELBO has not come to a stop.
    """
    x = np.asarray(data["x"], dtype=float)
    mean, sd, last = theta, 0.0, -np.inf
    units = _newton(x, mean, sd, _best_of_grid(x, mean, sd))
    for _ in range(most_rounds):
        zeroth, first, _ = _moments(units[:, 0], np.exp(units[:, 1]))
        mean, sd = float(np.sum(x * zeroth - first) / zeroth.sum()), float(zeroth.sum() ** -0.5)
        units = _newton(x, mean, sd, units)
        total = float(_parts(x, mean, sd, units).sum())
        if total - last < tolerance:
            others = _newton(x, mean, sd, _best_of_grid(x, mean, sd))
            better = _parts(x, mean, sd, others) > _parts(x, mean, sd, units) + tolerance
            if not better.any():
                q = np.r_[mean, units[:, 0]], np.r_[sd, np.exp(units[:, 1])]
                return GaussianFactors(*q, elbo_of(data, *q))
            units = np.where(better[:, None], others, units)
        last = total
    raise RuntimeError(f"the ELBO still moves after {most_rounds} rounds.")


def elbo_of(data: dict[str, Any], mean: np.ndarray, sd: np.ndarray) -> float:
    """The ELBO of a factorized Gaussian (N + 1,), in nats."""
    parts = _parts(
        np.asarray(data["x"], dtype=float), mean[0], sd[0], np.stack([mean[1:], np.log(sd[1:])], 1)
    )
    return float(parts.sum() + np.log(sd[0]) + 0.5 * mean.size * np.log(2 * np.pi * np.e))


def _moments(m: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[w], E[w g] and E[w g^2] under normal(m, sd), where g = z sin(z) + z and w = exp(-2 cos(z))."""
    z = m[..., None] + sd[..., None] * _NODES
    g, w = z * np.sin(z) + z, np.exp(-2 * np.cos(z)) * _WEIGHTS
    return w.sum(axis=-1), (w * g).sum(axis=-1), (w * g * g).sum(axis=-1)


def _parts(x: np.ndarray, theta: float, theta_sd: float, units: np.ndarray) -> np.ndarray:
    """Each unit's part of the ELBO, up to a constant; `units` (N, 2) are means and log sds."""
    m, log_sd = units.T
    sd, residual = np.exp(log_sd), x - theta
    zeroth, first, second = _moments(m, sd)
    squares = (residual**2 + theta_sd**2) * zeroth - 2 * residual * first + second
    return -0.5 * (m**2 + sd**2) - 0.5 * squares + log_sd


def _best_of_grid(x: np.ndarray, theta: float, theta_sd: float) -> np.ndarray:
    """Means and log sds (N, 2) of the best grid points."""
    m, sd = (values.ravel() for values in np.meshgrid(_MEANS, _SDS, indexing="ij"))
    zeroth, first, second = _moments(m, sd)
    fixed = -0.5 * (m**2 + sd**2 + second + theta_sd**2 * zeroth) + np.log(sd)
    best = np.concatenate(
        [
            np.argmax(-0.5 * np.outer(r**2, zeroth) + np.outer(r, first) + fixed, axis=1)
            for r in np.array_split(x - theta, max(1, x.size // 500))
        ]
    )
    return np.stack([m[best], np.log(sd[best])], axis=1)


def _newton(x: np.ndarray, theta: float, theta_sd: float, units: np.ndarray) -> np.ndarray:
    """Damped Newton steps of every unit at once; no step lowers a unit's part."""
    damping, now = np.full(x.shape, 1e-6), _parts(x, theta, theta_sd, units)
    for _ in range(60):
        slope, curvature = _derivatives(x - theta, theta_sd, units[:, 0], np.exp(units[:, 1]))
        top = np.linalg.eigvalsh(curvature)[:, -1]
        shift = np.maximum(top, 0) + damping * (1 + np.abs(curvature).max(axis=(1, 2)))
        move = np.linalg.solve(shift[:, None, None] * np.eye(2) - curvature, slope[..., None])[..., 0]
        there = _parts(x, theta, theta_sd, units + move)
        better = there >= now
        gain = np.where(better, there - now, 0).sum()
        units, now = np.where(better[:, None], units + move, units), np.where(better, there, now)
        damping = np.where(better, damping / 10, damping * 10)
        if gain < 1e-9:
            break
    return units


def _derivatives(
    residual: np.ndarray, theta_sd: float, m: np.ndarray, sd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (N, 2) and Hessian (N, 2, 2) of each unit's part of the ELBO in its mean and log sd."""
    step = sd[:, None] * _NODES
    z = m[:, None] + step
    sin, cos = np.sin(z), np.cos(z)
    w = np.exp(-2 * cos)
    r = residual[:, None] - z * sin - z
    g1, g2 = sin + z * cos + 1, 2 * cos - z * sin  # derivatives of g
    a, a1, a2 = r**2 + theta_sd**2, -2 * r * g1, 2 * g1**2 - 2 * r * g2
    w1, w2 = 2 * sin * w, (2 * cos + 4 * sin**2) * w
    u1 = -z - 0.5 * (a1 * w + a * w1)
    u2 = -1 - 0.5 * (a2 * w + 2 * a1 * w1 + a * w2)
    mean = _WEIGHTS
    slope = np.stack([u1 @ mean, (u1 * step) @ mean + 1], axis=1)
    mixed = (u2 * step) @ mean
    corner = (u2 * step**2 + u1 * step) @ mean
    return slope, np.stack([np.stack([u2 @ mean, mixed], 1), np.stack([mixed, corner], 1)], 1)
