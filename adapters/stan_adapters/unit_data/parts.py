"""Parts of a model: its program bound to the data of some units, and whose coordinates are where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.errors import StructureError
from stan_adapters.levels.levels import Level, make_level

ENGINES = ("stanli", "bridgestan")  # that take any program


_told: ContextVar[Callable[[], None] | None] = ContextVar("told", default=None)


@contextmanager
def told_of_bindings(told: Callable[[int], None]) -> Iterator[None]:
    """Calls a function with the number of bindings so far, before each one in the block: they can take long."""
    numbers = count(1)
    token = _told.set(lambda: told(next(numbers)))
    try:
        yield
    finally:
        _told.reset(token)


def rebind(model: BoundModel, data: StanData) -> BoundModel:
    """The program of other data, that of a bound model or one derived from it, with the same engine and seed.

    Raises EngineError, BindingError.
    """
    if (told := _told.get()) is not None:
        told()
    engine = model.engine if model.engine in ENGINES else str(model._density.library.abi.path)
    return BoundModel(data.program, data, engine=engine, seed=model.seed)


@dataclass(eq=False)
class Part:
    """A bound model on some units, and where the whole model's coordinates are in it.

    Attributes:
        units: (M,) unit numbers in the whole.
        globals: (G,) positions of the globals here, in the whole model's order.
        locals: (M, d) positions of the blocks here.
    """

    model: BoundModel
    units: IndexArray
    globals: IndexArray
    locals: IndexArray


class PartError(StructureError):
    """A bound model on some units does not have the parameters that it should."""


def make_part(whole: BoundModel, level: Level, model: BoundModel, units: IndexArray) -> Part:
    """Match a bound model on some units with the whole.

    Raises:
        PartError: its latents are not one block per unit, or its globals are others than the whole model's.
    """
    for member in level.members:
        container, old = model.layout[member.name], whole.layout[member.name]
        if member.places:
            raise PartError(
                f"the entries of {member.name} that belong to a unit follow no rule of their places."
            )
        entries, size = container.axes[member.axis].size, old.axes[member.axis].symbol
        if entries != member.width * len(units):
            raise PartError(
                f"{member.name} has {entries} entries of size {size} when the data of {len(units)} units are bound."
            )
    for here, there in zip(model.layout.containers, whole.layout.containers, strict=True):
        if here.name not in level.latents and here.shape != there.shape:
            raise PartError(
                f"{here.name} is not a latent of level {level.name}, and yet its shape changes with the units: "
                f"{there.shape} with all of them, {here.shape} with {len(units)}."
            )
    is_global = np.ones(model.dim, dtype=bool)
    if len(units):
        index = make_level(model.layout, level.name, level.members).index
        if index.shape[1] != level.block:
            raise PartError(f"a unit has {index.shape[1]} latents there and {level.block} in the whole.")
    else:
        index = np.zeros((0, level.block), dtype=np.int64)
    is_global[index.ravel()] = False
    found = np.flatnonzero(is_global)
    if len(found) != len(level.globals_index(whole.dim)):
        raise PartError(f"it has {len(found)} globals, the whole has {len(level.globals_index(whole.dim))}.")
    return Part(model, units, found, index)
