"""Units whose means and sds are rows of a table: each row takes natural-gradient steps of its own.

Given all else a row is a small problem of its own: the best normal N(m, s^2) of a latent has E[score] = 0 and
s^-2 = -E[d score / dz]. The first is the gradient of m by Bonnet's theorem; the second is -E[e score] / s by Price's,
which the gradient of log s, s E[e score] + 1, holds. So a step of length rho <= 1 is

    s^-2 <- s^-2 (1 - rho (gradient of log s)),    m <- m + rho s^2 (gradient of m)

which at rho = 1 is Newton's on a normal, whatever its scale. Neither moments nor a curvature are kept. The precision
stays positive because its change in one step is bounded, and that of the mean is, in sds.

Source: Opper & Archambeau, "The variational Gaussian approximation revisited", Neural Computation 2009; Khan & Nielsen,
"Fast yet simple natural-gradient descent for variational inference in complex models", ISITA 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from avistan.family.family import Family
from avistan.family.functions import Constant, Table

FASTER = 5.0  # than the learning rate, other parameters: units keep up with whatever these do
PACE = 5.0  # rho over the rate
_LATENTS = 3.0  # of a unit: of more, which may be correlated, each takes smaller steps
_MOST_SDS = 2.0  # by which a mean moves in a step, and the factor by which an sd changes


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the rows' means lie in the vector of all trainable parameters; their log sds are next.

    Attributes:
        start, size: of the means.
        pace: rho over the rate.
        shared: one row serves all units.
    """

    start: int
    size: int
    pace: float
    shared: bool

    def others(self, vector: Array) -> Array:
        """All other parameters."""
        return jnp.concatenate([vector[: self.start], vector[self.start + 2 * self.size :]])

    def parts(self, vector: Array) -> tuple[Array, Array]:
        """The rows' entries: of means and of log sds, (size,) each."""
        middle = self.start + self.size
        return vector[self.start : middle], vector[middle : middle + self.size]

    def with_others(self, others: Array, of_means: Array, of_log_sds: Array) -> Array:
        """The vector of these entries."""
        return jnp.concatenate([others[: self.start], of_means, of_log_sds, others[self.start :]])


def has_rows(family: Family) -> bool:
    """Whether it is a mean-field normal, with units' factors in a table or all alike."""
    return isinstance(family.inference, Table | Constant) and family.factorized and family.local.block > 0


def rows_of(moved: Family) -> Rows:
    """The rows of a family for which `has_rows` holds, given its trainable leaves."""
    marks = jax.tree.map(lambda _: False, moved)
    marks = eqx.tree_at(lambda f: f.inference.nu.loc, marks, True)
    sizes = [leaf.size for leaf in jax.tree.leaves(moved)]
    first = jax.tree.leaves(marks).index(True)
    return Rows(
        start=sum(sizes[:first]),
        size=sizes[first],
        pace=PACE * min(1.0, _LATENTS / moved.local.block),
        shared=isinstance(moved.inference, Constant),
    )


def along_rows(
    rule: optax.GradientTransformationExtraArgs, rows: Rows
) -> optax.GradientTransformationExtraArgs:
    """Natural-gradient steps for rows, and a rule for all other parameters; `update` takes the number of `units` too.

    It is given gradients of the negative ELBO (P,), and needs the parameters. A gradient that is not finite moves
    nothing.
    """

    def init(params: Any) -> Any:
        return rule.init(rows.others(params))

    def update(
        updates: Any, state: Any, params: Any = None, *, rate: Array, units: Array, **_: Any
    ) -> tuple[Any, Any]:
        others, state = rule.update(rows.others(updates), state, rate=rate)
        of_means, of_log_sds = rows.parts(updates)
        sharing = units if rows.shared else jnp.ones(())
        length = jnp.minimum(1.0, rows.pace * rate) / sharing
        return rows.with_others(others, *steps(of_means, of_log_sds, rows.parts(params)[1], length)), state

    return optax.GradientTransformationExtraArgs(init, update)


def steps(
    of_means: Float[Array, " R"], of_log_sds: Float[Array, " R"], log_sds: Float[Array, " R"], length: Array
) -> tuple[Float[Array, " R"], Float[Array, " R"]]:
    """What is added to means and log sds.

    Args:
        of_means, of_log_sds: gradients of the negative ELBO.
        length: rho, over the number of units that share a row.

    Example: of a normal with mean 1 and sd 2, seen from the standard normal, without noise.
        >>> import jax.numpy as jnp
        >>> of_mean, of_log_sd = jnp.array([-1 / 4]), jnp.array([1 / 4 - 1])
        >>> mean, log_sd = steps(of_mean, of_log_sd, jnp.zeros(1), jnp.ones(()))
        >>> print(mean, jnp.exp(log_sd))
        [1.] [2.]
    """
    change = jnp.clip(length * of_log_sds, _MOST_SDS**-2 - 1, _MOST_SDS**2 - 1)  # of the precision, relative
    wider = -0.5 * jnp.log1p(change)
    sds = jnp.exp(log_sds + wider)
    most = _MOST_SDS * jnp.maximum(sds, jnp.exp(log_sds))
    moved = jnp.clip(-length * sds**2 * of_means, -most, most)
    there = jnp.isfinite(of_means) & jnp.isfinite(of_log_sds)
    return jnp.where(there, moved, 0.0), jnp.where(there, wider, 0.0)
