"""The verdict: which level amortization should serve, with what evidence, and why.

A verdict is `closable` (some level is separable: an inference function of the unit's signature can reach F-VI's
optimum), `not-closable` (the units of every level are coupled given everything else) or `nothing-to-amortize` (no
parameter has an entry per unit). Source: Margossian & Blei, UAI 2024, and section "certificates" of docs/theory.md.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import StructureError
from stan_adapters.files.names import did_you_mean
from stan_adapters.language.program import Program
from stan_adapters.levels.candidates import Candidate, Examiner
from stan_adapters.levels.levels import Level, candidate_levels, shared_levels
from stan_adapters.levels.probes import Probe, probe_points
from stan_adapters.structure import reasons
from stan_adapters.unit_data import (
    DataInputs,
    Slicing,
    SlicingRefusal,
    find_data_inputs,
    find_slicing,
)

_WIDTH = 100


class Verdict(enum.StrEnum):
    CLOSABLE = "closable"
    NOT_CLOSABLE = "not-closable"
    NOTHING_TO_AMORTIZE = "nothing-to-amortize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What inspection found. Prints as a table; `to_json` is what `avistan inspect --json` prints.

    Attributes:
        chosen: the candidate that amortization serves; None unless the verdict is `closable` or the user named one.
        globals: names of the parameters outside the chosen level.
        evaluations, bindings: gradients and bindings of other data that all probes took together.
        slicing: rules for the data of a subset of units, or why there are none; None where it was not asked for.
        feeds: which data a unit's scores depend on; None where it was not asked for.
    """

    program: str
    unconstrained_dim: int
    verdict: Verdict
    reason: str
    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    globals: tuple[str, ...]
    certificate: tuple[Probe, ...]
    evaluations: int
    engine: str = field(default="")
    bindings: int = 0
    slicing: Slicing | SlicingRefusal | None = field(default=None, repr=False)
    feeds: DataInputs | None = None

    @property
    def level(self) -> Level | None:
        return None if self.chosen is None else self.chosen.level

    def to_json(self) -> dict[str, Any]:
        return {
            "program": self.program,
            "unconstrained_dim": self.unconstrained_dim,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "engine": self.engine,
            "level": None if self.chosen is None else self._level_json(self.chosen),
            "levels": [
                self._level_json(candidate)
                | {"separable": candidate.separable, "chosen": candidate is self.chosen}
                for candidate in self.candidates
            ],
            "globals": list(self.globals),
            "certificate": [
                {
                    "probe": probe.probe,
                    "holds": probe.holds,
                    "statistic": probe.statistic,
                    "tolerance": probe.tolerance,
                    "evaluations": probe.evaluations,
                }
                for probe in self.certificate
            ],
            "evaluations": self.evaluations,
            "bindings": self.bindings,
            "slicing": self._slicing_json(),
        }

    def _slicing_json(self) -> dict[str, Any] | None:
        if self.slicing is None:
            return None
        verified = isinstance(self.slicing, Slicing)
        return {
            "verified": verified,
            "rules": {name: str(rule) for name, rule in self.slicing.rules.items()} if verified else {},
            "reason": "" if isinstance(self.slicing, Slicing) else self.slicing.reason,
        }

    def _level_json(self, candidate: Candidate) -> dict[str, Any]:
        feeds = self.feeds if candidate is self.chosen else None
        sliceable = candidate is self.chosen and isinstance(self.slicing, Slicing)
        return {
            "name": candidate.level.name,
            "units": candidate.level.num_units,
            "latents": list(candidate.level.latents),
            "block": candidate.level.block,
            "inputs": "unknown" if feeds is None else feeds.inputs,
            "data_inputs": [] if feeds is None else list(feeds.names),
            "sliceable": sliceable,
            "coupling": candidate.described_shape or None,
        }

    def __str__(self) -> str:
        head = f"{self.program}, {self.unconstrained_dim} unconstrained parameters, engine {self.engine}"
        lines = [
            *reasons.wrapped("program   ", head, _WIDTH),
            f"verdict   {self.verdict}",
            *reasons.wrapped("reason    ", self.reason, _WIDTH),
        ]
        if self.candidates:
            lines += [
                "",
                f"{'level':<18}{'units':>9}{'block':>7}  {'latents':<34}{'separable':>10}  {'coupled':<11}chosen",
            ]
            lines += [
                f"{_clip(c.level.name, 17):<18}{c.level.num_units:>9}{c.level.block:>7}  "
                f"{_clip(', '.join(c.level.latents), 33):<34}"
                f"{'yes' if c.separable else 'no':>10}  {c.described_shape:<11}"
                f"{'*' if c is self.chosen else '':>6}".rstrip()
                for c in self.candidates
            ]
        if self.globals:
            lines += ["", *reasons.wrapped("globals   ", ", ".join(self.globals), _WIDTH)]
        if self.feeds is not None:
            lines += reasons.wrapped("inputs    ", reasons.fed_by(self.feeds), _WIDTH)
        if self.slicing is not None:
            lines += reasons.wrapped("slicing   ", reasons.sliced(self.slicing), _WIDTH)
        if self.certificate:
            lines += ["", f"{'probe':<44}{'holds':>6}{'statistic':>12}{'tolerance':>12}{'gradients':>11}"]
            lines += [
                f"{_clip(p.probe, 43):<44}{'yes' if p.holds else 'no':>6}{p.statistic:>12.2g}{p.tolerance:>12.0e}"
                f"{p.evaluations:>11}"
                for p in self.certificate
            ]
            bindings = f" and {self.bindings} bindings of other data" if self.bindings else ""
            lines += [f"{self.evaluations} gradients{bindings} in all"]
        return "\n".join(lines)


def inspect_structure(model: BoundModel, *, level: str | None = None, seed: int = 1) -> Structure:
    """Find the levels of a bound model, probe them, and decide.

    Args:
        level: a level's declared size or the name of one of its latents; None chooses the separable level with the
            most latents.
        seed: of the probe points.

    Raises:
        StructureError: no finite density anywhere, or the named level does not exist.
    """
    proposals = list(candidate_levels(model.layout))
    shared = list(shared_levels(model.layout))
    named = _named([*proposals, *shared], level)
    if not proposals and not shared:
        if level is not None:
            find_level([], level, model.program)
        return _structure(model, [], None, reasons.NO_CONTAINERS, Verdict.NOTHING_TO_AMORTIZE, 0)
    examiner = Examiner(model, proposals, np.random.default_rng(seed))
    candidates: list[Candidate] = []
    for proposal in proposals:
        wanted = level if proposal is named and level != proposal.name else None
        candidates += examiner.examine(proposal, wanted)
    candidates += [examiner.constrained(proposal) for proposal in shared]
    candidates = examiner.merged(candidates)
    if level is not None and named is None:
        named = find_level([*(c.level for c in candidates), *proposals, *shared], level, model.program)
    chosen = _choose(candidates, named, level)
    verdict, reason = _judge(candidates, chosen, is_named=named is not None)
    if untested := examiner.untested:
        reason += f" {reasons.untested(untested)}"
    return _structure(model, candidates, chosen, reason, verdict, examiner.prober.evaluations)


def with_unit_data(
    model: BoundModel, structure: Structure, *, rules: Mapping[str, str] | None = None, seed: int = 1
) -> Structure:
    """The same structure with the slicing and the data inputs of its chosen level, where that is separable.

    Args:
        rules: slicing rules given by hand, verified like proposed ones.

    Raises:
        StructureError: hand-given rules are wrong, with their names, or there is no separable level to slice.
    """
    chosen = structure.chosen
    if chosen is None or not chosen.separable or not chosen.level.block:
        if rules:
            raise StructureError(f"slicing rules need a level of independent units. {structure.reason}")
        return structure
    rng = np.random.default_rng([seed, 2])
    points = probe_points(model, rng, layout=model.layout)
    slicing = find_slicing(model, chosen.level, rng, rules, points.theta)
    if rules and isinstance(slicing, SlicingRefusal):
        raise StructureError(slicing.reason)
    feeds = find_data_inputs(model, chosen.level, slicing, rng, points.theta)
    return replace(
        structure,
        certificate=(*structure.certificate, *slicing.evidence, feeds.probe(chosen.level)),
        evaluations=structure.evaluations + points.evaluations + slicing.evaluations + feeds.evaluations,
        bindings=slicing.bindings + feeds.bindings,
        slicing=slicing,
        feeds=feeds,
    )


def find_level(levels: Sequence[Level], name: str, program: Program) -> Level:
    """The level with that declared size, or the one that holds that latent.

    Raises:
        StructureError: none does; names the nearest.
    """
    found = _named(levels, name)
    if found is not None:
        return found
    known = [level.name for level in levels] + [latent for level in levels for latent in level.latents]
    hint = did_you_mean(name, known)
    listed = "; ".join(f"{level.name} ({', '.join(level.latents)})" for level in levels) or "none"
    raise StructureError(
        f"{program.name} has no level {name!r}.{hint} Its levels and their latents: {listed}."
    )


def _named(levels: Sequence[Level], name: str | None) -> Level | None:
    for level in levels:
        if level.name == name:
            return level
    return next((level for level in levels if name in level.latents), None)


def _choose(candidates: Sequence[Candidate], named: Level | None, name: str | None) -> Candidate | None:
    if named is not None:
        own = [
            c
            for c in candidates
            if named.name in (c.level.name, *c.sizes) and set(c.level.latents) & set(named.latents)
        ]
        holding = [c for c in own if name in c.level.latents] or own
        return next((c for c in holding if c.separable), holding[0] if holding else None)
    separable = [c for c in candidates if c.separable and c.has_rows]
    served = [c for c in separable if not any(_shares_data(c, o) or _fills(c, o) for o in separable)]
    return max(served, key=lambda c: (c.level.index.size, c.level.num_units), default=None)


def _shares_data(one: Candidate, other: Candidate) -> bool:
    """Whether units have no outcomes of their own, and the more numerous units of the same parameters do.

    Copies of a model side by side, one for each of several priors, are independent and share all the data.
    """
    return (
        bool(set(one.level.latents) & set(other.level.latents))
        and other.level.num_units > one.level.num_units
        and other.outcomes
        and not one.outcomes
    )


def _fills(one: Candidate, other: Candidate) -> bool:
    """Whether the entries are missing values that belong to units with data of their own."""
    return one.fills and not other.fills and bool(set(one.meets) & set(other.level.latents))


def _judge(
    candidates: Sequence[Candidate], chosen: Candidate | None, *, is_named: bool
) -> tuple[Verdict, str]:
    others = {name for c in candidates if c is not chosen and c.separable for name in c.level.latents}
    if chosen is not None and chosen.separable:
        meets = [name for name in chosen.meets if name in others]
        return Verdict.CLOSABLE, reasons.closable(chosen.level, chosen.probe.statistic, meets)
    if is_named and chosen is not None:
        return Verdict.NOT_CLOSABLE, _why_coupled([chosen])
    coupled = [c for c in candidates if not c.separable and c.has_rows]
    if coupled:
        return Verdict.NOT_CLOSABLE, _why_coupled(coupled[:2])
    if not candidates:
        return Verdict.NOTHING_TO_AMORTIZE, reasons.NO_CONTAINERS
    told = [reasons.no_units(c.level, c.rows) for c in candidates[:3]]
    return Verdict.NOTHING_TO_AMORTIZE, " ".join([reasons.NO_UNITS, *told])


def _why_coupled(candidates: Sequence[Candidate]) -> str:
    told, wishes = [], []
    for candidate in candidates:
        if candidate.coupling is None:
            told.append(reasons.constrained(candidate.level))
        else:
            told.append(reasons.coupled(candidate.level, candidate.coupled_latents, candidate.coupling))
        if candidate.alone:
            wishes.append(reasons.alone(candidate.alone))
    return " ".join([*told, reasons.NO_FUNCTION, *wishes])


def _structure(
    model: BoundModel,
    candidates: Sequence[Candidate],
    chosen: Candidate | None,
    reason: str,
    verdict: Verdict,
    evaluations: int,
) -> Structure:
    local = set() if chosen is None else set(chosen.level.latents)
    partly = set() if chosen is None else _partly(model, chosen.level)
    if tuples := [d.name for d in model.program.parameters if d.type.is_tuple]:
        reason += f" {reasons.tuples(tuples)}"
    return Structure(
        program=model.program.name,
        unconstrained_dim=model.dim,
        verdict=verdict,
        reason=reason,
        chosen=chosen,
        candidates=tuple(candidates),
        globals=tuple(
            f"other entries of {d.name}" if d.name in partly else d.name
            for d in model.program.parameters
            if d.name not in local or d.name in partly
        ),
        certificate=tuple(c.probe for c in candidates),
        evaluations=evaluations,
        engine=model.engine,
    )


def _partly(model: BoundModel, level: Level) -> set[str]:
    """Parameters some of whose entries belong to units."""
    counts = {
        name: columns.stop - columns.start for name, columns in level.member_columns(model.layout).items()
    }
    return {name for name, count in counts.items() if count * level.num_units < model.layout[name].size}


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
