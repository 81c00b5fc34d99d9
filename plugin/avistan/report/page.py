"""A comparison as one HTML page that needs nothing else: words, tables and pictures."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from avistan.comparison.results import Comparison
from avistan.comparison.unit_agreement import Agreement, RowMarginals, agreements, pairs
from avistan.pictures.house_style import COLOURS, DASHES
from avistan.report import figures as plots
from avistan.report import tables as structure_tables
from avistan.report.intervals import Intervals, intervals
from avistan.report.sentences import findings, headline
from avistan.report.svg import inline_svg
from avistan.runtime.text import DASH, TIMES, count, fixed, plus_minus, several, typeset
from avistan.runtime.versions import versions

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class Key:
    """A line of a figure's legend. `mark`: the series; None for the reference."""

    label: str
    mark: int | None
    dashes: str = ""
    is_thin: bool = False


@dataclass(frozen=True, slots=True)
class PageFigure:
    title: str
    svg: Markup
    caption: str = ""
    keys: tuple[Key, ...] = ()


def render(comparison: Comparison, shown: Intervals | None = None) -> str:
    """The page.

    Args:
        shown: what the forest plots show; by default the program's parameters.
    """
    shown = shown or intervals(comparison)
    return _page().render(
        comparison=comparison,
        headline=headline(comparison.structure),
        findings=findings(comparison),
        subtitle=_subtitle(comparison),
        methods=comparison.tables,
        certificate=structure_tables.certificate(comparison),
        levels=structure_tables.levels(comparison),
        traces=[_trace_picture(comparison, against) for against in ("steps", "seconds")],
        forests=_forests(comparison, shown),
        latents=[_latents(comparison, *pair) for pair in pairs(comparison) if _has_units(comparison)],
        khats=_khats(comparison),
        settings=_settings(comparison),
        versions=[*versions().items(), ("system", f"{platform.system()} {platform.machine()}")],
        series=len(COLOURS),
        dash=DASH,
    )


@cache
def _page() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["typeset"] = typeset
    return environment.get_template("report.html.j2")


def _subtitle(comparison: Comparison) -> str:
    level = comparison.level
    parts = [several(comparison.unconstrained_dim, "unconstrained parameter")]
    if level is not None:
        parts.insert(0, f"{several(level.num_units, 'unit')} of {level.name}")
    seeds = comparison.seeds
    parts.append(f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}")
    if comparison.reference is not None:
        parts.append(f"against {comparison.reference.called}")
    return ", ".join(parts)


# ---- Pictures ----------------------------------------------------------------------------------------------


def _trace_picture(comparison: Comparison, against: Any) -> PageFigure:
    drawn = [(n, row) for n, row in enumerate(comparison.rows) if row.curve is not None]
    ends = "; ".join(f"{row.method} {plus_minus(row.elbo, row.elbo_se)}" for _, row in drawn) or "none"
    title = f"ELBO against {against}"
    figure = plots.elbo_trace(comparison, against, legend=False)
    keys = [
        Key(row.method, number, " ".join(f"{1.6 * part:g}" for part in DASHES[number % len(DASHES)]))
        for number, row in drawn
    ]
    if drawn:
        keys.append(Key("best final ELBO", None, is_thin=True))
    caption = "Estimates of single steps, smoothed over 2 % of them." if against == "steps" else ""
    return _picture(
        figure, f"elbo-{against}", title, f"Lines by method. Final ELBOs, nats: {ends}.", caption, keys
    )


def _forests(comparison: Comparison, shown: Intervals) -> list[PageFigure]:
    parameters = {declaration.name for declaration in comparison.model.program.parameters}
    pictures = []
    for has_units, name in ((False, "globals"), (True, "units")):
        part = shown.only(has_units=has_units)
        if not part.panels or not part.samples:
            continue
        names = [panel.name for panel in part.panels]
        kind = "Globals" if parameters.issuperset(names) else "Variables"
        title = f"{'Some units' if has_units else kind}: {', '.join(names)}"
        keys = [Key(label, number) for label, number in part.samples]
        pictures.append(
            _picture(
                plots.forest(part, legend=False), f"forest-{name}", title, _medians(part),
                "Medians with 50 and 90 % intervals on the program's own scale.", keys,
            )
        )  # fmt: skip
    return pictures


def _medians(shown: Intervals) -> str:
    """What a forest shows of its first rows, for readers who don't see it."""
    told = []
    for panel in shown.panels:
        for label, quantiles in zip(panel.labels, panel.quantiles, strict=True):
            values = "; ".join(
                f"{name} {q[2]:.3g} ({q[0]:.3g} to {q[4]:.3g})"
                for (name, _), q in zip(shown.samples, quantiles, strict=True)
            )
            told.append(f"{label}: {values}")
    more = f" And {len(told) - 6} more." if len(told) > 6 else ""
    return f"Medians and 90 % intervals. {'. '.join(told[:6])}.{more}"


def _has_units(comparison: Comparison) -> bool:
    return comparison.level is not None and comparison.level.block > 0 and comparison.level.num_units > 0


def _latents(comparison: Comparison, of: RowMarginals, against: RowMarginals) -> PageFigure:
    found = agreements(comparison, of, against, points=1500)
    assert comparison.level is not None
    drawn, units = found[0].means.shape[1], comparison.level.num_units
    caption = " ".join(_agreement(latent, of.label, against.label) for latent in found)
    if drawn < units:
        caption += f" {count(drawn)} of {count(units)} units are drawn."
    if len(found) < comparison.level.block:
        caption += f" The first {len(found)} of {comparison.level.block} latents of a unit are drawn."
    number = "reference" if against.number is None else "fvi"
    title = f"{of.label} against {against.label}, unit by unit"
    keys = [Key("both the same", None, is_thin=True)]
    return _picture(plots.latents(found, of, against), f"latents-{number}", title, caption, caption, keys)


def _agreement(latent: Agreement, of: str, against: str) -> str:
    low, high = np.quantile(latent.ratio, (0.05, 0.95))
    return (
        f"{latent.label}: means of {of} and {against} differ by {fixed(float(np.median(latent.error)), 3)} sds in the "
        f"median unit and {fixed(float(latent.error.max()), 2)} at most; in nine of ten units the sd of {of} is "
        f"{fixed(float(low), 3)} to {fixed(float(high), 3)} times that of {against}."
    )


def _khats(comparison: Comparison) -> PageFigure | None:
    known = [
        (row.method, row.khat) for row in comparison.rows if row.khat is not None and np.isfinite(row.khat)
    ]
    if not known:
        return None
    told = "; ".join(f"{name} {fixed(khat, 2)}" for name, khat in known)
    return _picture(
        plots.khats(comparison), "khat", "Pareto k-hat by method", f"k-hat: {told}. Limit 0.7.", "", ()
    )


def _picture(
    figure: Figure, name: str, title: str, description: str, caption: str, keys: Sequence[Key]
) -> PageFigure:
    return PageFigure(title, Markup(inline_svg(figure, name, title, description)), caption, tuple(keys))


# ---- Settings ----------------------------------------------------------------------------------------------


def _settings(comparison: Comparison) -> list[tuple[str, str]]:
    model = comparison.model
    shapes = ", ".join(f"{name} {_size(value)}" for name, value in model.data.items())
    found = [
        ("methods", ", ".join(row.method for row in comparison.rows)),
        ("seeds", ", ".join(str(seed) for seed in comparison.seeds)),
        *((name.replace("_", " "), str(value)) for name, value in asdict(comparison.options).items()),
        ("program", f"{model.program.name}, digest {model.program.digest}"),
        ("data", shapes or "none"),
        ("engine", model.engine),
    ]
    if comparison.reference is not None:
        chains, draws, _ = comparison.reference.theta.shape
        found.append(("reference", f"{comparison.reference.name}, {chains} chains of {draws} draws"))
    return found


def _size(value: Any) -> str:
    """A single integer itself, the shape of anything larger."""
    if isinstance(value, tuple | list):
        return f"({len(value)} parts)"
    array = np.asarray(value)
    return f"= {array}" if not array.shape else f" {TIMES} ".join(str(n) for n in array.shape)
