"""Pictures of a comparison. Each function returns a matplotlib Figure, for PNG (`save`) and for pages (`svg`).

Figures are 4.6 inches wide, so that their letters stay readable on a phone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from avistan.comparison.elbo_curves import Curve
from avistan.comparison.results import Comparison
from avistan.comparison.rows import Row
from avistan.comparison.unit_agreement import Agreement, RowMarginals
from avistan.pictures.house_style import BAND, COLOURS, DASHES, GRID, INK, MUTED, PAPER, WIDTH, styled
from avistan.pictures.notebook_figure import NotebookFigure
from avistan.report.intervals import Intervals, Panel, intervals
from avistan.report.sentences import KHAT_USABLE
from avistan.runtime.types import FloatArray

_HIGHEST_KHAT = 3.0  # larger ones are drawn as arrows: they mean the same
_FEW = 200  # points that can be drawn larger
_LEAST_RANGE = 1.0  # nats that an axis of ELBOs spans, so that noise does not look like news
_MINUS = "\N{MINUS SIGN}"
_MARKERS = ("o", "s", "D")
_INTERVALS = ((0, 4, 1.1), (1, 3, 3.2))  # quantiles' places from, to, line width in points


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG at 150 dots per inch."""
    figure.savefig(path, dpi=150, format="png", metadata={"Software": "avistan"})


@styled
def elbo_trace(
    comparison: Comparison, against: Literal["steps", "seconds"] = "steps", *, legend: bool = True
) -> Figure:
    """ELBO of every method while it trained, smoothed; below, the last nats before the best.

    Args:
        against: "steps", or "seconds" of training (compilation and the shared start are left out).
        legend: in the figure; pages write their own.
    """
    traces = [
        _trace(number, row, row.curve, against)
        for number, row in enumerate(comparison.rows)
        if row.curve is not None
    ]
    if not traces:
        return _empty("no method was fitted")
    figure = NotebookFigure(figsize=(WIDTH, 3.7), layout="constrained")
    best = max(trace.elbo for trace in traces)
    whole, zoom = _ranges(traces, best)
    zoomed = (whole[1] - whole[0]) > 4 * (zoom[1] - zoom[0])
    panels = figure.subplots(2, 1, sharex=True) if zoomed else [figure.subplots()]
    for axes, (low, high) in zip(panels, (whole, zoom) if zoomed else (whole,), strict=True):
        for trace in traces:
            axes.add_line(Line2D(trace.x, trace.y, zorder=3, **_style(trace.number)))
        axes.axhline(best, color=MUTED, linewidth=0.8, zorder=1)
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(MaxNLocator(4 if zoomed else 6))
        _plain(axes)
    panels[0].set_title("ELBO, nats")
    if zoomed:
        panels[1].set_title("near the best, nats")
    panels[-1].set_xlabel("step" if against == "steps" else "seconds of training, after compilation")
    panels[-1].set_xlim(0, max(float(trace.x[-1]) for trace in traces))
    panels[-1].xaxis.set_major_locator(MaxNLocator(5))
    if legend:
        handles = [Line2D([], [], label=trace.label, **_style(trace.number)) for trace in traces]
        handles.append(Line2D([], [], color=MUTED, linewidth=0.8, label="best final ELBO"))
        _legend(figure, handles)
    return figure


@styled
def forest(of: Comparison | Intervals, *, legend: bool = True) -> Figure:
    """Medians with 50 and 90 % intervals, for all methods and the reference."""
    found = of if isinstance(of, Intervals) else intervals(of)
    if not found.samples or not found.panels:
        return _empty("no method was fitted" if not found.samples else "nothing to show")
    rows = [len(panel.labels) for panel in found.panels]
    row_height = 0.13 + 0.085 * len(found.samples)
    height = 0.3 + sum(rows) * row_height + 0.3 * len(rows) + (0.25 * len(found.samples) if legend else 0)
    figure = NotebookFigure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(rows), 1, height_ratios=rows, squeeze=False)[:, 0]
    for axes, panel in zip(grid, found.panels, strict=True):
        _forest_panel(axes, panel, found.samples)
    if legend:
        handles = [
            Line2D([], [], color=_sample_colour(number), linewidth=3.2, label=name)
            for name, number in found.samples
        ]
        _legend(figure, handles)
    return figure


@styled
def latents(found: Sequence[Agreement], of: RowMarginals, against: RowMarginals) -> Figure:
    """Means and sds of units' latents, one row of panels for each latent; on the diagonal both agree."""
    figure = NotebookFigure(figsize=(WIDTH, 0.35 + 2.15 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), 2, squeeze=False)
    for row, latent in zip(panels, found, strict=True):
        for axes, what, (x, y) in zip(row, ("mean", "sd"), (latent.means, latent.sds), strict=True):
            colour = MUTED if of.number is None else COLOURS[of.number % len(COLOURS)]
            both = np.concatenate([x, y])
            margin = 0.05 * (np.ptp(both) or 1.0)
            limits = (both.min() - margin, both.max() + margin)
            axes.plot(limits, limits, color=MUTED, linewidth=0.8, zorder=1)
            few = len(x) <= _FEW
            look: dict[str, Any] = {"markersize": 4.5 if few else 2.6, "alpha": 0.8 if few else 0.55}
            axes.plot(x, y, "o", color=colour, markeredgewidth=0, zorder=2, **look)
            axes.set(xlim=limits, ylim=limits)
            axes.set_box_aspect(1)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(4))
            _plain(axes)
            axes.set_title(f"{what} of {_shortened(latent.label, 16)}")
    for axes in panels[-1]:
        axes.set_xlabel(_shortened(against.label, 24))
    for axes in panels[:, 0]:
        axes.set_ylabel(_shortened(of.label, 24))
    return figure


@styled
def khats(comparison: Comparison) -> Figure:
    """Pareto k-hat of all parameters together by method, against the value below which weights are usable."""
    rows = [(n, row.method, row.khat) for n, row in enumerate(comparison.rows) if row.khat is not None]
    known = [(number, name, khat) for number, name, khat in rows if np.isfinite(khat)]
    if not known:
        return _empty("no k-hat is known")
    figure = NotebookFigure(figsize=(WIDTH, 0.65 + 0.46 * len(known)), layout="constrained")
    axes = figure.subplots()
    largest, smallest = max(khat for _, _, khat in known), min(khat for _, _, khat in known)
    high = min(max(largest, 1.0), _HIGHEST_KHAT) * 1.1
    low = min(0.0, 1.1 * smallest)
    axes.axvline(KHAT_USABLE, color=MUTED, linewidth=0.8, zorder=1)
    axes.annotate(
        f"{KHAT_USABLE}",
        (KHAT_USABLE, 1),
        (0, 2),
        ("data", "axes fraction"),
        "offset points",
        ha="center",
        va="bottom",
    )
    for place, (number, name, khat) in enumerate(known):
        colour, end = COLOURS[number % len(COLOURS)], min(khat, _HIGHEST_KHAT * 1.05)
        axes.plot((low, end), (place, place), color=colour, linewidth=1.6, zorder=2)
        marker = _marker(number) if khat <= _HIGHEST_KHAT else ">"
        axes.plot(end, place, marker, color=colour, markersize=6, zorder=3)
        written = f"{_shortened(name, 36)}: {f'{khat:.2f}'.replace('-', _MINUS)}"
        box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}
        axes.annotate(
            written, (low, place), (2, 4), textcoords="offset points", va="bottom", bbox=box, zorder=2
        )
    axes.set(xlim=(low, high), ylim=(len(known) - 0.6, -0.8), yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("Pareto k-hat")
    _plain(axes)
    axes.spines["left"].set_visible(False)
    return figure


# ---- Traces ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trace:
    number: int  # of the row, which chooses the colour
    label: str
    x: FloatArray
    y: FloatArray  # smoothed
    elbo: float  # the final estimate


def _trace(number: int, row: Row, curve: Curve, against: str) -> _Trace:
    x = curve.steps if against == "steps" else curve.seconds
    elbo = -np.inf if row.elbo is None else row.elbo
    label = f"{row.method}: {elbo:.2f} ± {row.elbo_se or np.nan:.2f}".replace("-", _MINUS)
    return _Trace(number, label, x, curve.elbo, elbo)


def _ranges(traces: list[_Trace], best: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits that show where the methods end, whatever the start was; and limits near the best end."""
    ends = np.array([[trace.elbo, _quantile(trace.y[len(trace.y) // 2 :], 0.5)] for trace in traces])
    tops = np.array([_quantile(trace.y, 0.99) for trace in traces])
    starts = np.array([_quantile(trace.y, 0.05) for trace in traces])
    ends, tops, starts = (values[np.isfinite(values)] for values in (ends, tops, starts))
    if not np.isfinite(best) or not tops.size:
        return (-1.0, 1.0), (-1.0, 1.0)
    wobble = max(_wobble(trace) for trace in traces if trace.elbo == best)
    reach = max(6 * wobble, 1.0)
    low, high = ends.min(), max(best, tops.max())
    below = max(low - starts.min(), 0.0)  # of the start, as much as leaves the ends readable
    low -= min(below, 1.5 * max(high - low, reach))
    margin = max(0.06 * (high - low), 0.5 * wobble, 0.5 * (_LEAST_RANGE - (high - low)))
    return (low - margin, high + margin), (best - 2 * reach, best + reach)


def _wobble(trace: _Trace) -> float:
    """Half the middle 80 % of the last tenth of a trace."""
    tail = trace.y[-max(2, len(trace.y) // 10) :]
    low, high = _quantile(tail, 0.1), _quantile(tail, 0.9)
    return (high - low) / 2 if np.isfinite(high - low) else 0.0


def _quantile(values: FloatArray, at: float) -> float:
    kept = values[np.isfinite(values)]
    return float(np.quantile(kept, at)) if kept.size else float("nan")


# ---- Forest ------------------------------------------------------------------------------------------------


def _forest_panel(axes: Axes, panel: Panel, samples: Sequence[tuple[str, int | None]]) -> None:
    offsets = (np.arange(len(samples)) - (len(samples) - 1) / 2) * 0.62 / max(len(samples) - 1, 1)
    for place, quantiles in enumerate(panel.quantiles):
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color=BAND, linewidth=0, zorder=0)
        for offset, (_, number), values in zip(offsets, samples, quantiles, strict=True):
            colour, y = _sample_colour(number), place + offset
            for low, high, width in _INTERVALS:
                axes.plot(
                    values[[low, high]],
                    (y, y),
                    color=colour,
                    linewidth=width,
                    solid_capstyle="butt",
                    zorder=2,
                )
            marker = "o" if number is None else _marker(number)
            axes.plot(values[2], y, marker, color=PAPER, markeredgecolor=colour, markersize=3.2, zorder=3)
    axes.set_yticks(range(len(panel.labels)), [_shortened(label, 20) for label in panel.labels])
    axes.set_ylim(len(panel.labels) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _plain(axes, "x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


# ---- Manners -----------------------------------------------------------------------------------------------


def _empty(why: str) -> Figure:
    figure = NotebookFigure(figsize=(WIDTH, 1.2))
    figure.text(0.5, 0.5, why, ha="center", color=MUTED)
    return figure


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), 60 // (longest + 6)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False)


def _plain(axes: Axes, grid: Literal["both", "x"] = "both") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _style(number: int) -> dict[str, Any]:
    dashes = DASHES[number % len(DASHES)]
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": (0, dashes or None),
        "linewidth": 1.6,
    }


def _sample_colour(number: int | None) -> str:
    return INK if number is None else COLOURS[number % len(COLOURS)]


def _marker(number: int) -> str:
    return _MARKERS[number // len(COLOURS) % len(_MARKERS)]


def _shortened(text: str, most: int) -> str:
    """At most so many letters, the middle left out."""
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[head + 1 - most :]}"
