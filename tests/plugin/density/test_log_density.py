"""The differentiable operation over registered models, through both of its backends."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stanli
from jaxtyping import TypeCheckError

from avistan.density import log_density as ld
from avistan.density import native
from avistan.density.log_density import block_log_density, log_density, register, set_layout, use_backend
from programs import bind
from stan_adapters.engine.library_lock import LibraryLock
from stan_adapters.errors import BindingError

RUN_ERRORS = (jax.errors.JaxRuntimeError, ValueError)  # jax raises the second where it reuses a program

LINEAR = """
data { int N; vector[N] x; real<lower=0> tau; real<lower=0> sigma; }
parameters { real theta; vector[N] z; }
model { z ~ normal(theta, tau); x ~ normal(z, sigma); }
"""
REJECTS = """
parameters { vector[2] x; }
model { if (x[1] > 1) reject("x is ", x[1], ", above one"); x ~ normal(0, 2); }
"""
OVERFLOWS = "parameters { vector[2] x; } model { target += exp(x[1]) - square(x[2]); }"


class Model:
    """A model bound through stanli, with as many handles as asked for."""

    exclusive = None

    def __init__(self, code, data=None, *, most_handles=8):
        self._bind = lambda: stanli.bridgestan_model(
            stan_code=code, data=data or {}, capture_stan_prints=False
        )
        self._bound = [self._bind()]
        self._most = most_handles
        lib = self._bound[0].stanlib
        self.dim = self._bound[0].param_unc_num()
        self.log_density_gradient_address = ctypes.cast(lib.bs_log_density_gradient, ctypes.c_void_p).value
        self.free_error_address = ctypes.cast(lib.bs_free_error_msg, ctypes.c_void_p).value

    def handles(self, count):
        while len(self._bound) < min(count, self._most):
            self._bound.append(self._bind())
        return tuple(bound.model for bound in self._bound[:count])

    def direct(self, theta):
        """lp and gradient of one point through bridgestan's own client."""
        return self._bound[0].log_density_gradient(np.ascontiguousarray(theta), propto=True, jacobian=True)


def linear(n, seed=0):
    x = 2.0 * np.random.default_rng(seed).normal(size=n)
    return Model(LINEAR, {"N": n, "x": x, "tau": 1.155, "sigma": 2.43})


def require_native():
    if not ld.native_available():
        assert os.environ.get("REQUIRE_ALL") != "1" or native.disabled(), "the compiled handler was not built"
        pytest.skip("the compiled handler is not available")


@pytest.fixture(params=["native", "callback"])
def backend(request):
    if request.param == "native":
        require_native()
    with use_backend(request.param):
        yield request.param


@pytest.fixture(scope="module")
def model():
    return linear(11)


@pytest.fixture
def slot(model):
    with register(model) as slot:
        yield slot


def points(key, *shape):
    return jax.random.normal(key, shape, dtype=jnp.float64)


def directly(model, theta):
    lp, grad = zip(*(model.direct(row) for row in np.asarray(theta)), strict=True)
    return np.array(lp), np.array(grad)


def rows_and_gradients(slot, theta):
    return jax.vmap(jax.value_and_grad(lambda t: log_density(slot, t)[0]))(theta)


def compiled():
    """A newly compiled operation: `jax.jit` of one function would share what another backend compiled."""
    return jax.jit(lambda slot, theta: log_density(slot, theta))


def run_isolated(code, **environment):
    """Run a program in a fresh interpreter; returns its standard output."""
    completed = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


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


def test_the_reason_of_a_rejection_can_be_read(backend):
    with register(Model(REJECTS)) as slot:
        assert slot.last_rejection is None
        jax.block_until_ready(log_density(slot, jnp.array([1.5, 0.0])))
        assert "above one" in slot.last_rejection
    assert slot.last_rejection is None


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


def test_python_threads_may_call_at_the_same_time(backend, key):
    models = [linear(300, seed) for seed in range(2)]
    theta = points(key, 16, 301)
    run = jax.jit(lambda i, t: log_density(i, t)[0])
    models[1].exclusive = LibraryLock()
    slots = [register(model, threads=2) for model in models]
    expected = [np.asarray(run(slot.index, theta)) for slot in slots]
    wrong = []

    def work(which):
        with use_backend(backend):
            for _ in range(50):
                if not np.array_equal(run(slots[which].index, theta), expected[which]):
                    wrong.append(which)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_slot_can_be_closed_while_another_thread_evaluates_it(backend, key):
    model = linear(2000)
    theta = points(key, 32, model.dim)
    run = jax.jit(lambda i, t: log_density(i, t)[0])
    slot = register(model)
    jax.block_until_ready(run(slot.index, theta))
    started, errors = threading.Event(), []

    def work():
        try:
            with use_backend(backend):
                while True:
                    jax.block_until_ready(run(slot.index, theta))
                    started.set()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(60)
    slot.close()
    thread.join(60)
    assert "is closed" in str(errors[0])


@pytest.mark.parametrize("given", ["0", "-1", "many", ""])
def test_a_nonsensical_number_of_threads_is_refused(monkeypatch, given):
    monkeypatch.setenv("AVISTAN_NUM_THREADS", given)
    with pytest.raises(ValueError, match="give a positive number of threads"):
        ld.default_threads()


def test_the_number_of_threads_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("AVISTAN_NUM_THREADS", "3")
    assert ld.default_threads() == 3
    monkeypatch.delenv("AVISTAN_NUM_THREADS")
    assert ld.default_threads() >= 1


# --- life of a slot -----------------------------------------------------------------------------------------


def test_a_closed_slot_is_an_error_of_the_run_and_the_process_survives(backend, model, key):
    theta = points(key, 2, model.dim)
    run = compiled()
    slot = register(model)
    jax.block_until_ready(run(slot.index, theta))
    slot.close()
    slot.close()
    with pytest.raises(RUN_ERRORS, match=f"slot {slot.index} is closed.*Keep the Slot open"):
        jax.block_until_ready(run(slot.index, theta))
    with register(model) as another:
        assert another.index != slot.index
        jax.block_until_ready(run(another.index, theta))


def test_a_closed_slot_is_an_error_while_tracing(backend, model, key):
    slot = register(model)
    slot.close()
    with pytest.raises(BindingError, match="is closed"):
        jax.jit(lambda t: log_density(slot, t))(points(key, model.dim))


def test_a_slot_keeps_its_model_alive_and_lets_it_go(backend):
    model = linear(3)
    watched = weakref.ref(model)
    slot = register(model)
    del model
    gc.collect()
    assert watched() is not None
    jax.block_until_ready(log_density(slot, jnp.zeros(4)))
    index = slot.index
    del slot
    gc.collect()
    assert watched() is None
    with pytest.raises(BindingError, match=f"slot {index} is closed"):
        log_density(index, jnp.zeros(4))


def test_a_slot_dropped_during_a_run_ends_it_with_an_error_and_frees_the_model(key):
    require_native()  # jax waits for programs with callbacks before it returns
    model = linear(2000)
    watched, theta = weakref.ref(model), points(key, model.dim)
    slot = register(model)
    run = jax.jit(
        lambda i, t: jax.lax.scan(
            lambda c, _: (c + 1e-9 * log_density(i, c)[0], None), t, None, length=20_000
        )[0]
    )
    program = run.lower(slot.index, theta).compile()
    with pytest.raises(RUN_ERRORS, match="is closed"):  # noqa: PT012, the call returns before its result is ready
        result = program(slot.index, theta)
        del slot, model
        gc.collect()
        jax.block_until_ready(result)
    with register(linear(3)):  # also frees what a running call still held
        gc.collect()
        assert watched() is None


def test_a_model_without_handles_is_refused(model):
    class Closed:
        dim = model.dim
        log_density_gradient_address = model.log_density_gradient_address
        free_error_address = model.free_error_address
        exclusive = None

        def handles(self, count):
            return ()

    with pytest.raises(ValueError, match="is it closed"):
        register(Closed())
    with pytest.raises(ValueError, match="give a positive number"):
        register(model, threads=0)


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


# --- fresh processes ----------------------------------------------------------------------------------------

ISOLATED = """
import jax, numpy as np, jax.numpy as jnp
from avistan.density import log_density as ld
import test_log_density as cases
model = cases.linear(4)
theta = np.random.default_rng(0).normal(size=(5, 5))
with jax.enable_x64(True), ld.register(model) as slot:
    lp, grad = jax.jit(jax.vmap(jax.value_and_grad(lambda t: ld.log_density(slot, t)[0])))(jnp.asarray(theta))
    expected = cases.directly(model, theta)
    assert np.array_equal(lp, expected[0]) and np.array_equal(grad, expected[1])
assert jnp.ones(1).dtype == jnp.float32
print(ld.backend())
"""


@pytest.mark.parametrize("disabled", ["1", "0"])
def test_a_local_64_bit_block_suffices_and_the_handler_can_be_switched_off(disabled):
    chosen = run_isolated(ISOLATED, AVISTAN_NO_NATIVE=disabled).strip()
    assert chosen == ("native" if disabled == "0" and ld.native_available() else "callback")


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


def test_asking_for_a_handler_that_is_switched_off_is_an_error(monkeypatch):
    monkeypatch.setenv("AVISTAN_NO_NATIVE", "1")
    assert ld.backend() == "callback"
    with pytest.raises(RuntimeError, match="unset AVISTAN_NO_NATIVE"), use_backend("native"):
        pass


# --- the benchmark's loop -----------------------------------------------------------------------------------


def test_the_c_loop_times_bare_gradients(model):
    require_native()
    arguments = (model.log_density_gradient_address, model.free_error_address, model.handles(1)[0])
    assert native.gradient_loop(*arguments, np.zeros(model.dim), 100) > 0.0
    rejecting = Model(REJECTS)
    arguments = (
        rejecting.log_density_gradient_address,
        rejecting.free_error_address,
        rejecting.handles(1)[0],
    )
    with pytest.raises(ValueError, match="rejects this theta"):
        native.gradient_loop(*arguments, np.array([2.0, 0.0]), 100)


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


def check_blocks(slot, layout, theta, z, rest=None, weights=None):
    """Numbers by blocks are those of `log_density`, bit for bit, each in its place."""
    weights = jnp.ones(len(theta)) if weights is None else weights
    lp, status, of_theta, of_z = jax.jit(values_and_gradients)(slot.index, theta, z, weights)
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
        lp, _, of_theta, of_z = jax.jit(values_and_gradients)(slot.index, theta, z, jnp.ones(DRAWS))
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
            run = jax.jit(values_and_gradients)
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


BAD_LAYOUTS = {
    "twice": (np.array([0, 1, 1]), 3 + np.arange(D * N).reshape(D, N)),
    "beyond": (np.arange(G), G + 1 + np.arange(D * N).reshape(D, N)),
    "negative": (np.arange(G) - 1, G + np.arange(D * N).reshape(D, N)),
    "too few": (np.arange(G), G + np.arange(D * N - 2).reshape(D, N - 1)),
    "too many": (np.arange(G), G + np.arange(D * N + 2).reshape(D, N + 1)),
}


@pytest.mark.parametrize("layout", BAD_LAYOUTS.values(), ids=BAD_LAYOUTS)
def test_a_layout_that_is_none_of_the_slots_coordinates_is_refused(whole, layout):
    with (
        register(whole) as slot,
        pytest.raises(BindingError, match="must name each of its 17 coordinates once"),
    ):
        set_layout(slot.index, *layout)


def test_a_slot_keeps_its_first_layout(whole):
    with register(whole) as slot:
        set_layout(slot.index, *BLOCKED)
        set_layout(slot.index, *BLOCKED)
        with pytest.raises(BindingError, match="has another layout: register the model again"):
            set_layout(slot.index, *LAYOUTS["flat"])
