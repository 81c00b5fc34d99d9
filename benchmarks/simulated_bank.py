"""The bundled and simulated programs of the other benchmarks as a bank for `gate_accuracy.py`.

    python benchmarks/simulated_bank.py DIR [--only NAME,...]

Item response, capture-recapture, occupancy, growth, decay, frailty, meta-analysis, mediation, and others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from _family_programs import OCCUPANCY_NON_CENTRED, PROGRAMS, occupancy
from _further_programs import FURTHER
from avistan.model import Model

MEDIATION = """
// Mediation within persons: paths a (x to m), b (m to y) and c (x to y) differ between persons.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> person;
  vector[N] x;
  vector[N] m;
  vector[N] y;
}
parameters {
  array[J] vector[3] u;
  vector[3] mu;
  vector<lower=0>[3] tau;
  cholesky_factor_corr[3] L;
  real<lower=0> sigma_m;
  real<lower=0> sigma_y;
}
model {
  mu ~ normal(0, 1);
  tau ~ normal(0, 1);
  L ~ lkj_corr_cholesky(2);
  sigma_m ~ normal(0, 1);
  sigma_y ~ normal(0, 1);
  u ~ multi_normal_cholesky(mu, diag_pre_multiply(tau, L));
  for (n in 1 : N) {
    m[n] ~ normal(u[person[n], 1] * x[n], sigma_m);
    y[n] ~ normal(u[person[n], 2] * m[n] + u[person[n], 3] * x[n], sigma_y);
  }
}
"""


def mediation() -> dict[str, Any]:
    """100 persons of 12 occasions."""
    rng = np.random.default_rng(13)
    person = np.repeat(np.arange(100), 12)
    spread = np.array([[0.16, 0.08, 0.0], [0.08, 0.12, 0.0], [0.0, 0.0, 0.06]])
    a, b, c = rng.multivariate_normal([0.5, 0.4, 0.2], spread, 100).T
    x = rng.normal(size=person.size)
    m = a[person] * x + rng.normal(0, 0.8, person.size)
    y = b[person] * m + c[person] * x + rng.normal(0, 0.9, person.size)
    return {"N": person.size, "J": 100, "person": person + 1, "x": x, "m": m, "y": y}


def bank() -> dict[str, Callable[[], Model]]:
    """Models by the names of their folders."""
    further = {
        "mediation": lambda: Model(stan_code=MEDIATION, data=mediation()),
        "occupancy, non-centred": lambda: Model(stan_code=OCCUPANCY_NON_CENTRED, data=occupancy()),
    }
    return {
        name.replace(",", "").replace(" ", "-"): make
        for name, make in {**FURTHER, **PROGRAMS, **further}.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bank", type=Path)
    parser.add_argument("--only", help="names, separated by commas")
    arguments = parser.parse_args()
    models = bank()
    for name in arguments.only.split(",") if arguments.only else models:
        model = models[name]()
        folder = arguments.bank / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.stan").write_text(model.program.source)
        (folder / f"{name}.json").write_text(model.bound.data.to_json())
        print(name, flush=True)


if __name__ == "__main__":
    main()
