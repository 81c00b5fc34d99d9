"""CmdStan's algorithms on a real CmdStan 2.37 executable: Prophet's."""

import json
import os
import shutil
import subprocess
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from arviz_stats.base import array_stats

from prophet_series import bind_prophet, executable, flat, folder, trend
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import CmdStanError
from stan_adapters.language.program import Program
from stan_adapters.samplers import cmdstan
from stan_adapters.samplers.cmdstan import CmdStan, elbo_of_draws, exact_scales
from stan_adapters.samplers.stanli import nuts


@pytest.fixture(scope="module")
def prophet(require):
    return require("prophet")


@pytest.fixture(scope="module")
def model(prophet):
    with bind_prophet(prophet, trend()) as bound:
        yield bound


@pytest.fixture(scope="module")
def level(prophet):
    with bind_prophet(prophet, flat()) as bound:
        yield bound


@pytest.fixture(scope="module")
def client(prophet, model):
    with CmdStan(model, exe_file=executable(prophet)) as opened:
        yield opened


@pytest.fixture(scope="module")
def level_client(prophet, level):
    with CmdStan(level, exe_file=executable(prophet)) as opened:
        yield opened


def true_elbo(model, mean, sd, draws=20_000):
    """ELBO of a mean-field Gaussian, its standard error, and the sd of log p - log q, by Monte Carlo."""
    noise = np.random.default_rng(1).normal(size=(draws, model.dim))
    log_p, _ = model.log_density_gradient(mean + sd * noise)
    log_q = -0.5 * (noise**2).sum(axis=1) - np.log(sd).sum() - 0.5 * model.dim * np.log(2 * np.pi)
    weights = log_p - log_q
    return weights.mean(), weights.std() / np.sqrt(draws), weights.std()


# -- the same density ---------------------------------------------------------------------------------------------


def test_the_executable_and_the_interpreter_have_one_log_density_up_to_a_constant(prophet, model, tmp_path):
    points = np.random.default_rng(5).normal(size=(5, model.dim))
    ours, gradients = model.log_density_gradient(points)
    values, _ = model.constrain(points, transformed_parameters=False, generated_quantities=False)
    (tmp_path / "data.json").write_text(model.data.to_json())
    theirs = []
    for s in range(len(points)):
        (tmp_path / "at.json").write_text(json.dumps({name: v[s].tolist() for name, v in values.items()}))
        command = [executable(prophet), "log_prob", "constrained_params=at.json", "data", "file=data.json"]
        subprocess.run([*command, "output", "sig_figs=18"], cwd=tmp_path, check=True, capture_output=True)
        theirs.append(np.loadtxt(tmp_path / "output.csv", delimiter=",", comments=["#", "lp__"]))
    theirs = np.array(theirs)
    np.testing.assert_allclose(np.diff(theirs[:, 0]), np.diff(ours), rtol=1e-8)
    np.testing.assert_allclose(theirs[:, 1:], gradients, rtol=1e-8, atol=1e-8 * np.abs(gradients).max())


def test_both_sides_share_the_unconstrained_scale(client):
    assert client.same_scale


@pytest.mark.parametrize(
    "change", [("k ~ normal(0, 5)", "k ~ normal(0, 6)"), ("double_exponential", "normal")]
)
def test_an_executable_of_a_program_with_another_prior_is_refused(prophet, change):
    with (
        bind_prophet(prophet, trend(), change) as other,
        pytest.raises(CmdStanError, match="is of another program than prophet"),
        CmdStan(other, exe_file=executable(prophet)),
    ):
        pass


def test_an_executable_of_a_program_with_other_parameters_is_refused_in_cmdstans_words(prophet):
    program = Program.from_code("parameters { real x; } model { x ~ std_normal(); }")
    with (
        BoundModel(program, read_data(program, {})) as other,
        pytest.raises(CmdStanError, match=r"variable does not exist.*name=T"),
        CmdStan(other, exe_file=executable(prophet)),
    ):
        pass


def test_a_file_that_is_no_executable_is_refused(model, tmp_path):
    with (
        pytest.raises(CmdStanError, match="there is no CmdStan executable"),
        CmdStan(model, exe_file=tmp_path / "no"),
    ):
        pass
    (tmp_path / "text").write_text("not a program")
    with (
        pytest.raises(CmdStanError, match="does not take the parameters"),
        CmdStan(model, exe_file=tmp_path / "text"),
    ):
        pass


@pytest.mark.parametrize(
    ("code", "dim", "what"),
    [
        ("parameters { complex z; array[2] real x; }", 4, "complex parameters: z"),
        ("model {}", 0, "no parameters"),
    ],
)
def test_a_program_whose_draws_can_not_be_unconstrained_is_refused(code, dim, what):
    odd = SimpleNamespace(
        program=Program.from_code(code), dim=dim
    )  # only a compiled engine binds complex parameters
    with pytest.raises(CmdStanError, match=what), CmdStan(odd):
        pass


# -- ADVI ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def advi(client):
    return client.advi(seed=1)


def test_advi_knows_its_gaussian_exactly(advi, model, client, monkeypatch):
    mean, sd = advi.mean_field
    assert advi.theta.shape == (1000, model.dim)
    standard = (advi.theta - mean) / sd
    assert np.abs(standard.mean(axis=0)).max() < 5 / np.sqrt(1000)
    assert np.abs(standard.std(axis=0) - 1).max() < 5 / np.sqrt(2 * 1000)
    # the same seed makes the same Gaussian however many draws are made of it, so nothing of their noise is in it
    monkeypatch.setattr(cmdstan, "_LEAST_DRAWS", 200)
    again = client.advi(seed=1)
    assert len(again.theta) == 200
    np.testing.assert_allclose(again.mean_field, advi.mean_field, rtol=1e-8)


def test_advis_trace_ends_at_the_elbo_of_its_gaussian(advi, model):
    elbo, se, spread = true_elbo(model, *advi.mean_field)
    steps, seconds, values = advi.trace.T
    assert steps[0] == 100
    assert (np.diff(steps) == 100).all()
    assert all(before <= after for before, after in pairwise(seconds))
    assert abs(values[-1] - elbo) < 5 * np.hypot(
        se, spread / np.sqrt(100)
    )  # CmdStan's last estimate has 100 draws


def test_advi_counts_the_gradients_of_its_adaptation_too(advi):
    adaptation = advi.gradient_evaluations - advi.trace[-1, 0]
    assert adaptation % 50 == 0
    assert 100 <= adaptation <= 250


def test_on_request_it_takes_so_many_iterations_and_no_change_of_the_elbo_ends_it(client, monkeypatch):
    """The program at hand never ends early: what CmdStan is asked for tells that apart."""
    asked, real = [], client._client.variational
    monkeypatch.setattr(client._client, "variational", lambda **given: asked.append(given) or real(**given))
    client.advi(seed=1)
    fit = client.advi(seed=1, iterations=2000)
    assert "tol_rel_obj" not in asked[0]
    assert asked[1]["tol_rel_obj"] <= 1e-12
    assert fit.trace[-1, 0] == 2000


def test_advis_doubts_are_told(advi):
    assert "The maximum number of iterations is reached!" in advi.caveat


def test_an_elbo_without_the_scales_agrees_with_the_elbo_of_the_exact_gaussian(
    advi, model, client, monkeypatch
):
    monkeypatch.setattr(cmdstan, "_EXACT_SCALES_UP_TO", 0)
    estimated = client.advi(seed=1)
    assert estimated.mean_field is None
    elbo, se, _ = true_elbo(model, *advi.mean_field)
    assert abs(estimated.elbo - elbo) < 5 * np.hypot(se, estimated.elbo_se)


def test_advi_on_another_unconstrained_scale_has_draws_but_no_elbo(client, monkeypatch):
    monkeypatch.setattr(client, "same_scale", False)
    fit = client.advi(seed=1)
    assert (fit.mean_field, fit.elbo) == (None, None)
    assert "scale is not the model's" in fit.caveat


def test_scales_follow_from_draws_to_the_last_digits():
    rng = np.random.default_rng(1)
    mean, sd = rng.normal(size=300), np.exp(3 * rng.normal(size=300))
    noise = rng.normal(size=(400, 300))
    theta, log_g = mean + sd * noise, -0.5 * (noise**2).sum(axis=1)
    np.testing.assert_allclose(exact_scales(theta, mean, log_g), sd, rtol=1e-9)
    assert exact_scales(theta, mean, log_g * rng.uniform(0.99, 1.01, size=400)) is None
    assert exact_scales(mean + 0 * noise, mean, log_g) is None


def test_the_elbo_of_draws_is_unbiased_and_knows_its_error():
    """Against the closed form for log p = -0.45 |e|^2 + 0.3 sum sin(2 e), e the standard normals."""
    rng = np.random.default_rng(2)
    dim, sd = 200, np.exp(rng.normal(size=200))
    results = []
    for _ in range(200):
        noise = rng.normal(size=(300, dim))
        squares = (noise**2).sum(axis=1)
        log_p = -0.45 * squares + 0.3 * np.sin(2 * noise).sum(axis=1)
        results.append(elbo_of_draws(sd * noise, np.zeros(dim), log_p, -0.5 * squares))
    elbo, se = np.array(results).T
    expected = -0.45 * dim + np.log(sd).sum() + 0.5 * dim * (1 + np.log(2 * np.pi))
    assert abs(elbo.mean() - expected) < 5 * elbo.std() / np.sqrt(200)
    assert abs(elbo.std() / se.mean() - 1) < 5 / np.sqrt(2 * 200)


# -- draws --------------------------------------------------------------------------------------------------------


def test_cmdstans_nuts_agrees_with_stanlis(level, level_client):
    ours, theirs = nuts(level, seed=1), level_client.nuts(seed=2)
    assert theirs.theta.shape == (4, 1000, level.dim)
    sizes = [array_stats.ess(draws.theta, chain_axis=0, draw_axis=1) for draws in (ours, theirs)]
    sd = ours.theta.std(axis=(0, 1))
    se = sd * np.sqrt(sum(1 / size for size in sizes))
    assert (np.abs(ours.theta.mean(axis=(0, 1)) - theirs.theta.mean(axis=(0, 1))) < 5 * se).all()
    assert array_stats.rhat(theirs.theta, chain_axis=0, draw_axis=1).max() < 1.05
    assert theirs.divergences == 0


def test_pathfinder_agrees_with_nuts_where_the_posterior_is_nearly_normal(level, level_client):
    """Its 1000 draws are resampled from 4000, so that a mean varies as one of 1000 draws and of 4000."""
    reference, found = nuts(level, seed=1), level_client.pathfinder(seed=1)
    assert found.theta.shape == (1000, level.dim)
    assert found.caveat == ""
    size = array_stats.ess(reference.theta, chain_axis=0, draw_axis=1)
    sd = reference.theta.std(axis=(0, 1))
    se = sd * np.sqrt(1 / 1000 + 1 / 4000 + 1 / size)
    assert (np.abs(found.theta.mean(axis=0) - reference.theta.mean(axis=(0, 1))) < 5 * se).all()
    assert np.abs(found.theta.std(axis=0) / sd - 1).max() < 5 / np.sqrt(2 * 800)


def test_pathfinders_doubts_are_told(client):
    assert "greater than 0.7" in client.pathfinder(seed=1).caveat


def test_the_same_seed_gives_the_same_draws(client):
    for run in (client.advi, client.pathfinder, lambda seed: client.nuts(seed=seed, warmup=50, draws=20)):
        one, same, other = (run(seed=seed).theta for seed in (3, 3, 4))
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


# -- manners ------------------------------------------------------------------------------------------------------


def test_nothing_is_printed_and_no_file_is_left(prophet, level, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with CmdStan(level, exe_file=executable(prophet)) as client:
        assert list(tmp_path.iterdir())
        client.advi(seed=1)
        client.pathfinder(seed=1)
        client.nuts(seed=1, chains=2, warmup=50, draws=20)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_an_executable_needs_no_cmdstan_installation(prophet, level, monkeypatch, tmp_path):
    monkeypatch.delenv("CMDSTAN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with CmdStan(level, exe_file=executable(prophet)) as client:
        assert client.seconds_compile == 0
        assert client.nuts(seed=1, chains=1, warmup=50, draws=20).theta.shape == (1, 20, level.dim)


@pytest.mark.parametrize(
    ("change", "seed", "reason"),
    [
        ({"X": 1e100}, 18, "All proposed step-sizes failed"),
        ({"y": 1e6}, 3, "dropped evaluations has reached"),
    ],
)
def test_a_failure_of_advi_is_told_in_cmdstans_words(prophet, change, seed, reason):
    data = trend()
    data |= {name: factor * data[name] for name, factor in change.items()}
    with bind_prophet(prophet, data) as hard, CmdStan(hard, exe_file=executable(prophet)) as client:
        with pytest.raises(
            CmdStanError, match=f"CmdStan's variational failed on prophet: .*{reason}"
        ) as failure:
            client.advi(seed=seed)
        assert len(str(failure.value)) < 500


def test_a_failure_of_pathfinder_is_told_in_cmdstans_words(prophet):
    data = trend()
    with (
        bind_prophet(prophet, data | {"X": 1e100 * data["X"]}) as hard,
        CmdStan(hard, exe_file=executable(prophet)) as client,
        pytest.raises(CmdStanError, match=r"Line search failed.*Scale vector is inf, but must be positive"),
    ):
        client.pathfinder(seed=1)


# -- compiling ----------------------------------------------------------------------------------------------------


def test_without_an_installation_the_error_says_how_to_get_one(model, monkeypatch, tmp_path):
    monkeypatch.delenv("CMDSTAN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CmdStanError, match=r"set CMDSTAN.*install_cmdstan\(\).*executable"), CmdStan(model):
        pass


def installation(place, *recipe: str):
    """A CmdStan whose makefile has another recipe for executables than stanc and the C++ compiler."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    lines = ["CMDSTAN_VERSION := 2.37.0", "%: %.stan", *(f"\t@{line}" for line in recipe)]
    (place / "makefile").write_text("\n".join(lines) + "\n")
    return str(place)


def test_an_installation_compiles_the_program_without_its_generated_quantities_once(
    prophet, monkeypatch, tmp_path
):
    ready = tmp_path / "ready"
    ready.write_text(f'#!/bin/sh\nexec {executable(prophet)} "$@"\n')
    ready.chmod(0o755)
    log = tmp_path / "compiled.stan"
    monkeypatch.setenv("CMDSTAN", installation(tmp_path, f"cat $< >> {log}", f"cp {ready} $@"))
    source = (folder(prophet) / "prophet.stan").read_text()
    program = Program.from_code(source + "generated quantities { real twice = 2 * k; }", name="prophet")
    with BoundModel(program, read_data(program, flat())) as whole, CmdStan(whole) as client:
        assert client.seconds_compile > 0
        client.advi(seed=1)
        client.nuts(seed=1, chains=1, warmup=50, draws=20)
    assert log.read_text() == program.without_generated_quantities().source


def test_a_program_that_does_not_compile_is_told_with_the_compilers_last_words(model, monkeypatch, tmp_path):
    monkeypatch.setenv(
        "CMDSTAN", installation(tmp_path, "echo 'Semantic error in line 3: no such thing'", "false")
    )
    with pytest.raises(CmdStanError, match=r"can't compile prophet(.|\n)*no such thing"), CmdStan(model):
        pass
    assert os.environ["CMDSTAN"] == str(tmp_path)
