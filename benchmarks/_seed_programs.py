"""Programs for `seeds` beside those of other benchmarks and tests: where training can end early or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Data = dict[str, Any]
Maker = Callable[[], tuple[str, Data]]


def growth_in_grams() -> tuple[str, Data]:
    """Growth curves of 25 animals in grams and days: scales differ by orders of magnitude."""
    code = """
    data { int<lower=0> J; int<lower=0> T; vector[T] day; matrix[J, T] weight; }
    parameters {
      vector[J] level; vector[J] rate; real mu_level; real mu_rate;
      real<lower=0> sigma; real<lower=0> tau_level; real<lower=0> tau_rate;
    }
    model {
      mu_level ~ normal(0, 1000); mu_rate ~ normal(0, 1000);
      level ~ normal(mu_level, tau_level); rate ~ normal(mu_rate, tau_rate);
      for (j in 1:J) weight[j] ~ normal(level[j] + rate[j] * (day - mean(day)), sigma);
    }
    """
    rng = np.random.default_rng(21)
    day = np.array([5.0, 12, 19, 26, 33, 40])
    level, rate = rng.normal(310, 20, 25), rng.normal(7.5, 0.7, 25)
    weight = level[:, None] + rate[:, None] * (day - day.mean()) + rng.normal(0, 5, (25, 6))
    return code, {"J": 25, "T": 6, "day": day, "weight": weight}


def correlated_regression() -> tuple[str, Data]:
    """A linear regression whose covariates are nearly the same: a ridge."""
    code = """
    data { int<lower=0> N; int<lower=0> K; matrix[N, K] x; vector[N] y; }
    parameters { real alpha; vector[K] beta; real<lower=0> sigma; }
    model { beta ~ normal(0, 5); alpha ~ normal(0, 10); sigma ~ normal(0, 5); y ~ normal(alpha + x * beta, sigma); }
    """
    rng = np.random.default_rng(22)
    x = rng.normal(size=(120, 1)) + 0.02 * rng.normal(size=(120, 4))
    y = 2 + x @ [1.0, -2.0, 3.0, 0.5] + rng.normal(size=120)
    return code, {"N": 120, "K": 4, "x": x, "y": y}


def cubic_regression() -> tuple[str, Data]:
    """A cubic in raw years since 1950: coefficients on scales from 1 to 1e-4, and a ridge."""
    code = """
    data { int<lower=0> N; vector[N] t; vector[N] y; }
    parameters { vector[4] b; real<lower=0> sigma; }
    model { y ~ normal(b[1] + b[2] * t + b[3] * square(t) + b[4] * t .* square(t), sigma); }
    """
    rng = np.random.default_rng(23)
    t = np.linspace(0, 70, 71)
    y = 10 + 0.8 * t - 0.03 * t**2 + 3e-4 * t**3 + 2 * rng.normal(size=71)
    return code, {"N": 71, "t": t, "y": y}


def logistic_regression() -> tuple[str, Data]:
    """Ten correlated covariates."""
    code = """
    data { int<lower=0> N; int<lower=0> K; matrix[N, K] x; array[N] int<lower=0, upper=1> y; }
    parameters { real alpha; vector[K] beta; }
    model { alpha ~ normal(0, 5); beta ~ normal(0, 2); y ~ bernoulli_logit(alpha + x * beta); }
    """
    rng = np.random.default_rng(24)
    x = rng.normal(size=(400, 10)) @ (np.eye(10) + 0.4)
    y = rng.binomial(1, 1 / (1 + np.exp(-(0.3 + x @ rng.normal(0, 0.4, 10)))))
    return code, {"N": 400, "K": 10, "x": x, "y": y}


def robust_regression() -> tuple[str, Data]:
    """Student errors with unknown degrees of freedom."""
    code = """
    data { int<lower=0> N; vector[N] x; vector[N] y; }
    parameters { real a; real b; real<lower=0> sigma; real<lower=1> nu; }
    model {
      a ~ normal(0, 10); b ~ normal(0, 10); sigma ~ normal(0, 5); nu ~ gamma(2, 0.1);
      y ~ student_t(nu, a + b * x, sigma);
    }
    """
    rng = np.random.default_rng(25)
    x = rng.normal(size=150)
    return code, {"N": 150, "x": x, "y": 1 + 2 * x + 0.5 * rng.standard_t(3, 150)}


def ordered_mixture() -> tuple[str, Data]:
    """Three normals with ordered means, clearly apart."""
    code = """
    data { int<lower=0> N; vector[N] y; }
    parameters { ordered[3] mu; vector<lower=0>[3] sigma; simplex[3] share; }
    model {
      mu ~ normal(0, 10); sigma ~ lognormal(0, 1); share ~ dirichlet(rep_vector(3, 3));
      for (n in 1:N) {
        vector[3] parts = log(share);
        for (k in 1:3) parts[k] += normal_lpdf(y[n] | mu[k], sigma[k]);
        target += log_sum_exp(parts);
      }
    }
    """
    rng = np.random.default_rng(26)
    kind = rng.choice(3, 240, p=[0.3, 0.5, 0.2])
    y = rng.normal(np.array([-4.0, 0.0, 5.0])[kind], np.array([0.7, 1.0, 1.2])[kind])
    return code, {"N": 240, "y": y}


def overdispersed_counts() -> tuple[str, Data]:
    """Negative binomial counts with an exposure over three orders of magnitude."""
    code = """
    data { int<lower=0> N; vector[N] x; vector[N] log_exposure; array[N] int<lower=0> y; }
    parameters { real alpha; real beta; real<lower=0> phi; }
    model {
      alpha ~ normal(0, 5); beta ~ normal(0, 2); phi ~ gamma(2, 0.5);
      y ~ neg_binomial_2_log(alpha + beta * x + log_exposure, phi);
    }
    """
    rng = np.random.default_rng(27)
    x, log_exposure = rng.normal(size=200), rng.uniform(0, 7, 200)
    y = rng.poisson(np.exp(-1 + 0.5 * x + log_exposure) * rng.gamma(2, 0.5, 200))
    return code, {"N": 200, "x": x, "log_exposure": log_exposure, "y": y}


def groups_of_few() -> tuple[str, Data]:
    """100 groups of two rows each, centred, with a between-group sd that is small against the noise."""
    code = """
    data { int<lower=0> J; matrix[J, 2] y; }
    parameters { real mu; real<lower=0> tau; real<lower=0> sigma; vector[J] a; }
    model {
      mu ~ normal(0, 5); tau ~ normal(0, 1); sigma ~ normal(0, 2);
      a ~ normal(mu, tau);
      for (j in 1:J) y[j] ~ normal(a[j], sigma);
    }
    """
    rng = np.random.default_rng(28)
    y = rng.normal(1, 0.3, (100, 1)) + rng.normal(size=(100, 2))
    return code, {"J": 100, "y": y}


def crossed_effects() -> tuple[str, Data]:
    """Students and raters, crossed, 60 and 15."""
    code = """
    data {
      int<lower=0> N; int<lower=0> S; int<lower=0> R;
      array[N] int<lower=1, upper=S> s; array[N] int<lower=1, upper=R> r; vector[N] y;
    }
    parameters { real mu; vector[S] a; vector[R] b; real<lower=0> tau_a; real<lower=0> tau_b; real<lower=0> sigma; }
    model {
      mu ~ normal(0, 100); tau_a ~ normal(0, 10); tau_b ~ normal(0, 10); sigma ~ normal(0, 10);
      a ~ normal(0, tau_a); b ~ normal(0, tau_b);
      y ~ normal(mu + a[s] + b[r], sigma);
    }
    """
    rng = np.random.default_rng(29)
    s, r = rng.integers(0, 60, 300), rng.integers(0, 15, 300)
    y = 50 + rng.normal(0, 6, 60)[s] + rng.normal(0, 3, 15)[r] + 4 * rng.normal(size=300)
    return code, {"N": 300, "S": 60, "R": 15, "s": s + 1, "r": r + 1, "y": y}


def dose_response() -> tuple[str, Data]:
    """A sigmoid of four parameters for each of 30 assays, doses over five orders of magnitude."""
    code = """
    data { int<lower=0> J; int<lower=0> D; vector[D] log_dose; matrix[J, D] y; }
    parameters {
      vector[J] log_half; vector[J] log_top; real mu_half; real mu_top;
      real<lower=0> tau_half; real<lower=0> tau_top; real<lower=0> slope; real<lower=0> sigma;
    }
    model {
      mu_half ~ normal(0, 5); mu_top ~ normal(3, 2); tau_half ~ normal(0, 2); tau_top ~ normal(0, 1);
      slope ~ lognormal(0, 1); sigma ~ normal(0, 10);
      log_half ~ normal(mu_half, tau_half); log_top ~ normal(mu_top, tau_top);
      for (j in 1:J) y[j] ~ normal(exp(log_top[j]) * inv_logit(slope * (log_dose' - log_half[j])), sigma);
    }
    """
    rng = np.random.default_rng(30)
    log_dose = np.linspace(-4, 7, 10)
    half, top = rng.normal(2, 1.2, (30, 1)), np.exp(rng.normal(4, 0.2, (30, 1)))
    y = top / (1 + np.exp(-1.3 * (log_dose - half))) + 3 * rng.normal(size=(30, 10))
    return code, {"J": 30, "D": 10, "log_dose": log_dose, "y": y}


def local_level() -> tuple[str, Data]:
    """A random walk with noise, 120 points at a level of 1000."""
    code = """
    data { int<lower=0> T; vector[T] y; }
    parameters { vector[T] level; real<lower=0> step; real<lower=0> sigma; }
    model {
      step ~ normal(0, 20); sigma ~ normal(0, 50);
      level[1] ~ normal(1000, 300);
      level[2:T] ~ normal(level[1:(T - 1)], step);
      y ~ normal(level, sigma);
    }
    """
    rng = np.random.default_rng(31)
    level = 1100 + np.cumsum(rng.normal(0, 8, 120))
    return code, {"T": 120, "y": level + 15 * rng.normal(size=120)}


def survival() -> tuple[str, Data]:
    """Censored Weibull times in days with a covariate."""
    code = """
    data { int<lower=0> N; vector<lower=0>[N] t; array[N] int<lower=0, upper=1> dead; vector[N] x; }
    parameters { real<lower=0> shape; real log_scale; real beta; }
    model {
      shape ~ lognormal(0, 1); log_scale ~ normal(5, 5); beta ~ normal(0, 2);
      for (n in 1:N) {
        if (dead[n]) target += weibull_lpdf(t[n] | shape, exp(log_scale + beta * x[n]));
        else target += weibull_lccdf(t[n] | shape, exp(log_scale + beta * x[n]));
      }
    }
    """
    rng = np.random.default_rng(32)
    x = rng.normal(size=150)
    t, end = np.exp(6.5 + 0.4 * x) * rng.weibull(1.6, 150), 900.0
    return code, {"N": 150, "t": np.minimum(t, end), "dead": (t < end).astype(int), "x": x}


SEED_PROGRAMS: Mapping[str, Maker] = {
    "growth in grams": growth_in_grams,
    "correlated regression": correlated_regression,
    "cubic regression": cubic_regression,
    "logistic regression": logistic_regression,
    "robust regression": robust_regression,
    "ordered mixture": ordered_mixture,
    "overdispersed counts": overdispersed_counts,
    "groups of few": groups_of_few,
    "crossed effects": crossed_effects,
    "dose response": dose_response,
    "local level": local_level,
    "survival": survival,
}
