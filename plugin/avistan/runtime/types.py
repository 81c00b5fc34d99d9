"""Names for the types that annotations share. Those of arrays load numpy when they are first used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

StrPath = str | os.PathLike[str]

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]
    BoolArray = npt.NDArray[np.bool_]
    Rng = np.random.Generator


def __getattr__(name: str) -> Any:
    if name not in ("FloatArray", "IntArray", "BoolArray", "Rng"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import numpy as np
    from numpy.typing import NDArray

    types = {"FloatArray": NDArray[np.float64], "IntArray": NDArray[np.int64], "BoolArray": NDArray[np.bool_]}
    return types.get(name, np.random.Generator)
