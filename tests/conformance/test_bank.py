"""Every construct of the bank, in every place: right, or refused by name with the way out; never silently wrong.

What the installed engine refuses is in `refusals.json`, by its version: a construct that it learns is a stale row.
Remake the rows of an engine with `python tests/conformance/list_refusals.py`.
"""

import importlib.metadata
import re

import pytest

from conformance.bank import BANK, SLOW_BANK, outcomes, refusals
from conformance.equivalents import equivalents
from conformance.places import PLACES
from conformance.running import Outcome, together

STANLI = importlib.metadata.version("stanli")
ROOMS = [(table, place) for table, (_, places) in BANK.items() for place in places]
ALL = BANK | SLOW_BANK
ALL_ROOMS = [
    (table, place) for table, (_, places) in ALL.items() for place in (PLACES if len(places) > 2 else places)
]
# the function that a refusal names, if it does: then it says too where the program calls it
FUNCTION = re.compile(r"(?:function|UserDefined) (\w+)|(\w+_lp[dm]f):|: (\w+) needs a ")
PLACE = re.compile(r"case\.stan:\d+:\d+")
BLAMES = ("in the data", "Give at least", "with these data")


def _names_a_function(outcome: Outcome) -> bool:
    text = outcome.case.functions + outcome.case.code
    return any(
        re.search(rf"\b{name}\s*\(", text) for name in filter(None, sum(FUNCTION.findall(outcome.detail), ()))
    )


def _check(table: str, place: str, *, batch: int) -> None:
    cases = list(ALL[table][0]())
    known = {name for name, places in refusals("stanli", STANLI).items() if place in places}
    seen = {outcome.case.name: outcome for outcome in outcomes(cases, place, known, batch=batch)}
    wrong = {name: outcome.detail for name, outcome in seen.items() if outcome.kind == "wrong"}
    assert not wrong, f"silently wrong in {place}: {wrong}"
    refused = {name: outcome.detail for name, outcome in seen.items() if outcome.kind == "refused"}
    unknown = {name: why for name, why in refused.items() if name not in known}
    assert not unknown, f"refused in {place}, and not in the table of stanli {STANLI}: {unknown}"
    stale = sorted(name for name in known & set(seen) if name not in refused)
    assert not stale, f"in the table of stanli {STANLI}, and right in {place}: take these rows out: {stale}"
    silent = {name: why for name, why in refused.items() if 'engine="bridgestan"' not in why}
    assert not silent, f"refused in {place} without the way out: {silent}"
    blamed = {name: why for name, why in refused.items() if any(words in why for words in BLAMES)}
    assert not blamed, f"refused in {place} with a reason that the data have not given: {blamed}"
    lost = {
        outcome.case.name: outcome.detail
        for outcome in seen.values()
        if outcome.kind == "refused" and _names_a_function(outcome) and not PLACE.search(outcome.detail)
    }
    assert not lost, f"refused in {place} for a function, without the line that calls it: {lost}"


@pytest.mark.parametrize(("table", "place"), ROOMS, ids=[f"{table} in {place}" for table, place in ROOMS])
def test_the_engine_gets_every_construct_right_or_refuses_it(table: str, place: str) -> None:
    _check(table, place, batch=12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "place"), ALL_ROOMS, ids=[f"{table} in {place}" for table, place in ALL_ROOMS]
)
def test_every_construct_alone_in_its_program(table: str, place: str) -> None:
    _check(table, place, batch=1)


def test_the_bank_has_a_name_for_every_case() -> None:
    names = [(table, case.name) for table, (cases, _) in ALL.items() for case in cases()]
    assert len(names) == len(set(names))
    assert len({name for _, name in names}) >= 300 + 76


def test_every_row_of_the_table_of_refusals_is_a_case() -> None:
    names = {case.name for cases, _ in ALL.values() for case in cases()}
    assert set(refusals("stanli", STANLI)) <= names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "place"), [room for room in ROOMS if room[1] in ("transformed data", "model with parameters")]
)
def test_a_compiled_engine_gets_every_construct_right(table: str, place: str, bridgestan_home: str) -> None:
    cases = list(BANK[table][0]())
    for start in range(0, len(cases), 100):  # compiled a program at a time, of a hundred cases each
        seen = together(cases[start : start + 100], place, "bridgestan")
        assert not {o.case.name: (o.kind, o.detail) for o in seen if o.kind != "right"}


def test_what_is_refused_everywhere_is_right_in_other_words() -> None:
    """An expectation that no engine has met could be wrong: these are met by equivalents that stanli knows."""
    everywhere = {name for name, places in refusals("stanli", STANLI).items() if set(places) == set(PLACES)}
    empty = {
        name for name in everywhere if name.startswith("extreme: ") and "_lpmf(" in name
    }  # sums of nothing
    cases = [case for bank, _ in BANK.values() for case in equivalents(bank())]
    assert {case.name for case in cases} >= everywhere - empty
    seen = outcomes(cases, "model with parameters", {case.name for case in cases})
    assert not {outcome.case.name: outcome.detail for outcome in seen if outcome.kind != "right"}
