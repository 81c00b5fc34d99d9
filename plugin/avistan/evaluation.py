"""ELBO estimates on common random numbers: methods that share a program and a seed share every normal."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, PRNGKeyArray

from .families import Family
from .log_density import log_density

_NUMBERS_AT_ONCE = 4_000_000  # normals held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Log weights log p - log q (M,) of M draws of q, nats; -inf where Stan rejected the draw."""

    log_weights: npt.NDArray[np.float64]

    @property
    def accepted(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.log_weights)

    @property
    def elbo(self) -> float:
        """Mean log weight of the accepted draws; -inf if there were none."""
        kept = self.log_weights[self.accepted]
        return float(kept.mean()) if kept.size else -np.inf

    @property
    def elbo_se(self) -> float:
        return standard_error(self.log_weights[self.accepted])

    @property
    def rejected_share(self) -> float:
        return float(1 - self.accepted.mean())


def standard_error(values: npt.NDArray[np.float64]) -> float:
    """Standard error of the mean of independent values; nan for fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def gap(of: Evaluation, against: Evaluation) -> tuple[float, float]:
    """ELBO(against) - ELBO(of) in nats with its standard error, from the draws that both methods share."""
    both = of.accepted & against.accepted
    difference = against.log_weights[both] - of.log_weights[both]
    return (float(difference.mean()) if difference.size else float("nan")), standard_error(difference)


def evaluate(
    family: Family, inputs: Float[Array, "N R"], slot: int, key: PRNGKeyArray, num_draws: int
) -> Evaluation:
    """Log weights of `num_draws` draws of a family, in batches of bounded memory."""
    batch = min(num_draws, max(1, _NUMBERS_AT_ONCE // max(1, family.dim)))
    index = jnp.asarray(slot, dtype=jnp.int64)
    parts = []
    for number in range(-(-num_draws // batch)):
        theta, log_q = sample(family, inputs, jax.random.fold_in(key, number), batch)
        log_p, _ = _densities(index, theta)
        parts.append(np.asarray(log_p - log_q))
    return Evaluation(np.concatenate(parts)[:num_draws])


@eqx.filter_jit
def _densities(slot: Array, theta: Float[Array, "S D"]) -> tuple[Array, Array]:
    return log_density(slot, theta)


@eqx.filter_jit
def sample(
    family: Family, inputs: Float[Array, "N R"], key: PRNGKeyArray, num_draws: int
) -> tuple[Float[Array, "S D"], Float[Array, " S"]]:
    """Draws of q on the unconstrained scale and their log densities in nats."""
    draws = family.draw(jax.random.normal(key, (num_draws, family.dim), dtype=jnp.float64), inputs)
    return draws.theta, draws.log_q
