"""The house's style of figures: colours, sizes, fonts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Six hues that colour-blind readers can tell apart, each with a contrast above 3 on white; Okabe and Ito's, darker.
COLOURS = ("#0072b2", "#c8500a", "#00805c", "#a8487f", "#8a6a00", "#2a86bd")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.5), (1, 1), (6, 1.5, 1, 1.5))  # in line widths
INK, MUTED, GRID, BAND, PAPER = "#1d2024", "#5b626b", "#e1e4e8", "#f3f4f6", "#ffffff"

WIDTH = 4.6  # inches, so that letters stay readable on a phone
_STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.formatter.useoffset": False,
    "text.parse_math": False,
}


def styled[**P](draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A figure drawn in the house's style, whatever the user's settings are."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **kwargs)

    return drawn
