"""What a reference can be, and what is said of other things."""

import numpy as np
import pytest
import xarray as xr

from avistan.comparison.competitors import check_reference
from avistan.comparison.references import reference_from
from avistan.runtime.errors import CompetitorError, MethodError
from programs import bind


@pytest.fixture(scope="module")
def model():
    with bind("parameters { vector[3] x; } model { x ~ normal(0, 1); }", {}) as bound:
        yield bound


def test_a_dataset_is_a_posterior(model):
    x = np.random.default_rng(1).normal(size=(2, 20, 3))
    dataset = xr.Dataset({"x": (("chain", "draw", "k"), x)})
    check_reference(dataset)
    np.testing.assert_array_equal(reference_from(dataset, model).theta, x)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fit.rds", b"\x1f\x8b", "an R object. In R, write CSV files"),
        ("fit.RData", b"RDX3", "an R workspace"),
        ("fit.pkl", b"\x80", "a pickle, which runs code"),
        ("model.stan", b"model {}", "a Stan program, not draws"),
        ("draws.nc", b"", "is empty"),
        ("draws.csv", b"", "is empty"),
        ("draws", b"text", "can't read the reference"),
        ("draws.json", b"[1, 2]", "expected a list of chains"),
        ("draws.json.zip", b"PK", "can't read the reference"),
    ],
)
def test_a_wrong_file_is_said_with_what_it_is(model, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CompetitorError, match=message):
        reference_from(tmp_path / name, model)


def test_a_folder_without_draws_is_said(model, tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(CompetitorError, match="no zarr group and has no CSV files"):
        reference_from(tmp_path, model)


def test_a_sampler_is_not_one_of_several_references(tmp_path):
    with pytest.raises(MethodError, match="nuts is a reference of its own"):
        check_reference([tmp_path, "nuts"])


@pytest.mark.parametrize("given", [3, [], {"draws": 1}, ["nowhere.csv"], [3], "nowhere*.csv", "nutz"])
def test_what_is_no_reference_is_said_before_anything_runs(given):
    with pytest.raises(MethodError, match=r"expected nuts|unknown reference"):
        check_reference(given)
