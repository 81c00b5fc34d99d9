"""ArviZ's ECDF picture of a calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from avistan.calibration.ranks import Calibration
from avistan.runtime.types import IntArray

_PASSED, _FAILED = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermillion
_GREY = "#666666"


def ecdf(calibration: Calibration) -> Figure:
    """Difference of each entry's rank ECDF from uniformity (`arviz_plots.plot_ecdf_pit`) within its envelope."""
    import arviz_plots
    from matplotlib import pyplot

    columns = min(4, len(calibration.entries))
    rows = -(-len(calibration.entries) // columns)
    hidden = dict.fromkeys(("suspicious_points", "p_value_text", "xlabel", "ylabel"), False)
    visuals: dict[Any, Any] = {"ecdf_lines": {"color": _PASSED}, **hidden}
    drawn = arviz_plots.plot_ecdf_pit(
        calibration.to_datatree(),
        visuals=visuals,
        backend="matplotlib",
        col_wrap=columns,
        figure_kwargs={"figsize": (2.6 * columns, 0.6 + 2.0 * rows), "layout": "constrained"},
    )
    figure: Figure = drawn.viz["figure"].item()
    pyplot.close(figure)  # pyplot forgets it; the figure lives on
    band = calibration.envelope
    edges = np.concatenate([[0.0], band.edges, [1.0]])
    lower, upper = (np.concatenate([[0.0], part, [1.0]]) - edges for part in (band.lower, band.upper))
    reach = 1.1 * max(
        -lower.min(),
        upper.max(),
        *(_furthest(entry.ranks, calibration.num_draws) for entry in calibration.entries),
    )
    panels: list[Any] = [axes for axes in figure.axes if axes.lines]
    for axes, entry in zip(panels, calibration.entries, strict=True):
        axes.fill_between(edges, lower, upper, color=_GREY, alpha=0.2, linewidth=0, zorder=0)
        axes.set_ylim(-reach, reach)
        axes.set_xlim(0, 1)
        axes.tick_params(labelsize=8, labelbottom=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(
            entry.name if entry.passed else f"{entry.name}: {entry.shape}",
            fontsize=9,
            color="black" if entry.passed else _FAILED,
        )
        if not entry.passed:
            for line in axes.lines[1:]:
                line.set_color(_FAILED)
    figure.supxlabel("rank of the true value, share of the posterior draws", fontsize=9)
    figure.supylabel("ECDF minus uniform", fontsize=9)
    return figure


def _furthest(ranks: IntArray, num_draws: int) -> float:
    share = np.sort((ranks + 0.5) / (num_draws + 1))
    steps = np.arange(len(share) + 1) / len(share)
    return float(max(np.abs(steps[1:] - share).max(), np.abs(steps[:-1] - share).max()))
