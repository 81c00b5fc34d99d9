"""Training of a network in the compiled handler, against automatic differentiation and against the steps of XLA."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avistan.training.loop
from avistan.density.log_density import native_available, register, set_layout, use_backend
from avistan.family.family import trainable
from avistan.family.method import parse_method
from avistan.fitting.shard_preparation import prepare_large
from avistan.objective.step import Batch, elbo_estimate, form_of, frame_of, parts_of
from avistan.training.batches import Batches, one_batch
from avistan.training.loop import Trainer, TrainingOptions
from avistan.training.network_training import NetworkSteps, serves
from pairs import FAMILIES, PAIRS, disturbed, family_of
from programs import bind, bundled, simulator
from stan_adapters.structure.structure import inspect_structure, with_unit_data

pytestmark = pytest.mark.skipif(not native_available(), reason="the compiled handler is not built")

DRAWS, KEY = 5, 11
FIRST_DECAY = np.float32(0.9)  # of Adam: the first moment after one step is 1 - 0.9 times the gradient


def pairs_of(units):
    rng = np.random.default_rng(units)
    return bind(PAIRS, {"N": units, "y": rng.normal(size=(units, 2)), "x": rng.normal(size=units)})


def flat(family):
    """Trainable numbers of a family with a network in the order of its steps."""
    leaves = [family.globals.loc, family.globals.log_sd, family.globals.below, family.inference.start]
    directions = family.directions, family.globals.warp, family.curve
    leaves += [part for part in directions if part is not None]
    leaves += [leaf for layer in family.inference.layers for leaf in layer]
    leaves += [] if family.inference.linear is None else [family.inference.linear]
    return [np.asarray(leaf, dtype=np.float64).ravel() for leaf in leaves]


def by_one_native_step(family, batches, draws=DRAWS):
    """ELBO and gradient, part by part, from the first moments after a step."""
    steps = NetworkSteps(family, form_of(family), batches, draws, KEY)
    elbo, rejected, _ = steps.run(np.array([0.01]), "native")
    assert rejected[0] == 0
    edges = np.cumsum([len(part) for part in flat(family)])[:-1]
    return elbo[0], np.split(steps.arrays()["first"] / (1 - FIRST_DECAY), edges)


def by_jax(family, inputs, slots, weights, draws=DRAWS):
    moved, fixed = eqx.partition(family, trainable(family))

    def value(moved):
        q = eqx.combine(moved, fixed)
        batch = Batch(jnp.asarray(slots), jnp.asarray(weights))
        state = jnp.array([KEY, 0], dtype=jnp.uint64)
        return elbo_estimate(
            "native", form_of(q), draws, batch, state, frame_of(q), parts_of(q, jnp.asarray(inputs))
        )[0]

    elbo, gradient = jax.value_and_grad(value)(moved)
    return float(elbo), flat(gradient)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        scale = max(1e-12, float(np.abs(other).max(initial=0)))
        np.testing.assert_allclose(one, other, atol=1e-5 * scale, rtol=1e-5)


def compare_gradients(model, family, inputs):
    place = family.placement
    with register(model) as slot, use_backend("native"):
        set_layout(slot.index, np.asarray(place.global_index), np.asarray(place.local_index).T)
        expected, gradient = by_jax(family, inputs, [slot.index], [1.0])
        elbo, found = by_one_native_step(family, one_batch(slot.index, inputs))
    assert elbo == pytest.approx(expected, rel=1e-5)  # of single-precision outputs, as the gradient
    assert_close(found, gradient)


@pytest.mark.parametrize("units", [7, 300])  # within one stretch of units, and in several
@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_of_a_step_is_that_of_automatic_differentiation(name, units):
    size = (
        0.1 if "scale" in name or "flow" in name else 0.2
    )  # an outlying unit's exponentials make much of rounding
    with pairs_of(units) as model:
        compare_gradients(model, *family_of(model, name, size=size))


def test_the_default_network_and_one_without_a_linear_part():
    with pairs_of(200) as model:
        family, inputs = family_of(model, ":full", "avi", size=0.03)
        compare_gradients(model, family, inputs)
        alone = eqx.tree_at(lambda f: f.inference.linear, family, None)
        compare_gradients(model, alone, inputs)


@pytest.mark.parametrize(
    "follows",
    ["conditional", "conditional(mean+scale)", "conditional(mean+scale):flow", "conditional(curved):flow"],
)
def test_learned_directions(follows, monkeypatch):
    import avistan.start.preparation

    monkeypatch.setattr(avistan.family.locals, "MAX_DIRECTIONS", 2)
    with pairs_of(40) as model:
        family, inputs = family_of(model, f":full:full-rank:{follows}", size=0.03)
        assert family.directions is not None
        compare_gradients(model, family, inputs)


def test_hidden_layers_that_are_computed_again_give_the_same_numbers():
    """More units than hidden layers are kept for, and more stretches than groups of them."""
    with pairs_of(16_000) as model:
        compare_gradients(model, *family_of(model, "", "avi", size=0.03))


OPTIONS = TrainingOptions(steps=60, draws_per_step=4)


def trained(model, family, inputs, how, rates, batches=None):
    with register(model) as slot, use_backend(how):
        trainer = Trainer(family, inputs, slot.index, OPTIONS, jax.random.key(3), batches)
        chunk = trainer.run(rates)
        return trainer.family, chunk.mean(), chunk


def by_xla(monkeypatch, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(avistan.training.loop, "serves", lambda family: False)
        return trained(*arguments)


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_are_those_of_xla(name, monkeypatch):
    rates = np.full(40, 0.01)
    with pairs_of(50) as model:
        family, inputs = family_of(model, name, size=0.05)  # from wild starts rounding alone leads elsewhere
        assert serves(family)
        one, _, seen = trained(model, family, inputs, "native", rates)
        other, _, expected = by_xla(monkeypatch, model, family, inputs, "native", rates)
    np.testing.assert_array_equal(seen.num_rejected, expected.num_rejected)
    np.testing.assert_allclose(seen.elbo, expected.elbo, rtol=1e-4, atol=1e-5)  # one is near zero
    for a, b, before in zip(flat(one), flat(other), flat(family), strict=True):
        if len(b):
            assert np.abs(b - before).max() > 0.001
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_the_mean_is_that_of_every_tenth_iterate(rejecting):
    family, inputs = family_of(rejecting, "")
    rates = np.full(10, 0.01)
    with register(rejecting) as slot:
        trainer = Trainer(family, inputs, slot.index, OPTIONS, jax.random.key(3))
        ends = []
        for _ in range(2):
            trainer.run(rates)
            ends.append(flat(trainer.family))
        again = Trainer(family, inputs, slot.index, OPTIONS, jax.random.key(3))
        mean = again.run(np.full(20, 0.01)).mean()
    for found, one, two in zip(flat(mean), *ends, strict=True):
        np.testing.assert_allclose(found, (one + two) / 2, rtol=1e-6, atol=1e-7)


def test_rejected_draws_move_nothing(rejecting, monkeypatch):
    family, inputs = family_of(rejecting, "")
    lost = eqx.tree_at(lambda f: f.inference.start, family, family.inference.start.at[0].add(1e3))
    after, _, chunk = trained(rejecting, lost, inputs, "native", np.full(10, 0.1))
    assert (chunk.num_rejected == OPTIONS.draws_per_step).all()
    assert np.isnan(chunk.elbo).all()
    for one, two in zip(flat(after), flat(lost), strict=True):
        np.testing.assert_array_equal(one, two)
    some, _, chunk = trained(rejecting, family, inputs, "native", np.full(60, 0.01))
    expected, _, by_reference = by_xla(monkeypatch, rejecting, family, inputs, "native", np.full(60, 0.01))
    assert 0 < chunk.num_rejected.sum() < chunk.num_rejected.size * OPTIONS.draws_per_step
    np.testing.assert_array_equal(chunk.num_rejected, by_reference.num_rejected)
    for one, two in zip(flat(some), flat(expected), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-3)


def test_a_restored_state_goes_on_to_the_same_bytes(rejecting):
    family, inputs = family_of(rejecting, ":full-rank")
    with register(rejecting) as slot:
        whole = Trainer(family, inputs, slot.index, OPTIONS, jax.random.key(3))
        whole.run(np.full(20, 0.01))
        saved = whole.arrays()
        whole.run(np.full(30, 0.01))
        resumed = Trainer(disturbed(family, 8), inputs, slot.index, OPTIONS, jax.random.key(3))
        resumed.restore(saved)
        resumed.run(np.full(30, 0.01))
    for name, values in whole.arrays().items():
        assert values.tobytes() == resumed.arrays()[name].tobytes(), name


def test_a_handler_switched_off_in_the_middle_is_an_error(rejecting):
    from avistan.runtime.errors import FitError

    family, inputs = family_of(rejecting, "")
    with register(rejecting) as slot:
        trainer = Trainer(family, inputs, slot.index, OPTIONS, jax.random.key(3))
        with use_backend("callback"), pytest.raises(FitError, match="switched off"):
            trainer.run(np.full(3, 0.01))


def test_a_closed_model_is_an_error(rejecting):
    from stan_adapters.errors import BindingError

    family, inputs = family_of(rejecting, "")
    with register(rejecting) as slot:
        trainer = Trainer(family, inputs, slot.index, OPTIONS, jax.random.key(3))
    with pytest.raises(BindingError):
        trainer.run(np.full(3, 0.01))


@pytest.fixture(scope="module")
def small():
    """Minibatches of 1030 units, the last one short."""
    with bundled("linear", simulator("linear")(N=1030)).bound as model:
        structure = with_unit_data(model, inspect_structure(model))
        given = {"seed": 1, "num_references": 8, "max_rank": 6, "size": 300}
        yield prepare_large(model, structure.level, structure.slicing, **given).minibatches


def test_the_gradient_on_each_minibatch_is_that_of_automatic_differentiation(small):
    method = parse_method("avi:mlp(8)")
    family, _ = small.start_family(method)
    family = disturbed(family)
    with small.batches(small.unit_inputs(method)) as batches:
        inputs, alone, slots, which = batches.chunk(0, 4)
        sizes = [shard.num_units for shard in batches.shards]
        assert min(sizes) < small.size
        for number, slot in enumerate(slots):
            terms = np.concatenate([[slot], alone.slots])
            expected, gradient = by_jax(family, inputs[which[number]], terms, alone.weights)
            elbo, found = by_one_native_step(family, _Only(batches, number))
            assert elbo == pytest.approx(expected, rel=1e-6)
            assert_close(found, gradient)


class _Only(Batches):
    """One batch of others, for each step."""

    def __init__(self, batches, number):
        self._batches, self._number = batches, number

    def chunk(self, first, steps):
        return self._batches.chunk(self._number, steps)

    def places(self, first, steps):
        return self._batches.places(self._number, steps)


def test_minibatch_steps_are_those_of_xla(small, monkeypatch):
    method, rates = parse_method("avi:mlp(8)"), np.full(30, 0.01)
    family, inputs = small.start_family(method)
    ends = []
    for native in (True, False):
        monkeypatch.setattr(avistan.training.loop, "serves", lambda family, native=native: native)
        with small.batches(small.unit_inputs(method)) as batches:
            trainer = Trainer(family, inputs, -1, OPTIONS, jax.random.key(2), batches)
            assert isinstance(trainer._steps, NetworkSteps) == native
            ends.append((trainer.run(rates).elbo, flat(trainer.family)))
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-4)
    for one, two in zip(ends[0][1], ends[1][1], strict=True):
        np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.parametrize("function", ["avi", "fvi"])
def test_any_number_of_threads_gives_the_same_bytes(function, monkeypatch):
    found = []
    with pairs_of(3000) as model:
        family, inputs = family_of(model, ":full:full-rank:conditional(mean+scale):flow", function)
        for threads in ("1", "2", "5"):
            monkeypatch.setenv("AVISTAN_NUM_THREADS", threads)
            with register(model) as slot:
                trainer = Trainer(family, inputs, slot.index, OPTIONS, jax.random.key(1))
                trainer.run(np.full(50, 0.01))
            found.append({name: values.tobytes() for name, values in trainer.arrays().items()})
    assert found[0] == found[1] == found[2]
