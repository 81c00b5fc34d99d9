"""netCDF files and zarr folders that ArviZ wrote, of its versions 0.x and 1.x."""

from __future__ import annotations

import warnings
from pathlib import Path

import xarray as xr

from avistan.runtime.errors import CompetitorError
from stan_adapters.files.foreign_files import check_hdf5, check_zarr

ZARR_MARKS = (".zgroup", ".zmetadata", "zarr.json")


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr group."""
    return any((folder / mark).exists() for mark in ZARR_MARKS)


def read_groups(path: Path) -> xr.DataTree:
    """All groups of a netCDF file or zarr folder, in memory.

    Raises:
        CompetitorError: it can't be read.
    """
    try:
        check_zarr(path) if path.is_dir() else check_hdf5(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # how a zarr folder could be read faster
            with xr.open_datatree(path, engine="zarr" if path.is_dir() else "h5netcdf") as tree:
                return tree.load()
    except Exception as error:  # whatever a reader of a foreign format raises
        raise CompetitorError(
            f"can't read the reference {path}: {error} It must be a netCDF-4 file or a zarr folder with a group "
            "`posterior`, as `arviz.InferenceData.to_netcdf` and `xarray.DataTree.to_netcdf` write it."
        ) from error
