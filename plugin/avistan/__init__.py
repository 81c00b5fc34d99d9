"""Amortized variational inference for existing Stan models.

    import avistan as avi

    model = avi.Model(stan_file="lsat.stan", data="lsat.json")
    print(model.inspect())
    fit = model.fit(seed=1)
    tree = fit.posterior()

Names are loaded when they are first used, so that the command line starts without JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Model": "model",
    "Fit": "fit",
    "FitOptions": "options",
    "FitOutcome": "outcome",
    "ProgressRecord": "progress",
    "Comparison": "compare",
    "Reference": "references",
    "Calibration": "calibration",
    "WarmStart": "warm_start",
    "calibrate": "sbc",
    "load": "fit",
    "AvistanError": "errors",
    "models_root": "_bundled",
}

if TYPE_CHECKING:
    from ._bundled import models_root as models_root
    from .compare import Comparison as Comparison
    from .errors import AvistanError as AvistanError
    from .fit import Fit as Fit
    from .fit import load as load
    from .model import Model as Model
    from .options import FitOptions as FitOptions
    from .outcome import FitOutcome as FitOutcome
    from .progress import ProgressRecord as ProgressRecord
    from .references import Reference as Reference
    from .sbc import calibrate as calibrate
    from .warm_start import WarmStart as WarmStart

__all__ = [
    "AvistanError",
    "Calibration",
    "Comparison",
    "Fit",
    "FitOptions",
    "FitOutcome",
    "Model",
    "ProgressRecord",
    "Reference",
    "WarmStart",
    "calibrate",
    "load",
    "models_root",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'avistan' has no attribute {name!r}; it has {', '.join(__all__)}")
    import gc
    from importlib import import_module

    collecting = gc.isenabled()
    gc.disable()  # of what is imported nothing is garbage, and a tenth of the time would go into looking
    try:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    finally:
        if collecting:
            gc.enable()


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
