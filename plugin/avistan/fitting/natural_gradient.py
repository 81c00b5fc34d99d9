"""The end of training: the globals at once, and the units that follow them, where the ELBO's gradient asks for it.

Where units follow the globals, moving these together is worth little against the tolerance of the ELBO and much in
their sds, and Adam's steps, entry by entry, are slow there. Along the standard normals t of q(theta) the posterior's
precision is near the identity, so the gradient itself is the step.

Source: natural gradients, Amari, Neural Computation 1998.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import equinox as eqx
import numpy as np
import numpy.typing as npt

from avistan.density.log_density import set_layout
from avistan.family.family import Family
from avistan.family.functions import MLP, Table
from avistan.family.globals import GlobalGaussian
from avistan.objective.host_functions import hosted, unit_values
from avistan.objective.step import (
    Form,
    Parts,
    form_of,
    frame_of,
    host_parts,
    lower_factor,
    numpy_elbo_gradient,
)
from avistan.runtime.device import on_device
from avistan.runtime.types import FloatArray

ROUNDS = 4
STILL = 0.1  # sds: with so many draws about the noise of a step
_DRAWS, _FEWEST_DRAWS, _NUMBERS = 64, 16, 2_000_000  # of a gradient, fewer of many parameters
_MOST_PARAMETERS = 250_000  # whose draws are held in numpy


@dataclass(frozen=True, slots=True, eq=False)
class SettlingStep:
    """A family moved along its globals, how far, in sds, and the gradients that it took."""

    family: Family
    size: float
    gradient_evaluations: int


@np.errstate(over="ignore", invalid="ignore")  # a draw far out counts for nothing, or the step does
def settling_step(
    family: Family, inputs: npt.NDArray[np.float32], slot: int, key: tuple[int, int]
) -> SettlingStep | None:
    """The family one step of its globals further; None where a part of it is not what `path_gradient` covers, where a
    second level is among the globals, of very many parameters, and where draws say nothing.

    Args:
        inputs: of all units, (N, R).
        slot: of the model.
        key: of the random numbers.
    """
    form, factor, function = form_of(family), family.globals, family.inference
    if form is None or not form.num_globals or not isinstance(factor, GlobalGaussian) or not hosted(function):
        return None
    if (form.directions and not isinstance(function, MLP | Table)) or family.dim > _MOST_PARAMETERS:
        return None
    draws = int(np.clip(_NUMBERS // family.dim, _FEWEST_DRAWS, _DRAWS))
    place = family.placement
    set_layout(slot, np.asarray(place.global_index), np.asarray(place.local_index).T)
    parts = host_parts(family, form, np.concatenate(unit_values(function, inputs, slice(None))))
    _, rejected, gradient = numpy_elbo_gradient(
        form, draws, np.array([slot]), np.ones(1), key, frame_of(family), parts
    )
    if rejected == draws:
        return None
    shift, lower = _gradient_along_t(form, parts, gradient), lower_factor(parts)
    if not np.isfinite(shift).all():
        return None
    moved = _moved(family, form, parts, lower @ shift, shift)
    return SettlingStep(moved, float(np.abs(shift).max()), draws)


def _straight(form: Form, rates: FloatArray) -> FloatArray:
    """Rates (d K, N) along the straight directions, (d, K - H, N)."""
    return rates.reshape(form.block, form.directions, -1)[:, : form.directions - form.hidden]


def _gradient_along_t(form: Form, parts: Parts, gradient: Parts) -> FloatArray:
    """The ELBO's derivatives (G,) by a move of the globals in t that units follow."""
    shift = lower_factor(parts).T @ gradient.loc
    if not form.directions:
        return np.asarray(shift)
    *_, slope, growth, _ = np.split(parts.locals, np.cumsum(form.rows)[:-1])
    of_loc, of_log_sd = gradient.locals[: form.block], gradient.locals[form.block : 2 * form.block]
    back = np.einsum("in,ikn->k", of_loc, _straight(form, slope))
    if len(growth):
        back += np.einsum("in,ikn->k", of_log_sd, _straight(form, growth))
    if form.hidden:
        back += parts.curve[:, :-1].T @ gradient.curve[:, -1]
    return np.asarray(shift + (parts.map.T @ back if form.mapped else back))


def _moved(family: Family, form: Form, parts: Parts, of_loc: FloatArray, shift: FloatArray) -> Family:
    """The family with its globals moved by `of_loc` (G,), and units where they were at each value of the globals."""
    moved: Family = eqx.tree_at(lambda f: f.globals.loc, family, on_device(parts.loc + of_loc))
    if not form.directions:
        return moved
    along = parts.map @ shift if form.mapped else shift
    function = family.inference
    assert isinstance(function, MLP | Table)
    moved = replace(moved, inference=function.moved_along(np.pad(along, (0, form.hidden))))
    if not form.hidden:
        return moved
    curve = parts.curve.copy()
    curve[:, -1] += curve[:, :-1] @ along
    return replace(moved, curve=on_device(curve))
