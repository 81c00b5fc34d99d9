"""How far new units lie from the units that were fitted, as an inference function sees them.

A function is only as good as the inputs it was trained on. The distance of a unit to the nearest fitted unit is held
against the distances that fitted units have to their nearest neighbours: where it is several times as long, the
function answers by extrapolation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from avistan.fitting.fitted import Fitted
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray
from avistan.start.unit_inputs import SignatureInput, UnitInput
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.units.signature import SignatureTransform, unit_scores

FAR = 2.0  # typical distances between fitted units: beyond this a unit counts as outside
_MOST_UNITS = 5000  # of the fitted ones, chosen at random, that distances are measured to
_TYPICAL = 0.99  # quantile of the fitted units' distances to their nearest neighbours
_DIGITS = 6  # of features, below which fitted units are alike and count once
_FLOOR = 0.5  # sds of an input: closer than this, inputs are alike
_ROUNDING = 1e-6  # relative change of a score that never varied among the fitted units


@dataclass(frozen=True, slots=True, eq=False)
class FittedUnits:
    """The fitted units, from which distances are measured.

    Attributes:
        tree: of their features (M, F), each with sd about 1.
        typical: distance between neighbours among them.
    """

    tree: cKDTree
    typical: float

    def distance(self, features: FloatArray) -> FloatArray:
        """Distances (N,) of units (N, F) to the nearest fitted one, in typical distances between neighbours."""
        nearest, _ = self.tree.query(features)
        return np.asarray(nearest / self.typical, dtype=np.float64)


def fitted_units(features: FloatArray, seed: int) -> FittedUnits:
    """Fitted units by their features (N, F); those with the same data count once, as with a few patterns of answers.

    Args:
        seed: of the choice among very many units.

    Example:
        >>> import numpy as np
        >>> fitted = fitted_units(np.arange(4.0)[:, None], seed=1)
        >>> fitted.distance(np.array([[1.0], [5.0]])).tolist()
        [0.0, 2.0]
    """
    if len(features) > _MOST_UNITS:
        chosen = generator(seed, Stream.UNIT_DISTANCE).choice(len(features), _MOST_UNITS, replace=False)
        features = features[np.sort(chosen)]
    distinct = np.unique(features.round(_DIGITS), axis=0)
    tree = cKDTree(distinct)
    nearest = tree.query(distinct, k=2)[0][:, 1] if len(distinct) > 1 else np.zeros(1)
    return FittedUnits(tree, max(_FLOOR, float(np.quantile(nearest, _TYPICAL))))


def isolation(fit: Fitted) -> FloatArray | None:
    """How far the inputs of each unit (N,) are from those of its nearest other unit, in distances of which 99 of 100
    fitted units have a neighbour within one; 0 where another unit has the same data. None where no inputs are read.
    """
    if fit.unit_input is None or fit.level is None or not fit.chains[0].inputs.shape[1]:
        return None
    index, globals_index = fit.level.index, fit.level.globals_index(fit.model.dim)
    _, features = unit_features(fit.unit_input, fit.model, index, globals_index)
    fitted = fitted_units(features, fit.seed)
    _, inverse, counts = np.unique(features.round(_DIGITS), axis=0, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return np.zeros(len(features))
    nearest, _ = fitted.tree.query(features, k=2)
    itself = nearest[:, 0] < 10.0**-_DIGITS * features.shape[1]
    other = np.where(itself, nearest[:, 1], nearest[:, 0]) / fitted.typical
    return np.asarray(np.where(counts[inverse.ravel()] > 1, 0.0, other))


def unit_features(
    unit_input: UnitInput, model: BoundModel, index: IndexArray, globals_index: IndexArray
) -> tuple[FloatArray, FloatArray]:
    """Inputs (N, R) of the units of a bound model, and the features (N, F) that distances are measured in.

    Features are the inputs and, for signatures, how much of a unit's scores the inputs leave out: the inference
    function doesn't see that part, and among the fitted units it was small or did not vary.
    """
    if not isinstance(unit_input, SignatureInput):
        inputs = unit_input(model, index, globals_index)
        return inputs, inputs
    scores = unit_scores(model, index, globals_index, unit_input.references)
    inputs = unit_input.of_scores(scores)
    return inputs, np.column_stack([inputs, _left_out(unit_input.transform, scores)])


def _left_out(transform: SignatureTransform, scores: FloatArray) -> FloatArray:
    """What the kept components miss of scores (N, F), in robust sds of a score: (N, 2).

    The second column is for scores that never varied among the fitted units.
    """
    bounded = replace(transform, components=np.eye(scores.shape[1]))(scores)
    length = np.linalg.norm(transform.components, axis=0)
    basis = transform.components / np.where(length > 0, length, 1.0)
    missed = np.linalg.norm(bounded - bounded @ basis @ basis.T, axis=1)
    constant = transform.scale == 0
    if not constant.any():
        return np.column_stack([missed, np.zeros(len(scores))])
    usual = np.median(transform.scale[~constant]) if not constant.all() else 1.0
    center = transform.center[constant]
    change = np.abs(scores[:, constant] - center)
    change[change <= _ROUNDING * (np.abs(center) + usual)] = 0.0
    return np.column_stack([missed, np.linalg.norm(change / usual, axis=1)])
