"""Exact answers for state_space.stan: marginal likelihood, smoothed states, and the best ELBO of three families.

The unconstrained vector is (mu, z_1, ..., z_T), D = T + 1. Up to the constants that Stan drops the log density U is a
quadratic with a tridiagonal part. The filter sums the states out for a given mu; the innovations are linear in mu,
which is flat, so mu follows by weighted least squares. Every ELBO is E_q[U] plus the full entropy of q, in nats.
Sources: R. E. Kalman, J. Basic Eng. 82 (1960); H. E. Rauch, F. Tung, C. T. Striebel, AIAA Journal 3 (1965).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GaussianFactors:
    """A fully factorized Gaussian over (mu, z_1, ..., z_T) and its ELBO in nats."""

    mean: np.ndarray  # (T + 1,)
    sd: np.ndarray  # (T + 1,)
    elbo: float


@dataclass(frozen=True)
class Filtered:
    """What one pass of the filter over a series y gives; `ahead` is the mean of z_t given the past.

    Linear in y: the pass over y - mu is the pass over y minus mu times the pass over ones.
    """

    innovation: np.ndarray  # (T,) y_t minus its prediction
    variance: np.ndarray  # (T,) of the innovation
    ahead: np.ndarray  # (T,)
    ahead_variance: np.ndarray  # (T,)
    mean: np.ndarray  # (T,) of z_t given y_1 .. y_t
    mean_variance: np.ndarray  # (T,)


def kalman_filter(data: dict[str, Any], y: np.ndarray) -> Filtered:
    """The filter over a series y (T,) with mu = 0."""
    rho, tau, sigma = data["rho"], data["tau"], data["sigma"]
    rows = []
    ahead, ahead_variance = 0.0, tau**2 / (1 - rho**2)
    for value in y:
        variance = ahead_variance + sigma**2
        gain, innovation = ahead_variance / variance, value - ahead
        mean, mean_variance = ahead + gain * innovation, (1 - gain) * ahead_variance
        rows.append((innovation, variance, ahead, ahead_variance, mean, mean_variance))
        ahead, ahead_variance = rho * mean, rho**2 * mean_variance + tau**2
    return Filtered(*np.array(rows).T)


def level(data: dict[str, Any]) -> tuple[float, float]:
    """Posterior mean and sd of mu."""
    y = np.asarray(data["y"], dtype=float)
    series, ones = kalman_filter(data, y), kalman_filter(data, np.ones_like(y))
    precision = np.sum(ones.innovation**2 / ones.variance)
    return float(np.sum(ones.innovation * series.innovation / series.variance) / precision), float(
        precision**-0.5
    )


def log_marginal_likelihood(data: dict[str, Any], mu: float) -> float:
    """log p(y | mu), with all its constants."""
    series = kalman_filter(data, np.asarray(data["y"], dtype=float) - mu)
    squares = series.innovation**2 / series.variance
    return float(-0.5 * np.sum(np.log(2 * np.pi * series.variance) + squares))


def smoothed(data: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and sds of (mu, z_1, ..., z_T)."""
    y = np.asarray(data["y"], dtype=float)
    mu, mu_sd = level(data)
    given_mu, variance = _smoother(data, kalman_filter(data, y - mu))
    per_mu, _ = _smoother(
        data, kalman_filter(data, np.ones_like(y))
    )  # minus the derivative of the means by mu
    return np.r_[mu, given_mu], np.sqrt(np.r_[mu_sd**2, variance + (per_mu * mu_sd) ** 2])


def _smoother(data: dict[str, Any], series: Filtered) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances (T,) of the states given the whole series."""
    mean, variance = series.mean.copy(), series.mean_variance.copy()
    for t in range(len(mean) - 2, -1, -1):
        gain = data["rho"] * series.mean_variance[t] / series.ahead_variance[t + 1]
        mean[t] += gain * (mean[t + 1] - series.ahead[t + 1])
        variance[t] += gain**2 * (variance[t + 1] - series.ahead_variance[t + 1])
    return mean, variance


def log_density(data: dict[str, Any], point: np.ndarray) -> float:
    """U at one point (mu, z)."""
    rho, tau, sigma = data["rho"], data["tau"], data["sigma"]
    mu, z = point[0], point[1:]
    start, steps = z[0] ** 2 * (1 - rho**2) / tau**2, np.sum((z[1:] - rho * z[:-1]) ** 2) / tau**2
    return float(-0.5 * (start + steps + np.sum((np.asarray(data["y"]) - mu - z) ** 2) / sigma**2))


def log_evidence(data: dict[str, Any]) -> float:
    """log of the integral of exp(U): what no ELBO can exceed."""
    T, rho, tau, sigma = data["T"], data["rho"], data["tau"], data["sigma"]
    mu, sd = level(data)
    # p(y) with mu summed out; each of the 2 T normal densities has a 1 / sqrt(2 pi) that U lacks, and its sd.
    complete = log_marginal_likelihood(data, mu) + 0.5 * np.log(2 * np.pi) + np.log(sd)
    return float(complete + T * np.log(2 * np.pi * tau * sigma) - 0.5 * np.log(1 - rho**2))


def posterior_precision(data: dict[str, Any]) -> np.ndarray:
    """The exact (T + 1, T + 1) posterior precision: minus the Hessian of U."""
    T, rho, a, b = data["T"], data["rho"], data["tau"] ** -2, data["sigma"] ** -2
    of_z = np.diag(np.full(T, (1 + rho**2) * a + b))
    of_z[[0, -1], [0, -1]] = a + b
    next_to = np.arange(T - 1)
    of_z[next_to, next_to + 1] = of_z[next_to + 1, next_to] = -rho * a
    precision = np.empty((T + 1, T + 1))
    precision[0, 0], precision[0, 1:], precision[1:, 0], precision[1:, 1:] = T * b, b, b, of_z
    return precision


def mean_field_optimum(data: dict[str, Any]) -> GaussianFactors:
    """The best factorized Gaussian: the posterior's means, and the inverse diagonal of its precision."""
    mean, _ = smoothed(data)
    return _factors(data, mean, np.diag(posterior_precision(data)) ** -0.5)


def window_optimum(data: dict[str, Any], reach: int | None) -> GaussianFactors:
    """The best factorized Gaussian whose means are one linear function of y_{t-reach} .. y_{t+reach}.

    Where the window leaves the series its entries are 0 and marked, one mark for each place of the window; the sd
    depends on the marks alone. None is the constant factor.
    """
    y, T = np.asarray(data["y"], dtype=float), data["T"]
    places = np.arange(-reach, reach + 1) if reach is not None else np.empty(0, dtype=int)
    wanted = np.arange(T)[:, None] + places
    inside = (wanted >= 0) & (wanted < T)
    columns = np.where(inside, y[np.clip(wanted, 0, T - 1)], 0), ~inside
    basis = np.zeros((T + 1, 2 + 2 * places.size))
    basis[0, 0], basis[1:, 1:] = 1, np.column_stack([np.ones(T), *columns])
    precision, best = posterior_precision(data), smoothed(data)[0]
    # U falls by half the squared distance to the posterior mean, in the metric of the precision.
    root = np.linalg.cholesky(precision).T
    mean = basis @ np.linalg.lstsq(root @ basis, root @ best, rcond=None)[0]
    diagonal = np.diag(precision).copy()
    for pattern in np.unique(inside, axis=0) if places.size else [np.empty(0)]:
        same = np.r_[False, (inside == pattern).all(axis=1)]
        diagonal[same] = diagonal[same].mean()
    return _factors(data, mean, diagonal**-0.5)


def _factors(data: dict[str, Any], mean: np.ndarray, sd: np.ndarray) -> GaussianFactors:
    expected = log_density(data, mean) - 0.5 * np.sum(np.diag(posterior_precision(data)) * sd**2)
    entropy = 0.5 * mean.size * np.log(2 * np.pi * np.e) + np.sum(np.log(sd))
    return GaussianFactors(mean, sd, float(expected + entropy))
