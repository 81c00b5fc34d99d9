"""Local refinement: the factors of single units without amortization, F-VI from the amortized start, the globals fixed.

What an inference function leaves undone, the amortization gap, is the ELBO that single units gain when each may move
its own factor. All units are refined at once: given the globals they are independent, so one gradient of the whole
model serves them all.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from avistan.correction.approximation import Approximation, approximation, no_inputs, pairs_of
from avistan.correction.separable import unit_density
from avistan.density.log_density import block_log_density
from avistan.density.slots import register, set_layout
from avistan.family.family import Family
from avistan.family.functions import LocalNu, Refined
from avistan.family.normals import Noise
from avistan.fitting.chains import Chain, evaluation_key
from avistan.fitting.fitted import Fitted
from avistan.objective.elbo import evaluate
from avistan.objective.gradient import neg_elbo
from avistan.runtime.device import on_device
from avistan.runtime.errors import FitError
from avistan.runtime.limits import whole_number
from avistan.runtime.precision import in_float64
from avistan.runtime.streams import Stream, derived_seeds, stream_key
from avistan.runtime.types import BoolArray, FloatArray, IntArray
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.units.conditional_density import UnitDensity

STEPS = 300
_DRAWS = 4  # a step, in antithetic pairs
_RATE = 0.05  # of a step, in sds of the unit's factor
_DECAYS = (0.9, 0.99)
_GAP_DRAWS = 64
_NODES = 4  # of the quadrature between a unit's place before and after: it moves by a fraction of an sd


def unrefined(family: Family) -> Family:
    """The family without rows of its own for fitted units: what serves new units."""
    inference = family.inference
    return replace(family, inference=inference.base) if isinstance(inference, Refined) else family


def num_refined(family: Family) -> int:
    """How many units have a row of their own; what `with_rows` needs to read the family back."""
    return len(family.inference.units) if isinstance(family.inference, Refined) else 0


def with_rows(family: Family, count: int) -> Family:
    """A family with `count` refined rows of no meaning yet, into which saved leaves are read."""
    if not count:
        return family
    nu = LocalNu(*(jnp.zeros((size, count)) for size in family.local.sizes))
    return replace(family, inference=Refined(family.inference, jnp.arange(count), nu))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refinement:
    """Units' factors after local refinement, and what it gained.

    Attributes:
        q: the approximation with these factors.
        gain: (N,) nats of ELBO that each unit gained; its sum is an estimate of the amortization gap from below.
        gain_se: (N,) standard errors, from antithetic pairs.
        total, total_se: of all units together.
    """

    q: Approximation
    gain: FloatArray
    gain_se: FloatArray
    total: float
    total_se: float


class Move(NamedTuple):
    """How far factors are from where they began, in coordinates in which they began as standard normals.

    Attributes:
        shift: of the means.
        log_sd, below: of a Cholesky factor, as in `LocalNu`; `below` is empty for diagonal factors.
    """

    shift: Float[Array, "d N"]
    log_sd: Float[Array, "d N"]
    below: Float[Array, "B N"]

    def of(self, nu: LocalNu) -> LocalNu:
        """The moved parameters: means + L shift and factors L times these, L the factor at the start."""
        factor = _lower(nu.log_sd, nu.below)
        product = jnp.einsum("ijn,jkn->ikn", factor, _lower(self.log_sd, self.below))
        rows, columns = np.tril_indices(len(nu.loc), -1)
        return nu._replace(
            loc=nu.loc + jnp.einsum("ijn,jn->in", factor, self.shift),
            log_sd=nu.log_sd + self.log_sd,
            below=product[rows, columns] if nu.below.shape[0] else nu.below,
        )


def _lower(log_sd: Float[Array, "d N"], below: Float[Array, "B N"]) -> Float[Array, "d d N"]:
    """Lower triangular matrices."""
    size, at = len(log_sd), np.arange(len(log_sd))
    made = jnp.zeros((size, *log_sd.shape)).at[at, at].set(jnp.exp(log_sd))
    return made.at[np.tril_indices(size, -1)].set(below) if below.shape[0] else made


@in_float64
def refine_locals(
    model: BoundModel,
    density: UnitDensity,
    q: Approximation,
    seed: int,
    *,
    steps: int = STEPS,
    chosen: BoolArray | None = None,
) -> Refinement:
    """Adam on every unit's own mean and Cholesky factor (or its diagonal, in families without correlations), from where
    the approximation has them.

    Args:
        density: of the model's units, which must be separable.
        seed: of the steps' normals, and of those on which the gain is measured.
        chosen: (N,) the units to refine; None refines all.

    Source: path-derivative gradients, Roeder, Wu & Duvenaud, NeurIPS 2017; Kingma & Ba, "Adam", ICLR 2015.
    """
    mask = np.ones(density.num_units) if chosen is None else chosen.astype(np.float64)
    with register(model) as slot:
        set_layout(slot.index, density.globals_index, density.index.T)
        key = stream_key(jax.random.key(seed), Stream.REFINEMENT)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes precisions
            nu = _trained(q, on_device(slot.index), on_device(mask), key, steps)
        jax.block_until_ready(nu)
    return _measured(density, q, q.with_units(nu), seed)


@eqx.filter_jit
def _trained(
    q: Approximation, slot: Int[Array, ""], mask: Float[Array, " N"], key: PRNGKeyArray, steps: int
) -> LocalNu:
    """Parameters of the units after all steps; units where the mask is 0 keep theirs."""
    optimizer = optax.chain(
        optax.scale_by_adam(*_DECAYS, eps=1e-12),
        optax.clip(1.0),
        optax.scale_by_learning_rate(optax.cosine_decay_schedule(_RATE, steps)),
    )

    def loss(move: Move, noise: Noise) -> Array:
        moved = q.with_units(move.of(q.nu)).family
        return neg_elbo(moved, functools.partial(block_log_density, slot), noise, no_inputs(moved))[0]

    def step(carry: tuple[Move, optax.OptState], number: Array) -> tuple[tuple[Move, optax.OptState], None]:
        move, state = carry
        noise = pairs_of(q.family, jax.random.fold_in(key, number), _DRAWS // 2)
        gradient = jax.tree.map(lambda part: part * mask[None], jax.grad(loss)(move, noise))
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(move, updates), state), None

    still = Move(*(jnp.zeros_like(part) for part in q.nu[:3]))
    (move, _), _ = jax.lax.scan(step, (still, optimizer.init(still)), jnp.arange(steps))
    return move.of(q.nu)


def _measured(density: UnitDensity, q: Approximation, moved: Approximation, seed: int) -> Refinement:
    """Gains on fresh draws that both share."""
    pairs = _GAP_DRAWS // 2
    gain, total = np.empty((pairs, density.num_units)), np.empty(pairs)
    for number, rows in enumerate(density.batches(pairs, copies=2)):
        theta, before, log_q = q.draw_pairs(seed, number, rows.stop - rows.start)
        _, after, log_q_after = moved.draw_pairs(seed, number, rows.stop - rows.start)
        change = density.differences(theta, before, after, nodes=_NODES) + log_q - log_q_after
        gain[rows] = 0.5 * (change[::2] + change[1::2])
        total[rows] = gain[rows].sum(axis=1)
    kept = np.isfinite(total)
    gain, total = gain[kept], total[kept]
    if len(gain) < 2:
        gain, total = np.full((2, density.num_units), np.nan), np.full(2, np.nan)
    root = np.sqrt(len(gain))
    return Refinement(
        q=moved,
        gain=gain.mean(axis=0),
        gain_se=gain.std(axis=0, ddof=1) / root,
        total=float(total.mean()),
        total_se=float(total.std(ddof=1) / root),
    )


@in_float64
def refine(
    fit: Fitted, units: Sequence[int] | npt.NDArray[np.integer] | None = None, *, steps: int = STEPS
) -> tuple[Chain, ...]:
    """The fit's chains with chosen units refined without amortization, and the globals as they were.

    Predictions for new units still come from the inference function.

    Args:
        units: numbers counted from 0, as in ArviZ's coordinates; None refines all.
        steps: Adam steps.

    Raises:
        FitError: there is no separable level, or no such unit.
    """
    density = unit_density(fit)
    if density is None or fit.level is None:
        raise FitError(
            "refine needs a separable level, and this fit has none: every parameter is a global already, or the "
            "units are coupled given the globals."
        )
    whole_number("steps", steps)
    numbers = _checked(units, fit.level.num_units, fit.level.name)
    return tuple(_refined_chain(fit, density, chain, numbers, steps) for chain in fit.chains)


def _refined_chain(fit: Fitted, density: UnitDensity, chain: Chain, numbers: IntArray, steps: int) -> Chain:
    chosen = np.zeros(density.num_units, dtype=bool)
    chosen[numbers] = True
    (seed,) = derived_seeds(fit.seed, Stream.REFINEMENT)
    q = approximation(chain.family, chain.inputs)
    refined = refine_locals(fit.model, density, q, seed, steps=steps, chosen=chosen)
    family, inputs = _with_own_rows(chain.family, refined.q.nu, numbers), on_device(chain.inputs, np.float32)
    with register(fit.model) as slot:
        key = evaluation_key(jax.random.key(fit.seed))
        evaluation = evaluate(family, inputs, slot.index, key, fit.options.elbo_draws)
    return replace(
        chain,
        family=family,
        evaluation=evaluation,
        gradient_evaluations=chain.gradient_evaluations + steps * _DRAWS,
    )


def _with_own_rows(family: Family, nu: LocalNu, numbers: IntArray) -> Family:
    """The family with rows of their own for the given units; units refined before keep theirs."""
    function = base = family.inference
    known = numbers
    if isinstance(function, Refined):
        base, known = function.base, np.union1d(numbers, np.asarray(function.units))
    rows = LocalNu(*(part[:, known] for part in nu))
    return replace(family, inference=Refined(base, jnp.asarray(known), rows))


def _checked(units: Sequence[int] | npt.NDArray[np.integer] | None, count: int, level: str) -> IntArray:
    if units is None:
        return np.arange(count)
    numbers = np.asarray(units)
    if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iu":
        raise FitError(f"units={units!r}: give a list of unit numbers, counted from 0.")
    if numbers.min() < 0 or numbers.max() >= count:
        wrong = numbers[(numbers < 0) | (numbers >= count)][0]
        raise FitError(f"there is no unit {wrong}: the {count} units of {level} count from 0.")
    return np.unique(numbers).astype(np.int64)
