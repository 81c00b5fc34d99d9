"""The picture of a structure: which scores move when single blocks of parameters move."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from avistan.pictures.notebook_figure import NotebookFigure
from stan_adapters.structure.dependence import Dependence

_FLOOR, _CEILING = 1e-10, 1.0  # relative change: rounding, and as large as the score itself
_MAX_LABELS = 40


def dependence_plot(found: Dependence, title: str = "") -> Figure:
    """Rows moved, columns answer; white is no change. Units come first, then the other parameters."""
    count = len(found.labels)
    size = min(9.0, 3.4 + 0.16 * count)
    figure = NotebookFigure(figsize=(size + 1.0, size), layout="constrained")
    axes = figure.subplots()
    shown = np.ma.masked_less(np.clip(found.change, None, _CEILING), _FLOOR)
    blues = matplotlib.colormaps["Blues"].with_extremes(bad="white")
    image = axes.imshow(shown, norm=LogNorm(_FLOOR, _CEILING), cmap=blues, interpolation="nearest")
    rejected_rows, rejected_columns = np.nonzero(np.isnan(found.change))
    if rejected_rows.size:
        axes.scatter(rejected_columns, rejected_rows, marker="x", s=6, color="#999999", linewidths=0.5)
    step = -(-count // _MAX_LABELS)
    ticks = [i for i in range(count) if i >= found.num_units or i % step == 0]
    labels = [found.labels[i] for i in ticks]
    axes.set_xticks(ticks, labels, rotation=90, fontsize=7)
    axes.set_yticks(ticks, labels, fontsize=7)
    if 0 < found.num_units < count:
        for line in (axes.axvline, axes.axhline):
            line(found.num_units - 0.5, color="#333333", linewidth=0.8)
    axes.set_xlabel("scores that answer")
    axes.set_ylabel("parameters that move")
    if title:
        axes.set_title(title, fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.7)
    bar.set_label("relative change of the score (white: none)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure
