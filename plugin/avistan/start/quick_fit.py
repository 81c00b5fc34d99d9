"""A quick fit that every method starts from: a short mean-field run on Stan's own gradients, in numpy.

Where a quasi-Newton path from one of its rounds finds a much better normal, the run begins anew there, in that normal's
units: Adam's steps of a tenth never arrive at 1e4, and are wild on a scale of 1e-3.

Its end is a climb along ridges on which Adam is slow (`fixed_draws`).

It costs no compilation, its globals place the reference points of the signatures, and its locals place the first
inference function, so that globals and locals of a start always belong together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray
from avistan.start.fixed_draws import climbed
from avistan.start.lbfgs_path import DRAWS, PathPoint, elbo_at, walk
from stan_adapters.errors import AvistanError
from stan_adapters.levels.probes import Density

_TRIES = 10
_BOXES = (
    {0.0: 1} | dict.fromkeys((0.1, 0.5, 1.0, 2.0, 4.0), _TRIES) | {8.0: 50, 16.0: 100, 32.0: 200}
)  # points each
_ROUNDS = 3  # at least
_LONG = 60  # steps without a better ELBO that a path is given where something is known to be wrong
# Rounds after which a path is tried, and its patience: a run that still rises is suspect.
_TRIED = {3: 8, 6: _LONG, 12: _LONG}
_MARGIN, _SHARE = 5.0, 0.05  # nats, and nats a parameter, by which a path must be better
_SCATTERED = 4  # further points that paths begin at, once the first path was better


class StartError(AvistanError):
    """No point of finite density was found to start from."""


@dataclass(frozen=True, slots=True, eq=False)
class QuickFit:
    """A rough mean-field Gaussian on the unconstrained scale: means and sds (D,), and the gradients it took."""

    mean: FloatArray
    sd: FloatArray
    gradient_evaluations: int
    elbo_trace: FloatArray  # nats, mean of each round


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a state that is not finite is taken back
def quick_fit(
    model: Density,
    *,
    seed: int,
    draws: int = 2,
    round_steps: int = 150,
    max_rounds: int = 20,
    learning_rate: float = 0.1,
    scattered: bool = False,
    start: FloatArray | None = None,
    path: bool = True,
    climb: bool = True,
) -> QuickFit:
    """Mean-field ADVI with Adam, in rounds, until a round gains little; then a climb on fixed draws.

    Source: Kucukelbir et al., "Automatic Differentiation Variational Inference", JMLR 2017, with the path-derivative
    gradient of Roeder et al., NeurIPS 2017.

    Args:
        scattered: start at a random point, uniform on (-2, 2) as Stan does, and not at the best near 0.
        start: start at this point (D,) of finite density.
        path: whether quasi-Newton paths may offer a better place after three rounds and later. With `scattered` or
            `start` they begin where the run is, and not at other points too.
        climb: whether quasi-Newton steps on fixed draws may improve on the last round (`fixed_draws`).

    Raises:
        StartError: no point of finite density was found, with Stan's reason.
    """
    rng = generator(seed, Stream.QUICK_FIT)
    counted = _Counted(model, model.dim)
    if start is not None:
        begin = np.array(start, dtype=np.float64)
    else:
        begin = _random_start(model, rng) if scattered else _finite_start(model, rng)
    ascent = _Ascent(counted, begin, np.ones(model.dim), rng, draws, learning_rate, np.full(model.dim, -2.0))
    elbos: list[float] = []
    number = 0
    while number < max_rounds and not ascent.done:
        ascent.round(round_steps)
        number += 1
        if path and number in _TRIED:
            others = [begin] if start is None and not scattered else []
            found = _better_on_a_path(counted, ascent, others, seed, _TRIED[number])
            if found is not None:
                elbos += ascent.elbos
                ascent = _Ascent(
                    counted, found.mean, found.sd, rng, draws, learning_rate, np.zeros(model.dim)
                )
                number, path = 0, False
    elbos += ascent.elbos
    if not elbos:
        raise StartError(
            f"every draw around the start was rejected: {model.why_rejected(ascent.theta) or 'no reason given'}"
        )
    mean, sd = ascent.theta, ascent.sd
    better = climbed(counted, mean, sd, generator(seed, Stream.FIXED_DRAWS)) if climb else None
    if better is not None:
        mean, sd = better.mean, better.sd
        elbos.append(elbos[-1] + better.gain)
    return QuickFit(mean, sd, _TRIES + counted.evaluations, np.array(elbos))


def _better_on_a_path(
    model: Density, ascent: _Ascent, others: list[FloatArray], seed: int, patience: int
) -> PathPoint | None:
    """The best normal on paths from where an ascent is and, if that one is better or much patience given, from others.

    None where none is clearly better than the ascent's own. At a local optimum far away only other points help.
    """
    rng = generator(seed, Stream.PATHS)
    noise = rng.standard_normal((DRAWS, model.dim))
    own = elbo_at(model, ascent.theta, ascent.sd, noise, accepted_only=True)  # as its rounds count it
    to_beat = own + _MARGIN + _SHARE * model.dim
    if not np.isfinite(model.log_density_gradient(ascent.theta[None])[0]).all():
        return None
    best = walk(model, ascent.theta, noise, to_beat=to_beat, patience=patience).best
    if best is None and patience < _LONG:
        return None
    if others:
        others = [*others, *(_random_start(model, rng) for _ in range(_SCATTERED))]
    for point in others:
        bound = to_beat if best is None else best.elbo + _MARGIN
        best = walk(model, point, noise, to_beat=bound, patience=_LONG).best or best
    return best


@dataclass(slots=True, eq=False)
class _Counted:
    """A density that counts its gradients."""

    model: Density
    dim: int
    evaluations: int = 0

    def log_density_gradient(self, theta: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        self.evaluations += len(np.asarray(theta))
        return self.model.log_density_gradient(theta)

    def why_rejected(self, theta: npt.ArrayLike) -> str:
        return self.model.why_rejected(theta)


@dataclass(slots=True, eq=False)
class _Ascent:
    """Rounds of mean-field ADVI on coordinates that are centred at a point and scaled, (D,) each."""

    model: Density
    center: FloatArray
    scale: FloatArray
    rng: np.random.Generator
    draws: int
    learning_rate: float
    log_sd: FloatArray  # (D,) on the scale
    elbos: list[float] = field(default_factory=list)
    done: bool = False
    _mean: FloatArray = field(init=False)
    _adam: _Adam = field(init=False)
    _number: int = 0
    _best: float = -np.inf

    def __post_init__(self) -> None:
        self._mean = np.zeros(self.model.dim)
        self._adam = _Adam(2 * self.model.dim)

    @property
    def theta(self) -> FloatArray:
        return np.asarray(self.center + self.scale * self._mean)

    @property
    def sd(self) -> FloatArray:
        return np.asarray(self.scale * np.exp(self.log_sd))

    def round(self, steps: int) -> None:
        """One round; `done` where it gained little."""
        dim, rate = self.model.dim, self.learning_rate / (1 + self._number) ** 0.5
        mean, log_sd = self._mean, self.log_sd
        last = inside = mean  # the latest mean around which a draw was accepted, and that draw
        values = []
        tail_mean, tail_log_sd, kept = np.zeros(dim), np.zeros(dim), 0
        for step in range(steps):
            noise = self.rng.standard_normal((self.draws, dim))
            sd = np.exp(log_sd)
            lp, gradient = self.model.log_density_gradient(self.center + self.scale * (mean + sd * noise))
            accepted = np.isfinite(lp)
            if not accepted.any():
                if (
                    mean is last
                ):  # too wide for the support, or outside: narrower, nearer to what is inside, and again
                    mean = last = 0.5 * (last + inside)
                    log_sd = log_sd - 0.1
                else:  # the last step led out of it: back, and shorter ones
                    mean, rate = last, 0.7 * rate
                continue
            last, inside = mean, mean + sd * noise[int(np.argmax(accepted))]
            noise, gradient = noise[accepted], self.scale * gradient[accepted]
            path = gradient + noise / sd
            move = self._adam.step(np.concatenate([path.mean(axis=0), (path * noise * sd).mean(axis=0)]))
            mean = mean + rate * move[:dim]
            log_sd = log_sd + rate * move[dim:]
            entropy = 0.5 * (noise**2).sum(axis=1).mean() + log_sd.sum() + np.log(self.scale).sum()
            values.append(float(lp[accepted].mean() + entropy))
            if step >= steps // 2:
                tail_mean, tail_log_sd, kept = tail_mean + mean, tail_log_sd + log_sd, kept + 1
        self._number += 1
        if kept:
            mean, log_sd = tail_mean / kept, tail_log_sd / kept
        self._mean, self.log_sd = mean, log_sd
        if not values:
            return
        late = np.array(values[len(values) // 2 :])
        self.elbos.append(float(late.mean()))
        noise_level = late.std() / np.sqrt(len(late))
        least = max(2 * noise_level, 0.002 * dim)
        self.done = self._number >= _ROUNDS and self.elbos[-1] < self._best + least
        self._best = max(self._best, self.elbos[-1])


def _finite_start(model: Density, rng: np.random.Generator) -> FloatArray:
    """The best of some points around 0 at which the density is finite, in the smallest box that has one."""
    for radius, tries in _BOXES.items():
        points = rng.uniform(-radius, radius, (tries, model.dim))
        lp, _ = model.log_density_gradient(points)
        if np.isfinite(lp).any():
            return np.asarray(points[int(np.argmax(lp))])
    reason = model.why_rejected(np.zeros(model.dim))
    raise StartError(
        f"the log density is not finite at any of {sum(_BOXES.values())} starting points: "
        f"{reason or 'no reason given'}. Check the data and the bounds of the parameters."
    )


def _random_start(model: Density, rng: np.random.Generator) -> FloatArray:
    """A random point of finite density, in the largest box that has one."""
    for radius in (2.0, 1.0, 0.5, 0.1):
        points = rng.uniform(-radius, radius, (_TRIES, model.dim))
        finite = np.isfinite(model.log_density_gradient(points)[0])
        if finite.any():
            return np.asarray(points[int(np.argmax(finite))])
    return _finite_start(model, rng)


class _Adam:
    """Adam for ascent in numpy: moments of a (D,) gradient, moves of size about 1. Source: Kingma & Ba, ICLR 2015."""

    def __init__(self, dim: int, decay: tuple[float, float] = (0.9, 0.99)) -> None:
        self._decay, self._steps = decay, 0
        self._first, self._second = np.zeros(dim), np.zeros(dim)

    def step(self, gradient: FloatArray) -> FloatArray:
        self._steps += 1
        one, two = self._decay
        self._first = one * self._first + (1 - one) * gradient
        self._second = two * self._second + (1 - two) * gradient**2
        first = self._first / (1 - one**self._steps)
        second = self._second / (1 - two**self._steps)
        return np.asarray(np.clip(first / (np.sqrt(second) + 1e-12), -1, 1))
