"""Training of a network in the compiled handler: its passes too are native, so that nothing is compiled by XLA.

`training` takes its steps by XLA instead where this does not serve, and those steps are what the tests hold these
against.
"""

from __future__ import annotations

import itertools
from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpy.typing as npt

from avistan.density import native
from avistan.density.log_density import Backend, backend
from avistan.family.family import Family
from avistan.family.functions import MLP
from avistan.family.globals import GlobalGaussian
from avistan.objective.step import Form
from avistan.runtime.device import on_device
from avistan.runtime.errors import FitError
from avistan.runtime.types import FloatArray
from avistan.training.batches import Batches, Places
from avistan.training.flat_steps import FlatSteps, refuse


def serves(family: Family) -> bool:
    """Whether a family that `path_gradient` covers is trained here: a network, with globals of their own, on a CPU."""
    network = family.inference
    return (
        isinstance(network, MLP)
        and len(network.layers) > 1
        and isinstance(family.globals, GlobalGaussian)
        and backend() == "native"
        and jax.default_backend() == "cpu"
    )


class NetworkSteps(FlatSteps):
    """A family with a network as flat arrays: beside the parameters the network's weights, layer by layer.

    Args:
        batches: of units, and their inputs.
        key: of the random numbers.
    """

    def __init__(self, family: Family, form: Form, batches: Batches, draws: int, key: int) -> None:
        network = _network(family)
        weights = [np.asarray(leaf, dtype=np.float32).ravel() for leaf in _weights(network)]
        super().__init__(family, form, np.asarray(network.start), draws, key, weights=np.concatenate(weights))
        self._batches = batches
        self._outputs = np.array([bias.shape[0] for _, bias in network.layers], dtype=np.uintp)

    def family(self, mean: Any = None) -> Family:
        size = len(self._state["parameters"])
        flat, weights = self._state["parameters"], self._state["weights"]
        if mean is not None:
            flat, weights = mean[:size], mean[size:].astype(np.float32)
        parts, leaves = self._split(flat), _weights(_network(self._start))
        edges = [0, *itertools.accumulate(leaf.size for leaf in leaves)]
        own = [
            on_device(weights[start:stop].reshape(leaf.shape))
            for leaf, (start, stop) in zip(leaves, itertools.pairwise(edges), strict=True)
        ]
        moved: Family = eqx.tree_at(
            lambda f: [*_weights(f.inference), f.inference.start],
            self._with_globals(parts),
            [*own, on_device(parts[3])],
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
        if how != "native":
            raise FitError(
                "this training began with the compiled handler, which is switched off now: leave it on."
            )
        given = self._batches.places(int(self._state["steps"][0]), len(rates))
        run, kept = self._request(given, self._arguments(rates, stride, elbo, rejected, total))
        if native.train_network(run):
            refuse(np.concatenate([given.slots, given.base.slots]))
        del kept

    def seconds_of_passes(self, threads: int, repeats: int) -> float:
        """Seconds of so many forward and backward passes of the network for the units of a step, for benchmarks."""
        nothing = np.zeros(0), np.zeros(0, dtype=np.int32), np.zeros(0)
        given = self._batches.places(int(self._state["steps"][0]), 1)
        run, kept = self._request(given, self._arguments(np.zeros(0), 0, *nothing))
        seconds = native.network_loop(run, threads, repeats)
        del kept
        return seconds

    def _request(
        self, given: Places, arguments: dict[str, Any]
    ) -> tuple[native.NetworkRun, tuple[npt.NDArray[Any], ...]]:
        """What the handler reads, and arrays that must live as long."""
        slots = np.array(given.slots, dtype=np.int64)
        pointers = np.array([inputs.ctypes.data for inputs in given.inputs], dtype=np.uintp)
        others = np.array(given.base.slots, dtype=np.int64)
        weights = np.array(given.base.weights, dtype=np.float64)
        network = _network(self._start)
        run = native.NetworkRun(
            **arguments,
            inputs=network.layers[0][0].shape[0],
            layers=len(network.layers),
            outputs=self._outputs.ctypes.data,
            skip=network.linear is not None,
            weights=self._state["weights"].ctypes.data,
            slots=slots.ctypes.data,
            unit_inputs=pointers.ctypes.data,
            other_slots=others.ctypes.data,
            term_weights=weights.ctypes.data,
            terms=len(weights),
        )
        return run, (slots, pointers, others, weights)


def _network(family: Family) -> MLP:
    network = family.inference
    assert isinstance(network, MLP)
    return network


def _weights(network: MLP) -> list[Any]:
    """The single-precision leaves in the order of native/network.h."""
    leaves = [leaf for layer in network.layers for leaf in layer]
    return leaves if network.linear is None else [*leaves, network.linear]
