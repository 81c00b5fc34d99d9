"""Draws as they are handed out: corrected unless q's own are asked for, and marked by the diagnosis."""

import numpy as np
import pytest
import xarray as xr

from avistan.diagnosis.verdict import Check, Diagnosis, Trust, Variable
from avistan.posterior.handed_out import unconstrained_posterior
from avistan.runtime.errors import FitError
from programs import bundled


@pytest.fixture
def fit(short_fit):
    short_fit._kept.pop("diagnosis", None)
    return short_fit


@pytest.fixture(scope="module")
def short_fit():
    return bundled("eight_schools").fit(method="avi", seed=1, steps=300, elbo_draws=200)


def diagnosis(passed):
    return Diagnosis(
        program="eight_schools",
        method="avi",
        checks=(Check(name="globals", passed=passed, finding="", trouble=Trust.globals_misfit),),
        units={"conditional_error": np.arange(8.0)},
        variables=(
            Variable(name="mu", holds=True, error=0.01),
            Variable(name="tau", holds=passed, error=0.01 if passed else np.inf),
        ),
        level="J",
        seconds=1.0,
    )


def test_the_default_is_corrected_and_says_how(fit):
    tree = fit.posterior(40)
    assert tree.attrs["correction"] == fit.corrected().correction.way.value != "none"
    assert tree.attrs["correction_reliable"] == 1
    assert "log_q" not in tree["sample_stats"]
    own = fit.posterior(40, resample="none")
    assert own.attrs["correction"] == "none"
    assert "log_q" in own["sample_stats"]
    assert not np.array_equal(own["posterior"]["mu"], tree["posterior"]["mu"])


def test_draws_are_marked_once_the_fit_is_diagnosed_and_not_before(fit, tmp_path):
    assert not {"trusted", "not_holding"} & set(fit.posterior(10).attrs)
    fit.marked(diagnosis(passed=False))
    tree = fit.posterior(10)
    assert tree.attrs["trusted"] == 0
    assert tree.attrs["not_holding"] == ["tau"]
    np.testing.assert_array_equal(tree["unit_diagnostics"]["conditional_error"], np.arange(8.0))
    fit.write_posterior(tmp_path / "posterior.zarr", 10)
    with xr.open_datatree(tmp_path / "posterior.zarr", engine="zarr") as written:
        assert dict(written.attrs) == dict(tree.attrs)
        assert set(written.children) == set(tree.children)
    fit.marked(diagnosis(passed=True))
    assert fit.posterior(10).attrs["trusted"] == 1
    assert fit.posterior(10).attrs["not_holding"] == []


def test_a_diagnosis_of_corrected_draws_does_not_vouch_for_those_of_q(fit):
    fit.marked(diagnosis(passed=True))
    assert "trusted" not in fit.posterior(10, resample="none").attrs
    fit.marked(diagnosis(passed=False))
    assert fit.posterior(10, resample="none").attrs["trusted"] == 0


def test_mixed_restarts_are_not_written_in_batches(fit, tmp_path):
    with pytest.raises(FitError, match=r"Fit\.posterior"):
        fit.write_posterior(tmp_path / "posterior.zarr", 10, resample="elbo")
    with pytest.raises(FitError, match="part of 'auto'"):
        fit.write_posterior(tmp_path / "posterior.zarr", 10, resample="psis")
    assert not list(tmp_path.iterdir())


def test_unconstrained_draws_are_those_that_are_handed_out(fit):
    tree = fit.posterior(64, unconstrained=True)["unconstrained_posterior"]
    theta = unconstrained_posterior(fit, 64)
    layout = fit.model.layout
    for name in ("mu", "tau"):
        np.testing.assert_array_equal(tree[name].values.ravel(), theta[:, layout[name].offset])
    assert theta.shape == (64, 10)


def test_tables_are_made_of_corrected_draws(fit):
    assert fit.draws_pd()["theta[8]"].shape == (1000,)
    np.testing.assert_array_equal(fit.stan_variable("mu"), fit.posterior(1000)["posterior"]["mu"].values[0])
