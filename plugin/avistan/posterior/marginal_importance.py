"""Importance ratios of a fit: of its globals with the local latents integrated out, and draws corrected by them.

The joint ratio p(theta, z, x) / q(theta, z) of all parameters varies the more, the more units there are, so its weights
are useless long before q is bad. For separable units the marginal p(theta, x) is a product of one integral for each
unit (`units.conditional_density`), and the ratio p(theta, x) / q(theta) judges, and corrects, what is global.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from avistan.family.directions import along
from avistan.family.family import BAND_RANGE, Family
from avistan.family.flow import NUMBERS, Bent, bend, flattened, straighten
from avistan.objective.elbo import pareto_khat
from avistan.posterior.draws import FittedFamily
from avistan.runtime.errors import FitError
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import begin_stage
from avistan.runtime.types import FloatArray, Rng
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import StructureError
from stan_adapters.levels.levels import Level
from stan_adapters.levels.probes import Prober, probe_points, separability
from stan_adapters.units.conditional_density import (
    Grade,
    UnitDensity,
    cholesky,
    line_directions,
    solve_lower,
)

_CHECKED = 24  # draws of the globals at which integrals are held against the finest
_COARSE_ERROR = 0.25  # nats of standard deviation over these: it costs 6 % of the effective draws
_FEW_LATENTS = 300  # with fewer, integrals are the finest from the start
_NODES = 40  # of the quadrature that gives a bent factor's moments
_ROUNDS = 2  # of adapted proposals, each of half as many draws as there are of q
_FREEDOM, _WIDER = 5.0, 1.1  # t proposals, a little wider than what the weights say
_NEARLY_EQUAL = 0.5  # share of effective draws
_EQUAL = 0.9  # share at which even q's own weights leave nothing to a tail
_FIRST, _FEWEST = 4, 200  # a quarter of the draws are looked at first, but not fewer than k-hat takes
_LIGHT = 0.5  # k-hat of weights with a variance
_HOPELESS = 0.05  # share below which more of q's draws won't help
_MOST_ADAPTED, _LEAST_PER_DIMENSION = (
    60,
    5,
)  # dimensions, and draws for each, with which a covariance is found


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


def unit_density(fit: FittedFamily) -> UnitDensity | None:
    """Densities of the fitted level's units; None without a level, or where its units are coupled."""
    if fit.level is None or fit.family.local.reach or not is_separable(fit.model, fit.level, fit.seed):
        return None
    return UnitDensity(fit.model, fit.level.index, fit.level.globals_index(fit.model.dim))


def is_separable(model: BoundModel, level: Level, seed: int) -> bool:
    """Whether a probe finds the units of a level independent given everything else."""
    rng = np.random.default_rng([seed, 21])
    try:
        points = probe_points(model, rng, 1, layout=model.layout)
    except StructureError:
        return False
    return separability(Prober(model, points, rng), level, rounds=1).holds


def khat_threshold(draws: int) -> float:
    """Above which k-hat says that importance weights of so many draws can't be relied on.

    Source: Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", JMLR 2024.
    """
    return float(min(1 - 1 / np.log10(max(draws, 11)), 0.7))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marginals:
    """log p(theta, x) at S draws of the globals, the locals integrated out.

    Attributes:
        values: (S,) nats, up to the program's constant; nan where an integral met a point that Stan rejects.
        error: standard deviation over draws of what is left of the integrals' error, nats.
        laplace_error: that of Laplace's values, for comparison.
    """

    values: FloatArray
    error: float
    laplace_error: float


def log_marginals(density: UnitDensity, q: Approximation, theta: FloatArray, rng: Rng) -> Marginals:
    """Marginal log densities at globals (S, G): every unit's integral by quadrature around its conditional mode.

    The cheapest quadrature that agrees with the finest at some draws serves all.
    """
    lines = line_directions(rng, (1, density.num_units), density.block, frames=1 if density.block == 2 else 2)

    def integrals(part: FloatArray, grade: Grade) -> tuple[FloatArray, FloatArray]:
        values, laplace = np.empty(len(part)), np.empty(len(part))
        for rows in density.batches(len(part), copies=8):
            modes = density.modes(part[rows], _repeat(q.local_means(part[rows]), rows))
            found = density.conditionals(part[rows], modes, lines, grade=grade)
            laplace[rows] = modes.laplace
            values[rows] = modes.log_density + (modes.log_volume + found.correction).sum(axis=1)
        return values, laplace

    if density.index.size > _FEW_LATENTS:
        checked = np.unique(np.linspace(0, len(theta) - 1, min(_CHECKED, len(theta))).round().astype(int))
        finest, _ = integrals(theta[checked], "finest")
        grades: tuple[Grade, ...] = ("coarse", "fine")
        for grade in grades:
            difference = finest - integrals(theta[checked], grade)[0]
            error = _spread(difference)
            if error <= _COARSE_ERROR:
                values, laplace = integrals(theta, grade)
                values = values + np.nanmean(difference)
                return Marginals(values=values, error=error, laplace_error=_spread(values - laplace))
    values, laplace = integrals(theta, "finest")
    return Marginals(values=values, error=0.0, laplace_error=_spread(values - laplace))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GlobalsImportance:
    """Importance weights of draws of the globals.

    Attributes:
        theta: (S, G) draws of q(theta), or of it and of proposals adapted to the weights.
        log_p: (S,) log p(theta, x), nats; nan where there is none.
        log_q: (S,) log density of what `theta` was drawn from, nats.
        smoothed: (S,) Pareto smoothed and normalized log weights; -inf where there is none.
        khat: tail index of the weights.
        threshold: above which they can't be relied on.
        marginal: whether locals are integrated out; else these are weights of all parameters together.
        adapted: whether there are proposals beside q.
    """

    theta: FloatArray
    log_p: FloatArray
    log_q: FloatArray
    smoothed: FloatArray
    khat: float
    threshold: float
    marginal: bool
    adapted: bool = False

    @property
    def num_usable(self) -> int:
        return int(np.isfinite(self.log_p).sum())

    @property
    def reliable(self) -> bool:
        """Whether the weights can be used: their k-hat says so, or proposals with heavy tails left them nearly equal.

        The tail index of nearly equal weights is that of a tail in which nothing lies; of q's own draws k-hat decides
        unless they are worth nine tenths of their number.
        """
        enough = _NEARLY_EQUAL if self.adapted else _EQUAL
        nearly_equal = self.num_usable > 0 and self.effective_draws >= enough * self.num_usable
        return self.khat <= self.threshold or nearly_equal

    @property
    def effective_draws(self) -> float:
        """Independent draws of the posterior that the weighted draws are worth."""
        squares = float(np.exp(2 * self.smoothed[np.isfinite(self.smoothed)]).sum())
        return 1 / squares if squares else 0.0

    def mean_sd(self) -> tuple[FloatArray, FloatArray]:
        """Weighted means and sds (G,) of the globals on the unconstrained scale."""
        mean, covariance = _moments(self.theta, np.exp(self.smoothed))
        return mean, np.sqrt(np.diag(covariance))


def globals_importance(
    fit: FittedFamily, draws: int = 1000, *, seed: int | None = None, adapted: bool = False
) -> GlobalsImportance:
    """Importance weights of draws of the fit's globals, with the locals integrated out.

    Without separable units the weights are those of all parameters together, and `theta` holds all of them.

    Args:
        draws: of q(theta).
        adapted: add draws of proposals that follow the weights, see `adapt`.
    """
    density, q = unit_density(fit), approximation(fit.family, fit.inputs)
    rng = np.random.default_rng([fit.seed if seed is None else seed, 22])
    weights = weigh(fit, density, q, draws, rng)
    return adapt(fit, density, q, weights, rng) if adapted else weights


def weigh(
    fit: FittedFamily, density: UnitDensity | None, q: Approximation, draws: int, rng: Rng
) -> GlobalsImportance:
    """Weights of `draws` draws of q, from parts that are at hand."""
    theta = q.draw_globals(rng, draws)
    log_q = q.log_q_globals(theta)
    if density is None and fit.level is not None:
        theta, log_p, log_q = _all_parameters(fit, q, theta, log_q, rng)
    else:
        log_p = _target(fit, density, q, theta, rng)
    return _weighted(theta, log_p, log_q, marginal=density is not None)


def weigh_enough(
    fit: FittedFamily, density: UnitDensity | None, q: Approximation, draws: int, rng: Rng
) -> GlobalsImportance:
    """Weights of `draws` draws of q, or, where each takes integrals, of a quarter of them if these tell enough: they
    are nearly equal and their tail is light, or so few of them count that only proposals of another place can help.
    """
    if density is None:
        return weigh(fit, density, q, draws, rng)
    first = weigh(fit, density, q, min(draws, max(_FEWEST, draws // _FIRST)), rng)
    share = first.effective_draws / max(1, first.num_usable)
    enough = first.num_usable >= 2 * _LEAST_PER_DIMENSION * first.theta.shape[1]
    hopeless = share < _HOPELESS and not first.reliable and enough
    if len(first.theta) == draws or (share >= _EQUAL and first.khat <= _LIGHT) or hopeless:
        return first
    more = weigh(fit, density, q, draws - len(first.theta), rng)
    together = (
        np.concatenate(parts)
        for parts in ((first.theta, more.theta), (first.log_p, more.log_p), (first.log_q, more.log_q))
    )
    return _weighted(*together, marginal=first.marginal)


def adapt(
    fit: FittedFamily,
    density: UnitDensity | None,
    q: Approximation,
    weights: GlobalsImportance,
    rng: Rng,
    *,
    last: int = 0,
) -> GlobalsImportance:
    """More draws, from t distributions with the weighted draws' means and covariances, and the weights of all together.

    Each round sees what the ones before found, and all draws weigh by the mixture of what they came from: where q is
    too narrow, its neighbours make up for it. Weights that are good already are left as they are, and so are draws in
    many dimensions.

    Args:
        last: draws of the last round, if more than half as many as there are of q.

    Source: adaptive multiple importance sampling, Cornuet, Marin, Mira & Robert, Scandinavian Journal of Statistics
    2012.
    """
    size = weights.theta.shape[1]
    if weights.reliable and weights.effective_draws >= _NEARLY_EQUAL * weights.num_usable:
        return weights
    if not 0 < size <= _MOST_ADAPTED or weights.num_usable < _LEAST_PER_DIMENSION * size:
        return weights
    parts: list[tuple[FloatArray, FloatArray]] = []
    draws = len(weights.theta) // 2
    theta, log_p, counts = weights.theta, weights.log_p, [len(weights.theta)]
    log_densities = [weights.log_q]
    for number in range(_ROUNDS):
        if number == _ROUNDS - 1:
            draws = max(draws, last)
        log_mixture = _mixture(log_densities, counts)
        tempered = _tempered(np.where(np.isfinite(log_p), log_p - log_mixture, -np.inf), size)
        mean, covariance = _moments(theta, tempered)
        factor = cholesky(_WIDER**2 * covariance)
        parts.append((mean, factor))
        normal = rng.standard_normal((draws, size))
        scale = np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, (draws, 1)))
        fresh = mean + (scale * normal) @ factor.T
        log_p = np.concatenate([log_p, _target(fit, density, q, fresh, rng)])
        own = q.log_q_globals(fresh)
        theta = np.concatenate([theta, fresh])
        log_densities[0] = np.concatenate([log_densities[0], own])
        counts.append(draws)
        log_densities = [log_densities[0], *(_log_student(theta, *part) for part in parts)]
    log_mixture = _mixture(log_densities, counts)
    return replace(_weighted(theta, log_p, log_mixture, marginal=weights.marginal), adapted=True)


def _target(
    fit: FittedFamily, density: UnitDensity | None, q: Approximation, theta: FloatArray, rng: Rng
) -> FloatArray:
    """log p(theta, x) (S,) nats, nan where there is none."""
    if density is None:
        log_p = fit.model.log_density_gradient(theta)[0]
        return np.where(np.isfinite(log_p), log_p, np.nan)
    return log_marginals(density, q, theta, rng).values


def _all_parameters(
    fit: FittedFamily, q: Approximation, theta: FloatArray, log_q: FloatArray, rng: Rng
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draws (S, D) of all parameters of coupled units, their log densities and log q."""
    assert fit.level is not None
    parts = UnitDensity(fit.model, fit.level.index, fit.level.globals_index(fit.model.dim))
    points, log_p = np.empty((len(theta), fit.model.dim)), np.empty(len(theta))
    for rows in parts.batches(len(theta)):
        count = rows.stop - rows.start
        z, local = q.locals_at(theta[rows], rng.standard_normal((count, parts.num_units, parts.block)))
        points[rows] = parts.points(theta[rows], z)
        log_p[rows] = fit.model.log_density_gradient(points[rows])[0]
        log_q[rows] += local.sum(axis=1)
    return points, np.where(np.isfinite(log_p), log_p, np.nan), log_q


def _weighted(
    theta: FloatArray, log_p: FloatArray, log_q: FloatArray, *, marginal: bool
) -> GlobalsImportance:
    usable = np.isfinite(log_p)
    smoothed = np.full(len(theta), -np.inf)
    smoothed[usable] = _smoothed((log_p - log_q)[usable])
    return GlobalsImportance(
        theta=theta,
        log_p=log_p,
        log_q=log_q,
        smoothed=smoothed,
        khat=weights_khat(log_p - log_q),
        threshold=khat_threshold(int(usable.sum())),
        marginal=marginal,
    )


# Weights that are not finite count for nothing.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def corrected_draws(
    fit: FittedFamily, draws: int = 1000, *, seed: int | None = None
) -> tuple[FloatArray, GlobalsImportance]:
    """Draws (S, D) on the unconstrained scale, the globals corrected by importance resampling and each unit's latents
    drawn from their conditional density given these; and the weights behind them.

    Raises:
        FitError: k-hat says that the weights can't be relied on.
    """
    given = fit.seed if seed is None else seed
    density, q = unit_density(fit), approximation(fit.family, fit.inputs)
    begin_stage("correcting the globals", next="draws of the posterior")
    rng = np.random.default_rng([given, 22])
    wanted = max(1000, draws)
    weights = weigh_enough(fit, density, q, wanted, rng)
    if density is not None or fit.level is None:
        weights = adapt(fit, density, q, weights, rng, last=wanted)
    if not weights.adapted and len(weights.theta) < wanted:
        weights = weigh(fit, density, q, wanted, rng)
    if not weights.reliable:
        raise FitError(
            f"importance weights can't correct this fit: the k-hat of its {_what(weights)} is {weights.khat:.2f}, and "
            f"above {weights.threshold:.2f} weights are dominated by a few draws. Let the family grow (family='auto') "
            "if it has not, or use NUTS with fit.warm_start()."
        )
    rng = np.random.default_rng([given, 23])
    theta = weights.theta[systematic(np.exp(weights.smoothed), draws, rng)]
    if density is None:
        return theta, weights
    points = np.empty((draws, fit.model.dim))
    for rows in density.batches(draws, copies=8):
        part = theta[rows]
        modes = density.modes(part, _repeat(q.local_means(part), rows))
        lines = line_directions(rng, (len(part), density.num_units), density.block)
        points[rows] = density.points(part, density.conditionals(part, modes, lines, rng).z)
    return points, weights


def _what(weights: GlobalsImportance) -> str:
    return "globals" if weights.marginal else "parameters together"


def _moments(theta: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (G,) and covariance (G, G) of draws (S, G) with weights (S,) of any sum."""
    weights = weights / weights.sum()
    mean = weights @ theta
    away = theta - mean
    return mean, (weights[:, None] * away).T @ away


def _mixture(log_densities: list[FloatArray], counts: list[int]) -> FloatArray:
    """Log density (S,) of the mixture that draws came from, each component by its share of them."""
    shares = np.log(np.array(counts) / sum(counts))
    stacked = np.stack(log_densities) + shares[: len(log_densities), None]
    return np.asarray(np.logaddexp.reduce(stacked, axis=0))


def _tempered(log_weights: FloatArray, size: int) -> FloatArray:
    """Weights (S,), flattened just so far that they are worth enough draws for a covariance of this size."""
    wanted = min(_LEAST_PER_DIMENSION * size, 0.5 * np.isfinite(log_weights).sum())
    for power in (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.0):
        flat = np.where(np.isfinite(log_weights), power * log_weights, -np.inf)
        weights = np.exp(flat - np.max(flat))
        if weights.sum() ** 2 / (weights**2).sum() >= wanted:
            break
    return np.asarray(weights)


def _log_student(theta: FloatArray, mean: FloatArray, factor: FloatArray) -> FloatArray:
    """Log density (S,) of a t distribution with lower factor (G, G) of its scale matrix."""
    from scipy.special import gammaln

    size = len(mean)
    away = np.linalg.solve(factor, (theta - mean).T)
    whole = gammaln(0.5 * (_FREEDOM + size)) - gammaln(0.5 * _FREEDOM) - 0.5 * size * np.log(np.pi * _FREEDOM)
    tail = 0.5 * (_FREEDOM + size) * np.log1p((away**2).sum(axis=0) / _FREEDOM)
    return np.asarray(whole - np.log(np.diagonal(factor)).sum() - tail)


def systematic(weights: FloatArray, draws: int, rng: Rng) -> npt.NDArray[np.int64]:
    """Numbers (draws,) of draws taken in proportion to weights (S,), in random order, with the least noise.

    Source: systematic resampling, Kitagawa, Journal of Computational and Graphical Statistics 1996.
    """
    cumulative = np.cumsum(weights / weights.sum())
    places = (np.arange(draws) + rng.random()) / draws
    return rng.permutation(np.minimum(np.searchsorted(cumulative, places), len(weights) - 1))


def _smoothed(log_weights: FloatArray) -> FloatArray:
    """Pareto smoothed and normalized log weights (S,)."""
    if not log_weights.size:
        return log_weights
    smoothed = log_weights
    if log_weights.size >= 100 and np.ptp(log_weights) > 0:
        from arviz_stats.base import array_stats

        # It takes log likelihoods, whose inverse weighs a draw.
        smoothed = np.asarray(array_stats.psislw(log_weights.max() - log_weights)[0])
    return np.asarray(smoothed - np.logaddexp.reduce(smoothed))


def weights_khat(log_weights: FloatArray) -> float:
    """k-hat of weights (S,), those that are not finite left out; -inf where all are equal to rounding."""
    kept = log_weights[np.isfinite(log_weights)]
    if kept.size >= 100 and np.ptp(kept) < 1e-6:
        return -np.inf
    return pareto_khat(kept)


def _spread(values: FloatArray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.std()) if kept.size else float("nan")


def _repeat(means: FloatArray, rows: slice) -> FloatArray:
    """Means (S or 1, N, d) for each draw of a batch."""
    return np.array(np.broadcast_to(means, (rows.stop - rows.start, *means.shape[1:])))
