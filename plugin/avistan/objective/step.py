"""The ELBO of a family on one batch of units and its gradient by the path derivative, in one operation.

It draws, asks Stan, and differentiates without leaving intermediate arrays to XLA: in the compiled handler
(native/step.h has the formulas) or, without it, in numpy. Both take their normals by number (`normals`), so the same
step gives the same numbers. What it does not cover (`form_of` gives None) goes through `objective.neg_elbo`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Float64, Int, UInt64

from avistan.density import native
from avistan.density.log_density import Backend, SlotLayout, evaluate_rows, open_record
from avistan.density.step_normals import normals
from avistan.family.conditional import along, through_curve
from avistan.family.family import Family
from avistan.family.flow import NUMBERS, bend, flattened, number_slopes
from avistan.family.functions import Table
from avistan.runtime.types import FloatArray
from stan_adapters.errors import BindingError

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Form:
    """Sizes of a family: G globals, d latents of each of `columns` units, K directions that the locals follow, `hidden`
    of them curved; their scales too where `growth_range` is positive (`LocalGaussian`). A flow may bend globals and
    locals.
    """

    num_globals: int
    block: int
    columns: int
    directions: int
    hidden: int
    full_rank: bool
    full: bool
    mapped: bool
    growth_range: float
    shrink_range: float
    global_flow: bool
    flow: bool

    @property
    def rows(self) -> tuple[int, int, int, int, int, int]:
        """Rows of each part of `LocalNu` in the packed parameters of the locals."""
        d, along = self.block, self.block * self.directions
        below, growth = d * (d - 1) // 2 if self.full else 0, along if self.growth_range else 0
        return d, d, below, along, growth, d * NUMBERS if self.flow else 0


class Parts(NamedTuple):
    """Parameters on the standardized scale, or their gradient: JAX arrays or numpy's, float64, the locals float32."""

    loc: Any  # (G,)
    log_sd: Any  # (G,)
    below: Any  # (G (G - 1) / 2,) or none
    locals: Any  # (rows, columns): parameters of the units, as `Form.rows` says
    map: Any  # (K - H, G): the straight directions, or none
    warp: Any  # (2, G): of the globals' flow, or none
    curve: Any  # (H, K - H + 1): of the curved directions, or none


class StepFrame(NamedTuple):
    """Centres and scales of globals (G,), and of locals (d, 1), or (d, columns) where every unit has its own."""

    global_center: Any
    global_scale: Any
    local_center: Any
    local_scale: Any


class Batch(NamedTuple):
    """Slots (terms,) and weights (terms,): the batch of units first, then densities of the globals alone."""

    slots: Int[Array, " terms"]
    weights: Float64[Array, " terms"]


def form_of(family: Family) -> Form | None:
    """The form of a family that this operation covers, else None."""
    local, frame = family.local, family.frame
    covered = local.kind in ("diagonal", "full") and not local.student
    own = frame.local_scale.shape[1] != 1
    low_rank = family.globals.kind == "low-rank"
    if not covered or low_rank or (own and not isinstance(family.inference, Table)):
        return None
    return Form(
        num_globals=family.globals.size,
        block=local.block,
        columns=family.placement.local_index.shape[0],
        directions=local.directions if local.conditional != "none" else 0,
        hidden=local.hidden,
        full_rank=family.globals.kind == "full-rank",
        full=local.kind == "full" and local.block > 1,
        mapped=family.directions is not None,
        growth_range=local.growth_range if local.scaled else 0.0,
        shrink_range=local.shrink_range,
        global_flow=family.globals.warp is not None,
        flow=local.flow,
    )


def frame_of(family: Family) -> StepFrame:
    frame = family.frame
    return StepFrame(frame.global_center, frame.global_scale, frame.local_center, frame.local_scale)


def parts_of(family: Family, inputs: Float[Array, "N R"]) -> Parts:
    """Parameters of the globals and of the units with these inputs, differentiable."""
    factor, form = family.globals.resolved(), form_of(family)
    assert form is not None
    none = jnp.zeros((0, form.num_globals))
    return Parts(
        factor.loc,
        factor.log_sd,
        factor.below,
        family.inference.packed(inputs),
        none if family.directions is None else family.directions,
        none if factor.warp is None else factor.warp,
        jnp.zeros((0, form.directions + 1)) if family.curve is None else family.curve,
    )


def host_parts(family: Family, form: Form, locals_: FloatArray) -> Parts:
    """`parts_of` in numpy, given the packed parameters of the units (rows, columns)."""
    factor = family.globals.resolved()
    none = np.zeros((0, factor.size))
    curve = np.zeros((0, form.directions + 1)) if family.curve is None else family.curve
    rest = (
        none if family.directions is None else family.directions,
        none if factor.warp is None else factor.warp,
    )
    return Parts(*map(np.asarray, (factor.loc, factor.log_sd, factor.below, locals_, *rest, curve)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def elbo_estimate(
    how: Backend,
    form: Form,
    draws: int,
    batch: Batch,
    key: UInt64[Array, " 2"],
    frame: StepFrame,
    parts: Parts,
) -> tuple[Float64[Array, ""], Int[Array, ""]]:
    """The ELBO estimate of one step in nats over the accepted draws (NaN without any), and the rejected draws.

    Differentiable once in `parts`, by the path derivative: the score of q, whose mean is zero, is left out.

    Args:
        how: "native" or "callback".
        key: of the random numbers, and the number of the step.

    Source: Roeder, Wu & Duvenaud, NeurIPS 2017; for batches of units, unbiased by separability.
    """
    return _call(how, form, draws, batch, key, frame, parts)[:2]


def _forward(
    how: Backend, form: Form, draws: int, batch: Batch, key: Array, frame: StepFrame, parts: Parts
) -> tuple[tuple[Array, Array], Parts]:
    elbo, rejected, gradient = _call(how, form, draws, batch, key, frame, parts)
    return (elbo, rejected), gradient


def _backward(
    how: Backend, form: Form, draws: int, gradient: Parts, cotangents: tuple[Array, Any]
) -> tuple[None, None, None, Parts]:
    scaled = [cotangents[0].astype(part.dtype) * part for part in gradient]
    return None, None, None, Parts(*scaled)


elbo_estimate.defvjp(_forward, _backward)


def _call(
    how: Backend, form: Form, draws: int, batch: Batch, key: Array, frame: StepFrame, parts: Parts
) -> tuple[Array, Array, Parts]:
    results = (
        jax.ShapeDtypeStruct((), jnp.float64),
        jax.ShapeDtypeStruct((), jnp.int32),
        *(jax.ShapeDtypeStruct(part.shape, part.dtype) for part in parts),
    )

    def through_handler(*arguments: Array) -> tuple[Array, ...]:
        call = jax.ffi.ffi_call(native.PATH_TARGET, results)
        return tuple(
            call(
                *arguments,
                block=np.int64(form.block),
                directions=np.int64(form.directions),
                hidden=np.int64(form.hidden),
                draws=np.int64(draws),
                full_rank=form.full_rank,
                full=form.full,
                mapped=form.mapped,
                growth_range=np.float64(form.growth_range),
                shrink_range=np.float64(form.shrink_range),
                global_flow=form.global_flow,
                flow=form.flow,
            )
        )

    def through_callback(*arguments: Array) -> tuple[Array, ...]:
        carried = tuple(
            jax.ShapeDtypeStruct(
                _carried_shape(result), np.uint32 if result.dtype.itemsize == 8 else result.dtype
            )
            for result in results
        )
        body = functools.partial(_on_host, form, draws, tuple(a.dtype.str for a in arguments))
        found = jax.pure_callback(body, carried, *(_as_bits(a) for a in arguments))
        return tuple(
            jax.lax.bitcast_convert_type(value, result.dtype) if result.dtype.itemsize == 8 else value
            for value, result in zip(found, results, strict=True)
        )

    arguments = (*batch, key, *frame, *parts)
    if how == "callback":
        elbo, rejected, *gradient = through_callback(*arguments)
    else:  # on an accelerator the handler does not exist: the callback brings the parameters to the host
        elbo, rejected, *gradient = jax.lax.platform_dependent(
            *arguments, cpu=through_handler, default=through_callback
        )
    return elbo, rejected, Parts(*gradient)


# --- the same in numpy ----------------------------------------------------------------------------------------


def numpy_elbo_gradient(
    form: Form,
    draws: int,
    slots: npt.NDArray[np.int64],
    weights: FloatArray,
    key: tuple[int, int],
    frame: StepFrame,
    parts: Parts,
) -> tuple[float, int, Parts]:
    """What `elbo_estimate` computes, with its gradient, on the host; arguments as there.

    Raises:
        BindingError: a slot is closed or has no layout.
    """
    frame, parts = StepFrame(*map(np.asarray, frame)), Parts(*map(np.asarray, parts))
    layouts = [_layout(int(slot)) for slot in slots]
    units, weight, G, d = layouts[0].local_at.shape[1], float(weights[0]), form.num_globals, form.block
    locals_ = np.asarray(parts.locals)[:, :units].astype(np.float64)
    loc, log_sd, below, slope, growth, warp = np.split(locals_, np.cumsum(form.rows)[:-1])
    own = frame.local_scale.shape[1] != 1
    center, scale = ((p[:, :units] if own else p) for p in (frame.local_center, frame.local_scale))
    lower, sd = lower_factor(parts), np.exp(log_sd)
    t = np.array([normals(*key, s * (d + 1), G) for s in range(draws)], dtype=np.float64)
    e = np.array(
        [[normals(*key, s * (d + 1) + 1 + i, units) for i in range(d)] for s in range(draws)],
        dtype=np.float64,
    ).reshape(draws, d, units)
    curve = parts.curve if form.hidden else None
    at, bends = along(t, parts.map if form.mapped else None, curve)
    at = at[:, : form.directions]
    within = _unit_factors(form, log_sd, below)  # (d, d, units)
    slopes = slope.reshape(d, form.directions, units)
    rates = growth.reshape(slopes.shape) if form.growth_range else np.zeros_like(slopes)
    grown, growth_slope = flattened(
        np.einsum("ikn,sk->sin", rates, at), form.growth_range or 1.0, form.shrink_range
    )
    numbers = warp.reshape(d, NUMBERS, units).swapaxes(0, 1) if form.flow else warp
    bent_globals = _bent(parts.warp, np.exp(parts.log_sd), t, t @ lower.T)
    bent = _bent(numbers, sd, e, np.einsum("ijn,sjn->sin", within, e))
    moved = np.exp(grown) * bent.value
    z = loc + moved + np.einsum("ikn,sk->sin", slopes, at)

    theta = frame.global_center + frame.global_scale * (parts.loc + bent_globals.value)
    value, accepted = np.zeros(draws), np.ones(draws, dtype=bool)
    of_globals, of_locals = np.zeros((draws, G)), np.zeros_like(z)
    for number, (slot, given) in enumerate(zip(slots, weights, strict=True)):
        layout = layouts[number]
        points = np.zeros((draws, open_record(int(slot)).dim))
        if number:
            points[:] = layout.rest
        else:
            points[:, layout.local_at] = center + scale * z
        points[:, layout.global_at] = theta
        lp, gradient, status = np.empty(draws), np.empty_like(points), np.zeros(draws, np.int32)
        evaluate_rows(open_record(int(slot)), points, lp, gradient, status)
        accepted &= status == 0
        value += given * np.where(status == 0, lp, 0.0)
        of_globals += given * gradient[:, layout.global_at]
        if not number:
            of_locals = given * scale * gradient[:, layout.local_at]

    rejected = int(draws - accepted.sum())
    zeros = Parts(*(np.zeros_like(part) for part in parts))
    if rejected == draws:
        return float("nan"), rejected, zeros
    solved = np.empty_like(e)  # p with L_n' p = e_n
    for i in reversed(range(d)):
        rest = sum(within[k, i] * solved[:, k] for k in range(i + 1, d))
        solved[:, i] = (e[:, i] - rest) / within[i, i]
    solved = np.exp(-grown) * bent.pulled(solved)
    of_locals = of_locals + weight * solved
    back = np.einsum("ikn,sin->sk", slopes, solved)
    back = -weight * (back + np.einsum("ikn,sin->sk", rates, growth_slope * (solved * moved - 1)))
    back = through_curve(back, bends, curve)
    pull = t + (back @ parts.map if form.mapped else np.pad(back, ((0, 0), (0, G - back.shape[1]))))
    of_globals = frame.global_scale * of_globals + bent_globals.pulled(np.linalg.solve(lower.T, pull.T).T)
    log_det = np.log(frame.global_scale).sum() + parts.log_sd.sum() + G * _HALF_LOG_2PI
    local_log_det = np.broadcast_to(np.log(scale), loc.shape).sum() + log_sd.sum() + loc.size * _HALF_LOG_2PI
    value += log_det + (0.5 * t**2 + bent_globals.log_slope).sum(axis=1)
    value += weight * (local_log_det + (0.5 * e**2 + bent.log_slope + grown).sum(axis=(1, 2)))

    share = accepted / accepted.sum()
    of_noise = np.exp(grown) * of_locals
    through = np.einsum("s,sin,sjn->ijn", share, bent.slope * of_noise, e)  # d / d L_n
    of_growth = growth_slope * moved * of_locals
    pairs = [(i, j) for i in range(d) for j in range(i)] if form.full else []
    found = (
        np.einsum("s,sin->in", share, of_locals),
        np.einsum("s,sin,sin->in", share, of_noise, bent.by_log_sd),
        np.array([through[i, j] for i, j in pairs]).reshape(len(pairs), units),
        np.einsum("s,sin,sk->ikn", share, of_locals, at).reshape(len(slope), units),
        np.einsum("s,sin,sk->ikn", share, of_growth, at).reshape(len(slope), units)[: len(growth)],
        np.einsum("s,sin,fsin->ifn", share, of_noise, bent.by_numbers).reshape(len(warp), units),
    )
    zeros.locals[:, :units] = np.concatenate(found)
    of_lower = np.einsum("s,sg,sh->gh", share, bent_globals.slope * of_globals, t)
    rows, columns = np.tril_indices(G, -1)
    toward = np.einsum("sin,ikn->sk", of_locals, slopes) + np.einsum("sin,ikn->sk", of_growth, rates)
    straight = form.directions - form.hidden
    of_hidden = share[:, None] * bends * toward[:, straight:]
    toward = through_curve(toward, bends, curve)
    gradient_parts = zeros._replace(
        loc=share @ of_globals,
        log_sd=np.einsum("s,sg,sg->g", share, of_globals, bent_globals.by_log_sd),
        below=of_lower[rows, columns] if form.full_rank else zeros.below,
        map=np.einsum("s,sk,sg->kg", share, toward, t) if form.mapped else zeros.map,
        warp=np.einsum("s,sg,fsg->fg", share, of_globals, bent_globals.by_numbers),
        curve=of_hidden.T @ np.pad(at[:, :straight], ((0, 0), (0, 1)), constant_values=1.0)
        if form.hidden
        else zeros.curve,
    )
    return float(share @ np.where(accepted, value, 0.0)), rejected, gradient_parts


@dataclass(frozen=True, slots=True)
class _Entries:
    """What moves entries (S, ...), after the flow if there is one: its value, the flow's log slope and curvature, and
    the value's derivatives by the entries' log sds, and by the flow's numbers (2, S, ...) or (0, S, ...).
    """

    value: FloatArray
    log_slope: FloatArray
    curvature: FloatArray
    by_log_sd: FloatArray
    by_numbers: FloatArray

    @property
    def slope(self) -> FloatArray:
        return np.exp(self.log_slope)

    def pulled(self, pull: FloatArray) -> FloatArray:
        """The pull of the value, given that of what the flow bends."""
        return (pull + self.curvature) / self.slope


def _bent(numbers: FloatArray, sd: FloatArray, noise: FloatArray, moved: FloatArray) -> _Entries:
    """Entries `moved` by their own noise in sds and by that of others, through a flow with numbers (2, ...) or none."""
    if not len(numbers):
        nothing = np.zeros_like(moved)
        return _Entries(moved, nothing, nothing, sd * noise, np.zeros((0, *moved.shape)))
    r = moved / sd
    found = bend(numbers, r)
    by_log_sd = sd * (found.value - np.exp(found.log_slope) * (r - noise))
    return _Entries(
        sd * found.value, found.log_slope, found.curvature / sd, by_log_sd, sd * number_slopes(numbers, r)
    )


def lower_factor(parts: Parts) -> FloatArray:
    """The Cholesky factor of the standardized globals, (G, G); parts are numpy's."""
    lower = np.diag(np.exp(parts.log_sd))
    if len(parts.below):
        lower[np.tril_indices(len(lower), -1)] = parts.below
    return lower


def _unit_factors(form: Form, log_sd: FloatArray, below: FloatArray) -> FloatArray:
    """The Cholesky factors of the units, (d, d, N)."""
    factors = np.zeros((form.block, form.block, log_sd.shape[1]))
    factors[np.arange(form.block), np.arange(form.block)] = np.exp(log_sd)
    if form.full:
        factors[np.tril_indices(form.block, -1)] = below
    return factors


def _layout(slot: int) -> SlotLayout:
    layout = open_record(slot).layout
    if layout is None:
        raise BindingError(f"avistan: slot {slot} was registered without a layout.")
    return layout


# --- arrays through a callback --------------------------------------------------------------------------------
# JAX runs callbacks on a thread where 64-bit types may be off: they travel as pairs of 32-bit words.


def _as_bits(value: Array) -> Array:
    return jax.lax.bitcast_convert_type(value, jnp.uint32) if value.dtype.itemsize == 8 else value


def _carried_shape(result: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    return (*result.shape, 2) if result.dtype.itemsize == 8 else result.shape


def _on_host(form: Form, draws: int, dtypes: tuple[str, ...], *carried: Any) -> tuple[npt.NDArray[Any], ...]:
    given = []
    for value, dtype in zip(carried, dtypes, strict=True):
        bits = np.array(value, order="C")
        given.append(bits.view(dtype)[..., 0] if np.dtype(dtype).itemsize == 8 else bits)
    slots, weights, key, *rest = given
    elbo, rejected, gradient = numpy_elbo_gradient(
        form, draws, slots, weights, (int(key[0]), int(key[1])), StepFrame(*rest[:4]), Parts(*rest[4:])
    )
    values: list[npt.NDArray[Any]] = [np.asarray(elbo), np.asarray(rejected, dtype=np.int32), *gradient]
    return tuple(
        np.array(v, order="C")[..., None].view(np.uint32) if v.dtype.itemsize == 8 else v for v in values
    )
