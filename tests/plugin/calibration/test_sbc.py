"""Simulation-based calibration: programs that are right pass, programs that are wrong fail, and how."""

import json
import re

import numpy as np
import pytest
import typer
from arviz_base import labels  # noqa: F401  imported here, so that its warnings are not the command's
from typer.testing import CliRunner

from avistan.calibration import uniformity
from avistan.calibration.ranking import LOG_DENSITY
from avistan.calibration.sbc import calibrate
from avistan.calibration.simulator import SimulatorError, simulate
from avistan.calibration.uniformity import Shape
from avistan.cli import sbc_command
from avistan.cli.console import REFUSED
from avistan.report import sbc_figure as sbc_plot
from avistan.runtime.errors import FitError, MethodError
from stan_adapters.data.stan_data import DataWarning
from stan_adapters.errors import DataError
from stan_adapters.language.program import Program

# Independent normals: a mean-field Gaussian is exact.
NORMALS = """
data { int<lower=0> N; real<lower=0> prior_sd; vector[N] y; }
parameters { vector[N] z; real mu; }
model { mu ~ normal(0, 2); z ~ normal(0, prior_sd); y ~ normal(z, 1); }
generated quantities {
  real mu_ = normal_rng(0, 2);
  vector[N] z_; vector[N] y_;
  for (n in 1:N) { z_[n] = normal_rng(0, 1); y_[n] = normal_rng(z_[n], 1); }
}
"""
SIMULATOR = """
data { int<lower=0> N; }
generated quantities {
  real mu = normal_rng(0, 2);
  vector[N] z; vector[N] y;
  for (n in 1:N) { z[n] = normal_rng(0, 1); y[n] = normal_rng(z[n], 1); }
}
"""
# Two parameters of which the data see only the sum: their posterior correlation is -0.99.
CORRELATED = """
data { int N; vector[N] y; }
parameters { real a; real b; }
model { a ~ std_normal(); b ~ std_normal(); y ~ normal(a + b, 1); }
generated quantities {
  real a_ = std_normal_rng();
  real b_ = std_normal_rng();
  array[N] real y_ = normal_rng(rep_vector(a_ + b_, N), 1);
}
"""
QUICK = {"steps": 400, "draws_per_step": 4, "elbo_draws": 100}
VERY_QUICK = QUICK | {"steps": 25}  # where nothing depends on how good refits are


def program(code, name="normals"):
    return Program.from_code(code, name)


def normals(prior_sd, **options):
    return calibrate(
        program(NORMALS),
        program(SIMULATOR, "simulator"),
        data={"N": 5, "prior_sd": prior_sd},
        entries=3,
        **({"simulations": 30} | QUICK | options),
    )


@pytest.fixture(scope="module")
def right():
    return normals(1.0, method="fvi", log_density=True)


@pytest.fixture(scope="module")
def wrong():
    return normals(0.2, method="fvi")


# ---- Verdicts ----------------------------------------------------------------------------------------------


def test_a_correct_program_passes_in_every_parameter_and_in_the_joint_density(right):
    assert right.passed
    assert [entry.name for entry in right.entries] == ["z[1]", "z[3]", "z[5]", "mu", LOG_DENSITY]
    assert "calibrated" in str(right)
    assert "NOT" not in str(right)


@pytest.mark.slow
def test_an_amortized_refit_of_a_correct_program_passes_too():
    found = normals(1.0, method="avi")
    assert found.method == "avi"
    assert found.passed


def test_a_prior_that_is_too_tight_fails_where_it_acts_and_says_how(wrong):
    assert wrong.failing == ("z[1]", "z[3]", "z[5]")
    assert {wrong[name].shape for name in wrong.failing} == {Shape.TOO_NARROW}
    assert wrong["mu"].passed
    assert "NOT calibrated: z[1], z[3], z[5]" in str(wrong)
    assert "overconfident" in str(wrong)


def test_a_mean_field_fit_of_a_correlated_posterior_fails_as_overconfident():
    found = calibrate(
        program(CORRELATED),
        program(CORRELATED),
        data={"N": 100, "y": np.zeros(100)},
        simulations=30,
        method="fvi",
        **QUICK,
    )
    assert found.failing == ("a", "b")
    assert {entry.shape for entry in found.entries} == {Shape.TOO_NARROW}


def test_a_shifted_simulator_fails_as_biased():
    shifted = SIMULATOR.replace("z[n] = normal_rng(0, 1)", "z[n] = normal_rng(1.5, 1)")
    found = calibrate(
        program(NORMALS),
        program(shifted, "shifted"),
        data={"N": 2, "prior_sd": 1.0},
        simulations=30,
        method="fvi",
        **QUICK,
    )
    assert {entry.shape for entry in found.entries if entry.variable == "z"} == {Shape.TOO_LOW}


def test_the_same_seed_gives_the_same_ranks():
    one, two, other = (
        normals(1.0, **VERY_QUICK, method="fvi", simulations=10, seed=seed) for seed in (1, 1, 2)
    )
    for entry, same in zip(one.entries, two.entries, strict=True):
        np.testing.assert_array_equal(entry.ranks, same.ranks)
    assert (other["mu"].ranks != one["mu"].ranks).any()


def test_refits_that_fail_do_not_count_and_are_told():
    code = """
    data { real y; }
    transformed data { if (y < -1) reject("y is ", y); }
    parameters { real mu; }
    model { mu ~ std_normal(); y ~ normal(mu, 1); }
    generated quantities { real mu_ = std_normal_rng(); real y_ = normal_rng(mu_, 1); }
    """
    found = calibrate(program(code), program(code), data={"y": 0}, simulations=20, **VERY_QUICK)
    values = simulate(program(code), program(code), {"y": 0}, 20, seed=1).drawn["y"]
    assert found.num_simulations == np.sum(values >= -1) < 20
    assert len(found.failures) == np.sum(values < -1)
    assert f"{len(found.failures)} refits failed" in str(found)


# ---- Simulators --------------------------------------------------------------------------------------------


def test_a_simulator_gives_parameters_and_data_under_the_programs_names():
    given = simulate(program(NORMALS), program(SIMULATOR), {"N": 4, "prior_sd": 1}, 500, seed=3)
    assert given.truth["z"].shape == (500, 4)
    assert not given.missing
    residual = given.drawn["y"] - given.truth["z"]
    assert abs(residual.std() - 1) < 5 / np.sqrt(2 * residual.size)
    data = next(given.data_sets())
    assert set(data) == {"N", "prior_sd", "y"}


def test_a_program_with_underscored_quantities_is_its_own_simulator():
    own = simulate(program(NORMALS), program(NORMALS), {"N": 4, "prior_sd": 1, "y": [0.0] * 4}, 500, seed=3)
    assert set(own.truth) == {"mu", "z"}
    residual = own.drawn["y"] - own.truth["z"]
    assert abs(residual.std() - 1) < 5 / np.sqrt(2 * residual.size)


def test_a_parameter_that_is_not_simulated_is_told_and_not_ranked():
    partly = SIMULATOR.replace("real mu = normal_rng(0, 2);", "")
    found = calibrate(
        program(NORMALS),
        program(partly),
        data={"N": 2, "prior_sd": 1.0},
        simulations=10,
        method="fvi",
        **VERY_QUICK,
    )
    assert found.not_simulated == ("mu",)
    assert "Not ranked, because the simulator does not give it: mu" in str(found)
    with pytest.raises(SimulatorError, match="log_density needs every parameter"):
        calibrate(program(NORMALS), program(partly), data={"N": 2, "prior_sd": 1.0}, log_density=True)


@pytest.mark.parametrize(
    ("simulator", "words"),
    [
        ("data { int N; }", "simulates no parameter of normals"),
        ("data { int N; } generated quantities { real mu = 1; }", "simulates no data entry of normals"),
        (SIMULATOR.replace("normal_rng(0, 2)", "normal_rng(0, -2)"), "Stan rejected 100 of 100 simulations"),
    ],
    ids=["no quantities", "no data", "rejected"],
)
def test_a_simulator_that_can_not_serve_is_one_clear_error(simulator, words):
    with pytest.raises(SimulatorError, match=re.escape(words)):
        calibrate(program(NORMALS), program(simulator, "sim"), data={"N": 2, "prior_sd": 1.0})


def test_other_mistakes_are_named():
    given = {"stan_file": program(NORMALS), "simulator": program(SIMULATOR, "sim")}
    with pytest.raises(DataError, match="`N`"):
        calibrate(**given, data={"prior_sd": 1.0})
    with pytest.raises(FitError, match="prior_sd"):  # of the fitted program: every refit fails
        calibrate(**given, data={"N": 2}, simulations=10)
    with pytest.raises(MethodError, match="unknown method"):
        calibrate(**given, data={"N": 2, "prior_sd": 1.0}, method="mcmc")
    with pytest.raises(FitError, match="at least 10"):
        calibrate(**given, data={"N": 2, "prior_sd": 1.0}, simulations=3)
    with pytest.raises(FitError, match="between 0 and 1"):
        calibrate(**given, data={"N": 2, "prior_sd": 1.0}, probability=1.0)
    with pytest.warns(DataWarning, match="not used: sgima"):
        simulate(given["stan_file"], given["simulator"], {"N": 2, "prior_sd": 1.0, "sgima": 3}, 10, seed=1)


def test_a_parameter_of_another_shape_is_named():
    scalar = (
        "generated quantities { real z = std_normal_rng(); real mu = 0; vector[2] y = rep_vector(z, 2); }"
    )
    with pytest.raises(FitError, match=re.escape("gives z the shape ()")):
        calibrate(
            program(NORMALS), program(scalar), data={"N": 2, "prior_sd": 1.0}, simulations=10, **VERY_QUICK
        )


# ---- Ranks and their envelope ------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_ranks", "num_draws", "probability"), [(60, 99, 0.9), (100, 19, 0.8)])
def test_the_envelope_holds_uniform_ranks_with_its_probability(num_ranks, num_draws, probability):
    band = uniformity.envelope(num_ranks, num_draws, probability)
    rng = np.random.default_rng(num_ranks)
    inside = 0
    for _ in range(2000):
        ranks = rng.integers(0, num_draws + 1, num_ranks)
        share = uniformity.counts_below(ranks, num_draws) / num_ranks
        inside += bool(((band.lower <= share + 1e-12) & (share <= band.upper + 1e-12)).all())
        if abs((p := uniformity.p_value(ranks, num_draws)) - (1 - probability)) > 0.01:
            assert (p > 1 - probability) == bool(
                ((band.lower <= share + 1e-12) & (share <= band.upper + 1e-12)).all()
            )
    assert abs(inside / 2000 - probability) < 5 * np.sqrt(probability * (1 - probability) / 2000) + 0.005


def test_p_values_of_uniform_ranks_are_uniform_up_to_their_steps():
    rng = np.random.default_rng(8)
    values = np.array([uniformity.p_value(rng.integers(0, 100, 80), 99) for _ in range(800)])
    for level in (0.05, 0.2, 0.5, 0.8):
        assert abs(np.mean(values <= level) - level) < 5 * np.sqrt(level * (1 - level) / 800)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (np.repeat([0, 99], 30), Shape.TOO_NARROW),
        (np.repeat(50, 60), Shape.TOO_WIDE),
        (np.repeat(99, 60), Shape.TOO_LOW),
        (np.repeat(0, 60), Shape.TOO_HIGH),
        (np.repeat([16, 49, 50, 83], 15), Shape.TOO_WIDE),
        (np.repeat([10, 35, 64, 89], 15), Shape.UNEVEN),
    ],
)
def test_shapes_are_named_for_what_the_posterior_is(ranks, expected):
    assert uniformity.shape(ranks, 99) is expected
    assert expected.meaning.endswith(".")


def test_the_tree_has_what_arviz_plots_reads(right):
    tree = right.to_datatree()
    shares = tree["prior_sbc"]
    assert shares["z"].sizes == {"chain": 1, "draw": 30, "z_entry": 3}
    assert list(shares["z_entry"].values) == ["z[1]", "z[3]", "z[5]"]
    np.testing.assert_allclose(shares["mu"].values[0], (right["mu"].ranks + 0.5) / 100)
    np.testing.assert_array_equal(tree["prior"]["mu"].values[0], right["mu"].truth)
    assert tree.attrs["passed"]


def test_the_picture_has_a_panel_for_each_entry_with_its_envelope(wrong):
    figure = sbc_plot.ecdf(wrong)
    titles = [axes.get_title() for axes in figure.axes if axes.lines]
    assert titles == ["z[1]: too narrow", "z[3]: too narrow", "z[5]: too narrow", "mu"]
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    expected = wrong.envelope.upper - wrong.envelope.edges
    assert heights.max() == pytest.approx(expected.max())


# ---- The command -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sbc")
    (folder / "normals.stan").write_text(NORMALS)
    (folder / "simulator.stan").write_text(SIMULATOR)
    (folder / "right.json").write_text(json.dumps({"N": 3, "prior_sd": 1.0}))
    (folder / "wrong.json").write_text(json.dumps({"N": 3, "prior_sd": 0.2}))
    return folder


def run(files, data, *arguments):
    app = typer.Typer()
    app.command()(sbc_command.sbc)
    quick = ["--simulations", "30", "--method", "fvi", "--steps", "400", "--entries", "1"]
    paths = [files / "normals.stan", files / "simulator.stan", files / data]
    return CliRunner().invoke(app, [str(argument) for argument in (*paths, *quick, *arguments)])


def test_the_command_writes_its_files_and_succeeds_where_ranks_are_uniform(files, tmp_path):
    result = run(files, "right.json", "--output", tmp_path / "sbc")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "sbc").iterdir()) == ["ecdf.png", "ranks.nc", "sbc.json"]
    assert "calibrated" in result.stdout


def test_the_command_ends_with_status_3_where_they_are_not(files, tmp_path, wrong, monkeypatch):
    monkeypatch.setattr("avistan.calibration.sbc.calibrate", lambda *arguments, **options: wrong)
    result = run(files, "wrong.json", "--output", tmp_path / "sbc", "--json")
    assert result.exit_code == REFUSED == 3
    answer = json.loads(result.stdout)
    assert not answer["passed"]
    failing = [entry for entry in answer["entries"] if not entry["passed"]]
    assert [entry["name"] for entry in failing] == ["z[1]", "z[3]", "z[5]"]
    assert {entry["shape"] for entry in failing} == {"too narrow"}
    assert {len(entry["ranks"]) for entry in failing} == {answer["simulations"]} == {30}


def test_the_command_refuses_a_bad_place_before_it_works(files, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = run(files, "right.json", "--output", tmp_path)
    assert result.exit_code == 2
    assert "other files" in result.stderr
