"""q(theta) and q(z_n | theta) of a fitted family as functions of theta, on the unconstrained scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from avistan.family.band import BAND_RANGE
from avistan.family.conditional import along
from avistan.family.family import Family
from avistan.family.flow import NUMBERS, Bent, bend, flattened, straighten
from avistan.runtime.precision import in_float64
from avistan.runtime.types import FloatArray, Rng
from stan_adapters.units.conditional_density import solve_lower

_NODES = 40  # of the quadrature that gives a bent factor's moments


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Approximation:
    """q(theta) prod_n q(z_n | theta) in numpy, on the unconstrained scale; the composition is that of `families`.

    theta = center + factor t, and z_n = loc_n + slope_n a(t) + x_n with x_n = exp(growth_n a(t)) chol_n e_n, t and e
    standard normal, a(t) as in `directions`. With a flow, factor t and chol_n e_n are bent entry by entry (`flows`). A
    unit that hangs on those before it adds sum_k (bands_nk + band_scales_nk band_slope_nk a(t)) x_{n-k} to its x_n;
    log q of a unit is then that given those before it. Rates flatten as in `families`.

    Attributes:
        center: (G,).
        factor: (G, G), or (G,) its diagonal.
        warp, unit_warp: numbers of the flow, (2, G) in units of `spread` (G,), and (2, N, d) in units of the diagonals
            of `chol`; None: no flow.
        loc, chol: (N, d), (N, d, d) lower.
        slope, growth: (N, d, K) along `directions` (K0, G), which is None for K0 = G, and along those of `curve`
            (H, K0 + 1), None for none; None: zero.
        bands: (N, b, d, d); None where units are independent given the globals.
        band_slope, band_scales: (N, b d d, K) and (N, b d d); None: zero.
    """

    center: FloatArray
    factor: FloatArray
    loc: FloatArray
    chol: FloatArray
    slope: FloatArray | None = None
    growth: FloatArray | None = None
    directions: FloatArray | None = None
    curve: FloatArray | None = None
    bands: FloatArray | None = None
    band_slope: FloatArray | None = None
    band_scales: FloatArray | None = None
    growth_range: float = 5.0
    shrink_range: float = 5.0
    warp: FloatArray | None = None
    spread: FloatArray | None = None
    unit_warp: FloatArray | None = None

    @property
    def num_globals(self) -> int:
        return len(self.center)

    @property
    def log_det(self) -> float:
        if self.factor.ndim == 1:
            return float(np.log(self.factor).sum())
        return float(np.linalg.slogdet(self.factor)[1])

    def draw_globals(self, rng: Rng, draws: int) -> FloatArray:
        """Draws (S, G) of theta."""
        return self.globals_at(rng.standard_normal((draws, self.num_globals)))

    def globals_at(self, t: FloatArray) -> FloatArray:
        """theta (S, G) of standard normals (S, G)."""
        moved = t * self.factor if self.factor.ndim == 1 else t @ self.factor.T
        if self.warp is not None and self.spread is not None:
            moved = self.spread * bend(self.warp, moved / self.spread).value
        return np.asarray(self.center + moved)

    def standard(self, theta: FloatArray) -> FloatArray:
        """The standard normals t (S, G) of theta (S, G)."""
        moved = self._straight(theta)
        if self.factor.ndim == 1:
            return moved / self.factor
        return np.linalg.solve(self.factor, moved.T).T

    def _straight(self, theta: FloatArray) -> FloatArray:
        """factor t (S, G) of theta (S, G)."""
        if self.warp is None or self.spread is None:
            return theta - self.center
        return np.asarray(self.spread * straighten(self.warp, (theta - self.center) / self.spread))

    def log_q_globals(self, theta: FloatArray) -> FloatArray:
        """log q(theta) (S,), nats."""
        square = (self.standard(theta) ** 2).sum(axis=1)
        log_q = -0.5 * square - self.log_det - 0.5 * self.num_globals * np.log(2 * np.pi)
        if self.warp is not None and self.spread is not None:
            log_q = log_q - bend(self.warp, self._straight(theta) / self.spread).log_slope.sum(axis=1)
        return np.asarray(log_q)

    def places(self, theta: FloatArray) -> FloatArray:
        """Where (S, N, d) q(z_n | theta) has e_n = 0: its means, unless a flow bends it."""
        return np.asarray(self._follow(self.slope, theta) + self.loc)

    def local_means(self, theta: FloatArray) -> FloatArray:
        """Means (S, N, d) of q(z_n | theta)."""
        places = self.places(theta)
        return (
            places if self.unit_warp is None else places + self.local_scales(theta) * self._own_moments()[0]
        )

    def local_sds(self, theta: FloatArray) -> FloatArray:
        """Sds (S, N, d), or (1, N, d) if these do not depend on theta, of q(z_n | theta)."""
        return np.asarray(self.local_scales(theta) * self._own_moments()[1])

    def _own_moments(self) -> tuple[FloatArray, FloatArray]:
        """Means and sds (N, d) of x_n at scale 1; of a flow by quadrature."""
        sd = np.sqrt((self.chol**2).sum(axis=2))
        if self.unit_warp is None:
            return np.zeros_like(sd), sd
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        diagonal = self._diagonal()
        bent = diagonal * bend(self.unit_warp, nodes[:, None, None] * (sd / diagonal)).value
        share = (weights / weights.sum())[:, None, None]
        mean = (share * bent).sum(axis=0)
        return mean, np.sqrt((share * (bent - mean) ** 2).sum(axis=0))

    def _diagonal(self) -> FloatArray:
        return np.diagonal(self.chol, axis1=1, axis2=2)

    def own(self, e: FloatArray) -> OwnMoves:
        """What units have of their own at standard normals (S, N, d), at scale 1."""
        straight = np.einsum("nij,snj->sni", self.chol, e)
        if self.unit_warp is None:
            return OwnMoves(straight, None, np.zeros((1, 1, 1)))
        bent = bend(self.unit_warp, straight / self._diagonal())
        return OwnMoves(self._diagonal() * bent.value, bent, bent.log_slope)

    def local_scales(self, theta: FloatArray) -> FloatArray:
        """Factors (S, N, d), or ones (1, 1, 1), by which the rows of `chol` grow with theta."""
        if self.growth is None:
            return np.ones((1, 1, 1))
        growth, _ = flattened(self._follow(self.growth, theta), self.growth_range, self.shrink_range)
        return np.asarray(np.exp(growth))

    def locals_at(self, theta: FloatArray, e: FloatArray) -> tuple[FloatArray, FloatArray]:
        """z (S, N, d) of theta (S, G) and standard normals (S, N, d), and log q(z_n | theta) (S, N), nats."""
        scales = self.local_scales(theta)
        own = self.own(e)
        z = self.places(theta) + self._along_axis(theta, scales * own.x)
        log_det = np.log(self._diagonal()).sum(axis=1) + (np.log(scales) + own.log_slope).sum(axis=2)
        half = 0.5 * self.loc.shape[1] * np.log(2 * np.pi)
        return z, np.asarray(-0.5 * (e**2).sum(axis=2) - log_det - half)

    def _along_axis(self, theta: FloatArray, own: FloatArray) -> FloatArray:
        """x (S, N, d) of what units have beside what they take from those before them."""
        if self.bands is None:
            return own
        num_units, reach = self.bands.shape[:2]
        bands, moved = self.bands[None], own.copy()
        if self.band_slope is not None and self.band_scales is not None:
            bend = BAND_RANGE * np.tanh(self._follow(self.band_slope, theta) / BAND_RANGE)
            bands = bands + (self.band_scales * bend).reshape(len(own), *self.bands.shape)
        for n in range(num_units):
            for k in range(1, min(reach, n) + 1):
                moved[:, n] += (bands[:, n, k - 1] @ moved[:, n - k, :, None])[..., 0]
        return moved

    def log_q_locals(self, theta: FloatArray, z: FloatArray) -> FloatArray:
        """log q(z_n | theta) (S, N) at z (S, N, d), nats; units must be independent given the globals."""
        own = (z - self.places(theta)) / self.local_scales(theta)
        if self.unit_warp is not None:
            own = self._diagonal() * straighten(self.unit_warp, own / self._diagonal())
        return self.locals_at(theta, solve_lower(self.chol, own))[1]

    def _follow(self, rates: FloatArray | None, theta: FloatArray) -> FloatArray:
        if rates is None:
            return np.zeros((1, 1, 1))
        at = along(self.standard(theta), self.directions, self.curve).value
        return np.asarray(np.einsum("ndk,sk->snd", rates, at))


class OwnMoves(NamedTuple):
    """What units have of their own: x (S, N, d), the flow there (None without), and its log slopes (or zeros)."""

    x: FloatArray
    bent: Bent | None
    log_slope: FloatArray


@in_float64
def approximation(family: Family, inputs: FloatArray) -> Approximation:
    """The numpy form of a family at unit inputs (N, R)."""
    frame, own, local = family.frame, family.globals.resolved(), family.local
    scale = np.asarray(frame.global_scale)
    if own.kind != "mean-field":
        factor = scale[:, None] * np.asarray(own.factor())
    else:
        factor = scale * np.exp(np.asarray(own.log_sd))
    nu = family.local_parameters(jnp.asarray(inputs, dtype=jnp.float32))
    block, num_units = nu.loc.shape
    chol = np.zeros((num_units, block, block))
    chol[:, np.arange(block), np.arange(block)] = np.exp(np.asarray(nu.log_sd)).T
    if local.within:
        rows, columns = np.tril_indices(block, -1)
        chol[:, rows, columns] = np.asarray(nu.below[: local.within]).T
    growth, bands, band_slope, band_scales = np.asarray(nu.growth), None, None, None
    if local.reach:
        bands = np.asarray(nu.below[local.within :]).T.reshape(num_units, local.reach, block, block)
        size = local.reach * block * block
        if growth.shape[0]:
            of_bands = growth[block * local.directions :].reshape(size, local.directions, num_units)
            band_slope, growth = np.moveaxis(of_bands, 2, 0), growth[: block * local.directions]
            band_scales = np.broadcast_to(np.asarray(family.scales_of_bands()), (size, num_units)).T

    def per_direction(values: FloatArray) -> FloatArray | None:
        if not values.shape[0]:
            return None
        return np.moveaxis(values.reshape(block, local.directions, num_units), 2, 0)

    return Approximation(
        center=np.asarray(frame.global_center) + scale * np.asarray(own.loc),
        factor=factor,
        loc=np.asarray(nu.loc).T,
        chol=chol,
        slope=per_direction(np.asarray(nu.slope)),
        growth=per_direction(growth),
        directions=None if family.directions is None else np.asarray(family.directions),
        curve=None if family.curve is None else np.asarray(family.curve),
        bands=bands,
        band_slope=band_slope,
        band_scales=band_scales,
        growth_range=local.growth_range,
        shrink_range=local.shrink_range,
        warp=None if own.warp is None else np.asarray(own.warp),
        spread=scale * np.exp(np.asarray(own.log_sd)),
        unit_warp=np.asarray(nu.warp).reshape(block, NUMBERS, num_units).T.swapaxes(0, 1)
        if local.flow
        else None,
    )
