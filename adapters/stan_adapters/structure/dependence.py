"""What depends on what: single blocks of parameters are moved and the scores of all others compared.

The picture behind a verdict: separable units give a diagonal with the globals at its edge, a random walk a band, a
Gaussian process a full square.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.engine.abi import FloatArray
from stan_adapters.levels.probes import Prober, probe_points
from stan_adapters.structure.structure import Structure

MAX_UNITS = 30
_MAX_GLOBALS = 30


@dataclass(frozen=True, slots=True, eq=False)
class Dependence:
    """Relative change of block j's scores when block i moves, `change[i, j]`; nan where Stan rejected the move.

    Attributes:
        labels: of the blocks: units first, then one block for each other parameter.
        num_units: how many blocks are units; 0 where the program has no level.
        level: name of the level the units belong to; empty without one.
    """

    labels: tuple[str, ...]
    change: FloatArray
    num_units: int
    level: str
    evaluations: int


def dependence(model: BoundModel, structure: Structure, *, seed: int = 1) -> Dependence:
    """The dependence matrix of up to `MAX_UNITS` neighbouring units and of the other parameters.

    The units are those of the chosen level, or of the first candidate where none was chosen.

    Raises:
        StructureError: no point of finite density.
    """
    rng = np.random.default_rng([seed, 3])
    candidate = structure.chosen or next((c for c in structure.candidates if c.level.block), None)
    blocks: list[tuple[str, IndexArray]] = []
    local: set[str] = set()
    if candidate is not None:
        level, local = candidate.level, set(candidate.level.latents)
        first = max(0, (level.num_units - MAX_UNITS) // 2)
        units = range(first, min(level.num_units, first + MAX_UNITS))
        blocks += [(f"{level.name} {unit + 1}", level.index[unit]) for unit in units]
    num_units = len(blocks)
    others = [c for c in model.layout.containers if c.name not in local and c.size]
    blocks += [(c.name, np.arange(c.offset, c.offset + c.size)) for c in others[:_MAX_GLOBALS]]
    prober = Prober(model, probe_points(model, rng, layout=model.layout), rng)
    change = np.full((len(blocks), len(blocks)), np.nan)
    for row, (_, positions) in enumerate(blocks):
        moved = prober.move(positions, row)
        if moved is not None:
            change[row] = [moved[theirs].max(initial=0.0) for _, theirs in blocks]
    return Dependence(
        labels=tuple(label for label, _ in blocks),
        change=change,
        num_units=num_units,
        level="" if candidate is None else candidate.level.name,
        evaluations=prober.evaluations,
    )
