"""Data inputs: which declared data entries the scores of a unit depend on, and whether only through its own parts.

Parts of one entry are exchanged between units, the program is bound again, and the scores at fixed points are
compared. Exchanges keep every value legal wherever a bound does not tie entries to each other; where one is refused,
or the parts are all equal, values are moved instead. Entries that say whose a row is (an index, starts, sizes) are
named with the others; data that all units share are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError, StructureError
from stan_adapters.language.program import Declaration, Program
from stan_adapters.levels.levels import Level
from stan_adapters.levels.probes import Probe
from stan_adapters.rewriting.computed_data import sources_of
from stan_adapters.unit_data.checks import TOLERANCE, Checker, random_points
from stan_adapters.unit_data.feeding import Owned, feeding
from stan_adapters.unit_data.parts import rebind
from stan_adapters.unit_data.plan import Plan
from stan_adapters.unit_data.rules import OWNERS, Role, Rules, array_of
from stan_adapters.unit_data.slicing import Slicing, SlicingRefusal
from stan_adapters.unit_data.trials import Array, Trials

type Inputs = Literal["simple", "expanded", "unknown"]
type Owner = tuple[
    int | None, IndexArray
]  # the axis (None: all entries in row-major order), and whose each place is

_MAX_UNITS = 100  # of a sliceable program that are bound for this
_POINTS = 2
_MANY_ENTRIES = 4
_MOST_BINDINGS, _ROUNDS = (
    20,
    3,
)  # and how often single parts of one entry are exchanged, where that leaves room
_FEWEST_BINDINGS = 8  # for this, however many slicing took
_REACH = 12  # the farthest neighbour that is called one


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInputs:
    """What feeds a unit.

    Attributes:
        names: the data entries on which the scores depend, in the order of the program; those that say whose a row is
            among them.
        inputs: "simple" (only a unit's own parts of them), "expanded" (also other units' parts, or the unit's place),
            "unknown" (the exchanges don't tell).
        offsets: of each named entry whose owner is known, which parts the scores of unit n depend on: -1 is that of
            unit n - 1. Where an entry has one part more than there are units, parts count from the first.
        statistic: largest relative change of the scores of units none of whose own parts had changed.
    """

    names: tuple[str, ...]
    inputs: Inputs
    offsets: dict[str, tuple[int, ...]]
    statistic: float
    evaluations: int
    bindings: int

    def probe(self, level: Level) -> Probe:
        """The line of the certificate: do the scores depend on the unit's own data only?"""
        name = f"data inputs of {level.name}"
        return Probe(name, self.inputs == "simple", self.statistic, TOLERANCE, self.evaluations)


def find_data_inputs(
    model: BoundModel,
    level: Level,
    slicing: Slicing | SlicingRefusal,
    rng: np.random.Generator,
    theta: FloatArray | None = None,
) -> DataInputs:
    """Which data feed the units of a separable level.

    Args:
        slicing: what `find_slicing` said. A verified slicing proves that own parts are enough, and lets a few units
            stand for all; a refusal costs a binding of the whole for every exchange.
        theta: random points (P, D) of finite density, if there are some already.
    """
    found, evaluations = (theta, 0) if theta is not None else random_points(model, rng, _POINTS)
    found = found[:_POINTS]
    if isinstance(slicing, Slicing):
        with ExitStack() as opened:
            whole = model
            if slicing.derivation is not None:
                whole = opened.enter_context(rebind(model, slicing.plan(model.data).data))
            trials = _few_units(whole, level, slicing, found, rng)
            if trials.model is not whole:
                opened.enter_context(trials.model)
            trials.evaluations += evaluations
            trials.bindings += whole is not model
            return _from_halves(trials, slicing.plan(trials.model.data), _origins(model.program, slicing))
    return _from_pairs(Trials(model, level.index, found, rng, evaluations=evaluations), level, slicing)


# ---- Verified slicing ----------------------------------------------------------------------------------------


def _few_units(
    model: BoundModel, level: Level, slicing: Slicing, theta: FloatArray, rng: np.random.Generator
) -> Trials:
    """Trials on the data of a sample of units, or on the whole where that is small."""
    if level.num_units <= _MAX_UNITS:
        return Trials(model, level.index, theta, rng)
    checker = Checker(model, level, lambda units: slicing.subset(model.data, units), theta, rng)
    rows = slicing.rows_per_unit(model.data)
    eligible = np.arange(level.num_units) if rows is None else np.flatnonzero(rows > 0)
    try:
        part = checker.bind_some(eligible, _MAX_UNITS)
    except AvistanError:
        return Trials(model, level.index, theta, rng, bindings=checker.bindings)
    return Trials(part.model, part.locals, checker.place(part), rng, bindings=checker.bindings)


def _origins(program: Program, slicing: Slicing) -> dict[str, frozenset[str]]:
    """The program's own data behind transformed data that are cut with the units."""
    if slicing.derivation is None:
        return {}
    found = sources_of(program)
    return {name: found.get(name, frozenset()) for name in slicing.derivation.names}


def _from_halves(trials: Trials, plan: Plan, origins: Mapping[str, frozenset[str]]) -> DataInputs:
    """Exchange entries among half of the units."""
    half = np.zeros(plan.units, dtype=bool)
    half[trials.rng.permutation(plan.units)[: max(2, plan.units // 2)]] = True
    owning = {
        d.name
        for d in trials.model.program.data
        if plan.rules[d.name].role in OWNERS and array_of(plan.data, d.name).size
    }
    entries = [
        Owned(declaration, *owner)
        for declaration in trials.model.program.data
        if (owner := plan.owner(declaration.name)) is not None and declaration.name not in owning
    ]
    found, statistic = feeding(trials, entries, half)
    inputs: Inputs = "simple" if statistic <= TOLERANCE else "unknown"
    for name in found & origins.keys():
        arrays = {other for other in origins[name] if array_of(plan.data, other).ndim}
        found |= {other for other in arrays if plan.owner(other) is not None} or arrays
    for name in owning & origins.keys():
        owning |= {other for other in origins[name] if array_of(plan.data, other).ndim}
    names = _own_names(trials.model.program, found | owning, origins)
    return _result(trials, names, inputs, dict.fromkeys(names, (0,)), statistic)


def _own_names(program: Program, names: Collection[str], origins: Collection[str]) -> list[str]:
    """Names in the order of the program, transformed data left out."""
    return [d.name for d in program.data if d.name in names and d.name not in origins]


# ---- No slicing ----------------------------------------------------------------------------------------------


def _from_pairs(trials: Trials, level: Level, refusal: SlicingRefusal) -> DataInputs:
    """Exchange single parts of one entry, far apart, and see how far from them scores change."""
    known = _plan(trials.model, level, refusal.rules)
    exchangeable = {probe.holds for probe in refusal.evidence if probe.probe.startswith("exchangeability")}
    names: list[str] = []
    owning: list[str] = []
    offsets: dict[str, tuple[int, ...]] = {}
    axes: dict[str, int | None] = {}
    unclear, statistic = False, 0.0
    entries: list[tuple[Declaration, Array, Owner | None]] = []
    sizing = {name for d in trials.model.program.declarations for size in d.type.dims for name in size.names}
    for declaration in trials.model.program.data:
        value = trials.model.data[declaration.name]
        if not isinstance(value, np.ndarray) or value.ndim == 0 or value.size == 0:
            continue
        if known is not None and known.rules[declaration.name].role in OWNERS:
            if known.rules[declaration.name].role is not Role.INDEX or _matters(trials, declaration):
                owning.append(declaration.name)
            continue
        owner = _owner(declaration, value, level, known)
        if owner is None and (True in exchangeable or declaration.name in sizing):
            continue  # the rules are right about what all units share, and other sizes do not fit the data
        entries.append((declaration, value, owner))
    entries = _that_feed(trials, entries)
    rounds = int(np.clip((_MOST_BINDINGS - trials.bindings) // max(1, len(entries)), 1, _ROUNDS))
    for declaration, value, owner in entries:
        if owner is None:
            if trials.bindings >= max(_FEWEST_BINDINGS, _MOST_BINDINGS - refusal.bindings):
                # it moves scores; which ones stays open
                if value.size >= level.num_units or not declaration.type.is_integer:
                    names.append(declaration.name)
                unclear = True
                continue
            touched = _counts(trials, declaration, level, rounds)
            if touched is not None:
                names.append(declaration.name)
                unclear = unclear or touched > 1
            continue
        reached, largest = _offsets(trials, declaration, owner, rounds)
        statistic = max(statistic, largest)
        if reached:
            names.append(declaration.name)
            if value.size == level.num_units or (
                owner[0] is not None and value.shape[owner[0]] == level.num_units
            ):
                axes[declaration.name] = owner[0]
            near = tuple(sorted(reached))
            if max(map(abs, near)) <= _REACH and len(near) <= _REACH:
                offsets[declaration.name] = near
            else:
                unclear = True
    own = all(value == (0,) for value in offsets.values())
    if own and not unclear and not exchangeable and names and set(axes) == set(names):
        moved = trials.change_in_place(axes)
        exchangeable = {moved is None or moved <= TOLERANCE}
        statistic = max(statistic, moved or 0.0)
    if unclear or not names:
        inputs: Inputs = "unknown"
    else:
        inputs = "simple" if own and False not in exchangeable else "expanded"
    if names:
        names = _own_names(trials.model.program, {*names, *owning}, ())
    return _result(trials, names, inputs, offsets, statistic)


def _matters(trials: Trials, declaration: Declaration) -> bool:
    """Whether other numbers in some places of an index change scores."""
    count = len(np.asarray(trials.model.data[declaration.name]))
    for point, places in enumerate(trials.spaced(np.arange(count), most=1)):
        change = trials.change(declaration, 0, places, point)
        if change is not None and (change > TOLERANCE).any():
            return True
    return False


def _that_feed(
    trials: Trials, entries: list[tuple[Declaration, Array, Owner | None]]
) -> list[tuple[Declaration, Array, Owner | None]]:
    """Of many entries those that feed any unit: it takes few bindings to find them, and many to find out how."""
    if len(entries) <= _MANY_ENTRIES:
        return entries
    count = trials.num_units
    owned = [
        Owned(declaration, *(owner or (0, np.arange(len(value)) % count)))
        for declaration, value, owner in entries
    ]
    found, _ = feeding(trials, owned, trials.rng.permutation(count) % 2 == 0)
    return [entry for entry in entries if entry[0].name in found]


def _plan(model: BoundModel, level: Level, rules: Rules) -> Plan | None:
    if not any(rule.role in (Role.UNIT, Role.INDEX) for rule in rules.values()):
        return None
    try:
        return Plan(model.data, rules, level.name, level.num_units)
    except StructureError:
        return None


def _owner(declaration: Declaration, value: Array, level: Level, known: Plan | None) -> Owner | None:
    """Whose the parts of an entry are: as the rules say, or by the number of entries along an axis or in all."""
    if known is not None:
        return known.owner(declaration.name)
    units = level.num_units
    exact = [axis for axis, size in enumerate(value.shape) if size == units]
    more = [axis for axis, size in enumerate(value.shape) if units < size <= units + 3]
    for axis in (exact + more)[:1]:
        size = declaration.type.dims[axis]
        if size.text == level.name or size.names & _names(level):
            return axis, np.arange(value.shape[axis])
    return (None, np.arange(units)) if value.ndim > 1 and value.size == units else None


def _names(level: Level) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in level.name).split())


def _offsets(trials: Trials, declaration: Declaration, owner: Owner, rounds: int) -> tuple[set[int], float]:
    """Distances from the parts that were exchanged to the units whose scores changed; the largest change away."""
    axis, units = owner
    count = trials.num_units
    found: set[int] = set()
    largest = 0.0
    for point, places in enumerate(trials.spaced(units, rounds=rounds)):
        change = trials.change(declaration, axis, places, point)
        if change is None:
            continue
        changed = np.flatnonzero(change > TOLERANCE)
        distance = units[places][None] - changed[:, None]
        nearest = np.abs(distance).argmin(axis=1)
        found |= set(distance[np.arange(len(changed)), nearest].tolist())
        own = np.zeros(count, dtype=bool)
        own[units[places][(units[places] >= 0) & (units[places] < count)]] = True
        largest = max(largest, float(change[~own].max(initial=0.0)))
    return found, largest


def _counts(trials: Trials, declaration: Declaration, level: Level, rounds: int) -> float | None:
    """Units touched by one part of an entry without known owner; None where it feeds no unit or all alike."""
    if trials.sets_units(declaration):
        return None
    value = np.asarray(trials.model.data[declaration.name])
    touched = []
    for point, places in enumerate(trials.spaced(np.arange(len(value)), 1, rounds)):
        change = trials.change(declaration, 0, places, point)
        if change is not None:
            touched.append(int((change > TOLERANCE).sum()))
    moved = [count for count in touched if count]
    if not moved or min(moved) > 0.9 * level.num_units:
        return None
    return max(moved) / 2


def _result(
    trials: Trials, names: list[str], inputs: Inputs, offsets: dict[str, tuple[int, ...]], statistic: float
) -> DataInputs:
    return DataInputs(
        names=tuple(names),
        inputs=inputs,
        offsets=offsets,
        statistic=statistic,
        evaluations=trials.evaluations,
        bindings=trials.bindings,
    )
