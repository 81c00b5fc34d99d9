"""What a proposed level turns out to be: a separable level, a coupled one, or parts with different units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.levels.data_rows import Rows, data_rows
from stan_adapters.levels.levels import Level
from stan_adapters.levels.probes import (
    TOLERANCE,
    Coupling,
    Probe,
    Prober,
    Separability,
    coupling,
    member_couplings,
    probe_points,
    separability,
    uncoupled_groups,
)

# Of so many parameters every pair of units is compared once, not at several points: gradients are long.
_MANY_PARAMETERS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A level and what the probes and the declarations said of it.

    Attributes:
        coupling: the shape of the coupling; None for a separable level and for one that a constraint couples.
        rows: which declared data could belong to its units.
        coupled_latents: the parameters whose own entries couple the units; empty for a separable level.
        alone: parameters of a coupled level that would be separable with the others counted as globals.
        meets: parameters of other levels whose scores move with this level's latents.
    """

    level: Level
    probe: Probe
    rows: Rows
    coupling: Coupling | None = None
    coupled_latents: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    meets: tuple[str, ...] = ()

    @property
    def separable(self) -> bool:
        return self.probe.holds

    @property
    def has_rows(self) -> bool:
        """Whether the entries are units, to each of which data belong."""
        return self.rows.belong_to_units(self.level, None if self.separable else self.shape)

    @property
    def shape(self) -> str:
        """How its units are coupled, in a word; empty for a separable level."""
        if self.separable:
            return ""
        return "constraint" if self.coupling is None else self.coupling.shape

    @property
    def described_shape(self) -> str:
        """`shape` with its reach: "band 2"."""
        return f"{self.shape} {self.coupling.reach}" if self.coupling and self.shape == "band" else self.shape


class Examiner:
    """Probes levels one after the other, within about 4 log2(N) + 60 gradients for all of them."""

    def __init__(self, model: BoundModel, proposals: Sequence[Level], rng: np.random.Generator) -> None:
        self.model = model
        self.prober = Prober(model, probe_points(model, rng, layout=model.layout), rng)
        self.untested: list[str] = []
        bits = [math.ceil(math.log2(level.num_units)) for level in proposals]
        self._budget = 4 * max(bits, default=1) + 60
        self._reserve = 2 * sum(bits) + 2 * len(bits)  # two rounds for every level that is still to come

    def examine(self, level: Level, wanted: str | None) -> list[Candidate]:
        """The candidates that a proposed level becomes: itself or, where its parameters have different units, parts.

        Args:
            wanted: a latent that the user named; if it is separable with the others as globals, that part comes first.
        """
        bits = math.ceil(math.log2(level.num_units))
        self._reserve -= 2 * bits + 2
        spare = self._budget - self._reserve - self.prober.evaluations - 2
        rounds = 1 if self.model.dim > _MANY_PARAMETERS else min(3, max(2, spare // bits))
        found = separability(self.prober, level, rounds)
        if found.holds:
            return [self._separable(level, found)]
        if not found.tested:
            self.untested.extend(level.latents)
            return []
        layout, names = self.model.layout, level.latents
        pairs = (
            {frozenset(names)} if len(names) == 1 else member_couplings(self.prober, level, layout, most=3)
        )
        own = tuple(name for name in names if frozenset((name,)) in pairs)
        groups = uncoupled_groups(names, pairs)
        if not own and len(groups) == 1:  # the coupling was seen once and not again: it is there all the same
            own, groups = names, []
        parts = groups if not own else [group for group in groups if wanted in group]
        candidates, held = [], 0
        for part in parts:
            reduced = level.only(layout, part)
            again = separability(self.prober, reduced, 2)
            if again.holds:
                candidates.append(self._separable(reduced, again))
                held += 1
        if own or held < len(parts) or not parts:
            candidates.append(
                Candidate(
                    level=level,
                    probe=_probe(level, found),
                    rows=data_rows(self.model, level),
                    coupling=coupling(self.prober, level.only(layout, own) if own else level),
                    coupled_latents=own or names,
                    alone=tuple(groups[0]) if own and groups else (),
                )
            )
        return candidates

    def constrained(self, level: Level) -> Candidate:
        """A level whose entries a constraint couples; the statistic is that of its free coordinates."""
        container = self.model.layout[level.members[0].name]
        free = np.arange(container.offset, container.offset + container.size)[:, None]
        found = separability(self.prober, Level(level.name, level.members, free), 1)
        probe = Probe(f"separability of {level.name}", False, found.statistic, TOLERANCE, found.evaluations)
        rows = data_rows(self.model, level)
        return Candidate(level=level, probe=probe, rows=rows, coupled_latents=level.latents)

    def _separable(self, level: Level, found: Separability) -> Candidate:
        layout = self.model.layout
        meets = {
            container.name
            for container in layout.containers
            if container.axes and found.touched[container.offset : container.offset + container.size].any()
        }
        return Candidate(
            level=level,
            probe=_probe(level, found),
            rows=data_rows(self.model, level),
            meets=tuple(name for name in (c.name for c in layout.containers) if name in meets),
        )


def _probe(level: Level, found: Separability) -> Probe:
    return Probe(f"separability of {level.name}", found.holds, found.statistic, TOLERANCE, found.evaluations)
