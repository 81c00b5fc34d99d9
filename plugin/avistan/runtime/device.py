"""Host arrays as JAX arrays. What is set up once is computed by numpy: each JAX operation would compile a program."""

from __future__ import annotations

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array


def on_device(values: ArrayLike, dtype: DTypeLike | None = None) -> Array:
    """A JAX array of these values, copied. Unlike `jnp.asarray` it compiles nothing."""
    made: Array = jax.device_put(np.array(values, dtype=dtype))
    return made


def zeros(*shape: int, dtype: DTypeLike = np.float64) -> Array:
    """Zeros; unlike `jnp.zeros` it compiles nothing."""
    return on_device(np.zeros(shape, dtype=dtype))
