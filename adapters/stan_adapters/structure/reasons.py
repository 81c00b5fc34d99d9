"""The sentences of a verdict, as a statistician would write them, in the program's own names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stan_adapters.levels.data_rows import RowEvidence, Rows
from stan_adapters.levels.levels import Level, Member
from stan_adapters.levels.probes import Coupling
from stan_adapters.unit_data import DataInputs, Slicing, SlicingRefusal

NO_CONTAINERS = "No parameter is a container with an entry per unit: every parameter is global."
NO_UNITS = "No parameter has an entry per unit."
NO_FUNCTION = (
    "Two units with the same input can have different posteriors, so no inference function closes the gap."
)


def tuples(names: Sequence[str]) -> str:
    """What becomes of tuples among the parameters, whose components engines call `t:1` or, in arrays, `t.1:1`."""
    first, are = names[0], "is a tuple" if len(names) == 1 else "are tuples"
    return (
        f"{listed(names)} {are}: a component with an entry per unit counts as a parameter of its own, others are "
        f"globals (`{first}:1` among an engine's names is the first component of {first}, `{first}.1` in the program)."
    )


def closable(level: Level, statistic: float, meets: Sequence[str]) -> str:
    """`meets`: latents of other levels that enter the same terms."""
    give = _verb(level.latents, "gives", "give")
    latents = "a latent" if level.block == 1 else f"{level.block} latents"
    change = "exactly 0" if statistic == 0 else f"at most {statistic:.1g}"
    text = (
        f"{listed(level.latents)} {give} each of the {level.num_units} units of {level.name} {latents}. With "
        "everything else held fixed the units are independent: moving some of them changed the scores of all others "
        f"by {change}, so a function of a unit's own signature can reach F-VI's optimum."
    )
    text += "".join(_where(level, member) for member in level.members if member.width > 1)
    if meets:
        others = [f"other entries of {name}" if name in level.latents else name for name in meets]
        single = len(meets) == 1 and meets[0] not in level.latents
        enter, count = ("enters", "counts") if single else ("enter", "count")
        told = listed(others)
        text += f" {told[0].upper() + told[1:] if told.startswith('other ') else told} {enter} the same terms and "
        text += f"{count} as global here."
    return text


def _where(level: Level, member: Member) -> str:
    """Which entries of a parameter make a unit, where that is not one entry of its axis."""
    if member.apart:
        return f" The {member.width} entries of {member.name} in a unit lie {level.num_units} places apart."
    steps = np.diff(np.array(member.places).reshape(-1, member.width), axis=1)
    if (steps == 1).all():
        return f" The {member.width} entries of {member.name} in a unit lie side by side."
    return f" Which {member.width} entries of {member.name} make a unit was found from what moves what."


def coupled(level: Level, latents: Sequence[str], how: Coupling) -> str:
    """How the units depend on each other; `latents` are those that couple them."""
    return (
        f"The {level.num_units} units of {listed(latents)}, along {level.name}, are coupled even with everything else "
        f"held fixed: {_shape(level, how)}."
    )


def constrained(level: Level) -> str:
    """A constraint couples the entries by definition."""
    return (
        f"The {level.num_units} entries of {listed(level.latents)}, along {level.name}, sum to zero by declaration: "
        "they share fewer free coordinates than there are units, and no unit owns one."
    )


def alone(names: Sequence[str]) -> str:
    """What a user may still ask for in a level whose other parameters are coupled."""
    it, them = ("it", "it") if len(names) == 1 else ("one of them", "them")
    return (
        f"{listed(names)} alone would be independent given the rest: name {it} (level={names[0]!r}) to amortize {them} "
        "with the others as globals."
    )


def no_units(level: Level, rows: Rows) -> str:
    """Why the entries of a container are no units."""
    who = listed(level.latents)
    if rows.evidence is RowEvidence.COLUMNS:
        hold = _verb(level.latents, "holds", "hold")
        return f"{who} {hold} coefficients of {listed(rows.names)}: every row depends on all of them."
    if rows.evidence is RowEvidence.COMPONENTS:
        describe = _verb(level.latents, "describes", "describe")
        weigh = _verb(rows.names, "weighs", "weigh")
        return f"{who} {describe} the {level.num_units} components that {listed(rows.names)} {weigh}."
    return (
        f"The {level.num_units} entries of {who} share the data, as coefficients or mixture components do: no declared "
        "data belong to one of them."
    )


def untested(names: Sequence[str]) -> str:
    """Parameters whose moves had no effect, or were all rejected."""
    return (
        f"{listed(names)} could not be tested: their own values moved no score, or every move was rejected."
    )


def fed_by(feeds: DataInputs) -> str:
    """Which data entries a unit's scores depend on."""
    if feeds.inputs == "unknown":
        return "unknown: exchanging data between units does not tell."
    if not feeds.names:
        return "none: no data entry moves a score."
    if feeds.inputs == "simple":
        return f"the unit's own parts of {listed(feeds.names)} (simple hierarchical)."
    places = "; ".join(
        f"{name}[n{offset:+d}]" if offset else f"{name}[n]"
        for name in feeds.names
        for offset in feeds.offsets.get(name, ())
    )
    return f"more than the unit's own parts of {listed(feeds.names)} (expanded){': ' + places if places else ''}."


def sliced(slicing: Slicing | SlicingRefusal) -> str:
    """How data are cut to some units, or why they are not."""
    if isinstance(slicing, SlicingRefusal):
        return f"refused. {slicing.reason}"
    told = "verified: " + ", ".join(f"{name} {rule}" for name, rule in slicing.rules.items()) + "."
    if slicing.derivation is None:
        return told
    names = listed(slicing.derivation.names)
    return f"{told} For that {names} became data of a derived program, the same density on the whole data."


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def wrapped(head: str, text: str, width: int = 100) -> list[str]:
    """Lines of at most `width` characters, the first one after `head`, the others indented like it."""
    lines, line = [], head
    for word in text.split():
        while len(head) + len(word) > width:  # a name wider than the page
            lines.append((line + word)[:width].rstrip())
            word, line = (line + word)[width:], " " * len(head)
        if len(line) + len(word) > width:
            lines.append(line.rstrip())
            line = " " * len(head)
        line += word + " "
    return [*lines, line.rstrip()]


def _shape(level: Level, how: Coupling) -> str:
    others = level.num_units - 1
    if how.shape == "band":
        near = "its nearest neighbours" if how.reach == 1 else f"its neighbours up to {how.reach} places away"
        return f"each depends on {near}, as in a random walk or an autoregression"
    if how.shape == "graph":
        return (
            f"each depends on some of the {others} others, {how.share * others:.2g} on average, as neighbours on a map "
            "or opponents in games do"
        )
    if how.shape == "dense":
        whom = "all others" if how.share > 0.995 else f"{100 * how.share:.0f} % of the others"
        return f"each depends on {whom}, as in a Gaussian process, a cumulative sum or a common total"
    return "a unit's score moves with the latents of the others, though with no single one of those probed"


def _verb(names: Sequence[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many
