"""What a comparison says, in sentences that follow from its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from avistan.comparison.results import Comparison
from avistan.comparison.rows import AUTO, Accuracy, Row, free_factors
from avistan.family.method import FACTORIZED
from avistan.runtime.text import count, fixed, plus_minus, seconds, several
from stan_adapters.structure.reasons import listed
from stan_adapters.structure.structure import Structure, Verdict

SMALL_GAP = 1.0  # nats
KHAT_USABLE = 0.7  # Vehtari et al., "Pareto smoothed importance sampling", JMLR 2024
_SHARP, _WIDE = 0.9, 1.1  # sd ratios that count as too small, too large
_OFF = 0.25  # reference sds by which means count as misplaced
_THE_REFERENCES = "the reference's "
_MANY = 50  # parameters with which a large k-hat is the rule


@dataclass(frozen=True, slots=True)
class Finding:
    """A paragraph under a catchword."""

    about: str
    text: str


def headline(structure: Structure) -> str:
    """The verdict as a sentence without its full stop."""
    return {
        Verdict.CLOSABLE: "Amortization can be lossless here",
        Verdict.NOT_CLOSABLE: "Amortization can't be lossless here",
        Verdict.NOTHING_TO_AMORTIZE: "There is nothing to amortize here",
    }[structure.verdict]


def findings(comparison: Comparison) -> list[Finding]:
    """Everything worth saying, most important first."""
    return [
        Finding(about, " ".join(told))
        for about, sentences in (
            ("Structure", _structure(comparison)),
            ("Gap", _gaps(comparison)),
            ("One factor", _constant(comparison)),
            ("Accuracy", _accuracy(comparison)),
            ("Weights", _weights(comparison)),
            ("Speed", _speed(comparison)),
            ("Seeds", _seeds(comparison)),
            ("Beware", _troubles(comparison)),
        )
        if (told := list(sentences))
    ]


def called(comparison: Comparison, row: Row) -> str:
    """A method in prose: "A-VI", "F-VI", "the constant factor", with its name where there are several of a kind."""
    kind = _kind(row)
    if kind is None:
        return row.method
    same = [other for other in comparison.rows if _kind(other) == kind]
    return kind if len(same) == 1 else f"{kind} ({row.method})"


def _sds_of(who: str) -> str:
    return f"the sds of {who}" if who.endswith(")") else f"{who}'s sds"


def _kind(row: Row) -> str | None:
    if row.method == AUTO:  # whose draws are not those of its q
        return None
    return {None: None, "table": "F-VI", "constant": "the constant factor"}.get(row.function, "A-VI")


# ---- Paragraphs --------------------------------------------------------------------------------------------


def _structure(comparison: Comparison) -> Iterator[str]:
    yield comparison.structure.reason


def _gaps(comparison: Comparison) -> Iterator[str]:
    amortized = [row for row in comparison.rows if row.amortized]
    if amortized and free_factors(comparison.rows) is None:
        yield "F-VI is not among the methods, so the amortization gap was not measured."
    short = []
    for row in amortized:
        free = free_factors(comparison.rows, row)
        if free is None or row.gap_to_fvi is None or row.gap_se is None:
            continue
        yield gap_sentence(comparison, row, free, row.gap_to_fvi, row.gap_se)
        if row.gap_to_fvi > SMALL_GAP and row.gap_to_fvi > 2 * row.gap_se:
            short.append(row)
    if short and comparison.structure.verdict is Verdict.CLOSABLE:
        this, its = ("this one", "its") if len(short) == 1 else ("these", "their")
        yield f"Some function closes such a gap; {this}, with {its} inputs and training, did not."
        read = {name: None for row in short if row.fit is not None for name, _ in row.fit.method.data}
        if read:
            yield f"All that matters for a unit need not be in {listed(list(read))}."
    elif amortized and comparison.structure.verdict is Verdict.NOT_CLOSABLE:
        yield "The units are coupled, so no function of a unit's own input is sure to close the gap."


def gap_sentence(comparison: Comparison, row: Row, free: Row, gap: float, se: float) -> str:
    """How an amortized method stands to F-VI with the same local factor; gap and standard error in nats."""
    who, other = called(comparison, row), called(comparison, free)
    size = plus_minus(abs(gap), se)
    clear = abs(gap) > 2 * se
    if not clear and se > SMALL_GAP:
        return (
            f"The gap between {who} and {other} can't be told from zero: {plus_minus(gap, se)} nats. More draws of the "
            "final estimate (elbo_draws) would tell."
        )
    if gap > SMALL_GAP and clear:
        return f"{_capital(who)} ended {size} nats short of {other}."
    if gap < -SMALL_GAP and clear:
        assert row.fit is not None
        assert free.fit is not None
        above = f"{_capital(who)} ended {size} nats above {other}"
        if row.fit.method.family != free.fit.method.family:
            return f"{above}, whose factors are of a simpler family."
        own, others = (None if part.cost is None else part.cost.steps for part in (row, free))
        same = "the same " if own == others else ""
        return (
            f"{above}. Its family is a part of {other}'s, so {other} was still at least that far from its own optimum "
            f"after {same}{several(others or 0, 'step')}."
        )
    return f"{_capital(who)} came within {size} nats of {other}, {_sizes(row, free)}."


def _sizes(row: Row, free: Row) -> str:
    few, many = (None if r.cost is None else r.cost.variational_parameters for r in (row, free))
    return f"with {count(few)} variational parameters against {count(many)}"


def _constant(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        if row.function != "constant" or row.gap_to_fvi is None or row.gap_se is None:
            continue
        gap, size = row.gap_to_fvi, plus_minus(abs(row.gap_to_fvi), row.gap_se)
        who = _capital(called(comparison, row))
        if gap > SMALL_GAP and gap > 2 * row.gap_se:
            yield f"{who}, the same for all units, ended {size} nats short of F-VI: the units differ."
        elif gap < -SMALL_GAP:
            yield (
                f"{who}, the same for all units, ended {size} nats above F-VI, which had not reached its own optimum: "
                "compare methods after more steps."
            )
        else:
            yield (
                f"{who}, the same for all units, came within {size} nats of F-VI: the units hardly differ, and there "
                "is little for a function to learn."
            )


def _accuracy(comparison: Comparison) -> Iterator[str]:
    reference = comparison.reference
    if reference is None:
        unknown = "how near the approximations are to the posterior is not known"
        if comparison.reference_failure:
            yield f"{unknown.capitalize()}: {comparison.reference_failure}"
        else:
            yield f"No reference was asked for, so {unknown}."
        return
    measured = [row for row in comparison.rows if row.accuracy is not None]
    own = [row for row in measured if row.fit is not None]
    handed_out = [row for row in own if row.method == AUTO]
    amortized = [row for row in own if row.amortized]
    first = next(iter([*handed_out, *amortized, *own, *measured]), None)
    if first is not None and first.accuracy is not None:
        yield from accuracy_sentences(comparison, first, first.accuracy)
    if reference.caveat:
        yield reference.caveat


def accuracy_sentences(comparison: Comparison, row: Row, found: Accuracy) -> Iterator[str]:
    """How a method stands to the reference."""
    assert comparison.reference is not None
    who = called(comparison, row)
    parts = [
        (what, error, ratio)
        for what, error, ratio in (
            ("globals", found.mean_error_globals, found.sd_ratio_globals),
            ("latents", found.mean_error_locals, found.sd_ratio_locals),
        )
        if isfinite(error) and isfinite(ratio)
    ]
    if not parts:
        return
    ratios = listed(
        [
            f"{fixed(ratio, 2)} times {'' if number else _THE_REFERENCES}for the {what}"
            for number, (what, _, ratio) in enumerate(parts)
        ]
    )
    errors = listed([fixed(error, 2) for _, error, _ in parts])
    yield (
        f"Against {comparison.reference.called}, {_sds_of(who)} are on average {ratios}; its means are off by "
        f"{errors} of those sds."
    )
    sharp = [what for what, _, ratio in parts if ratio < _SHARP]
    wide = [what for what, _, ratio in parts if ratio > _WIDE]
    off = [what for what, error, _ in parts if error > _OFF]
    if sharp:
        factorized = row.method != AUTO and row.fit is not None and row.fit.method.family == FACTORIZED
        why = ", as a factorized approximation does" if "globals" in sharp and factorized else ""
        yield f"It understates the uncertainty of the {listed(sharp)}{why}."
        free = free_factors(comparison.rows, row)
        theirs = None if free is None or free is row else free.accuracy
        if "globals" in sharp and theirs is not None and row.amortized:
            assert free is not None
            if abs(theirs.sd_ratio_globals - found.sd_ratio_globals) < 0.05:
                yield (
                    f"{called(comparison, free)} does the same ({fixed(theirs.sd_ratio_globals, 2)}): amortization is "
                    "not the cause."
                )
    if wide:
        yield f"It overstates the uncertainty of the {listed(wide)}."
    if off:
        yield f"Means of the {listed(off)} that are off by so much put intervals in the wrong place."
    if not sharp and not wide and not off:
        yield "On average, that is close."


def _weights(comparison: Comparison) -> Iterator[str]:
    known = [(row, row.khat) for row in comparison.rows if row.khat is not None and isfinite(row.khat)]
    usable = [(row, khat) for row, khat in known if khat <= KHAT_USABLE]
    others = [(row, khat) for row, khat in known if khat > KHAT_USABLE]

    def each(rows: Sequence[tuple[Row, float]]) -> str:
        return listed([f"{fixed(khat, 2)} for {called(comparison, row)}" for row, khat in rows])

    dim = count(comparison.unconstrained_dim)
    if usable:
        yield f"k-hat is {each(usable)}, at most 0.7: importance weights of all {dim} parameters together are usable."
    if others:
        yield f"k-hat is {each(others)}, above 0.7: importance weights of all {dim} parameters together are not usable."
        if comparison.unconstrained_dim >= _MANY:
            yield "With so many parameters that is the rule, and says little about a single marginal."


def _speed(comparison: Comparison) -> Iterator[str]:
    own = [row for row in comparison.rows if row.curve is not None]
    there = [(row, row.within_nat) for row in own if row.within_nat is not None]
    if len(own) < 2 or not there:
        return
    early = [called(comparison, row) for row, when in there if when is not None and when.steps <= 1]
    told = [f"{listed(early)} from the start"] if early else []
    told += [
        f"{called(comparison, row)} after {several(when.steps, 'step')} ({seconds(when.seconds)} s)"
        for row, when in there
        if when is not None and when.steps > 1
    ]
    never = [called(comparison, row) for row in own if row.within_nat is None]
    missed = f"; {listed(never)} never did" if never else ""
    yield f"Within 1 nat of the best ELBO of all came {listed(told)}{missed}."


def _seeds(comparison: Comparison) -> Iterator[str]:
    if len(comparison.seeds) < 2:
        return
    told = []
    for row in comparison.rows:
        gaps = [r.gap_to_fvi for r in (row, *row.repeats) if r.gap_to_fvi is not None]
        if row.function in (None, "table") or len(gaps) < 2:
            continue
        low, high = fixed(min(gaps), 2), fixed(max(gaps), 2)
        told.append(f"from {low} to {high} nats for {called(comparison, row)}")
    if told:
        yield f"Over {several(len(comparison.seeds), 'seed')}, gaps to F-VI went {listed(told)}."


def _troubles(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        if row.failed:
            yield f"{row.method} failed: {_closed(row.reason)}"
        elif row.outcome != "settled" and row.reason:
            yield f"{_capital(called(comparison, row))}: {_closed(row.reason)}"
    late = [
        f"{row.method} with seed {comparison.seeds[number]}"
        for row in comparison.rows
        for number, again in enumerate(row.repeats, start=1)
        if again.failed and not row.failed
    ]
    if late:
        yield f"{listed(late)} failed."


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith("the ") else text
