"""Results as files: comparison.json, posterior.nc and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stan_adapters.dependence import dependence
from stan_adapters.structure import Structure

from .compare import Comparison, Row
from .console import to_json
from .errors import FitError
from .model import Model
from .places import whole_file

COMPARISON, POSTERIOR = "comparison.json", "posterior.nc"
PICTURES = ("elbo_steps.png", "elbo_seconds.png", "forest.png")
REPORT = (COMPARISON, POSTERIOR, *PICTURES)

_WORTH_PACKING = 10_000  # numbers


def write_netcdf(tree: xr.DataTree, path: Path) -> None:
    """A DataTree as netCDF, which `arviz.from_netcdf` and `xarray.open_datatree` read.

    netCDF has no booleans (they become 0 and 1) and no complex numbers (they get a last dimension `part`: real, imag).
    """
    plain = tree.map_over_datasets(_without_exotic_types)
    plain.attrs = _plain_attrs(tree.attrs)
    packed = {
        group.path: {
            name: {"zlib": True, "complevel": 1}
            for name, v in group.data_vars.items()
            if v.size > _WORTH_PACKING
        }
        for group in plain.subtree
    }
    with whole_file(path) as file:
        plain.to_netcdf(
            file, engine="h5netcdf", encoding={place: names for place, names in packed.items() if names}
        )


def _without_exotic_types(dataset: xr.Dataset) -> xr.Dataset:
    variables = {}
    for name, variable in dataset.data_vars.items():
        if variable.dtype.kind == "b":
            variable = variable.astype(np.int8)
        elif variable.dtype.kind == "c":
            variable = xr.concat([variable.real, variable.imag], dim="part").transpose(..., "part")
            variable = variable.assign_coords(part=["real", "imag"])
        variables[name] = variable
    return xr.Dataset(variables, coords=dataset.coords, attrs=_plain_attrs(dataset.attrs))


def _plain_attrs(attrs: Any) -> dict[str, Any]:
    plain = {
        name: int(value) if isinstance(value, bool | np.bool_) else value for name, value in attrs.items()
    }
    return {name: "" if value is None else value for name, value in plain.items()}


def best_row(comparison: Comparison) -> Row:
    """The row whose posterior is written: the first amortized method, else the first with a fit.

    Raises:
        FitError: every method failed.
    """
    fitted = [row for row in comparison.rows if row.fit is not None]
    if not fitted:
        reasons = "; ".join(f"{row.method}: {row.reason}" for row in comparison.rows)
        raise FitError(f"no method could be fitted. {reasons or 'No method was named.'}")
    return next((row for row in fitted if row.fit is not None and row.fit.method.amortized), fitted[0])


def write_report(comparison: Comparison, folder: Path, draws: int = 1000) -> None:
    """Write the files named in `REPORT` to a folder.

    Raises:
        FitError: every method failed.
    """
    from . import plots

    fit = best_row(comparison).fit
    assert fit is not None
    (folder / COMPARISON).write_text(to_json(comparison.to_json()) + "\n")
    write_netcdf(fit.posterior(draws), folder / POSTERIOR)
    for name, figure in zip(
        PICTURES,
        (
            plots.elbo_trace(comparison),
            plots.elbo_trace(comparison, against="seconds"),
            plots.forest(comparison),
        ),
        strict=True,
    ):
        plots.save(figure, folder / name)


def write_dependence(model: Model, structure: Structure, path: Path, seed: int = 1) -> None:
    """A PNG of what depends on what.

    Raises:
        FitError: the place can't be written.
    """
    from . import plots
    from .dependence_plot import dependence_plot

    title = f"{structure.program}: {structure.verdict}"
    figure = dependence_plot(dependence(model.bound, structure, seed=seed), title)
    with whole_file(path) as file:
        plots.save(figure, file)
