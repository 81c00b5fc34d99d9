"""Moments of draws that approximations are compared by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from avistan.model import Model
from avistan.start.preparation import split
from stan_adapters.levels.levels import Level

FloatArray = npt.NDArray[np.float64]

STRONG = 0.3  # correlations that are counted


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Means and sds of the globals (G,) and latents (N d,), and correlations (G, N d) between them."""

    mean_globals: FloatArray
    mean_locals: FloatArray
    sd_globals: FloatArray
    sd_locals: FloatArray
    corr: FloatArray

    @classmethod
    def of(cls, theta: FloatArray, of_globals: FloatArray, of_locals: FloatArray) -> Moments:
        """Moments of draws (S, D)."""
        mean = theta.mean(axis=0)
        sd = theta.std(axis=0, ddof=1)
        standard = (theta - mean) / sd
        corr = standard[:, of_globals].T @ standard[:, of_locals] / (len(theta) - 1)
        return cls(
            mean_globals=mean[of_globals],
            mean_locals=mean[of_locals],
            sd_globals=sd[of_globals],
            sd_locals=sd[of_locals],
            corr=corr,
        )

    def corr_error(self, truth: Moments) -> float:
        """Mean |error| of the correlations that are strong in truth; nan where none is."""
        strong = np.abs(truth.corr) > STRONG
        return float(np.mean(np.abs(self.corr - truth.corr)[strong])) if strong.any() else float("nan")


def moments(model: Model, level: Level, theta: FloatArray) -> Moments:
    of_locals, of_globals = split(model.bound, level)
    return Moments.of(theta, of_globals, of_locals.ravel())
