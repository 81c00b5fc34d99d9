"""The variational family q(theta) prod_n q(z_n | theta; nu_n) on the unconstrained scale, in Stan's coordinate order.

One composition for table, constant and network alike:

    theta = m + L t                                  t standard normal; L = D diagonal (mean-field), lower (full-rank)
                                                     or D (I + A B') with few columns (low-rank)
    z_n   = m_n + A_n a(t) + x_n                     x_n = u_n = exp(C_n a(t)) * L_n e_n
                                                     e_n standard normal; L_n diagonal or lower (full)

with nu_n = (m_n, L_n, A_n, C_n) from the inference function. A and C are absent unless the local factor is conditional
on the globals; a(t) is W t, where W is the identity, or a learned map to few directions where globals are many, and
may have curved directions beside these (`directions`). Units that are coupled along their axis (banded) are a Gaussian
Markov chain given the globals,

    x_n = u_n + sum_k (B_{n,k} + D_{n,k} a(t)) x_{n-k}

with B_n and, where scales follow the globals, D_n in nu_n too. Where two levels are amortized, the latents of the
second are among the globals, and their entries of m and L come from an inference function of their own. All parameters
are standardized by a fixed frame (a quick fit's centres and scales), so that one learning rate suits all of them.

With a flow what moves a global or a unit is bent, entry by entry, by a map T (`flows`) in its own sds: L t
becomes D T(D^-1 L t) and L_n e_n becomes D_n T_n(D_n^-1 L_n e_n), where D is the diagonal of L; Gaussian correlations
stay, and each entry has a shape of its own.
"""

from __future__ import annotations

import operator
from itertools import pairwise
from math import log, pi
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Float32, Int

from avistan.family.directions import along, through_curve
from avistan.family.flow import NUMBERS, bend, flattened
from avistan.family.functions import AbstractInferenceFunction, LocalNu, Table
from avistan.family.gaussian_chain import follow, pull_back, shifted
from avistan.runtime.device import on_device, zeros
from stan_adapters.data.layout import IndexArray

GlobalKind = Literal["mean-field", "full-rank", "low-rank"]
LocalKind = Literal["diagonal", "full", "banded"]
Conditional = Literal["none", "mean", "mean+scale", "curved"]
_HALF_LOG_2PI = 0.5 * log(2 * pi)
BAND_RANGE = 1.0  # of D_n a(t), beyond which it flattens


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
    global_index: Int[Array, " G"]
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
        on_device(order),
        on_device(np.argsort(order)),
        on_device(globals_index),
        on_device(local_index),
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
    given = (np.asarray(part) for part in (global_center, global_scale, local_center, local_scale))
    center, scale, own_center, own_scale = given
    parts = (center, scale, np.log(scale), own_center, own_scale, np.log(own_scale))
    return Frame(*map(on_device, parts))


class GlobalGaussian(eqx.Module):
    """The globals' factor, standardized: means, log sds (log diagonal of D or of the Cholesky factor), the rest of L.

    Low-rank factors D (I + A B') need no more normals than there are globals. With A = P orthonormal and B = P C they
    hold all covariances D^2 + U U' of that rank; where B = 0 they are the mean-field factor.
    """

    kind: GlobalKind = eqx.field(static=True)
    loc: Float[Array, " G"]
    log_sd: Float[Array, " G"]
    below: Float[
        Array, " B"
    ]  # none; "full-rank": G (G - 1) / 2 entries, row by row; "low-rank": A and B, (2, G, K)
    warp: Float[Array, "F G"] | None = None  # of the flow; None: a Gaussian

    @property
    def size(self) -> int:
        return int(self.loc.shape[0])

    def resolved(self) -> GlobalGaussian:
        """The factor with its parameters as arrays: itself."""
        return self

    def factor(self) -> Float[Array, "G G"]:
        """L, the factor of the standardized globals' covariance; the Cholesky factor unless it is low-rank."""
        if self.kind == "low-rank":
            return self.moved(jnp.eye(self.size)).T
        if self.kind == "mean-field":
            return jnp.diag(jnp.exp(self.log_sd))
        lower = jnp.zeros((self.size, self.size)).at[np.tril_indices(self.size, -1)].set(self.below)
        return lower + jnp.diag(jnp.exp(self.log_sd))

    def moved(self, t: Float[Array, "S G"]) -> Float[Array, "S G"]:
        """L t for each row."""
        if self.kind == "full-rank":
            return t @ self.factor().T
        if self.kind == "low-rank":
            out, into = self._columns()
            t = t + (t @ into) @ out.T
        return t * jnp.exp(self.log_sd)[None]

    def solved(self, pull: Float[Array, "S G"]) -> Float[Array, "S G"]:
        """The solution x of L' x = pull for each row; of a low-rank L by Woodbury's identity."""
        if self.kind == "full-rank":
            return jax.scipy.linalg.solve_triangular(self.factor().T, pull.T, lower=False).T
        if self.kind == "low-rank":
            out, into = self._columns()
            pull = pull - jnp.linalg.solve(self._capacitance(), (pull @ out).T).T @ into.T
        return pull / jnp.exp(self.log_sd)[None]

    def log_det(self) -> Float[Array, ""]:
        """log |det L|; of a low-rank L by the matrix determinant lemma."""
        total = jnp.sum(self.log_sd)
        return total + jnp.linalg.slogdet(self._capacitance())[1] if self.kind == "low-rank" else total

    def _columns(self) -> Float[Array, "2 G K"]:
        return self.below.reshape(2, self.size, -1)

    def _capacitance(self) -> Float[Array, "K K"]:
        out, into = self._columns()
        return jnp.eye(out.shape[1]) + out.T @ into


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
        return GlobalGaussian(free.kind, loc, log_sd, free.below)

    @property
    def warp(self) -> None:
        """None: two amortized levels have no flow of the globals."""
        return None


def start_globals(kind: GlobalKind, size: int, rank: int = 0, *, flow: bool = False) -> GlobalGaussian:
    """Means zero, sds one, no correlations; of low rank with A random and orthonormal, B = 0; flows the identity."""
    below = zeros(size * (size - 1) // 2 if kind == "full-rank" else 0)
    if kind == "low-rank":
        out, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, min(rank, size))))
        below = on_device(np.stack([out, np.zeros(out.shape)]).ravel())
    return GlobalGaussian(kind, zeros(size), zeros(size), below, zeros(NUMBERS, size) if flow else None)


class LocalGaussian(eqx.Module):
    """The form of the local factors, which says how nu_n is read.

    Attributes:
        kind: "diagonal"; "full": a Cholesky factor within the unit; "banded": that, and the units hang on those before
            them along their axis.
        block: d, latents of a unit.
        conditional: "mean": the mean moves linearly with the globals; "mean+scale": the log scale (and B_n) too;
            "curved": both, along curved directions too.
        directions: K, in how many directions of the globals it moves; 0 unless conditional.
        reach: b, on how many units before it a unit hangs; 0 unless banded.
        growth_range: of C_n a(t), beyond which it flattens. A network needs a smaller one than a table: it gives some
            units rates that they have not earned, and a few sds out the scale of one such unit is a disaster.
        flow: a flow bends what a unit has of its own.
        hidden: H, how many of the directions are curved.
        shrink_range: as `growth_range` where C_n a(t) is negative: in the neck of a funnel scales are small.
    """

    kind: LocalKind = eqx.field(static=True)
    block: int = eqx.field(static=True)
    conditional: Conditional = eqx.field(static=True, default="none")
    directions: int = eqx.field(static=True, default=0)
    reach: int = eqx.field(static=True, default=0)
    growth_range: float = eqx.field(static=True, default=5.0)
    flow: bool = eqx.field(static=True, default=False)
    hidden: int = eqx.field(static=True, default=0)
    shrink_range: float = eqx.field(static=True, default=5.0)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Numbers per unit of each part of `LocalNu`; of rates rows and columns, a column for each direction."""
        d, bands = self.block, self.reach * self.block**2
        slope = 0 if self.conditional == "none" else d
        growth = d + bands if self.scaled else 0
        plain = ((size, 1) for size in (d, d, self.within + bands))
        return (
            *plain,
            (slope, self.directions),
            (growth, self.directions),
            (d * NUMBERS if self.flow else 0, 1),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers per unit of each part of `LocalNu`."""
        return tuple(rows * columns for rows, columns in self.shapes)

    @property
    def scaled(self) -> bool:
        """Whether scales follow the globals."""
        return self.conditional in ("mean+scale", "curved")

    @property
    def within(self) -> int:
        """How many of the numbers `below` belong to L_n; the others are B_n, (b, d, d) of them."""
        return 0 if self.kind == "diagonal" else self.block * (self.block - 1) // 2

    @property
    def num_parameters(self) -> int:
        return sum(self.sizes)

    @property
    def plain(self) -> bool:
        """Whether all latents are independent of each other and of the globals."""
        alone = self.kind == "diagonal" or (self.kind == "full" and self.block < 2)
        return self.conditional == "none" and alone and not self.flow

    def start(self, log_sd: Float[Array, "d N"]) -> LocalNu:
        """Parameters with mean zero, the given log sds, no correlation and no slopes."""
        units = log_sd.shape[1]
        return LocalNu(zeros(self.block, units), log_sd, *(zeros(size, units) for size in self.sizes[2:]))


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
    def factorized(self) -> bool:
        """Whether q is a mean-field Gaussian."""
        return self.globals.kind == "mean-field" and self.globals.warp is None and self.local.plain

    def local_parameters(self, inputs: Float[Array, "N R"]) -> LocalNu:
        """Parameters of all units on the unconstrained scale; `loc` is the mean at the centre of the globals."""
        nu, frame, local = self.inference(inputs), self.frame, self.local
        slopes = np.repeat(np.arange(local.block), local.directions)
        return LocalNu(
            frame.local_center + frame.local_scale * nu.loc,
            frame.local_log_scale + nu.log_sd,
            nu.below * self._scales_below() if nu.below.shape[0] else nu.below,
            nu.slope * frame.local_scale[slopes] if nu.slope.shape[0] else nu.slope,
            nu.growth,
            nu.warp,
        )

    def _scales_below(self) -> Float[Array, "B M"]:
        """Scales of L_n below its diagonal, and of B_n."""
        local = self.local
        rows = np.array([i for i in range(local.block) for _ in range(i)][: local.within], dtype=int)
        return jnp.concatenate([self.frame.local_scale[rows], self.scales_of_bands()])

    def scales_of_bands(self) -> Float[Array, "P M"]:
        """Scales of B_n and D_n: a latent's over that of the latent it hangs on, (b d d, 1 or N)."""
        scale = self.frame.local_scale
        before = [jnp.roll(scale, k, axis=1) for k in range(1, self.local.reach + 1)]
        parts = [(scale[:, None] / other[None]).reshape(-1, scale.shape[1]) for other in before]
        return jnp.concatenate([scale[:0], *parts])

    def draw(self, noise: Float[Array, "S D"], inputs: Float[Array, "N R"]) -> Draws:
        """Draws of q from standard normals in Stan's coordinate order.

        Source: reparameterization, Kingma & Welling, ICLR 2014; `pull` as in Roeder et al., NeurIPS 2017.
        """
        noise = noise.astype(jnp.float64)
        local = self.local_parameters(inputs)
        if self.factorized:
            return self._draw_independent(noise, local)
        return self._draw_structured(noise, local)

    def _draw_independent(self, noise: Float[Array, "S D"], local: LocalNu) -> Draws:
        frame, own = self.frame, self.globals.resolved()
        mean = self.placement(frame.global_center + frame.global_scale * own.loc, local.loc)
        log_sd = self.placement(frame.global_log_scale + own.log_sd, local.log_sd)
        sd = jnp.exp(log_sd)
        log_q = -0.5 * jnp.sum(noise**2, axis=1) - jnp.sum(log_sd) - self.dim * _HALF_LOG_2PI
        return Draws(mean[None] + sd[None] * noise, log_q, noise / sd[None])

    def _draw_structured(self, noise: Float[Array, "S D"], local: LocalNu) -> Draws:
        """The whole composition. With u = M e and p = M^-T e the pull of z is (I - B)' p; that of t has the terms
        through which the locals follow it.
        """
        frame, of_globals = self.frame, self.globals.resolved()
        t, e = noise[:, self.placement.global_index], noise[:, self.placement.local_index.T]
        at, bends = along(t, self.directions, self.curve)
        own, solved = self._within_units(e, local)
        log_det = jnp.sum(frame.global_log_scale) + of_globals.log_det() + jnp.sum(local.log_sd)
        if self.local.flow:
            numbers = local.warp.reshape(self.local.block, NUMBERS, -1).swapaxes(0, 1)
            own, solved, log_slopes = _bent(numbers, jnp.exp(local.log_sd), own, solved)
            log_det = log_det + jnp.sum(log_slopes, axis=(1, 2))
        pull_t, back = t, jnp.zeros_like(at)
        if self.local.scaled:
            rates = self._per_direction(local.growth)[: self.local.block]
            raw = jnp.einsum("dkn,sk->sdn", rates, at)
            growth, bend = flattened(raw, self.local.growth_range, self.local.shrink_range)
            own, solved = jnp.exp(growth) * own, jnp.exp(-growth) * solved
            back = back - jnp.einsum("dkn,sdn->sk", rates, bend * (solved * own - 1))
            log_det = log_det + jnp.sum(growth, axis=(1, 2))
        moved, pull_z = own, solved
        if self.local.reach:
            moved, pull_z, more = self._along_axis(own, solved, at, local)
            back = back + more
        z = local.loc[None] + moved
        if self.local.conditional != "none":
            slope = self._per_direction(local.slope)
            z = z + jnp.einsum("dkn,sk->sdn", slope, at)
            back = back - jnp.einsum("dkn,sdn->sk", slope, pull_z)
            back = through_curve(back, bends, self.curve)
            pull_t = pull_t + (back if self.directions is None else back @ self.directions)
        standard, pull = of_globals.moved(t), of_globals.solved(pull_t)
        if of_globals.warp is not None:
            standard, pull, log_slopes = _bent(of_globals.warp, jnp.exp(of_globals.log_sd), standard, pull)
            log_det = log_det + jnp.sum(log_slopes, axis=1)
        theta = frame.global_center[None] + frame.global_scale[None] * (of_globals.loc[None] + standard)
        place = jax.vmap(self.placement)
        log_q = -0.5 * jnp.sum(noise**2, axis=1) - log_det - self.dim * _HALF_LOG_2PI
        return Draws(place(theta, z), log_q, place(pull / frame.global_scale[None], pull_z))

    def _per_direction(self, values: Float[Array, "dK N"]) -> Float[Array, "d K N"]:
        return values.reshape(-1, self.local.directions, values.shape[1])

    def _along_axis(
        self,
        own: Float[Array, "S d N"],
        solved: Float[Array, "S d N"],
        at: Float[Array, "S K"],
        local: LocalNu,
    ) -> tuple[Float[Array, "S d N"], Float[Array, "S d N"], Float[Array, "S K"]]:
        """x and its pull for units that hang on those before them, and the pull of a(t) through B."""
        d, reach = self.local.block, self.local.reach
        shape = (own.shape[2], reach, d, d, -1)
        bands = local.below[self.local.within :].T.reshape(shape)
        if not self.local.scaled:
            return follow(bands, own.T).T, pull_back(bands, solved.T).T, jnp.zeros_like(at)
        rates = self._per_direction(local.growth)[d:]
        more, bend = flattened(jnp.einsum("pkn,sk->nps", rates, at), BAND_RANGE)
        scales = self.scales_of_bands().T[:, :, None]
        bands = bands + (scales * more).reshape(shape)
        moved = follow(bands, own.T)
        products = [
            solved.T[:, :, None] * shifted(moved, k)[:, None] for k in range(1, reach + 1)
        ]  # (N, d, d, S) each
        through = scales * bend * jnp.stack(products, axis=1).reshape(bend.shape)
        return moved.T, pull_back(bands, solved.T).T, -jnp.einsum("pkn,nps->sk", rates, through)

    def _within_units(
        self, e: Float[Array, "S d N"], local: LocalNu
    ) -> tuple[Float[Array, "S d N"], Float[Array, "S d N"]]:
        """L_n e_n and the solution p of L_n' p = e_n, by back substitution."""
        sd, d = jnp.exp(local.log_sd), self.local.block
        if self.local.kind == "diagonal":
            return sd[None] * e, e / sd[None]
        entry = {pair: k for k, pair in enumerate((i, j) for i in range(d) for j in range(i))}
        moved = [
            sum((local.below[None, entry[i, j]] * e[:, j] for j in range(i)), sd[None, i] * e[:, i])
            for i in range(d)
        ]
        solved: dict[int, Array] = {}
        for i in reversed(range(d)):
            rest = [local.below[None, entry[k, i]] * solved[k] for k in range(i + 1, d)]
            solved[i] = (e[:, i] - sum(rest, jnp.zeros_like(e[:, i]))) / sd[None, i]
        return jnp.stack(moved, axis=1), jnp.stack([solved[i] for i in range(d)], axis=1)


def _bent(
    numbers: Float[Array, P * M],
    sd: Float[Array, "*M"],
    moved: Float[Array, S * M],
    pull: Float[Array, S * M],
) -> tuple[Float[Array, S * M], Float[Array, S * M], Float[Array, S * M]]:
    """What moves entries, and its pull, through a flow in units of sds; and the log slopes of that."""
    bent = bend(numbers, moved / sd[None])
    return (
        sd[None] * bent.value,
        (pull + bent.curvature / sd[None]) * jnp.exp(-bent.log_slope),
        bent.log_slope,
    )


def mean_field_family(mean: ArrayLike, sd: ArrayLike) -> Family:
    """The mean-field Gaussian with means and sds (D,) on the unconstrained scale, every parameter a global."""
    nothing = zeros(0, 0)
    frame = make_frame(mean, sd, nothing, nothing)
    size, local = len(frame.global_center), LocalGaussian("diagonal", 0)
    placement = make_placement(np.arange(size), np.empty((0, 0), dtype=np.int64))
    table = Table(local.start(nothing))
    return Family(start_globals("mean-field", size), table, local, frame, placement, None)


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
    """Whether the directions are the free globals beside a second level's latents: those are not learned."""
    own = family.globals
    return (
        isinstance(own, LevelGlobals)
        and family.directions is not None
        and family.directions.shape[0] == own.free.size
    )


def num_variational_parameters(family: Family) -> int:
    """How many numbers training moves."""
    moved = eqx.filter(family, trainable(family))
    return sum(int(leaf.size) for leaf in jax.tree.leaves(moved))
