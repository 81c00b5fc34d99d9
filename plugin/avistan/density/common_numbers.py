"""JAX's random keys and normals in numpy: the same numbers, without compiling a program for every shape of them.

A normal is a function of its key and its number alone, so that any part of a large array can be made by itself.
"""

from __future__ import annotations

import math

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import PRNGKeyArray

from avistan.density import native
from avistan.runtime.device import on_device
from avistan.runtime.types import FloatArray

Words = tuple[int, int]

_KIND = "threefry2x32"  # of keys, JAX's usual one
_AT_ONCE = 1 << 14  # numbers that are worked on together, so that they stay in the processor's cache
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_MASK = 0xFFFFFFFF
# Polynomials of the inverse error function, the highest power first.
_CENTRE = (
    -3.6444120640178196996e-21,
    -1.685059138182016589e-19,
    1.2858480715256400167e-18,
    1.115787767802518096e-17,
    -1.333171662854620906e-16,
    2.0972767875968561637e-17,
    6.6376381343583238325e-15,
    -4.0545662729752068639e-14,
    -8.1519341976054721522e-14,
    2.6335093153082322977e-12,
    -1.2975133253453532498e-11,
    -5.4154120542946279317e-11,
    1.051212273321532285e-09,
    -4.1126339803469836976e-09,
    -2.9070369957882005086e-08,
    4.2347877827932403518e-07,
    -1.3654692000834678645e-06,
    -1.3882523362786468719e-05,
    0.0001867342080340571352,
    -0.00074070253416626697512,
    -0.0060336708714301490533,
    0.24015818242558961693,
    1.6536545626831027356,
)
_FLANKS = (
    2.2137376921775787049e-09,
    9.0756561938885390979e-08,
    -2.7517406297064545428e-07,
    1.8239629214389227755e-08,
    1.5027403968909827627e-06,
    -4.013867526981545969e-06,
    2.9234449089955446044e-06,
    1.2475304481671778723e-05,
    -4.7318229009055733981e-05,
    6.8284851459573175448e-05,
    2.4031110387097893999e-05,
    -0.0003550375203628474796,
    0.00095328937973738049703,
    -0.0016882755560235047313,
    0.0024914420961078508066,
    -0.0037512085075692412107,
    0.005370914553590063617,
    1.0052589676941592334,
    3.0838856104922207635,
)
_TAILS = (
    -2.7109920616438573243e-11,
    -2.5556418169965252055e-10,
    1.5076572693500548083e-09,
    -3.7894654401267369937e-09,
    7.6157012080783393804e-09,
    -1.4960026627149240478e-08,
    2.9147953450901080826e-08,
    -6.7711997758452339498e-08,
    2.2900482228026654717e-07,
    -9.9298272942317002539e-07,
    4.5260625972231537039e-06,
    -1.9681778105531670567e-05,
    7.5995277030017761139e-05,
    -0.00021503011930044477347,
    -0.00013871931833623122026,
    1.0103004648645343977,
    4.8499064014085844221,
)


def key_words(key: PRNGKeyArray) -> Words:
    """A key's two words."""
    high, low = np.asarray(jax.random.key_data(key)).ravel()[-2:].tolist()
    return int(high), int(low)


def key_as_number(key: PRNGKeyArray) -> int:
    """A key's two words as one."""
    high, low = key_words(key)
    return (high << 32) | low


def fold(words: Words, number: int) -> Words:
    """The words of `jax.random.fold_in(key, number)`."""
    first, second = _threefry(words, np.zeros(1, dtype=np.uint32), np.array([number & _MASK], np.uint32))
    return int(first[0]), int(second[0])


def make_key(seed: int) -> PRNGKeyArray:
    """`jax.random.key` of a seed from 0 to 2^64 - 1, which would compile, for JAX's usual kind of keys."""
    if jax.config.jax_default_prng_impl != _KIND or not 0 <= seed < 2**64:
        return jax.random.key(seed)
    return _as_key((seed >> 32, seed & _MASK))


def fold_in(key: PRNGKeyArray, number: int) -> PRNGKeyArray:
    """`jax.random.fold_in`, which would compile, for JAX's usual kind of keys; for others that itself."""
    if str(jax.random.key_impl(key)) != _KIND:
        return jax.random.fold_in(key, number)
    return _as_key(fold(key_words(key), number))


def _as_key(words: Words) -> PRNGKeyArray:
    return jax.random.wrap_key_data(on_device(np.array(words, dtype=np.uint32)), impl=_KIND)


def normals_at(words: Words, numbers: npt.NDArray[np.integer]) -> FloatArray:
    """Entries of `jax.random.normal(key, shape, float64)` by their numbers in the flattened array, in any shape.

    The compiled handler makes them several times faster, up to the rounding of its logarithm.
    """
    if native.library() is not None:
        return native.common_normals(words, numbers.astype(np.int64, copy=False))
    return normals_in_numpy(words, numbers)


def normals_in_numpy(words: Words, numbers: npt.NDArray[np.integer]) -> FloatArray:
    """As `normals_at`, without the handler."""
    out = np.empty(numbers.shape)
    flat, into = numbers.reshape(-1), out.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        some = flat[start : start + _AT_ONCE].astype(np.uint64)
        high, low = _threefry(words, (some >> np.uint64(32)).astype(np.uint32), some.astype(np.uint32))
        bits = (high.astype(np.uint64) << np.uint64(32)) | low
        bits = (bits >> np.uint64(12)) | np.uint64(0x3FF0000000000000)
        lowest = np.nextafter(-1.0, 0.0)
        u = np.maximum((bits.view(np.float64) - 1.0) * (1.0 - lowest) + lowest, lowest)
        into[start : start + _AT_ONCE] = math.sqrt(2.0) * inverse_erf(u)
    return out


def inverse_erf(x: FloatArray) -> FloatArray:
    """The inverse error function of x (N,) in (-1, 1).

    Source: Giles, "Approximating the erfinv function", GPU Computing Gems 2, 2012, as XLA has it.
    """
    w = -np.log1p(-x * x)
    found = _polynomial(_CENTRE, w - 3.125)
    (far,) = np.nonzero(w >= 6.25)
    if far.size:
        root = np.sqrt(w[far])
        found[far] = np.where(root < 4.0, _polynomial(_FLANKS, root - 3.25), _polynomial(_TAILS, root - 5.0))
    return found * x


def _polynomial(coefficients: tuple[float, ...], x: FloatArray) -> FloatArray:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += coefficient
    return value


def _threefry(
    key: Words, first: npt.NDArray[np.uint32], second: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Two words for each pair of counters, as copies.

    Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    keys = key[0], key[1], key[0] ^ key[1] ^ _PARITY
    x, y = first + np.uint32(keys[0]), second + np.uint32(keys[1])
    left = np.empty_like(y)
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x += y
            np.left_shift(y, np.uint32(turn), out=left)
            y >>= np.uint32(32 - turn)
            y |= left
            y ^= x
        x += np.uint32(keys[(block + 1) % 3])
        y += np.uint32((keys[(block + 2) % 3] + block + 1) & _MASK)
    return x, y
