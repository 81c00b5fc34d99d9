"""Exact answers for linear.stan: the posterior, and the best ELBO of two families.

The unconstrained vector is (theta, z_1, ..., z_N), D = N + 1. Stan's density drops the constants of the two
normal statements, so it is U = -0.5 * sum((z - theta)^2) / tau^2 - 0.5 * sum((x - z)^2) / sigma^2. Every ELBO
here is E_q[U] plus the full entropy of q, in nats: 0.5 * log(2 * pi * e) + log(sd) per coordinate. The loss
of Margossian & Blei (UAI 2024) is 0.5 * D * log(2 * pi) minus it. The README derives the formulas.
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
    x, theta, z = np.asarray(data["x"], dtype=float), point[0], point[1:]
    prior = np.sum((z - theta) ** 2) / data["tau"] ** 2
    return float(-0.5 * (prior + np.sum((x - z) ** 2) / data["sigma"] ** 2))


def posterior_precision(data: dict[str, Any]) -> np.ndarray:
    """The exact (N + 1, N + 1) posterior precision: minus the Hessian of U."""
    N, a, b = data["N"], data["tau"] ** -2, data["sigma"] ** -2
    precision = np.diag(np.concatenate([[N * a], np.full(N, a + b)]))
    precision[0, 1:] = precision[1:, 0] = -a
    return precision


def posterior_mean(data: dict[str, Any]) -> np.ndarray:
    """The exact posterior mean of (theta, z), which is also the mean of the best factorized Gaussian."""
    slope, intercept = optimal_line(data)
    x = np.asarray(data["x"], dtype=float)
    return np.concatenate([[x.mean()], intercept + slope * x])


def posterior_sd(data: dict[str, Any]) -> np.ndarray:
    """The exact posterior standard deviations of (theta, z), in O(N)."""
    N, a, b = data["N"], data["tau"] ** -2, data["sigma"] ** -2
    theta_variance = (data["tau"] ** 2 + data["sigma"] ** 2) / N
    z_variance = 1 / (a + b) + (a / (a + b)) ** 2 * theta_variance
    return np.sqrt(np.concatenate([[theta_variance], np.full(N, z_variance)]))


def optimal_line(data: dict[str, Any]) -> tuple[float, float]:
    """Slope and intercept of the optimal inference function: mean of q(z_n) = intercept + slope * x_n."""
    slope = data["tau"] ** 2 / (data["tau"] ** 2 + data["sigma"] ** 2)
    return slope, (1 - slope) * float(np.mean(data["x"]))


def mean_field_optimum(data: dict[str, Any]) -> GaussianFactors:
    """The best factorized Gaussian; amortization on x_n reaches it with a straight line."""
    mean = posterior_mean(data)
    return GaussianFactors(mean, _factor_sd(data), _elbo(data, mean))


def constant_factor_optimum(data: dict[str, Any]) -> GaussianFactors:
    """The best factorized Gaussian whose units all share one mean and one standard deviation."""
    mean = np.full(data["N"] + 1, np.mean(data["x"]))
    return GaussianFactors(mean, _factor_sd(data), _elbo(data, mean))


def log_evidence(data: dict[str, Any]) -> float:
    """log of the integral of exp(U): what no ELBO can exceed."""
    N, a, b = data["N"], data["tau"] ** -2, data["sigma"] ** -2
    log_det = N * np.log(a + b) + np.log(N) - np.log(data["tau"] ** 2 + data["sigma"] ** 2)
    return float(log_density(data, posterior_mean(data)) + 0.5 * (N + 1) * np.log(2 * np.pi) - 0.5 * log_det)


def _factor_sd(data: dict[str, Any]) -> np.ndarray:
    # A best factor's variance is one over the diagonal of the precision, which is the same for all units.
    N, a, b = data["N"], data["tau"] ** -2, data["sigma"] ** -2
    return np.concatenate([[N * a], np.full(N, a + b)]) ** -0.5


def _elbo(data: dict[str, Any], mean: np.ndarray) -> float:
    # E_q[U] = U(mean) - 0.5 * sum(P_ii * sd_i^2) = U(mean) - D / 2, which cancels the D / 2 of the entropy.
    return float(
        log_density(data, mean) + 0.5 * mean.size * np.log(2 * np.pi) + np.sum(np.log(_factor_sd(data)))
    )
