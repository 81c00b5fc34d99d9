"""Globals with a low-rank covariance: against the dense Gaussian, and exact where the posterior has that form."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import avistan as avi
from avistan.correction.approximation import approximation
from avistan.family.globals import LowRankGlobals, start_globals
from avistan.family.method import parse_method
from avistan.start.preparation import prepare, start_family
from family_draws import drawn
from programs import NORMALS, bind

G, K = 7, 3
GAUSSIAN = """
data { int G; matrix[G, G] precision; }
parameters { vector[G] x; }
model { target += -0.5 * quad_form(precision, x); }
"""


def generic_factor(seed: int = 0) -> LowRankGlobals:
    rng = np.random.default_rng(seed)
    start = start_globals("low-rank", G, K)
    parts = (0.7 * rng.normal(size=part.shape) for part in (start.loc, start.log_sd, start.below))
    return LowRankGlobals(*map(jnp.asarray, parts))


def test_the_factor_is_a_diagonal_and_a_matrix_of_low_rank():
    factor = generic_factor()
    dense = np.asarray(factor.factor())
    unit = dense / np.exp(np.asarray(factor.log_sd))[:, None] - np.eye(G)
    assert np.linalg.matrix_rank(unit, tol=1e-9) == K
    t = np.random.default_rng(1).normal(size=(4, G))
    np.testing.assert_allclose(factor.moved(jnp.asarray(t)), t @ dense.T, rtol=1e-10)
    np.testing.assert_allclose(factor.solved(jnp.asarray(t)), np.linalg.solve(dense.T, t.T).T, rtol=1e-8)
    np.testing.assert_allclose(factor.log_det(), np.linalg.slogdet(dense)[1], rtol=1e-10)


def test_any_diagonal_plus_low_rank_covariance_is_one_of_the_family():
    rng = np.random.default_rng(2)
    sd, columns = rng.uniform(0.5, 2, G), rng.normal(size=(G, K))
    covariance = np.diag(sd**2) + columns @ columns.T
    basis, values, _ = np.linalg.svd(columns / sd[:, None], full_matrices=False)
    into = basis * (np.sqrt(1 + values**2) - 1)
    below = jnp.asarray(np.stack([basis, into]).ravel())
    dense = np.asarray(LowRankGlobals(jnp.zeros(G), jnp.log(sd), below).factor())
    np.testing.assert_allclose(dense @ dense.T, covariance, rtol=1e-9, atol=1e-12)


def test_densities_are_those_of_the_dense_gaussian():
    rng = np.random.default_rng(3)
    with bind(NORMALS, {"D": G, "mean": rng.normal(size=G), "sd": rng.uniform(0.5, 2, G)}) as model:
        preparation = prepare(model, None, seed=1, num_references=6, max_rank=4)
        family, inputs = start_family(preparation, parse_method(f"fvi:low-rank({K})"))
    family = type(family)(
        generic_factor(4), *(getattr(family, n) for n in list(family.__dataclass_fields__)[1:])
    )
    draws = drawn(family, jnp.asarray(rng.normal(size=(5, G))), inputs)
    scale = np.asarray(family.frame.global_scale)
    mean = np.asarray(family.frame.global_center) + scale * np.asarray(family.globals.loc)
    dense = scale[:, None] * np.asarray(family.globals.factor())
    expected = multivariate_normal(mean, dense @ dense.T)
    theta = np.asarray(draws.theta)
    np.testing.assert_allclose(draws.log_q, expected.logpdf(theta), rtol=1e-9)
    slope = np.linalg.solve(dense @ dense.T, (theta - mean).T).T
    np.testing.assert_allclose(draws.pull, slope, rtol=1e-7, atol=1e-9)
    q = approximation(family, np.empty((0, 0)))  # asked at theta, through the inverse of L
    np.testing.assert_allclose(q.log_q_globals(theta), expected.logpdf(theta), rtol=1e-9)


@pytest.mark.parametrize(("rank", "exact"), [(1, False), (2, True)])
def test_a_posterior_of_that_rank_is_found_exactly(rank, exact, tmp_path):
    rng = np.random.default_rng(0)
    sd = np.exp(0.5 * rng.normal(size=40))
    columns = 1.5 * sd[:, None] * rng.normal(size=(40, 2))
    covariance = np.diag(sd**2) + columns @ columns.T
    precision = np.linalg.inv(covariance)
    model = avi.Model(stan_code=GAUSSIAN, data={"G": 40, "precision": (precision + precision.T) / 2})
    fit = model.fit(method=f"fvi:low-rank({rank})", seed=1, steps=600)
    evidence = 0.5 * (40 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1])
    assert fit.elbo < evidence + 3 * fit.elbo_se
    assert (evidence - fit.elbo < 0.05) == exact
    fit.save(tmp_path / "fit")
    loaded = avi.load(tmp_path / "fit")
    np.testing.assert_array_equal(loaded.unconstrained_draws(9)[0], fit.unconstrained_draws(9)[0])
    again = model.fit(method=f"fvi:low-rank({rank})", seed=1, steps=600)
    assert again.trace.elbo.tobytes() == fit.trace.elbo.tobytes()
    if exact:
        weights = fit.evaluation.log_weights
        assert weights.std() < 0.3
