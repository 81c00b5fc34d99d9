"""Which unit an entry belongs to, in every layout, and what is said of a wrong name."""

import numpy as np
import pytest

import avistan as avi
from avistan.runtime.errors import FitError
from small_fits import schools


@pytest.fixture(scope="module")
def fit():
    return schools()


@pytest.fixture(scope="module")
def columns():
    code = """
    data { int N; vector[N] y; }
    parameters { matrix[2, N] z; real mu; }
    model { mu ~ normal(0, 1); to_vector(z) ~ normal(mu, 1); y ~ normal(z[1]' + z[2]', 1); }
    """
    data = {"N": 3, "y": [0.0, 1.0, 4.0]}
    return avi.Model(stan_code=code, data=data).fit(method="avi", steps=20, elbo_draws=50)


def test_one_number_of_every_unit(fit):
    ranked = fit.rank_units("theta").sort_index()
    np.testing.assert_allclose(ranked["mean"], fit.stan_variable("theta").mean(axis=0))
    assert fit.rank_units().equals(fit.rank_units("theta_raw"))  # the level's latent


def test_a_row_of_a_matrix_with_a_column_for_each_unit(columns):
    z = columns.stan_variable("z")
    for row in (1, 2):
        found = columns.contrast((3, 1), "z", entry=row)
        np.testing.assert_allclose(found.draws, z[:, row - 1, 2] - z[:, row - 1, 0])
        assert found.name == f"z[.,{row}][3] - z[.,{row}][1]"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name": "tehta"}, "no variable of the units of J. Did you mean 'theta'"),
        ({"name": "mu"}, "'mu' is no variable of the units of J"),
        ({"name": "theta", "entry": 2}, "each unit has one number of theta. Leave entry= out"),
    ],
)
def test_a_wrong_name_is_said(fit, asked, message):
    with pytest.raises(FitError, match=message):
        fit.rank_units(**asked)


def test_an_entry_must_be_chosen_where_there_are_several(columns):
    for entry in (None, 3, "2,2"):
        with pytest.raises(FitError, match="each unit has 2 numbers of z: choose one by entry=, of '1', '2'"):
            columns.rank_units("z", entry=entry)


def test_a_fit_without_units_can_not_be_asked():
    fit = avi.Model(stan_code="parameters { vector[2] x; } model { x ~ normal(0, 1); }").fit(
        steps=20, elbo_draws=50
    )
    with pytest.raises(FitError, match="no units"):
        fit.plot_units()
