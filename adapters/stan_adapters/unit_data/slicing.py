"""Slicing: the data of a subset of units, written as valid data of the same program.

Rules say what happens to each data entry (`rules`); they are proposed from the declarations
(`proposals`) or given by hand, and offered only after bound models on random subsets confirmed them
(`checks`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.derived import Derivation
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError, StructureError
from stan_adapters.language.program import Program
from stan_adapters.language.switches import settled
from stan_adapters.levels.levels import Level
from stan_adapters.levels.probes import Probe
from stan_adapters.rewriting.computed_data import read_outside_data
from stan_adapters.unit_data.checks import Checker, random_points
from stan_adapters.unit_data.computed import Computed
from stan_adapters.unit_data.parts import PartError
from stan_adapters.unit_data.plan import Plan, RuleError
from stan_adapters.unit_data.proposals import rule_sets, sparse_entries
from stan_adapters.unit_data.rules import Role, Rule, Rules, parse_rules

_MAX_PROPOSALS = 5
_MAX_DERIVED = 2  # of a program with transformed data as data
_MOST_BINDINGS = 30  # after which no further proposal is examined
_POINTS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slicing:
    """Verified rules. Attributes:

    level: the declared size of the units.
    rules: of every data entry.
    evidence: the probes that confirmed them.
    smallest: the fewest units that were bound on the way. Where it is not 0, some programs refuse fewer.
    bindings, evaluations: what that took, rejected proposals included.
    derivation: the program whose data the rules are of, where that is not the user's: some transformed data, such as
        what is computed from all units, are data there.
    """

    level: str
    rules: Rules
    evidence: tuple[Probe, ...]
    smallest: int
    bindings: int
    evaluations: int
    derivation: Derivation | None = field(default=None, repr=False)
    _plans: list[tuple[StanData, Plan]] = field(default_factory=list, repr=False, compare=False)

    def subset(self, data: StanData, units: npt.ArrayLike) -> StanData:
        """The data of the given units, in that order: the first of them becomes unit 1.

        Args:
            data: data of the program, those the rules were verified on or others of the same layout.
            units: distinct 0-based unit numbers, shape (M,); none is allowed if the program allows it.

        Raises:
            StructureError: units that are no unit numbers, or given twice.
            DataError: the result breaks a bound of the program (say an `int<lower=1>` size that became 0).
        """
        plan = self.plan(data)
        return plan.subset(_checked_units(units, plan.units, self.level))

    def num_units(self, data: StanData) -> int:
        return self.plan(data).units

    def rows_per_unit(self, data: StanData) -> IndexArray | None:
        """Rows of each unit, shape (N,); None where units have entries, not rows.

        Some programs refuse data whose last unit has no rows: put a unit that has some last.
        """
        return self.plan(data).rows_per_unit()

    def plan(self, data: StanData) -> Plan:
        """The rules on these data; the latest two are kept, so that many subsets of one data set are cheap."""
        for given, plan in self._plans:
            if given is data or plan.data is data:
                return plan
        plan = Plan(self._of_program(data), self.rules, self.level)
        self._plans[1:] = [(data, plan)]
        return plan

    def _of_program(self, data: StanData) -> StanData:
        """Data of the program that the rules are of."""
        if self.derivation is None or data.program is self.derivation.program:
            return data
        cut = [name for name in self.derivation.names if self.rules[name].role is not Role.SHARED]
        if cut:
            raise StructureError(
                f"{', '.join(cut)} of {data.program.name} are known for the data that were verified, not for others."
            )
        return self.derivation.data(data)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlicingRefusal:
    """Why subsets of units are not offered.

    Attributes:
        reason: a sentence or two.
        evidence: the probes that were made; the last one may have failed.
        rules: what was tried, useful to know whose an entry is; empty if nothing fitted the data.
    """

    reason: str
    evidence: tuple[Probe, ...]
    rules: Rules
    bindings: int
    evaluations: int


def find_slicing(
    model: BoundModel,
    level: Level,
    rng: np.random.Generator,
    rules: Mapping[str, str | Rule] | None = None,
    theta: FloatArray | None = None,
) -> Slicing | SlicingRefusal:
    """Rules for the data of a model's units, verified, or why there are none.

    Args:
        rules: rules given by hand for some or all entries; the others are proposed.
        theta: random points (P, D) of finite density, if there are some already.

    Raises:
        StructureError: a hand-given rule names no data entry or is no rule. One that is well formed and wrong is a
            refusal that names it.
    """
    given = parse_rules(model.program, rules or {})
    found, evaluations = (theta, 0) if theta is not None else random_points(model, rng, _POINTS)
    search = _Search(model, level, found[:_POINTS], rng, evaluations=evaluations)
    outcome = search.best(given)
    if isinstance(outcome, SlicingRefusal) and given:
        outcome = search.name_wrong_rules(outcome, given)
    return search.total(outcome)


class _Proposal(NamedTuple):
    """Rules for the data of a bound model: the user's, or of a program derived from it."""

    rules: Rules
    whole: BoundModel
    derivation: Derivation | None = None


@dataclass(eq=False)
class _Search:
    model: BoundModel
    level: Level
    theta: FloatArray
    rng: np.random.Generator
    bindings: int = 0
    evaluations: int = 0

    def best(self, given: Rules) -> Slicing | SlicingRefusal:
        """The first proposal that holds, or the refusal of the one that got farthest."""
        refused: SlicingRefusal | None = None
        begun = self.bindings
        with closing(self._proposals(given)) as proposals:
            for proposal in proposals:
                outcome = self.examine(proposal)
                if isinstance(outcome, Slicing):
                    return outcome
                if refused is None or _strength(outcome) > _strength(refused):
                    refused = outcome
                if self.bindings > begun + _MOST_BINDINGS:
                    break
        assert refused is not None  # rule_sets makes one proposal at least
        return refused

    def _proposals(self, given: Rules) -> Generator[_Proposal]:
        """Rules of the program as it is, and of it with transformed data as data; likeliest first."""
        model, level = self.model, self.level
        own = islice(rule_sets(model.program, model.data, level, given), _MAX_PROPOSALS)
        if not level.block:
            yield _Proposal(next(own), model)
            return
        computed = Computed(model, level, self.theta, self.rng)
        try:
            if plan := self._plan(given):
                yield from self._derived(computed.of_all_units(plan), given)
            yield _Proposal(next(own), model)
            yield from self._derived(computed.number_of_units(), given)
            yield from self._derived(computed.sizes(), given)
            yield from (_Proposal(rules, model) for rules in own)
            yield from self._derived(computed.everything(), given)
        finally:
            self.bindings += computed.bindings
            self.evaluations += computed.evaluations

    def _derived(
        self, programs: Iterable[tuple[Derivation, BoundModel]], given: Rules
    ) -> Iterator[_Proposal]:
        for derivation, bound in programs:
            with bound:
                program = derivation.program
                unread = {d.name for d in program.data} - read_outside_data(program)
                sets = rule_sets(program, bound.data, self.level, given, unread)
                for rules in islice(sets, _MAX_DERIVED):
                    yield _Proposal(rules, bound, derivation)

    def _plan(self, given: Rules) -> Plan | None:
        """A way to write the data of some units that fits the declarations, whether it holds or not."""
        for rules in islice(
            rule_sets(self.model.program, self.model.data, self.level, given), _MAX_PROPOSALS
        ):
            try:
                return Plan(self.model.data, rules, self.level.name, self.level.num_units)
            except StructureError:
                continue
        return None

    def examine(self, proposal: _Proposal) -> Slicing | SlicingRefusal:
        """Verify one proposal."""
        rules, whole = proposal.rules, proposal.whole
        evidence: list[Probe] = []
        try:
            self._refuse_size(whole.program, rules)
            plan = Plan(whole.data, rules, self.level.name, self.level.num_units)
            self._refuse_ties(settled(whole.program, whole.data), rules)
        except StructureError as error:
            return self._refusal(str(error), evidence, {} if isinstance(error, RuleError) else rules)
        checker = Checker(whole, self.level, plan.subset, self.theta, self.rng, occupied=_occupied(plan))
        reason = ""
        try:
            evidence.append(checker.exchangeability())
            if not evidence[-1].holds:
                reason = self._not_exchangeable(evidence[-1])
            else:
                evidence.append(checker.additivity())
                if not evidence[-1].holds:
                    reason = self._not_additive(evidence[-1])
        except PartError as error:
            reason = f"Parts of the units can't be compared with the whole: {error}"
        except AvistanError as error:
            reason = f"The program can't be bound to the data of some units: {str(error).splitlines()[0]}"
        self.bindings += checker.bindings
        self.evaluations += checker.evaluations
        if reason:
            return self._refusal(reason, evidence, rules)
        return Slicing(
            level=self.level.name,
            rules=rules,
            evidence=tuple(evidence),
            smallest=checker.smallest,
            bindings=self.bindings,
            evaluations=self.evaluations,
            derivation=proposal.derivation,
            _plans=[(self.model.data, plan)],
        )

    def total(self, outcome: Slicing | SlicingRefusal) -> Slicing | SlicingRefusal:
        return replace(outcome, bindings=self.bindings, evaluations=self.evaluations)

    def name_wrong_rules(self, refused: SlicingRefusal, given: Rules) -> SlicingRefusal:
        """Blame the hand-given rules without which the proposals hold: single ones, or all that differ."""
        wrong = {}
        for name, rule in given.items():
            others = {other: kept for other, kept in given.items() if other != name}
            holds = self._first_that_holds(others)
            if holds is not None and str(holds[name]) != str(rule):
                wrong[name] = holds[name]
        if not wrong and (holds := self._first_that_holds({})) is not None:
            wrong = {name: holds[name] for name, rule in given.items() if str(holds[name]) != str(rule)}
        if not wrong:
            return refused
        named = "; ".join(
            f"{name} is given as '{given[name]}', and '{rule}' holds" for name, rule in wrong.items()
        )
        noun = "rule" if len(wrong) == 1 else "rules"
        reason = f"Wrong {noun} for slicing: {named}. What was given fails: {refused.reason}"
        return self._refusal(reason, refused.evidence, refused.rules)

    def _first_that_holds(self, given: Rules) -> Rules | None:
        outcome = self.best(given)
        return outcome.rules if isinstance(outcome, Slicing) else None

    def _refusal(
        self, reason: str, evidence: list[Probe] | tuple[Probe, ...], rules: Rules
    ) -> SlicingRefusal:
        own = {declaration.name for declaration in self.model.program.data}
        if sparse := sparse_entries(self.model.program, self.model.data):
            listed = f"{', '.join(sparse[:-1])} and {sparse[-1]}"
            reason = f"Sparse matrices are not cut: {listed} are some (csr_matrix_times_vector)."
        return SlicingRefusal(
            reason=reason,
            evidence=tuple(evidence),
            rules={name: rule for name, rule in rules.items() if name in own},
            bindings=self.bindings,
            evaluations=self.evaluations,
        )

    def _refuse_size(self, program: Program, rules: Rules) -> None:
        """Numbers of units that the data can't change."""
        size = self.level.name
        if self.level.block == 0:
            raise StructureError(
                f"No unit of {size} owns a latent: {', '.join(self.level.latents)} share theirs."
            )
        if listed := [member.name for member in self.level.members if member.places]:
            raise StructureError(
                f"The entries of {listed[0]} that belong to one unit lie at places of no declared pattern: what they "
                "would be in the data of fewer units is not known."
            )
        if any(rule.role is Role.SIZE_UNITS for rule in rules.values()):
            return
        if size.isdigit():
            raise StructureError(
                f"The number of units, {size}, is written in the program: fewer units can't be bound to it."
            )
        made = {declaration.name for declaration in program.transformed_data}
        where = "is computed in transformed data" if size in made else "is not set by one size in the data"
        raise StructureError(
            f"The number of units, {size}, {where}: no rule gives the data of a chosen number of them."
        )

    def _refuse_ties(self, program: Program, rules: Rules) -> None:
        """Globals whose number changes with the units, and data that belong to no unit."""
        size = self.level.name
        resized = {n for n, r in rules.items() if r.role in (Role.SIZE_UNITS, Role.SIZE_ROWS)}
        for declaration in program.parameters:
            tied = [s for s in declaration.type.dims if s.names & resized]
            if declaration.name not in self.level.latents and tied:
                raise StructureError(
                    f"The number of entries of {declaration.name}, {tied[0]}, changes with the units, and it is not a "
                    f"latent of level {size}: a part of the units would have other globals."
                )
        if all(r.role in (Role.SIZE_UNITS, Role.SHARED) for r in rules.values()):
            raise StructureError(
                f"No data entry belongs to single units of {size}, by its size or through an index."
            )

    def _not_exchangeable(self, probe: Probe) -> str:
        return (
            f"Permuting the units of {self.level.name} with their data and latents changes the log density (relative "
            f"change {probe.statistic:.1g}): a unit's place matters, through its number or its neighbours' data."
        )

    def _not_additive(self, probe: Probe) -> str:
        computed = [d.name for d in self.model.program.transformed_data if not d.type.is_integer]
        cause = (
            f"transformed data ({', '.join(computed)}) or the model computes something from the data of all units"
            if computed
            else "something is computed from the data of all units"
        )
        return (
            f"The log densities of two parts of the units do not add up to that of both (relative difference "
            f"{probe.statistic:.1g}): {cause}."
        )


def _occupied(plan: Plan) -> npt.NDArray[np.bool_] | None:
    rows = plan.rows_per_unit()
    return None if rows is None else rows > 0


def _strength(refusal: SlicingRefusal) -> int:
    """How far the rules of a refusal got."""
    return sum(1 if probe.holds else -1 for probe in refusal.evidence)


def _checked_units(units: npt.ArrayLike, count: int, level: str) -> IndexArray:
    chosen = np.asarray(units)
    if chosen.size == 0:
        return np.zeros(0, dtype=np.int64)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise StructureError(
            f"units are integers in one dimension, got {chosen.dtype} of shape {chosen.shape}."
        )
    if chosen.min() < 0 or chosen.max() >= count:
        wrong = chosen[(chosen < 0) | (chosen >= count)][0]
        raise StructureError(f"there is no unit {wrong}: the {count} units of {level} count from 0.")
    ordered = np.sort(chosen)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if twice.size:
        raise StructureError(f"unit {twice[0]} is given twice: units must be distinct.")
    return chosen.astype(np.int64)
