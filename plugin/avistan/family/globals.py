"""The globals' factor: theta = loc + T(L t) on the standardized scale, with t standard normal.

L is diagonal (mean-field), the lower Cholesky factor (full-rank), or D (I + A B') with few columns (low-rank); T is the
identity, or a flow that transforms each global in its own sds (`flow`).
"""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from avistan.family.flow import NUMBERS
from avistan.family.functions import AbstractInferenceFunction
from avistan.family.method import GlobalKind
from avistan.family.placement import Placement
from avistan.runtime.device import on_device, zeros
from avistan.runtime.streams import Stream, generator


class GlobalGaussian(eqx.Module):
    """Mean-field globals: means, log sds, standardized, and maybe a flow. Its subclasses add covariances."""

    kind: ClassVar[GlobalKind] = "mean-field"
    loc: Float[Array, " G"]
    log_sd: Float[Array, " G"]  # log diagonal of D or of the Cholesky factor
    below: Float[Array, " B"]  # what else L has: none here
    warp: Float[Array, "F G"] | None = None  # of the flow; None: a Gaussian

    @property
    def size(self) -> int:
        return int(self.loc.shape[0])

    def resolved(self) -> GlobalGaussian:
        """The factor with its parameters as arrays: itself."""
        return self

    def factor(self) -> Float[Array, "G G"]:
        """L."""
        return jnp.diag(jnp.exp(self.log_sd))

    def moved(self, t: Float[Array, "S G"]) -> Float[Array, "S G"]:
        """L t for each row."""
        return t * jnp.exp(self.log_sd)[None]

    def standard(self, moved: Float[Array, "S G"]) -> Float[Array, "S G"]:
        """The solution t of L t = moved for each row: the inverse of `moved`."""
        return moved / jnp.exp(self.log_sd)[None]

    def solved(self, pull: Float[Array, "S G"]) -> Float[Array, "S G"]:
        """The solution x of L' x = pull for each row."""
        return pull / jnp.exp(self.log_sd)[None]

    def log_det(self) -> Float[Array, ""]:
        """log |det L|."""
        return jnp.sum(self.log_sd)


class FullRankGlobals(GlobalGaussian):
    """`below` holds the G (G - 1) / 2 entries of the Cholesky factor below its diagonal, row by row."""

    kind: ClassVar[GlobalKind] = "full-rank"

    def factor(self) -> Float[Array, "G G"]:
        entries = jnp.concatenate([self.below, jnp.exp(self.log_sd), jnp.zeros(1)])
        where, below = np.full((self.size, self.size), len(entries) - 1), len(self.below)
        where[np.tril_indices(self.size, -1)] = np.arange(below)
        np.fill_diagonal(where, below + np.arange(self.size))
        return entries[where]

    def moved(self, t: Float[Array, "S G"]) -> Float[Array, "S G"]:
        return t @ self.factor().T

    def standard(self, moved: Float[Array, "S G"]) -> Float[Array, "S G"]:
        return jax.scipy.linalg.solve_triangular(self.factor(), moved.T, lower=True).T

    def solved(self, pull: Float[Array, "S G"]) -> Float[Array, "S G"]:
        solved: Array = jax.scipy.linalg.solve_triangular(self.factor().T, pull.T, lower=False)
        return solved.T


class LowRankGlobals(GlobalGaussian):
    """D (I + A B') with `below` holding A and B, (2, G, K): it needs no more normals than there are globals.

    With A = P orthonormal and B = P C these are all covariances D^2 + U U' of that rank; B = 0 is the mean-field
    factor. Solutions by Woodbury's identity, the determinant by the matrix determinant lemma.
    """

    kind: ClassVar[GlobalKind] = "low-rank"

    def factor(self) -> Float[Array, "G G"]:
        return self.moved(jnp.eye(self.size)).T

    def moved(self, t: Float[Array, "S G"]) -> Float[Array, "S G"]:
        out, into = self._columns()
        return super().moved(t + (t @ into) @ out.T)

    def standard(self, moved: Float[Array, "S G"]) -> Float[Array, "S G"]:
        out, into = self._columns()
        t = super().standard(moved)
        inner: Array = jnp.linalg.solve(self._capacitance().T, (t @ into).T).T
        return t - inner @ out.T

    def solved(self, pull: Float[Array, "S G"]) -> Float[Array, "S G"]:
        out, into = self._columns()
        return super().solved(pull - jnp.linalg.solve(self._capacitance(), (pull @ out).T).T @ into.T)

    def log_det(self) -> Float[Array, ""]:
        log_det: Array = jnp.linalg.slogdet(self._capacitance())[1]
        return super().log_det() + log_det

    def _columns(self) -> Float[Array, "2 G K"]:
        return self.below.reshape(2, self.size, -1)

    def _capacitance(self) -> Float[Array, "K K"]:
        out, into = self._columns()
        return jnp.eye(out.shape[1]) + out.T @ into


_KINDS: dict[GlobalKind, type[GlobalGaussian]] = {
    one.kind: one for one in (GlobalGaussian, FullRankGlobals, LowRankGlobals)
}


class LevelGlobals(eqx.Module):
    """Globals that hold the latents of a second level: mean-field, with those latents' part from a function.

    Attributes:
        free: the factor of the globals of no level, mean-field.
        inference: of the second level's units.
        inputs: of those units; fixed.
        placement: the free globals and the second level's latents among all globals.
    """

    free: GlobalGaussian
    inference: AbstractInferenceFunction
    inputs: Float32[Array, "M R"]
    placement: Placement

    @property
    def kind(self) -> GlobalKind:
        return self.free.kind

    @property
    def size(self) -> int:
        return int(self.placement.order.shape[0])

    @property
    def loc(self) -> Float[Array, " G"]:
        return self.resolved().loc

    @property
    def log_sd(self) -> Float[Array, " G"]:
        return self.resolved().log_sd

    @eqx.filter_jit
    def resolved(self) -> GlobalGaussian:
        """The factor of all G globals, differentiable."""
        nu, free = self.inference(self.inputs), self.free
        loc, log_sd = self.placement(free.loc, nu.loc), self.placement(free.log_sd, nu.log_sd)
        return GlobalGaussian(loc, log_sd, free.below)

    @property
    def warp(self) -> None:
        """None: two amortized levels have no flow of the globals."""
        return None


def start_globals(kind: GlobalKind, size: int, rank: int = 0, *, flow: bool = False) -> GlobalGaussian:
    """Means zero, sds one, no correlations; of low rank with A random and orthonormal, B = 0; flows the identity."""
    below = zeros(size * (size - 1) // 2 if kind == "full-rank" else 0)
    if kind == "low-rank":
        out, _ = np.linalg.qr(generator(0, Stream.LOW_RANK).normal(size=(size, min(rank, size))))
        below = on_device(np.stack([out, np.zeros(out.shape)]).ravel())
    return _KINDS[kind](zeros(size), zeros(size), below, zeros(NUMBERS, size) if flow else None)
