"""Whether there is a posterior to infer: parameters, a finite density, and nothing that it leaves free.

Where the log density is linear along a direction, whatever the other parameters are, its exponential has no finite
integral. A parameter that no statement mentions is the plainest case: its score is 0 at every point, or constant where
a bound on one side adds its Jacobian.
"""

from __future__ import annotations

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import StructureError
from stan_adapters.levels.probes import probe_points

_FEW = 64  # parameters of which all directions are looked at, not the coordinates alone
_MANY = 100_000  # parameters whose gradients take long: two points serve
_NO_CURVATURE = 1e-10  # of the largest, along a direction
_FAR = (1e2, 1e5, 1e8)
_FARTHEST = (
    1e2,
    1e5,
    1e8,
    1e30,
    1e100,
)  # of parameters as they are declared: data of 1e60 leave no digits nearby
_FAR_ON_A_SLOPE = (10.0, 100.0, 300.0)  # of those behind an exponential
_PLAIN = ("real", "vector", "row_vector", "matrix")
_DENSITY_ROUNDING, _SCORE_ROUNDING = 1e-7, 1e-9
_NAMED = 4


def check_posterior_exists(model: BoundModel, *, seed: int = 1) -> int:
    """That a bound program has a posterior, as far as a few gradients tell.

    Returns: how many gradients that took.

    Raises:
        StructureError: no parameters, no finite density, or parameters that nothing holds, by name.
    """
    if not model.dim:
        raise StructureError(
            f"{model.program.name} declares no parameters with free values: there is nothing to infer. Is it a "
            "simulator (avistan sbc MODEL.stan SIMULATOR.stan), or are the data of another size?"
        )
    looker = _Looker(model, np.random.default_rng([seed, 61]))
    free = looker.free_coordinates()
    if free.size:
        raise _improper(model, f"constrains {_names(model, free)}", "along it")
    for direction in looker.free_directions():
        together = np.flatnonzero(np.abs(direction) > 1e-6 * np.abs(direction).max())
        raise _improper(model, f"tells {_names(model, together)} apart", "along a line through them")
    return looker.evaluations


class _Looker:
    """A model's scores at some points, and a count of the gradients that were taken."""

    def __init__(self, model: BoundModel, rng: np.random.Generator) -> None:
        count = model.dim + 3 if model.dim <= _FEW else 2 if model.dim > _MANY else 3
        points = probe_points(model, rng, count, layout=model.layout)
        self.model, self.rng, self.evaluations = model, rng, points.evaluations
        self.point, self.scores = points.theta[0], points.gradient
        self.turns = points.gradient - points.gradient[0]  # (P, D): 0 where a score is the same at all points
        self.plain = np.zeros(model.dim, dtype=bool)
        for declaration, container in zip(model.program.parameters, model.layout.containers, strict=True):
            kind = declaration.type
            if kind.base in _PLAIN and kind.lower is None and kind.upper is None:
                self.plain[container.offset : container.offset + container.size] = True

    def free_coordinates(self) -> IndexArray:
        """Coordinates in which the log density is linear, all others held or not."""
        if len(self.scores) < 2:
            return np.zeros(0, dtype=np.int64)
        same = (self.turns == 0).all(axis=0)
        found = [
            self._free_of(np.flatnonzero(same & self.plain), _FARTHEST),
            self._free_of(np.flatnonzero(same & ~self.plain), _FAR_ON_A_SLOPE),
        ]
        return np.sort(np.concatenate(found)).astype(np.int64)

    def _free_of(self, same: IndexArray, moves: tuple[float, ...]) -> IndexArray:
        """Those of some coordinates, all at once or some of them one by one."""
        signs = np.zeros(self.model.dim)
        signs[same] = self.rng.choice([-1.0, 1.0], same.size)
        if not same.size or self._is_linear(signs, moves):
            return same
        alone = [at for at in same[: 4 * _NAMED] if self._is_linear(np.eye(1, self.model.dim, at)[0], moves)]
        return np.array(alone, dtype=np.int64)

    def free_directions(self) -> list[FloatArray]:
        """One direction in which it is linear, if any, where all directions can be looked at."""
        if self.model.dim > _FEW or len(self.scores) < self.model.dim + 2:
            return []
        sizes = np.abs(self.turns).max(axis=0)
        moved = np.flatnonzero(sizes)
        if moved.size < 2:
            return []
        _, values, rows = np.linalg.svd(self.turns[:, moved] / sizes[moved])
        if values[-1] > _NO_CURVATURE * values[0]:
            return []
        direction = np.zeros(self.model.dim)
        direction[moved] = rows[-1] / sizes[moved]
        direction /= np.abs(direction).max()
        return [direction] if self._is_linear(direction, _FAR) else []

    def _is_linear(self, direction: FloatArray, moves: tuple[float, ...]) -> bool:
        """Whether density and score say so far away too, to both sides."""
        at, score = self.model.log_density_gradient(self.point)
        slope = float(score @ direction)
        scale = float(np.abs(score[direction != 0]).max())
        self.evaluations += 1
        for move in (sign * size for size in moves for sign in (-1, 1)):
            there, moved = self.model.log_density_gradient(self.point + move * direction)
            self.evaluations += 1
            if not np.isfinite(there):
                return False
            if abs(there - at - slope * move) > _DENSITY_ROUNDING * (1 + abs(at) + abs(slope * move)):
                return False
            if abs(float(moved @ direction) - slope) > _SCORE_ROUNDING * (scale + np.abs(moved).max()):
                return False
        return True


def _names(model: BoundModel, coordinates: IndexArray) -> str:
    """Parameters, by their own name where all their entries are meant."""
    told: list[str] = []
    for container in model.layout.containers:
        inside = coordinates[
            (coordinates >= container.offset) & (coordinates < container.offset + container.size)
        ]
        if inside.size == container.size > 0:
            told.append(container.name)
        else:
            told += [model.layout.label(int(at)) for at in inside[: _NAMED + 1]]
    more = " and more" if len(told) > _NAMED else ""
    return ", ".join(f"`{name}`" for name in told[:_NAMED]) + more


def _improper(model: BoundModel, what: str, where: str) -> StructureError:
    return StructureError(
        f"the posterior of {model.program.name} is improper: nothing in the program or its data {what}. The log "
        f"density is flat {where}, apart from a bound's Jacobian, and so has no finite integral. Give a prior, or "
        "leave out what is not needed."
    )
