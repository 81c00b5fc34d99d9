"""Units never seen: their posteriors, how far they lie from the fitted ones, and what new data may look like."""

import warnings

import numpy as np
import pytest
import xarray as xr

import avistan as avi
from avistan.posterior.predict import NewUnitsWarning
from avistan.posterior.unit_distance import FAR, fitted_units
from avistan.runtime.errors import FitError
from programs import bundled, simulator
from sliced_cases import CASES, generator

HELD_OUT = np.sort(np.random.default_rng(5).permutation(1000)[:300])


@pytest.fixture(scope="module")
def answers(lsat):
    return np.asarray(lsat.data["y"])


def persons(answers):
    return {"N": len(answers), "I": 5, "y": answers}


@pytest.fixture(scope="module")
def of_some(answers):
    """A fit of 700 persons."""
    return bundled("lsat_2pl", persons(np.delete(answers, HELD_OUT, axis=0))).fit(method="avi", seed=1)


@pytest.fixture(scope="module")
def predicted(of_some, answers):
    return of_some.predict(persons(answers[HELD_OUT]), 8000)


def optimal_factors(tree: xr.DataTree, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of the Gaussian factors that are best for given answers and draws of the items: F-VI's own.

    The expected log density of an ability is tabulated on a grid and the factor found by Newton steps on its mean and
    log sd, expectations by Gauss-Hermite quadrature.
    """
    items = tree["posterior"].dataset.stack(sample=("chain", "draw")).isel(sample=slice(None, None, 20))
    a, b = (items[name].transpose("sample", ...).values for name in ("a", "b"))
    nodes, weights = np.polynomial.hermite_e.hermegauss(32)
    weights = weights / weights.sum()
    means, sds = np.empty(len(patterns)), np.empty(len(patterns))
    for row, pattern in enumerate(patterns):
        mean, sd = 0.0, 0.8
        for _ in range(50):
            ability = mean + sd * nodes
            eta = b[:, None, :] + a[:, None, :] * ability[None, :, None]
            p = 1 / (1 + np.exp(-eta))
            slope = (a[:, None, :] * (pattern - p)).sum(axis=2).mean(axis=0) - ability
            curvature = -(a[:, None, :] ** 2 * p * (1 - p)).sum(axis=2).mean(axis=0) - 1
            mean += weights @ slope / -(weights @ curvature)
            sd = (-(weights @ curvature)) ** -0.5
        means[row], sds[row] = mean, sd
    return means, sds


def test_persons_held_out_get_the_posteriors_of_a_refit_with_the_same_items(predicted, answers):
    patterns, which = np.unique(answers[HELD_OUT], axis=0, return_inverse=True)
    means, sds = optimal_factors(predicted, patterns)
    ability = predicted["posterior"]["theta"]
    for number in range(len(patterns)):  # persons with the same answers share the noise
        draws = ability.values[..., which == number]
        error = (draws.mean() - means[number]) / sds[number]
        noise = 4 / np.sqrt(draws.size)
        assert abs(error) < 0.05 + noise, patterns[number]
        assert abs(draws.std() / sds[number] - 1) < 0.05 + noise, patterns[number]


@pytest.mark.slow
def test_a_few_persons_held_out_get_the_posteriors_of_a_fit_of_all(lsat, answers):
    few = HELD_OUT[::30]
    part, whole = (
        bundled("lsat_2pl", persons(rows)).fit(method="avi", seed=1)
        for rows in (np.delete(answers, few, axis=0), answers)
    )
    new = part.predict(persons(answers[few]), 20_000)["posterior"]["theta"]
    old = whole.posterior(4000)["posterior"]["theta"]
    for number, person in enumerate(few):
        alike = (answers == answers[person]).all(axis=1)
        refitted = old.values[..., alike]
        noise = 4 / np.sqrt(min(new.sizes["draw"], refitted.size))
        error = (new.isel(N=number).mean().item() - refitted.mean()) / refitted.std()
        assert abs(error) < 0.05 + noise, answers[person]


def test_predictions_hold_what_belongs_to_the_new_units(predicted):
    assert {"posterior", "predictions", "sample_stats", "log_likelihood", "unit_diagnostics"} <= set(
        predicted.children
    )
    assert set(predicted["predictions"].data_vars) == {"theta", "y_rep"}
    assert predicted["predictions"].sizes == {"chain": 1, "draw": 8000, "N": 300, "I": 5}
    assert predicted["predictions"]["y_rep"].dtype == np.int64
    assert set(predicted["posterior"].data_vars) == {"theta", "a", "b", "y_rep"}
    assert predicted["log_likelihood"]["log_lik"].dims == ("chain", "draw", "N")


def test_predictive_draws_agree_with_the_latents_and_items_of_the_same_draw(predicted):
    posterior = predicted["posterior"]
    p = 1 / (1 + np.exp(-(posterior["b"] + posterior["a"] * posterior["theta"])))
    right = posterior["y_rep"]
    error = (right - p).mean(("chain", "draw"))
    noise = np.sqrt((p * (1 - p)).mean(("chain", "draw")) / posterior.sizes["draw"])
    assert (np.abs(error / noise) < 5).all()


def test_globals_are_the_draws_of_the_fit_and_not_moved_by_new_data(of_some, predicted):
    fitted = of_some.posterior(8000)["posterior"]
    for name in ("a", "b"):
        old, new = fitted[name], predicted["posterior"][name]
        noise = old.std(("chain", "draw")) * np.sqrt(2 / 8000)
        assert (np.abs(old.mean(("chain", "draw")) - new.mean(("chain", "draw"))) < 5 * noise).all()


def test_the_same_seed_repeats_a_prediction_and_another_does_not(of_some, answers):
    one, two, other = (of_some.predict(persons(answers[:3]), 20, seed=seed) for seed in (4, 4, 5))
    assert one["predictions"].equals(two["predictions"])
    assert not one["predictions"].equals(other["predictions"])


def test_the_best_restart_serves_where_draws_are_corrected(eight_schools):
    fit = eight_schools.fit(method="avi", chains=2, steps=200, elbo_draws=50)
    new = {"J": 1, "y": [9.0], "sigma": [11.0]}
    tree = fit.predict(new, 300)
    assert tree["predictions"]["theta"].sizes == {"chain": 1, "draw": 300, "J": 1}
    elbos = [chain.evaluation.elbo for chain in fit.chains]
    alone = fit.keep_chains([int(np.argmax(elbos))]).predict(new, 300)
    np.testing.assert_array_equal(alone["posterior"]["mu"].values, tree["posterior"]["mu"].values)


# -- layouts ----------------------------------------------------------------------------------------------------

LAYOUTS = (
    "item_response_long",
    "columns_of_a_table",
    pytest.param("matrix_columns", marks=pytest.mark.slow),
    pytest.param("ordered_locals", marks=pytest.mark.slow),
    pytest.param("correlated_effects", marks=pytest.mark.slow),
    pytest.param("ragged_start_end", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("name", LAYOUTS)
def test_units_of_any_layout_are_recognised_one_alone_and_several(name):
    case = CASES[name]
    model = avi.Model(case.stan_file, data=case.make_data(generator(name)), level=case.level)
    slicing = model.inspect().slicing
    fit = model.fit(method="avi:polynomial(1)", steps=2, elbo_draws=2)
    for units in ([2], [0, 1, 3]):
        new = slicing.subset(model.data, np.array(units))
        tree = fit.predict({entry: np.asarray(value).tolist() for entry, value in new.items()}, 20)
        distance = tree["unit_diagnostics"]["distance"]
        assert distance.dims == (case.level,)
        assert distance.sizes == {case.level: len(units)}
        assert (distance < 1e-4).all()  # their signatures are those that were fitted
        for latent in case.latents:
            assert latent in tree["predictions"]


# -- distance ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slopes():
    return bundled("random_slopes").fit(method="avi", steps=20, elbo_draws=20)


def test_units_of_the_same_population_lie_close_but_for_the_odd_one(slopes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NewUnitsWarning)
        tree = slopes.predict(simulator("random_slopes")(300, seed=9), 10)
    distance = tree["unit_diagnostics"]["distance"].values
    assert np.median(distance) < 0.5
    assert (distance > FAR).mean() < 0.01


def test_persons_with_answers_of_a_kind_that_was_fitted_raise_no_warning(of_some, answers):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NewUnitsWarning)
        of_some.predict(persons(answers[HELD_OUT]), 10)


def test_units_far_from_the_fitted_ones_are_counted_and_the_worst_is_named_with_its_distance(slopes):
    data = simulator("random_slopes")(50, seed=9)
    row = data["g"].index(7) if isinstance(data["g"], list) else int(np.argmax(np.asarray(data["g"]) == 7))
    data = data | {"x": np.asarray(data["x"], dtype=float).tolist()}
    data["x"][row] += 20.0
    with pytest.warns(
        NewUnitsWarning, match=r"1 of 50 new units of J .* unit 7 is the worst, [\d.e+]+ times as far"
    ):
        tree = slopes.predict(data, 10)
    distance = tree["unit_diagnostics"]["distance"].values
    assert distance.argmax() == 6
    assert distance[6] > FAR
    assert (np.delete(distance, 6) < FAR).all()


def test_a_unit_is_further_out_the_further_its_data_are():
    fit = bundled("linear", simulator("linear")(500)).fit(
        method="avi:polynomial(1):data(x)", steps=20, elbo_draws=20
    )
    x = np.asarray(fit.model.data["x"])
    places = x.max() + x.std() * np.array([0.0, 2.0, 4.0, 8.0])
    with pytest.warns(NewUnitsWarning, match="unit 4 is the worst"):
        tree = fit.predict(dict(simulator("linear")(4)) | {"x": places.tolist()}, 10)
    distance = tree["unit_diagnostics"]["distance"].values
    assert distance[0] == pytest.approx(0, abs=1e-5)
    assert (np.diff(distance) > 1).all()


COVARIATE = """
data { int N; vector[N] x; vector[N] y; }
parameters { real mu; real b; vector[N] z; }
model { mu ~ normal(0, 1); b ~ normal(0, 1); z ~ normal(mu, 1); y ~ normal(z .* (1 + x), 1); }
"""


def test_what_never_varied_among_the_fitted_units_is_seen_when_it_does():
    y = np.random.default_rng(2).normal(0, 2, 60)
    model = avi.Model(stan_code=COVARIATE, data={"N": 60, "x": np.zeros(60), "y": y})
    fit = model.fit(method="avi", steps=20, elbo_draws=20)
    alike = fit.predict({"N": 1, "x": [0.0], "y": [y[0]]}, 10)
    assert alike["unit_diagnostics"]["distance"].item() < 1e-4
    with pytest.warns(NewUnitsWarning, match="1 of 1 new units"):
        fit.predict({"N": 1, "x": [4.0], "y": [y[0]]}, 10)


def test_distances_are_in_typical_distances_between_unlike_fitted_units():
    grid = np.arange(10.0)[:, None]
    fitted = fitted_units(np.repeat(grid, 7, axis=0), seed=1)  # repeated units count once
    np.testing.assert_allclose(fitted.distance(np.array([[3.0], [3.25], [12.0]])), [0, 0.25, 3])


def test_units_of_a_constant_factor_have_no_distance(eight_schools):
    fit = eight_schools.fit(method="constant", steps=20, elbo_draws=20)
    tree = fit.predict({"J": 2, "y": [1000.0, 0.0], "sigma": [10.0, 10.0]}, 10)
    assert "unit_diagnostics" not in tree
    assert tree["predictions"].sizes["J"] == 2


def test_free_factors_have_none_for_new_units(eight_schools):
    fit = eight_schools.fit(method="fvi", steps=20, elbo_draws=20)
    with pytest.raises(FitError, match="fit with method='avi'"):
        fit.predict({"J": 1, "y": [1.0], "sigma": [10.0]})


# -- programs that compute something from all rows ----------------------------------------------------------------

CENTRED = """
data { int N; int J; vector[N] x; array[N] int<lower=0> y; array[N] int<lower=1, upper=J> g; }
transformed data { vector[N] xc = x - mean(x); }
parameters { real a; real b; real<lower=0> s; vector[J] z; }
model {
  a ~ normal(0, 2); b ~ normal(0, 1); s ~ normal(0, 1); z ~ std_normal();
  y ~ poisson_log(a + b * xc + s * z[g]);
}
"""


def grouped(seed, groups=20, rows=6, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, 1, groups * rows)
    number = np.repeat(np.arange(groups), rows)
    y = rng.poisson(np.exp(0.5 + 0.3 * x + 0.6 * rng.normal(size=groups)[number]))
    return {"N": groups * rows, "J": groups, "x": x, "y": y, "g": number + 1}


IN_THE_MODEL = CENTRED.replace("transformed data { vector[N] xc = x - mean(x); }", "").replace(
    "xc", "(x - mean(x))"
)
MEANS_AS_DATA = CENTRED.replace("vector[N] x;", "vector[N] x; real centre;").replace("mean(x)", "centre")


@pytest.mark.filterwarnings(
    "ignore:.*lie far from the fitted units:avistan.posterior.predict.NewUnitsWarning"
)
@pytest.mark.parametrize("method", ["avi", "constant", "avi:data(x)"])
def test_new_units_are_centred_by_the_means_of_the_fitted_ones(method):
    """As by the same program with the mean as data."""
    data, new = grouped(1, groups=40, rows=1), grouped(2, groups=3, rows=1, shift=3.0)
    fixed = {"centre": float(np.mean(data["x"]))}
    programs = ((CENTRED, {}), (MEANS_AS_DATA, fixed))
    z = []
    for code, further in programs:
        fit = avi.Model(stan_code=code, data=data | further).fit(method=method, steps=5, elbo_draws=20)
        tree = fit.predict(new | further, 10)
        assert set(tree["observed_data"].data_vars) <= set(new | further)
        z.append(tree["predictions"]["z"].values)
    np.testing.assert_allclose(*z, rtol=1e-5)


def test_a_model_that_centres_by_means_of_all_rows_predicts_no_new_units():
    fit = avi.Model(stan_code=IN_THE_MODEL, data=grouped(1)).fit(method="avi", steps=5, elbo_draws=20)
    with pytest.raises(
        FitError, match=r"the model computes something from x of all units .*pass it to the program as"
    ):
        fit.predict(grouped(2, groups=3, shift=3.0))


def test_a_program_without_units_says_that_it_has_none():
    code = "data { vector[4] y; } parameters { real m; } model { m ~ normal(0, 1); y ~ normal(m, 1); }"
    fit = avi.Model(stan_code=code, data={"y": np.zeros(4)}).fit(method="fvi", steps=5, elbo_draws=20)
    with pytest.raises(FitError, match="has no level of units in this fit: all its parameters are globals"):
        fit.predict({"y": np.ones(4)})


QUANTITIES = """
data { int N; int J; array[N] int<lower=1, upper=J> g; vector[N] x; vector[N] y; }
parameters { vector[J] a; real b; real<lower=0> s; }
transformed parameters { vector[N] m = a[g] + b * x; }
model { b ~ normal(0, 1); s ~ normal(0, 1); a ~ normal(0, 1); y ~ normal(m, s); }
generated quantities {
  vector[J] level = a + b * mean(x);
  vector[J] rank_of_unit; for (j in 1:J) rank_of_unit[j] = rank(a, j);
  vector[J] twice = 2 * a; vector[J] number = linspaced_vector(J, 1, J);
  vector[N] log_lik; for (n in 1:N) log_lik[n] = normal_lpdf(y[n] | m[n], s);
  vector[N] replicated; for (n in 1:N) replicated[n] = normal_rng(m[n], s);
  real total = sum(a);
}
"""


def test_quantities_that_other_units_would_change_are_named_and_left_out_of_the_predictions():
    data, new = (grouped(seed, groups=groups) for seed, groups in ((1, 20), (2, 3)))
    fit = avi.Model(stan_code=QUANTITIES, data=data).fit(method="avi", steps=5, elbo_draws=20)
    with pytest.warns(NewUnitsWarning, match="^level and rank_of_unit would be others"):
        tree = fit.predict(new, 10)
    shown = set(tree["predictions"].data_vars)
    assert not shown & {"level", "rank_of_unit"}
    assert {"a", "m", "twice", "replicated"} <= shown
    assert {"level", "rank_of_unit"} <= set(tree["posterior"].data_vars)
