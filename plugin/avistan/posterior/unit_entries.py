"""Which unit each entry of a variable belongs to, and the draws of one number of every unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from avistan.fitting.fitted import Fitted
from avistan.posterior.datatree import declared_dims, unit_dim
from avistan.runtime.errors import FitError
from avistan.runtime.text import shortened
from avistan.runtime.types import FloatArray
from stan_adapters.files.names import did_you_mean
from stan_adapters.levels.levels import Level


def draws_of_units(
    fit: Fitted, values: Mapping[str, npt.NDArray[Any]], name: object = None, entry: object = None
) -> tuple[str, FloatArray]:
    """One number of every unit.

    Args:
        values: all variables' draws, each (S, ...).
        name: of a variable of units; None takes the first latent of the level.
        entry: which of a unit's numbers, where it has several: further indices, counted from 1, such as 2 or "2,1".

    Returns: what it is called, and draws (S, N) in the order of the units.

    Raises:
        FitError: the fit has no units, the variable is not of units, or no such entry, with those there are.
    """
    if fit.level is None:
        raise FitError("every parameter of this fit is global: it has no units to ask about.")
    known = {
        variable: found
        for variable, value in values.items()
        if (found := unit_of_entry(fit, fit.level, variable, value.shape[1:])) is not None
    }
    chosen = next(latent for latent in fit.level.latents if latent in known) if name is None else name
    if not isinstance(chosen, str) or chosen not in known:
        hint = did_you_mean(str(chosen), known)
        raise FitError(
            f"{chosen!r} is no variable of the units of {fit.level.name}.{hint} These are {', '.join(known)}."
        )
    unit = known[chosen].ravel()
    labels = entry_labels(known[chosen])
    of_units = sorted(
        {label for label, number in zip(labels, unit, strict=True) if number >= 0}, key=_numbers
    )
    wanted = str(entry).replace(" ", "") if entry is not None else of_units[0]
    if entry is not None and of_units == [""]:
        raise FitError(f"entry={entry!r}: each unit has one number of {chosen}. Leave entry= out.")
    if wanted not in of_units or (entry is None and len(of_units) > 1):
        raise FitError(
            f"each unit has {len(of_units)} numbers of {chosen}: choose one by entry=, of "
            f"{shortened(', '.join(repr(label) for label in of_units), 100)}."
        )
    places = np.flatnonzero((np.array(labels) == wanted) & (unit >= 0))
    places = places[np.argsort(unit[places], kind="stable")]
    if len(places) != fit.level.num_units:
        raise FitError(
            f"{chosen} has {len(places)} numbers for {fit.level.num_units} units of {fit.level.name}."
        )
    draws = values[chosen].reshape(len(values[chosen]), -1)[:, places].astype(np.float64, copy=False)
    kept = draws[np.isfinite(draws).all(axis=1)]
    if len(kept) < 2:
        raise FitError(f"{chosen} is not finite in all but {len(kept)} of {len(draws)} draws.")
    return f"{chosen}[.,{wanted}]" if wanted else chosen, kept


def _numbers(label: str) -> tuple[int, ...]:
    return tuple(int(part) for part in label.split(",") if part)


def entry_labels(unit: npt.NDArray[np.int64]) -> list[str]:
    """What each entry is called within its unit: its indices but for the one that counts the units, from 1.

    Args:
        unit: the unit of each entry, in the variable's shape. Where no index counts the units, entries of a unit are
            numbered in their order.
    """
    shape = unit.shape
    others = [axis for axis in range(len(shape)) if not _is_unit_axis(unit, axis)]
    if len(others) < len(shape):
        indices = np.indices(shape).reshape(len(shape), -1) + 1
        return [",".join(map(str, place)) for place in indices[others].T] if others else [""] * unit.size
    seen: dict[int, int] = {}
    labels = []
    for number in unit.ravel().tolist():
        seen[number] = seen.get(number, 0) + 1
        labels.append(str(seen[number]))
    return labels if max(seen.values(), default=1) > 1 else [""] * len(labels)


def _is_unit_axis(unit: npt.NDArray[np.int64], axis: int) -> bool:
    """Whether an axis counts the units, one after the other."""
    along = np.moveaxis(unit, axis, -1)
    return bool((along == np.arange(unit.shape[axis])).all())


def unit_of_entry(
    fit: Fitted, level: Level, name: str, shape: tuple[int, ...]
) -> npt.NDArray[np.int64] | None:
    """The unit of each entry of a variable, -1 of none; None where it is not of this level's units."""
    dims = declared_dims(fit.model.program, level.name).get(name, [])
    units = unit_dim(level.name)
    if units in dims and shape[dims.index(units)] == level.num_units:
        axis = dims.index(units)
        numbers = np.arange(level.num_units).reshape(-1, *[1] * (len(shape) - axis - 1))
        return np.broadcast_to(numbers, shape).astype(np.int64)
    member = next((member for member in level.members if member.name == name), None)
    container = next((c for c in fit.model.layout.containers if c.name == name), None)
    if member is None or container is None or container.size != int(np.prod(shape)):
        return None
    unit = np.full(container.size, -1, dtype=np.int64)
    blocks = member.blocks(fit.model.layout) - container.offset
    unit[blocks] = np.arange(level.num_units)[:, None]
    return unit.reshape(shape, order="F")
