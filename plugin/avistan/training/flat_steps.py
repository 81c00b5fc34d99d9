"""Steps on flat arrays that are moved in place: what the training of a table and of a network share.

Nothing of such a step is left to XLA: no compilation, no dispatch.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt

from avistan.density.log_density import Backend, open_record
from avistan.family.family import Family
from avistan.objective.step import Form, Parts, StepFrame, frame_of, host_parts
from avistan.runtime.device import on_device
from avistan.runtime.errors import FitError
from avistan.runtime.types import FloatArray

_MEAN_STRIDE = 10  # steps between two iterates that count for a mean


class FlatSteps(abc.ABC):
    """A family as flat arrays: its parameters (P,) in the order of `Parts`, and what `state` holds besides.

    Args:
        locals_: parameters of the units, in place of the inference function.
        key: of the random numbers.
        weights: of a network, single precision (Q,); their moments come last.
    """

    def __init__(
        self,
        family: Family,
        form: Form,
        locals_: FloatArray,
        draws: int,
        key: int,
        weights: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self._start, self._form, self._draws, self._key = family, form, draws, key
        self._frame = StepFrame(*(np.array(part, dtype=np.float64) for part in frame_of(family)))
        parts = host_parts(family, form, locals_)
        self._shapes = [part.shape for part in parts]
        flat = np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])
        moments = np.zeros((2, len(flat) + (0 if weights is None else len(weights))), dtype=np.float32)
        self._state: dict[str, npt.NDArray[Any]] = {
            "parameters": flat,
            "first": moments[0],
            "second_root": moments[1],
            "steps": np.zeros(1, dtype=np.int64),
        }
        if weights is not None:
            self._state["weights"] = weights.copy()

    def run(self, rates: FloatArray, how: Backend) -> tuple[FloatArray, npt.NDArray[np.int32], FloatArray]:
        """One step for each rate.

        Returns:
            ELBO estimates (nats), rejected draws, and the mean of parameters and weights (P + Q,).

        Raises:
            FitError: the steps do not fit the model in a slot, or there is no way to make them.
            BindingError: a slot is closed.
        """
        elbo, rejected = np.empty(len(rates)), np.empty(len(rates), dtype=np.int32)
        total = np.zeros(len(self._state["first"]))
        stride = min(_MEAN_STRIDE, len(rates))
        self._run(np.ascontiguousarray(rates), stride, how, elbo, rejected, total)
        return elbo, rejected, total / (len(rates) // stride)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state by name, as copies."""
        return {name: values.copy() for name, values in self._state.items()}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from a state that `arrays` gave."""
        for name, values in self._state.items():
            values[:] = arrays[name]

    def compile(self, steps: int) -> None:
        """Nothing is compiled, whatever the number of steps."""
        del steps

    @abc.abstractmethod
    def family(self, mean: Any = None) -> Family:
        """The family at a mean that `run` gave; by default as it stands."""

    @abc.abstractmethod
    def _run(
        self,
        rates: FloatArray,
        stride: int,
        how: Backend,
        elbo: FloatArray,
        rejected: npt.NDArray[np.int32],
        total: FloatArray,
    ) -> None:
        """Take the steps; every `stride` of them parameters and weights are added to `total`."""

    def _split(self, flat: FloatArray) -> list[FloatArray]:
        """Parameters as `Parts` has them, views of `flat`."""
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _with_globals(self, parts: list[FloatArray]) -> Family:
        """The family with these parameters of the globals, and of the directions."""
        loc, log_sd, below, _, directions, warp, curve = parts
        moved: Family = eqx.tree_at(
            lambda f: (f.globals.loc, f.globals.log_sd, f.globals.below),
            self._start,
            tuple(map(on_device, (loc, log_sd, below))),
        )
        if self._form.mapped:
            moved = eqx.tree_at(lambda f: f.directions, moved, on_device(directions))
        if self._form.global_flow:
            moved = eqx.tree_at(lambda f: f.globals.warp, moved, on_device(warp))
        if self._form.hidden:
            moved = eqx.tree_at(lambda f: f.curve, moved, on_device(curve))
        return moved

    def _arguments(
        self,
        rates: FloatArray,
        stride: int,
        elbo: FloatArray,
        rejected: npt.NDArray[np.int32],
        total: FloatArray,
    ) -> dict[str, Any]:
        """What `native.TableRun` and `native.NetworkRun` have in common."""
        return {
            **self._fixed_arguments,
            "rate": rates.ctypes.data,
            "steps": len(rates),
            "stride": stride,
            "sum": total.ctypes.data,
            "elbo": elbo.ctypes.data,
            "rejected": rejected.ctypes.data,
        }

    @functools.cached_property
    def _fixed_arguments(self) -> dict[str, Any]:
        """Those that no run changes: arrays are moved in place."""
        form, state = self._form, self._state
        pointers = (part.ctypes.data for part in self._split(state["parameters"]))
        return {
            "globals": form.num_globals,
            "block": form.block,
            "columns": form.columns,
            "directions": form.directions,
            "hidden": form.hidden,
            "full_rank": form.full_rank,
            "full": form.full,
            "mapped": form.mapped,
            "growth_range": form.growth_range,
            "shrink_range": form.shrink_range,
            "global_flow": form.global_flow,
            "flow": form.flow,
            **dict(zip(StepFrame._fields, (part.ctypes.data for part in self._frame), strict=True)),
            "own": self._frame.local_scale.shape[1] != 1,
            **dict(zip(Parts._fields, pointers, strict=True)),
            "first": state["first"].ctypes.data,
            "second_root": state["second_root"].ctypes.data,
            "steps_done": state["steps"].ctypes.data,
            "key": self._key,
            "draws": self._draws,
        }


def refuse(slots: npt.NDArray[np.int64]) -> None:
    """Say why the handler could not take steps on these slots.

    Raises:
        BindingError: one is closed.
        FitError: they are open.
    """
    for slot in slots.tolist():
        open_record(slot)
    raise FitError("the steps do not fit the model that they are for.")
