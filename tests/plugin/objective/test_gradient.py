"""ELBO estimators against exact answers on Gaussians, and rejected draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avistan.family.family import Family, trainable
from avistan.family.functions import Table
from avistan.family.globals import GlobalGaussian
from avistan.family.locals import LocalGaussian
from avistan.family.normals import Noise
from avistan.family.placement import make_frame, make_placement
from avistan.objective.gradient import neg_elbo

D = 4
PRECISION = np.array(
    [[2.0, 0.6, 0.0, 0.3], [0.6, 1.5, -0.4, 0.0], [0.0, -0.4, 1.2, 0.2], [0.3, 0.0, 0.2, 0.8]]
)
MEAN = np.array([0.5, -1.0, 2.0, 0.3])


def rows(noise):
    """Standard normals (S, D) of globals, without units."""
    return Noise(noise, jnp.zeros((len(noise), 0, 0)), jax.random.split(jax.random.key(0), 0))


def normal_density(theta, z):
    """log N(theta; MEAN, inverse of PRECISION) and statuses."""
    centred = theta - jnp.asarray(MEAN)[None]
    log_det = np.linalg.slogdet(PRECISION)[1]
    quadratic = jnp.sum((centred @ jnp.asarray(PRECISION)) * centred, axis=1)
    return -0.5 * quadratic + 0.5 * log_det - 0.5 * D * np.log(2 * np.pi), jnp.zeros(
        len(theta), dtype=jnp.int32
    )


def mean_field(loc, log_sd) -> tuple[Family, jax.Array]:
    """A mean-field Gaussian over D globals; no units."""
    frame = make_frame(np.zeros(D), np.ones(D), np.zeros((0, 0)), np.ones((0, 0)))
    local = LocalGaussian("diagonal", 0)
    placement = make_placement(np.arange(D), np.empty((0, 0), dtype=np.int64))
    nobody = Table(local.start(jnp.zeros((0, 0))))
    family = Family(
        GlobalGaussian(jnp.asarray(loc), jnp.asarray(log_sd), jnp.zeros(0)),
        nobody,
        local,
        frame,
        placement,
        None,
    )
    return family, jnp.zeros((0, 0), dtype=jnp.float32)


def exact_elbo(loc, log_sd):
    """E_q log p + entropy, in closed form."""
    centred = loc - jnp.asarray(MEAN)
    variance = jnp.exp(2 * log_sd)
    expected = -0.5 * (centred @ jnp.asarray(PRECISION) @ centred + jnp.sum(variance * np.diag(PRECISION)))
    expected += 0.5 * np.linalg.slogdet(PRECISION)[1] - 0.5 * D * np.log(2 * np.pi)
    return expected + jnp.sum(log_sd) + 0.5 * D * (1 + np.log(2 * np.pi))


LOC, LOG_SD = np.array([0.2, -0.5, 1.5, 1.0]), np.array([-0.3, 0.2, -0.8, 0.4])


@pytest.mark.parametrize("estimator", ["path", "entropy"])
def test_the_estimator_and_its_gradient_are_unbiased(estimator, key):
    noise = jax.random.normal(key, (400, 50, D), dtype=jnp.float64)

    def one(noise):
        family, inputs = mean_field(LOC, LOG_SD)
        moved, fixed = eqx.partition(family, trainable(family))

        def loss(moved):
            return neg_elbo(
                eqx.combine(moved, fixed), normal_density, rows(noise), inputs, estimator=estimator
            )

        gradient, info = jax.grad(loss, has_aux=True)(moved)
        return gradient.globals.loc, gradient.globals.log_sd, info.elbo

    to_loc, to_log_sd, elbo = jax.jit(jax.vmap(one))(noise)
    expected = jax.grad(exact_elbo, argnums=(0, 1))(jnp.asarray(LOC), jnp.asarray(LOG_SD))
    for draws, exact in ((-to_loc, expected[0]), (-to_log_sd, expected[1]), (elbo, exact_elbo(LOC, LOG_SD))):
        se = np.asarray(draws).std(axis=0, ddof=1) / np.sqrt(len(draws))
        assert (np.abs(np.asarray(draws).mean(axis=0) - np.asarray(exact)) < 5 * se).all()


def test_the_path_gradient_has_no_noise_where_q_is_the_posterior(key):
    family, inputs = mean_field(MEAN, -0.5 * np.log(np.diag(PRECISION)))
    moved, fixed = eqx.partition(family, trainable(family))
    noise = jax.random.normal(key, (3, D), dtype=jnp.float64)

    def independent(theta, z):
        centred = theta - jnp.asarray(MEAN)[None]
        return -0.5 * jnp.sum(jnp.asarray(np.diag(PRECISION))[None] * centred**2, axis=1), jnp.zeros(
            3, dtype=jnp.int32
        )

    def loss(moved, estimator):
        return neg_elbo(eqx.combine(moved, fixed), independent, rows(noise), inputs, estimator=estimator)[0]

    for leaf in jax.tree.leaves(jax.grad(loss)(moved, "path")):
        np.testing.assert_allclose(leaf, 0, atol=1e-12)
    noisy = jax.tree.leaves(jax.grad(loss)(moved, "entropy"))
    assert max(np.abs(np.asarray(leaf)).max(initial=0) for leaf in noisy) > 0.1


@pytest.mark.parametrize("estimator", ["path", "entropy"])
def test_rejected_draws_count_neither_in_the_value_nor_in_the_gradient(estimator, key):
    family, inputs = mean_field(LOC, LOG_SD)
    moved, fixed = eqx.partition(family, trainable(family))
    noise = jax.random.normal(key, (6, D), dtype=jnp.float64)
    rejected = np.array([False, True, False, True, True, False])

    def density(theta, z):
        lp, status = normal_density(theta, z)
        return jnp.where(rejected, -jnp.inf, lp), status + jnp.asarray(rejected, dtype=jnp.int32)

    def loss(moved, density, noise):
        return neg_elbo(eqx.combine(moved, fixed), density, rows(noise), inputs, estimator=estimator)

    some, info = jax.grad(loss, has_aux=True)(moved, density, noise)
    kept, of_kept = jax.grad(loss, has_aux=True)(moved, normal_density, noise[~rejected])
    assert int(info.num_rejected) == 3
    np.testing.assert_allclose(info.elbo, of_kept.elbo, rtol=1e-12)
    for one, other in zip(jax.tree.leaves(some), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_step_whose_draws_are_all_rejected_has_a_finite_gradient_and_no_elbo():
    family, inputs = mean_field(LOC, LOG_SD)
    moved, fixed = eqx.partition(family, trainable(family))

    def density(theta, z):
        return jnp.full(len(theta), -jnp.inf), jnp.ones(len(theta), dtype=jnp.int32)

    def loss(moved):
        return neg_elbo(
            eqx.combine(moved, fixed), density, rows(jnp.ones((2, D))), inputs, estimator="entropy"
        )

    gradient, info = jax.grad(loss, has_aux=True)(moved)
    assert np.isnan(info.elbo)
    assert int(info.num_rejected) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
