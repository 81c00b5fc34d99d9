"""Ranks of true values among the draws of refits, collected refit by refit, and each scalar's verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from avistan.calibration.ranks import Entry
from avistan.calibration.simulator import SimulatorError
from avistan.calibration.uniformity import p_value, shape
from avistan.fitting.fitted import Fitted
from avistan.posterior.draws import unconstrained_draws
from avistan.runtime.entries import entry_label, evenly
from avistan.runtime.errors import FitError
from avistan.runtime.types import FloatArray, IntArray

LOG_DENSITY = "lp__"


class Ranking:
    """Collects ranks of true values, refit by refit."""

    def __init__(
        self,
        truth: Mapping[str, npt.NDArray[Any]],
        most: int,
        num_draws: int,
        log_density: bool,
        rng: np.random.Generator,
    ) -> None:
        self.truth, self.num_draws, self.log_density, self.rng = truth, num_draws, log_density, rng
        self.places = {name: evenly(values[0].size, most) for name, values in truth.items()}
        self.rows: list[dict[str, tuple[FloatArray, IntArray]]] = []

    @property
    def count(self) -> int:
        return len(self.rows)

    def add(self, number: int, fit: Fitted) -> None:
        """Rank the truth of one simulation in the draws of its fit.

        Raises:
            SimulatorError: the simulator gives a parameter another shape than the program.
            FitError: a draw can't be constrained.
        """
        theta, _ = unconstrained_draws(fit, self.num_draws)
        values, _ = fit.model.constrain(theta, transformed_parameters=False, generated_quantities=False)
        row = {}
        for name, places in self.places.items():
            truth, posterior = self.truth[name][number], values[name]
            if posterior.shape[1:] != truth.shape:
                raise SimulatorError(
                    f"the simulator gives {name} the shape {truth.shape}, {fit.model.program.name} declares "
                    f"{posterior.shape[1:]}."
                )
            at, of = truth.reshape(-1)[places], posterior.reshape(self.num_draws, -1)[:, places]
            if not np.isfinite(of).all():
                raise FitError(f"posterior draws of {name} are not finite.")
            row[name] = (at, self._rank(at, of))
        if self.log_density:
            point = fit.model.unconstrain({name: self.truth[name][number] for name in self.places})
            at = fit.model.log_density_gradient(point[None])[0]
            row[LOG_DENSITY] = (at, self._rank(at, fit.model.log_density_gradient(theta)[0][:, None]))
        self.rows.append(row)

    def entries(self, probability: float) -> tuple[Entry, ...]:
        """Every scalar that the simulator varies, with its verdict.

        Raises:
            SimulatorError: it varies none.
        """
        found = []
        for variable in self.rows[0]:
            truth = np.stack([row[variable][0] for row in self.rows])
            ranks = np.stack([row[variable][1] for row in self.rows])
            whole, places = (), [0]
            if variable != LOG_DENSITY:
                whole, places = self.truth[variable].shape[1:], self.places[variable]
            found += [
                (entry_label(variable, whole, place), variable, truth[:, column], ranks[:, column])
                for column, place in enumerate(places)
                if np.ptp(truth[:, column]) > 0  # the diagonal of a correlation matrix does not vary
            ]
        if not found:
            raise SimulatorError(
                "every true value is the same in all simulations: the simulator draws nothing."
            )
        allowed = (1 - probability) / len(found)
        return tuple(self._judged(*given, allowed) for given in found)

    def _judged(self, name: str, variable: str, truth: FloatArray, ranks: IntArray, allowed: float) -> Entry:
        p = p_value(ranks, self.num_draws)
        return Entry(
            name=name,
            variable=variable,
            truth=truth,
            ranks=ranks,
            p_value=p,
            passed=p > allowed,
            shape=None if p > allowed else shape(ranks, self.num_draws),
        )

    def _rank(self, truth: FloatArray, draws: FloatArray) -> IntArray:
        """Ranks (P,) of true values (P,) in draws (L, P), ties broken at random."""
        below, ties = (draws < truth[None]).sum(axis=0), (draws == truth[None]).sum(axis=0)
        return np.asarray(below + self.rng.integers(0, ties + 1), dtype=np.int64)
