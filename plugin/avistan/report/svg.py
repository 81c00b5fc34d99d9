"""Figures as SVG inside a page: its fonts, its colours in light and dark, no ids of their own, few bytes.

Only what matplotlib writes is rewritten, tag by tag; words stay as they are.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from avistan.pictures.house_style import BAND, COLOURS, GRID, INK, MUTED, PAPER

VARIABLES: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    BAND: "--band",
    PAPER: "--paper",
    **{colour: f"--series-{number}" for number, colour in enumerate(COLOURS, start=1)},
}

_TAG, _BETWEEN, _NUMBER = re.compile(r"<[^>]+>"), re.compile(r">\s+<"), re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_HEAD = re.compile(r'<svg [^>]*viewBox="0 0 (\S+) (\S+)"[^>]*>')
_ID, _REFERENCE = re.compile(r' id="([^"]+)"'), re.compile(r'(?:xlink:)?(href="|url\()#(\w+)')
_IN_TAGS = (
    (re.compile(r"\s+"), " "),
    (re.compile(r"([:;]) "), r"\1"),
    (re.compile(r'font:[^;"]*?([\d.]+px)[^;"]*'), r"font-size:\1"),
    (re.compile(r'font-family:[^;"]*;?'), ""),
    (re.compile(r' transform="rotate\(-?0 [^)]*\)"'), ""),
)
_UNSEEN = re.compile(
    r'<metadata>.*</metadata>|<defs><style.*?</defs>|<path [^>]*style="fill:none(;opacity:0)?"/>'
)
_EMPTY = re.compile(r"<g></g>")
_MARKERS, _MARKER, _STYLE = (re.compile(p) for p in (r"(<use [^>]+>){2,}", r"<use [^>]+>", r' style="[^"]*"'))


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """An `svg` element to write into HTML.

    Args:
        name: distinguishes it from the page's other figures.
        title, description: what a reader hears who does not see it.
    """
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "avistan", "font.family": ["DejaVu Sans"]}
    content = io.StringIO()
    with matplotlib.rc_context(settings):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    _, svg, written = content.getvalue().partition("<svg ")
    written = svg + written
    used = {reference for _, reference in _REFERENCE.findall(written)}

    def rewritten(found: re.Match[str]) -> str:
        tag = found[0]
        for pattern, shorter in _IN_TAGS:
            tag = pattern.sub(shorter, tag)
        tag = _ID.sub(lambda of: f' id="{name}-{of[1]}"' if of[1] in used else "", tag)
        tag = _REFERENCE.sub(rf"\1#{name}-\2", tag)
        for colour, variable in VARIABLES.items():
            tag = tag.replace(f":{colour}", f":var({variable})")
        return _NUMBER.sub(_hundredths, tag)

    written = _BETWEEN.sub(
        "><", _TAG.sub(rewritten, _HEAD.sub(r'<svg viewBox="0 0 \1 \2">', written, count=1))
    )
    written = _MARKERS.sub(_once, _UNSEEN.sub("", written))
    while _EMPTY.search(written):
        written = _EMPTY.sub("", written)
    labels = (
        f'<title id="{name}-title">{html.escape(title, quote=False)}</title>'
        f'<desc id="{name}-description">{html.escape(description, quote=False)}</desc>'
    )
    named = f'role="img" aria-labelledby="{name}-title {name}-description"'
    return _HEAD.sub(rf'<svg viewBox="0 0 \1 \2" width="\1" height="\2" {named}>', written, count=1).replace(
        ">", f">{labels}", 1
    )


def _hundredths(number: re.Match[str]) -> str:
    return f"{round(float(number[0]), 2) + 0.0:.8g}"


def _once(markers: re.Match[str]) -> str:
    """Markers of one series: each place once and, where all have one style, that on their group."""
    places = dict.fromkeys(_MARKER.findall(markers[0]))
    styles = {style for place in places for style in _STYLE.findall(place)}
    if len(styles) != 1:
        return "".join(places)
    return f"<g{styles.pop()}>{''.join(_STYLE.sub('', place) for place in places)}</g>"
