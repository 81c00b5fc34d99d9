"""What all methods of one program, data and seed share: the level, a quick fit, and the unit inputs.

Everything here comes from one quick fit, so that globals, locals and reference points of a start belong together.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float

from stan_adapters.binding import BoundModel
from stan_adapters.layout import IndexArray
from stan_adapters.levels import Level
from stan_adapters.signature import draw_references, fit_transform, usable_references

from .errors import MethodError
from .families import Family, LocalGaussian, make_frame, make_placement, start_globals
from .inference_functions import (
    AbstractInferenceFunction,
    Constant,
    LocalNu,
    Table,
    make_mlp,
    make_polynomial,
)
from .methods import DataColumn, Method
from .start import QuickFit, quick_fit
from .unit_inputs import SignatureInput, UnitInput, make_data_input

FloatArray = npt.NDArray[np.float64]

MAX_DIRECTIONS = 32  # of the globals that a conditional local factor follows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preparation:
    """The shared start of a competition.

    Attributes:
        level: the amortized level, or None where every parameter is global.
        num_references: K, gradients that a signature reads.
        max_rank: R, most components of a signature that become inputs.
    """

    model: BoundModel
    level: Level | None
    index: IndexArray  # (N, d); (0, 0) without a level
    globals_index: IndexArray  # (G,)
    quick: QuickFit
    seed: int
    num_references: int
    max_rank: int
    _inputs: dict[tuple[DataColumn, ...], tuple[UnitInput, FloatArray]] = field(
        default_factory=dict, repr=False
    )

    def unit_input(self, method: Method) -> tuple[UnitInput | None, FloatArray]:
        """The input that a method's function reads, and its values (N, R); (N, 0) where it reads none.

        Raises:
            StructureError: a signature needs more points of finite density than there are.
            MethodError: a data entry does not exist or has no row for each unit.
        """
        if not method.amortized:
            return None, np.empty((len(self.index), 0))
        if method.data not in self._inputs:
            self._inputs[method.data] = self._data_input(method.data) if method.data else self._signature()
        return self._inputs[method.data]

    def _data_input(self, columns: tuple[DataColumn, ...]) -> tuple[UnitInput, FloatArray]:
        given = make_data_input(self.model.data, columns, len(self.index))
        return given, given(self.model, self.index, self.globals_index)

    def _signature(self) -> tuple[UnitInput, FloatArray]:
        """References around the quick fit, their scores and the transform."""
        center, spread = population(self.quick, self.index)
        references = draw_references(
            np.random.default_rng([self.seed, 1]),
            self.num_references,
            theta_mean=self.quick.mean[self.globals_index],
            theta_sd=self.quick.sd[self.globals_index],
            z_mean=center,
            z_sd=spread,
        )
        usable, scores = usable_references(self.model, self.index, self.globals_index, references)
        transform = fit_transform(scores, max_rank=self.max_rank)
        return SignatureInput(usable, transform), transform(scores)


def prepare(
    model: BoundModel, level: Level | None, *, seed: int, num_references: int, max_rank: int
) -> Preparation:
    """The quick fit, and what is needed to read signatures when a method asks for them.

    Args:
        level: the level to amortize; None makes every parameter global.

    Raises:
        StartError: no point of finite density to start from.
    """
    index, globals_index = split(model, level)
    return Preparation(
        model=model,
        level=level,
        index=index,
        globals_index=globals_index,
        quick=quick_fit(model, seed=seed),
        seed=seed,
        num_references=num_references,
        max_rank=max_rank,
    )


def restarted(preparation: Preparation, number: int) -> Preparation:
    """The same preparation with another quick fit, from a random start (uniform on (-2, 2), as Stan's); unit inputs are
    shared, so that restart `number` differs only in where it begins and in its random numbers.

    Raises:
        StartError: no point of finite density to start from.
    """
    seed = int(np.random.SeedSequence([preparation.seed, number]).generate_state(1)[0])
    return replace(preparation, quick=quick_fit(preparation.model, seed=seed, scattered=True))


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
    constant at the mean over the units.

    Raises:
        MethodError: the method needs a level and the program has none.
    """
    if preparation.level is None and method.function != "table":
        raise MethodError(f"{method.name}: this program has no level of units to amortize. Use method='fvi'.")
    _, inputs = preparation.unit_input(method)
    index, fit = preparation.index, preparation.quick
    at = preparation.globals_index
    local, directions = local_form(method, index.shape[1], len(at))
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
    nu = local.start(jnp.asarray(start))
    frame = make_frame(fit.mean[at], fit.sd[at], center, scale)
    function = make_function(method, nu, inputs.shape[1], preparation.seed)
    if method.amortized:
        own = local.start(jnp.asarray(np.log(fit.sd[index]).T - np.log(scale)))
        own = own._replace(loc=jnp.asarray((fit.mean[index].T - center) / scale))
        function = function.projected(inputs, own)
    globals_factor = start_globals(method.globals, len(at))
    family = Family(globals_factor, function, local, frame, make_placement(at, index), directions)
    return family, jnp.asarray(inputs, dtype=jnp.float32)


def make_function(method: Method, start: LocalNu, num_inputs: int, seed: int) -> AbstractInferenceFunction:
    """The inference function of a method; `start` holds all units for a table and one for the others."""
    if method.function == "table":
        return Table(start)
    if method.function == "constant":
        return Constant(start)
    if method.function == "polynomial":
        return make_polynomial(num_inputs, method.size, start)
    return make_mlp(jax.random.fold_in(jax.random.key(seed), 2), num_inputs, method.size, start)


def skeleton(method: Method, index_shape: tuple[int, ...], num_globals: int, num_inputs: int) -> Family:
    """A family with the right shapes and no values, into which saved leaves are read; `index_shape` is (N, d)."""
    num_units, block = index_shape
    local, directions = local_form(method, block, num_globals)
    zeros = jnp.zeros(num_globals)
    units = jnp.zeros((block, num_units if method.function == "table" else 1))
    frame = make_frame(zeros, jnp.ones(num_globals), units, jnp.ones_like(units))
    function = make_function(method, local.start(units), num_inputs, seed=0)
    index = num_globals + np.arange(num_units * block).reshape(index_shape)
    placement = make_placement(np.arange(num_globals), index)
    return Family(start_globals(method.globals, num_globals), function, local, frame, placement, directions)


def local_form(
    method: Method, block: int, num_globals: int
) -> tuple[LocalGaussian, Float[Array, "K G"] | None]:
    """The form of a method's local factors, and a start of the directions W for where globals are many."""
    if method.conditional == "none" or not block:
        return LocalGaussian(method.local, block), None
    if num_globals <= MAX_DIRECTIONS:
        return LocalGaussian(method.local, block, method.conditional, num_globals), None
    random = np.random.default_rng(0).normal(size=(num_globals, MAX_DIRECTIONS))
    orthonormal, _ = np.linalg.qr(random)
    local = LocalGaussian(method.local, block, method.conditional, MAX_DIRECTIONS)
    return local, jnp.asarray(orthonormal.T)
