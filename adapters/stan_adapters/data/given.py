"""Values as files hold them, where that differs from what Stan writes: boxed numbers, empty entries, numbers of R."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stan_adapters.data.checks import Misfit, declared_dims
from stan_adapters.files.r_dump import RNumber
from stan_adapters.language.program import StanType


def as_declared(raw: object, stan_type: StanType, env: Mapping[str, Any]) -> tuple[object, bool]:
    """A value in the shape that its declaration asks for, where the file could not, or did not, say it.

    Args:
        env: the data declared before it.

    Returns: the value, and whether it was a list of one number for a single one, as jsonlite of R writes numbers.
        Whatever else does not fit is left for `checks` to refuse.
    """
    try:
        dims = declared_dims(stan_type, env)
    except Misfit:
        return raw, False
    if stan_type.is_tuple or stan_type.is_complex:
        return raw, False
    if not dims and isinstance(raw, list | tuple | np.ndarray) and np.shape(raw) == (1,):
        return raw[0], True
    if isinstance(raw, RNumber) and dims == (1,):
        return [raw], False
    if 0 in dims and _is_empty(raw):
        return [], False
    return raw, False


def _is_empty(raw: object) -> bool:
    """Whether a value is one of the ways of files to say that there is nothing: `{}`, `0`, `[[]]`."""
    if isinstance(raw, Mapping):
        return not raw
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return raw == 0
    while isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    return isinstance(raw, list) and not raw
