"""A normal approximation along a quasi-Newton path: far from the posterior, the way there costs few gradients.

L-BFGS climbs the log density from a point. At every step its curvature gives a diagonal normal around the iterate, and
draws from that one an ELBO. The best of these wins, and not the end of the path: the joint mode of a hierarchical
program is at the bottom of a funnel, where the density is unbounded and the ELBO poor.

Source: Zhang, Carpenter, Gelman & Vehtari, "Pathfinder: Parallel quasi-Newton variational inference", JMLR 2022, with
sds from the diagonal of the Hessian instead of its inverse: these are the best ones of a mean-field normal.

The line search is for densities that are not finite everywhere: a point that Stan rejects is a step too long. SciPy's
takes none, and is slow to load for a fit that may not need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray
from stan_adapters.levels.probes import Density

DRAWS = 6  # for an ELBO
_MEMORY = 12  # pairs of steps and changes of the gradient
_ARMIJO, _WOLFE = 1e-4, 0.9
_TRIALS = 40  # points in a line search
_WIDTHS = (
    1.0,
    0.1,
)  # early curvatures are rough: narrower draws show where the place is good and the width not
_GAIN, _STILL = 0.01, 4  # nats of density in so many steps: less, and the path is at its end
_SLACK = (5.0, 0.1)  # nats, and nats a parameter, by which an ELBO may exceed that of a quadratic density
_SINGLY, _PROBES = 64, 8  # coordinates whose curvature is measured one by one; else points with all moved
_REACH = 100.0  # the longest first step, over the size of a coordinate
_RANGE = (1e-12, 1e12)  # of variances


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PathPoint:
    """A diagonal normal on the unconstrained scale: means and sds (D,), its ELBO in nats."""

    mean: FloatArray
    sd: FloatArray
    elbo: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Path:
    """The best normal along a path, None without a finite ELBO, and the gradients that the path took."""

    best: PathPoint | None
    gradient_evaluations: int


def elbo_at(
    model: Density, mean: FloatArray, sd: FloatArray, noise: FloatArray, *, accepted_only: bool = False
) -> float:
    """ELBO of a diagonal normal in nats at standard normals (S, D), up to a constant.

    A draw that Stan rejects makes it -inf, or is left out with `accepted_only`.
    """
    lp, _ = model.log_density_gradient(mean + sd * noise)
    accepted = np.isfinite(lp)
    if not accepted.any() or not (accepted_only or accepted.all()):
        return -np.inf
    return float(lp[accepted].mean() + 0.5 * (noise**2).sum(axis=1).mean() + np.log(sd).sum())


def walk(
    model: Density,
    start: FloatArray,
    noise: FloatArray,
    *,
    to_beat: float = -np.inf,
    patience: int = 8,
    max_steps: int = 400,
) -> Path:
    """Walk from a point (D,) of finite density and return the normal of the best ELBO on the way.

    Args:
        noise: standard normals (S, D), which all ELBOs share.
        to_beat: nats; an ELBO below it counts for nothing.
        patience: steps without a better ELBO, after which the path ends; three times as many once one has been found.
    """
    climb = Climb(model, start)
    climb.measure()
    best: PathPoint | None = None
    evaluations, waited = 0, 0
    values, measured = [climb.value], climb.value
    for _ in range(max_steps):
        if not climb.step():
            if measured - climb.value < _GAIN:
                break
            measured = climb.value
            climb.measure()
            continue
        sd, bound = climb.sd(), to_beat if best is None else best.elbo
        for width in _WIDTHS:
            if _expected(climb.value, width * sd, width, noise) < bound - _SLACK[0] - _SLACK[1] * model.dim:
                continue
            elbo = elbo_at(model, climb.theta, width * sd, noise)
            evaluations += len(noise)
            if elbo > bound:
                best = PathPoint(mean=climb.theta.copy(), sd=width * sd, elbo=elbo)
                break
        waited = 0 if best is not None and best.elbo > bound else waited + 1
        values.append(climb.value)
        still = len(values) > _STILL and values[-1 - _STILL] - values[-1] < _GAIN
        if waited >= (patience if best is None else 3 * patience):
            break
        if still:
            if measured - climb.value < _GAIN:
                break
            values, measured = [climb.value], climb.value
            climb.measure()
    return Path(best=best, gradient_evaluations=evaluations + climb.evaluations)


def _expected(value: float, sd: FloatArray, width: float, noise: FloatArray) -> float:
    """The ELBO that a normal would have if the log density were quadratic: no draws where this is far too little."""
    squares = 0.5 * float((noise**2).sum(axis=1).mean())
    return -value + (1 - width**2) * squares + float(np.log(sd).sum())


@dataclass(slots=True, eq=False)
class Climb:
    """L-BFGS on the negative log density. Source: Nocedal & Wright, Numerical Optimization, 2006, section 7.2; the
    line search is Lewis & Overton's by bisection (2013); diagonals as in Pathfinder, after Gilbert & Lemarechal (1989).
    """

    model: Density
    theta: FloatArray
    value: float = field(init=False)
    gradient: FloatArray = field(init=False)
    evaluations: int = 0
    _steps: list[FloatArray] = field(default_factory=list)
    _changes: list[FloatArray] = field(default_factory=list)
    _variance: FloatArray = field(
        init=False
    )  # diagonal of the inverse Hessian that the recursion begins with

    def __post_init__(self) -> None:
        self.value, self.gradient = self._at(self.theta)
        self._variance = np.ones(len(self.theta))

    def measure(self) -> None:
        """Begin anew with the diagonal of the Hessian here, from differences of gradients.

        A flat coordinate that a steep one hides is found so: of a mean far away, where the sd has grown to fit.
        """
        dim = len(self.theta)
        size = 1e-3 * np.minimum(np.sqrt(self._variance), 1.0)
        random = generator(0, Stream.CURVATURE_PROBES)
        signs = np.eye(dim) if dim <= _SINGLY else np.sign(random.standard_normal((_PROBES, dim)))
        _, gradient = self.model.log_density_gradient(self.theta + signs * size)
        self.evaluations += len(signs)
        usable = np.isfinite(gradient).all(axis=1)
        if not usable.any():
            return
        curvature = np.abs((-gradient - self.gradient) * signs / size)
        count = (np.abs(signs) * usable[:, None]).sum(axis=0)
        curvature = np.where(usable[:, None], curvature, 0.0).sum(axis=0) / np.maximum(count, 1)
        shortest = np.abs(self.gradient) / (_REACH * np.maximum(1.0, np.abs(self.theta)))
        curvature = np.where(count > 0, np.maximum(curvature, shortest), 1 / self._variance)
        self._variance = np.clip(1 / np.maximum(curvature, 1e-12), *_RANGE)
        self._steps, self._changes = [], []

    def expect(self, variance: FloatArray) -> None:
        """Begin with a diagonal (D,) of the inverse Hessian."""
        self._variance = np.clip(variance, *_RANGE)

    def step(self) -> bool:
        """Move along the line of descent; False where there is no way on."""
        direction = -self._times_inverse(self.gradient)
        slope = float(direction @ self.gradient)
        if not slope < 0:
            return False
        low, high, length = 0.0, np.inf, 1.0
        found = None
        for _ in range(_TRIALS):
            theta = self.theta + length * direction
            value, gradient = self._at(theta)
            if not value <= self.value + _ARMIJO * length * slope:
                high = length
            else:
                found = theta, value, gradient
                if float(gradient @ direction) >= _WOLFE * slope:
                    break
                low = length
            length = 0.5 * (low + high) if np.isfinite(high) else 4 * length
            if high - low < 1e-3 * high and found is not None:
                break
        if found is None:
            return False
        theta, value, gradient = found
        self._learn(theta - self.theta, gradient - self.gradient)
        self.theta, self.value, self.gradient = theta, value, gradient
        return True

    def sd(self) -> FloatArray:
        """Conditional sds (D,): one over the roots of the Hessian's diagonal, in the compact form of BFGS."""
        precision = 1 / self._variance
        if not self._steps:
            return np.sqrt(self._variance)
        steps, changes = np.array(self._steps).T, np.array(self._changes).T  # (D, m)
        scaled = precision[:, None] * steps
        inner = steps.T @ changes
        lower = np.tril(inner, -1)
        middle = np.block([[steps.T @ scaled, lower], [lower.T, -np.diag(np.diag(inner))]])
        wide = np.concatenate([scaled, changes], axis=1)
        size = np.sqrt(np.abs(np.diag(middle)))  # steps and changes differ by orders of magnitude
        solved = np.linalg.lstsq(middle / np.outer(size, size), (wide / size).T, rcond=1e-14)[0]
        diagonal = precision - ((wide / size).T * solved).sum(axis=0)
        usable = np.isfinite(diagonal) & (diagonal > 1e-3 * precision)
        return np.asarray(1 / np.sqrt(np.where(usable, diagonal, precision)))

    def _at(self, theta: FloatArray) -> tuple[float, FloatArray]:
        lp, gradient = self.model.log_density_gradient(theta[None])
        self.evaluations += 1
        value = -float(lp[0]) if np.isfinite(gradient).all() else np.inf
        return value if np.isfinite(value) else np.inf, -np.asarray(gradient[0])

    def _learn(self, step: FloatArray, change: FloatArray) -> None:
        """Keep a pair of positive curvature and bring the diagonal up to it."""
        product = float(step @ change)
        if not product > 1e-12 * float(change @ change) * float(self._variance.min()):
            return
        self._steps, self._changes = [*self._steps, step][-_MEMORY:], [*self._changes, change][-_MEMORY:]
        old = self._variance
        a, b, c = change @ (old * change), product, step @ (step / old)
        new = 1 / (a / (b * old) + change**2 / b - (a / (b * c)) * (step / old) ** 2)
        if np.isfinite(new).all() and (new > 0).all():
            self._variance = np.clip(new, *_RANGE)

    def _times_inverse(self, vector: FloatArray) -> FloatArray:
        """The inverse Hessian times a vector (D,), by the recursion of two loops."""
        result, shares = vector.copy(), []
        for step, change in zip(reversed(self._steps), reversed(self._changes), strict=True):
            share = (step @ result) / (step @ change)
            result = result - share * change
            shares.append(share)
        result = self._variance * result
        for step, change, share in zip(self._steps, self._changes, reversed(shares), strict=True):
            result = result + (share - (change @ result) / (step @ change)) * step
        return np.asarray(result)
