"""Tables of draws against ArviZ's and numpy's numbers."""

import arviz_stats
import numpy as np
import pytest
import xarray as xr

from avistan.correction.correct import Way
from avistan.posterior import summaries
from avistan.posterior.summaries import Draws, draws_of_tree, statistics, summarize
from avistan.runtime.errors import FitError
from small_fits import schools


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def tree_of(posterior, **attrs):
    dims = {"mu": (), "tau": ("k",), "theta": ("N",), "rep": ("N", "item"), "long": ("row",)}
    variables = {name: (("chain", "draw", *dims[name]), values) for name, values in posterior.items()}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(variables)})
    tree.attrs |= {"level": "N", "units": 5, "latents": "theta", **attrs}
    return tree


@pytest.fixture
def chains(rng):
    mu = np.cumsum(rng.normal(size=(4, 200)), axis=1) + rng.normal(
        size=(4, 200)
    )  # draws that depend on each other
    return {
        "mu": mu,
        "tau": rng.normal(size=(4, 200, 2)),
        "theta": rng.normal(size=(4, 200, 5)),
        "rep": rng.integers(0, 3, size=(4, 200, 5, 2)),
        "long": rng.normal(size=(4, 200, 1001)),
    }


def test_globals_have_the_numbers_of_arviz(chains):
    tree = tree_of(chains, correction=Way.chains.value)
    table = summarize(draws_of_tree(tree), quantiles=[0.055, 0.945])
    theirs = arviz_stats.summary(tree, var_names=["mu", "tau"], ci_kind="eti", ci_prob=0.89, round_to="none")
    assert list(table.index) == list(theirs.index) == ["mu", "tau[0]", "tau[1]"]
    ours = {"eti89_lb": "q5.5", "eti89_ub": "q94.5"}
    for column in ("eti89_lb", "eti89_ub", "r_hat", "ess_bulk", "mean"):
        np.testing.assert_allclose(table[ours.get(column, column)], theirs[column], rtol=1e-12)
    tail = arviz_stats.ess(tree, var_names="mu", method="tail", prob=(0.05, 0.95))["mu"]
    assert table.loc["mu", "ess_tail"] == pytest.approx(float(tail))
    np.testing.assert_allclose(table["sd"], theirs["sd"], rtol=1e-3)  # ArviZ divides by S


@pytest.mark.parametrize(
    ("attrs", "of_units"),
    [
        ({"level": "N"}, {"theta", "rep"}),
        ({"level": "N", "second_level": "k"}, {"theta", "rep", "tau"}),
        ({"level": "N", "latents": "theta, mu"}, {"theta", "rep", "mu"}),
        ({"level": "", "latents": ""}, set()),
    ],
)
def test_variables_of_units_are_latents_and_what_has_a_dim_of_a_level(chains, attrs, of_units):
    assert draws_of_tree(tree_of(chains, **attrs)).of_units == of_units


def test_the_dim_of_a_level_whose_size_has_a_slash_is_found(chains):
    tree = tree_of(chains, level="N / 2", latents="")
    renamed = xr.DataTree.from_dict({"posterior": tree["posterior"].to_dataset().rename(N="N over 2")})
    renamed.attrs |= tree.attrs
    assert draws_of_tree(renamed).of_units == {"theta", "rep"}


def test_units_have_a_table_of_their_own_and_no_diagnostics(chains, monkeypatch):
    monkeypatch.setattr(summaries, "array_stats", None)  # what takes milliseconds for each number
    draws = draws_of_tree(tree_of(chains, correction=Way.chains.value))
    table = summarize(draws, units=True)
    assert list(table.columns) == ["mean", "sd", "q5", "q50", "q95"]
    assert list(table.index[[0, 4, 5, 6]]) == ["theta[0]", "theta[4]", "rep[0, 0]", "rep[0, 1]"]
    np.testing.assert_allclose(table["mean"][:5], chains["theta"].mean(axis=(0, 1)))
    np.testing.assert_allclose(table["q95"][5:], np.quantile(chains["rep"], 0.95, axis=(0, 1)).ravel())


def test_what_is_left_out_is_said(chains):
    table = summarize(draws_of_tree(tree_of(chains, correction=Way.chains.value)))
    assert "5 units of N (theta, rep)" in repr(table)
    assert "long: 1001" in repr(table)
    assert "long[0]" not in table.index
    one = {name: value[:1] for name, value in chains.items()}
    table = summarize(
        draws_of_tree(tree_of(one, correction=Way.weights.value, draws=200, effective_draws=90.4))
    )
    assert "r_hat" not in table
    assert "worth 90 independent ones or more, in one chain: R-hat" in repr(table)
    assert all(note in table._repr_html_() for note in table.notes)
    assert table.loc[["mu"]].to_dict()  # a part is a plain data frame


def test_restarts_are_compared_and_their_independent_draws_have_no_effective_sample_size(chains):
    table = summarize(draws_of_tree(tree_of(chains, correction="none", method="avi")))
    assert "ess_bulk" not in table
    assert table["r_hat"].notna().all()
    assert "whether the restarts agree" in repr(table)


def test_named_variables_of_both_kinds_share_a_table(chains):
    table = summarize(
        draws_of_tree(tree_of(chains, correction=Way.chains.value)), var_names=["theta", "mu", "long"]
    )
    assert table["r_hat"].isna().sum() == 5
    assert table["r_hat"].notna().sum() == 1 + 1001


def test_a_file_is_read_as_needed_and_in_parts(chains, tmp_path, monkeypatch):
    tree = tree_of(chains)
    held = summarize(draws_of_tree(tree), var_names=["rep", "theta", "mu"])
    tree.to_zarr(tmp_path / "draws.zarr", zarr_format=2)
    monkeypatch.setattr(
        summaries, "available_memory", lambda: 4 * 8 * 800 * 4
    )  # two units of `rep` at a time
    monkeypatch.setattr(summaries, "_NUMBERS_AT_ONCE", 2400)
    with xr.open_datatree(tmp_path / "draws.zarr", engine="zarr") as stored:
        assert summarize(draws_of_tree(stored), var_names=["rep", "theta", "mu"]).equals(held)


def test_draws_that_were_rejected_do_not_count(rng):
    values = rng.normal(size=(1, 50, 3))
    rejected = values.copy()
    rejected[0, 10] = np.nan
    rest = np.delete(values, 10, axis=1)
    found = statistics(rejected, [0.5])
    np.testing.assert_allclose(found["q50"], np.median(rest[0], axis=0))
    assert np.isnan(statistics(np.full((1, 4, 2), np.nan), [0.5])["mean"]).all()


def test_names_of_coordinates_are_labels():
    array = xr.DataArray(np.zeros((1, 2, 2)), dims=("chain", "draw", "school"), coords={"school": ["A", "B"]})
    assert list(summarize(Draws(values={"theta": array})).index) == ["theta[A]", "theta[B]"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"var_names": "thet"}, "no output 'thet'. Did you mean 'theta'"),
        ({"var_names": []}, "name of a variable, or a list"),
        ({"var_names": 3}, "name of a variable, or a list"),
        ({"quantiles": [5, 95]}, r"give probabilities, such as \[0.05"),
        ({"quantiles": "half"}, "give probabilities"),
    ],
)
def test_bad_arguments_are_named(chains, asked, message):
    with pytest.raises(FitError, match=message):
        summarize(draws_of_tree(tree_of(chains)), **asked)


def test_a_program_without_units_has_no_table_of_them(rng):
    with pytest.raises(FitError, match="no units"):
        summarize(Draws(values={"mu": rng.normal(size=(1, 10))}), units=True)


def test_a_fit_is_summarized_as_its_own_datatree():
    fit = schools()
    from_tree = draws_of_tree(fit.posterior())
    for asked in ({}, {"units": True}):
        table, theirs = fit.summary(**asked), summarize(from_tree, **asked)
        assert table.equals(theirs)
        assert table.notes == theirs.notes
    assert "ess_bulk" in fit.summary("mu", kind="diagnostics")  # ArviZ's own
