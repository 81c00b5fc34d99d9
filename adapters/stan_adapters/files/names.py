"""The name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The closest of `names`, whatever their case; None where none is close."""
    by_folded = {candidate.casefold(): candidate for candidate in names}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A question with a space before it, such as " Did you mean 'tau'?"; empty where none of `names` is close."""
    near = nearest(name, names)
    return f" Did you mean {near!r}?" if near else ""
