"""Simulate data for state_space.stan. Run as a script, it rewrites the data.json beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def simulate(
    T: int, seed: int = 42, rho: float = 0.9, tau: float = 0.6, sigma: float = 1.0, mu: float = 2.0
) -> dict[str, Any]:
    """Stan data of T times: z_t ~ normal(rho z_{t-1}, tau) from its stationary start, y_t ~ normal(mu + z_t, sigma)."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, tau, T)
    z = np.empty(T)
    z[0] = steps[0] / np.sqrt(1 - rho**2)
    for t in range(1, T):
        z[t] = rho * z[t - 1] + steps[t]
    y = rng.normal(mu + z, sigma)
    return {"T": T, "y": y.round(4).tolist(), "rho": rho, "tau": tau, "sigma": sigma}


if __name__ == "__main__":
    Path(__file__).with_name("data.json").write_text(json.dumps(simulate(500)) + "\n")
