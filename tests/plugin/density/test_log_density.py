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

from avistan.density import log_density as ld
from avistan.density import native
from avistan.density.log_density import log_density, register, use_backend
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
from avistan import log_density as ld
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
