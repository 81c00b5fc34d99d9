"""The differentiable operations over registered models, through both of their backends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from avistan.density.log_density import block_log_density, log_density
from avistan.density.slots import register, set_layout
from density_models import (
    OVERFLOWS,
    REJECTS,
    RUN_ERRORS,
    Model,
    compiled,
    directly,
    linear,
    points,
    rows_and_gradients,
    run_isolated,
)
from programs import bind
from stan_adapters.errors import BindingError

# --- values and derivatives ---------------------------------------------------------------------------------


def test_values_and_gradients_are_those_of_direct_calls_bit_for_bit(backend, model, slot, key):
    theta = points(key, 7, model.dim)
    lp, status = compiled()(slot.index, theta)
    grad = jax.grad(lambda t: log_density(slot, t)[0].sum())(theta)
    expected_lp, expected_grad = directly(model, theta)
    np.testing.assert_array_equal(lp, expected_lp)
    np.testing.assert_array_equal(grad, expected_grad)
    assert lp.dtype == jnp.float64
    assert status.dtype == jnp.int32
    assert not status.any()


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0,), (2, 0)])
def test_any_batch_shape_is_kept(backend, model, slot, key, shape):
    theta = points(key, *shape, model.dim)
    lp, status = log_density(slot, theta)
    assert lp.shape == status.shape == shape
    np.testing.assert_array_equal(lp.ravel(), [model.direct(row)[0] for row in theta.reshape(-1, model.dim)])


def test_the_gradient_agrees_with_central_differences(backend, model, slot, key):
    theta = points(key, model.dim)
    grad = jax.grad(lambda t: log_density(slot, t)[0])(theta)
    step = 1e-5
    around = np.asarray(theta) + step * np.concatenate([np.eye(model.dim), -np.eye(model.dim)])
    lp = log_density(slot, jnp.asarray(around))[0]
    np.testing.assert_allclose(grad, (lp[: model.dim] - lp[model.dim :]) / (2 * step), rtol=1e-6, atol=1e-6)


def test_the_cotangent_of_each_row_scales_its_gradient(backend, model, slot, key):
    theta, weights = points(key, 3, model.dim), jnp.array([2.0, 0.0, -0.5])
    grad = jax.grad(lambda t: jnp.sum(weights * log_density(slot, t)[0]))(theta)
    np.testing.assert_array_equal(grad, np.asarray(weights)[:, None] * directly(model, theta)[1])


def test_status_comes_out_beside_the_gradient(backend, model, slot, key):
    theta = points(key, 3, model.dim)
    (total, status), grad = jax.value_and_grad(
        lambda t: (lambda lp, s: (lp.sum(), s))(*log_density(slot, t)), has_aux=True
    )(theta)
    assert np.isfinite(total)
    assert status.shape == (3,)
    assert grad.shape == theta.shape


def test_second_order_derivatives_are_refused(backend, model, slot, key):
    with pytest.raises((TypeError, ValueError)):
        jax.hessian(lambda t: log_density(slot, t)[0])(points(key, model.dim))


# --- transformations ----------------------------------------------------------------------------------------


def test_a_scan_switches_between_models_and_traces_once(backend, key):
    models = [linear(5, seed) for seed in range(3)]
    slots = [register(model) for model in models]
    theta = points(key, 6)
    traces = []

    def step(total, index):
        traces.append(1)
        lp, _ = log_density(index, theta)
        return total + lp, lp

    order = np.array([0, 2, 1, 1, 0])
    run = jax.jit(lambda indices: jax.lax.scan(step, jnp.zeros(()), indices)[1])
    once = run(jnp.array([slots[i].index for i in order]))
    count = len(traces)
    again = run(jnp.array([slots[i].index for i in order[::-1]]))
    np.testing.assert_array_equal(once, [models[i].direct(theta)[0] for i in order])
    np.testing.assert_array_equal(again, once[::-1])
    assert len(traces) == count


def test_vmap_over_points_gives_the_rows(backend, model, slot, key):
    theta = points(key, 4, 3, model.dim)
    lp, status = jax.jit(jax.vmap(lambda t: log_density(slot, t)))(theta)
    grad = jax.vmap(jax.grad(lambda t: log_density(slot, t)[0].sum()))(theta)
    expected_lp, expected_grad = directly(model, theta.reshape(-1, model.dim))
    np.testing.assert_array_equal(lp.ravel(), expected_lp)
    np.testing.assert_array_equal(grad.reshape(-1, model.dim), expected_grad)
    assert status.shape == (4, 3)


@pytest.mark.parametrize("theta_axis", [None, 0])
def test_vmap_over_slots_evaluates_each_row_on_its_own_model(backend, key, theta_axis):
    models = [linear(5, seed) for seed in range(3)]
    slots = [register(model) for model in models]
    shared = points(key, 4, 6)
    theta = shared if theta_axis is None else jnp.stack([shared, shared + 1.0, 2.0 * shared])
    indices = jnp.array([slot.index for slot in slots])
    lp, _ = jax.jit(jax.vmap(log_density, in_axes=(0, theta_axis)))(indices, theta)
    for i, model in enumerate(models):
        np.testing.assert_array_equal(lp[i], directly(model, shared if theta_axis is None else theta[i])[0])


def test_vmap_over_slots_around_vmap_over_points(backend, key):
    models = [linear(5, seed) for seed in range(2)]
    slots = [register(model) for model in models]
    theta = points(key, 3, 6)
    each_point = jax.vmap(log_density, in_axes=(None, 0))
    lp, _ = jax.vmap(each_point, in_axes=(0, None))(jnp.array([slot.index for slot in slots]), theta)
    swapped, _ = jax.vmap(jax.vmap(log_density, in_axes=(0, None)), in_axes=(None, 0))(
        jnp.array([slot.index for slot in slots]), theta
    )
    np.testing.assert_array_equal(lp, [directly(model, theta)[0] for model in models])
    np.testing.assert_array_equal(swapped, lp.T)


# --- rejection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "bad"), [(REJECTS, [1.5, 0.0]), (OVERFLOWS, [1e4, 0.0])], ids=["reject", "infinite"]
)
def test_a_rejected_row_is_minus_infinity_with_gradient_zero_and_the_others_stay(backend, code, bad):
    model = Model(code)
    theta = jnp.array([[0.5, 1.0], bad, [-2.0, 0.25], bad])
    with register(model) as slot:
        lp, status = compiled()(slot.index, theta)
        grad = jax.grad(lambda t: log_density(slot, t)[0][jnp.array([0, 2])].sum())(theta)
        np.testing.assert_array_equal(status, [0, 1, 0, 1])
        np.testing.assert_array_equal(lp[jnp.array([1, 3])], -np.inf)
        np.testing.assert_array_equal(grad[jnp.array([1, 3])], 0.0)
        expected_lp, expected_grad = directly(model, theta[jnp.array([0, 2])])
        np.testing.assert_array_equal(lp[jnp.array([0, 2])], expected_lp)
        np.testing.assert_array_equal(grad[jnp.array([0, 2])], expected_grad)


# --- threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most_handles", [1, 3, 8], ids=["shared handle", "some shared", "own handles"])
def test_results_do_not_depend_on_the_number_of_threads(backend, key, most_handles):
    model = linear(2000)
    model._most = most_handles
    theta = points(key, 64, model.dim)
    with register(model, threads=1) as one:
        expected = jax.block_until_ready(rows_and_gradients(one, theta))
    for threads in (2, 5):
        with register(model, threads=threads) as many:
            run = jax.jit(lambda index, theta: rows_and_gradients(index, theta))
            for _ in range(20):
                lp, grad = run(many.index, theta)
                np.testing.assert_array_equal(lp, expected[0])
                np.testing.assert_array_equal(grad, expected[1])


# --- wrong arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_index", [False, True])
def test_a_wrong_dimension_is_refused_while_tracing(backend, slot, key, as_index):
    which = slot.index if as_index else slot
    with pytest.raises(
        BindingError, match=rf"slot {slot.index} takes {slot.dim} unconstrained coordinates, theta has 5"
    ):
        jax.jit(lambda t: log_density(which, t))(points(key, 3, 5))


def test_a_wrong_dimension_with_a_traced_slot_is_an_error_of_the_run(backend, slot, key):
    with pytest.raises(
        jax.errors.JaxRuntimeError, match=f"takes {slot.dim} unconstrained coordinates, theta has 5"
    ):
        jax.block_until_ready(compiled()(slot.index, points(key, 3, 5)))


def test_points_of_another_dtype_are_refused(backend, slot):
    with pytest.raises(BindingError, match=r"needs float64 points.*got float32.*enable_x64"):
        log_density(slot, jnp.zeros(slot.dim, dtype=jnp.float32))


def test_points_are_refused_where_64_bit_types_are_off(backend, slot):
    theta = jnp.zeros(slot.dim)
    with jax.enable_x64(False), pytest.raises(BindingError, match="with 64-bit types enabled"):
        log_density(slot, theta)


def test_importing_the_operation_configures_nothing():
    out = run_isolated(
        """
import jax
before = dict(jax.config.values)
import avistan.density.log_density
print(before == jax.config.values)
"""
    )
    assert out.strip() == "True"


# --- globals and blocks of units ---------------------------------------------------------------------------

G, D, N, DRAWS = 3, 2, 7, 5
SIZE = G + D * N
CODE = """
data { int K; vector[K] shift; }
parameters { vector[K] x; }
model { if (x[1] > 9) reject("too large"); x ~ student_t(4, shift, 2); target += sin(x[1 : K - 1])' * x[2 : K]; }
"""
_SCATTERED = np.random.default_rng(7).permutation(SIZE)
LAYOUTS = {
    "flat": (np.arange(G), G + np.arange(D * N)[None]),
    "latent by latent": (D * N + np.arange(G), np.arange(D * N).reshape(D, N)),
    "unit by unit": (np.arange(G), G + np.arange(D * N).reshape(N, D).T),
    "scattered": (_SCATTERED[:G], _SCATTERED[G:].reshape(D, N)),
    "one unit": (np.arange(SIZE - D), SIZE - D + np.arange(D)[:, None]),
    "globals alone": (np.arange(SIZE)[::-1], np.zeros((0, 0), dtype=np.int64)),
}
BLOCKED = LAYOUTS["latent by latent"]


def blocked(seed=0, size=SIZE):
    return bind(CODE, {"K": size, "shift": np.random.default_rng(seed).normal(size=size)})


@pytest.fixture(scope="module")
def whole():
    return blocked()


def block_draws(key, layout, columns=0, count=DRAWS):
    """Globals and locals of that many draws; `columns` more than the layout has units."""
    d, units = layout[1].shape
    one, two = jax.random.split(key)
    theta = jax.random.normal(one, (count, len(layout[0])), dtype=jnp.float64)
    return theta, jax.random.normal(two, (count, d, units + columns), dtype=jnp.float64)


def in_stans_order(layout, theta, z, rest=None):
    points = np.tile(np.full(SIZE, np.nan) if rest is None else rest, (len(theta), 1))
    points[:, layout[0]] = theta
    points[:, layout[1]] = np.asarray(z)[:, :, : layout[1].shape[1]]
    return jnp.asarray(points)


def values_and_gradients(slot, theta, z, weights):
    def total(theta, z):
        lp, status = block_log_density(slot, theta, z)
        return jnp.sum(weights * jnp.where(status == 0, lp, 0.0)), (lp, status)

    (_, found), gradient = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(theta, z)
    return *found, *gradient


def compiled_blocks():
    """Newly compiled: `jax.jit` of one function would share what another backend compiled."""
    return jax.jit(lambda *arguments: values_and_gradients(*arguments))


def check_blocks(slot, layout, theta, z, rest=None, weights=None):
    """Numbers by blocks are those of `log_density`, bit for bit, each in its place."""
    weights = jnp.ones(len(theta)) if weights is None else weights
    lp, status, of_theta, of_z = compiled_blocks()(slot.index, theta, z, weights)
    points = in_stans_order(layout, theta, z, rest)
    expected = log_density(slot, points)
    gradient = jax.grad(lambda p: jnp.sum(weights * log_density(slot, p)[0]))(points)
    np.testing.assert_array_equal(lp, expected[0])
    np.testing.assert_array_equal(status, expected[1])
    np.testing.assert_array_equal(of_theta, gradient[:, layout[0]])
    units = layout[1].shape[1]
    np.testing.assert_array_equal(of_z[:, :, :units], gradient[:, layout[1]])
    np.testing.assert_array_equal(of_z[:, :, units:], 0.0)
    assert (lp.dtype, status.dtype, of_z.shape) == (jnp.float64, jnp.int32, z.shape)
    return status


@pytest.mark.parametrize("columns", [0, 3], ids=["as many columns", "more columns"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_numbers_are_those_of_the_points_in_stans_order(backend, whole, key, layout, columns):
    theta, z = block_draws(key, layout, columns)
    with register(whole) as slot:
        set_layout(slot.index, *layout)
        assert not check_blocks(slot, layout, theta, z, weights=jnp.arange(1.0, DRAWS + 1)).any()


def test_columns_beyond_the_units_are_not_read(backend, whole, key):
    theta, z = block_draws(key, BLOCKED, columns=2)
    with register(whole) as slot:
        set_layout(slot.index, *BLOCKED)
        check_blocks(slot, BLOCKED, theta, z.at[:, :, N:].set(jnp.nan))


def test_a_slot_without_units_takes_its_rest_and_leaves_the_locals(backend, whole, key):
    rest = np.random.default_rng(1).normal(size=SIZE)
    layout = np.array([4, 0, 9]), np.zeros((0, 0), dtype=np.int64)
    theta, z = block_draws(key, BLOCKED)
    with register(whole) as slot:
        set_layout(slot.index, *layout, rest)
        lp, _, of_theta, of_z = compiled_blocks()(slot.index, theta, z, jnp.ones(DRAWS))
        points = np.tile(rest, (DRAWS, 1))
        points[:, layout[0]] = theta
        gradient = jax.grad(lambda p: jnp.sum(log_density(slot, p)[0]))(jnp.asarray(points))
        np.testing.assert_array_equal(lp, log_density(slot, jnp.asarray(points))[0])
        np.testing.assert_array_equal(of_theta, gradient[:, layout[0]])
        np.testing.assert_array_equal(of_z, np.zeros(z.shape))


def test_by_blocks_a_rejected_draw_is_minus_infinity_with_gradient_zero_and_the_others_stay(
    backend, whole, key
):
    theta, z = block_draws(key, BLOCKED)
    bad = z.at[2, 0, 0].set(10.0)  # the first coordinate
    with register(whole) as slot:
        set_layout(slot.index, *BLOCKED)
        lp, status, of_theta, of_z = values_and_gradients(slot.index, theta, bad, jnp.ones(DRAWS))
        kept = np.array([0, 1, 3, 4])
        expected = values_and_gradients(slot.index, theta[kept], z[kept], jnp.ones(4))
    np.testing.assert_array_equal(status, [0, 0, 1, 0, 0])
    assert lp[2] == -np.inf
    np.testing.assert_array_equal(of_theta[2], 0.0)
    np.testing.assert_array_equal(of_z[2], 0.0)
    for found, others in zip((lp, status, of_theta, of_z), expected, strict=True):
        np.testing.assert_array_equal(found[kept], others)


def test_a_scan_switches_between_models_of_other_sizes(backend, key):
    small = LAYOUTS["flat"][0], G + np.arange(2 * 4).reshape(2, 4)
    cases = [(blocked(1), BLOCKED), (blocked(2, G + 8), small), (blocked(3), LAYOUTS["scattered"])]
    theta, z = block_draws(key, BLOCKED)
    order = [0, 1, 2, 1, 0]
    slots = [register(model) for model, _ in cases]
    for slot, (_, layout) in zip(slots, cases, strict=True):
        set_layout(slot.index, *layout)

    def step(_, index):
        return None, values_and_gradients(index, theta, z, jnp.ones(DRAWS))

    found = jax.jit(lambda indices: jax.lax.scan(step, None, indices)[1])(
        jnp.array([slots[i].index for i in order])
    )
    for at, i in enumerate(order):
        for part, expected in zip(
            found, values_and_gradients(slots[i], theta, z, jnp.ones(DRAWS)), strict=True
        ):
            np.testing.assert_array_equal(part[at], expected)


@pytest.mark.parametrize("layout", [BLOCKED, LAYOUTS["scattered"]], ids=["blocked", "scattered"])
def test_by_blocks_numbers_do_not_depend_on_the_number_of_threads(backend, whole, key, layout):
    theta, z = block_draws(key, layout, columns=1, count=64)
    expected = None
    for threads in (1, 2, 5):
        with register(whole, threads=threads) as slot:
            set_layout(slot.index, *layout)
            run = compiled_blocks()
            for _ in range(20):
                found = run(slot.index, theta, z, jnp.ones(64))
                expected = expected or found
                for one, two in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(one, two)


def test_vmap_over_slots_and_over_draws_gives_the_same(backend, whole, key):
    theta, z = block_draws(key, BLOCKED, count=6)
    with register(whole) as one, register(blocked(4)) as two:
        for slot in (one, two):
            set_layout(slot.index, *BLOCKED)
        slots = jnp.array([one.index, two.index])
        lp, status = jax.jit(jax.vmap(block_log_density))(
            slots, theta.reshape(2, 3, G), z.reshape(2, 3, D, N)
        )
        np.testing.assert_array_equal(lp[0], block_log_density(one, theta[:3], z[:3])[0])
        np.testing.assert_array_equal(lp[1], block_log_density(two, theta[3:], z[3:])[0])
        assert not status.any()


def test_by_blocks_second_order_derivatives_are_refused(backend, whole, key):
    theta, z = block_draws(key, BLOCKED)
    with register(whole) as slot:
        set_layout(slot.index, *BLOCKED)
        with pytest.raises((TypeError, ValueError)):
            jax.hessian(lambda t: block_log_density(slot, t, z)[0].sum())(theta)


def test_no_draws_give_no_numbers(backend, whole, key):
    theta, z = block_draws(key, BLOCKED, count=0)
    with register(whole) as slot:
        set_layout(slot.index, *BLOCKED)
        lp, status = block_log_density(slot, theta, z)
    assert lp.shape == status.shape == (0,)


# --- wrong arguments ----------------------------------------------------------------------------------------

WRONG = {
    "globals": ((DRAWS, G + 1), (DRAWS, D, N), r"takes theta of shape \(5, 3\) and z of shape \(5, 2, 7\)"),
    "latents": ((DRAWS, G), (DRAWS, D + 1, N), r"given are \(5, 3\) and \(5, 3, 7\)"),
    "columns": ((DRAWS, G), (DRAWS, D, N - 1), r"or with more columns; given are \(5, 3\) and \(5, 2, 6\)"),
}


@pytest.mark.parametrize(("theta", "z", "said"), WRONG.values(), ids=WRONG)
def test_shapes_that_the_slot_does_not_take_are_refused(backend, whole, theta, z, said):
    theta, z = jnp.zeros(theta), jnp.zeros(z)
    with register(whole) as slot:
        set_layout(slot.index, *BLOCKED)
        with pytest.raises(BindingError, match=said):
            block_log_density(slot, theta, z)
        with pytest.raises(RUN_ERRORS, match=said):
            jax.block_until_ready(jax.jit(lambda i, t, z: block_log_density(i, t, z))(slot.index, theta, z))


def test_a_slot_without_a_layout_is_refused(backend, whole, key):
    theta, z = block_draws(key, BLOCKED)
    with register(whole) as slot:
        with pytest.raises(BindingError, match="has no layout: call set_layout"):
            block_log_density(slot, theta, z)
        with pytest.raises(RUN_ERRORS, match="has no layout: call set_layout"):
            jax.block_until_ready(jax.jit(lambda i, t, z: block_log_density(i, t, z))(slot.index, theta, z))


def test_by_blocks_a_closed_slot_is_an_error_and_the_process_survives(backend, whole, key):
    theta, z = block_draws(key, BLOCKED)
    run = jax.jit(lambda i, t, z: block_log_density(i, t, z))
    slot = register(whole)
    set_layout(slot.index, *BLOCKED)
    jax.block_until_ready(run(slot.index, theta, z))
    slot.close()
    with pytest.raises(RUN_ERRORS, match=f"slot {slot.index} is closed.*Keep the Slot open"):
        jax.block_until_ready(run(slot.index, theta, z))
    with pytest.raises(BindingError, match="is closed"):
        block_log_density(slot, theta, z)


def test_draws_of_another_dtype_are_refused(backend, whole, key):
    theta, z = block_draws(key, BLOCKED)
    with register(whole) as slot:
        set_layout(slot.index, *BLOCKED)
        with pytest.raises(BindingError, match=r"block_log_density needs float64 points.*got float32"):
            block_log_density(slot, theta, z.astype(jnp.float32))


@pytest.mark.parametrize("shapes", [((G,), (DRAWS, D, N)), ((DRAWS, G), (DRAWS + 1, D, N))])
def test_draws_without_their_axes_are_refused(whole, shapes):
    theta, z = map(jnp.zeros, shapes)
    with register(whole) as slot:
        set_layout(slot.index, *BLOCKED)
        with pytest.raises(
            (BindingError, TypeCheckError)
        ):  # the second where types are checked as functions are called
            block_log_density(slot, theta, z)
