"""The variational family q(theta) prod_n q(z_n; nu_n) on the unconstrained scale, in Stan's own coordinate order.

A draw is an affine map of standard normals: theta_unc = mean + L noise with L diagonal, or lower triangular within the
units. Globals are mean-field. All parameters are standardized by a fixed frame (a quick fit's centres and scales), so
that one learning rate suits all of them.
"""

from __future__ import annotations

from itertools import pairwise
from math import log, pi
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from stan_adapters.layout import IndexArray

from .inference_functions import AbstractInferenceFunction, LocalNu

LocalKind = Literal["diagonal", "full"]
_HALF_LOG_2PI = 0.5 * log(2 * pi)


class Draws(NamedTuple):
    """Draws of q with what estimators need.

    Attributes:
        theta: unconstrained points.
        log_q: log density of q at them, nats.
        pull: -d log q / d theta at the points, the path derivative's second half.
    """

    theta: Float[Array, "S D"]
    log_q: Float[Array, " S"]
    pull: Float[Array, "S D"]


class Placement(eqx.Module):
    """Puts G globals and N x d locals into the order of the unconstrained vector.

    Where few contiguous runs do, it concatenates slices; else it gathers by a permutation.
    """

    order: Int[Array, " D"]  # order[i] = place of coordinate i in [globals, locals]
    inverse: Int[Array, " D"]
    local_index: Int[Array, "N d"]
    latent_major: bool = eqx.field(static=True)  # locals laid out (d, N) rather than (N, d)
    runs: tuple[tuple[int, int], ...] | None = eqx.field(static=True)

    def __call__(self, of_globals: Float[Array, " G"], of_locals: Float[Array, "d N"]) -> Float[Array, " D"]:
        locals_flat = (of_locals if self.latent_major else of_locals.T).reshape(-1)
        together = jnp.concatenate([of_globals, locals_flat])
        if self.runs is not None:
            return jnp.concatenate([together[start:stop] for start, stop in self.runs])
        return _permute(together, self.order, self.inverse)


@jax.custom_vjp
def _permute(values: Array, order: Array, inverse: Array) -> Array:
    return values[order]


def _permute_forward(values: Array, order: Array, inverse: Array) -> tuple[Array, tuple[Array, Array]]:
    return values[order], (order, inverse)


def _permute_backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, None, None]:
    return cotangent[saved[1]], None, None  # the transpose of a permutation is a gather, not a scatter


_permute.defvjp(_permute_forward, _permute_backward)


def make_placement(globals_index: IndexArray, local_index: IndexArray, *, max_runs: int = 64) -> Placement:
    """The placement of a level: globals at positions (G,), unit n's block at row n of (N, d)."""
    best: tuple[tuple[tuple[int, int], ...], IndexArray, bool] | None = None
    for latent_major in (False, True):
        flat = (local_index.T if latent_major else local_index).ravel()
        position = np.concatenate([globals_index, flat])
        order = np.empty(len(position), dtype=np.int64)
        order[position] = np.arange(len(position))
        breaks = np.flatnonzero(np.diff(order) != 1) + 1
        edges = np.concatenate([[0], breaks, [len(order)]])
        runs = tuple((int(order[a]), int(order[b - 1]) + 1) for a, b in pairwise(edges) if b > a)
        if best is None or len(runs) < len(best[0]):
            best = (runs, order, latent_major)
    assert best is not None
    runs, order, latent_major = best
    return Placement(
        jnp.asarray(order),
        jnp.asarray(np.argsort(order)),
        jnp.asarray(local_index),
        latent_major,
        runs if len(runs) <= max_runs else None,
    )


class Frame(eqx.Module):
    """Fixed centres and scales: (G,) for globals; for locals one column for all units, (d, 1), or one a unit, (d, N).

    Logarithms are kept beside the scales because every step needs both.
    """

    global_center: Float[Array, " G"]
    global_scale: Float[Array, " G"]
    global_log_scale: Float[Array, " G"]
    local_center: Float[Array, "d M"]
    local_scale: Float[Array, "d M"]
    local_log_scale: Float[Array, "d M"]


def make_frame(
    global_center: ArrayLike, global_scale: ArrayLike, local_center: ArrayLike, local_scale: ArrayLike
) -> Frame:
    """A frame of centres and positive scales, shapes as in `Frame`."""
    parts = [jnp.asarray(part) for part in (global_center, global_scale, local_center, local_scale)]
    return Frame(parts[0], parts[1], jnp.log(parts[1]), parts[2], parts[3], jnp.log(parts[3]))


class MeanField(eqx.Module):
    """Means and log sds (G,) of the globals, standardized."""

    loc: Float[Array, " G"]
    log_sd: Float[Array, " G"]


class LocalGaussian(eqx.Module):
    """How nu_n is read: d means, d log sds and, for "full", d (d - 1) / 2 entries below the Cholesky diagonal."""

    kind: LocalKind = eqx.field(static=True)
    block: int = eqx.field(static=True)

    @property
    def num_parameters(self) -> int:
        return 2 * self.block + (self.block * (self.block - 1) // 2 if self.kind == "full" else 0)

    def start(self, log_sd: Float[Array, "d N"]) -> LocalNu:
        """Parameters with mean zero, the given log sds and no correlation."""
        below = jnp.zeros((self.num_parameters - 2 * self.block, log_sd.shape[1]))
        return LocalNu(jnp.zeros_like(log_sd), log_sd, below)


class Family(eqx.Module):
    """q(theta) prod_n q(z_n; f(input_n)). `trainable` says which leaves an optimizer may move."""

    globals: MeanField
    inference: AbstractInferenceFunction
    local: LocalGaussian
    frame: Frame
    placement: Placement

    @property
    def dim(self) -> int:
        return int(self.placement.order.shape[0])

    def local_parameters(self, inputs: Float[Array, "N R"]) -> LocalNu:
        """Means, log sds (of the Cholesky diagonal) and entries below it of all units, unconstrained scale."""
        nu, scale = self.inference(inputs), self.frame.local_scale
        rows = np.array([i for i in range(self.local.block) for _ in range(i)], dtype=int)
        below = nu.below * scale[rows] if self.local.kind == "full" else nu.below
        return LocalNu(
            self.frame.local_center + scale * nu.loc, self.frame.local_log_scale + nu.log_sd, below
        )

    def draw(self, noise: Float[Array, "S D"], inputs: Float[Array, "N R"]) -> Draws:
        """Draws of q from standard normals in Stan's coordinate order.

        Source: reparameterization, Kingma & Welling, ICLR 2014; `pull` as in Roeder et al., NeurIPS 2017.
        """
        noise = noise.astype(jnp.float64)
        local = self.local_parameters(inputs)
        frame = self.frame
        mean = self.placement(frame.global_center + frame.global_scale * self.globals.loc, local.loc)
        log_sd = self.placement(frame.global_log_scale + self.globals.log_sd, local.log_sd)
        sd = jnp.exp(log_sd)
        theta = mean[None] + sd[None] * noise
        pull = noise / sd[None]
        if self.local.kind == "full" and self.local.block > 1:
            theta, pull = self._correlate(theta, pull, noise, jnp.exp(local.log_sd), local.below)
        log_q = -0.5 * jnp.sum(noise**2, axis=1) - jnp.sum(log_sd) - self.dim * _HALF_LOG_2PI
        return Draws(theta, log_q, pull)

    def _correlate(
        self,
        theta: Float[Array, "S D"],
        pull: Float[Array, "S D"],
        noise: Float[Array, "S D"],
        sd: Float[Array, "d N"],
        below: Float[Array, "B N"],
    ) -> tuple[Float[Array, "S D"], Float[Array, "S D"]]:
        """Adds L_ij noise_j (j < i) within units, and solves L' pull = noise by back substitution."""
        d, index = self.local.block, self.placement.local_index
        unit_noise = noise[:, index.T]  # (S, d, N)
        entry = {pair: k for k, pair in enumerate((i, j) for i in range(d) for j in range(i))}
        none = jnp.zeros((noise.shape[0], index.shape[0]))
        shift = [sum((below[None, entry[i, j]] * unit_noise[:, j] for j in range(i)), none) for i in range(d)]
        solved: dict[int, Array] = {}
        for i in reversed(range(d)):
            rest = sum((below[None, entry[k, i]] * solved[k] for k in range(i + 1, d)), none)
            solved[i] = (unit_noise[:, i] - rest) / sd[None, i]
        no_globals = jnp.zeros(self.globals.loc.shape)

        def place_one(block: Float[Array, "d N"]) -> Float[Array, " D"]:
            return self.placement(no_globals, block)

        place = jax.vmap(place_one)
        is_local = place_one(jnp.ones(sd.shape))
        unit_pull = jnp.stack([solved[i] for i in range(d)], axis=1)
        return theta + place(jnp.stack(shift, axis=1)), jnp.where(
            (is_local > 0)[None], place(unit_pull), pull
        )


def trainable(family: Family) -> Family:
    """A tree of booleans: true at the leaves that training moves (globals and the inference function)."""
    fixed = jax.tree.map(lambda _: False, family)
    chosen = (
        jax.tree.map(eqx.is_inexact_array, family.globals),
        jax.tree.map(eqx.is_inexact_array, family.inference),
    )
    spec: Family = eqx.tree_at(lambda f: (f.globals, f.inference), fixed, chosen)
    return spec


def num_variational_parameters(family: Family) -> int:
    """How many numbers training moves."""
    moved = eqx.filter(family, trainable(family))
    return sum(int(leaf.size) for leaf in jax.tree.leaves(moved))
