"""Programs and data on which `families` is measured: units with one or two latents, rows of their own, few globals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from avistan.cli.examples import models_root
from avistan.model import Model

Data = dict[str, Any]

DECAY = """
// Exponential decay of every subject: a start and a rate each; subjects have 0 to 8 rows.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> subject;
  vector<lower=0>[N] t;
  vector[N] y;
}
parameters {
  vector[J] start;
  vector[J] rate;
  real mu_start;
  real mu_rate;
  real<lower=0> tau_start;
  real<lower=0> tau_rate;
  real<lower=0> sigma;
}
model {
  mu_start ~ normal(0, 2);
  mu_rate ~ normal(0, 1);
  tau_start ~ normal(0, 1);
  tau_rate ~ normal(0, 1);
  sigma ~ normal(0, 1);
  start ~ normal(mu_start, tau_start);
  rate ~ normal(mu_rate, tau_rate);
  y ~ normal(exp(start[subject] - exp(rate[subject]) .* t), sigma);
}
"""

ITEM_RESPONSE_LONG = """
// 2PL in long format: answers that are missing have no row.
data {
  int<lower=0> N;
  int<lower=0> P;
  int<lower=0> I;
  array[N] int<lower=1, upper=P> jj;
  array[N] int<lower=1, upper=I> ii;
  array[N] int<lower=0, upper=1> y;
}
parameters {
  vector[P] theta;
  vector<lower=0>[I] a;
  vector[I] b;
}
model {
  theta ~ std_normal();
  a ~ lognormal(0, 0.5);
  b ~ normal(0, 2);
  y ~ bernoulli_logit(a[ii] .* (theta[jj] - b[ii]));
}
"""

OCCUPANCY = """
// Presence is summed out: a site without detections is absent or missed. Presence and detection of every site.
data {
  int<lower=0> S;
  int<lower=1> V;
  array[S, V] int<lower=0, upper=1> y;
}
parameters {
  real mu_psi;
  real mu_p;
  real<lower=0> tau_psi;
  real<lower=0> tau_p;
  vector[S] u;
  vector[S] v;
}
model {
  mu_psi ~ normal(0, 1);
  mu_p ~ normal(0, 1);
  tau_psi ~ normal(0, 1);
  tau_p ~ normal(0, 1);
  u ~ normal(mu_psi, tau_psi);
  v ~ normal(mu_p, tau_p);
  for (s in 1 : S) {
    real present = bernoulli_logit_lpmf(1 | u[s]) + bernoulli_logit_lpmf(y[s] | v[s]);
    if (sum(y[s]) > 0) {
      target += present;
    } else {
      target += log_sum_exp(present, bernoulli_logit_lpmf(0 | u[s]));
    }
  }
}
"""

TWENTY_GLOBALS = """
// Random slopes beside 16 coefficients that all groups share: 20 globals, two latents a group.
data {
  int<lower=0> N;
  int<lower=0> J;
  int<lower=0> K;
  array[N] int<lower=1, upper=J> g;
  vector[N] x;
  matrix[N, K] covariates;
  array[N] int<lower=0> y;
}
parameters {
  vector[J] alpha;
  vector[J] beta;
  vector[K] gamma;
  real mu_alpha;
  real mu_beta;
  real<lower=0> tau_alpha;
  real<lower=0> tau_beta;
}
model {
  mu_alpha ~ normal(0, 2);
  mu_beta ~ normal(0, 1);
  tau_alpha ~ normal(0, 1);
  tau_beta ~ normal(0, 1);
  gamma ~ normal(0, 1);
  alpha ~ normal(mu_alpha, tau_alpha);
  beta ~ normal(mu_beta, tau_beta);
  y ~ poisson_log(alpha[g] + beta[g] .* x + covariates * gamma);
}
"""


def decay() -> Data:
    """120 subjects of 0 to 8 rows at times in [0, 3]."""
    rng = np.random.default_rng(120)
    rows = rng.integers(0, 9, 120)
    subject = np.repeat(np.arange(120), rows)
    start, rate = rng.normal(1.0, 0.5, 120), rng.normal(-0.3, 0.5, 120)
    t = rng.uniform(0, 3, subject.size)
    y = rng.normal(np.exp(start[subject] - np.exp(rate[subject]) * t), 0.2)
    return {"N": subject.size, "J": 120, "subject": subject + 1, "t": t, "y": y}


def item_response_long() -> Data:
    """600 persons, 12 items, three of ten answers missing."""
    rng = np.random.default_rng(600)
    theta, a, b = rng.normal(size=600), rng.lognormal(0, 0.3, 12), rng.normal(size=12)
    person, item = np.nonzero(rng.uniform(size=(600, 12)) < 0.7)
    right = rng.uniform(size=person.size) < 1 / (1 + np.exp(-a[item] * (theta[person] - b[item])))
    return {
        "N": person.size,
        "P": 600,
        "I": 12,
        "jj": person + 1,
        "ii": item + 1,
        "y": right.astype(int),
    }


def occupancy() -> Data:
    """250 sites, 5 visits."""
    rng = np.random.default_rng(250)
    psi, p = (1 / (1 + np.exp(-rng.normal(centre, 1.0, (250, 1)))) for centre in (0.5, -0.3))
    present, seen = rng.uniform(size=(250, 1)) < psi, rng.uniform(size=(250, 5)) < p
    return {"S": 250, "V": 5, "y": (present & seen).astype(int)}


def twenty_globals() -> Data:
    """300 groups of 1 to 11 rows, 16 shared coefficients."""
    rng = np.random.default_rng(20)
    g = np.repeat(np.arange(300), rng.integers(1, 12, 300))
    x, covariates = rng.normal(size=g.size), rng.normal(size=(g.size, 16))
    alpha, beta = rng.normal(1.0, 0.6, 300), rng.normal(0.5, 0.4, 300)
    rate = np.exp(alpha[g] + beta[g] * x + covariates @ rng.normal(0, 0.15, 16))
    return {
        "N": g.size,
        "J": 300,
        "K": 16,
        "g": g + 1,
        "x": x,
        "covariates": covariates,
        "y": rng.poisson(rate),
    }


def _bundled(folder: str, name: str) -> Model:
    place: Path = models_root() / folder
    return Model(place / f"{name}.stan", data=place / "data.json")


PROGRAMS: Mapping[str, Callable[[], Model]] = {
    "random slopes": lambda: _bundled("random_slopes", "random_slopes"),
    "decay": lambda: Model(stan_code=DECAY, data=decay()),
    "2PL, missing": lambda: Model(stan_code=ITEM_RESPONSE_LONG, data=item_response_long()),
    "2PL, LSAT": lambda: _bundled("lsat_2pl", "lsat_2pl"),
    "occupancy": lambda: Model(stan_code=OCCUPANCY, data=occupancy()),
    "20 globals": lambda: Model(stan_code=TWENTY_GLOBALS, data=twenty_globals()),
    "schools, centred": lambda: _bundled("eight_schools", "eight_schools_centered"),
    "schools, non-centred": lambda: _bundled("eight_schools", "eight_schools"),
}

OCCUPANCY_NON_CENTRED = (
    OCCUPANCY.replace("vector[S] u;", "vector[S] u_raw;")
    .replace("vector[S] v;", "vector[S] v_raw;")
    .replace("u ~ normal(mu_psi, tau_psi)", "u_raw ~ std_normal()")
    .replace("v ~ normal(mu_p, tau_p)", "v_raw ~ std_normal()")
    .replace(
        "model {",
        """transformed parameters {
  vector[S] u = mu_psi + tau_psi * u_raw;
  vector[S] v = mu_p + tau_p * v_raw;
}
model {""",
    )
)

# Programs that NUTS samples better in another's coordinates: the same posterior, a map of parameters by their names.
SAMPLED_AS: Mapping[str, Callable[[], Model]] = {
    "occupancy": lambda: Model(stan_code=OCCUPANCY_NON_CENTRED, data=occupancy()),
    "schools, centred": PROGRAMS["schools, non-centred"],
}
