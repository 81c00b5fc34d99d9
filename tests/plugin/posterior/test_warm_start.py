"""Warm starts against exact Gaussians, against a cold start, and against what the samplers take."""

import inspect
import json

import cmdstanpy
import numpy as np
import pytest
import stanli
from arviz_stats.base import array_stats

import avistan as avi
from avistan.posterior.linear_response import linear_response
from avistan.posterior.warm_start import warm_start
from avistan.runtime.errors import FitError
from programs import bind, bundled, simulator
from stan_adapters.levels.levels import Member, make_level

# Two coupled latents a unit, two coupled globals: a Gaussian in which no coordinate is independent of another.
GAUSSIAN = """
data { int<lower=0> N; array[N] vector[2] y; }
parameters { array[N] vector[2] z; vector[2] mu; }
model {
  mu[1] ~ normal(0, 2);
  mu[2] ~ normal(0.5 * mu[1], 1);
  for (n in 1:N) {
    z[n, 1] ~ normal(mu[1], 0.7);
    z[n, 2] ~ normal(mu[2] + 0.8 * z[n, 1], 0.5);
    y[n] ~ normal(z[n], 0.6);
  }
}
"""


def exact_covariance(model):
    """Of a Gaussian target: the inverse of minus the change of its gradient along each coordinate."""
    at_zero = model.log_density_gradient(np.zeros(model.dim))[1]
    rows = model.log_density_gradient(np.eye(model.dim))[1]
    return np.linalg.inv(at_zero[None] - rows)


@pytest.fixture(scope="module")
def gaussian():
    y = np.random.default_rng(3).normal(size=(7, 2))
    with bind(GAUSSIAN, {"N": 7, "y": y}) as model:
        level = make_level(model.layout, "N", [Member("z", 0)])
        points = np.random.default_rng(4).normal(size=(3, model.dim))
        mean = np.linspace(-1, 1, model.dim)
        sd = np.full(model.dim, 0.5)
        yield model, linear_response(model, points, mean, sd, level.index, level.globals_index(model.dim))


def test_linear_response_of_a_gaussian_has_its_exact_variances(gaussian):
    model, response = gaussian
    np.testing.assert_allclose(response.variance(), np.diag(exact_covariance(model)), rtol=1e-6)


def test_linear_response_without_a_level_is_the_same_gaussian(gaussian):
    model, _ = gaussian
    nobody = np.empty((0, 0), dtype=np.int64)
    one, half = np.zeros((1, model.dim)), np.full(model.dim, 0.5)
    whole = linear_response(model, one, one[0], half, nobody, np.arange(model.dim))
    np.testing.assert_allclose(whole.variance(), np.diag(exact_covariance(model)), rtol=1e-6)


def test_starting_points_have_the_gaussians_mean_and_covariance(gaussian):
    model, response = gaussian
    rng = np.random.default_rng(5)
    draws = np.array([response.draw(rng) for _ in range(4000)])
    covariance = exact_covariance(model)
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - response.mean) < 5 * sd / np.sqrt(4000)).all()
    error = np.abs(np.cov(draws.T) - covariance) / np.outer(sd, sd)
    assert error.max() < 5 * np.sqrt(2 / 4000)


def test_a_curvature_that_is_not_positive_definite_gives_no_response():
    saddle = "parameters { vector[2] x; } model { target += x[1] * x[2] - 0.5 * square(x[1]); }"
    nobody = np.empty((0, 0), dtype=np.int64)
    with bind(saddle, {}) as model:
        nothing = np.zeros(2)
        assert linear_response(model, nothing[None], nothing, np.ones(2), nobody, np.arange(2)) is None


@pytest.fixture(scope="module")
def slopes():
    return bundled("random_slopes", simulator("random_slopes")(J=100))


@pytest.fixture(scope="module")
def fit(slopes):
    return slopes.fit(seed=1, steps=2000)


@pytest.fixture(scope="module")
def start(fit):
    return warm_start(fit, seed=2)


def run(slopes, **given):
    """Draws by parameter, gradients of the warm-up, and the largest R-hat of all parameters."""
    program = slopes.program.without_generated_quantities()
    sampler = stanli.Model(stan_code=program.source, data=slopes.data.to_json(), seed=1)
    fit = sampler.sample(samples=2000, save_warmup=True, refresh=0, **(given | {"seed": 5}))
    warmup = given["warmup"]
    gradients = fit.sampler_stats[:, :warmup, stanli.SAMPLER_COLUMNS.index("n_leapfrog__")].sum()
    kept = fit.draws()[:, warmup:]
    draws = {
        d.name: fit.draws(d.name)[:, warmup:].reshape(-1, *slopes.bound.layout[d.name].shape)
        for d in program.parameters
    }
    return draws, gradients, float(np.max(array_stats.rhat(kept, chain_axis=0, draw_axis=1)))


@pytest.fixture(scope="module")
def warm(slopes, start):
    return run(slopes, **start.stanli())


@pytest.mark.slow
def test_nuts_needs_fewer_warm_up_gradients_to_the_same_rhat(slopes, start, warm):
    _, gradients, rhat = warm
    _, default, default_rhat = run(slopes, chains=4, warmup=1000)
    _, short, _ = run(slopes, chains=4, warmup=start.stanli()["warmup"])
    assert rhat < 1.01
    assert default_rhat < 1.01
    assert 5 * gradients < default
    assert gradients < short


def test_the_metric_has_the_posterior_sds_of_nuts(slopes, fit, start, warm):
    theta = slopes.bound.unconstrain_draws(warm[0])
    ratio = np.sqrt(start.inverse_metric) / theta.std(axis=0)
    assert start.response
    at = fit.level.globals_index(slopes.bound.dim)
    assert ((ratio[at] > 0.7) & (ratio[at] < 1.4)).all()
    assert abs(ratio[fit.level.index].mean() - 1) < 0.1


def test_starts_are_one_point_in_both_scales(slopes, start):
    for theta, init in zip(start.theta, start.inits, strict=True):
        np.testing.assert_allclose(slopes.bound.unconstrain(init), theta, rtol=1e-8, atol=1e-8)
    assert len({theta.tobytes() for theta in start.theta}) == start.chains == 4


def test_the_same_seed_gives_the_same_start(fit, start):
    again = warm_start(fit, seed=2)
    assert again.theta.tobytes() == start.theta.tobytes()
    assert again.inverse_metric.tobytes() == start.inverse_metric.tobytes()


def test_arguments_are_those_the_samplers_take(start):
    inspect.signature(cmdstanpy.CmdStanModel.sample).bind(None, **start.cmdstan())
    inspect.signature(stanli.Model.sample).bind(None, **start.stanli())
    given = start.cmdstan(200)
    phases = [given[name] for name in ("adapt_init_phase", "adapt_metric_window", "adapt_step_size")]
    assert sum(phases) == given["iter_warmup"] == 200
    assert start.nutpie()["init_mean"].shape == start.inverse_metric.shape


def test_written_files_hold_every_parameter_and_the_metric(slopes, start, tmp_path):
    start.write(tmp_path / "starts")
    files = sorted(path.name for path in (tmp_path / "starts").iterdir())
    assert files == ["inits_1.json", "inits_2.json", "inits_3.json", "inits_4.json", "metric.json"]
    init = json.loads((tmp_path / "starts" / "inits_3.json").read_text())
    np.testing.assert_allclose(slopes.bound.unconstrain(init), start.theta[2], rtol=1e-8, atol=1e-8)
    metric = json.loads((tmp_path / "starts" / "metric.json").read_text())
    assert metric == {"inv_metric": start.inverse_metric.tolist()}
    start.write(tmp_path / "starts")  # an earlier one is replaced


def test_writing_never_overwrites_what_is_no_start(start, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FitError, match="other files"):
        start.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_chains_must_be_positive(fit):
    with pytest.raises(FitError, match="positive whole number"):
        warm_start(fit, chains=0)


def test_a_fit_of_a_program_without_units_has_a_start_too():
    code = "data { vector[30] y; } parameters { real mu; real<lower=0> s; } model { y ~ normal(mu, s); }"
    y = np.random.default_rng(1).normal(3, 2, 30)
    fit = avi.Model(stan_code=code, data={"y": y}).fit(steps=1000, elbo_draws=200)
    start = warm_start(fit, chains=2)
    # Posterior sd of mu is near s / sqrt(30), that of log s near 1 / sqrt(60).
    expected = np.array([y.std() / np.sqrt(30), 1 / np.sqrt(60)])
    np.testing.assert_allclose(np.sqrt(start.inverse_metric), expected, rtol=0.2)


def test_cmdstan_takes_the_start(cmdstan_home, slopes, start, tmp_path):
    cmdstanpy.set_cmdstan_path(cmdstan_home)
    (tmp_path / "slopes.stan").write_text(slopes.program.without_generated_quantities().source)
    model = cmdstanpy.CmdStanModel(stan_file=tmp_path / "slopes.stan")
    fit = model.sample(
        data=json.loads(slopes.data.to_json()), iter_sampling=500, show_progress=False, **start.cmdstan()
    )
    assert fit.stan_variable("alpha").shape == (2000, 100)
    assert fit.divergences.sum() < 20
