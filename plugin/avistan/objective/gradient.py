"""The ELBO's gradient. Inside, `neg_elbo` is minimised; users only ever see `elbo`, in nats, larger is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from avistan.family.family import Family
from avistan.family.functions import Inputs
from avistan.family.normals import Noise

# log p(theta, z, x) of draws, theta (S, G) and z (S, d, N), in nats, and their statuses (0 accepted).
Density = Callable[[Float[Array, "S G"], Float[Array, "S d N"]], tuple[Float[Array, " S"], Int[Array, " S"]]]
Estimator = Literal["path", "entropy"]


class StepInfo(NamedTuple):
    """What people want to know of one step."""

    elbo: Float[Array, ""]  # nats, larger is better, over the accepted draws; nan where there were none
    num_rejected: Int[Array, ""]  # draws where Stan's log density was not finite


def neg_elbo(
    family: Family,
    density: Density,
    noise: Noise,
    inputs: Inputs,
    weight: ArrayLike = 1.0,
    estimator: Estimator = "path",
) -> tuple[Float[Array, ""], StepInfo]:
    """A surrogate whose gradient estimates the gradient of -ELBO, and the estimate of the ELBO itself.

    Rejected draws count neither in the value nor in the gradient.

    Args:
        weight: of the units, as of `Family.draw`; `density` weights its terms alike.
        estimator: "path" drops the score of q, whose mean is zero ("sticking the landing": no noise where q is exact);
            "entropy" takes log q's exact mean.

    Source: Kucukelbir et al., JMLR 2017, eq. 5; Roeder, Wu & Duvenaud, NeurIPS 2017.
    """
    draws = family.draw(noise, inputs, weight)
    log_p, status = density(draws.theta, draws.z)
    accepted = status == 0
    kept = accepted.astype(log_p.dtype)
    share = kept / jnp.maximum(jnp.sum(kept), 1.0)
    value = jnp.sum(share * jnp.where(accepted, log_p - stop_gradient(draws.log_q), 0.0))
    surrogate = jnp.where(accepted, log_p, 0.0)
    if estimator == "path":
        # The gradient of this sum is (d log p - d log q) d(theta, z) with q's parameters held fixed in log q.
        surrogate = surrogate + jnp.sum(stop_gradient(draws.pull_theta) * draws.theta, axis=1)
        surrogate = surrogate + jnp.sum(stop_gradient(draws.pull_z) * draws.z, axis=(1, 2))
    else:
        surrogate = surrogate - draws.log_q
    loss = -jnp.sum(share * surrogate)
    elbo = jnp.where(jnp.any(accepted), value, jnp.nan)
    return loss, StepInfo(stop_gradient(elbo), jnp.sum(~accepted))
