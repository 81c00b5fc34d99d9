"""Training of a table: the family's parameters in flat arrays, moved in place by the compiled handler or by numpy.

A table has a parameter for every unit, so nothing of a step is left to XLA: no compilation, no dispatch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt

from . import native
from .arrays import on_device
from .errors import FitError
from .families import Family
from .inference_functions import LocalNu
from .log_density import Backend, open_record
from .optimizer import FIRST_DECAY, SECOND_DECAY, adam_scales
from .path_gradient import Form, Parts, StepFrame, frame_of, numpy_elbo_gradient

FloatArray = npt.NDArray[np.float64]
MEAN_STRIDE = 10  # steps between two iterates that count for a mean


@dataclass(frozen=True, slots=True, eq=False)
class TableState:
    """Parameters (P,) in the order of `Parts`, Adam's moments (P,), and the number of steps done (1,)."""

    parameters: FloatArray
    first: npt.NDArray[np.float32]
    second_root: npt.NDArray[np.float32]
    steps: npt.NDArray[np.int64]


_STATE = tuple(TableState.__dataclass_fields__)


class TableSteps:
    """A family with a table as flat arrays.

    Args:
        key: of the random numbers.
    """

    def __init__(self, family: Family, form: Form, slot: int, draws: int, key: int) -> None:
        self._family, self._form, self._slot, self._draws, self._key = family, form, slot, draws, key
        self._frame = StepFrame(*(np.array(part, dtype=np.float64) for part in frame_of(family)))
        factor, nu = family.globals.resolved(), family.inference.nu  # type: ignore[attr-defined]
        directions = np.zeros((0, form.num_globals)) if family.directions is None else family.directions
        parts = Parts(factor.loc, factor.log_sd, factor.below, np.concatenate(nu), directions)
        self._shapes = [part.shape for part in parts]
        flat = np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])
        moments = np.zeros((2, len(flat)), dtype=np.float32)
        self.state = TableState(flat, moments[0], moments[1], np.zeros(1, dtype=np.int64))

    def run(self, rates: FloatArray, how: Backend) -> tuple[FloatArray, npt.NDArray[np.int32], FloatArray]:
        """One step for each rate. Returns ELBO estimates (nats), rejected draws, and the mean parameters (P,)."""
        elbo, rejected = np.empty(len(rates)), np.empty(len(rates), dtype=np.int32)
        total = np.zeros_like(self.state.parameters)
        stride = min(MEAN_STRIDE, len(rates))
        if how == "native":
            self._run_native(np.ascontiguousarray(rates), stride, elbo, rejected, total)
        else:
            self._run_numpy(rates, stride, elbo, rejected, total)
        return elbo, rejected, total / (len(rates) // stride)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state by name, as copies."""
        return {name: getattr(self.state, name).copy() for name in _STATE}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from a state that `arrays` gave."""
        for name in _STATE:
            getattr(self.state, name)[:] = arrays[name]

    def compile(self, steps: int) -> None:
        """Nothing is compiled."""

    def family(self, parameters: Any = None) -> Family:
        """The family at these parameters; by default at the present ones."""
        flat = self.state.parameters if parameters is None else parameters
        loc, log_sd, below, locals_, directions = self._split(flat)
        rows = np.cumsum(self._form.rows)
        nu = self._family.inference.nu  # type: ignore[attr-defined]
        parts = [on_device(locals_[start:stop]) for start, stop in zip((0, *rows[:3]), rows, strict=True)]
        moved: Family = eqx.tree_at(
            lambda f: (f.globals.loc, f.globals.log_sd, f.globals.below, f.inference.nu),
            self._family,
            (
                *map(on_device, (loc, log_sd, below)),
                LocalNu(parts[0], parts[1], parts[2], parts[3], nu.growth, nu.warp),
            ),
        )
        if self._form.mapped:
            moved = eqx.tree_at(lambda f: f.directions, moved, on_device(directions))
        return moved

    def _split(self, flat: FloatArray) -> list[FloatArray]:
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _run_native(
        self,
        rates: FloatArray,
        stride: int,
        elbo: FloatArray,
        rejected: npt.NDArray[np.int32],
        total: FloatArray,
    ) -> None:
        form, state = self._form, self.state
        loc, log_sd, below, locals_, directions = (part.ctypes.data for part in self._split(state.parameters))
        frame = dict(zip(StepFrame._fields, (part.ctypes.data for part in self._frame), strict=True))
        run = native.TableRun(
            globals=form.num_globals,
            block=form.block,
            columns=form.columns,
            directions=form.directions,
            full_rank=form.full_rank,
            full=form.full,
            mapped=form.mapped,
            **frame,
            own=self._frame.local_scale.shape[1] != 1,
            loc=loc,
            log_sd=log_sd,
            below=below,
            locals=locals_,
            map=directions,
            rate=rates.ctypes.data,
            first=state.first.ctypes.data,
            second_root=state.second_root.ctypes.data,
            steps_done=state.steps.ctypes.data,
            slot=self._slot,
            key=self._key,
            draws=self._draws,
            steps=len(rates),
            stride=stride,
            sum=total.ctypes.data,
            elbo=elbo.ctypes.data,
            rejected=rejected.ctypes.data,
        )
        if native.train_table(run):
            open_record(self._slot)  # says what is wrong where the slot is closed
            raise FitError("the steps of a table do not fit the model that they are for.")

    def _run_numpy(
        self,
        rates: FloatArray,
        stride: int,
        elbo: FloatArray,
        rejected: npt.NDArray[np.int32],
        total: FloatArray,
    ) -> None:
        state = self.state
        slots, weights = np.array([self._slot]), np.ones(1)
        for i, rate in enumerate(rates):
            parts = Parts(*self._split(state.parameters))
            elbo[i], rejected[i], found = numpy_elbo_gradient(
                self._form, self._draws, slots, weights, (self._key, int(state.steps[0])), self._frame, parts
            )
            state.steps[0] += 1
            gradient = np.concatenate([np.asarray(part).ravel() for part in found])
            self._adam(gradient.astype(np.float32), rate if rejected[i] < self._draws else 0.0)
            if (i + 1) % stride == 0:
                total += state.parameters

    def _adam(self, gradient: npt.NDArray[np.float32], rate: float) -> None:
        """One step along the gradient; the guard and the moments of `optimizer.guarded_adam`."""
        state = self.state
        scales = adam_scales(np.float64(state.steps[0]))
        bound = np.where(state.second_root > 0, scales.bound * state.second_root, np.inf)
        g = np.clip(np.where(np.isfinite(gradient), gradient, 0.0), -bound, bound)
        state.first[:] = FIRST_DECAY * state.first + (1 - FIRST_DECAY) * g
        state.second_root[:] = np.sqrt(SECOND_DECAY * state.second_root**2 + (1 - SECOND_DECAY) * g**2)
        direction = state.first * scales.first / (state.second_root * scales.root + 1e-8)
        state.parameters[:] += rate * np.clip(direction, -1.0, 1.0)
