"""A quick fit that every method starts from: a short mean-field run on Stan's own gradients, in numpy.

It costs no compilation, its globals place the reference points of the signatures, and its locals place the first
inference function, so that globals and locals of a start always belong together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stan_adapters.certificate import Density
from stan_adapters.errors import AvistanError

FloatArray = npt.NDArray[np.float64]

_RADII = (0.0, 0.1, 0.5, 1.0, 2.0, 4.0)
_TRIES = 10


class StartError(AvistanError):
    """No point of finite density was found to start from."""


@dataclass(frozen=True, slots=True, eq=False)
class QuickFit:
    """A rough mean-field Gaussian on the unconstrained scale: means and sds (D,), and the gradients it took."""

    mean: FloatArray
    sd: FloatArray
    gradient_evaluations: int
    elbo_trace: FloatArray  # nats, mean of each round


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
) -> QuickFit:
    """Mean-field ADVI with Adam, in rounds, until a round gains little.

    Source: Kucukelbir et al., "Automatic Differentiation Variational Inference", JMLR 2017, with the path-derivative
    gradient of Roeder et al., NeurIPS 2017.

    Args:
        scattered: start at a random point, uniform on (-2, 2) as Stan does, and not at the best near 0.
        start: start at this point (D,) of finite density.

    Raises:
        StartError: no point of finite density was found, with Stan's reason.
    """
    rng = np.random.default_rng(seed)
    if start is not None:
        mean = np.array(start, dtype=np.float64)
    else:
        mean = _random_start(model, rng) if scattered else _finite_start(model, rng)
    log_sd = np.full(model.dim, -2.0)
    adam = _Adam(2 * model.dim)
    elbos: list[float] = []
    evaluations, best = _TRIES, -np.inf
    for number in range(max_rounds):
        rate = learning_rate / (1 + number) ** 0.5
        values = []
        tail_mean, tail_log_sd, kept = np.zeros(model.dim), np.zeros(model.dim), 0
        for step in range(round_steps):
            noise = rng.standard_normal((draws, model.dim))
            sd = np.exp(log_sd)
            lp, gradient = model.log_density_gradient(mean + sd * noise)
            evaluations += draws
            accepted = np.isfinite(lp)
            if not accepted.any():
                log_sd -= 0.1  # too wide for the support: narrow and try again
                continue
            noise, gradient = noise[accepted], gradient[accepted]
            path = gradient + noise / sd
            move = adam.step(np.concatenate([path.mean(axis=0), (path * noise * sd).mean(axis=0)]))
            mean = mean + rate * move[: model.dim]
            log_sd = log_sd + rate * move[model.dim :]
            values.append(float(lp[accepted].mean() + 0.5 * (noise**2).sum(axis=1).mean() + log_sd.sum()))
            if step >= round_steps // 2:
                tail_mean, tail_log_sd, kept = tail_mean + mean, tail_log_sd + log_sd, kept + 1
        if not values:
            continue
        if kept:
            mean, log_sd = tail_mean / kept, tail_log_sd / kept
        late = np.array(values[len(values) // 2 :])
        elbos.append(float(late.mean()))
        noise_level = late.std() / np.sqrt(len(late))
        if number >= 2 and elbos[-1] < best + max(2 * noise_level, 0.002 * model.dim):
            break
        best = max(best, elbos[-1])
    if not elbos:
        raise StartError(
            f"every draw around the start was rejected: {model.why_rejected(mean) or 'no reason given'}"
        )
    return QuickFit(mean, np.exp(log_sd), evaluations, np.array(elbos))


def _finite_start(model: Density, rng: np.random.Generator) -> FloatArray:
    """The best of some points around 0 at which the density is finite, in the smallest box that has one."""
    for radius in _RADII:
        points = rng.uniform(-radius, radius, (1 if radius == 0 else _TRIES, model.dim))
        lp, _ = model.log_density_gradient(points)
        if np.isfinite(lp).any():
            return np.asarray(points[int(np.argmax(lp))])
    reason = model.why_rejected(np.zeros(model.dim))
    raise StartError(
        f"the log density is not finite at any of {1 + _TRIES * (len(_RADII) - 1)} starting points: "
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
