"""What draws of a posterior take of memory, disk and time: what would never end is refused before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from avistan.fitting.budget import seconds_of_gradients
from avistan.posterior.draws import numbers_per_draw
from avistan.runtime.errors import FitError
from avistan.runtime.limits import check_memory, check_time, whole_number
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.files.memory import in_bytes

_DOUBLE = 8
_DRAW = 2  # arrays of a posterior's draws: in batches and joined


def check_draws(
    model: BoundModel,
    draws: object,
    *,
    chains: int = 1,
    folder: Path | None = None,
    advice: str = "Give fewer draws.",
) -> int:
    """That draws of all variables can be held in memory, or written to a folder's disk, and made within a month.

    Args:
        draws: of each chain.
        folder: where they are written as they are made; None where they are held.

    Returns: the number of draws.

    Raises:
        FitError: no such number, or draws that take too much, with what they would take.
    """
    draws = whole_number("draws", draws)
    of = f"draws={draws}" + (f" of {chains} chains" if chains > 1 else "")
    check_time(of, seconds_of_gradients(model, draws * chains), "Give fewer draws.")
    bytes_in_all = _DOUBLE * draws * chains * sum(numbers_per_draw(model))
    if folder is None:
        check_memory(of, _DRAW * bytes_in_all, advice)
        return draws
    above = folder.resolve()
    while not above.exists():
        above = above.parent
    free = shutil.disk_usage(above).free
    if bytes_in_all / 2 > free:  # numbers are compressed, hardly to less than a half
        raise FitError(
            f"{of} would take about {in_bytes(bytes_in_all)} in {folder}, and {in_bytes(free)} are free there. Give "
            "fewer draws, or a place with more room."
        )
    return draws
