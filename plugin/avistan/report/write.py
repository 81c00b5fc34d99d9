"""Results as files: the report, comparison.json, posterior.nc and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from avistan.comparison.results import Comparison
from avistan.comparison.rows import AUTO, Row
from avistan.files.outputs import check_room, whole_file
from avistan.model import Model
from avistan.posterior.datatree import to_datatree
from avistan.runtime.errors import FitError
from avistan.runtime.progress import begin_stage
from avistan.runtime.text import to_json
from stan_adapters.structure.dependence import dependence
from stan_adapters.structure.structure import Structure

PAGE, COMPARISON, POSTERIOR = "report.html", "comparison.json", "posterior.nc"
POSTERIOR_STORE = "posterior.zarr"  # of a fit too large for a file written at once
PICTURES = ("elbo_steps.png", "elbo_seconds.png", "forest.png")
REPORT = (PAGE, COMPARISON, POSTERIOR, *PICTURES)

_WORTH_PACKING = 10_000  # numbers


def write_netcdf(tree: xr.DataTree, path: Path) -> None:
    """A DataTree as netCDF, which `arviz.from_netcdf` and `xarray.open_datatree` read.

    netCDF has no booleans (they become 0 and 1) and no complex numbers (they get a last dimension `part`: real, imag).
    The file is made in memory, because HDF5 ends the process where a disk turns out to be full.

    Raises:
        FitError: the place can't be written.
        OSError: the disk is full; nothing is left behind.
    """
    begin_stage(f"writing {path.name}")
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
    encoding = {place: names for place, names in packed.items() if names}
    with (
        # Released, and no other view made: Python crashes over one that it collects with an error's frames.
        plain.to_netcdf(None, engine="h5netcdf", encoding=encoding) as content,
        whole_file(path) as file,
    ):
        check_room(file.parent, len(content), path.name)
        with file.open("wb") as opened:
            opened.write(content)


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
    """The row whose posterior is written: `auto`, else the first amortized one, avistan's first, or the first.

    Raises:
        FitError: every method failed.
    """
    done = [row for row in comparison.rows if not row.failed]
    if not done:
        reasons = "; ".join(f"{row.method}: {row.reason}" for row in comparison.rows)
        raise FitError(f"every method failed. {reasons or 'No method was named.'}")
    own = [row for row in done if row.fit is not None]
    own.sort(key=lambda row: (row.method != AUTO, not row.amortized))
    return (own or done)[0]


def row_posterior(comparison: Comparison, row: Row, draws: int) -> xr.DataTree:
    """Draws of a row as an ArviZ DataTree: of `auto` those that its fit hands out, else of the approximation."""
    if row.fit is not None:
        return row.fit.posterior(draws, resample="auto" if row.method == AUTO else "none")
    model, theta = comparison.model, row.draws(draws)
    values, _ = model.constrain(theta, seed=comparison.seed)
    lp, _ = model.log_density_gradient(theta)
    unit_size = None if comparison.level is None else comparison.level.name
    return to_datatree(
        model.program,
        model.data,
        values,
        sample_stats={"lp": lp},
        unit_size=unit_size,
        attrs={"method": row.method},
    )


def write_report(
    comparison: Comparison, folder: Path, draws: int = 1000, *, variables: Sequence[str] | None = None
) -> None:
    """Write the files named in `REPORT` to a folder: a page for reading, the rest for other programs and slides.

    Args:
        draws: of the posterior.
        variables: shown in the forest plots, such as "tau" or "theta[3]"; by default the program's parameters.

    Raises:
        FitError: every method failed, or the program has no such variable.
    """
    from avistan.report import figures as plots
    from avistan.report import page as report
    from avistan.report.intervals import intervals

    tree = row_posterior(comparison, best_row(comparison), draws)
    shown = intervals(comparison, variables=variables)
    (folder / PAGE).write_text(report.render(comparison, shown), encoding="utf-8")
    (folder / COMPARISON).write_text(to_json(comparison.to_json()) + "\n")
    write_netcdf(tree, folder / POSTERIOR)
    for name, figure in zip(
        PICTURES,
        (plots.elbo_trace(comparison), plots.elbo_trace(comparison, against="seconds"), plots.forest(shown)),
        strict=True,
    ):
        plots.save(figure, folder / name)


def write_dependence(model: Model, structure: Structure, path: Path, seed: int = 1) -> None:
    """A PNG of what depends on what.

    Raises:
        FitError: the place can't be written.
    """
    from avistan.report import figures as plots
    from avistan.report.dependence_figure import dependence_plot

    title = f"{structure.program}: {structure.verdict}"
    figure = dependence_plot(dependence(model.bound, structure, seed=seed), title)
    with whole_file(path) as file:
        plots.save(figure, file)
