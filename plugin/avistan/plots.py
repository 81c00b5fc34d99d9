"""Pictures of a comparison: ELBO traces and a forest of intervals. Each function returns a matplotlib Figure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .compare import Comparison
from .fit import Fit

FloatArray = npt.NDArray[np.float64]

# Okabe and Ito's palette, which colour-blind readers can tell apart; black is the reference's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
REFERENCE_COLOUR = "#000000"
_DASHES: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0, ()),
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (6, 1.5, 1, 1.5)),
)
_GREY = "#666666"
_INTERVALS = ((0.05, 0.95, 1.1), (0.25, 0.75, 3.2))  # from, to, line width in points
_SMOOTH_SHARE = 0.01  # of all steps, half the window over which a trace is averaged
_MAX_ROWS, _MAX_PANELS = 16, 12  # of a forest


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG at 150 dots per inch."""
    figure.savefig(path, dpi=150, format="png", metadata={"Software": "avistan"})


def elbo_trace(comparison: Comparison, against: Literal["steps", "seconds"] = "steps") -> Figure:
    """ELBO of every method while it trained, smoothed; below, the last nats before the best.

    Args:
        against: "steps", or "seconds" of training (compilation and the shared start are left out).
    """
    traces = [_trace(row.method, row.fit, against) for row in comparison.rows if row.fit is not None]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    if not traces:
        figure.text(0.5, 0.5, "no method was fitted", ha="center", color=_GREY)
        return figure
    best = max(trace.elbo for trace in traces)
    whole, zoom = _ranges(traces, best)
    zoomed = (whole[1] - whole[0]) > 4 * (zoom[1] - zoom[0])
    panels = figure.subplots(2, 1, sharex=True) if zoomed else [figure.subplots()]
    for axes, (low, high) in zip(panels, (whole, zoom) if zoomed else (whole,), strict=True):
        for number, trace in enumerate(traces):
            axes.add_line(Line2D(trace.x, trace.y, zorder=3, **_style(number)))
        axes.axhline(best, color=_GREY, linewidth=0.8, zorder=1)
        axes.set_ylim(low, high)
        _plain(axes)
    panels[0].set_ylabel("ELBO, nats")
    if zoomed:
        panels[1].set_ylabel("near the best, nats")
    panels[-1].set_xlabel("step" if against == "steps" else "seconds of training, after compilation")
    panels[-1].set_xlim(0, max(float(trace.x[-1]) for trace in traces))
    handles = [Line2D([], [], label=trace.label, **_style(number)) for number, trace in enumerate(traces)]
    handles.append(Line2D([], [], color=_GREY, linewidth=0.8, label="best final ELBO"))
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
    return figure


def forest(comparison: Comparison, *, draws: int = 2000, units: int = 6) -> Figure:
    """Medians with 50 and 90 % intervals of globals and some units' latents, constrained, for all methods.

    Of very many parameters the first ones are shown.

    Args:
        draws: of every method.
        units: entries shown of each parameter with an entry per unit, spread evenly.
    """
    fits = [(row.method, row.fit) for row in comparison.rows if row.fit is not None]
    if not fits:
        figure = Figure(figsize=(6.4, 1.5))
        figure.text(0.5, 0.5, "no method was fitted", ha="center", color=_GREY)
        return figure
    model = fits[0][1].model
    samples = [
        (name, _constrained(fit, fit.unconstrained_draws(draws)[0]), _colour(n))
        for n, (name, fit) in enumerate(fits)
    ]
    if comparison.reference is not None:
        theta = comparison.reference.theta.reshape(-1, model.dim)
        samples.insert(0, (comparison.reference.name, _constrained(fits[0][1], theta), REFERENCE_COLOUR))
    level = next((fit.level for _, fit in fits if fit.level is not None), None)
    local = () if level is None else level.latents
    drawn = samples[0][1]
    named = [d.name for d in model.program.parameters if d.name in drawn and drawn[d.name].size]
    names = [name for name in named if name not in local][: max(_MAX_PANELS - len(local), 1)]
    names += [name for name in named if name in local]
    sizes = {name: drawn[name][0].size for name in names}
    shown = {name: _spread(sizes[name], units if name in local else _MAX_ROWS) for name in names}
    return _forest_figure(shown, samples)


# ---- Traces ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trace:
    label: str
    x: FloatArray
    y: FloatArray  # smoothed
    elbo: float  # the final estimate


def _trace(method: str, fit: Fit, against: str) -> _Trace:
    steps = np.arange(1, len(fit.trace.elbo) + 1, dtype=float)
    x = steps if against == "steps" else np.interp(steps, fit.trace.chunk_steps, fit.trace.seconds)
    label = f"{method}: {fit.elbo:.2f} ± {fit.elbo_se:.2f}".replace("-", "\N{MINUS SIGN}")
    return _Trace(label, x, _smooth(fit.trace.elbo), fit.elbo if np.isfinite(fit.elbo) else -np.inf)


def _smooth(values: FloatArray) -> FloatArray:
    """Running mean under a bell-shaped window; what is not finite is left out."""
    half = max(12, int(_SMOOTH_SHARE * len(values)))
    window = np.hanning(2 * half + 3)[1:-1]
    finite = np.isfinite(values)
    padded = np.pad(np.where(finite, values, 0.0), half), np.pad(finite.astype(float), half)
    sums, weights = (np.convolve(part, window, mode="valid") for part in padded)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(weights > 0, sums / weights, np.nan))


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
    margin = max(0.06 * (high - low), 0.5 * wobble, 0.02)
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

_Sample = tuple[str, dict[str, FloatArray], str]


def _constrained(fit: Fit, theta: FloatArray) -> dict[str, FloatArray]:
    values, _ = fit.model.constrain(theta, transformed_parameters=False, generated_quantities=False)
    return {name: np.asarray(v, dtype=float) for name, v in values.items() if v.dtype.kind in "fiu"}


def _spread(total: int, limit: int) -> list[int]:
    """At most `limit` of the numbers below `total`, evenly."""
    return [int(i) for i in np.unique(np.linspace(0, total - 1, min(limit, total)).round())]


def _forest_figure(shown: dict[str, list[int]], samples: list[_Sample]) -> Figure:
    rows = [len(places) for places in shown.values()]
    row_height = 0.1 + 0.085 * len(samples)
    figure = Figure(figsize=(6.4, 0.8 + sum(rows) * row_height + 0.35 * len(rows)), layout="constrained")
    panels = figure.subplots(len(shown), 1, height_ratios=rows, squeeze=False)[:, 0]
    for axes, (name, places) in zip(panels, shown.items(), strict=True):
        _forest_panel(axes, name, places, samples)
    handles = [Line2D([], [], color=colour, linewidth=3.2, label=method) for method, _, colour in samples]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(samples), frameon=False, fontsize=9)
    panels[-1].set_xlabel("median, 50 % and 90 % intervals, on the program's own scale", fontsize=9)
    return figure


def _forest_panel(axes: Axes, name: str, places: list[int], samples: list[_Sample]) -> None:
    offsets = (np.arange(len(samples)) - (len(samples) - 1) / 2) * 0.62 / max(len(samples) - 1, 1)
    for row, flat in enumerate(places):
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color="#f2f2f2", linewidth=0, zorder=0)
        for offset, (_, values, colour) in zip(offsets, samples, strict=True):
            column = values[name].reshape(len(values[name]), -1)[:, flat]
            for low, high, width in _INTERVALS:
                axes.plot(
                    np.quantile(column, (low, high)),
                    [row + offset] * 2,
                    color=colour,
                    linewidth=width,
                    solid_capstyle="butt",
                    zorder=2,
                )
            marker: dict[str, Any] = {"color": "white", "markeredgecolor": colour, "markersize": 3.2}
            axes.plot(np.median(column), row + offset, "o", zorder=3, **marker)
    shape = samples[0][1][name].shape[1:]
    axes.set_yticks(range(len(places)), [_label(name, shape, flat) for flat in places], fontsize=8.5)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=8.5)
    _plain(axes)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _label(name: str, shape: tuple[int, ...], flat: int) -> str:
    """`a[2,3]`, counted from 1 as in Stan."""
    return f"{name}[{','.join(str(i + 1) for i in np.unravel_index(flat, shape))}]" if shape else name


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x" if axes.get_ylabel() else "both", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def _style(number: int) -> dict[str, Any]:
    return {"color": _colour(number), "linestyle": _DASHES[number % len(_DASHES)], "linewidth": 1.6}


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
