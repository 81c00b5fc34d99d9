"""Slots: threads, their life, and the layouts of their models."""

import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avistan.density.log_density import log_density
from avistan.density.slots import default_threads, register, set_layout
from density_models import RUN_ERRORS, compiled, linear, points, require_native
from stan_adapters.engine.library_lock import LibraryLock
from stan_adapters.errors import BindingError

# --- threads -----------------------------------------------------------------------------------------------


def test_python_threads_may_call_at_the_same_time(backend, key):
    models = [linear(300, seed) for seed in range(2)]
    theta = points(key, 16, 301)
    run = jax.jit(lambda i, t: log_density(i, t)[0])
    models[1].exclusive = LibraryLock()
    slots = [register(model, threads=2) for model in models]
    expected = [np.asarray(run(slot.index, theta)) for slot in slots]
    wrong = []

    def work(which):
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
        default_threads()


def test_the_number_of_threads_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("AVISTAN_NUM_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.delenv("AVISTAN_NUM_THREADS")
    assert default_threads() >= 1


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


# --- layouts -----------------------------------------------------------------------------------------------


G, D, N = 2, 2, 5
BLOCKED = np.arange(G), G + np.arange(D * N).reshape(D, N)
BAD_LAYOUTS = {
    "twice": (np.array([0, 2]), G + np.arange(D * N).reshape(D, N)),
    "beyond": (np.arange(G), G + 1 + np.arange(D * N).reshape(D, N)),
    "negative": (np.arange(G) - 1, G + np.arange(D * N).reshape(D, N)),
    "too few": (np.arange(G), G + np.arange(D * N - 2).reshape(D, N - 1)),
    "too many": (np.arange(G), G + np.arange(D * N + 2).reshape(D, N + 1)),
}


@pytest.mark.parametrize("layout", BAD_LAYOUTS.values(), ids=BAD_LAYOUTS)
def test_a_layout_that_is_none_of_the_slots_coordinates_is_refused(model, layout):
    with (
        register(model) as slot,
        pytest.raises(BindingError, match="must name each of its 12 coordinates once"),
    ):
        set_layout(slot.index, *layout)


def test_a_slot_keeps_its_first_layout(model):
    with register(model) as slot:
        set_layout(slot.index, *BLOCKED)
        set_layout(slot.index, *BLOCKED)
        with pytest.raises(BindingError, match="has another layout: register the model again"):
            set_layout(slot.index, BLOCKED[0], BLOCKED[1][:, ::-1])
