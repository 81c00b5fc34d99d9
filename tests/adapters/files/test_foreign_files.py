"""Array files from elsewhere: nothing in them runs code or names another file."""

import json
import os
import pickle

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import avistan as avi
from avistan.comparison.references import reference_from
from avistan.runtime.errors import AvistanError
from programs import bind
from stan_adapters.errors import DataError
from stan_adapters.files.foreign_files import ForeignError, check_hdf5, check_zarr

CODE = "data { int N; vector[N] y; } parameters { real m; } model { y ~ normal(m, 1); }"


class Marking:
    """A pickle of it makes a folder when it is read."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def with_pickle(group, name, mark, shape):
    """An array of a zarr group of version 2 whose bytes are said to be a pickle."""
    (group / name).mkdir(parents=True)
    for folder in (group, group.parent):
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
    about = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": shape,
        "dtype": "<f8",
        "compressor": {"id": "pickle", "protocol": 4},
        "fill_value": 0.0,
        "order": "C",
        "filters": None,
    }
    (group / name / ".zarray").write_text(json.dumps(about))
    (group / name / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["chain", "draw"][: len(shape)]}))
    (group / name / ".".join("0" * len(shape))).write_bytes(pickle.dumps(Marking(mark)))


def test_a_pickle_in_a_reference_is_never_read(tmp_path):
    with_pickle(tmp_path / "draws.zarr" / "posterior", "m", tmp_path / "mark", [2, 9])
    with bind(CODE, {"N": 1, "y": [0.0]}) as model, pytest.raises(AvistanError, match="coded by 'pickle'"):
        reference_from(tmp_path / "draws.zarr", model)
    assert not (tmp_path / "mark").exists()


def test_a_pickle_in_the_data_is_never_read(tmp_path):
    with_pickle(tmp_path / "data.zarr", "y", tmp_path / "mark", [3])
    with pytest.raises(DataError, match="coded by 'pickle'"):
        avi.Model(stan_code=CODE, data=tmp_path / "data.zarr")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("version", [2, 3])
def test_plain_arrays_of_both_versions_pass(tmp_path, version):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    root.create_array("y", data=np.arange(3.0))
    root.attrs["filters"] = ["pickle"]  # a word of somebody's own
    check_zarr(tmp_path / "a.zarr")
    xr.Dataset({"x": ("k", np.arange(4.0)), "word": ("k", list("abcd"))}).to_zarr(
        tmp_path / "b.zarr", zarr_format=version, consolidated=version == 2
    )
    check_zarr(tmp_path / "b.zarr")


CONSOLIDATED = {
    2: {"metadata": {"attributes/.zarray": {"compressor": None, "filters": [{"id": "pickle"}]}}},
    3: {"consolidated_metadata": {"metadata": {"attributes": {"codecs": [{"name": "numcodecs.pickle"}]}}}},
    4: {"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": ["bytes", {"name": "pickle"}]}}]},
}


@pytest.mark.parametrize("kind", CONSOLIDATED)
def test_codecs_are_found_wherever_metadata_name_them(tmp_path, kind):
    (tmp_path / (".zmetadata" if kind == 2 else "zarr.json")).write_text(json.dumps(CONSOLIDATED[kind]))
    with pytest.raises(ForeignError, match="pickle"):
        check_zarr(tmp_path)


def test_metadata_that_are_no_json_are_named(tmp_path):
    (tmp_path / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(ForeignError, match=r"zarr\.json is no metadata"):
        check_zarr(tmp_path)


def write_draws(path, change):
    xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"k": (("chain", "draw"), np.random.default_rng(1).normal(size=(2, 9)))})}
    ).to_netcdf(path, engine="h5netcdf")
    with h5py.File(path, "a") as file:
        change(file["posterior"])


def external_storage(group):
    group.create_dataset("m", shape=(2, 9), dtype="f8", external=[("elsewhere.bin", 0, 144)])


def external_link(group):
    group["m"] = h5py.ExternalLink("elsewhere.nc", "/posterior/m")


def virtual(group):
    layout = h5py.VirtualLayout(shape=(2, 9), dtype="f8")
    layout[:] = h5py.VirtualSource("elsewhere.nc", "m", shape=(2, 9))
    group.create_virtual_dataset("m", layout)


@pytest.mark.parametrize("change", [external_storage, external_link, virtual])
def test_a_reference_whose_numbers_are_in_another_file_is_refused(tmp_path, change, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_draws(tmp_path / "draws.nc", change)
    with (
        bind(CODE, {"N": 1, "y": [0.0]}) as model,
        pytest.raises(AvistanError, match=r"takes /posterior/m from another file"),
    ):
        reference_from(tmp_path / "draws.nc", model)


def test_groups_that_hold_each_other_are_looked_at_once(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("a")["again"] = file["/"]
    check_hdf5(tmp_path / "a.h5")
