"""Families of known Gaussians."""

import equinox as eqx
import numpy as np

from avistan.correction.approximation import Approximation, approximation
from avistan.family.family import mean_field_family
from avistan.family.globals import FullRankGlobals
from avistan.runtime.device import on_device, zeros
from avistan.runtime.precision import in_float64


@in_float64
def gaussian(mean: np.ndarray, factor: np.ndarray) -> Approximation:
    """q with this mean (G,) and lower factor (G, G), or sds (G,), of globals; there are no units."""
    if factor.ndim == 1:
        return approximation(mean_field_family(mean, factor), np.empty((0, 0)))
    family = mean_field_family(mean, np.ones(len(mean)))
    below = on_device(factor[np.tril_indices(len(mean), -1)])
    of_globals = FullRankGlobals(zeros(len(mean)), on_device(np.log(np.diag(factor))), below)
    return approximation(eqx.tree_at(lambda f: f.globals, family, of_globals), np.empty((0, 0)))
