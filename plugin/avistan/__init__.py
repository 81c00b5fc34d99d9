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

from avistan.runtime.versions import __version__ as __version__

_HOME = {
    "Model": "model",
    "Fit": "fit",
    "FitOptions": "fitting.options",
    "FitOutcome": "fitting.outcome",
    "ProgressRecord": "runtime.progress",
    "Comparison": "comparison.results",
    "Reference": "comparison.references",
    "Calibration": "calibration.ranks",
    "WarmStart": "posterior.warm_start",
    "calibrate": "calibration.sbc",
    "load": "fit",
    "AvistanError": "runtime.errors",
    "models_root": "cli.examples",
}

if TYPE_CHECKING:
    from avistan.calibration.ranks import Calibration as Calibration
    from avistan.calibration.sbc import calibrate as calibrate
    from avistan.cli.examples import models_root as models_root
    from avistan.comparison.references import Reference as Reference
    from avistan.comparison.results import Comparison as Comparison
    from avistan.fit import Fit as Fit
    from avistan.fit import load as load
    from avistan.fitting.options import FitOptions as FitOptions
    from avistan.fitting.outcome import FitOutcome as FitOutcome
    from avistan.model import Model as Model
    from avistan.posterior.warm_start import WarmStart as WarmStart
    from avistan.runtime.errors import AvistanError as AvistanError
    from avistan.runtime.progress import ProgressRecord as ProgressRecord

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
