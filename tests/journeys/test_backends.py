"""The handler and the callback in one process: what calls Stan does so the way that is chosen now."""

import jax
import numpy as np
import pytest

import avistan as avi
from avistan.density import host
from avistan.density.backend import native_available
from avistan.density.slots import register
from avistan.family.method import parse_method
from avistan.fitting.natural_gradient import shift_of_globals
from avistan.fitting.shard_preparation import prepare_large
from avistan.objective.elbo import evaluate
from avistan.runtime.device import on_device
from avistan.runtime.precision import in_float64
from avistan.training.steps import Training
from density_models import use_backend
from programs import bundled, simulator
from stan_adapters.structure.structure import inspect_structure, with_unit_data

METHOD = parse_method("avi:mlp(4)")
RUN_ERRORS = (jax.errors.JaxRuntimeError, ValueError)  # JAX raises the second where it reuses a program
RATES = np.full(5, 0.01)


@pytest.fixture(autouse=True)
def both_backends():
    if not native_available():
        pytest.skip("the compiled handler is not available")


@pytest.fixture
def host_calls(monkeypatch):
    """One entry for each call of Stan through Python."""
    calls, real = [], host.evaluate_rows
    monkeypatch.setattr(host, "evaluate_rows", lambda *arguments: calls.append(1) or real(*arguments))
    return calls


@pytest.fixture(scope="module")
def small():
    """Minibatches of 20 of 60 units, and where they start."""
    with bundled("linear", simulator("linear")(60)).bound as model:
        structure = with_unit_data(model, inspect_structure(model))
        given = {"seed": 1, "num_references": 8, "max_rank": 6, "size": 20}
        yield prepare_large(model, structure.level, structure.slicing, **given).minibatches


@pytest.fixture
def started(small):
    """The model of a shard, its family and unit inputs."""
    family, inputs = in_float64(small.start_family)(METHOD)
    return small.start.model, family, on_device(np.asarray(inputs))


def of_steps(started, slot):
    _, family, inputs = started
    training = Training(family, inputs, slot, jax.random.key(1), draws=2)
    return training.run(training.start(), RATES)[1].elbo


def of_elbo(started, slot):
    _, family, inputs = started
    return evaluate(family, inputs, slot, jax.random.key(1), 20).log_weights


def of_globals(started, slot):
    _, family, inputs = started
    return shift_of_globals(family, inputs, slot, jax.random.key(1), 8)[0]


WORK = {"steps": of_steps, "ELBO": of_elbo, "move of the globals": of_globals}


@in_float64
def done(work, started):
    with register(started[0]) as slot:
        return work(started, slot.index)


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_what_was_compiled_for_one_backend_is_compiled_again_for_the_other(work, started, host_calls):
    native = done(work, started)
    assert not host_calls
    with use_backend("callback"):
        by_callback = done(work, started)
    assert host_calls
    np.testing.assert_allclose(by_callback, native, rtol=1e-5, atol=1e-6)
    host_calls.clear()
    np.testing.assert_array_equal(done(work, started), native)
    assert not host_calls


@in_float64
def measured(small):
    family, _ = small.start_family(METHOD)
    with small.measure(small.unit_inputs(METHOD), jax.random.key(1)) as measure:
        return measure(family, 0).log_weights


def test_elbos_of_minibatches_too(small, host_calls):
    native = measured(small)
    assert not host_calls
    with use_backend("callback"):
        by_callback = measured(small)
    assert host_calls
    np.testing.assert_allclose(by_callback, native, rtol=1e-9)


@pytest.mark.parametrize("backend", ["native", "callback"])
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_closed_model_is_an_error(work, started, backend):
    with use_backend(backend):
        done(work, started)  # compiled; what follows is an error of the run
        with register(started[0]) as slot:
            family, inputs = started[1:]
            training = in_float64(Training)(family, inputs, slot.index, jax.random.key(1), draws=2)
            state = training.start()
        run = in_float64(
            lambda: training.run(state, RATES) if work is of_steps else work(started, slot.index)
        )
        with pytest.raises(RUN_ERRORS, match=f"slot {slot.index} is closed"):
            run()


def test_training_goes_on_through_the_callback_where_the_handler_is_switched_off(
    started, host_calls, monkeypatch
):
    model, family, inputs = started

    @in_float64
    def halves(between):
        with register(model) as slot:
            training = Training(family, inputs, slot.index, jax.random.key(1), draws=2)
            state, first = training.run(training.start(), RATES)
            between()
            return np.concatenate([first.elbo, training.run(state, RATES)[1].elbo])

    native = halves(lambda: None)
    assert not host_calls
    switched = halves(lambda: monkeypatch.setenv("AVISTAN_NO_NATIVE", "1"))
    assert host_calls
    np.testing.assert_allclose(switched, native, rtol=1e-5)


def test_a_fit_after_the_handler_was_switched_off_goes_through_the_callback(host_calls, monkeypatch):
    model = avi.Model(avi.models_root() / "linear" / "linear.stan", data=simulator("linear")(20))
    given = {"method": "avi:mlp(4)", "seed": 1, "steps": 20, "elbo_draws": 20}
    native = model.fit(**given)
    assert not host_calls
    monkeypatch.setenv("AVISTAN_NO_NATIVE", "1")
    switched = model.fit(**given)
    assert host_calls
    np.testing.assert_allclose(switched.evaluation.log_weights, native.evaluation.log_weights, rtol=1e-5)
    monkeypatch.delenv("AVISTAN_NO_NATIVE")
    host_calls.clear()
    assert model.fit(**given).elbo == native.elbo
    assert not host_calls
