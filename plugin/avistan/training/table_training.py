"""Training of a table: a parameter for every unit, moved in place by the compiled handler or by numpy."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt

from avistan.density import native
from avistan.density.log_density import Backend
from avistan.family.family import Family
from avistan.family.functions import LocalNu
from avistan.objective.step import Form, Parts, numpy_elbo_gradient
from avistan.runtime.device import on_device
from avistan.runtime.types import FloatArray
from avistan.training.flat_steps import FlatSteps, refuse
from avistan.training.optimizer import FIRST_DECAY, SECOND_DECAY, adam_scales


class TableSteps(FlatSteps):
    """A family with a table as flat arrays.

    Args:
        key: of the random numbers.
    """

    def __init__(self, family: Family, form: Form, slot: int, draws: int, key: int) -> None:
        nu = family.inference.nu  # type: ignore[attr-defined]
        super().__init__(family, form, np.concatenate(nu), draws, key)
        self._slot = slot

    def family(self, mean: Any = None) -> Family:
        parts = self._split(self._state["parameters"] if mean is None else mean)
        own = np.split(parts[3], np.cumsum(self._form.rows)[:-1])
        moved: Family = eqx.tree_at(
            lambda f: f.inference.nu,
            self._with_globals(parts),
            LocalNu(*map(on_device, [*own, own[0][:0]])),
        )
        return moved

    def _run(
        self,
        rates: FloatArray,
        stride: int,
        how: Backend,
        elbo: FloatArray,
        rejected: npt.NDArray[np.int32],
        total: FloatArray,
    ) -> None:
        if how == "native":
            run = native.TableRun(**self._arguments(rates, stride, elbo, rejected, total), slot=self._slot)
            if native.train_table(run):
                refuse(np.array([self._slot]))
            return
        state = self._state
        slots, weights = np.array([self._slot]), np.ones(1)
        for i, rate in enumerate(rates):
            parts = Parts(*self._split(state["parameters"]))
            elbo[i], rejected[i], found = numpy_elbo_gradient(
                self._form,
                self._draws,
                slots,
                weights,
                (self._key, int(state["steps"][0])),
                self._frame,
                parts,
            )
            state["steps"][0] += 1
            gradient = np.concatenate([np.asarray(part).ravel() for part in found])
            self._adam(gradient.astype(np.float32), rate if rejected[i] < self._draws else 0.0)
            if (i + 1) % stride == 0:
                total += state["parameters"]

    def _adam(self, gradient: npt.NDArray[np.float32], rate: float) -> None:
        """One step along the gradient; the guard and the moments of `optimizer.guarded_adam`."""
        first, second_root = self._state["first"], self._state["second_root"]
        scales = adam_scales(np.float64(self._state["steps"][0]))
        bound = np.where(second_root > 0, scales.bound * second_root, np.inf)
        g = np.clip(np.where(np.isfinite(gradient), gradient, 0.0), -bound, bound)
        first[:] = FIRST_DECAY * first + (1 - FIRST_DECAY) * g
        second_root[:] = np.sqrt(SECOND_DECAY * second_root**2 + (1 - SECOND_DECAY) * g**2)
        direction = first * scales.first / (second_root * scales.root + 1e-8)
        self._state["parameters"][:] += rate * np.clip(direction, -1.0, 1.0)
