"""Stan's log densities and gradients on the host, from numpy arrays and through ctypes alone."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from avistan.density.slots import Record, layout_for, open_record


def evaluate_rows(
    record: Record,
    theta: NDArray[np.float64],
    lp: NDArray[np.float64],
    grad: NDArray[np.float64],
    status: NDArray[np.int32],
) -> None:
    """Fill lp (S,), grad (S, D) and status (S,) from theta (S, D) through raw ctypes calls."""
    error = ctypes.c_void_p()
    stride = theta.shape[1] * theta.itemsize
    at_theta, at_grad, at_lp = theta.ctypes.data, grad.ctypes.data, lp.ctypes.data
    with record.lock, record.exclusive:
        for row in range(len(theta)):
            code = record.gradient(
                record.handle,
                True,
                True,
                at_theta + row * stride,
                at_lp + row * lp.itemsize,
                at_grad + row * stride,
                ctypes.byref(error),
            )
            if error.value is not None:
                record.free_error(error)
                error.value = None
            if code != 0 or not np.isfinite(lp[row]) or not np.isfinite(grad[row]).all():
                lp[row], grad[row], status[row] = -np.inf, 0.0, 1


def evaluate_on_host(
    slot: NDArray[np.int64], theta: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """(lp, grad, status) of points (..., D); the axes of `slot` lead."""
    slots, rows, dim = slot.reshape(-1), theta.shape[:-1], theta.shape[-1]
    lp, grad, status = np.empty(rows), np.empty_like(theta), np.zeros(rows, np.int32)
    if lp.size:
        flat = (slots.size, lp.size // slots.size)
        blocks = theta.reshape(*flat, dim), lp.reshape(flat), grad.reshape(*flat, dim), status.reshape(flat)
        for i, index in enumerate(slots.tolist()):
            record = open_record(index, dim)
            evaluate_rows(record, blocks[0][i], blocks[1][i], blocks[2][i], blocks[3][i])
    return lp, grad, status


def evaluate_blocks_on_host(
    slot: NDArray[np.int64], theta: NDArray[np.float64], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """(lp, gradients like theta and z, status) of draws theta (S, G) and z (S, d, N)."""
    record = open_record(int(slot))
    layout = layout_for(int(slot), record, theta.shape, z.shape)
    points, units = np.empty((len(theta), record.dim)), layout.local_at.shape[1]
    if layout.rest is not None:
        points[:] = layout.rest
    points[:, layout.global_at] = theta
    if units:
        points[:, layout.local_at] = z[:, :, :units]
    lp, gradient, status = np.empty(len(points)), np.empty_like(points), np.zeros(len(points), np.int32)
    evaluate_rows(record, points, lp, gradient, status)
    z_gradient = np.zeros_like(z)
    if units:
        z_gradient[:, :, :units] = gradient[:, layout.local_at]
    return lp, np.ascontiguousarray(gradient[:, layout.global_at]), z_gradient, status
