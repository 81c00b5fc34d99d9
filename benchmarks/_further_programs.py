"""Programs as people write them, with simulated or published data, none of which had a part in making the families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from avistan.model import Model

FloatArray = npt.NDArray[np.float64]

COUNTIES = """
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> county;
  vector[N] x;
  vector[J] u;
  vector[N] y;
}
parameters {
  vector[J] a;
  vector[J] b;
  real mu_a;
  real mu_b;
  real gamma;
  real<lower=0> sigma_a;
  real<lower=0> sigma_b;
  real<lower=0> sigma_y;
}
model {
  mu_a ~ normal(0, 2);
  mu_b ~ normal(0, 2);
  gamma ~ normal(0, 1);
  sigma_a ~ normal(0, 1);
  sigma_b ~ normal(0, 1);
  sigma_y ~ normal(0, 1);
  a ~ normal(mu_a + gamma * u, sigma_a);
  b ~ normal(mu_b, sigma_b);
  y ~ normal(a[county] + b[county] .* x, sigma_y);
}
"""


def counties() -> dict[str, Any]:
    """85 counties of 1 to 39 measurements, intercepts on a predictor."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(85), rng.integers(1, 40, 85))
    u = rng.normal(size=85)
    a, b = 1.4 + 0.35 * u + rng.normal(0, 0.3, 85), -0.7 + rng.normal(0, 0.25, 85)
    x = rng.integers(0, 2, g.size)
    y = a[g] + b[g] * x + rng.normal(0, 0.7, g.size)
    return {"N": g.size, "J": 85, "county": g + 1, "x": x, "u": u, "y": y}


CORRELATED_SLOPES = """
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> g;
  vector[N] x;
  vector[N] y;
}
parameters {
  matrix[2, J] z;
  cholesky_factor_corr[2] L;
  vector<lower=0>[2] tau;
  vector[2] mu;
  real<lower=0> sigma;
}
transformed parameters {
  matrix[2, J] b = rep_matrix(mu, J) + diag_pre_multiply(tau, L) * z;
}
model {
  to_vector(z) ~ std_normal();
  L ~ lkj_corr_cholesky(2);
  tau ~ normal(0, 1);
  mu ~ normal(0, 2);
  sigma ~ normal(0, 1);
  for (n in 1 : N) {
    y[n] ~ normal(b[1, g[n]] + b[2, g[n]] * x[n], sigma);
  }
}
"""


def correlated_slopes() -> dict[str, Any]:
    """120 groups of 1 to 19 rows, non-centred."""
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(120), rng.integers(1, 20, 120))
    b = [1.0, -0.5] + rng.normal(size=(120, 2)) @ np.array([[0.6, 0.0], [-0.3, 0.4]]).T
    x = rng.normal(size=g.size)
    y = b[g, 0] + b[g, 1] * x + rng.normal(0, 0.7, g.size)
    return {"N": g.size, "J": 120, "g": g + 1, "x": x, "y": y}


CAPTURE_RECAPTURE = """
// Closed population, heterogeneous individuals, augmented; presence is summed out.
data {
  int<lower=0> M;
  int<lower=0> T;
  array[M] int<lower=0, upper=T> y;
}
parameters {
  real<lower=0, upper=1> omega;
  real mu;
  real<lower=0> sigma;
  vector[M] eps;
}
model {
  mu ~ normal(0, 1.5);
  sigma ~ normal(0, 1);
  eps ~ std_normal();
  for (i in 1 : M) {
    real present = bernoulli_lpmf(1 | omega) + binomial_logit_lpmf(y[i] | T, mu + sigma * eps[i]);
    if (y[i] > 0) {
      target += present;
    } else {
      target += log_sum_exp(present, bernoulli_lpmf(0 | omega));
    }
  }
}
"""


def capture_recapture() -> dict[str, Any]:
    """400 possible individuals, 6 occasions."""
    rng = np.random.default_rng(3)
    present, p = rng.uniform(size=400) < 0.5, logistic(rng.normal(-1, 0.8, 400))
    return {"M": 400, "T": 6, "y": rng.binomial(6, p) * present}


FRAILTY = """
// Weibull survival of patients in clinics with gamma frailties; times are censored.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> clinic;
  vector[N] x;
  vector<lower=0>[N] t;
  array[N] int<lower=0, upper=1> event;
}
parameters {
  vector<lower=0>[J] w;
  real<lower=0> k;
  real b0;
  real b;
  real<lower=0> theta;
}
model {
  k ~ gamma(2, 1);
  b0 ~ normal(0, 2);
  b ~ normal(0, 1);
  theta ~ gamma(2, 1);
  w ~ gamma(theta, theta);
  for (n in 1 : N) {
    real eta = b0 + b * x[n] + log(w[clinic[n]]);
    if (event[n]) {
      target += log(k) + (k - 1) * log(t[n]) + eta;
    }
    target += -exp(eta) * t[n] ^ k;
  }
}
"""


def frailty() -> dict[str, Any]:
    """100 clinics of 2 to 14 patients."""
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(100), rng.integers(2, 15, 100))
    x, w = rng.normal(size=g.size), rng.gamma(2, 1 / 2, 100)
    t = (-np.log(rng.uniform(size=g.size)) / (np.exp(-1 + 0.5 * x) * w[g])) ** (1 / 1.4)
    censored = rng.uniform(1, 5, g.size)
    return {
        "N": g.size,
        "J": 100,
        "clinic": g + 1,
        "x": x,
        "t": np.minimum(t, censored),
        "event": (t < censored).astype(int),
    }


GRADED = """
// Graded responses.
data {
  int<lower=0> P;
  int<lower=0> I;
  int<lower=2> K;
  array[P, I] int<lower=1, upper=K> y;
}
parameters {
  vector[P] theta;
  vector<lower=0>[I] a;
  array[I] ordered[K - 1] c;
}
model {
  theta ~ std_normal();
  a ~ lognormal(0, 1);
  for (i in 1 : I) {
    c[i] ~ normal(0, 3);
    for (p in 1 : P) {
      y[p, i] ~ ordered_logistic(a[i] * theta[p], c[i]);
    }
  }
}
"""


def graded() -> dict[str, Any]:
    """400 persons, 8 items of 4 categories."""
    rng = np.random.default_rng(5)
    theta, a = rng.normal(size=(400, 1)), rng.lognormal(0, 0.3, 8)
    cuts = np.sort(rng.normal(0, 1.3, (8, 3)), axis=1)
    response = a * theta + rng.logistic(size=(400, 8))
    return {"P": 400, "I": 8, "K": 4, "y": 1 + (response[:, :, None] > cuts).sum(axis=2)}


COUNTS = """
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> g;
  vector<lower=0>[N] exposure;
  vector[N] x;
  array[N] int<lower=0> y;
}
parameters {
  real a;
  real b;
  vector[J] u;
  real<lower=0> tau;
  real<lower=0> phi;
}
model {
  a ~ normal(0, 2);
  b ~ normal(0, 1);
  tau ~ exponential(1);
  phi ~ gamma(2, 0.5);
  u ~ normal(0, tau);
  y ~ neg_binomial_2_log(a + b * x + u[g] + log(exposure), phi);
}
"""


def counts() -> dict[str, Any]:
    """200 groups of 1 to 8 overdispersed counts."""
    rng = np.random.default_rng(6)
    g = np.repeat(np.arange(200), rng.integers(1, 9, 200))
    exposure, x = rng.uniform(0.5, 5, g.size), rng.normal(size=g.size)
    mean = exposure * np.exp(0.3 + 0.4 * x + rng.normal(0, 0.6, 200)[g])
    y = rng.poisson(mean * rng.gamma(3, 1 / 3, g.size))
    return {"N": g.size, "J": 200, "g": g + 1, "exposure": exposure, "x": x, "y": y}


RATES = """
data {
  int<lower=0> J;
  array[J] int<lower=0> n;
  array[J] int<lower=0> y;
}
parameters {
  real<lower=0, upper=1> phi;
  real<lower=0.1> kappa;
  vector<lower=0, upper=1>[J] theta;
}
model {
  kappa ~ pareto(0.1, 1.5);
  theta ~ beta(phi * kappa, (1 - phi) * kappa);
  y ~ binomial(n, theta);
}
"""


def rates() -> dict[str, Any]:
    """71 experiments of 10 to 49 trials."""
    rng = np.random.default_rng(7)
    n = rng.integers(10, 50, 71)
    return {"J": 71, "n": n, "y": rng.binomial(n, rng.beta(2, 12, 71))}


GROWTH = """
data {
  int<lower=0> J;
  int<lower=0> T;
  vector[T] t;
  array[J] vector[T] y;
}
parameters {
  array[J] vector[3] b;
  vector[3] mu;
  vector<lower=0>[3] tau;
  cholesky_factor_corr[3] L;
  real<lower=0> sigma;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  L ~ lkj_corr_cholesky(2);
  sigma ~ normal(0, 1);
  b ~ multi_normal_cholesky(mu, diag_pre_multiply(tau, L));
  for (j in 1 : J) {
    y[j] ~ normal(b[j, 1] + b[j, 2] * t + b[j, 3] * square(t), sigma);
  }
}
"""


def growth() -> dict[str, Any]:
    """200 subjects, 6 occasions, quadratic curves."""
    rng = np.random.default_rng(8)
    t = np.linspace(-1, 1, 6)
    spread = np.array([[0.8, 0.2, 0.1], [0.2, 0.5, -0.1], [0.1, -0.1, 0.3]])
    b = rng.multivariate_normal([2.0, 1.0, -0.5], spread, 200)
    y = b[:, [0]] + b[:, [1]] * t + b[:, [2]] * t**2 + rng.normal(0, 0.4, (200, 6))
    return {"J": 200, "T": 6, "t": t, "y": y}


NETWORK = """
// A directed network of all pairs: nodes send and receive.
data {
  int<lower=0> n;
  array[n, n] int<lower=0, upper=1> y;
}
parameters {
  real mu;
  real<lower=0> tau_s;
  real<lower=0> tau_r;
  vector[n] s;
  vector[n] r;
}
model {
  mu ~ normal(0, 2);
  tau_s ~ normal(0, 1);
  tau_r ~ normal(0, 1);
  s ~ normal(0, tau_s);
  r ~ normal(0, tau_r);
  for (i in 1 : n) {
    for (j in 1 : n) {
      if (i != j) {
        y[i, j] ~ bernoulli_logit(mu + s[i] + r[j]);
      }
    }
  }
}
"""


def network() -> dict[str, Any]:
    """40 nodes."""
    rng = np.random.default_rng(9)
    sends, receives = rng.normal(0, 0.8, (40, 1)), rng.normal(0, 0.5, 40)
    y = (rng.uniform(size=(40, 40)) < logistic(-1 + sends + receives)).astype(int)
    np.fill_diagonal(y, 0)
    return {"n": 40, "y": y}


PUMPS = """
data {
  int<lower=0> N;
  array[N] int<lower=0> y;
  vector<lower=0>[N] t;
}
parameters {
  real<lower=0> alpha;
  real<lower=0> beta;
  vector<lower=0>[N] theta;
}
model {
  alpha ~ exponential(1);
  beta ~ gamma(0.1, 1.0);
  theta ~ gamma(alpha, beta);
  y ~ poisson(theta .* t);
}
"""


def pumps() -> dict[str, Any]:
    """Failures and thousand hours of ten pumps (Gaver & O'Muircheartaigh, Technometrics 1987)."""
    hours = [94.3, 15.7, 62.9, 126.0, 5.24, 31.4, 1.05, 1.05, 2.1, 10.5]
    return {"N": 10, "y": [5, 1, 5, 14, 3, 19, 1, 1, 4, 22], "t": hours}


META_ANALYSIS = """
data {
  int<lower=0> J;
  vector[J] y;
  vector<lower=0>[J] s;
}
parameters {
  real mu;
  real<lower=0> tau;
  real<lower=1> nu;
  vector[J] theta;
}
model {
  mu ~ normal(0, 1);
  tau ~ normal(0, 1);
  nu ~ gamma(2, 0.1);
  theta ~ student_t(nu, mu, tau);
  y ~ normal(theta, s);
}
"""


def meta_analysis() -> dict[str, Any]:
    """60 studies of a heavy-tailed population."""
    rng = np.random.default_rng(11)
    s = rng.uniform(0.2, 0.8, 60)
    return {"J": 60, "y": 0.5 + 0.4 * rng.standard_t(3, 60) + s * rng.normal(size=60), "s": s}


PANEL = """
data {
  int<lower=0> P;
  int<lower=0> T;
  array[P, T] int<lower=0, upper=1> y;
  matrix[P, T] x;
}
parameters {
  real a;
  real b;
  real<lower=0> tau;
  vector[P] z;
}
model {
  a ~ normal(0, 2);
  b ~ normal(0, 1);
  tau ~ normal(0, 1);
  z ~ std_normal();
  for (t in 1 : T) {
    y[ : , t] ~ bernoulli(Phi_approx(a + b * x[ : , t] + tau * z));
  }
}
"""


def panel() -> dict[str, Any]:
    """300 persons, 5 waves, non-centred."""
    rng = np.random.default_rng(12)
    x = rng.normal(size=(300, 5))
    y = -0.3 + 0.7 * x + rng.normal(size=(300, 1)) + rng.normal(size=(300, 5)) > 0
    return {"P": 300, "T": 5, "y": y.astype(int), "x": x}


def logistic(x: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-x))


FURTHER: Mapping[str, Callable[[], Model]] = {
    "counties": lambda: Model(stan_code=COUNTIES, data=counties()),
    "correlated slopes": lambda: Model(stan_code=CORRELATED_SLOPES, data=correlated_slopes()),
    "capture-recapture": lambda: Model(stan_code=CAPTURE_RECAPTURE, data=capture_recapture()),
    "frailty": lambda: Model(stan_code=FRAILTY, data=frailty()),
    "graded responses": lambda: Model(stan_code=GRADED, data=graded()),
    "counts": lambda: Model(stan_code=COUNTS, data=counts()),
    "rates": lambda: Model(stan_code=RATES, data=rates()),
    "growth curves": lambda: Model(stan_code=GROWTH, data=growth()),
    "network": lambda: Model(stan_code=NETWORK, data=network()),
    "pumps": lambda: Model(stan_code=PUMPS, data=pumps()),
    "meta-analysis": lambda: Model(stan_code=META_ANALYSIS, data=meta_analysis()),
    "probit panel": lambda: Model(stan_code=PANEL, data=panel()),
}
