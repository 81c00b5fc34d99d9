"""Tables of draws and of units."""

import builtins

import numpy as np
import pandas as pd
import pytest

import avistan as avi
from avistan.export.parts import of_fit
from avistan.export.tables import check_table_path, write_draws
from avistan.runtime.errors import FitError
from programs import bundled
from small_fits import schools


@pytest.fixture(scope="module")
def fit():
    return schools()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_draws_have_a_row_each_named_as_in_r(fit, tmp_path, suffix):
    tree = fit.posterior(100)
    path = tmp_path / f"draws{suffix}"
    with of_fit(fit, 100, None, {}) as drawn:
        assert write_draws(drawn, path) == 100
    table = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path)
    chains, draws = tree["posterior"].sizes["chain"], tree["posterior"].sizes["draw"]
    assert table.columns[:5].tolist() == [".chain", ".iteration", ".draw", "lp__", "mu"]
    assert table[".draw"].tolist() == list(range(1, chains * draws + 1))
    assert table[".iteration"].max() == draws
    np.testing.assert_allclose(
        table["theta[3]"], tree["posterior"]["theta"].values[..., 2].ravel(), rtol=1e-15
    )
    np.testing.assert_allclose(
        table["log_lik[8]"], tree["log_likelihood"]["log_lik"].values[..., 7].ravel(), rtol=1e-15
    )


def test_units_have_a_row_for_each_number(fit):
    table = fit.unit_table([0.1, 0.9])
    assert set(table["level"]) == {"J"}
    assert set(table["variable"]) == {"theta_raw", "theta", "y_rep"}
    theta = table[table["variable"] == "theta"].set_index("unit")
    assert theta.index.tolist() == list(range(1, 9))
    np.testing.assert_allclose(theta["mean"], fit.stan_variable("theta").mean(axis=0))
    np.testing.assert_allclose(theta["q90"], np.quantile(fit.stan_variable("theta"), 0.9, axis=0))
    assert (table["entry"] == "").all()


def test_what_a_diagnosis_says_of_a_unit_stands_in_its_rows():
    fit = schools(steps=100)
    assert "conditional_error" not in fit.unit_table()
    numbers = fit.diagnose().units
    table = fit.unit_table()
    for name, values in numbers.items():
        for _, rows in table.groupby("variable"):
            np.testing.assert_array_equal(rows[name], values)


def test_inputs_are_held_against_those_of_other_units():
    """LSAT has 32 patterns of answers: persons who share one are at distance 0, the only one with a pattern is not."""
    model = bundled("lsat_2pl")
    fit = model.fit(method="avi", steps=20, elbo_draws=50)
    y = np.asarray(model.data["y"])
    _, inverse, counts = np.unique(y, axis=0, return_inverse=True, return_counts=True)
    table = fit.unit_table()
    distance = table[table["variable"] == "theta"]["inputs_distance"].to_numpy()
    alone = counts[inverse.ravel()] == 1
    assert alone.any()
    assert (distance[~alone] == 0).all()
    assert (distance[alone] > 0).all()
    items = table[table["variable"] == "y_rep"]
    assert items["entry"].head(6).tolist() == ["1", "2", "3", "4", "5", "1"]
    assert items["unit"].head(6).tolist() == [1, 1, 1, 1, 1, 2]


def test_units_in_a_flat_vector_and_in_columns_are_numbered():
    code = """
    data { int N; vector[N] y; }
    parameters { matrix[2, N] z; real mu; }
    model { mu ~ normal(0, 1); to_vector(z) ~ normal(mu, 1); y ~ normal(z[1]' + z[2]', 1); }
    """
    fit = avi.Model(stan_code=code, data={"N": 3, "y": [0.0, 1.0, 4.0]}).fit(
        method="avi", steps=20, elbo_draws=50
    )
    table = fit.unit_table()
    assert table["unit"].tolist() == [1, 2, 3, 1, 2, 3]
    assert table["entry"].tolist() == ["1", "1", "1", "2", "2", "2"]
    np.testing.assert_allclose(table["mean"], fit.stan_variable("z").mean(axis=0).ravel())


def test_a_fit_without_units_has_no_table():
    fit = avi.Model(stan_code="parameters { vector[2] x; } model { x ~ normal(0, 1); }").fit(
        steps=20, elbo_draws=50
    )
    with pytest.raises(FitError, match="no units"):
        fit.unit_table()


def test_a_path_that_is_no_table_is_said(monkeypatch):
    with pytest.raises(FitError, match=r"ends in \.parquet or \.csv"):
        check_table_path("units.xlsx")
    assert check_table_path("units.CSV") == ".csv"
    imported = builtins.__import__

    def without_pyarrow(name, *rest, **more):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(FitError, match=r"avistan\[tables\]"):
        check_table_path("units.parquet")
