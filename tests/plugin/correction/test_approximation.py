"""q in numpy: its densities are those of scipy, and of the draws that it makes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from avistan.correction.approximation import approximation
from avistan.family.family import trainable
from avistan.family.method import parse_method
from avistan.runtime.precision import in_float64
from avistan.start.preparation import prepare, start_family
from gaussian_families import gaussian
from programs import bundled
from stan_adapters.levels.levels import candidate_levels

FORMS = [
    "fvi:full:full-rank:conditional",
    "avi:conditional(curved):flow",
    "fvi:low-rank(1):conditional(mean+scale)",
    "fvi:student",
]


@pytest.fixture(scope="module")
@in_float64
def families():
    """Families as training begins with them, with other values wherever training moves them, and their unit inputs."""
    model, rng = bundled("random_slopes").bound, np.random.default_rng(0)
    (level,) = candidate_levels(model.layout)
    preparation = prepare(model, level, seed=1, num_references=6, max_rank=4)

    def generic(form):
        family, inputs = start_family(preparation, parse_method(form))
        moved, fixed = eqx.partition(family, trainable(family))
        moved = jax.tree.map(
            lambda leaf: leaf + (0.2 * rng.normal(size=leaf.shape)).astype(leaf.dtype), moved
        )
        return eqx.combine(moved, fixed), np.asarray(inputs, dtype=np.float64)

    return {form: generic(form) for form in FORMS}


@pytest.fixture(params=FORMS)
def q(request, families):
    return approximation(*families[request.param])


def test_full_rank_densities_are_those_of_scipy():
    mean, factor = np.array([1.0, -2.0]), np.array([[1.0, 0.0], [0.7, 0.4]])
    q = gaussian(mean, factor)
    theta = q.draw_globals(np.random.default_rng(4), 300)
    expected = stats.multivariate_normal(mean, factor @ factor.T).logpdf(theta)
    np.testing.assert_allclose(q.log_q_globals(theta), expected)


def test_the_globals_log_density_is_the_normals_less_the_log_slopes(q):
    t = np.random.default_rng(1).normal(size=(5, q.num_globals))
    with jax.enable_x64(True):
        slopes = jax.vmap(jax.jacobian(lambda at: q.family.draw_globals(at[None]).theta[0]))(jnp.asarray(t))
        expected = stats.norm.logpdf(t).sum(axis=1) - np.linalg.slogdet(np.asarray(slopes))[1]
        np.testing.assert_allclose(q.family.standard(jnp.asarray(q.globals_at(t))), t, atol=1e-10)
    np.testing.assert_allclose(q.log_q_globals(q.globals_at(t)), expected, atol=1e-9)


def test_scores_of_the_standard_normals_are_derivatives(q):
    """The density here is N(0, 1) in theta, so with the change of variables log p(t) = log N(theta(t)) + log |J|."""
    t = np.random.default_rng(2).normal(size=(3, q.num_globals))

    def log_p(at):
        theta = q.globals_at(at)
        log_jacobian = stats.norm.logpdf(at).sum(axis=1) - q.log_q_globals(theta)
        return stats.norm.logpdf(theta).sum(axis=1) + log_jacobian

    score = q.globals_score(t, -q.globals_at(t))
    for k in range(q.num_globals):
        step = np.zeros(q.num_globals)
        step[k] = 1e-5
        np.testing.assert_allclose(
            score[:, k], (log_p(t + step) - log_p(t - step)) / 2e-5, rtol=1e-5, atol=1e-5
        )


def test_units_of_a_gaussian_family_have_the_density_of_scipy(families):
    q = approximation(*families["fvi:full:full-rank:conditional"])
    theta = q.draw_globals(np.random.default_rng(1), 4)
    (z, log_q), center = q.draw_units(np.random.default_rng(2), theta), q.centers(theta)
    with jax.enable_x64(True):
        nu = q.family.local_parameters(jnp.zeros((q.family.num_units, 0)))
    sd, below = np.exp(np.asarray(nu.log_sd)), np.asarray(nu.below)
    for n in (0, 7):
        factor = np.array([[sd[0, n], 0], [below[0, n], sd[1, n]]])
        for s in range(4):
            expected = stats.multivariate_normal(center[s, n], factor @ factor.T).logpdf(z[s, n])
            assert log_q[s, n] == pytest.approx(expected, abs=1e-9)


def test_pairs_are_of_one_family_and_share_normals(q):
    theta, z, log_q = q.draw_pairs(3, 0, 4)
    other = q.with_units(q.nu._replace(loc=q.nu.loc + 1.0))
    again, moved, log_q_moved = other.draw_pairs(3, 0, 4)
    np.testing.assert_array_equal(theta, again)
    np.testing.assert_allclose(log_q, log_q_moved)
    scale = np.asarray(q.family.frame.local_scale)
    np.testing.assert_allclose(moved - z, np.broadcast_to(scale.T[None], z.shape))
    assert not np.allclose(q.draw_pairs(3, 1, 4)[0], theta)


def test_many_rows_are_those_that_few_give(q, monkeypatch):
    theta = q.draw_globals(np.random.default_rng(1), 300)
    np.testing.assert_allclose(q.centers(theta)[257:], q.centers(theta[257:]), rtol=1e-12)
    np.testing.assert_allclose(q.log_q_globals(theta)[:3], q.log_q_globals(theta[:3]), rtol=1e-12)


def test_the_center_is_the_median_of_a_mean_field_family():
    q = gaussian(np.array([1.0, -2.0]), np.array([0.5, 3.0]))
    np.testing.assert_allclose(q.center, [1.0, -2.0])
    shifted = eqx.tree_at(lambda q: q.family.globals.loc, q, q.family.globals.loc + 1.0)
    np.testing.assert_allclose(shifted.center, [1.5, 1.0])
