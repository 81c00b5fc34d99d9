"""What an argument may be, for every program, and what becomes of one that would take too much here.

Numbers pass `whole_number` where they come in, before anything is read. What they take of a program's memory and time
is weighed in `budget`, as soon as the program is bound.
"""

from __future__ import annotations

import math
import numbers
import os
from dataclasses import dataclass
from typing import Any

from avistan.runtime.errors import FitError
from avistan.runtime.text import shortened
from stan_adapters.files.memory import available_memory, in_bytes

LARGEST_SEED = 2**32 - 1
LARGEST_RATE = 100.0
MOST_DAYS = 30
_DAY, _YEAR = 86_400.0, 365.25 * 86_400


@dataclass(frozen=True, slots=True)
class Limit:
    """The least and the most that a number may be, and why it need not be more."""

    least: int
    most: int
    why: str


_RESTARTS = "each chain is a whole fit"
_NOISE = "the noise of an estimate falls with the root of their number"
LIMITS = {
    "steps": Limit(1, 10**9, "the ELBO of each step is kept"),
    "draws_per_step": Limit(1, 10**4, _NOISE),
    "num_references": Limit(1, 4096, "some dozens of gradients tell units apart"),
    "max_rank": Limit(1, 10**6, "a signature has no more components than its gradients have numbers"),
    "elbo_draws": Limit(2, 5 * 10**6, f"they are made in pairs, and {_NOISE}"),
    "chains": Limit(1, 1000, _RESTARTS),
    "draws": Limit(1, 10**9, _NOISE),
    "repeats": Limit(1, 1000, "each fits every method anew"),
    "reference_chains": Limit(1, 1000, "each warms up anew"),
    "reference_warmup": Limit(1, 10**8, "a sampler that needs more does not fit the program"),
    "warmup": Limit(1, 10**8, "a sampler that needs more does not fit the program"),
    "reference_draws": Limit(2, 10**8, _NOISE),
    "simulations": Limit(10, 10**6, "each is fitted anew"),
    "ranked_draws": Limit(9, 10**5, "a rank among a hundred draws says what there is to know"),
    "entries": Limit(1, 10**6, "each is judged for itself"),
    "width": Limit(1, 10**5, "the weights of a network grow with its square"),
    "degree": Limit(1, 1999, "a polynomial has 2000 terms at most"),
    "rank": Limit(1, 10**5, "a full rank has no more"),
    "neighbours": Limit(1, 10**6, "units depend on those nearby"),
}


def whole_number(name: str, value: object, limit: str = "", *, error: type[Exception] = FitError) -> int:
    """A whole number within its limit.

    Args:
        name: of the argument, for the message.
        limit: its name in `LIMITS`, where that is another one.

    Raises:
        FitError (or `error`): no whole number, or one out of range, with the range and its reason.
    """
    allowed = LIMITS[limit or name]
    whole = None if isinstance(value, bool) or not isinstance(value, numbers.Integral) else int(value)
    if whole is None or whole < allowed.least:
        least = (
            "a positive whole number,"
            if allowed.least == 1
            else f"a whole number of at least {allowed.least},"
        )
        raise error(f"{name}={_short(value)}: give {least} {allowed.most} at most.")
    if whole > allowed.most:
        raise error(f"{name}={_short(value)}: {allowed.most} is the most, as {allowed.why}. Give less.")
    return whole


def number_between(
    name: str, value: object, low: int | float, high: int | float, example: int | float
) -> float:
    """A number strictly between two others.

    Raises:
        FitError: it is none, or out of range.
    """
    number = math.nan if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
    if not low < number < high:
        within = "a positive number" if (low, high) == (0, math.inf) else f"a number between {low} and {high}"
        raise FitError(f"{name}={_short(value)}: give {within}, such as {example}.")
    return number


def check_seed(value: object, name: str = "seed") -> int:
    """A seed of random numbers.

    Raises:
        FitError: it is none.
    """
    whole = -1 if isinstance(value, bool) or not isinstance(value, numbers.Integral) else int(value)
    if not 0 <= whole <= LARGEST_SEED:
        raise FitError(f"{name}={_short(value)}: give a whole number from 0 to {LARGEST_SEED}.")
    return whole


def check_level(value: object) -> None:
    """A level's name, or none.

    Raises:
        FitError: an empty name, or something else.
    """
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise FitError(
            f"level={_short(value)}: give a level's declared size or one of its latents, or leave it out."
        )


def check_engine(value: object) -> str:
    """An engine's name or a library's path, as text.

    Raises:
        FitError: neither.
    """
    if not isinstance(value, str | os.PathLike):
        raise FitError(
            f"engine={_short(value)}: give 'auto', 'stanli', 'bridgestan' or the path of a library."
        )
    return os.fspath(value)


def check_path(name: str, value: object) -> None:
    """A path, of a file or a folder.

    Raises:
        FitError: it is none.
    """
    if not isinstance(value, str | os.PathLike):
        raise FitError(f"{name}={_short(value)}: give a path.")
    if "\0" in os.fspath(value):
        raise FitError(f"{name}={_short(value)}: a path has no null character.")


def check_callable(name: str, value: object) -> None:
    """A function, or none.

    Raises:
        FitError: something else.
    """
    if value is not None and not callable(value):
        raise FitError(f"{name}={_short(value)}: give a function, or leave it out.")


def check_numbers(**values: Any) -> None:
    """Whole numbers and learning rates by the names of their limits; None is left out.

    Raises:
        FitError: one is out of range.
    """
    for name, value in values.items():
        if value is None:
            continue
        if name in LIMITS:
            whole_number(name, value)
        elif name == "learning_rate":
            rate = number_between(name, value, 0, math.inf, 0.02)
            if rate > LARGEST_RATE:
                raise FitError(
                    f"{name}={_short(value)}: {LARGEST_RATE:g} is the most, as a step moves parameters by that many "
                    "of its sds at most, and should move it by few hundredths. Give less, such as 0.02."
                )


def check_memory(what: str, needed: int | float, advice: str) -> None:
    """That so many bytes can be had.

    Args:
        what: the subject of the sentence: "draws_per_step=1000 of 30 parameters".
        advice: what to give instead, as a sentence.

    Raises:
        FitError: they can't, with what is needed and what is left.
    """
    if needed > 2**20 and needed > (left := available_memory()):
        raise FitError(
            f"{what} would take {in_bytes(needed)} of memory at least, and {in_bytes(left)} are left. {advice}"
        )


def check_time(what: str, seconds: int | float, advice: str) -> None:
    """That something takes less than a month.

    Raises:
        FitError: it would take longer, with how long.
    """
    if seconds > MOST_DAYS * _DAY:
        years = seconds / _YEAR
        span = f"{years:.3g} years" if years >= 2 else f"{seconds / _DAY:.0f} days"
        raise FitError(f"{what} would take {span} at least. {advice}")


def _short(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of over 30 digits"
    return shortened(repr(value), 60)
