"""DataTrees as zarr stores. A posterior too large to hold is written a batch of draws at a time.

Stores have version 2 of the format, whose consolidated metadata and texts every reader knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from avistan.files.outputs import whole_folder
from avistan.runtime.types import StrPath

# Groups that a store of ours can have: an older one with nothing else in it may be replaced.
GROUPS = (
    ".zattrs",
    ".zgroup",
    ".zmetadata",
    "posterior",
    "unconstrained_posterior",
    "sample_stats",
    "log_likelihood",
    "log_prior",
    "posterior_predictive",
    "predictions",
    "observed_data",
    "constant_data",
    "elbo_trace",
    "certificate",
    "unit_diagnostics",
)
_DRAW = "draw"
_DIMS = "_ARRAY_DIMENSIONS"  # where xarray keeps names of dimensions
_REJECTED = np.iinfo(np.int64).min  # stands for NaN among integers


def write_batches(
    batches: Iterable[tuple[int, int, xr.DataTree]], path: StrPath, *, chains: int, draws: int
) -> None:
    """A zarr store of trees that hold consecutive draws of one chain each, never more than one of them at a time.

    Args:
        batches: chain, number of the first draw, and the tree; the first one fixes groups, dims and coords.
        draws: of each chain.

    Raises:
        FitError: the path holds something else or can't be written.
    """
    with whole_folder(path, GROUPS) as folder:
        store: _Store | None = None
        for chain, start, tree in batches:
            if store is None:
                store = _Store(folder, tree, chains, draws)
            store.write(chain, start, tree)
            del tree
        if store is not None:
            store.finish()


class _Store:
    """A zarr store whose variables of draws are filled region by region."""

    def __init__(self, folder: Path, first: xr.DataTree, chains: int, draws: int) -> None:
        frame = first.copy(deep=False)
        for group in frame.children.values():
            if _DRAW in group.dims:
                rest = group.to_dataset().drop_dims(_DRAW).drop_vars("chain", errors="ignore")
                group.dataset = rest.assign_coords(chain=np.arange(chains), draw=np.arange(draws))
        frame.to_zarr(folder, mode="w", zarr_format=2, consolidated=True)
        self._folder = folder
        root = zarr.open_group(folder, mode="r+", zarr_format=2, use_consolidated=False)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._masked: set[str] = set()
        for name, variable in _drawn(first):
            shape = (chains, draws, *variable.shape[2:])
            self._arrays[name] = root.create_array(
                name,
                shape=shape,
                chunks=tuple(max(1, size) for size in (1, variable.shape[1], *shape[2:])),
                dtype=variable.dtype,
                fill_value=np.nan if variable.dtype.kind == "f" else None,
                attributes={**variable.attrs, _DIMS: [str(dim) for dim in variable.dims]},
            )

    def write(self, chain: int, start: int, tree: xr.DataTree) -> None:
        for name, variable in _drawn(tree):
            array = self._arrays[name]
            array[chain, start : start + variable.shape[1]] = self._as_stored(
                name, variable.values[0], array.dtype
            )

    def finish(self) -> None:
        """Say which integers stand for NaN, and gather the metadata."""
        for name in self._masked:
            self._arrays[name].attrs["_FillValue"] = int(_REJECTED)
        zarr.consolidate_metadata(self._folder, zarr_format=2)

    def _as_stored(self, name: str, values: npt.NDArray[Any], kind: np.dtype[Any]) -> npt.NDArray[Any]:
        if kind.kind != "i" or values.dtype.kind != "f":
            return values
        self._masked.add(name)
        rejected = ~np.isfinite(values)
        return np.where(rejected, _REJECTED, np.where(rejected, 0, values).astype(np.int64))


def _drawn(tree: xr.DataTree) -> list[tuple[str, xr.DataArray]]:
    """Variables with draws, named by group and name."""
    return [
        (f"{group}/{name}", variable)
        for group, node in tree.children.items()
        for name, variable in node.data_vars.items()
        if _DRAW in variable.dims
    ]
