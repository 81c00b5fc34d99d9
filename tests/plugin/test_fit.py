"""Fits against exact answers and against each other: the paper's claims on the bundled programs."""

import numpy as np
import pytest

import avistan as avi
from avistan.fitting.outcome import FitOutcome
from avistan.runtime.errors import FitError, MethodError
from avistan.training.stopping import NATS
from programs import bundled, simulator
from stan_adapters.errors import StructureError


@pytest.fixture(scope="module")
def linear_data():
    return simulator("linear")(10_000)


@pytest.fixture(scope="module")
def linear(linear_data):
    return bundled("linear", linear_data).compare(["avi", "fvi", "constant"], seed=1, steps=2000)


@pytest.fixture(scope="module")
def lsat_rows(lsat):
    halved = {"warmup": 500, "draws": 500}
    return lsat.compare(["avi", "fvi", "constant"], reference="nuts", seed=1, reference_options=halved)


@pytest.fixture(scope="module")
def lsat_fit(lsat_rows):
    return lsat_rows["avi"].fit


@pytest.mark.parametrize("method", ["avi", "fvi"])
@pytest.mark.slow
def test_linear_at_ten_thousand_units_reaches_the_closed_form_optimum(
    linear, linear_data, linear_answers, method
):
    optimum = linear_answers["mean_field_optimum"](linear_data).elbo
    fit = linear[method].fit
    assert abs(fit.elbo - optimum) < NATS + 5 * fit.elbo_se
    assert fit.elbo < optimum + 5 * fit.elbo_se  # a bound can't be beaten beyond noise


@pytest.mark.slow
def test_linear_constant_is_short_by_the_closed_form_amount(linear, linear_data, linear_answers):
    short = (
        linear_answers["mean_field_optimum"](linear_data).elbo
        - linear_answers["constant_factor_optimum"](linear_data).elbo
    )
    row = linear["constant"]
    assert abs(row.gap_to_fvi - short) < 2 * NATS + 5 * row.gap_se  # either may be that far from its optimum


@pytest.mark.parametrize("method", ["avi:polynomial(1)", "avi:polynomial(1):data(x)"])
def test_linear_inference_function_has_the_optimal_slope_and_sd(linear_answers, method):
    linear_data = simulator("linear")(2000)  # all in a step: minibatches leave their noise in the slope
    best = linear_answers["mean_field_optimum"](linear_data)
    fit = bundled("linear", linear_data).fit(method=method, seed=1, steps=2000)
    mean, sd = fit.marginals()
    away, ratio = mean - best.mean, sd / best.sd
    precision = linear_answers["posterior_precision"](linear_data)
    short = 0.5 * away @ precision @ away + (0.5 * (ratio**2 - 1) - np.log(ratio)).sum()  # nats, exactly
    assert short < NATS
    assert abs(best.elbo - short - fit.elbo) < 5 * fit.elbo_se
    # Slopes move no mean of the units, so what theirs costs is this sum, and no more than all of it.
    x = np.asarray(linear_data["x"])
    slope, _ = linear_answers["optimal_line"](linear_data)
    found = np.polyfit(x, mean[1:], 1)[0]
    assert 0.5 * (found - slope) ** 2 * ((x - x.mean()) ** 2).sum() / best.sd[1] ** 2 <= short + 1e-6


def test_lsat_gap_is_closed_and_the_constant_is_far_off(lsat_rows):
    assert abs(lsat_rows["avi"].gap_to_fvi) < NATS
    assert lsat_rows["avi"].gap_se < 0.1
    assert lsat_rows["constant"].gap_to_fvi > 30


def test_lsat_abilities_are_those_of_fvi(lsat_rows, lsat):
    index = lsat.inspect().level.index
    theta, _ = lsat_rows["avi"].fit.unconstrained_draws(4000)
    other, _ = lsat_rows["fvi"].fit.unconstrained_draws(4000)
    difference = np.abs(theta.mean(axis=0) - other.mean(axis=0))[index] / other.std(axis=0)[index]
    assert difference.mean() < 0.1


def test_lsat_agrees_with_nuts_on_the_abilities(lsat_rows):
    assert lsat_rows.reference.max_rhat < 1.05
    accuracy = lsat_rows["avi"].accuracy
    assert accuracy.mean_error_locals < 0.1
    assert 0.9 < accuracy.sd_ratio_locals < 1.1
    # A mean-field q underestimates the globals' sds where parameters correlate; the means it gets right.
    assert accuracy.mean_error_globals < 0.3
    assert accuracy.sd_ratio_globals < 1
    assert lsat_rows["constant"].accuracy.mean_error_locals > 3 * accuracy.mean_error_locals


@pytest.fixture(scope="module")
def slopes():
    return bundled("random_slopes").compare(["avi", "fvi", "avi:full", "fvi:full"], seed=1)


@pytest.mark.slow
def test_random_slopes_gap_is_closed_for_both_local_factors(slopes):
    for method in ("avi", "avi:full"):
        assert abs(slopes[method].gap_to_fvi) < 2 * NATS  # either may be that far from its optimum
    assert slopes["fvi:full"].fit.elbo > slopes["fvi"].fit.elbo + 20


def test_new_units_get_the_posterior_that_fitting_gave_units_with_the_same_data(lsat_fit, lsat):
    y = np.asarray(lsat.data["y"])
    chosen = np.array([0, 200, 500, 999])
    tree = lsat_fit.predict({"N": 4, "I": 5, "y": y[chosen]}, draws=4000)
    assert set(tree.children) >= {"posterior", "sample_stats", "predictions", "observed_data"}
    predicted = tree["posterior"]["theta"]
    assert predicted.sizes == {"chain": 1, "draw": 4000, "N": 4}
    theta, _ = lsat_fit.unconstrained_draws(4000)
    fitted = theta[:, lsat.inspect().level.index[chosen, 0]]
    error = np.abs(predicted.mean(("chain", "draw")).values - fitted.mean(axis=0)) / fitted.std(axis=0)
    assert (error < 5 * np.sqrt(2 / 4000)).all()
    assert "theta" in tree["predictions"]
    assert "a" not in tree["predictions"]


def test_a_saved_fit_comes_back_whole(lsat_fit, tmp_path):
    lsat_fit.save(tmp_path / "fit")
    loaded = avi.load(tmp_path / "fit")
    assert loaded.elbo == lsat_fit.elbo
    assert loaded.outcome is lsat_fit.outcome
    assert loaded.options == lsat_fit.options
    for one, two in zip(loaded.unconstrained_draws(20), lsat_fit.unconstrained_draws(20), strict=True):
        assert one.tobytes() == two.tobytes()
    new = {"N": 1, "I": 5, "y": [[1, 0, 1, 0, 1]]}
    one, two = (fit.predict(new, draws=10)["posterior"]["theta"].values for fit in (loaded, lsat_fit))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("method", ["fvi", "fvi:full", "constant", "avi:polynomial(1)", "avi:data(y)"])
def test_every_kind_of_fit_is_saved_and_loaded(eight_schools, tmp_path, method):
    fit = eight_schools.fit(method=method, steps=20, elbo_draws=100)
    fit.save(tmp_path / "fit")
    loaded = avi.load(tmp_path / "fit")
    assert loaded.unconstrained_draws(5)[0].tobytes() == fit.unconstrained_draws(5)[0].tobytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "fit.json").unlink(), "is not a saved fit"),
        (lambda folder: (folder / "arrays.npz").write_bytes(b"no zip"), "is damaged"),
        (lambda folder: (folder / "arrays.npz").write_bytes(b""), "is damaged"),
        (lambda folder: (folder / "fit.json").write_text("{"), "is damaged"),
        (
            lambda folder: (folder / "program.stan").write_text("parameters { real x; }"),
            r"program\.stan: it was changed",
        ),
    ],
    ids=["no header", "bad arrays", "empty arrays", "bad header", "other program"],
)
def test_a_damaged_folder_is_one_clear_error(eight_schools, tmp_path, damage, words):
    eight_schools.fit(method="fvi", steps=20, elbo_draws=100).save(tmp_path / "fit")
    damage(tmp_path / "fit")
    with pytest.raises(FitError, match=words):
        avi.load(tmp_path / "fit")


def test_saving_never_overwrites_what_is_no_fit(eight_schools, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    fit = eight_schools.fit(method="fvi", steps=20, elbo_draws=100)
    with pytest.raises(FitError, match="other files"):
        fit.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


RANDOM_WALK = """
data { int T; vector[T] y; }
parameters { vector[T] h; real<lower=0> s; }
model { s ~ normal(0, 1); h[1] ~ normal(0, 1); h[2:T] ~ normal(h[1:T-1], s); y ~ normal(h, 0.5); }
"""


def test_auto_amortizes_what_is_closable_and_says_why_it_does_not_elsewhere(eight_schools):
    assert eight_schools.fit(steps=20, elbo_draws=100).method.amortized
    walk = avi.Model(stan_code=RANDOM_WALK, data={"T": 20, "y": np.sin(np.arange(20.0))})
    fit = walk.fit(steps=20, elbo_draws=100)
    assert fit.method.name.removesuffix(":flow") == "fvi:banded:conditional(mean+scale)"
    assert "not-closable" in fit.reason
    assert "h" in fit.reason
    forced = walk.fit(method="avi", steps=20, elbo_draws=100)
    assert "can't close" in forced.reason


def test_amortizing_a_random_walk_leaves_the_gap_open():
    rng = np.random.default_rng(7)
    y = np.cumsum(0.3 * rng.normal(size=60)) + 0.5 * rng.normal(size=60)
    walk = avi.Model(stan_code=RANDOM_WALK, data={"T": 60, "y": y})
    rows = walk.compare(["avi", "fvi"], seed=1, steps=2000)
    assert rows["avi"].gap_to_fvi > 5


def test_a_program_without_units_is_fitted_by_fvi():
    code = (
        "data { int N; vector[N] y; } parameters { real mu; real<lower=0> s; } model { y ~ normal(mu, s); }"
    )
    y = np.random.default_rng(1).normal(3, 2, 200)
    model = avi.Model(stan_code=code, data={"N": 200, "y": y})
    fit = model.fit(seed=1, steps=1000)
    assert fit.method.function == "table"
    assert fit.level is None
    draws = fit.stan_variable("mu")
    assert abs(draws.mean() - y.mean()) < 0.05
    assert 0.8 < draws.std() / (y.std() / np.sqrt(200)) < 1.2
    with pytest.raises(MethodError, match="no level of units"):
        model.fit(method="avi")
    with pytest.raises(FitError, match="no level of units in this fit"):
        fit.predict({"N": 200, "y": y})


def test_no_draws_are_no_posterior(lsat_fit):
    for ask in (
        lsat_fit.posterior,
        lambda draws: lsat_fit.predict({"N": 1, "I": 5, "y": [[1, 0, 1, 0, 1]]}, draws),
    ):
        with pytest.raises(FitError, match="draws=0"):
            ask(0)


def test_new_data_that_change_the_globals_are_refused(lsat_fit):
    with pytest.raises(FitError, match="a is a global of the fit with 5"):
        lsat_fit.predict({"N": 1, "I": 4, "y": [[1, 0, 1, 0]]})


def test_options_and_methods_that_do_not_exist_name_the_nearest(eight_schools):
    with pytest.raises(MethodError, match="Did you mean 'steps'"):
        eight_schools.fit(step=10)
    with pytest.raises(MethodError, match="Did you mean 'nuts'"):
        eight_schools.compare(["avi"], reference="nut")
    with pytest.raises(FitError, match="positive whole number"):
        eight_schools.fit(steps=0)
    with pytest.raises(MethodError, match=r"data\(z\)"):
        eight_schools.fit(method="avi:data(z)", steps=10)


@pytest.mark.parametrize("seed", [-1, True, 2**32])
def test_a_seed_is_a_whole_number(eight_schools, seed):
    with pytest.raises(FitError, match="seed="):
        eight_schools.fit(seed=seed)


def test_names_given_as_text_are_asked_for_as_a_list(eight_schools):
    with pytest.raises(MethodError, match=r"\['avi', 'fvi'\]"):
        eight_schools.compare("avi")


def test_without_parameters_there_is_nothing_to_fit():
    model = avi.Model(stan_code="generated quantities { real x = 1; }")
    with pytest.raises(FitError, match="nothing to fit"):
        model.fit()


def test_a_polynomial_of_too_many_terms_is_refused_before_it_is_made(lsat):
    with pytest.raises(MethodError, match="lower the degree"):
        lsat.fit(method="avi:polynomial(99)", steps=5)


def test_a_given_number_of_steps_is_not_said_to_have_settled(eight_schools):
    assert "after the 5 steps asked for" in str(eight_schools.fit(method="fvi", steps=5, elbo_draws=20))


def test_infinite_data_are_named_where_the_density_is_not_finite():
    code = "data { vector[3] y; } parameters { vector[3] z; } model { z ~ std_normal(); y ~ normal(z, 1); }"
    model = avi.Model(stan_code=code, data={"y": [0.0, np.inf, 1.0]})
    with pytest.raises(StructureError, match=r"infinity: `y`"):
        model.fit()


def test_a_fit_stopped_far_too_early_says_so(lsat):
    assert lsat.fit(method="constant", steps=100, elbo_draws=100).outcome is FitOutcome.budget_spent


def test_cmdstan_habits_return_draws(lsat_fit, lsat):
    assert lsat_fit.stan_variable("y_rep").shape == (1000, 1000, 5)
    table = lsat_fit.draws_pd()
    assert {"a[5]", "theta[1000]", "y_rep[2,3]"} <= set(table.columns)
    assert len(table) == 1000
    inits = lsat_fit.create_inits(seed=3, chains=2)
    assert [sorted(init) for init in inits] == [["a", "b", "theta"]] * 2
    point = lsat.bound.unconstrain(inits[0])
    assert np.isfinite(lsat.bound.log_density_gradient(point)[0])
    assert {"a[0]", "b[4]"} <= set(lsat_fit.summary(var_names=["a", "b"]).index)
