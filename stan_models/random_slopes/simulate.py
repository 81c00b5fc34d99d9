"""Simulate data for random_slopes.stan. Run as a script, it rewrites the data.json beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

TRUTH = {"mu_alpha": 1.0, "mu_beta": 0.5, "tau_alpha": 0.6, "tau_beta": 0.4}


def simulate(
    J: int,
    seed: int = 400,
    mu_alpha: float = TRUTH["mu_alpha"],
    mu_beta: float = TRUTH["mu_beta"],
    tau_alpha: float = TRUTH["tau_alpha"],
    tau_beta: float = TRUTH["tau_beta"],
) -> dict[str, Any]:
    """Stan data of J groups of 1 to 11 rows, in group order."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 12, J)
    g = np.repeat(np.arange(J), rows)
    alpha = rng.normal(mu_alpha, tau_alpha, J)
    beta = rng.normal(mu_beta, tau_beta, J)
    x = rng.normal(size=g.size).round(4)
    y = rng.poisson(np.exp(alpha[g] + beta[g] * x))
    return {"N": int(g.size), "J": J, "g": (g + 1).tolist(), "x": x.tolist(), "y": y.tolist()}


if __name__ == "__main__":
    Path(__file__).with_name("data.json").write_text(json.dumps(simulate(400)) + "\n")
