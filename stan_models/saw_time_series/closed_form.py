"""Exact answers for saw_time_series.stan: the posterior, and the best ELBO of four families.

The unconstrained vector is (theta, z_1, ..., z_N), D = N + 1. Up to the constants that Stan drops the log density is
U = -0.5 * sum((z_n - x_{n-1})^2) - 0.5 * sum((x_n - a * (z_n + theta))^2), a quadratic. Every ELBO here is E_q[U]
plus the full entropy of q, in nats; the loss of Margossian & Blei (UAI 2024) is 0.5 * D * log(2 * pi) minus it.
The README derives the formulas.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GaussianFactors:
    """A fully factorized Gaussian over (theta, z_1, ..., z_N) and its ELBO in nats."""

    mean: np.ndarray  # (N + 1,)
    sd: np.ndarray  # (N + 1,)
    elbo: float


def log_density(data: dict[str, Any], point: np.ndarray) -> float:
    """U at one point (theta, z)."""
    (before, after), theta, z = _neighbours(data), point[0], point[1:]
    return float(-0.5 * np.sum((z - before) ** 2) - 0.5 * np.sum((after - data["a"] * (z + theta)) ** 2))


def posterior_precision(data: dict[str, Any]) -> np.ndarray:
    """The exact (N + 1, N + 1) posterior precision: minus the Hessian of U."""
    N, b = data["N"], data["a"] ** 2
    precision = np.diag(np.concatenate([[N * b], np.full(N, 1 + b)]))
    precision[0, 1:] = precision[1:, 0] = b
    return precision


def posterior_mean(data: dict[str, Any]) -> np.ndarray:
    """The exact posterior mean of (theta, z), which is also the mean of the best factorized Gaussian."""
    before, after = _neighbours(data)
    theta = np.mean(after / data["a"] - before)
    z = (before + data["a"] * (after - data["a"] * theta)) / (1 + data["a"] ** 2)
    return np.concatenate([[theta], z])


def posterior_sd(data: dict[str, Any]) -> np.ndarray:
    """The exact posterior standard deviations of (theta, z), in O(N)."""
    N, b = data["N"], data["a"] ** 2
    theta_variance = (1 + b) / (N * b)
    z_variance = 1 / (1 + b) + (b / (1 + b)) ** 2 * theta_variance
    return np.sqrt(np.concatenate([[theta_variance], np.full(N, z_variance)]))


def mean_field_optimum(data: dict[str, Any]) -> GaussianFactors:
    """The best factorized Gaussian; a linear function of (x_{n-1}, x_n) reaches it."""
    return _factors(data, posterior_mean(data))


def polynomial_optimum(data: dict[str, Any], degree: int) -> GaussianFactors:
    """The best factorized Gaussian whose means are a polynomial of x_n alone, with one sd for all units.

    Degree 0 is the constant factor.
    """
    before, after = _neighbours(data)
    basis = np.polynomial.legendre.legvander(2 * (after - after.min()) / np.ptp(after) - 1, degree)
    # U of (theta, basis @ c): least squares of before on z = basis @ c, and of after on a * (z + theta).
    top = np.column_stack([np.zeros(data["N"]), basis])
    bottom = data["a"] * np.column_stack([np.ones(data["N"]), basis])
    best = np.linalg.lstsq(np.vstack([top, bottom]), np.concatenate([before, after]), rcond=None)[0]
    return _factors(data, np.concatenate([best[:1], basis @ best[1:]]))


def log_evidence(data: dict[str, Any]) -> float:
    """log of the integral of exp(U): what no ELBO can exceed."""
    N, b = data["N"], data["a"] ** 2
    log_det = (N - 1) * np.log(1 + b) + np.log(N * b)
    return float(log_density(data, posterior_mean(data)) + 0.5 * (N + 1) * np.log(2 * np.pi) - 0.5 * log_det)


def _neighbours(data: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The observation before each latent and the one after it, (N,) each."""
    x = np.asarray(data["x"], dtype=float)
    return x[:-1], x[1:]


def _factors(data: dict[str, Any], mean: np.ndarray) -> GaussianFactors:
    # A best factor's variance is one over the diagonal of the precision, which is the same for all units. Then
    # E_q[U] = U(mean) - D / 2, which cancels the D / 2 of the entropy.
    N, b = data["N"], data["a"] ** 2
    sd = np.concatenate([[N * b], np.full(N, 1 + b)]) ** -0.5
    elbo = log_density(data, mean) + 0.5 * mean.size * np.log(2 * np.pi) + np.sum(np.log(sd))
    return GaussianFactors(mean, sd, float(elbo))
