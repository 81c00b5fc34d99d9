"""Do other starts end where a fit ended? Chains of one fit against each other, or a fit against quick fits.

A place is another mode only where the density has a valley on the way there: a log-concave density has none, so that
starts which merely have not arrived are never taken for modes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray
from avistan.start.quick_fit import QuickFit, StartError, quick_fit
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.units.conditional_density import UnitDensity

LIKE = float(np.log(100))  # nats: a mode with less than a hundredth of another one's mass does not count
_VALLEY = 2.0  # nats that the density must fall between two places that are different modes
_POINTS = 9  # between two places
_DRAWS = 32
_FAR = 1.0  # in sds of the quick fits: nearer places are not told apart


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OtherStart:
    """Where one start ended, compared with a quick fit of the same kind that began at the fit.

    Attributes:
        fit: the quick fit that began there.
        distance: largest difference of a global's mean, in sds of both quick fits.
        valley: nats by which the density falls on the way between, below the lower end.
        gain: nats of ELBO above the one that began at the fit; the locals are integrated out.
        gain_se: its standard error.
    """

    fit: QuickFit
    distance: float
    valley: float
    gain: float
    gain_se: float

    @property
    def is_apart(self) -> bool:
        """Another mode, not the same one seen roughly."""
        return self.distance > _FAR and self.valley > _VALLEY

    @property
    def is_better(self) -> bool:
        return self.gain > LIKE + 3 * self.gain_se

    @property
    def is_worse(self) -> bool:
        return self.gain < -LIKE - 3 * self.gain_se


class Landscape:
    """The density over the globals with Laplace's value for the locals; over all parameters without separable units."""

    def __init__(self, model: BoundModel, density: UnitDensity | None) -> None:
        self.model, self.density = model, density
        self.index = np.arange(model.dim) if density is None else density.globals_index

    def log_density(self, theta: FloatArray, point: FloatArray) -> FloatArray:
        """Log densities (S,) at globals (S, G), nats; searches for the locals start at a point (D,)."""
        if self.density is None:
            return np.asarray(self.model.log_density_gradient(theta)[0])
        start = point[self.density.index]
        values = np.empty(len(theta))
        for rows in self.density.batches(len(theta), copies=4):
            part = theta[rows]
            z = np.repeat(start[None], len(part), axis=0)
            values[rows] = self.density.modes(part, z).laplace
        return np.where(np.isfinite(values), values, -np.inf)

    def elbos(self, fit: QuickFit, noise: FloatArray) -> FloatArray:
        """log p - log q (S,) of a quick fit's globals at standard normals (S, G), nats."""
        mean, sd = fit.mean[self.index], fit.sd[self.index]
        log_q = -0.5 * (noise**2).sum(axis=1) - np.log(sd).sum() - 0.5 * len(sd) * np.log(2 * np.pi)
        return np.asarray(self.log_density(mean + sd * noise, fit.mean) - log_q)

    def valley(self, one: FloatArray, other: FloatArray) -> float:
        """Nats by which the density falls between two points (D,), below the lower end; 0 if it does not."""
        share = np.linspace(0, 1, _POINTS + 2)[:, None]
        path = (1 - share) * one[self.index] + share * other[self.index]
        half = len(path) // 2
        values = np.concatenate([self.log_density(path[:half], one), self.log_density(path[half:], other)])
        lowest = values[1:-1].min()
        return float(max(0.0, min(values[0], values[-1]) - lowest)) if np.isfinite(lowest) else float("inf")


def count_for(dim: int) -> int:
    """How many starts to try: small models can afford to miss a mode less often."""
    return 6 if dim <= 500 else 4 if dim <= 5000 else 2


def probe_starts(
    model: BoundModel, density: UnitDensity | None, center: FloatArray, *, seed: int, count: int
) -> list[OtherStart]:
    """Quick fits from random starts (uniform on (-2, 2), as Stan's) against one that begins at a point (D,).

    All are of one kind, so that roughness of a quick fit tells none of them from the others.
    """
    landscape = Landscape(model, density)
    rng = generator(seed, Stream.SCATTERED_STARTS)
    half = rng.standard_normal((_DRAWS // 2, len(landscape.index)))
    noise = np.concatenate([half, -half])
    try:
        home = quick_fit(model, seed=seed, start=center)
    except StartError:
        return []
    probes = []
    for number in range(count):
        try:
            other = quick_fit(model, seed=int(rng.integers(2**31)) + number, scattered=True)
        except StartError:
            continue
        probes.append(_compared(landscape, home, other, noise))
    return probes


def _compared(landscape: Landscape, home: QuickFit, other: QuickFit, noise: FloatArray) -> OtherStart:
    at = landscape.index
    scale = np.sqrt(home.sd[at] ** 2 + other.sd[at] ** 2)
    distance = float((np.abs(other.mean[at] - home.mean[at]) / scale).max(initial=0.0))
    if distance <= _FAR:  # the same place
        return OtherStart(fit=other, distance=distance, valley=0.0, gain=0.0, gain_se=0.0)
    at_home = landscape.elbos(home, noise)
    difference = landscape.elbos(other, noise) - at_home
    usable = np.isfinite(difference)
    pairs = 0.5 * (difference[: len(noise) // 2] + difference[len(noise) // 2 :])
    pairs = pairs[np.isfinite(pairs)]
    gain = float(difference[usable].mean()) if usable.any() else -np.inf
    error = float(pairs.std(ddof=1) / np.sqrt(len(pairs))) if len(pairs) > 1 else 0.0
    valley = landscape.valley(home.mean, other.mean)
    return OtherStart(fit=other, distance=distance, valley=valley, gain=gain, gain_se=error)
