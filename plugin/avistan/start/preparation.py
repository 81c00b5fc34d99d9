"""What all methods of one program, data and seed share: the level, a quick fit, and the unit inputs.

Everything here comes from one quick fit, so that globals, locals and reference points of a start belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from avistan.family.family import Family
from avistan.family.functions import (
    AbstractInferenceFunction,
    Constant,
    LocalNu,
    Table,
    make_mlp,
    make_polynomial,
)
from avistan.family.globals import GlobalGaussian, LevelGlobals, start_globals
from avistan.family.locals import LocalGaussian, local_form
from avistan.family.method import DataColumn, Method
from avistan.family.placement import make_frame, make_placement
from avistan.runtime.device import on_device, zeros
from avistan.runtime.errors import MethodError
from avistan.runtime.streams import Stream, derived_seeds, generator
from avistan.runtime.types import FloatArray
from avistan.start.laplace_chain import ChainStart, UnitChain, chain_start
from avistan.start.quick_fit import QuickFit, quick_fit
from avistan.start.unit_inputs import SignatureInput, UnitInput, make_data_input
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.levels.levels import Level
from stan_adapters.shards.shard import Shard
from stan_adapters.units.signature import (
    References,
    draw_references,
    fit_signatures,
    fit_transform,
    usable_references,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preparation:
    """The shared start of a competition.

    Attributes:
        level: the amortized level, or None where every parameter is global.
        num_references: K, gradients that a signature reads.
        max_rank: R, most components of a signature that become inputs.
        others: further levels whose units are independent given everything else, which can be amortized too.
        sample: units whose scores say what a signature's components are, where not the level's own.
        globals_in_doubt: how far the quick fit's globals may be from where training takes them, in their own sds: the
            unit of its steps.
        scattered: the quick fit begins at a random point, not at the best near 0.
        separable: the level's units are known to be independent given all else.
    """

    model: BoundModel
    level: Level | None
    index: IndexArray  # (N, d); (0, 0) without a level
    globals_index: IndexArray  # (G,)
    seed: int
    num_references: int
    max_rank: int
    quick_seed: int
    others: tuple[Level, ...] = ()
    sample: Shard | None = None
    globals_in_doubt: float = 1.0
    scattered: bool = False
    separable: bool = False
    _own: dict[Hashable, Any] = field(default_factory=dict, repr=False)  # of this start: what was made of it
    _shared: dict[Hashable, Any] = field(default_factory=dict, repr=False)  # the same, for all restarts
    _second_inputs: dict[Hashable, FloatArray] = field(default_factory=dict, repr=False)

    @property
    def quick(self) -> QuickFit:
        """The quick fit, made when it is first asked for.

        Raises:
            StartError: no point of finite density to start from.
        """
        return once(self._own, "quick", self._quick_fit)

    def _quick_fit(self) -> QuickFit:
        return quick_fit(self.model, seed=self.quick_seed, scattered=self.scattered)

    def started_at(self, fit: QuickFit) -> Preparation:
        """The same preparation with this quick fit in place of its own; signatures are read anew, around it."""
        return replace(self, _own={"quick": fit}, _shared={}, _second_inputs={})

    def restarted(self, number: int) -> Preparation:
        """The same preparation with another quick fit, from a random start (uniform on (-2, 2), as Stan's); unit inputs
        are shared, so that restart `number` differs only in where it begins and in its random numbers.
        """
        return replace(self, quick_seed=seed_of_restart(self.seed, number), scattered=True, _own={})

    def unit_input(self, method: Method) -> tuple[UnitInput | None, FloatArray]:
        """The input that a method's function reads, and its values (N, R); (N, 0) where it reads none.

        Raises:
            StructureError: a signature needs more points of finite density than there are.
            MethodError: a data entry does not exist or has no row for each unit.
        """
        if not method.amortized:
            return None, np.empty((len(self.index), 0))
        if method.data:
            return once(self._shared, method.data, lambda: self._data_input(method.data))
        return self._signatures(method.neighbours, method.second is not None)

    @property
    def long_fit(self) -> QuickFit:
        """The quick fit, continued with more draws and a smaller rate, for signatures of two levels.

        A unit's posterior depends on the latents of the other level that it meets, each known from few data: where
        these are away from their own posterior means, its signature misses that.
        """
        return once(self._shared, "long fit", self._continued)

    @property
    def has_long_fit(self) -> bool:
        """Whether the long fit has been made."""
        return "long fit" in self._shared

    def _continued(self) -> QuickFit:
        start, seed = self.quick.mean, self.quick_seed
        return quick_fit(self.model, seed=seed, start=start, draws=4, round_steps=300, learning_rate=0.02)

    def second_level(self, method: Method) -> Level:
        """The second level that a method amortizes.

        Raises:
            MethodError: there is none, or none of that name.
        """
        if not self.others:
            raise MethodError(
                f"{method.name}: this program has no second level whose units are independent given everything "
                "else, with data of their own. Leave out :levels."
            )
        for level in self.others:
            if method.second in ("", level.name, *level.latents):
                return level
        known = "; ".join(f"{level.name} ({', '.join(level.latents)})" for level in self.others)
        raise MethodError(f"{method.name}: no second level {method.second!r}. There are: {known}.")

    def second_input(self, level: Level) -> FloatArray:
        """Signatures (M, R) of a second level's units, with all other latents where the long fit has them.

        Raises:
            StructureError: a signature needs more points of finite density than there are.
        """
        return once(self._second_inputs, level.latents, lambda: self._second_signatures(level, self.long_fit))

    def _second_signatures(self, level: Level, fit: QuickFit) -> FloatArray:
        at = level.index, level.globals_index(self.model.dim)
        references = self._references(fit, *at, stream=Stream.SECOND_SIGNATURES)
        _, _, inputs = fit_signatures(self.model, *at, references, max_rank=self.max_rank, seed=self.seed)
        return inputs

    def chain(self, reach: int) -> ChainStart | None:
        """Laplace's approximation for a banded factor of that reach; None where there is none."""
        at = self.model, self.index, self.globals_index
        return once(self._own, reach, lambda: chain_start(*at, self.quick.mean, reach))

    def _data_input(self, columns: tuple[DataColumn, ...]) -> tuple[UnitInput, FloatArray]:
        given = make_data_input(self.model.data, columns, len(self.index))
        return given, given(self.model, self.index, self.globals_index)

    def signature(self, neighbours: int = 0, *, long_fit: bool = False) -> UnitInput:
        """What reads signatures, with those of so many neighbours to each side, around the quick or the long fit."""
        return self._signatures(neighbours, long_fit)[0]

    def _signatures(self, neighbours: int, long_fit: bool) -> tuple[UnitInput, FloatArray]:
        return once(self._shared, (neighbours, long_fit), lambda: self._signature(neighbours, long_fit))

    def _signature(self, neighbours: int, long_fit: bool) -> tuple[UnitInput, FloatArray]:
        """References around a fit, their scores and the transform."""
        fit = self.long_fit if long_fit else self.quick
        references = self._references(fit, self.index, self.globals_index, stream=Stream.SIGNATURES)
        at = self.model, self.index, self.globals_index
        if self.sample is not None:
            at = self.sample.model, self.sample.index, self.sample.globals_index
        usable, scores = usable_references(*at, references)
        given = SignatureInput(usable, fit_transform(scores, max_rank=self.max_rank), neighbours)
        if self.sample is not None:
            return given, given(self.model, self.index, self.globals_index)
        return given, given.of_scores(scores)

    def _references(
        self, fit: QuickFit, index: IndexArray, globals_index: IndexArray, stream: Stream
    ) -> References:
        """Reference points around a fit; `stream` separates random numbers of one seed.

        The latents of another level that are among the globals move together, each by its own sd: moving alone, each
        would make numbers that say nothing of a unit's posterior part of the signatures of the units that it meets.
        """
        rng = generator(self.seed, stream)
        center, spread = population(fit, index)
        references = draw_references(
            rng,
            self.num_references,
            theta_mean=fit.mean[globals_index],
            theta_sd=fit.sd[globals_index],
            z_mean=center,
            z_sd=spread,
        )
        theta = references.theta.copy()
        for level in self.others if self.level is None else (self.level, *self.others):
            if np.isin(level.index, globals_index).all():
                moves = rng.standard_normal((self.num_references - 1, 1, level.block))
                place = np.searchsorted(globals_index, level.index)
                theta[1:, place] = fit.mean[level.index] + fit.sd[level.index] * moves
        return References(theta, references.z)


def once[K: Hashable, T](made: dict[K, Any], key: K, make: Callable[[], T]) -> T:
    """What is kept under a key, made when it is first asked for."""
    if key not in made:
        made[key] = make()
    found: T = made[key]
    return found


def prepare(
    model: BoundModel,
    level: Level | None,
    *,
    seed: int,
    num_references: int,
    max_rank: int,
    others: tuple[Level, ...] = (),
    sample: Shard | None = None,
    separable: bool = False,
) -> Preparation:
    """What is needed for a quick fit, and to read signatures, when a method asks for them.

    Args:
        level: the level to amortize; None makes every parameter global.
    """
    index, globals_index = split(model, level)
    return Preparation(
        model=model,
        level=level,
        index=index,
        globals_index=globals_index,
        seed=seed,
        quick_seed=seed,
        num_references=num_references,
        max_rank=max_rank,
        others=others,
        sample=sample,
        separable=separable,
    )


def seed_of_restart(seed: int, number: int) -> int:
    """The seed of a restart's quick fit."""
    return derived_seeds(seed, Stream.RESTARTS, number)[0]


def split(model: BoundModel, level: Level | None) -> tuple[IndexArray, IndexArray]:
    """Positions of the locals (N, d) and the globals (G,); without a level (0, 0) and all."""
    if level is None:
        return np.empty((0, 0), dtype=np.int64), np.arange(model.dim)
    return level.index, level.globals_index(model.dim)


def population(fit: QuickFit, index: IndexArray) -> tuple[FloatArray, FloatArray]:
    """Mean and sd (d,) of the local latents over units and their uncertainty together."""
    mean, sd = fit.mean[index], fit.sd[index]
    return mean.mean(axis=0), np.sqrt(mean.var(axis=0) + (sd**2).mean(axis=0))


def start_family(preparation: Preparation, method: Method) -> tuple[Family, Float[Array, "N R"]]:
    """The family of a method at the shared start, and its unit inputs as float32.

    All start at the quick fit: the table at each unit's own part of it, a function at its least-squares projection, the
    constant at the mean over the units. A table of banded factors starts at Laplace's approximation, if there is one.

    Where a second level is amortized too, its function starts at its projection in the same way.

    Raises:
        MethodError: the method needs a level, or a second one, and the program has none.
    """
    if preparation.level is None and method.function != "table":
        raise MethodError(f"{method.name}: this program has no level of units to amortize. Use method='fvi'.")
    if preparation.level is None and method.local == "banded":
        raise MethodError(f"{method.name}: this program has no level of coupled units. Use method='fvi'.")
    second = None if method.second is None else preparation.second_level(method)
    _, inputs = preparation.unit_input(method)
    index, fit = preparation.index, preparation.quick
    at = preparation.globals_index
    if method.function == "table" and method.reach:
        laplace = preparation.chain(method.reach)
        if laplace is not None:
            return _started_chain(preparation, method, laplace), on_device(inputs, np.float32)
    if method.function == "table":
        center, scale = fit.mean[index].T, fit.sd[index].T
        start = np.zeros(center.shape)
    else:
        center, scale = (part[:, None] for part in population(fit, index))
        typical = np.log(fit.sd[index]).mean(axis=0)[:, None]
        if (
            method.amortized
        ):  # a step is then small against the units' own posteriors, however far these spread
            scale = np.exp(typical)
        start = typical - np.log(scale)
    globals_factor: GlobalGaussian | LevelGlobals
    globals_factor = start_globals(method.globals, len(at), method.rank, flow=method.flow)
    global_center, global_scale = fit.mean, fit.sd * preparation.globals_in_doubt
    narrower = np.full(len(at), -np.log(preparation.globals_in_doubt))
    globals_factor = replace(globals_factor, log_sd=on_device(narrower))
    if second is not None:
        global_center, global_scale, globals_factor = _start_second(preparation, method, second)
    local, directions, curve = local_form(method, index.shape[1], globals_factor)
    nu = local.start(on_device(start))
    frame = make_frame(global_center[at], global_scale[at], center, scale)
    function = make_function(method, nu, inputs.shape[1], preparation.seed)
    if method.amortized:
        function = function.projected(inputs, _standardized(fit, index, local, center, scale))
    family = Family(globals_factor, function, local, frame, make_placement(at, index), directions, curve)
    return family, on_device(inputs, np.float32)


def _standardized(
    fit: QuickFit, index: IndexArray, local: LocalGaussian, center: FloatArray, scale: FloatArray
) -> LocalNu:
    """The quick fit of units, standardized by centres and scales (d, 1)."""
    own = local.start(on_device(np.log(fit.sd[index]).T - np.log(scale)))
    return own._replace(loc=on_device((fit.mean[index].T - center) / scale))


def _start_second(
    preparation: Preparation, method: Method, level: Level
) -> tuple[FloatArray, FloatArray, LevelGlobals]:
    """Centres and scales (D,) of what is global, and the globals' factor, where a second level is amortized too."""
    fit, index = preparation.quick, level.index
    inputs = preparation.second_input(level)
    center, typical = population(fit, index)[0], np.exp(np.log(fit.sd[index]).mean(axis=0))
    local = LocalGaussian("diagonal", level.block)
    start = local.start(zeros(level.block, 1))
    function = make_function(method, start, inputs.shape[1], preparation.seed, stream=Stream.SECOND_NETWORK)
    own = _standardized(fit, index, local, center[:, None], typical[:, None])
    centers, scales = fit.mean.copy(), fit.sd * preparation.globals_in_doubt
    centers[index], scales[index] = center, typical
    factor = _level_globals(method, preparation.globals_index, level, function.projected(inputs, own), inputs)
    narrower = np.full(factor.free.size, -np.log(preparation.globals_in_doubt))
    return centers, scales, replace(factor, free=replace(factor.free, log_sd=on_device(narrower)))


def _level_globals(
    method: Method,
    globals_index: IndexArray,
    level: Level,
    function: AbstractInferenceFunction,
    inputs: FloatArray,
) -> LevelGlobals:
    """The factor of globals at these positions (G,), among them the latents of a level with inputs (M, R)."""
    place = np.searchsorted(globals_index, level.index)
    is_free = np.ones(len(globals_index), dtype=bool)
    is_free[place.ravel()] = False
    placement = make_placement(np.flatnonzero(is_free), place)
    free = start_globals(method.globals, int(is_free.sum()))
    return LevelGlobals(free, function, on_device(inputs, np.float32), placement)


def _started_chain(preparation: Preparation, method: Method, laplace: ChainStart) -> Family:
    """The family of a banded method at Laplace's approximation; each unit's scale is its conditional sd."""
    index, at, chain = preparation.index, preparation.globals_index, laplace.chain
    factor = start_globals(method.globals, len(at), method.rank, flow=method.flow)
    local, directions, curve = local_form(method, index.shape[1], factor)
    rows, columns = np.tril_indices(local.block, -1)

    def parts(chain: UnitChain) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Log sds (d, N), what stands below them in L_n, and B_n (b d d, N)."""
        bands = np.zeros((len(index), local.reach, local.block, local.block))
        bands[:, : chain.bands.shape[1]] = chain.bands
        own = np.diagonal(chain.factor, axis1=1, axis2=2)
        return np.log(own).T, chain.factor[:, rows, columns].T, bands.reshape(len(index), -1).T

    log_sd, triangle, bands = parts(chain)
    scale = np.exp(log_sd)
    spread = laplace.sd if laplace.beside else preparation.quick.sd[at]
    frame = make_frame(laplace.theta, spread, chain.z.T, scale)
    placement = make_placement(at, index)
    nu = local.start(zeros(*frame.local_scale.shape))
    family = Family(factor, Table(nu), local, frame, placement, directions, curve)
    of_bands = np.asarray(family.scales_of_bands())
    nu = nu._replace(below=on_device(np.concatenate([triangle / scale[rows], bands / of_bands])))
    if directions is None and laplace.beside and local.conditional != "none":
        ends = [(*parts(low), low.z.T, *parts(high), high.z.T) for low, high in laplace.beside]
        slopes = np.stack([0.5 * (end[7] - end[3]) / scale for end in ends], axis=1)
        rates = [
            np.concatenate([0.5 * (end[4] - end[0]), 0.5 * (end[6] - end[2]) / of_bands]) for end in ends
        ]
        curved = ((0, 0), (0, local.hidden), (0, 0))
        nu = nu._replace(slope=on_device(np.pad(slopes, curved).reshape(-1, len(index))))
        if local.scaled:
            growth = np.pad(np.stack(rates, axis=1), curved)
            nu = nu._replace(growth=on_device(growth.reshape(-1, len(index))))
    return replace(family, inference=Table(nu))


def make_function(
    method: Method, start: LocalNu, num_inputs: int, seed: int, *, stream: Stream = Stream.NETWORK
) -> AbstractInferenceFunction:
    """The inference function of a method; `start` holds all units for a table and one for the others."""
    if method.function == "table":
        return Table(start)
    if method.function == "constant":
        return Constant(start)
    if method.function == "polynomial":
        return make_polynomial(num_inputs, method.size, start)
    return make_mlp(generator(seed, stream), num_inputs, method.size, start)


def skeleton(
    method: Method,
    index: IndexArray,
    globals_index: IndexArray,
    num_inputs: int,
    second: Level | None = None,
    num_second_inputs: int = 0,
) -> Family:
    """A family with the right shapes and no values, into which saved leaves are read; `index` (N, d) and globals (G,).

    Args:
        second: the second amortized level, with so many inputs of a unit.
    """
    (num_units, block), num_globals = index.shape, len(globals_index)
    factor: GlobalGaussian | LevelGlobals
    factor = start_globals(method.globals, num_globals, method.rank, flow=method.flow)
    if second is not None:
        start = LocalGaussian("diagonal", second.block).start(zeros(second.block, 1))
        function = make_function(method, start, num_second_inputs, seed=0)
        nothing = np.zeros((second.num_units, num_second_inputs))
        factor = _level_globals(method, globals_index, second, function, nothing)
    local, directions, curve = local_form(method, block, factor)
    units = zeros(block, num_units if method.function == "table" else 1)
    frame = make_frame(np.zeros(num_globals), np.ones(num_globals), units, np.ones(units.shape))
    function = make_function(method, local.start(units), num_inputs, seed=0)
    return Family(factor, function, local, frame, make_placement(globals_index, index), directions, curve)
