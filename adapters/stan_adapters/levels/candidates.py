"""What a proposed level turns out to be: a separable level, a coupled one, or parts with different units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.levels.blocks import FEWEST_UNITS, find_blocks
from stan_adapters.levels.data_rows import Rows, data_rows, fills_places, has_outcomes, size_with_value
from stan_adapters.levels.levels import Level, Member, make_level
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
        outcomes: whether data with a distribution belong to its units, by their declarations.
        fills: whether the data say of its units no more than where they belong.
        alone: parameters of a coupled level that would be separable with the others counted as globals.
        meets: parameters of other levels whose scores move with this level's latents.
        sizes: the declared sizes that it was proposed under, where its name is another.
    """

    level: Level
    probe: Probe
    rows: Rows
    outcomes: bool = False
    fills: bool = False
    coupling: Coupling | None = None
    coupled_latents: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    meets: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()

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
        self._searched: set[str] = set()  # parameters among whose coordinates sets were looked for
        self._couplings: dict[tuple[str, tuple[str, ...]], Coupling] = {}
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
        blocks = list(self._blocks(level, own))
        inside = {name for candidate in blocks for name in candidate.level.latents}
        own = tuple(name for name in own if name not in inside)
        parts = groups if not own else [group for group in groups if wanted in group]
        candidates, held = [], 0
        for part in parts:
            reduced = level.only(layout, part)
            again = separability(self.prober, reduced, 2)
            if again.holds:
                candidates.append(self._separable(reduced, again))
                held += 1
        if own or held < len(parts) or not (parts or blocks):
            rest = level.only(layout, [name for name in names if name not in inside])
            candidates.append(
                Candidate(
                    level=rest,
                    probe=_probe(rest, found),
                    rows=data_rows(self.model, rest),
                    coupling=self._coupling(rest.only(layout, own) if own else rest),
                    coupled_latents=own or rest.latents,
                    alone=tuple(groups[0]) if own and groups else (),
                )
            )
        return [*blocks, *candidates]

    def _blocks(self, level: Level, names: Sequence[str]) -> Iterator[Candidate]:
        """Units among the entries of parameters whose own entries are coupled."""
        layout = self.model.layout
        for member in level.members:
            if member.name not in names or layout[member.name].size < 2 * FEWEST_UNITS:
                continue
            how = self._coupling(make_level(layout, level.name, [member]))
            anywhere = member.name not in self._searched
            self._searched.add(member.name)
            for blocks, evidence in find_blocks(self.prober, layout, member, how, anywhere=anywhere):
                named = self._named(blocks, level.name)
                yield self._separable(named, evidence, (level.name,))

    def _coupling(self, level: Level) -> Coupling:
        key = level.name, level.latents
        if key not in self._couplings:
            self._couplings[key] = coupling(self.prober, level)
        return self._couplings[key]

    def _named(self, blocks: Level, size: str) -> Level:
        """Units found among entries, called by the number of the data that counts them."""
        member = blocks.members[0]
        name = size_with_value(self.model, blocks.num_units)
        if name is None:
            name = _entries(member) if member.places else f"{size} / {member.width}"
        return Level(name, blocks.members, blocks.index)

    def constrained(self, level: Level) -> Candidate:
        """A level whose entries a constraint couples; the statistic is that of its free coordinates."""
        container = self.model.layout[level.members[0].name]
        free = np.arange(container.offset, container.offset + container.size)[:, None]
        found = separability(self.prober, Level(level.name, level.members, free), 1)
        probe = Probe(f"separability of {level.name}", False, found.statistic, TOLERANCE, found.evaluations)
        rows = data_rows(self.model, level)
        return Candidate(level=level, probe=probe, rows=rows, coupled_latents=level.latents)

    def merged(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with those joined whose units are the same ones, under sizes that are written differently.

        Entries number k of two levels belong to one unit where they enter common terms with each other and with no
        other entries: the levels together are then separable like each of them.
        """
        done = list(candidates)
        place = 0
        while place < len(done):
            for later in range(place + 1, len(done)):
                together = self._together(done[place], done[later])
                if together is not None:
                    done[place] = together
                    del done[later]
                    break
            else:
                place += 1
        return done

    def _together(self, one: Candidate, other: Candidate) -> Candidate | None:
        """Two separable levels as one, if their units are the same."""
        first, second = one.level, other.level
        if not (one.separable and other.separable) or first.num_units != second.num_units:
            return None
        if set(first.latents) & set(second.latents) or not set(one.meets) & set(second.latents):
            return None
        name = max(first.name, second.name, key=lambda name: name in self.model.data)
        level = make_level(self.model.layout, name, [*first.members, *second.members])
        found = separability(self.prober, level, 2)
        if not found.holds:
            return None
        sizes = (*(one.sizes or (first.name,)), *(other.sizes or (second.name,)))
        return self._separable(level, found, tuple(dict.fromkeys(sizes)))

    def _separable(self, level: Level, found: Separability, sizes: tuple[str, ...] = ()) -> Candidate:
        layout = self.model.layout
        meets = {
            container.name
            for container in layout.containers
            if container.axes and found.touched[container.offset : container.offset + container.size].any()
        }
        rows = data_rows(self.model, level)
        return Candidate(
            level=level,
            probe=_probe(level, found),
            rows=rows,
            fills=fills_places(self.model, rows),
            outcomes=has_outcomes(self.model, level),
            meets=tuple(name for name in (c.name for c in layout.containers) if name in meets),
            sizes=sizes,
        )


def _entries(member: Member) -> str:
    """Entries of a parameter, as a Stan program would write them where they lie side by side."""
    first, last = member.places[0], member.places[-1]
    if member.places == tuple(range(first, last + 1)):
        return f"{member.name}[{first + 1}:{last + 1}]"
    return f"sets of {member.name}"


def _probe(level: Level, found: Separability) -> Probe:
    return Probe(f"separability of {level.name}", found.holds, found.statistic, TOLERANCE, found.evaluations)
