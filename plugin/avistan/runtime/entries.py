"""Entries of arrays: which of many are shown, and what they are called."""

from __future__ import annotations

import numpy as np


def evenly(total: int, most: int) -> list[int]:
    """At most `most` of the numbers below `total`, evenly spread.

    Example:
        >>> evenly(10, 4)
        [0, 3, 6, 9]
    """
    return [int(i) for i in np.unique(np.linspace(0, total - 1, min(most, total)).round())]


def entry_label(name: str, shape: tuple[int, ...], flat: int) -> str:
    """An entry of a variable by its flat place, counted from 1 as in Stan; of a single number its name.

    Example:
        >>> entry_label("a", (2, 3), 5)
        'a[2,3]'
    """
    return f"{name}[{','.join(str(i + 1) for i in np.unravel_index(flat, shape))}]" if shape else name
