"""The competition: shared randomness, the reference, honest rows."""

import json

import numpy as np
import pytest

import avistan as avi
import prophet_series
from avistan.comparison.references import nuts
from avistan.objective.elbo import Evaluation, gap, paired_standard_error
from programs import NORMALS, bind, bundled

KEYS = {
    "method",
    "outcome",
    "elbo",
    "elbo_se",
    "gap_to_fvi",
    "gap_se",
    "seconds",
    "seconds_compile",
    "steps",
    "gradient_evaluations",
    "variational_parameters",
    "khat",
    "reference_mean_error",
    "reference_sd_ratio",
}
SMALL = {"steps": 300, "elbo_draws": 400}


def test_the_same_seed_gives_the_same_table(eight_schools):
    def numbers(seed):
        table = bundled("eight_schools").compare(["avi", "fvi", "constant"], seed=seed, **SMALL).to_json()
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in table["methods"]]

    first = numbers(1)
    assert first == numbers(1)
    assert first != numbers(2)


def test_the_gap_of_a_method_to_itself_is_exactly_zero_and_that_of_a_twin_has_no_noise(eight_schools):
    rows = eight_schools.compare(["fvi", "avi"], seed=1, **SMALL)
    assert rows["fvi"].gap_to_fvi == 0
    assert rows["fvi"].gap_se == 0
    assert rows["avi"].gap_se < 0.3 * rows["avi"].fit.elbo_se


def test_the_table_is_strict_json_with_every_key(eight_schools):
    rows = eight_schools.compare(["avi", "fvi"], reference="nuts", seed=1, **SMALL)
    table = json.loads(json.dumps(rows.to_json(), allow_nan=False))
    assert set(table) >= {"program", "units", "unconstrained_dim", "seed", "reference", "methods"}
    assert table["reference"] == "nuts"
    for row in table["methods"]:
        assert set(row) >= KEYS
    assert table["methods"][1]["variational_parameters"] == 2 * table["unconstrained_dim"]


def test_a_method_that_can_not_serve_the_program_is_a_row_with_its_reason(eight_schools):
    rows = eight_schools.compare(["fvi", "avi:data(nothing)"], seed=1, **SMALL)
    assert rows["fvi"].outcome == "settled"
    failed = rows["avi:data(nothing)"]
    assert failed.outcome == "failed"
    assert "no data entry 'nothing'" in failed.reason
    assert failed.to_json()["elbo"] is None
    assert "no data entry 'nothing'" in str(rows)


def test_nuts_has_the_moments_of_an_independent_normal():
    mean, sd = np.array([1.0, -3.0]), np.array([0.5, 2.0])
    with bind(NORMALS, {"D": 2, "mean": mean, "sd": sd}) as model:
        reference = nuts(model, seed=1)
    assert reference.theta.shape == (4, 1000, 2)
    assert reference.max_rhat < 1.02
    se = sd / np.sqrt(reference.min_ess)
    assert (np.abs(reference.mean - mean) < 5 * se).all()
    assert (np.abs(reference.sd / sd - 1) < 0.1).all()
    assert reference.caveat == ""


def test_nuts_unconstrains_every_kind_of_parameter():
    code = """
    parameters { array[2] simplex[3] s; matrix[2, 3] m; real<lower=0> t; cholesky_factor_corr[2] L; vector[0] none; }
    model { to_vector(m) ~ std_normal(); t ~ std_normal(); L ~ lkj_corr_cholesky(2); }
    """
    with bind(code, {}) as model:
        reference = nuts(model, seed=2, chains=2, warmup=300, draws=300)
        tree = reference.to_datatree(model)
    matrix = tree["posterior"]["m"]
    assert matrix.shape == (2, 300, 2, 3)
    position = model.layout["m"]
    first_row_second_column = position.positions(0)[0][1]
    np.testing.assert_allclose(matrix.values[:, :, 0, 1], reference.theta[:, :, first_row_second_column])


def test_a_reference_that_did_not_converge_is_named_in_the_table():
    code = """
    parameters { real x; vector[3] z; }
    model { target += log_mix(0.5, normal_lpdf(x | -30, 0.1), normal_lpdf(x | 30, 0.1)); z ~ std_normal(); }
    """
    rows = avi.Model(stan_code=code).compare(["fvi"], reference="nuts", seed=1, **SMALL)
    assert "in doubt" in str(rows)


def test_the_standard_error_counts_antithetic_pairs_once():
    rng = np.random.default_rng(1)
    odd, even = rng.normal(size=500), rng.normal(size=500)
    values = np.stack([odd + even, -odd + even], axis=1).ravel()
    assert np.isclose(paired_standard_error(values), even.std(ddof=1) / np.sqrt(500))


def test_rejected_draws_leave_the_gap_to_the_draws_that_both_share():
    one = Evaluation(np.array([1.0, 2.0, -np.inf, 3.0]))
    other = Evaluation(np.array([2.0, 2.5, 4.0, -np.inf]))
    value, _ = gap(one, other)
    assert value == pytest.approx(0.75)
    assert one.rejected_share == 0.25
    assert one.elbo == 2.0


def test_cmdstan_takes_part_with_a_real_executable(require):
    prophet = require("prophet")
    model = avi.Model(prophet_series.folder(prophet) / "prophet.stan", data=prophet_series.trend())
    table = model.compare(
        ["fvi", "cmdstan-advi", "cmdstan-pathfinder"],
        reference="cmdstan-nuts",
        reference_options={"chains": 2, "warmup": 300, "draws": 300},
        cmdstan_exe=prophet_series.executable(prophet),
        seed=1,
        **SMALL,
    )
    advi, pathfinder = table["cmdstan-advi"], table["cmdstan-pathfinder"]
    assert advi.outcome == pathfinder.outcome == "done"
    # The Gaussian that CmdStan found is measured on the normals of F-VI, which has trained longer in the same family.
    assert advi.elbo < table["fvi"].elbo + 3 * advi.gap_se
    assert advi.gap_to_fvi == pytest.approx(table["fvi"].elbo - advi.elbo)
    assert advi.gap_se < 2 * advi.elbo_se
    assert advi.cost.variational_parameters == 2 * table.unconstrained_dim
    assert pathfinder.elbo is None
    assert pathfinder.accuracy.mean_error < 1
    assert json.dumps(table.to_json(), allow_nan=False)


def test_other_seeds_repeat_the_competition(eight_schools):
    table = eight_schools.compare(["avi", "fvi", "avi:data(nothing)"], seed=3, repeats=2, **SMALL)
    assert table.seeds == (3, 4)
    again = eight_schools.compare(["avi", "fvi"], seed=4, **SMALL)
    assert table["avi"].repeats[0].elbo == again["avi"].elbo
    assert table.to_json()["methods"][2]["repeats"]["outcome"] == ["failed", "failed"]
    assert "Over 2 seeds, 3 to 4" in str(table)


def test_milestones_say_when_training_came_near_the_best(eight_schools):
    table = eight_schools.compare(["fvi", "constant"], seed=1, **SMALL)
    best = table["fvi"]
    first = best.within_nat
    assert best.curve.elbo[first.steps - 1] >= table.best_elbo - 1
    assert (best.curve.elbo[: first.steps - 1] < table.best_elbo - 1).all()
    assert 0 <= first.seconds <= best.cost.seconds


def test_draws_of_another_sampler_are_a_reference(eight_schools, tmp_path):
    options = {"chains": 2, "warmup": 200, "draws": 200}
    named = eight_schools.compare(["fvi"], reference="nuts", reference_options=options, seed=1, **SMALL)
    tree = named.reference.to_datatree(eight_schools.bound)
    given = eight_schools.compare(["fvi"], reference=tree, seed=1, **SMALL)
    assert given["fvi"].accuracy.mean_error == pytest.approx(named["fvi"].accuracy.mean_error, rel=1e-6)
    assert "nan" not in str(given)
    assert json.dumps(given.to_json(), allow_nan=False)
    with pytest.raises(avi.AvistanError, match="unknown reference"):
        eight_schools.compare(["fvi"], reference="nutz", **SMALL)


def test_auto_is_the_fit_that_the_model_gives_and_its_errors_are_those_of_what_that_hands_out(eight_schools):
    options = {"chains": 2, "warmup": 300, "draws": 500}
    table = eight_schools.compare(
        ["auto", "avi", "fvi"], reference="nuts", reference_options=options, seed=1, **SMALL
    )
    row, fit = table["auto"], eight_schools.fit(seed=1, **SMALL)
    assert row.elbo == fit.elbo
    assert row.reason.startswith(f"ended with {fit.method.name}")
    assert str(fit.corrected()) in row.reason
    theta = fit.posterior(4000, unconstrained=True)["unconstrained_posterior"]
    tau = eight_schools.bound.layout["tau"].offset
    assert row.mean[tau] == pytest.approx(float(theta["tau"].mean()))
    assert row.sd[tau] == pytest.approx(float(theta["tau"].std(ddof=1)))
    assert row.accuracy.sd_ratio_globals == pytest.approx(
        1, abs=0.15
    )  # of NUTS with some 500 effective draws
    assert table["fvi"].gap_to_fvi == 0
    assert row.draws(20).shape == (20, 10)


def test_free_factors_by_name_are_what_gaps_are_measured_against_where_auto_is_free_factors_too():
    model = avi.Model(stan_code="parameters { vector[3] x; } model { x ~ normal(1, [1, 2, 3]'); }")
    table = model.compare(["auto", "fvi"], seed=1, **SMALL)
    assert table["auto"].function == "table"
    assert table["fvi"].gap_to_fvi == 0
    assert table["fvi"].gap_se == 0
