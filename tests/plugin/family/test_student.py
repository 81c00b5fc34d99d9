"""Heavy-tailed units: the density is that of scipy's multivariate t, its path derivative, and where it starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest, multivariate_t, t

import avistan as avi
from avistan.family.family import Family
from avistan.family.functions import LocalNu, Table
from avistan.family.globals import start_globals
from avistan.family.locals import LocalGaussian
from avistan.family.normals import normals
from avistan.family.placement import make_frame, make_placement
from avistan.family.student import degrees_of_freedom

N, D = 3, 2


def heavy_family(kind: str = "full", raw: float | None = None, units: int = N) -> Family:
    """A family of units alone, with generic values, or with these raw degrees of freedom and standard scales."""
    rng = np.random.default_rng(0)
    local = LocalGaussian(kind, D, student=True)
    if raw is None:
        nu = LocalNu(*(jnp.asarray(rng.normal(size=(size, units))) for size in local.sizes))
    else:
        nu = local.start(jnp.zeros((D, units)))._replace(tail=jnp.full((1, units), raw))
    at = np.empty(0, dtype=np.int64)
    frame = make_frame(np.zeros(0), np.ones(0), np.zeros((D, units)), np.ones((D, units)))
    index = np.arange(units * D).reshape(units, D)
    return Family(start_globals("mean-field", 0), Table(nu), local, frame, make_placement(at, index), None)


def drawn(family: Family, draws: int, seed: int = 1):
    units = family.num_units
    noise = normals(jax.random.key(seed), jnp.arange(units), draws, 0, D)
    return family.draw(noise, jnp.zeros((units, 0), dtype=jnp.float32))


def distributions(family: Family) -> list:
    """Each unit's multivariate t by scipy."""
    nu = family.local_parameters(jnp.zeros((family.num_units, 0), dtype=jnp.float32))
    found = []
    for n in range(family.num_units):
        factor = np.diag(np.exp(np.asarray(nu.log_sd)[:, n]))
        if family.local.within:
            factor[1, 0] = nu.below[0, n]
        df = float(degrees_of_freedom(nu.tail[0, n]))
        found.append(multivariate_t(np.asarray(nu.loc)[:, n], factor @ factor.T, df=df))
    return found


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_log_q_and_its_pull_are_those_of_the_multivariate_t(kind):
    family = heavy_family(kind)
    draws = drawn(family, 5)
    z = np.asarray(draws.z)
    expected = [one.logpdf(z[:, :, n]) for n, one in enumerate(distributions(family))]
    np.testing.assert_allclose(draws.log_q, np.sum(expected, axis=0), rtol=1e-9)
    step = 1e-6
    for n, one in enumerate(distributions(family)):
        for i in range(D):
            ends = [one.logpdf(z[:, :, n] + s * np.eye(D)[i]) for s in (step, -step)]
            slope = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(draws.pull_z[:, i, n], -slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("raw", [0.0, 3.0])
def test_draws_are_distributed_as_t(raw):
    family = heavy_family("diagonal", raw, units=1)
    df = float(degrees_of_freedom(jnp.asarray(raw)))
    z = np.asarray(drawn(family, 4000).z)[:, 0, 0]
    assert kstest(z, t(df).cdf).pvalue > 1e-3


def test_degrees_of_freedom_receive_the_gradient_of_the_mean_absolute_value():
    family = heavy_family("diagonal", 2.0, units=1)

    def mean_size(raw):
        table = Table(family.inference.nu._replace(tail=raw))
        heavy = Family(family.globals, table, family.local, family.frame, family.placement, None)
        return jnp.abs(drawn(heavy, 20_000).z).mean()

    def exact(raw):
        return t(float(degrees_of_freedom(jnp.asarray(raw)))).expect(abs)

    gradient = float(jax.jit(jax.grad(mean_size))(jnp.full((1, 1), 2.0))[0, 0])
    expected = (exact(2.01) - exact(1.99)) / 0.02
    # The gradient of |z| has a relative sd of about 3 a draw, of which there are 40,000.
    assert abs(gradient - expected) < 5 * 3 * expected / np.sqrt(40_000)


def test_without_tails_it_is_nearly_the_gaussian_from_which_it_grows():
    family = heavy_family("diagonal", 0.0, units=1)
    draws = drawn(family, 4000)
    gaussian = -0.5 * np.sum(np.asarray(draws.z) ** 2, axis=(1, 2)) - D * 0.5 * np.log(2 * np.pi)
    divergence = np.mean(np.asarray(draws.log_q) - gaussian)
    assert abs(divergence) < 2e-4 * D + 3 * np.std(np.asarray(draws.log_q) - gaussian) / np.sqrt(4000)


HEAVY = """
data { int<lower=0> N; vector[N] y; }
parameters { vector[N] z; }
model { z ~ student_t(4, y, 1); }
"""


def test_units_that_are_t_themselves_are_met_where_a_gaussian_is_short():
    data = {"N": 20, "y": np.linspace(-1, 1, 20).tolist()}
    model = avi.Model(stan_code=HEAVY, data=data)
    plain = model.fit(method="fvi", seed=1, elbo_draws=2000)
    heavy = model.fit(method="fvi:student", seed=1, elbo_draws=2000)
    gain = heavy.elbo - plain.elbo
    assert abs(gain - 20 * best_gaussian_divergence(4.0)) < 0.15
    assert "student" in heavy.method.name


def best_gaussian_divergence(df: float) -> float:
    """The least KL(N(0, s^2) | t_df), by quadrature over the normal and a search in s."""
    x, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    sds = np.exp(np.linspace(-1, 1, 400))
    entropies = 0.5 * np.log(2 * np.pi * np.e) + np.log(sds)
    return min(
        -(weights @ t(df).logpdf(sd * x)) - entropy for sd, entropy in zip(sds, entropies, strict=True)
    )
