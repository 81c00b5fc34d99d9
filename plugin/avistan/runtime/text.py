"""Numbers and names in sentences and tables: minus signs, decimals that an error leaves, thousands apart."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import floor, isfinite, log10
from typing import Any

from markupsafe import Markup, escape

MINUS, TIMES, DASH = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
_THIN = "\N{NARROW NO-BREAK SPACE}"
_TOGETHER = re.compile(rf"[AF]-VI\b|[kR]-hat\b|{MINUS}?[\d.]+ ± [\d.]+(?: nats)?|\([\d.]+ s\)")
_ASCII = {ord(MINUS): "-", ord(DASH): "-", ord(TIMES): "x", ord(_THIN): "", ord("±"): "+-"}
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])")


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals; a dash for none."""
    if value is None or not isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    whole, point, rest = text.lstrip("-").partition(".")
    return f"{MINUS if text.startswith('-') else ''}{_apart(whole)}{point}{rest}"


def plain(text: str) -> str:
    """Numbers in ASCII, for a terminal."""
    return text.translate(_ASCII)


def count(value: int | None) -> str:
    """A whole number; a dash for none."""
    return DASH if value is None else f"{MINUS if value < 0 else ''}{_apart(str(abs(value)))}"


def plus_minus(value: float | None, error: float | None, digits: int | None = None) -> str:
    """A value with its standard error, by default with as many decimals as one digit of the error needs."""
    if value is None or error is None or not isfinite(error):
        return fixed(value, 2 if digits is None else digits)
    places = decimals(error, 1) if digits is None else digits
    return f"{fixed(value, places)} ± {fixed(error, places)}"


def with_error(value: float, error: float, *, sign: bool = False) -> str:
    """Nats with their standard error, as plain text: "1.20 +- 0.31 nats"; where the error is unknown, that it is.

    Args:
        sign: show that of a gain, too.
    """
    shown = f"{value:{'+' if sign else ''}.2f}"
    return f"{shown} +- {error:.2f} nats" if isfinite(error) else f"{shown} nats (standard error unknown)"


def percent(share: float) -> str:
    """A share as plain text: "1.9 %", "99.7 %", "100 %"; all only where it is all, and 0 only where it is none."""
    shown = f"{100 * share:.{2 if share < 0.1 else 3}g}"
    return f"{'99.9' if shown == '100' and share < 1 else shown} %"


def decimals(error: float, significant: int) -> int:
    """Decimals that show so many digits of an error, from 0 to 4."""
    return 0 if error <= 0 else min(max(significant - 1 - floor(log10(error)), 0), 4)


def seconds(value: float | None) -> str:
    """A time with three significant digits and without a unit; a dash for none."""
    return DASH if value is None else fixed(value, 2 if value < 10 else 1 if value < 100 else 0)


def small(value: float) -> str:
    """A statistic that may be tiny: such as 6.5e-16, with two digits."""
    return "0" if value == 0 else f"{value:.2g}".replace("-", MINUS)


def several(number: int, one: str, many: str | None = None) -> str:
    """A count with its noun: 1 unit, 2 units."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def shortened(text: str, most: int = 80) -> str:
    """Text that a user gave, cut to less than `most` characters."""
    return text if len(text) < most else f"{text[: most - 4]} ..."


def typeset(text: str) -> Markup:
    """Prose for a page: escaped, with typographic apostrophes, and no line broken inside "F-VI" or "3.1 ± 0.2 nats"."""
    escaped = str(escape(_APOSTROPHE.sub("\N{RIGHT SINGLE QUOTATION MARK}", text)))
    return Markup(_TOGETHER.sub(r'<span class="together">\g<0></span>', escaped))


def _apart(digits: str) -> str:
    """Groups of three from five digits on."""
    return digits if len(digits) < 5 else f"{int(digits):,}".replace(",", _THIN)


def finite(value: float | None) -> float | None:
    """The number, or None where it is not finite, as strict JSON has no other word for it."""
    return value if value is not None and isfinite(value) else None


def to_json(values: Mapping[str, Any]) -> str:
    """Strict JSON: numbers that are not finite are null."""
    return json.dumps(_strict(values), indent=2, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if hasattr(value, "item"):  # numpy's scalars
        value = value.item()
    return None if isinstance(value, float) and not isfinite(value) else value
