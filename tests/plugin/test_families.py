"""The variational family: exact log densities, path derivatives, placement, and what training may move."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from avistan.families import Family, LocalGaussian, MeanField, make_frame, make_placement, trainable
from avistan.inference_functions import Constant, LocalNu, Table, make_mlp, make_polynomial

N, D_LOCAL, G, R = 5, 3, 2, 4


def layouts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Positions of globals (G,) and locals (N, d) in vectors of different orders."""
    total = G + N * D_LOCAL
    shuffled = np.random.default_rng(3).permutation(total)
    return {
        "vectors after globals": (np.arange(G), (G + np.arange(N * D_LOCAL)).reshape(D_LOCAL, N).T),
        "array of vectors first": (np.arange(total - G, total), np.arange(N * D_LOCAL).reshape(N, D_LOCAL)),
        "scattered": (np.sort(shuffled[:G]), shuffled[G:].reshape(N, D_LOCAL)),
    }


def local_nu(rng: np.random.Generator, local: LocalGaussian, units: int) -> LocalNu:
    sizes = (local.block, local.block, local.num_parameters - 2 * local.block)
    return LocalNu(*(jnp.asarray(rng.normal(size=(size, units))) for size in sizes))


def random_family(kind: str, source: str, layout: str, seed: int = 0) -> tuple[Family, jax.Array]:
    """A family with generic values everywhere, so that a forgotten term can't hide behind a zero or a one."""
    rng = np.random.default_rng(seed)
    at, index = layouts()[layout]
    local = LocalGaussian(kind, D_LOCAL)
    inputs = jnp.asarray(rng.normal(size=(N, R)), dtype=jnp.float32)
    start = local_nu(rng, local, N if source == "table" else 1)
    columns = N if source == "table" else 1
    functions = {
        "table": lambda: Table(start),
        "constant": lambda: Constant(start),
        "polynomial": lambda: make_polynomial(R, 2, start),
        "mlp": lambda: make_mlp(jax.random.key(1), R, 8, start),
    }
    function = functions[source]()
    moved = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), dtype=leaf.dtype), function
    )
    frame = make_frame(
        rng.normal(size=G),
        rng.uniform(0.5, 2, G),
        rng.normal(size=(D_LOCAL, columns)),
        rng.uniform(0.5, 2, (D_LOCAL, columns)),
    )
    means = MeanField(jnp.asarray(rng.normal(size=G)), jnp.asarray(rng.normal(size=G)))
    return Family(means, moved, local, frame, make_placement(at, index)), inputs


CASES = [
    (kind, source, layout)
    for kind in ("diagonal", "full")
    for source in ("table", "constant", "polynomial", "mlp")
    for layout in layouts()
]
every_family = pytest.mark.parametrize(
    ("kind", "source", "layout"), CASES, ids=["-".join(case) for case in CASES]
)


def dense_gaussian(family: Family, inputs: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and Cholesky factor of q, read off the affine map itself at noise 0 and at unit vectors."""
    dim = family.dim
    at_zero = np.asarray(family.draw(jnp.zeros((1, dim)), inputs).theta[0])
    columns = np.asarray(family.draw(jnp.eye(dim), inputs).theta) - at_zero
    return at_zero, columns.T


@every_family
def test_log_q_is_the_density_of_the_gaussian_that_the_draws_come_from(kind, source, layout):
    family, inputs = random_family(kind, source, layout)
    mean, factor = dense_gaussian(family, inputs)
    noise = np.random.default_rng(1).normal(size=(6, family.dim))
    draws = family.draw(jnp.asarray(noise), inputs)
    exact = multivariate_normal(mean, factor @ factor.T).logpdf(np.asarray(draws.theta))
    np.testing.assert_allclose(draws.log_q, exact, rtol=1e-9)


@every_family
def test_pull_is_minus_the_gradient_of_log_q_at_the_draw(kind, source, layout):
    family, inputs = random_family(kind, source, layout)
    mean, factor = dense_gaussian(family, inputs)
    noise = np.random.default_rng(2).normal(size=(4, family.dim))
    draws = family.draw(jnp.asarray(noise), inputs)
    precision = np.linalg.inv(factor @ factor.T)
    np.testing.assert_allclose(
        draws.pull, (np.asarray(draws.theta) - mean) @ precision, rtol=1e-8, atol=1e-10
    )


@every_family
def test_units_are_independent_of_each_other_and_of_the_globals(kind, source, layout):
    family, inputs = random_family(kind, source, layout)
    _, factor = dense_gaussian(family, inputs)
    covariance = factor @ factor.T
    at, index = layouts()[layout]
    block_of = np.empty(family.dim, dtype=int)
    block_of[at] = -1 - np.arange(G)
    block_of[index] = np.arange(N)[:, None]
    apart = block_of[:, None] != block_of[None]
    assert np.abs(covariance[apart]).max() == 0
    within = covariance[~apart & ~np.eye(family.dim, dtype=bool)]
    assert (np.abs(within).max() > 0.01) == (kind == "full")


@every_family
def test_every_trainable_leaf_receives_a_gradient_and_no_other_leaf_is_trainable(kind, source, layout):
    family, inputs = random_family(kind, source, layout)
    noise = jnp.asarray(np.random.default_rng(4).normal(size=(3, family.dim)))

    def objective(moved: Family) -> jax.Array:
        draws = eqx.combine(moved, fixed).draw(noise, inputs)
        return jnp.sum(jnp.sin(draws.theta)) + jnp.sum(draws.log_q)

    moved, fixed = eqx.partition(family, trainable(family))
    gradient = jax.grad(objective)(moved)
    for leaf in (leaf for leaf in jax.tree.leaves(gradient) if leaf.size):
        assert np.abs(np.asarray(leaf)).max() > 0
    assert jax.tree.leaves(eqx.filter((moved.frame, moved.placement), eqx.is_array)) == []


@pytest.mark.parametrize("source", ["constant", "polynomial", "mlp"])
@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_permuting_the_units_permutes_the_local_posteriors(source, kind):
    family, inputs = random_family(kind, source, "scattered")
    order = np.random.default_rng(5).permutation(N)
    plain, permuted = family.local_parameters(inputs), family.local_parameters(inputs[order])
    for before, after in zip(plain, permuted, strict=True):
        np.testing.assert_allclose(np.asarray(before)[:, order], after, rtol=1e-6)


@pytest.mark.parametrize("layout", layouts())
def test_placement_by_slices_and_by_permutation_agree_also_in_their_gradients(layout):
    at, index = layouts()[layout]
    rng = np.random.default_rng(6)
    of_globals, of_locals = jnp.asarray(rng.normal(size=G)), jnp.asarray(rng.normal(size=index.T.shape))
    weights = jnp.asarray(rng.normal(size=G + index.size))
    expected = np.empty(G + index.size)
    expected[at], expected[index] = of_globals, of_locals.T
    for max_runs in (0, 1000):
        place = make_placement(at, index, max_runs=max_runs)
        assert (place.runs is None) == (max_runs == 0)
        np.testing.assert_array_equal(place(of_globals, of_locals), expected)
        to_globals, to_locals = jax.grad(lambda a, b, f=place: jnp.sum(f(a, b) * weights), argnums=(0, 1))(
            of_globals, of_locals
        )
        np.testing.assert_array_equal(to_globals, weights[at])
        np.testing.assert_array_equal(to_locals, weights[index].T)


@pytest.mark.parametrize("source", ["polynomial", "mlp"])
def test_an_outlying_input_can_not_overflow_its_units_sd(source):
    family, inputs = random_family("diagonal", source, "scattered")
    far = inputs.at[0].set(1e4)
    log_sd = np.asarray(family.local_parameters(far).log_sd)
    assert np.isfinite(log_sd).all()
    spread = log_sd - np.asarray(family.frame.local_log_scale)
    assert np.abs(spread).max() <= 10
    np.testing.assert_allclose(
        log_sd[:, 1:], np.asarray(family.local_parameters(inputs).log_sd)[:, 1:], rtol=1e-6
    )
