"""The floor of every step: bare gradients in a C loop, without Python or JAX in between."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from avistan.density.handles import DensityHandles

LOOP = """
#include <stdbool.h>
#include <time.h>
typedef int (*gradient)(const void*, bool, bool, const double*, double*, double*, char**);
typedef void (*free_error)(char*);
double seconds(gradient call, free_error release, const void* model, const double* theta, double* lp, double* grad,
               long repeats) {
  struct timespec start, end;
  char* message = 0;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long i = 0; i < repeats; ++i) {
    if (call(model, true, true, theta, lp, grad, &message) != 0) {
      if (message) release(message);
      return -1.0;
    }
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (end.tv_sec - start.tv_sec) + 1e-9 * (end.tv_nsec - start.tv_nsec);
}
"""


@functools.cache
def _loop() -> ctypes._NamedFuncPointer:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "loop.c"), Path(folder, "loop.so")
        source.write_text(LOOP)
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
        function = ctypes.CDLL(str(library)).seconds
    function.argtypes = [ctypes.c_size_t] * 6 + [ctypes.c_long]
    function.restype = ctypes.c_double
    return function


def gradient_microseconds(
    model: DensityHandles, theta: ArrayLike, *, window: float = 0.05, windows: int = 9
) -> float:
    """Microseconds that one gradient of `model` at `theta` (D,) takes: the fastest of several windows of calls.

    Args:
        window: seconds that one window lasts, about.
        windows: how many; the fastest is the least disturbed by other programs.

    Raises:
        ValueError: Stan rejects `theta`.
        subprocess.CalledProcessError: the C compiler (`cc`, or what CC names) fails.
    """
    point = np.ascontiguousarray(theta, dtype=np.float64)
    lp, grad = np.empty(1), np.empty_like(point)
    addresses = model.log_density_gradient_address, model.free_error_address, model.handles(1)[0]
    pointers = [array.ctypes.data for array in (point, lp, grad)]

    def seconds(repeats: int) -> float:
        taken = float(_loop()(*addresses, *pointers, repeats))
        if taken < 0:
            raise ValueError("Stan rejects this theta: choose another point for the measurement.")
        return taken

    repeats = 1
    while (first := seconds(repeats)) < window / 4:
        repeats *= 2
    repeats = max(1, round(repeats * window / first))
    return 1e6 * min(seconds(repeats) for _ in range(windows)) / repeats
