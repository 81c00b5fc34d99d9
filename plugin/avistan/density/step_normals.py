"""Standard normals by number: the n-th of a stream is a function of (key, step, stream, n) alone.

The compiled handler makes the same ones (native/normals.h), up to the rounding of logarithm and sine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_PAIRS = 16  # of a block of 32 normals: the first of each pair, then the second

_Words = npt.NDArray[np.uint64]


def normals(key: int, step: int, stream: int, count: int) -> npt.NDArray[np.float32]:
    """The first `count` normals of a stream.

    Source: Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, as a hash of counters;
    Box & Muller, Annals of Mathematical Statistics 1958.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        start = _mixed(_mixed(np.uint64(key) + _GAMMA * np.uint64(step)) + _GAMMA * np.uint64(stream + 1))
        blocks = -(-count // (2 * _PAIRS))
        words = _mixed(start + _GAMMA * np.arange(1, blocks * _PAIRS + 1, dtype=np.uint64))
    u = ((words >> np.uint64(33)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-31)
    turns = words.astype(np.uint32).view(np.int32).astype(np.float32) * np.float32(2.0**-32)
    radius = np.sqrt(np.float32(-2) * np.log(u))
    angle = np.float32(2 * np.pi) * turns
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(blocks, _PAIRS, 2).transpose(0, 2, 1).reshape(-1)[:count]


def _mixed(x: np.uint64 | _Words) -> _Words:
    x = (x ^ (x >> np.uint64(30))) * _FACTORS[0]
    x = (x ^ (x >> np.uint64(27))) * _FACTORS[1]
    return np.asarray(x ^ (x >> np.uint64(31)))
