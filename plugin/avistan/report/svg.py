"""Figures as SVG inside a page: its fonts, its colours in light and dark, no ids of their own, few bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from avistan.report.figures import BAND, COLOURS, GRID, INK, MUTED, PAPER

VARIABLES: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    BAND: "--band",
    PAPER: "--paper",
    **{colour: f"--series-{number}" for number, colour in enumerate(COLOURS, start=1)},
}

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#(\w+)\)")
_STRAIGHT = re.compile(r"rotate\(-?0 [^)]*\)\s*")


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
    root = ElementTree.fromstring(content.getvalue())
    for tag in ("metadata", "defs"):
        for child in root.findall(f"{{{_SVG}}}{tag}"):
            if tag == "metadata" or child.find(f"{{{_SVG}}}style") is not None:
                root.remove(child)
    _rewrite(root, name)
    _without_background(root)
    _share_styles(root)
    size = [float(number) for number in root.attrib["viewBox"].split()[2:]]
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": f"0 0 {size[0]:g} {size[1]:g}",
            "width": f"{size[0]:g}",
            "height": f"{size[1]:g}",
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-description",
        }
    )
    for tag, text in (("desc", description), ("title", title)):
        element = ElementTree.Element(
            f"{{{_SVG}}}{tag}", id=f"{name}-{'title' if tag == 'title' else 'description'}"
        )
        element.text = text
        root.insert(0, element)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")  # HTML knows the names without their namespace
        element.tail = None
    return ElementTree.tostring(root, encoding="unicode")


def _rewrite(root: ElementTree.Element, name: str) -> None:
    """Short numbers, the page's colours and fonts; ids only where something refers to them."""
    used = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            used.update(_REFERENCE.findall(value))
            if key == f"{{{_XLINK}}}href":
                used.add(value[1:])
    for element in root.iter():
        element.text = element.text.strip() if element.text else element.text
        attributes = dict(element.attrib)
        element.attrib.clear()
        for key, value in attributes.items():
            if key == "id":
                if value in used:
                    element.set("id", f"{name}-{value}")
            elif key == f"{{{_XLINK}}}href":
                element.set("href", f"#{name}-{value[1:]}")
            elif key == "style":
                if style := _themed(value):
                    element.set("style", _REFERENCE.sub(rf"url(#{name}-\1)", style))
            elif key == "transform":
                if moved := _short(_STRAIGHT.sub("", value)).strip():
                    element.set("transform", moved)
            elif key == "clip-path":
                element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
            elif key == "d":
                element.set(key, " ".join(_short(value).split()))
            else:
                element.set(key, _short(value) if key in ("x", "y", "width", "height") else value)


def _themed(style: str) -> str:
    kept = []
    for part in style.split(";"):
        key, _, value = (text.strip() for text in part.partition(":"))
        if not key or key == "font-family":
            continue
        if key == "font":  # size and family in one
            key, value = "font-size", next(word for word in value.split() if word.endswith("px"))
        variable = VARIABLES.get(value.lower())
        kept.append(f"{key}:{f'var({variable})' if variable else _short(value)}")
    return ";".join(kept)


def _short(text: str) -> str:
    """Decimals cut to hundredths of a point."""
    return _NUMBER.sub(lambda found: f"{round(float(found[0]), 2) + 0.0:.8g}", text)


def _without_background(root: ElementTree.Element) -> None:
    """Without paths that draw nothing."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}path" and child.get("style") in ("fill:none", "fill:none;opacity:0"):
                parent.remove(child)
    for _ in range(4):
        for parent in list(root.iter()):
            for child in list(parent):
                if child.tag == f"{{{_SVG}}}g" and not len(child) and not child.attrib:
                    parent.remove(child)


def _share_styles(root: ElementTree.Element) -> None:
    """Markers of one series: their style once, on the group, and each place once."""
    for group in root.iter(f"{{{_SVG}}}g"):
        uses = group.findall(f"{{{_SVG}}}use")
        styles = {use.get("style") for use in uses}
        if len(uses) < 2 or len(styles) > 1 or group.get("style"):
            continue
        style = styles.pop()
        seen = set()
        for use in uses:
            use.attrib.pop("style", None)
            place = (use.get("href"), use.get("x"), use.get("y"))
            if place in seen:
                group.remove(use)
            seen.add(place)
        if style:
            group.set("style", style)
