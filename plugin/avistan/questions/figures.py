"""Figures of units."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avistan.pictures.house_style import BAND, COLOURS, GRID, MUTED, WIDTH, styled
from avistan.pictures.notebook_figure import NotebookFigure
from avistan.questions.shrinkage import Shrinkage
from avistan.runtime.types import FloatArray

_NAMED = 40  # units that have a line of their own with their number
_PAGE = 0.155  # inches for each of these
_FEW = 400  # points that can be drawn larger


@styled
def caterpillar(name: str, level: str, draws: FloatArray) -> Figure:
    """Means with 50 % and 90 % intervals of units (S, N), in the order of their means; dashed: the mean of all."""
    low, lower, upper, high = np.quantile(draws, [0.05, 0.25, 0.75, 0.95], axis=0)
    mean = draws.mean(axis=0)
    order = np.argsort(mean, kind="stable")
    place = np.arange(1, len(order) + 1)
    named = len(order) <= _NAMED
    height = 1.0 + _PAGE * len(order) if named else 3.4
    figure = NotebookFigure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    if named:
        axes.hlines(place, low[order], high[order], color=COLOURS[0], linewidth=1.1)
        axes.hlines(place, lower[order], upper[order], color=COLOURS[0], linewidth=3.2)
        axes.plot(mean[order], place, "o", color=COLOURS[0], markersize=3.8, markeredgecolor="white")
        axes.axvline(mean.mean(), color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set_yticks(place, [str(unit + 1) for unit in order])
        axes.set_ylim(0.3, len(order) + 0.7)
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_xlabel(f"{name}: mean, 50 % and 90 %")
        axes.set_ylabel(f"unit of {level}")
    else:
        axes.fill_between(
            place, low[order], high[order], color=COLOURS[0], alpha=0.18, linewidth=0, label="90 %"
        )
        axes.fill_between(
            place, lower[order], upper[order], color=COLOURS[0], alpha=0.35, linewidth=0, label="50 %"
        )
        axes.plot(place, mean[order], color=COLOURS[0], linewidth=1.4, label="mean")
        axes.axhline(mean.mean(), color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set_xlim(1, len(order))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.set_xlabel(f"{len(order)} units of {level}, by their means")
        axes.set_ylabel(name)
        axes.legend(frameon=False, loc="upper left")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@styled
def shrinkage_plot(found: Shrinkage, level: str) -> Figure:
    """Posterior sd of each unit, in sds of the population, against its mean."""
    figure = NotebookFigure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    mean, ratio = found.table["mean"], found.table["sd_ratio"]
    few = len(mean) <= _FEW
    axes.axhspan(1, max(1.15, float(ratio.max()) * 1.05), color=BAND, zorder=0)
    axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.plot(
        mean,
        ratio,
        "o",
        color=COLOURS[0],
        markersize=4.2 if few else 2.4,
        alpha=0.75 if few else 0.4,
        markeredgewidth=0,
    )
    axes.annotate(
        "a unit's own data say nothing",
        (0.01, 1),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color=MUTED,
        fontsize=8.5,
    )
    axes.set_ylim(0, max(1.15, float(ratio.max()) * 1.05))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"posterior mean of {found.name}, units of {level}")
    axes.set_ylabel("posterior sd / sd of units")
    axes.set_title(f"shrinkage {100 * found.eta_shrinkage:.0f} %, pooling factor {found.pooling:.2f}")
    return figure
