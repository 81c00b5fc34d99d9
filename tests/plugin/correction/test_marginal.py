"""The density of the globals with units integrated out, where it is known in closed form."""

import numpy as np
import pytest
from scipy import special, stats

import avistan as avi
from avistan.correction.approximation import approximation
from avistan.correction.marginal import marginal_density
from avistan.runtime.precision import in_float64
from programs import bundled, simulator

# The latents of a unit add up to its mean: y_n is normal with sd sqrt(1 + d s^2) given m and s.
SUMS = """
data {{ int N; vector[N] y; }}
parameters {{ real m; real<lower=0> s; array[N] vector[{block}] z; }}
model {{
  m ~ normal(0, 5); s ~ normal(0, 1);
  for (n in 1:N) {{ z[n] ~ normal(0, s); y[n] ~ normal(m + sum(z[n]), 1); }}
}}
"""
# The exponential of a unit's latent and b together is gamma-distributed given b, which no unit tells anything of.
GAMMAS = """
data { int N; vector<lower=0>[N] y; }
parameters { real b; vector[N] z; }
model { b ~ normal(0, 1); target += y .* (b + z) - exp(b + z); }
"""


def opened(fit):
    return marginal_density(fit.model, approximation(fit.family, fit.inputs))


def test_normal_units_have_the_marginal_and_gradient_of_the_closed_form():
    data = simulator("linear")(200)
    fit = bundled("linear", data).fit(method="avi:polynomial(1)", seed=1, steps=300)
    theta = np.linspace(-1, 1, 20)[:, None] + np.mean(data["x"])

    @in_float64
    def found():
        with opened(fit) as density:
            assert density.calibrate(theta)
            return density.log_p_gradient(theta)

    values, slopes = found()
    x, sd = np.asarray(data["x"]), np.hypot(data["tau"], data["sigma"])
    expected = stats.norm.logpdf(x, theta, sd).sum(axis=1)
    np.testing.assert_allclose(values - values[0], expected - expected[0], atol=0.01)
    np.testing.assert_allclose(slopes[:, 0], ((x - theta) / sd**2).sum(axis=1), rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("block", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
def test_units_of_several_latents_are_integrated_out(block):
    y = np.random.default_rng(2).normal(1, 2, 60)
    model = avi.Model(stan_code=SUMS.format(block=block), data={"N": 60, "y": y})
    fit = model.fit(method="avi:full", seed=1, steps=400)
    m, log_s = np.meshgrid([0.8, 1.2], np.log([0.7, 0.9, 1.1]))
    theta = np.column_stack([m.ravel(), log_s.ravel()])

    @in_float64
    def found():
        with opened(fit) as density:
            assert density.calibrate(theta)
            density.check(theta)
            return density.log_p_gradient(theta)[0], density.adjustment.error

    values, error = found()
    s = np.exp(theta[:, 1])
    sd = np.sqrt(1 + block * s**2)
    expected = stats.norm.logpdf(y, theta[:, :1], sd[:, None]).sum(axis=1)
    expected += stats.norm.logpdf(theta[:, 0], 0, 5) + stats.norm.logpdf(s) + theta[:, 1]
    difference = values - expected
    assert difference.std() < 2 * max(error, 0.025)  # what is told is what they are off by
    if block < 5:
        assert np.abs(difference - difference.mean()).max() < 0.05
        assert error < 0.1


def test_draws_of_skewed_units_have_the_moments_of_their_densities():
    y = np.repeat([0.7, 3.0, 12.0], 20)
    fit = avi.Model(stan_code=GAMMAS, data={"N": 60, "y": y}).fit(method="avi", seed=1, steps=400)
    theta = np.full((400, 1), -0.5)

    @in_float64
    def drawn():
        with opened(fit) as density:
            assert density.calibrate(theta[:1])
            density.check(np.linspace(-0.7, 0.3, 8)[:, None])
            rng = np.random.default_rng(3)
            values, _ = density.log_p_gradient(np.array([[-0.5], [0.3]]))
            e, shift, log_sd = density.standardized(theta, rng)
            return density.units(theta, rng), density.restored(theta, e), shift, log_sd, values

    one, other, shift, log_sd, values = drawn()
    assert values[1] - values[0] == pytest.approx(-0.5 * (0.3**2 - 0.5**2), abs=0.1)
    assert shift.max() < 0.1
    assert log_sd.max() < 0.1
    for z in (one, other):
        groups = z[:, 0].reshape(400, 3, 20)
        mean, sd = groups.mean(axis=(0, 2)), groups.std(axis=(0, 2))
        shapes = np.array([0.7, 3.0, 12.0])
        right = np.sqrt(special.polygamma(1, shapes))
        np.testing.assert_allclose((mean - special.digamma(shapes) - 0.5) / right, 0, atol=0.05)
        np.testing.assert_allclose(sd / right, 1, atol=0.03)
