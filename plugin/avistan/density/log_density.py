"""Stan's log density and gradient as differentiable JAX operations over registered models.

Draws of one call are spread over threads by the compiled handler (`handler`); without it, `jax.pure_callback` gives the
same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from avistan.density import handler
from avistan.density.backend import Backend, backend
from avistan.density.host import evaluate_blocks_on_host, evaluate_on_host
from avistan.density.slots import Slot, layout_for, open_record
from stan_adapters.errors import BindingError

# --- through a callback -------------------------------------------------------------------------------------
# JAX runs callbacks on a thread of its own, where 64-bit types may be off and float64 would be rounded on the way:
# 64-bit numbers travel as pairs of uint32.


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _through_callback(
    body: Callable[..., Any], results: tuple[jax.ShapeDtypeStruct, ...], vmap_method: str, *arguments: Array
) -> tuple[Array, ...]:
    """What `body` computes of numpy arrays on the host."""
    dtypes = tuple(argument.dtype for argument in arguments)

    def on_host(*carried: Any) -> tuple[NDArray[Any], ...]:
        given = [
            np.asarray(value, order="C").view(dtype)[..., 0] if dtype.itemsize == 8 else np.asarray(value)
            for value, dtype in zip(carried, dtypes, strict=True)
        ]
        return tuple(value[..., None].view(np.uint32) if _wide(value) else value for value in body(*given))

    carried_results = [
        jax.ShapeDtypeStruct((*result.shape, 2), jnp.uint32) if _wide(result) else result
        for result in results
    ]
    words = [jax.lax.bitcast_convert_type(a, jnp.uint32) if _wide(a) else a for a in arguments]
    found = jax.pure_callback(on_host, carried_results, *words, vmap_method=vmap_method)
    return tuple(
        jax.lax.bitcast_convert_type(value, result.dtype) if _wide(result) else value
        for value, result in zip(found, results, strict=True)
    )


def _wide(value: Any) -> bool:
    return bool(value.dtype.itemsize == 8)


@_through_callback.defjvp
def _no_second_order(*_: Any) -> Any:
    """Words have no derivative, and JAX would take it for zero."""
    raise TypeError("log densities have first derivatives only, in reverse mode: Stan gives no second ones.")


# --- the operations -----------------------------------------------------------------------------------------


def _call(
    how: Backend,
    target: str,
    body: Callable[..., Any],
    results: tuple[jax.ShapeDtypeStruct, ...],
    vmap_method: str,
    *arguments: Array,
) -> tuple[Array, ...]:
    through_callback = functools.partial(_through_callback, body, results, vmap_method)
    if how == "callback":
        return through_callback(*arguments)
    native = jax.ffi.ffi_call(target, results, vmap_method=vmap_method)
    # On an accelerator the handler does not exist: the callback brings the draws to the host.
    return tuple(jax.lax.platform_dependent(*arguments, cpu=native, default=through_callback))


def _evaluate(how: Backend, slot: Array, theta: Array) -> tuple[Array, ...]:
    """(lp, grad, status) for slot () and theta (..., D); under vmap both get the same leading batch axes."""
    rows = theta.shape[:-1]
    results = (
        jax.ShapeDtypeStruct(rows, jnp.float64),
        jax.ShapeDtypeStruct(theta.shape, jnp.float64),
        jax.ShapeDtypeStruct(rows, jnp.int32),
    )
    return _call(how, handler.TARGET, evaluate_on_host, results, "broadcast_all", slot, theta)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _log_density(how: Backend, slot: Array, theta: Array) -> tuple[Array, Array]:
    lp, _, status = _evaluate(how, slot, theta)
    return lp, status


def _forward(how: Backend, slot: Array, theta: Array) -> tuple[tuple[Array, Array], Array]:
    lp, grad, status = _evaluate(how, slot, theta)
    return (lp, status), grad


def _backward(how: Backend, grad: Array, cotangents: tuple[Array, Any]) -> tuple[None, Array]:
    return None, cotangents[0][..., None] * grad


_log_density.defvjp(_forward, _backward)


def log_density(
    slot: Slot | int | Int[Array, ""], theta: Float[Array, "*draws D"]
) -> tuple[Float[Array, "*draws"], Int[Array, "*draws"]]:
    """Stan's log density of each row of `theta`, differentiable with respect to `theta`.

    Reverse mode and first order only (`jax.grad`, `jax.vjp`): the gradient is Stan's own, saved by the forward pass.
    Works under `jit`, `lax.scan` and `vmap`, over `theta` and over `slot`.

    Args:
        slot: which model; a `Slot` is fixed in the compiled program, an integer array is read at run time.
        theta: float64 points on the unconstrained scale.
    Returns:
        lp: float64, Jacobian included and constants dropped, so only differences within one program mean something;
            -inf, with gradient zero, where Stan rejects the point or the density or its gradient is not finite.
        status: int32, 0 accepted, 1 rejected.
    Raises:
        BindingError: while tracing, if theta is not float64, has no last axis of the slot's dimension, or the slot is
            closed. With `slot` traced, these are `jax.errors.JaxRuntimeError` or ValueError of the run.
    """
    _check_float64("log_density", theta)
    if theta.ndim == 0:
        raise BindingError("log_density needs theta of shape (..., D), got a scalar.")
    which = slot.index if isinstance(slot, Slot) else slot
    if not isinstance(which, jax.core.Tracer):
        open_record(int(which), theta.shape[-1])
    return _log_density(backend(), jnp.asarray(which, dtype=jnp.int64), theta)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _block_log_density(how: Backend, slot: Array, theta: Array, z: Array) -> tuple[Array, Array]:
    return _blocks_forward(how, slot, theta, z)[0]


def _blocks_forward(
    how: Backend, slot: Array, theta: Array, z: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    results = (
        jax.ShapeDtypeStruct(theta.shape[:1], jnp.float64),
        jax.ShapeDtypeStruct(theta.shape, jnp.float64),
        jax.ShapeDtypeStruct(z.shape, jnp.float64),
        jax.ShapeDtypeStruct(theta.shape[:1], jnp.int32),
    )
    lp, of_theta, of_z, status = _call(
        how, handler.BLOCK_TARGET, evaluate_blocks_on_host, results, "sequential", slot, theta, z
    )
    return (lp, status), (of_theta, of_z)


def _blocks_backward(
    how: Backend, gradient: tuple[Array, Array], cotangents: tuple[Array, Any]
) -> tuple[None, Array, Array]:
    of_lp = cotangents[0]
    return None, of_lp[:, None] * gradient[0], of_lp[:, None, None] * gradient[1]


_block_log_density.defvjp(_blocks_forward, _blocks_backward)


def block_gradient(
    slot: Slot | int | Int[Array, ""], theta: Float[Array, "S G"], z: Float[Array, "S d N"]
) -> tuple[Float[Array, " S"], Float[Array, "S G"], Float[Array, "S d N"], Int[Array, " S"]]:
    """`block_log_density` with its gradients by globals and latents: lp, these, and the status."""
    which = _checked_blocks("block_gradient", slot, theta, z)
    (lp, status), (of_theta, of_z) = _blocks_forward(backend(), which, theta, z)
    return lp, of_theta, of_z, status


def block_log_density(
    slot: Slot | int | Int[Array, ""], theta: Float[Array, "S G"], z: Float[Array, "S d N"]
) -> tuple[Float[Array, " S"], Int[Array, " S"]]:
    """Stan's log density of draws given as globals and the latents of units; `set_layout` says where those lie.

    Differentiable in `theta` and `z`, once and in reverse mode, as `log_density`; what it says of `lp` and `status`
    holds here.

    Args:
        slot: which model; a `Slot` is fixed in the compiled program, an integer array is read at run time.
        theta: float64 globals on the unconstrained scale.
        z: float64 latents. Columns beyond the slot's units are not read and get gradient zero: all of them where the
            slot's layout has no units.
    Raises:
        BindingError: while tracing, if theta or z is not float64 or of other shapes than the slot takes, or the slot
            is closed or has no layout. With `slot` traced, these are `jax.errors.JaxRuntimeError` or ValueError of the
            run.
    """
    return _block_log_density(backend(), _checked_blocks("block_log_density", slot, theta, z), theta, z)


def _checked_blocks(name: str, slot: Slot | int | Array, theta: Array, z: Array) -> Array:
    """The slot's number, if what is asked of it has types and shapes that it takes."""
    _check_float64(name, theta, z)
    if theta.ndim != 2 or z.ndim != 3 or len(theta) != len(z):
        raise BindingError(
            f"{name} needs theta of shape (S, G) and z (S, d, N), got {theta.shape} and {z.shape}."
        )
    which = slot.index if isinstance(slot, Slot) else slot
    if not isinstance(which, jax.core.Tracer):
        layout_for(int(which), open_record(int(which)), theta.shape, z.shape)
    return jnp.asarray(which, dtype=jnp.int64)


def _check_float64(name: str, *points: Array) -> None:
    for point in points:
        if point.dtype != jnp.float64 or jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
            raise BindingError(
                f"{name} needs float64 points with 64-bit types enabled, got {point.dtype}: call it, and make the "
                "points, inside `with jax.enable_x64(True):`."
            )
