"""The verdict: which level amortization should serve, with what evidence, and why.

A verdict is `closable` (some level is separable: an inference function of the unit's signature can reach F-VI's
optimum), `not-closable` (the units of every level are coupled given everything else) or `nothing-to-amortize` (no
parameter has an entry per unit). Source: Margossian & Blei, UAI 2024, and section "certificates" of docs/theory.md.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .binding import BoundModel
from .certificate import Coupling, Points, Probe, coupling, couples_members, probe_points, separability
from .errors import StructureError
from .levels import Level, candidate_levels, make_level
from .program import Program


class Verdict(enum.StrEnum):
    CLOSABLE = "closable"
    NOT_CLOSABLE = "not-closable"
    NOTHING_TO_AMORTIZE = "nothing-to-amortize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A level and what the probes said of it. `has_rows`: some declared data has an entry per unit or an index to it."""

    level: Level
    probe: Probe
    coupling: Coupling | None = None
    has_rows: bool = True

    @property
    def separable(self) -> bool:
        return self.probe.holds

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.level.name,
            "units": self.level.num_units,
            "latents": list(self.level.latents),
            "block": self.level.block,
            "inputs": "unknown",
            "data_inputs": [],
            "sliceable": False,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What inspection found. Prints as a table; `to_json` is what `avistan inspect --json` prints.

    Attributes:
        chosen: the candidate that amortization serves; None unless the verdict is `closable` or the user named one.
        globals: names of the parameters outside the chosen level.
        evaluations: gradients that all probes took together.
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

    @property
    def level(self) -> Level | None:
        return None if self.chosen is None else self.chosen.level

    def to_json(self) -> dict[str, Any]:
        return {
            "program": self.program,
            "unconstrained_dim": self.unconstrained_dim,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "level": None if self.chosen is None else self.chosen.to_json(),
            "levels": [
                candidate.to_json() | {"separable": candidate.separable, "chosen": candidate is self.chosen}
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
        }

    def __str__(self) -> str:
        lines = [
            f"program   {self.program}, {self.unconstrained_dim} unconstrained parameters, engine {self.engine}",
            f"verdict   {self.verdict}",
            *_wrapped("reason    ", self.reason),
        ]
        if self.candidates:
            lines += ["", f"{'level':<12}{'units':>9}{'block':>7}  {'latents':<30}{'separable':>10}{'chosen':>8}"]
            lines += [
                f"{c.level.name:<12}{c.level.num_units:>9}{c.level.block:>7}  {', '.join(c.level.latents):<30}"
                f"{'yes' if c.separable else 'no':>10}{'*' if c is self.chosen else '':>8}"
                for c in self.candidates
            ]
        if self.globals:
            lines += ["", *_wrapped("globals   ", ", ".join(self.globals))]
        if self.certificate:
            lines += ["", f"{'probe':<36}{'holds':>6}{'statistic':>12}{'tolerance':>12}{'gradients':>11}"]
            lines += [
                f"{p.probe:<36}{'yes' if p.holds else 'no':>6}{p.statistic:>12.2g}{p.tolerance:>12.0e}{p.evaluations:>11}"
                for p in self.certificate
            ]
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
    rng = np.random.default_rng(seed)
    proposals = candidate_levels(model.layout)
    if level is not None:
        named = find_level(proposals, level, model.program)
        proposals = (named, *(proposal for proposal in proposals if proposal is not named))
    if not proposals:
        return _verdict(model, (), None, 0, named=False)
    points = probe_points(model, rng)
    evaluations = points.evaluations
    candidates = []
    for proposal in proposals:
        candidate, used = _examine(model, proposal, points, rng)
        candidates.append(candidate)
        evaluations += used
    separable = [candidate for candidate in candidates if candidate.separable]
    if level is not None:
        chosen: Candidate | None = candidates[0]
    else:
        chosen = max(separable, key=lambda c: (c.level.index.size, c.level.num_units), default=None)
    return _verdict(model, tuple(candidates), chosen, evaluations, named=level is not None)


def find_level(levels: Sequence[Level], name: str, program: Program) -> Level:
    """The level with that declared size, or the one that holds that latent.

    Raises:
        StructureError: none does; names the nearest.
    """
    for level in levels:
        if level.name == name:
            return level
    for level in levels:
        if name in level.latents:
            return level
    known = [level.name for level in levels] + [latent for level in levels for latent in level.latents]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = "; ".join(f"{level.name} ({', '.join(level.latents)})" for level in levels) or "none"
    raise StructureError(f"{program.name} has no level {name!r}.{hint} Its levels and their latents: {listed}.")


def _examine(
    model: BoundModel, level: Level, points: Points, rng: np.random.Generator
) -> tuple[Candidate, int]:
    """Probe a level; where it fails, whether it holds with some of its parameters counted as globals."""
    has_rows = _has_rows(model.program, level.name)
    probe = separability(model, level, points, rng)
    evaluations = probe.evaluations
    if not probe.holds and len(level.members) > 1:
        columns = level.member_columns(model.layout)
        changes, used = couples_members(model, level, columns, points, rng)
        evaluations += used
        kept = _uncoupled(level, changes)
        if kept:
            reduced = make_level(model.layout, level.name, [m for m in level.members if m.name in kept])
            again = separability(model, reduced, points, rng)
            evaluations += again.evaluations
            if again.holds:
                return Candidate(level=reduced, probe=again, has_rows=has_rows), evaluations
    if probe.holds:
        return Candidate(level=level, probe=probe, has_rows=has_rows), evaluations
    shape, used = coupling(model, level, points, rng)
    return Candidate(level=level, probe=probe, coupling=shape, has_rows=has_rows), evaluations + used


def _uncoupled(level: Level, changes: dict[tuple[str, str], float]) -> set[str]:
    """The parameters left when those with the most couplings to other units are taken out one after the other."""
    tolerance = 1e-8
    kept = set(level.latents)
    while kept:
        counts = {a: sum(max(changes.get((a, b), 0), changes.get((b, a), 0)) > tolerance for b in kept) for a in kept}
        worst = max(sorted(kept), key=lambda a: (changes.get((a, a), 0) > tolerance, counts[a]))
        if counts[worst] == 0:
            break
        kept.remove(worst)
    return kept


def _has_rows(program: Program, symbol: str) -> bool:
    """Whether declared data have an entry per unit of that size, or an index bounded by it."""
    for declaration in (*program.data, *program.transformed_data):
        kind = declaration.type
        sizes = [*kind.array_sizes, *(kind.sizes if kind.base in ("vector", "row_vector") else ())]
        if sizes and sizes[0].text == symbol:
            return True
        if kind.base in ("matrix",) and kind.sizes[0].text == symbol:
            return True
        if kind.base == "int" and kind.array_sizes and kind.upper is not None and kind.upper.text == symbol:
            return True
    return False


def _verdict(
    model: BoundModel, candidates: tuple[Candidate, ...], chosen: Candidate | None, evaluations: int, *, named: bool
) -> Structure:
    coupled = [c for c in candidates if not c.separable and c.has_rows]
    if chosen is not None and chosen.separable:
        verdict, reason = Verdict.CLOSABLE, _closable_reason(chosen)
    elif named and chosen is not None:
        verdict, reason = Verdict.NOT_CLOSABLE, _coupled_reason(chosen)
    elif coupled:
        verdict, reason = Verdict.NOT_CLOSABLE, " ".join(_coupled_reason(c) for c in coupled[:2])
    elif candidates:
        verdict = Verdict.NOTHING_TO_AMORTIZE
        names = ", ".join(name for c in candidates for name in c.level.latents)
        reason = (
            f"No parameter has an entry per unit: the entries of {names} share the data rows, as coefficients or "
            "mixture components do, and no declared data belongs to one of them."
        )
    else:
        verdict = Verdict.NOTHING_TO_AMORTIZE
        reason = "No parameter is a container with an entry per unit: every parameter is global."
    local = set() if chosen is None else set(chosen.level.latents)
    return Structure(
        program=model.program.name,
        unconstrained_dim=model.dim,
        verdict=verdict,
        reason=reason,
        chosen=chosen,
        candidates=candidates,
        globals=tuple(d.name for d in model.program.parameters if d.name not in local),
        certificate=tuple(c.probe for c in candidates),
        evaluations=evaluations,
        engine=model.engine,
    )


def _closable_reason(candidate: Candidate) -> str:
    level = candidate.level
    return (
        f"{_listed(level.latents)} fall into {level.num_units} units of size {level.name}: with everything else held "
        f"fixed, moving the latents of some units left the scores of all others unchanged (largest relative change "
        f"{candidate.probe.statistic:.1g})."
    )


def _coupled_reason(candidate: Candidate) -> str:
    level, how = candidate.level, candidate.coupling
    who = _listed(level.latents)
    if how is None or how.reach == 0:
        return f"{who} are coupled across the units of size {level.name}."
    if how.shape == "band":
        places = "the next place" if how.reach == 1 else f"{how.reach} places away"
        return (
            f"The units of {who} depend on their neighbours along {level.name}, up to {places} on either side, also "
            "with everything else held fixed: two units with the same input can have different posteriors."
        )
    share = f"{100 * how.share:.0f} % of the other units" if how.share < 0.995 else "all other units"
    return (
        f"The units of {who} depend on each other along {level.name}: moving one of them moves the scores of {share}, "
        "with everything else held fixed, so no function of a unit's own input gives its posterior."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _wrapped(head: str, text: str, width: int = 100) -> list[str]:
    lines, line = [], head
    for word in text.split():
        if len(line) + len(word) > width:
            lines.append(line.rstrip())
            line = " " * len(head)
        line += word + " "
    return [*lines, line.rstrip()]
