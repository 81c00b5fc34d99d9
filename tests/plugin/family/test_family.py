"""The variational family: exact log densities, path derivatives, placement, and what training may move."""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from avistan.family.family import Family, trainable
from avistan.family.functions import Constant, LocalNu, Table, make_mlp, make_polynomial
from avistan.family.globals import FullRankGlobals, start_globals
from avistan.family.locals import LocalGaussian
from avistan.family.placement import make_frame, make_placement
from family_draws import drawn

N, D_LOCAL, G, R = 5, 3, 2, 4
H = 3  # curved directions, where there are any
RANK = 1  # of the globals' factor, where that is low-rank


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
    return LocalNu(*(jnp.asarray(rng.normal(size=(size, units))) for size in local.sizes))


FORMS = {
    "diagonal": ("diagonal", "none", "mean-field", 0),
    "full": ("full", "none", "mean-field", 0),
    "full-rank": ("diagonal", "none", "full-rank", 0),
    "conditional": ("full", "mean", "mean-field", G),
    "everything": ("full", "mean+scale", "full-rank", G),
    "few directions": ("diagonal", "mean+scale", "full-rank", 1),
    "low-rank": ("full", "mean+scale", "low-rank", G),
    "flow": ("full", "mean+scale", "full-rank", G),
    "low-rank flow": ("diagonal", "none", "low-rank", 0),
    "curved": ("full", "curved", "full-rank", G),
    "curved flow along few directions": ("diagonal", "curved", "full-rank", 1),
    "student": ("full", "mean+scale", "full-rank", G),
}


def random_family(form: str, source: str, layout: str, seed: int = 0) -> tuple[Family, jax.Array]:
    """A family with generic values everywhere, so that a forgotten term can't hide behind a zero or a one."""
    rng = np.random.default_rng(seed)
    at, index = layouts()[layout]
    kind, conditional, globals_kind, directions = FORMS[form]
    flow = "flow" in form
    hidden = H if conditional == "curved" else 0
    local = LocalGaussian(
        kind,
        D_LOCAL,
        conditional,
        directions + hidden,
        flow=flow,
        hidden=hidden,
        student="student" in form,
    )
    inputs = jnp.asarray(rng.normal(size=(N, R)), dtype=jnp.float32)
    start = local_nu(rng, local, N if source == "table" else 1)
    columns = N if source == "table" else 1
    functions = {
        "table": lambda: Table(start),
        "constant": lambda: Constant(start),
        "polynomial": lambda: make_polynomial(R, 2, start),
        "mlp": lambda: make_mlp(np.random.default_rng(1), R, 8, start),
    }

    def generic(leaf: jax.Array) -> jax.Array:
        return leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), dtype=leaf.dtype)

    function = jax.tree.map(generic, functions[source]())
    frame = make_frame(
        rng.normal(size=G),
        rng.uniform(0.5, 2, G),
        rng.normal(size=(D_LOCAL, columns)),
        rng.uniform(0.5, 2, (D_LOCAL, columns)),
    )
    factor = jax.tree.map(generic, start_globals(globals_kind, G, RANK, flow=flow))
    few = jnp.asarray(rng.normal(size=(directions, G))) if 0 < directions < G else None
    curve = jnp.asarray(rng.normal(size=(H, directions + 1))) if hidden else None
    return Family(factor, function, local, frame, make_placement(at, index), few, curve), inputs


CASES = [
    (form, source, layout)
    for form in FORMS
    for source in ("table", "constant", "polynomial", "mlp")
    for layout in layouts()
    if (source, layout) == ("mlp", "scattered")
    or (form in ("diagonal", "everything") and (source == "mlp" or layout == "scattered"))
]
every_family = pytest.mark.parametrize(
    ("form", "source", "layout"), CASES, ids=["-".join(case) for case in CASES]
)


class Mapped(NamedTuple):
    """What a family makes of some normals, the last ones all zero."""

    noise: np.ndarray
    log_q: np.ndarray
    pull: np.ndarray
    jacobians: np.ndarray  # d theta / d noise
    slopes: np.ndarray  # d log q / d noise


@functools.cache
def mapped(form: str, source: str, layout: str) -> Mapped:
    family, inputs = random_family(form, source, layout)
    noise = np.random.default_rng(1).normal(size=(4, family.dim))
    noise[-1] = 0

    def of_one(one: jax.Array) -> tuple[jax.Array, jax.Array]:
        draws = drawn(family, one[None], inputs)
        return draws.theta[0], draws.log_q[0]

    draws = drawn(family, jnp.asarray(noise), inputs)
    jacobians, slopes = jax.vmap(jax.jacobian(of_one))(jnp.asarray(noise))
    return Mapped(noise, *map(np.asarray, (draws.log_q, draws.pull, jacobians, slopes)))


# Student's t is a mixture of what the map makes of normals: `test_student` has its density.
every_map_of_normals = pytest.mark.parametrize(
    ("form", "source", "layout"), [case for case in CASES if case[0] != "student"]
)


@every_map_of_normals
def test_log_q_is_the_density_of_what_the_map_makes_of_normals(form, source, layout):
    found = mapped(form, source, layout)
    volume = np.linalg.slogdet(found.jacobians)[1]
    np.testing.assert_allclose(found.log_q, norm.logpdf(found.noise).sum(axis=1) - volume, rtol=1e-9)


@every_map_of_normals
def test_pull_is_minus_the_gradient_of_log_q_at_the_draw(form, source, layout):
    found = mapped(form, source, layout)
    for slope, jacobian, pull in zip(found.slopes, found.jacobians, found.pull, strict=True):
        np.testing.assert_allclose(pull, -np.linalg.solve(jacobian.T, slope), rtol=1e-8, atol=1e-10)


@every_family
def test_what_depends_on_what_is_what_the_form_says(form, source, layout):
    factor = mapped(form, source, layout).jacobians[-1]
    covariance = factor @ factor.T
    kind, conditional, globals_kind, _ = FORMS[form]
    at, index = layouts()[layout]
    precision = np.linalg.inv(covariance)
    pairs = [(i, j) for i in range(N) for j in range(N) if i != j]
    between = [precision[np.ix_(index[i], index[j])] for i, j in pairs]
    assert np.abs(between).max() < 1e-9 * np.abs(precision).max()  # independent given the globals
    within = np.abs(covariance[np.ix_(index[0], index[0])][np.triu_indices(D_LOCAL, 1)]).max()
    across = np.abs(covariance[np.ix_(at, index[0])]).max()
    assert (within > 0.01) == (kind == "full" or conditional != "none")
    assert (across > 0.01) == (conditional != "none")
    assert (np.abs(covariance[at[0], at[1]]) > 0.01) == (globals_kind != "mean-field")


def test_a_new_conditional_factor_is_the_plain_one():
    plain, inputs = random_family("full", "table", "scattered")
    local = LocalGaussian("full", D_LOCAL, "mean+scale", G)
    zeros = jnp.zeros((D_LOCAL * G, N))
    function = Table(plain.inference.nu._replace(slope=zeros, growth=zeros))
    lower = jnp.zeros(G * (G - 1) // 2)
    factor = FullRankGlobals(plain.globals.loc, plain.globals.log_sd, lower)
    richer = Family(factor, function, local, plain.frame, plain.placement, None)
    noise = jnp.asarray(np.random.default_rng(3).normal(size=(5, plain.dim)))
    for one, other in zip(drawn(plain, noise, inputs), drawn(richer, noise, inputs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@every_family
def test_every_trainable_leaf_receives_a_gradient_and_no_other_leaf_is_trainable(form, source, layout):
    family, inputs = random_family(form, source, layout)
    noise = jnp.asarray(np.random.default_rng(4).normal(size=(3, family.dim)))

    def objective(moved: Family) -> jax.Array:
        draws = drawn(eqx.combine(moved, fixed), noise, inputs)
        return jnp.sum(jnp.sin(draws.theta)) + jnp.sum(draws.log_q)

    moved, fixed = eqx.partition(family, trainable(family))
    gradient = jax.grad(objective)(moved)
    for leaf in (leaf for leaf in jax.tree.leaves(gradient) if leaf.size):
        assert np.abs(np.asarray(leaf)).max() > 0
    assert jax.tree.leaves(eqx.filter((moved.frame, moved.placement), eqx.is_array)) == []


@pytest.mark.parametrize("source", ["constant", "polynomial", "mlp"])
@pytest.mark.parametrize("kind", ["diagonal", "everything"])
def test_permuting_the_units_permutes_the_local_posteriors(source, kind):
    family, inputs = random_family(kind, source, "scattered")
    order = np.random.default_rng(5).permutation(N)
    plain, permuted = family.local_parameters(inputs), family.local_parameters(inputs[order])
    for before, after in zip(plain, permuted, strict=True):
        np.testing.assert_allclose(np.asarray(before)[:, order], after, rtol=1e-6)


@pytest.mark.parametrize("layout", layouts())
def test_placement_is_a_permutation_also_in_its_gradients(layout):
    at, index = layouts()[layout]
    rng = np.random.default_rng(6)
    of_globals, of_locals = jnp.asarray(rng.normal(size=G)), jnp.asarray(rng.normal(size=index.T.shape))
    weights = jnp.asarray(rng.normal(size=G + index.size))
    expected = np.empty(G + index.size)
    expected[at], expected[index] = of_globals, of_locals.T
    place = make_placement(at, index)
    np.testing.assert_array_equal(place(of_globals, of_locals), expected)
    to_globals, to_locals = jax.grad(lambda a, b: jnp.sum(place(a, b) * weights), argnums=(0, 1))(
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
