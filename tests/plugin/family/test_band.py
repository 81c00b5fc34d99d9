"""Units that are coupled along their axis: the Markov chain, its start, and posteriors that are known."""

import runpy
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import avistan as avi
from avistan.cli.examples import models_root
from avistan.comparison.references import nuts
from avistan.family.band import follow, pull_back
from avistan.family.family import Family
from avistan.family.functions import LocalNu, Table
from avistan.family.globals import start_globals
from avistan.family.locals import LocalGaussian
from avistan.family.method import parse_method
from avistan.family.placement import make_frame, make_placement
from avistan.fitting.family_selection import stages
from avistan.start import laplace_chain
from avistan.start.laplace_chain import chain_start
from avistan.training.stopping import tolerance
from family_draws import drawn
from programs import bundled, simulator

N, G = 6, 3
WALK = """
data { int T; vector[T] y; real mu; real tau; real sigma; }
parameters { vector[T] z; }
model {
  z[1] ~ normal(mu, 1);
  for (t in 2:T) z[t] ~ normal(z[t - 1], tau);
  y ~ normal(z, sigma);
}
"""
COUNTS = """
data { int T; array[T] int y; }
parameters { real<lower=0> tau; vector[T] z; }
model {
  tau ~ normal(0, 1);
  z[1] ~ normal(0, 2);
  for (t in 2:T) z[t] ~ normal(z[t - 1], tau);
  y ~ poisson_log(z);
}
"""
VOLATILITY = """
data { int T; vector[T] y; }
parameters { real mu; real<lower=0, upper=1> phi; real<lower=0> sigma; vector[T] h; }
model {
  mu ~ normal(-1, 1);
  phi ~ beta(20, 1.5);
  sigma ~ normal(0, 0.5);
  h[1] ~ normal(mu, sigma / sqrt(1 - phi^2));
  for (t in 2:T) h[t] ~ normal(mu + phi * (h[t - 1] - mu), sigma);
  y ~ normal(0, exp(h / 2));
}
"""


def walk(T: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    z = 1 + np.cumsum(0.4 * rng.normal(size=T))
    return {"T": T, "y": rng.normal(z, 0.7), "mu": 1.0, "tau": 0.4, "sigma": 0.7}


def counts(T: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {"T": T, "y": rng.poisson(np.exp(1 + np.cumsum(0.3 * rng.normal(size=T))))}


def volatility(T: int, seed: int = 1) -> dict:
    rng = np.random.default_rng(seed)
    h = np.empty(T)
    h[0] = -1 + 0.8 * rng.normal()
    for t in range(1, T):
        h[t] = -1 + 0.93 * (h[t - 1] + 1) + 0.3 * rng.normal()
    return {"T": T, "y": np.exp(h / 2) * rng.normal(size=T)}


def dense(bands: jax.Array, draw: int) -> jax.Array:
    """B (N d, N d) of one draw, from bands (N, b, d, d, s)."""
    units, reach, d, _, draws = bands.shape
    whole = jnp.zeros((units, d, units, d))
    for k in range(1, reach + 1):
        for n in range(k, units):
            whole = whole.at[n, :, n - k].set(bands[n, k - 1, :, :, draw % draws])
    return whole.reshape(units * d, units * d)


@pytest.mark.parametrize(("d", "reach", "draws"), [(1, 1, 4), (2, 2, 1)])
def test_the_recurrence_and_its_derivatives_are_those_of_a_dense_solve(d, reach, draws):
    rng = np.random.default_rng(0)
    bands = jnp.asarray(0.5 * rng.normal(size=(N, reach, d, d, draws)))
    own, weights = (jnp.asarray(rng.normal(size=(N, d, 4))) for _ in range(2))

    def solved(bands, own):
        flat = own.reshape(N * d, 4)
        columns = [jnp.linalg.solve(jnp.eye(N * d) - dense(bands, s), flat[:, s]) for s in range(4)]
        return jnp.stack(columns, axis=1).reshape(own.shape)

    np.testing.assert_allclose(follow(bands, own), solved(bands, own), rtol=1e-10)
    ours, expected = (
        jax.jit(jax.grad(lambda b, u, f=f: jnp.sum(jnp.sin(f(b, u)) * weights), argnums=(0, 1)))(bands, own)
        for f in (follow, solved)
    )
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)
    turned = [(jnp.eye(N * d) - dense(bands, s)).T @ own.reshape(N * d, 4)[:, s] for s in range(4)]
    np.testing.assert_allclose(pull_back(bands, own).reshape(N * d, 4), jnp.stack(turned, axis=1), rtol=1e-10)


FORMS = {  # d, b, conditional, globals, directions, columns of the frame
    "common scale": (2, 1, "none", "mean-field", 0, 1),
    "second order": (2, 2, "mean", "full-rank", G, N),
    "follows": (1, 1, "mean+scale", "mean-field", G, N),
    "everything": (2, 2, "mean+scale", "full-rank", 2, N),
}


def random_family(form: str) -> tuple[Family, jax.Array]:
    """A family with generic values everywhere, in a shuffled vector."""
    d, reach, conditional, kind, directions, columns = FORMS[form]
    rng = np.random.default_rng(1)
    local = LocalGaussian("banded", d, conditional, directions, reach)
    nu = LocalNu(*(jnp.asarray(0.4 * rng.normal(size=(size, N))) for size in local.sizes))
    shape = (d, columns)
    frame = make_frame(
        rng.normal(size=G), rng.uniform(0.5, 2, G), rng.normal(size=shape), rng.uniform(0.5, 2, shape)
    )
    places = rng.permutation(G + N * d)
    factor = jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.asarray(rng.normal(size=leaf.shape)), start_globals(kind, G)
    )
    few = jnp.asarray(rng.normal(size=(directions, G))) if 0 < directions < G else None
    placement = make_placement(np.sort(places[:G]), places[G:].reshape(N, d))
    return Family(factor, Table(nu), local, frame, placement, few), jnp.zeros((N, 0), dtype=jnp.float32)


@pytest.mark.parametrize("form", FORMS)
def test_density_and_pull_are_those_of_the_map(form):
    family, inputs = random_family(form)
    noise = np.random.default_rng(2).normal(size=(2, family.dim))
    draws = drawn(family, jnp.asarray(noise), inputs)
    jacobian = jax.jit(jax.jacobian(lambda e: drawn(family, e[None], inputs).theta[0]))
    slope = jax.jit(jax.grad(lambda e: drawn(family, e[None], inputs).log_q[0]))
    for number, one in enumerate(jnp.asarray(noise)):
        turned = np.asarray(jacobian(one)).T
        volume = np.linalg.slogdet(turned)[1]
        np.testing.assert_allclose(draws.log_q[number], norm.logpdf(one).sum() - volume, rtol=1e-9)
        np.testing.assert_allclose(
            draws.pull[number], -np.linalg.solve(turned, slope(one)), rtol=1e-7, atol=1e-9
        )


@pytest.mark.parametrize("form", ["follows", "everything"])
def test_gradients_of_draws_are_those_of_finite_differences(form):
    family, inputs = random_family(form)
    noise = jnp.asarray(np.random.default_rng(3).normal(size=(2, family.dim)))
    weights = jnp.asarray(np.random.default_rng(4).normal(size=(2, family.dim)))

    @jax.jit
    def value(nu):
        moved = Family(
            family.globals, Table(nu), family.local, family.frame, family.placement, family.directions
        )
        theta, log_q, _ = drawn(moved, noise, inputs)
        return jnp.sum(theta * weights) + jnp.sum(log_q)

    nu = family.inference.nu
    direction = jax.tree.map(lambda leaf: jnp.asarray(np.random.default_rng(5).normal(size=leaf.shape)), nu)
    gradient = jax.grad(value)(nu)
    along = sum(float(jnp.sum(g * v)) for g, v in zip(gradient, direction, strict=True))
    ends = [value(jax.tree.map(lambda x, v, s=s: x + s * v, nu, direction)) for s in (1e-5, -1e-5)]
    np.testing.assert_allclose(along, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("form", ["common scale", "second order"])
def test_given_the_globals_the_precision_is_a_band(form):
    family, inputs = random_family(form)
    made = jax.jit(jax.jacobian(lambda e: drawn(family, e[None], inputs).theta[0]))
    jacobian = np.asarray(made(jnp.zeros(family.dim)))
    precision = np.linalg.inv(jacobian @ jacobian.T)
    index, reach = np.asarray(family.placement.local_index), family.local.reach
    size = [
        np.abs(precision[np.ix_(index[i], index[j])]).max()
        for i in range(N)
        for j in range(N)
        if abs(i - j) > reach
    ]
    assert max(size) < 1e-9 * np.abs(precision).max()
    assert min(np.abs(precision[np.ix_(index[n], index[n + reach])]).max() for n in range(N - reach)) > 1e-3


class Quadratic:
    """A Gaussian log density whose last entries are the units."""

    def __init__(self, mean: np.ndarray, precision: np.ndarray) -> None:
        self.mean, self.precision, self.dim = mean, precision, len(mean)

    def log_density_gradient(self, theta):
        away = np.atleast_2d(theta) - self.mean
        return -0.5 * np.einsum("si,ij,sj->s", away, self.precision, away), -away @ self.precision

    def why_rejected(self, theta):
        return ""


@pytest.mark.parametrize(("d", "reach"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_laplace_starts_at_a_gaussian_posterior_itself(d, reach):
    rng = np.random.default_rng(7)
    units, size = 9, 9 * d
    whole = size + 2  # units, then two globals
    root = np.eye(whole) + 0.3 * np.tril(rng.normal(size=(whole, whole)), -1)
    numbers = np.arange(size) // d
    root[:size, :size][numbers[:, None] - numbers > reach] = 0.0
    precision = root @ root.T
    model = Quadratic(rng.normal(size=whole), precision)
    index = np.arange(size).reshape(units, d)
    found = chain_start(model, index, size + np.arange(2), np.zeros(whole), reach)
    marginal = np.linalg.inv(np.linalg.inv(precision)[size:, size:])
    np.testing.assert_allclose(found.sd, marginal.diagonal() ** -0.5, rtol=1e-3)
    slope = marginal @ (found.theta - model.mean[size:])
    # Climbing stops at a gradient of that size, and differences of a quadratic are exact.
    assert np.abs(slope).max() < 1.01 * laplace_chain._SLOPE
    own = np.zeros((size, size))
    for n in range(units):
        own[n * d : n * d + d, n * d : n * d + d] = found.chain.factor[n]
    bands = dense(jnp.asarray(found.chain.bands)[..., None], 0)
    chain = np.linalg.solve(own, np.eye(size) - bands)
    local = precision[:size, :size]
    np.testing.assert_allclose(chain.T @ chain, local, atol=1e-6)
    shift = np.linalg.solve(local, precision[:size, size:] @ (found.theta - model.mean[size:]))
    np.testing.assert_allclose(found.chain.z.ravel(), model.mean[:size] - shift, atol=1e-6)


def test_without_a_density_there_is_no_laplace_start():
    model = Quadratic(np.zeros(4), np.diag([1.0, 1.0, 1.0, np.nan]))
    assert chain_start(model, np.arange(3)[:, None], np.array([3]), np.zeros(4), 1) is None


def test_a_walk_with_known_sds_is_fitted_exactly(tmp_path):
    data = walk(60)
    model = avi.Model(stan_code=WALK, data=data)
    steps = (
        np.diag(np.full(60, 2 / 0.16))
        - np.diag(np.full(59, 1 / 0.16), 1)
        - np.diag(np.full(59, 1 / 0.16), -1)
    )
    steps[0, 0], steps[-1, -1] = 1 + 1 / 0.16, 1 / 0.16
    precision = steps + np.eye(60) / 0.49
    mean = np.linalg.solve(precision, data["y"] / 0.49 + np.eye(60)[0])
    top = model.bound.log_density_gradient(mean)[0]
    evidence = float(np.squeeze(top)) + 30 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(precision)[1]
    fit = model.fit(seed=1, steps=400)
    assert fit.method.name == "fvi:banded"
    short = evidence - fit.elbo  # the family holds the posterior: this is all that training left
    assert -5 * fit.elbo_se <= short < 0.01
    draws, _ = fit.unconstrained_draws(20_000)
    # A marginal sd that is off by a share e costs at least about e^2 nats.
    bound = np.sqrt(max(short, 0) + 5 * fit.elbo_se) + 5 / np.sqrt(2 * 20_000)
    np.testing.assert_allclose(draws.std(axis=0), np.linalg.inv(precision).diagonal() ** 0.5, rtol=bound)
    fit.save(tmp_path / "fit")
    loaded = avi.load(tmp_path / "fit").unconstrained_draws(5)[0]
    np.testing.assert_array_equal(loaded, fit.unconstrained_draws(5)[0])
    with pytest.raises(avi.AvistanError, match="depends on its neighbours"):
        fit.predict(data)


def test_growing_from_the_factorized_family_finds_the_chain():
    model = bundled("state_space", simulator("state_space")(30))
    fit = model.fit(method="fvi", family="auto", seed=1, steps=2000)
    assert [step.method for step in fit.growth] == ["fvi:banded", "fvi:banded:conditional(mean+scale)"]
    assert fit.method.name == "fvi:banded:conditional(mean+scale)"
    # The posterior is Gaussian and the family holds it: log weights that vary are what training left, and half of
    # their variance is how far the ELBO is from its optimum.
    direct = model.fit(seed=1, steps=500)
    left = [other.evaluation.log_weights.var() / 2 for other in (fit, direct)]
    assert max(left) < 0.01
    assert abs(fit.elbo - direct.elbo) < 2 * max(left) + 5 * np.hypot(fit.elbo_se, direct.elbo_se)


def test_a_chain_is_as_good_as_a_full_covariance_of_all_parameters():
    model = avi.Model(stan_code=COUNTS, data=counts(30))
    full = model.fit(method="fvi:full-rank", seed=1)
    banded = model.fit(seed=1)
    assert full.level is None
    # Given tau the Gaussian's precision is a band at its optimum, so a chain that follows tau holds it: no worse but
    # for what training may leave.
    noise = 5 * np.hypot(full.elbo_se, banded.elbo_se)
    assert banded.elbo > full.elbo - tolerance(full.elbo, model.bound.dim) - noise


def test_stochastic_volatility_has_the_sds_of_nuts():
    model = avi.Model(stan_code=VOLATILITY, data=volatility(100))
    reference = nuts(model.bound, seed=1, warmup=500, draws=500)
    fit = model.fit(seed=1, steps=4000)
    mean, sd = fit.marginals()
    ratio = sd[3:] / reference.sd[3:]
    error = 5 / np.sqrt(reference.min_ess)  # of a mean in sds; of a sd less than that
    assert abs(ratio.mean() - 1) < 0.1 + error
    assert ratio.min() > 0.8 - error
    assert np.abs((mean - reference.mean) / reference.sd)[3:].mean() < 0.1 + error


def test_stages_of_coupled_units_begin_with_the_chain():
    coupled = replace(parse_method("fvi"), coupling=2)
    assert [method.name for method in stages(coupled, 2, 3)] == [
        "fvi:banded(2)",
        "fvi:banded(2):full-rank",
        "fvi:banded(2):full-rank:conditional(mean+scale)",
    ]
    assert [method.name for method in stages(parse_method("fvi:banded"), 1, 0)] == []


def test_units_that_do_not_hang_on_each_other_are_refused():
    with pytest.raises(avi.AvistanError, match="serves units that depend on their neighbours"):
        bundled("eight_schools").fit(method="fvi:banded")


def test_neighbours_close_the_gap_as_far_as_their_window_reaches():
    answers = runpy.run_path(str(models_root() / "state_space" / "kalman.py"))
    data = simulator("state_space")(100)
    model = bundled("state_space", data)
    best = answers["mean_field_optimum"](data).elbo
    for reach in (0, 1):
        name = "avi:polynomial(1)" + (f":neighbours({reach})" if reach else "")
        fit = model.fit(method=name, seed=1, steps=3000)
        assert fit.inputs.shape[0] == 100
        short, known = best - fit.elbo, best - answers["window_optimum"](data, reach).elbo
        assert abs(short - known) < tolerance(fit.elbo, model.bound.dim) + 5 * fit.elbo_se
