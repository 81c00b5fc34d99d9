"""The variational family q(theta) prod_n q(z_n | theta; nu_n) on the unconstrained scale.

One composition for table, constant and network alike:

    theta = m + T(L t)          t standard normal; `globals`
    z_n   = m_n + x_n(e_n, t)   a chain of parts; `locals`

with nu_n from the inference function (`functions`). Units may depend on the globals through a(t) (`conditional`) and
on their neighbours (`band`). Where two levels are amortized, the latents of the second are among the globals, and their
entries of m and L come from an inference function of their own. All parameters are standardized by a fixed frame (a
quick fit's centres and scales), so that one learning rate suits all of them.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from avistan.family.conditional import along, through_curve
from avistan.family.flow import straighten, transformed
from avistan.family.functions import AbstractInferenceFunction, Inputs, LocalNu, Table, parameters
from avistan.family.globals import GlobalGaussian, LevelGlobals, start_globals
from avistan.family.locals import HALF_LOG_2PI, LocalGaussian
from avistan.family.normals import Noise
from avistan.family.parts import UnitParameters
from avistan.family.placement import Frame, Placement, make_frame, make_placement
from avistan.runtime.device import zeros
from stan_adapters.data.layout import IndexArray


class Draws(NamedTuple):
    """Draws of q with what estimators need, on the unconstrained scale.

    Attributes:
        theta, z: globals and units.
        log_q: log density of q at them, nats, units weighted: log q(theta) and the sum of `log_q_units`.
        log_q_units: log q(z_n | theta) of each unit, nats, not weighted.
        pull_theta, pull_z: -d log q at the points, the path derivative's second half, units weighted.
    """

    theta: Float[Array, "S G"]
    z: Float[Array, "S d N"]
    log_q: Float[Array, " S"]
    log_q_units: Float[Array, "S N"]
    pull_theta: Float[Array, "S G"]
    pull_z: Float[Array, "S d N"]


class GlobalDraws(NamedTuple):
    """Draws of q(theta) on the unconstrained scale: log q(theta) in nats, and the pull as in `Draws`."""

    theta: Float[Array, "S G"]
    log_q: Float[Array, " S"]
    pull: Float[Array, "S G"]


class Family(eqx.Module):
    """q(theta) prod_n q(z_n | theta; f(input_n)). `trainable` says which leaves an optimizer may move."""

    globals: GlobalGaussian | LevelGlobals
    inference: AbstractInferenceFunction
    local: LocalGaussian
    frame: Frame
    placement: Placement
    directions: Float[Array, "K0 G"] | None  # W; None: the identity, or nothing that moves with the globals
    curve: Float[Array, "H Q"] | None = None  # V and c of the curved directions; None: there are none

    @property
    def dim(self) -> int:
        return int(self.placement.order.shape[0])

    @property
    def num_units(self) -> int:
        """N."""
        return int(self.placement.local_index.shape[0])

    @property
    def factorized(self) -> bool:
        """Whether q is a mean-field Gaussian."""
        return self.globals.kind == "mean-field" and self.globals.warp is None and self.local.plain

    def local_parameters(self, inputs: Inputs) -> LocalNu:
        """Parameters of all units on the unconstrained scale; `loc` is the mean at the centre of the globals."""
        nu, frame, local = parameters(self.inference, inputs), self.frame, self.local
        slopes = np.repeat(np.arange(local.block), local.directions)
        return nu._replace(
            loc=frame.local_center + frame.local_scale * nu.loc,
            log_sd=frame.local_log_scale + nu.log_sd,
            below=nu.below * self._scales_below() if nu.below.shape[0] else nu.below,
            slope=nu.slope * frame.local_scale[slopes] if nu.slope.shape[0] else nu.slope,
        )

    def _scales_below(self) -> Float[Array, "B M"]:
        """Scales of L_n below its diagonal, and of B_n."""
        local = self.local
        rows = np.array([i for i in range(local.block) for _ in range(i)][: local.within], dtype=int)
        return jnp.concatenate([self.frame.local_scale[rows], self.scales_of_bands()])

    def scales_of_bands(self) -> Float[Array, "P M"]:
        """Scales of B_n and D_n: a latent's over that of the latent it depends on, (b d d, 1 or N)."""
        scale = self.frame.local_scale
        before = [jnp.roll(scale, k, axis=1) for k in range(1, self.local.reach + 1)]
        parts = [(scale[:, None] / other[None]).reshape(-1, scale.shape[1]) for other in before]
        return jnp.concatenate([scale[:0], *parts])

    def draw(self, noise: Noise, inputs: Inputs, weight: ArrayLike = 1.0) -> Draws:
        """Draws of q from standard normals.

        Args:
            inputs: of the units.
            weight: of the units in log q and the pulls, () or (N,): where a batch stands for more units than it has, or
                where it is padded (0).

        Source: reparameterization, Kingma & Welling, ICLR 2014; pulls as in Roeder et al., NeurIPS 2017.
        """
        local = self.local
        nu, t = self.local_parameters(inputs), noise.t.astype(jnp.float64)
        follows = local.conditional != "none"
        at, slopes = along(t, self.directions, self.curve) if follows else (t[:, :0], t[:, :0])
        per_unit = jnp.asarray(weight, dtype=jnp.float64).reshape(1, 1, -1)
        moved = local.draw(noise, UnitParameters(nu, local, at, self.scales_of_bands(), per_unit))
        pull_t = t
        if follows:
            back = through_curve(moved.back, slopes, self.curve)
            pull_t = pull_t + (back if self.directions is None else back @ self.directions)
        of_globals = self.draw_globals(t, pull_t)
        return Draws(
            theta=of_globals.theta,
            z=nu.loc[None] + moved.value,
            log_q=of_globals.log_q + jnp.sum(moved.log_q * per_unit[0], axis=1),
            log_q_units=moved.log_q,
            pull_theta=of_globals.pull,
            pull_z=per_unit * moved.pull,
        )

    def draw_globals(self, t: Float[Array, "S G"], pull_t: Float[Array, "S G"] | None = None) -> GlobalDraws:
        """Draws of q(theta) from standard normals; `pull_t` is -d log q / dt of all that follows t, by default t."""
        frame, factor = self.frame, self.globals.resolved()
        moved, pull = factor.moved(t), factor.solved(t if pull_t is None else pull_t)
        surprise = 0.5 * t**2 + HALF_LOG_2PI + frame.global_log_scale[None]
        if factor.warp is not None:
            sd = jnp.exp(factor.log_sd)[None]
            value, pull, log_slopes = transformed(factor.warp, moved / sd, pull * sd)
            moved, pull, surprise = sd * value, pull / sd, surprise + log_slopes
        log_q = -jnp.sum(surprise, axis=1) - factor.log_det()
        theta = frame.global_center[None] + frame.global_scale[None] * (factor.loc[None] + moved)
        return GlobalDraws(theta, log_q, pull / frame.global_scale[None])

    def standard(self, theta: Float[Array, "S G"]) -> Float[Array, "S G"]:
        """The standard normals t of given globals: the inverse of `draw_globals`."""
        frame, factor = self.frame, self.globals.resolved()
        moved = (theta - frame.global_center[None]) / frame.global_scale[None] - factor.loc[None]
        if factor.warp is not None:
            sd = jnp.exp(factor.log_sd)[None]
            moved = sd * straighten(factor.warp, moved / sd)
        return factor.standard(moved)

    def split(self, rows: Float[Array, "S D"]) -> tuple[Float[Array, "S G"], Float[Array, "S d N"]]:
        """Rows in Stan's coordinate order as entries of the globals and of the units."""
        return rows[:, self.placement.global_index], rows[:, self.placement.local_index.T]

    def points(self, draws: Draws) -> Float[Array, "S D"]:
        """The draws in Stan's coordinate order."""
        return jax.vmap(self.placement)(draws.theta, draws.z)


def mean_field_family(mean: ArrayLike, sd: ArrayLike, local_index: IndexArray | None = None) -> Family:
    """The mean-field Gaussian with means and sds (D,) on the unconstrained scale.

    Args:
        local_index: positions of the units' latents (N, d); by default every parameter is a global.
    """
    center, scale = np.asarray(mean), np.asarray(sd)
    at_units = np.empty((0, 0), dtype=np.int64) if local_index is None else local_index
    at = np.setdiff1d(np.arange(len(center)), at_units)
    frame = make_frame(center[at], scale[at], center[at_units].T, scale[at_units].T)
    local = LocalGaussian("diagonal", at_units.shape[1])
    table = Table(local.start(zeros(*at_units.T.shape)))
    return Family(
        start_globals("mean-field", len(at)), table, local, frame, make_placement(at, at_units), None
    )


@jax.jit
def mean_and_sd(family: Family, inputs: Float[Array, "N R"]) -> tuple[Float[Array, " D"], Float[Array, " D"]]:
    """Means and sds of a mean-field Gaussian on the unconstrained scale: what `mean_field_family` takes."""
    nu, of_globals, frame = family.local_parameters(inputs), family.globals.resolved(), family.frame
    mean = family.placement(frame.global_center + frame.global_scale * of_globals.loc, nu.loc)
    return mean, jnp.exp(family.placement(frame.global_log_scale + of_globals.log_sd, nu.log_sd))


def trainable(family: Family) -> Family:
    """A tree of booleans: true at the leaves that training moves (globals, inference functions, directions)."""
    spec: Family = jax.tree.map(lambda _: False, family)
    names = ["inference"]
    if isinstance(family.globals, LevelGlobals):
        names += ["globals.free", "globals.inference"]
    else:
        names += ["globals"]
    if family.directions is not None and not _follows_free(family):
        names += ["directions"]
    if family.curve is not None:
        names += ["curve"]
    for get in map(operator.attrgetter, names):
        spec = eqx.tree_at(get, spec, jax.tree.map(eqx.is_inexact_array, get(family)))
    return spec


def _follows_free(family: Family) -> bool:
    """Whether the directions are the free globals next to a second level's latents: those are not learned."""
    of_globals = family.globals
    return (
        isinstance(of_globals, LevelGlobals)
        and family.directions is not None
        and family.directions.shape[0] == of_globals.free.size
    )


def num_variational_parameters(family: Family) -> int:
    """How many numbers training moves."""
    moved = eqx.filter(family, trainable(family))
    return sum(int(leaf.size) for leaf in jax.tree.leaves(moved))
