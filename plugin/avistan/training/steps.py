"""Steps of training, many in one compiled program: normals, Stan's log density and gradient, and the learning rule.

A family has one program for any number of steps, which runs again and again where they are many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from avistan.density.backend import backend
from avistan.family.family import Family, trainable
from avistan.family.functions import Table
from avistan.family.normals import Noise, normals
from avistan.objective.gradient import Estimator, StepInfo, neg_elbo
from avistan.runtime.device import on_device, zeros
from avistan.runtime.types import FloatArray, IntArray
from avistan.training.batches import MANY, Batches, Steps, WholeModel
from avistan.training.fingerprint import Arrays, digest
from avistan.training.optimizer import learning_rule, relative_rates
from avistan.training.unit_rows import Rows, has_rows, rows_of
from avistan.training.vectors import Layout

_NORMALS, _BLOCK = 1 << 18, 25  # drawn at once, at most, and for how many steps
_KEPT = 32  # compiled programs, the latest used
_WATCHED = 50  # units, some of them several times where there are fewer


class State(NamedTuple):
    """What the next step needs."""

    moved: Float[Array, " P"]  # trainable leaves, see `Layout`
    optimizer: Any  # of optax
    key: PRNGKeyArray
    step: Int[Array, ""]  # steps done


class Mean(NamedTuple):
    """Of the iterates of a chunk so far."""

    total: Float[Array, " P"]
    steps: Int[Array, ""]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """What a chunk of steps saw.

    Attributes:
        elbo: estimates in nats, (steps,); NaN where every draw was rejected.
        num_rejected: draws, (steps,).
        mean: the family at the mean of the iterates.
        watched: where that stands, (Q,): means and log sds of the globals, then of some units.
    """

    elbo: FloatArray
    num_rejected: IntArray
    mean: Family
    watched: FloatArray


class Training:
    """Steps of one family as pure functions of a `State`.

    Args:
        family: where training begins.
        inputs: unit inputs (N, R); the table and the constant use only their number.
        slot: index of the registered model (`slots.register`), which must stay open; not read beside batches.
        draws: Stan gradients a step.
        batches: of units, in place of the whole model; family and inputs are then for as many units as a batch has.
        unit_steps: rows of units take natural-gradient steps (`unit_rows`), where the family has such rows, and draws
            come in antithetic pairs.
    """

    def __init__(
        self,
        family: Family,
        inputs: Float[Array, "N R"],
        slot: int,
        key: PRNGKeyArray,
        *,
        draws: int,
        estimator: Estimator = "path",
        batches: Batches | None = None,
        unit_steps: bool = False,
    ) -> None:
        units = int(inputs.shape[0])
        size = units if batches is not None or family.local.reach else padded_size(units)
        self._start, self._inputs, self._key = family, inputs, key
        self._draws, self._estimator = draws, estimator
        self._batches = WholeModel(slot, family, inputs, size) if batches is None else batches
        wide = _resized(eqx.tree_at(lambda f: f.placement, family, None), size)
        moved, self._fixed = eqx.partition(wide, trainable(wide))
        self._layout = Layout.of(moved)
        self._rows = rows_of(moved) if unit_steps and has_rows(family) else None
        self._moved, self._shares = on_device(self._layout.vector(moved)), on_device(relative_rates(moved))
        some = np.linspace(0, max(0, units - 1), _WATCHED if units else 0).astype(np.int32)
        self._watched = on_device(some), on_device(np.asarray(inputs)[some], np.float32)

    def start(self) -> State:
        """The state before the first step."""
        shapes = jax.eval_shape(learning_rule(self._rows).init, self._moved)
        optimizer = jax.tree.map(lambda leaf: zeros(*leaf.shape, dtype=leaf.dtype), shapes)
        return State(self._moved, optimizer, self._key, zeros(dtype=np.int32))

    def family(self, moved: Float[Array, " P"]) -> Family:
        """The family with these trainable leaves, as of a state."""
        wide = eqx.combine(jax.tree.map(on_device, self._layout.tree(np.asarray(moved))), self._fixed)
        start = self._start
        family: Family = eqx.tree_at(
            lambda f: (f.placement, f.frame),
            _resized(wide, start.num_units),
            (start.placement, start.frame),
            is_leaf=lambda node: node is None,
        )
        return family

    def digest(self) -> str:
        """Of all that was prepared before the first step: the state, the fixed parts and the unit inputs."""
        return digest({**named(self.start()), **named(self._fixed), "inputs": np.asarray(self._inputs)})

    def compile(self) -> None:
        """Make the program ready, which all training of the same shapes and options shares."""
        self._compiled(self._given(self.start(), self._batches.example(), np.zeros(1), self._no_mean()))

    def run(self, state: State, rates: FloatArray) -> tuple[State, Chunk]:
        """A chunk of steps with these learning rates (steps,)."""
        first, mean, infos, most = int(state.step), self._no_mean(), [], self._batches.places
        for done in range(0, len(rates), most):
            some = rates[done : done + most]
            given = self._given(state, self._batches.chunk(first + done, len(some)), some, mean)
            state, info, mean, at, watched = self._compiled(given)(*given)
            infos.append(info)
        elbo, rejected = (np.concatenate(parts)[: len(rates)] for parts in zip(*infos, strict=True))
        return state, Chunk(elbo, rejected.astype(np.int64), self.family(at), np.asarray(watched))

    def _no_mean(self) -> Mean:
        return Mean(zeros(*self._moved.shape, dtype=self._moved.dtype), zeros(dtype=np.int32))

    def _given(self, state: State, steps: Steps, rates: FloatArray, mean: Mean) -> tuple[Any, ...]:
        """What the program of `_run` takes."""
        padded = on_device(np.pad(rates, (0, self._batches.places - len(rates))))
        count = on_device(len(rates), np.int32)
        return state, self._fixed, self._shares, steps, padded, count, mean, self._watched

    def _compiled(self, given: tuple[Any, ...]) -> Callable[..., Any]:
        steps: Steps = given[3]
        leaves, structure = jax.tree.flatten(given)
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
        key = (self._draws, self._estimator, backend(), self._layout, self._rows, structure, shapes)
        if key not in _compiled:
            program = jax.jit(_run, static_argnames=("layout", "draws", "estimator", "rows", "how"))
            options = {
                "layout": self._layout,
                "draws": self._draws,
                "estimator": self._estimator,
                "rows": self._rows,
                "how": backend(),
            }
            lowered = program.lower(*given, **options)
            # Of few units compiling takes longer than the steps, and code that is optimized less runs as fast.
            quickly = {"xla_backend_optimization_level": "1"} if steps.units.numbers.size < MANY else None
            _compiled[key] = lowered.compile(quickly)
            while len(_compiled) > _KEPT:
                _compiled.popitem(last=False)
        _compiled.move_to_end(key)
        return _compiled[key]


_compiled: OrderedDict[Hashable, Callable[..., Any]] = OrderedDict()


def _run(
    state: State,
    fixed: Family,
    shares: Float[Array, "*P"],
    steps: Steps,
    rates: Float[Array, " places"],
    count: Int[Array, ""],
    before: Mean,
    watched: tuple[Int[Array, " W"], Float[Array, "W R"]],
    *,
    layout: Layout,
    draws: int,
    estimator: Estimator,
    rows: Rows | None,
    how: str,
) -> tuple[State, StepInfo, Mean, Float[Array, " P"], Float[Array, " Q"]]:
    """Steps one after the other; what they saw, the mean of the chunk's iterates, and where that stands.

    Args:
        shares: of the rate, for each parameter.
        count: steps to make, of as many as there are places.
        before: of the iterates of the chunk so far.
        how: the backend, which is read while tracing: JAX keeps what it traced by the arguments alone.
    """
    rule, size, block = learning_rule(rows), fixed.frame.global_center.shape[0], fixed.local.block
    units = steps.units.numbers.shape[1]
    length = _divisor(_BLOCK, _NORMALS // max(1, draws * (size + block * units)))

    def drawn(step: Array, which: Array) -> Noise:
        numbers = steps.units.batch(which).numbers
        independent = draws if rows is None else draws // 2
        return normals(jax.random.fold_in(state.key, step), numbers, independent, size, block, jnp.float32)

    def one(carry: tuple[Any, ...], noise: Noise, at: Array) -> tuple[Any, ...]:
        moved, optimizer, total, seen = carry
        _, inputs, weight = steps.units.batch(steps.which[at])
        if rows is not None:
            noise = noise.mirrored()

        def loss(moved: Array) -> tuple[Array, StepInfo]:
            family: Family = eqx.combine(layout.tree(moved), fixed)
            return neg_elbo(family, steps.terms.density(steps.slots[at]), noise, inputs, weight, estimator)

        gradient, info = jax.grad(loss, has_aux=True)(moved)
        # Without an accepted draw the gradient says nothing: rejected draws never reach the parameters.
        rate = jnp.where(info.num_rejected < draws, rates[at], 0.0)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes precisions
            given = {"rate": rate * shares} | ({} if rows is None else {"units": jnp.sum(weight)})
            updates, optimizer = rule.update(gradient, optimizer, moved, **given)
        moved = optax.apply_updates(moved, updates)
        seen = jax.tree.map(lambda all_steps, now: all_steps.at[at].set(now), seen, info)
        return moved, optimizer, total + moved, seen

    def in_block(number: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        first = number * length
        which = jax.lax.dynamic_slice_in_dim(steps.which, first, length)
        noise = jax.vmap(drawn)(state.step + first + jnp.arange(length, dtype=jnp.int32), which)

        def step(i: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            return one(carry, jax.tree.map(lambda part: part[i], noise), first + i)

        made: tuple[Any, ...] = jax.lax.fori_loop(0, jnp.minimum(length, count - first), step, carry)
        return made

    seen = StepInfo(jnp.zeros(rates.shape), jnp.zeros(rates.shape, dtype=jnp.int64))
    carry = state.moved, state.optimizer, before.total, seen
    carry = jax.lax.fori_loop(0, (count + length - 1) // length, in_block, carry)
    moved, optimizer, total, seen = carry
    mean = Mean(total, before.steps + count)
    at = total / mean.steps.astype(total.dtype)
    position = _position(eqx.combine(layout.tree(at), fixed), *watched)
    return State(moved, optimizer, state.key, state.step + count), seen, mean, at, position


def _position(family: Family, units: Array, inputs: Array) -> Float[Array, " Q"]:
    """Means and log sds of the globals, then of some units with these inputs."""
    of_globals, nu = family.globals.resolved(), family.inference(inputs)
    parts = [part[:, units] if isinstance(family.inference, Table) else part for part in (nu.loc, nu.log_sd)]
    return jnp.concatenate([of_globals.loc, of_globals.log_sd, *(part.reshape(-1) for part in parts)])


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is at most `most`, and at least 1."""
    return max(size for size in range(1, max(1, min(number, most)) + 1) if number % size == 0)


def padded_size(units: int) -> int:
    """A number of units that programs are compiled for: at most a quarter more, and none more where they are many."""
    if not 0 < units < MANY:
        return units
    step = 1 << max(0, (units - 1).bit_length() - 3)
    return -(-units // step) * step


def _resized(family: Family, units: int) -> Family:
    """The family with rows for so many units in its table and its frame, the last one repeated, or the first ones."""

    def resized(part: Array) -> Array:
        more = units - part.shape[1]
        if more == 0:
            return part
        return on_device(
            np.pad(part, ((0, 0), (0, more)), mode="edge") if more > 0 else np.asarray(part)[:, :units]
        )

    if isinstance(family.inference, Table):
        family = eqx.tree_at(lambda f: f.inference, family, jax.tree.map(resized, family.inference))
    if family.frame.local_scale.shape[1] != 1:
        own = ("local_center", "local_scale", "local_log_scale")
        parts = [resized(getattr(family.frame, name)) for name in own]
        family = eqx.tree_at(lambda f: [getattr(f.frame, name) for name in own], family, parts)
    return family


# --- leaves by name, for checkpoints ------------------------------------------------------------------------


def named(tree: Any) -> Arrays:
    """The leaves of a tree by name, as numpy arrays; a key as its data."""
    leaves = (jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree))
    return {name: np.asarray(leaf) for name, leaf in zip(_names(tree), leaves, strict=True)}


def restored[Tree](like: Tree, arrays: Arrays) -> Tree:
    """A tree like another one with the leaves that `named` gave."""
    leaves, structure = jax.tree.flatten(like)
    pairs = zip(leaves, _names(like), strict=True)
    tree: Tree = jax.tree.unflatten(structure, [_as_leaf(arrays[name], leaf) for leaf, name in pairs])
    return tree


def _names(tree: Any) -> list[str]:
    """Such as `moved.globals.loc`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]


def _as_leaf(values: Any, like: Array) -> Array:
    if values.shape != (jax.random.key_data(like) if _is_key(like) else like).shape:
        raise ValueError(f"an array of shape {values.shape} in place of {like.shape}")
    if _is_key(like):
        return jax.random.wrap_key_data(on_device(values), impl=jax.random.key_impl(like))
    return on_device(values, like.dtype)


def _is_key(leaf: Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
