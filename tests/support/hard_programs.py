"""Programs whose posterior is far from where Stan starts, or on scales far from 1, with data simulated from a seed.

Each comes with the point that its data were made at (`truth`, constrained values), near which the posterior is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hard:
    """A program with data, and the point of its simulation."""

    code: str
    data: Data
    truth: Data


def far_normal(offset: float, sigma: float, size: int) -> Hard:
    """A normal sample far from 0 on a scale far from 1; flat priors."""
    code = """
    data { int<lower=0> N; vector[N] y; }
    parameters { real mu; real<lower=0> sigma; }
    model { y ~ normal(mu, sigma); }
    """
    y = offset + sigma * np.random.default_rng(1).normal(size=size)
    return Hard(code, {"N": size, "y": y}, {"mu": offset, "sigma": sigma})


def unscaled_regression() -> Hard:
    """Years and incomes as they are recorded, with an intercept: means and sds of covariates differ by 1e4."""
    code = """
    data { int<lower=0> N; vector[N] year; vector[N] income; vector[N] y; }
    parameters { real alpha; real beta; real gamma; real<lower=0> sigma; }
    model { y ~ normal(alpha + beta * year + gamma * income, sigma); }
    """
    rng = np.random.default_rng(2)
    truth = {"alpha": -500.0, "beta": 0.3, "gamma": 0.002, "sigma": 2.0}
    year, income = rng.uniform(1950, 2020, 100), rng.normal(40_000, 8000, 100)
    y = -500 + 0.3 * year + 0.002 * income + 2 * rng.normal(size=100)
    return Hard(code, {"N": 100, "year": year, "income": income, "y": y}, truth)


def large_counts() -> Hard:
    """Poisson counts of a hundred thousands with a log link on an unscaled covariate."""
    code = """
    data { int<lower=0> N; vector[N] x; array[N] int<lower=0> y; }
    parameters { real alpha; real beta; }
    model { y ~ poisson_log(alpha + beta * x); }
    """
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 100, 50)
    y = rng.poisson(np.exp(12 - 0.03 * x))
    return Hard(code, {"N": 50, "x": x, "y": y}, {"alpha": 12.0, "beta": -0.03})


def wide_logit() -> Hard:
    """A logistic regression on covariates of scale 100, nearly separated."""
    code = """
    data { int<lower=0> N; int<lower=0> K; matrix[N, K] x; array[N] int<lower=0, upper=1> y; }
    parameters { real alpha; vector[K] beta; }
    model { alpha ~ normal(0, 10); beta ~ normal(0, 1); y ~ bernoulli_logit(alpha + x * beta); }
    """
    rng = np.random.default_rng(4)
    x = 100 * rng.normal(size=(200, 3)) + [300, 0, -100]
    beta = np.array([0.02, -0.05, 0.03])
    y = rng.binomial(1, 1 / (1 + np.exp(3 - x @ beta)))
    return Hard(code, {"N": 200, "K": 3, "x": x, "y": y}, {"alpha": -3.0, "beta": beta})


def decay() -> Hard:
    """Exponential decay with a rate of 0.002 an hour from 5000 counts: far from 1 it is flat."""
    code = """
    data { int<lower=0> N; vector[N] t; vector[N] y; }
    parameters { real<lower=0> start; real<lower=0> rate; real<lower=0> sigma; }
    model {
      start ~ lognormal(5, 3);
      rate ~ lognormal(-5, 3);
      sigma ~ lognormal(2, 3);
      y ~ normal(start * exp(-rate * t), sigma);
    }
    """
    t = np.linspace(0, 1500, 40)
    y = 5000 * np.exp(-0.002 * t) + 60 * np.random.default_rng(5).normal(size=40)
    return Hard(code, {"N": 40, "t": t, "y": y}, {"start": 5000.0, "rate": 0.002, "sigma": 60.0})


def logistic_growth() -> Hard:
    """A closed solution of an ODE: growth to a capacity of 800, lognormal errors."""
    code = """
    data { int<lower=0> N; vector[N] t; vector<lower=0>[N] y; }
    parameters { real<lower=0> first; real<lower=0> rate; real<lower=0> capacity; real<lower=0> sigma; }
    model {
      y ~ lognormal(log(capacity) - log1p((capacity / first - 1) * exp(-rate * t)), sigma);
      first ~ lognormal(1, 2);
      rate ~ lognormal(-2, 2);
      capacity ~ lognormal(6, 2);
      sigma ~ normal(0, 1);
    }
    """
    t = np.linspace(0, 120, 30)
    rng = np.random.default_rng(6)
    y = 800 / (1 + (800 / 3 - 1) * np.exp(-0.1 * t)) * np.exp(0.1 * rng.normal(size=30))
    truth = {"first": 3.0, "rate": 0.1, "capacity": 800.0, "sigma": 0.1}
    return Hard(code, {"N": 30, "t": t, "y": y}, truth)


def narrow_region() -> Hard:
    """A density that is finite only where two parameters are far from 0 and in order, not far apart."""
    code = """
    data { int<lower=0> N; vector[N] y; vector[N] z; }
    parameters { real low; real high; }
    model {
      if (low < 5) reject("low is below 5: ", low);
      if (high < low) reject("high is below low: ", high);
      if (high > low + 10) reject("high is far above low: ", high);
      y ~ normal(low, 1);
      z ~ normal(high, 1);
    }
    """
    rng = np.random.default_rng(7)
    y, z = 12 + rng.normal(size=20), 16 + rng.normal(size=20)
    return Hard(code, {"N": 20, "y": y, "z": z}, {"low": 12.0, "high": 16.0})


def many_groups() -> Hard:
    """2000 groups around 1e4, centred: the joint density has no mode."""
    code = """
    data { int<lower=0> J; vector[J] y; }
    parameters { real mu; real<lower=0> tau; vector[J] theta; }
    model { theta ~ normal(mu, tau); y ~ normal(theta, 20); }
    """
    rng = np.random.default_rng(8)
    theta = rng.normal(10_000, 30, 2000)
    y = rng.normal(theta, 20)
    return Hard(code, {"J": 2000, "y": y}, {"mu": 10_000.0, "tau": 30.0, "theta": theta})


def funnel() -> Hard:
    """Groups of few data, centred, far from 0: a joint density that is unbounded as tau falls to 0."""
    code = """
    data { int<lower=0> J; int<lower=0> N; array[N] int<lower=1, upper=J> group; vector[N] y; }
    parameters { real mu; real<lower=0> tau; real<lower=0> sigma; vector[J] theta; }
    model { theta ~ normal(mu, tau); y ~ normal(theta[group], sigma); }
    """
    rng = np.random.default_rng(9)
    theta = rng.normal(200, 5, 30)
    group = np.repeat(np.arange(30), 3)
    y = rng.normal(theta[group], 10)
    data = {"J": 30, "N": 90, "group": group + 1, "y": y}
    return Hard(code, data, {"mu": 200.0, "tau": 5.0, "sigma": 10.0, "theta": theta})


def garch() -> Hard:
    """GARCH(1, 1) of returns of a hundredth, with a stationarity bound that depends on a parameter."""
    code = """
    data { int<lower=0> T; vector[T] r; }
    parameters { real mu; real<lower=0> base; real<lower=0, upper=1> a; real<lower=0, upper=1 - a> b; }
    model {
      real v = variance(r);
      for (t in 2:T) {
        v = base + a * square(r[t - 1] - mu) + b * v;
        r[t] ~ normal(mu, sqrt(v));
      }
    }
    """
    rng, v = np.random.default_rng(10), 1e-4
    r = [0.0]
    for _ in range(499):
        v = 5e-6 + 0.15 * r[-1] ** 2 + 0.8 * v
        r.append(np.sqrt(v) * rng.normal())
    return Hard(code, {"T": 500, "r": r}, {"mu": 0.0, "base": 5e-6, "a": 0.15, "b": 0.8})


def rare_events() -> Hard:
    """A beta-binomial of events of one in ten thousand, by shape parameters."""
    code = """
    data { int<lower=0> N; array[N] int<lower=0> n; array[N] int<lower=0> y; }
    parameters { real<lower=0> a; real<lower=0> b; }
    model { a ~ lognormal(0, 3); b ~ lognormal(0, 10); y ~ beta_binomial(n, a, b); }
    """
    rng = np.random.default_rng(11)
    n = np.full(60, 200_000)
    y = rng.binomial(n, rng.beta(2, 20_000, 60))
    return Hard(code, {"N": 60, "n": n, "y": y}, {"a": 2.0, "b": 20_000.0})


def far_mixture() -> Hard:
    """Two components at 900 and 1100."""
    code = """
    data { int<lower=0> N; vector[N] y; }
    parameters { ordered[2] mu; real<lower=0> sigma; real<lower=0, upper=1> share; }
    model {
      sigma ~ lognormal(3, 2);
      mu ~ normal(1000, 500);
      for (n in 1:N)
        target += log_mix(share, normal_lpdf(y[n] | mu[1], sigma), normal_lpdf(y[n] | mu[2], sigma));
    }
    """
    rng = np.random.default_rng(12)
    y = np.where(rng.random(100) < 0.3, 900, 1100) + 20 * rng.normal(size=100)
    truth = {"mu": [900.0, 1100.0], "sigma": 20.0, "share": 0.3}
    return Hard(code, {"N": 100, "y": y}, truth)


PROGRAMS: dict[str, Callable[[], Hard]] = {
    "far, wide normal": lambda: far_normal(1e4, 1e3, 50),
    "far, narrow normal": lambda: far_normal(1e4, 1e-3, 50),
    "unscaled regression": unscaled_regression,
    "large counts": large_counts,
    "wide logit": wide_logit,
    "decay": decay,
    "logistic growth": logistic_growth,
    "narrow region": narrow_region,
    "2000 groups at 1e4": many_groups,
    "funnel at 200": funnel,
    "garch": garch,
    "rare events": rare_events,
    "far mixture": far_mixture,
}
