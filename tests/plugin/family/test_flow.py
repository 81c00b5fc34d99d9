"""The sinh-arcsinh flow: its density is exact, its inverse an inverse, and a skewed posterior is met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import avistan as avi
from avistan.family.flow import NUMBERS, bend, straighten

# A unit that counted nothing: its log rate has the density of a log gamma variable, skewed to the left.
LOG_GAMMA = """
data { int N; vector[N] shape; }
parameters { vector[N] z; real m; }
model { m ~ std_normal(); target += dot_product(shape, z) - sum(exp(z)); }
"""


@pytest.fixture
def generic():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        yield jnp.array(rng.normal(size=(NUMBERS, 4, 3))), jnp.array(2 * rng.normal(size=(7, 4, 3)))


def test_slope_and_curvature_are_derivatives(generic):
    numbers, r = generic
    bent, (up, down) = bend(numbers, r), (bend(numbers, r + step) for step in (1e-6, -1e-6))
    np.testing.assert_allclose((up.value - down.value) / 2e-6, bent.slope, rtol=1e-7)
    np.testing.assert_allclose(np.log(up.slope / down.slope) / 2e-6, bent.curvature, rtol=1e-6, atol=1e-8)


def test_straighten_inverts_bend(generic):
    numbers, r = generic
    np.testing.assert_allclose(straighten(numbers, bend(numbers, r).value), r, rtol=1e-9, atol=1e-10)


def test_zeros_are_the_identity(generic):
    _, r = generic
    bent = bend(np.zeros((NUMBERS, 4, 3)), r)
    np.testing.assert_allclose(bent.value, r, rtol=1e-13)
    np.testing.assert_allclose(bent.slope, 1, atol=1e-13)
    np.testing.assert_allclose(bent.curvature, 0, atol=1e-13)


@pytest.mark.parametrize("method", [pytest.param("avi", marks=pytest.mark.slow), "fvi"])
def test_a_skewed_units_mean_sd_and_skewness_are_met_where_a_gaussian_misses_them(method):
    shape = np.repeat([0.5, 1.0, 4.0], 20)
    model = avi.Model(stan_code=LOG_GAMMA, data={"N": shape.size, "shape": shape})
    exact = stats.loggamma(0.5)
    errors = {}
    for name in (method, f"{method}:flow"):
        fit = model.fit(method=name, seed=1)
        z = fit.unconstrained_draws(4000)[0][:, :20].ravel()
        errors[name] = abs(z.std() / exact.std() - 1), abs(stats.skew(z) - exact.stats("s"))
        if name.endswith("flow"):
            assert abs(z.mean() - exact.mean()) < 0.1 * exact.std()
            log_evidence = sum(stats_log_gamma(a) for a in shape) + 0.5 * np.log(2 * np.pi)
            assert fit.elbo <= log_evidence + 3 * fit.elbo_se
    assert errors[f"{method}:flow"][0] < 0.5 * errors[method][0]
    assert errors[f"{method}:flow"][1] < 0.5 * errors[method][1]


def stats_log_gamma(a: float) -> float:
    """log of the integral of exp(a z - exp(z)) over z."""
    from scipy.special import gammaln

    return float(gammaln(a))
