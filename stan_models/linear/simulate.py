"""Simulate data for linear.stan. Run as a script, it rewrites the data.json beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def simulate(
    N: int, seed: int = 1789, tau: float = 1.155, sigma: float = 2.43, theta: float = 1.0
) -> dict[str, Any]:
    """Stan data of N units: z_n ~ normal(theta, tau), x_n ~ normal(z_n, sigma)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(theta, tau, N)
    x = rng.normal(z, sigma)
    return {"N": N, "x": x.tolist(), "tau": tau, "sigma": sigma}


if __name__ == "__main__":
    Path(__file__).with_name("data.json").write_text(json.dumps(simulate(1000)) + "\n")
