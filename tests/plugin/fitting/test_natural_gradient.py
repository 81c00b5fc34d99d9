"""The last steps of the globals: back to where the posterior is, units where they were at each value of the globals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, logsumexp

import avistan as avi
from avistan.correction.approximation import approximation
from avistan.density.slots import register
from avistan.fitting.natural_gradient import moved_globals, natural_gradient_step
from avistan.runtime.device import on_device
from avistan.runtime.precision import in_float64
from programs import bundled, simulator

DIRICHLET = """
data {
  int<lower=0> J;
  array[J, 3] int<lower=0> y;
}
parameters {
  vector<lower=0>[3] alpha;
  array[J] simplex[3] p;
}
model {
  alpha ~ gamma(2, 0.5);
  for (j in 1 : J) {
    p[j] ~ dirichlet(alpha);
    y[j] ~ multinomial(p[j]);
  }
}
"""


@pytest.fixture(scope="module")
def linear():
    return bundled("linear", simulator("linear")(300))


@in_float64
def displaced(fit, shift):
    """The fit's family with its globals moved by `shift` sds (G,), units following."""
    return moved_globals(fit.family, np.asarray(shift))


def drawn_shift(fit):
    """A move of the globals (G,) in a random direction, 1.5 sds along the entry that moves most."""
    direction = np.random.default_rng(11).standard_normal(fit.family.globals.size)
    return 1.5 * direction / np.abs(direction).max()


@in_float64
def stepped(fit, family, key=7):
    with register(fit.model) as slot:
        inputs = on_device(fit.inputs, np.float32)
        return natural_gradient_step(family, inputs, slot.index, jax.random.key(key))


@pytest.mark.parametrize(
    "method",
    [
        "fvi:full-rank:conditional",
        "avi:full-rank:conditional",
        "fvi:full-rank:conditional(mean+scale)",
        "avi:full-rank:conditional(curved):flow",
    ],
)
def test_one_step_goes_back_to_the_gaussian_posterior(linear, method):
    fit = linear.fit(method=method, seed=1)
    shift = drawn_shift(fit)
    step = stepped(fit, displaced(fit, shift))
    assert step.size == pytest.approx(1.5, abs=0.05)
    factor = np.exp(np.asarray(fit.family.globals.log_sd))
    left = (np.asarray(step.family.globals.loc) - np.asarray(fit.family.globals.loc)) / factor
    np.testing.assert_allclose(left, 0, atol=0.05)
    assert stepped(fit, fit.family).size < 0.05


@pytest.mark.parametrize("method", ["fvi:full-rank:conditional(curved)", "avi:conditional(mean+scale)"])
def test_units_stay_where_they_were_at_each_value_of_the_globals(method):
    fit = bundled("random_slopes").fit(method=method, seed=1, steps=200, elbo_draws=20)
    before, shift = approximation(fit.family, fit.inputs), 0.25 * np.random.default_rng(12).standard_normal(4)
    after = approximation(displaced(fit, shift), fit.inputs)
    theta = before.draw_globals(np.random.default_rng(1), 20)
    with jax.enable_x64(True):
        one, other = (np.asarray(q.family.standard(jnp.asarray(theta))) for q in (before, after))
    np.testing.assert_allclose(other, one - shift, atol=1e-5)
    np.testing.assert_allclose(after.centers(theta), before.centers(theta), atol=1e-4)

    def widths(q, theta):
        """How far the same standard normals move units from their centres."""
        return q.draw_units(np.random.default_rng(2), theta)[0] - q.centers(theta)

    # Log scales flatten far out, so there they don't quite stay.
    change = np.abs(widths(after, theta) / widths(before, theta) - 1)
    assert np.quantile(change, 0.99) < 0.01
    assert np.quantile(np.abs(widths(before, theta + shift) / widths(before, theta) - 1), 0.5) > 0.03


def test_units_that_follow_by_a_polynomial_are_left_to_training():
    given = {"method": "avi:polynomial(1):conditional", "seed": 1, "steps": 20, "elbo_draws": 20}
    fit = bundled("random_slopes").fit(**given)
    assert stepped(fit, fit.family) is None


@pytest.mark.slow
def test_a_fit_knows_globals_that_move_together_with_all_units():
    # All three alphas may grow together, which the ELBO hardly tells while the units have not followed.
    rng = np.random.default_rng(5)
    shares, answers = rng.dirichlet([4, 2, 1], 300), rng.integers(3, 25, 300)
    y = np.array([rng.multinomial(n, p) for n, p in zip(answers, shares, strict=True)])
    model = avi.Model(stan_code=DIRICHLET, data={"J": 300, "y": y})
    fit = model.fit(seed=1)
    mean, sd = exact_moments(y, fit)
    own = fit.marginals()[0][:3]
    assert np.abs(own - mean).max() < 0.4 * sd.min()


def exact_moments(y, fit):
    """Means and sds (3,) of log alpha, the shares integrated out in closed form, by importance sampling."""
    rng = np.random.default_rng(2)
    theta = fit.unconstrained_draws(4000)[0][:, :3]
    center, factor = theta.mean(axis=0), 1.5 * np.linalg.cholesky(np.cov(theta.T))
    normal = rng.standard_normal((20_000, 3))
    log_alpha = center + normal @ factor.T
    alpha = np.exp(log_alpha)
    total, count = alpha.sum(axis=1), y.sum(axis=1)
    log_p = (2 * log_alpha - 0.5 * alpha).sum(axis=1)  # gamma(2, 0.5), and the change to log alpha
    log_p += len(y) * gammaln(total) - gammaln(total[:, None] + count).sum(axis=1)
    for k in range(3):
        values, times = np.unique(y[:, k], return_counts=True)
        log_p += gammaln(alpha[:, k, None] + values) @ times - len(y) * gammaln(alpha[:, k])
    log_weights = log_p + 0.5 * (normal**2).sum(axis=1)
    weights = np.exp(log_weights - logsumexp(log_weights))
    assert 1 / (weights**2).sum() > 1000
    mean = weights @ log_alpha
    return mean, np.sqrt(weights @ (log_alpha - mean) ** 2)


@pytest.mark.parametrize("method", ["fvi:full-rank", "fvi:low-rank(1)"])
def test_a_step_moves_globals_where_there_are_no_units(method):
    code = """
    parameters { vector[3] x; }
    model { x[1] ~ normal(2, 0.5); x[2 : 3] ~ normal(x[1], 1); }"""
    fit = avi.Model(stan_code=code).fit(method=method, seed=1)
    assert fit.family.local.block == 0
    shift = drawn_shift(fit)
    step = stepped(fit, displaced(fit, shift))
    assert step.size == pytest.approx(1.5, abs=0.05)
    mean, sd = fit.marginals()
    np.testing.assert_allclose(mean, 2, atol=0.1)
    np.testing.assert_allclose(sd, np.sqrt([0.25, 1.25, 1.25]), rtol=0.05)
