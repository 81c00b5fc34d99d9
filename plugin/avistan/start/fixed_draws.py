"""The end of a quick fit: the ELBO on fixed draws, climbed by quasi-Newton steps.

On draws that stay the same the ELBO of a factorized normal is an ordinary function of its means and log sds, and
L-BFGS goes along its ridges: where units depend tightly on their mean, and all would gain by a common move, or where
coefficients are correlated, each entry's own gradient is tiny in its own sds, Adam's steps lead nowhere, and nothing
seems to be left. Where the climb gets slow it begins anew in units of the normal that it has reached.

Source: Giordano, Ingram & Broderick, "Black box variational inference with a deterministic objective: faster, more
accurate, and even more black box", JMLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from avistan.runtime.types import FloatArray
from avistan.start.lbfgs_path import Climb
from stan_adapters.levels.probes import Density

_PAIRS, _JUDGING_PAIRS = 4, 8  # of draws, of the climb and of those by which its end is judged
_STEPS = 16  # between two looks at the gain,
_GAIN, _SHARE = 0.3, 3e-4  # nats, and nats a parameter: less, and the climb begins anew or ends
_MOST_STEPS = 400
_REACH = 5.0  # sds: the first step of a climb, at most
_NARROWER, _TRIES = 0.5, 4  # sds of a start some of whose draws Stan rejects


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Climbed:
    """A factorized normal, means and sds (D,), and what it gained on draws of its own, nats."""

    mean: FloatArray
    sd: FloatArray
    gain: float


def climbed(model: Density, mean: FloatArray, sd: FloatArray, rng: np.random.Generator) -> Climbed | None:
    """The normal that a climb from means and sds (D,) ends at; None where it is no better on draws of its own."""
    noise = _pairs(rng, _PAIRS, len(mean))
    start = mean, sd
    least = max(_GAIN, _SHARE * len(mean))
    steps = 0
    with np.errstate(over="ignore", invalid="ignore"):  # a step too long is shortened
        for _ in range(_TRIES):
            objective = _FixedDraws(model, mean, sd, noise)
            climb = objective.climb()
            if np.isfinite(climb.value):
                break
            sd = _NARROWER * sd
        else:
            return None
        while steps < _MOST_STEPS:
            began = climb.value
            goes_on = True
            while goes_on and steps < _MOST_STEPS:
                before = climb.value
                for _ in range(_STEPS):
                    goes_on = climb.step()
                    steps += 1
                    if not goes_on:
                        break
                goes_on = goes_on and before - climb.value >= least
            mean, sd = objective.normal(climb.theta)
            if not began - climb.value >= least:
                break
            objective = _FixedDraws(model, mean, sd, noise)
            climb = objective.climb()
        judging = _pairs(rng, _JUDGING_PAIRS, len(mean))
        gain = _elbo(model, mean, sd, judging) - _elbo(model, *start, judging)
    usable = np.isfinite(mean).all() and np.isfinite(sd).all() and (sd > 0).all()
    return Climbed(mean=mean, sd=sd, gain=gain) if usable and gain > 0 else None


def _pairs(rng: np.random.Generator, pairs: int, dim: int) -> FloatArray:
    """Normals (2 pairs, D) in antithetic pairs, each entry with mean 0 and variance 1."""
    half = rng.standard_normal((pairs, dim))
    half /= np.sqrt((half**2).mean(axis=0))
    return np.concatenate([half, -half])


def _elbo(model: Density, mean: FloatArray, sd: FloatArray, noise: FloatArray) -> float:
    """Nats, up to a constant, of the draws that Stan accepts."""
    lp, _ = model.log_density_gradient(mean + sd * noise)
    accepted = np.isfinite(lp)
    return float(lp[accepted].mean() + np.log(sd).sum()) if accepted.any() else -np.inf


@dataclass(slots=True, eq=False)
class _FixedDraws:
    """The ELBO at normals (S, D) as a function of means, in sds from a normal's own, and of log sds: (2 D,)."""

    model: Density
    mean: FloatArray
    sd: FloatArray
    noise: FloatArray
    dim: int = field(init=False)

    def __post_init__(self) -> None:
        self.dim = 2 * len(self.mean)

    def climb(self) -> Climb:
        """A climb from the normal itself, whose curvature is about that of a normal posterior of these sds."""
        begun = Climb(self, np.zeros(self.dim))
        usual = np.repeat([1.0, 0.5], len(self.mean))
        begun.expect(np.minimum(usual, _REACH / np.maximum(np.abs(begun.gradient), 1e-300)))
        return begun

    def normal(self, point: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Means and sds (D,) at a point."""
        shift, log_sd = np.split(point, 2)
        return self.mean + self.sd * shift, self.sd * np.exp(log_sd)

    def log_density_gradient(self, points: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """As of `Density`, of one point (1, 2 D): -inf where Stan rejects a draw."""
        (point,) = np.atleast_2d(points)
        mean, sd = self.normal(point)
        lp, gradient = self.model.log_density_gradient(mean + sd * self.noise)
        of_log_sd = (gradient * (sd * self.noise)).mean(axis=0) + 1
        whole = np.concatenate([self.sd * gradient.mean(axis=0), of_log_sd])
        value = lp.mean() + point[len(mean) :].sum()
        return np.array([value if np.isfinite(value) else -np.inf]), whole[None]

    def why_rejected(self, theta: npt.ArrayLike) -> str:
        """As of `Density`."""
        return self.model.why_rejected(theta)
