"""Missing entries of the arrays and columns that data come in: numpy's masks, pandas' NA, nulls of Arrow and Polars.

NaN of a plain array is a number of Stan; what a column marks as missing would become NaN, or anything, when it is read.
"""

from __future__ import annotations

import numpy as np


def missing_entries(raw: object) -> str:
    """What is missing, in words; empty where nothing is known to be."""
    if isinstance(raw, np.ma.MaskedArray):
        return "masked entries" if np.ma.is_masked(raw) else ""
    nulls = getattr(raw, "null_count", 0)  # a number of Arrow's arrays, a method of Polars'
    if count := nulls() if callable(nulls) else nulls:
        return f"{count} missing entries"
    dtype = getattr(raw, "dtype", None)
    if dtype is not None and not isinstance(dtype, np.dtype) and hasattr(raw, "isna"):
        missing = np.asarray(raw.isna())
        if missing.any():
            return f"a missing entry at [{int(np.argmax(missing)) + 1}]"
    return ""
