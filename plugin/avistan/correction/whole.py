"""The density of all parameters together, asked as `marginal.Marginal` is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avistan.runtime.types import FloatArray
from stan_adapters.bound.bound_model import BoundModel


@dataclass(slots=True, eq=False)
class Whole:
    """log p(theta, x) of rows (S, D) of all unconstrained parameters, in Stan's order.

    Attributes:
        evaluations: gradients that were made so far.
    """

    model: BoundModel
    evaluations: int = 0
    evaluations_each: int = 1

    @property
    def size(self) -> int:
        """D."""
        return self.model.dim

    def log_p_gradient(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log p (S,) in nats up to the program's constant, and its gradient (S, D); nan where Stan rejects points."""
        self.evaluations += len(theta)
        log_p, gradient = self.model.log_density_gradient(theta)
        usable = np.isfinite(log_p)
        return np.where(usable, log_p, np.nan), np.where(usable[:, None], gradient, np.nan)
