"""Programs whose units are coupled along an axis: what a band of dependence buys, and how far windows reach.

    python benchmarks/coupled.py [--series 500] [--draws 2000]

First table: each program (random walk, counts on a random walk, AR(1) stochastic volatility, simulated with fixed
seeds) fitted by families of growing structure, against NUTS by stanli's sampler; `state_space` against its closed
form. Second: on `state_space` the ELBO that amortized functions lose to F-VI when they read the signatures of
neighbours (`avi:neighbours(k)`) or their data (`avi:window(y, -k, ..., k)`), beside the exact loss of the best linear
function of the data in that window; and what banded factors by such functions lose to the evidence. Third: on short
series the banded family against a full covariance of all parameters.
"""

from __future__ import annotations

import argparse
import runpy
import time
from typing import Any

import numpy as np
import numpy.typing as npt

import avistan as avi
from avistan.cli.examples import models_root
from avistan.comparison.references import nuts

FloatArray = npt.NDArray[np.float64]

PROGRAMS = {
    "random walk": """
data { int T; vector[T] y; }
parameters { real<lower=0> tau; real<lower=0> sigma; vector[T] z; }
model {
  tau ~ normal(0, 1);
  sigma ~ normal(0, 1);
  z[1] ~ normal(0, 5);
  for (t in 2:T) z[t] ~ normal(z[t - 1], tau);
  y ~ normal(z, sigma);
}
""",
    "counts on a walk": """
data { int T; array[T] int y; }
parameters { real<lower=0> tau; vector[T] z; }
model {
  tau ~ normal(0, 1);
  z[1] ~ normal(0, 2);
  for (t in 2:T) z[t] ~ normal(z[t - 1], tau);
  y ~ poisson_log(z);
}
""",
    "stochastic volatility": """
data { int T; vector[T] y; }
parameters { real mu; real<lower=0, upper=1> phi; real<lower=0> sigma; vector[T] h; }
model {
  mu ~ normal(-1, 1);
  phi ~ beta(20, 1.5);
  sigma ~ normal(0, 0.5);
  h[1] ~ normal(mu, sigma / sqrt(1 - phi^2));
  for (t in 2:T) h[t] ~ normal(mu + phi * (h[t - 1] - mu), sigma);
  y ~ normal(0, exp(h / 2));
}
""",
}
FAMILIES = ("fvi", "fvi:full-rank", "fvi:banded", "fvi:banded:full-rank:conditional", "auto")
SHORT = 30


def simulate(program: str, T: int, seed: int = 1) -> dict[str, Any]:
    """Stan data of T times."""
    rng = np.random.default_rng(seed)
    if program == "stochastic volatility":
        h = np.empty(T)
        h[0] = -1 + 0.25 / np.sqrt(1 - 0.95**2) * rng.normal()
        for t in range(1, T):
            h[t] = -1 + 0.95 * (h[t - 1] + 1) + 0.25 * rng.normal()
        return {"T": T, "y": np.exp(h / 2) * rng.normal(size=T)}
    z = 1 + np.cumsum(0.3 * rng.normal(size=T))
    y = rng.poisson(np.exp(np.clip(z, -5, 5))) if program.startswith("counts") else rng.normal(z, 0.7)
    return {"T": T, "y": y}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=500, help="time points of the simulated programs")
    parser.add_argument("--draws", type=int, default=2000, help="of each of NUTS's 4 chains, after as many")
    given = parser.parse_args()
    structured(given.series, given.draws)
    windows()
    short_series()


def structured(T: int, draws: int) -> None:
    print(
        f"Families, T = {T}: sds as shares of the reference's; seconds of the whole fit, compilation included"
    )
    head = f"{'program':<22} {'family':<53} {'ELBO':>9} {'units: sd':>9} {'range':>11} {'error':>6}"
    print(f"{head} {'globals: sd':>16} {'seconds':>8}")
    for program, code in PROGRAMS.items():
        model = avi.Model(stan_code=code, data=simulate(program, T))
        started = time.perf_counter()
        reference = nuts(model.bound, seed=1, warmup=draws, draws=draws)
        seconds = time.perf_counter() - started
        compare(program, model, reference.mean, reference.sd, model.bound.dim - T)
        print(f"{program:<22} {'NUTS':<53} {'':>9} {'':>9} {'':>11} {'':>6} {'':>16} {seconds:8.1f}")
    model, answers = state_space()
    mean, sd = answers["smoothed"](model.data)
    compare("state_space", model, mean, sd, 1)
    print(f"{'state_space':<22} {'log evidence':<53} {answers['log_evidence'](model.data):9.2f}")


def compare(program: str, model: avi.Model, mean: FloatArray, sd: FloatArray, num_globals: int) -> None:
    for name in FAMILIES:
        if name == "fvi:full-rank" and model.bound.dim > 200:
            continue
        started = time.perf_counter()
        fit = model.fit(method=name, seed=1)
        seconds = time.perf_counter() - started
        own_mean, own_sd = fit.marginals()
        ratio, error = own_sd / sd, np.abs(own_mean - mean) / sd
        units = ratio[num_globals:]
        called = fit.method.name + (" (auto)" if name == "auto" else "")
        of_globals = " ".join(f"{value:.2f}" for value in ratio[:num_globals])
        print(
            f"{program:<22} {called:<53} {fit.elbo:9.2f} {units.mean():9.3f} {units.min():5.2f}-{units.max():.2f} "
            f"{error[num_globals:].mean():6.3f} {of_globals:>16} {seconds:8.1f}",
            flush=True,
        )


def state_space() -> tuple[avi.Model, dict[str, Any]]:
    folder = models_root() / "state_space"
    return avi.Model(folder / "state_space.stan", data=folder / "data.json"), runpy.run_path(
        str(folder / "kalman.py")
    )


def windows() -> None:
    model, answers = state_space()
    best = answers["mean_field_optimum"](model.data).elbo
    print("\nWindows on state_space: nats below the best factorized Gaussian")
    print(
        f"{'reach':>5} {'exact, linear':>14} {'neighbours, linear':>19} {'neighbours, mlp':>16} {'data, mlp':>10}"
    )
    for reach in range(5):
        exact = best - answers["window_optimum"](model.data, reach).elbo
        near = f":neighbours({reach})" if reach else ""
        offsets = ", ".join(str(offset) for offset in range(-reach, reach + 1))
        names = (f"avi:polynomial(1){near}", f"avi:mlp(32){near}", f"avi:mlp(32):window(y, {offsets})")
        short = [best - model.fit(method=name, seed=1).elbo for name in names]
        print(f"{reach:>5} {exact:14.2f} {short[0]:19.2f} {short[1]:16.2f} {short[2]:10.2f}", flush=True)
    print(
        "No window closes the gap: as in the paper's hidden Markov model, a unit's factor hangs on the whole series."
    )
    print("\nBanded factors by a function of the same windows: nats below log evidence")
    for reach in range(4):
        name = "avi:mlp(32)" + (f":neighbours({reach})" if reach else "") + ":banded:conditional"
        fit = model.fit(method=name, seed=1)
        print(f"{reach:>5} {name:<53} {answers['log_evidence'](model.data) - fit.elbo:8.2f}", flush=True)


def short_series() -> None:
    print(
        f"\nT = {SHORT}: nats per 100 time points above a full covariance of all parameters (fvi:full-rank)"
    )
    for program, code in PROGRAMS.items():
        model = avi.Model(stan_code=code, data=simulate(program, SHORT))
        full = model.fit(method="fvi:full-rank", seed=1)
        for name in ("fvi:banded:full-rank:conditional", "auto"):
            fit = model.fit(method=name, seed=1)
            gain = 100 / SHORT * (fit.elbo - full.elbo)
            print(f"{program:<22} {fit.method.name:<53} {gain:8.2f}", flush=True)


if __name__ == "__main__":
    main()
