"""Simulate data for bnn.stan. Run as a script, it rewrites the data.json beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def simulate(N: int, seed: int = 1954, H: int = 10, sigma: float = 0.2) -> dict[str, Any]:
    """Stan data of N points near a curve in the plane: z_n ~ normal(0, 1), x_n ~ normal(curve(z_n), sigma)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=N)
    x = rng.normal(curve(z), sigma)
    return {"N": N, "x": x.round(4).tolist(), "H": H, "sigma": sigma}


def curve(z: np.ndarray) -> np.ndarray:
    """The points (N, 2) of a wave in the plane at the places z (N,)."""
    return np.column_stack([1.5 * z, np.sin(2 * z)])


if __name__ == "__main__":
    Path(__file__).with_name("data.json").write_text(json.dumps(simulate(1000)) + "\n")
