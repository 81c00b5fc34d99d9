"""A network is brought near the parameters that units are known to have, before training asks Stan for anything.

A quick fit gives every unit a rough normal. The divergence of a network's normals from these is a sum of squares, to
second order, and cheap: its descent takes a network's passes alone, where a step of training also takes Stan's
gradients, and noise. What training then has to learn is little.

Source: Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from avistan.runtime.threads import one_blas_thread

Array32 = npt.NDArray[Any]  # single precision
Layers = list[tuple[Array32, Array32]]

ENOUGH = 1.0  # nats of divergence in all, below which nothing is done
_UNITS = 1000  # that are looked at
_MOST = 1e18  # of a target or a weight: single precision holds their products with a square
_STEPS, _RATE, _WARM_UP = 400, 0.02, 50
_DECAYS = 0.9, 0.99  # of Adam's moments


@one_blas_thread
def distil(
    layers: Layers,
    linear: Array32 | None,
    inputs: Array32,
    targets: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    bounded: slice,
    limit: float,
) -> tuple[Layers, Array32 | None]:
    """Layers and linear map of an MLP with silu between layers, after a descent of the weighted squares of its errors.

    Full-batch Adam along a cosine, on an even selection of the units where these are many.

    Args:
        layers: weights (fan in, fan out) and biases of each.
        linear: of the inputs, (R, P), added to the outputs.
        inputs: (N, R).
        targets: outputs (N, P).
        weights: of the squares, (N, P), so that their sum is a divergence in nats.
        bounded: columns of the outputs that flatten at `limit` before they are compared.
    """
    some = np.unique(np.linspace(0, len(inputs) - 1, min(_UNITS, len(inputs))).astype(int))
    x, y, w = (
        inputs[some],
        *(np.clip(part[some], -_MOST, _MOST).astype(np.float32) for part in (targets, weights)),
    )
    scale = len(inputs) / len(some)
    parameters: list[Array32] = [part.copy() for layer in layers for part in layer]
    if linear is not None:
        parameters.append(linear.copy())
    first = [np.zeros_like(part) for part in parameters]
    second = [np.zeros_like(part) for part in parameters]
    best, least = parameters, np.inf
    for step in range(_STEPS + 1):
        divergence, gradient = _divergence(parameters, linear is not None, x, y, w, bounded, limit)
        if step in (0, _STEPS) and divergence < least:
            best, least = [part.copy() for part in parameters], divergence
        if step == _STEPS or (step == 0 and not scale * divergence > ENOUGH):
            break
        rate = _RATE * 0.5 * (1 + np.cos(np.pi * step / _STEPS)) * min(1.0, (step + 1) / _WARM_UP)
        rate *= np.sqrt(1 - _DECAYS[1] ** (step + 1)) / (1 - _DECAYS[0] ** (step + 1))
        for part, slope, m, v in zip(parameters, gradient, first, second, strict=True):
            m += (1 - _DECAYS[0]) * (slope - m)
            v += (1 - _DECAYS[1]) * (slope * slope - v)
            part -= np.float32(rate) * m / (np.sqrt(v) + np.float32(1e-8))
    end = len(best) - (linear is not None)
    pairs = list(zip(best[:end:2], best[1:end:2], strict=True))
    return pairs, None if linear is None else best[-1]


def _divergence(
    parameters: Sequence[Array32],
    skip: bool,
    x: Array32,
    y: Array32,
    w: Array32,
    bounded: slice,
    limit: float,
) -> tuple[float, list[Array32]]:
    """The weighted sum of squared errors and its gradient by the parameters."""
    end = len(parameters) - skip
    hidden, slopes = [x], []
    for weights, bias in zip(parameters[: end - 2 : 2], parameters[1 : end - 2 : 2], strict=True):
        raw = hidden[-1] @ weights + bias
        share = 0.5 * (1 + np.tanh(0.5 * raw))  # the logistic function, without overflow
        hidden.append(raw * share)
        slopes.append(share * (1 + raw * (1 - share)))
    out = hidden[-1] @ parameters[end - 2] + parameters[end - 1]
    if skip:
        out += x @ parameters[-1]
    flat = np.tanh(out[:, bounded] / np.float32(limit))
    out[:, bounded] = np.float32(limit) * flat
    error = out - y
    along = w * error
    divergence = float(np.vdot(along, error))
    along *= 2
    along[:, bounded] *= 1 - flat * flat
    found = [x.T @ along] if skip else []
    for number in reversed(range(len(hidden))):
        found = [hidden[number].T @ along, along.sum(axis=0), *found]
        if number:
            along = (along @ parameters[2 * number].T) * slopes[number - 1]
    return divergence, found
