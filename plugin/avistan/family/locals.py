"""The units' factors q(z_n | theta): a chain of parts, each a map of what a unit's latents are moved by.

    e -> base -> within -> flow -> sd -> scales by the globals -> neighbours -> + mean by the globals

A part maps x to y = T(x) for each unit. Beside y it keeps what estimators need: the log density of y, and the pull
-d log q / d y, the path derivative's half, which for a map with slope J is J^-T (pull of x + d log |det J| / dx). Forms
differ only in their parts, one file each (`locals` for what a unit's latents share, `student`, `flow`, `conditional`,
`band`); a new form is one more file with these two lines of algebra, and its place in `LocalGaussian.parts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log, pi

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from avistan.family import band, conditional, flow, student
from avistan.family.conditional import HIDDEN, start_curve
from avistan.family.functions import LocalNu
from avistan.family.globals import GlobalGaussian, LevelGlobals
from avistan.family.method import Conditional, LocalKind, Method
from avistan.family.normals import Noise
from avistan.family.parts import Moved, UnitParameters
from avistan.runtime.device import on_device, zeros
from avistan.runtime.streams import Stream, generator

HALF_LOG_2PI = 0.5 * log(2 * pi)
# With so few directions units' scales may vary widely along curves: the noise of their rates adds up over all.
_FEW_DIRECTIONS = 8
MAX_DIRECTIONS = 32  # of the globals that a conditional local factor depends on


class LocalGaussian(eqx.Module):
    """The form of the local factors, which says how nu_n is read.

    Attributes:
        kind: "diagonal"; "full": a Cholesky factor within the unit; "banded": that, and units depend on those before
            them along their axis.
        block: d, latents of a unit.
        conditional: "mean": the mean moves linearly with the globals; "mean+scale": the log scale (and B_n) too;
            "curved": both, along curved directions too.
        directions: K, in how many directions of the globals it moves; 0 unless conditional.
        reach: b, on how many units before it a unit depends; 0 unless banded.
        growth_range: of C_n a(t), beyond which it flattens. A network needs a smaller one than a table: it gives some
            units rates that they have not earned, and a few sds out the scale of one such unit is a disaster.
        flow: a flow transforms what a unit has of its own.
        hidden: H, how many of the directions are curved.
        shrink_range: as `growth_range` where C_n a(t) is negative: in the neck of a funnel scales are small.
        student: Student's t in place of the Gaussian.
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
    student: bool = eqx.field(static=True, default=False)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Numbers per unit of each part of `LocalNu`; of rates rows and columns, a column for each direction."""
        d, bands = self.block, self.reach * self.block**2
        slope = 0 if self.conditional == "none" else d
        growth = d + bands if self.scaled else 0
        return (
            (d, 1),
            (d, 1),
            (self.within + bands, 1),
            (slope, self.directions),
            (growth, self.directions),
            (d * flow.NUMBERS if self.flow else 0, 1),
            (student.NUMBERS if self.student else 0, 1),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers per unit of each part of `LocalNu`."""
        return tuple(rows * columns for rows, columns in self.shapes)

    @property
    def scaled(self) -> bool:
        """Whether scales depend on the globals."""
        return self.conditional in ("mean+scale", "curved")

    @property
    def within(self) -> int:
        """How many of the numbers `below` belong to L_n; the others are B_n, (b, d, d) of them."""
        return 0 if self.kind == "diagonal" else self.block * (self.block - 1) // 2

    @property
    def plain(self) -> bool:
        """Whether all latents are independent Gaussians, of each other and of the globals."""
        alone = self.kind == "diagonal" or (self.kind == "full" and self.block < 2)
        return self.conditional == "none" and alone and not self.flow and not self.student

    @property
    def parts(self) -> tuple[Callable[[UnitParameters, Moved], Moved], ...]:
        """The maps that follow the base, in their order."""
        chosen: list[tuple[bool, Callable[[UnitParameters, Moved], Moved]]] = [
            (self.within > 0, cholesky),
            (self.flow, flow.of_units),
            (True, scaled),
            (self.scaled, conditional.scales),
            (self.reach > 0, band.neighbours),
            (self.conditional != "none", conditional.means),
        ]
        return tuple(part for there, part in chosen if there)

    def draw(self, noise: Noise, units: UnitParameters) -> Moved:
        """Draws of all units around their means, from standard normals."""
        moved = student.base(units, noise) if self.student else gaussian(units, noise)
        for part in self.parts:
            moved = part(units, moved)
        return moved

    def start(self, log_sd: Float[Array, "d N"]) -> LocalNu:
        """Parameters with mean zero, the given log sds, no correlation and no slopes."""
        units = log_sd.shape[1]
        return LocalNu(zeros(self.block, units), log_sd, *(zeros(size, units) for size in self.sizes[2:]))


def gaussian(units: UnitParameters, noise: Noise) -> Moved:
    """The base of all forms but Student's: e itself."""
    e = noise.e.astype(jnp.float64)
    log_q = -0.5 * jnp.sum(e**2, axis=1) - e.shape[1] * HALF_LOG_2PI
    return Moved(e, e, log_q, jnp.zeros_like(units.at))


def scaled(units: UnitParameters, x: Moved) -> Moved:
    """sd_n x."""
    sd = jnp.exp(units.nu.log_sd)[None]
    return x._replace(
        value=sd * x.value, pull=x.pull / sd, log_q=x.log_q - jnp.sum(units.nu.log_sd, axis=0)[None]
    )


def cholesky(units: UnitParameters, x: Moved) -> Moved:
    """D_n^-1 L_n x with a lower L_n and its diagonal D_n; the pull by back substitution."""
    nu, d = units.nu, units.local.block
    pairs = [(i, j) for i in range(d) for j in range(i)]
    entry = {pair: nu.below[None, k] * jnp.exp(-nu.log_sd[None, pair[0]]) for k, pair in enumerate(pairs)}
    moved = [sum((entry[i, j] * x.value[:, j] for j in range(i)), x.value[:, i]) for i in range(d)]
    solved: dict[int, Array] = {}
    for i in reversed(range(d)):
        solved[i] = x.pull[:, i] - sum(entry[k, i] * solved[k] for k in range(i + 1, d))
    return x._replace(value=jnp.stack(moved, axis=1), pull=jnp.stack([solved[i] for i in range(d)], axis=1))


def local_form(
    method: Method, block: int, factor: GlobalGaussian | LevelGlobals
) -> tuple[LocalGaussian, Float[Array, "K0 G"] | None, Float[Array, "H Q"] | None]:
    """The form of a method's local factors, a start of the directions W for where globals are many, and one of curves.

    Beside a second level the directions are the free globals, if these are few: its latents belong to single units.
    """
    curved = method.conditional == "curved"
    growth_range = 5.0 if method.function == "table" else 1.0
    local = LocalGaussian(
        method.local,
        block,
        reach=method.reach,
        growth_range=growth_range,
        flow=method.flow and block > 0,
        student=method.student and block > 0,
        shrink_range=growth_range,
    )
    num_globals = factor.size
    if method.conditional == "none" or not block:
        return local, None, None
    directions, count = None, num_globals
    if isinstance(factor, LevelGlobals) and factor.free.size <= MAX_DIRECTIONS:
        count = factor.free.size
        chosen = np.zeros((count, num_globals))
        chosen[np.arange(count), np.asarray(factor.placement.global_index)] = 1.0
        directions = on_device(chosen)
    elif num_globals > MAX_DIRECTIONS:
        count = MAX_DIRECTIONS
        orthonormal, _ = np.linalg.qr(generator(0, Stream.DIRECTIONS).normal(size=(num_globals, count)))
        directions = on_device(orthonormal.T)
    hidden = HIDDEN if curved and count else 0
    local = replace(local, conditional=method.conditional, directions=count + hidden, hidden=hidden)
    if hidden and count <= _FEW_DIRECTIONS:
        local = replace(local, shrink_range=5.0)
    return local, directions, on_device(start_curve(count)) if hidden else None
