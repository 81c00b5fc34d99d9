"""The ELBO of one draw and its gradient, the same for all units together and for the batches of a round."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avistan.density.slots import register, set_layout
from avistan.family.family import trainable
from avistan.family.normals import normals
from avistan.objective.gradient import neg_elbo
from avistan.training.batches import Terms


@eqx.filter_jit
def gradient_of(family, terms, slot, numbers, inputs, weight):
    """ELBO of one draw and its gradient by all that is trained; a unit's normals follow from its number."""
    noise = normals(jax.random.key(5), numbers, 1, family.globals.size, family.local.block)
    moved, fixed = eqx.partition(family, trainable(family))

    def loss(moved):
        return neg_elbo(eqx.combine(moved, fixed), terms.density(slot), noise, inputs, weight)

    gradient, info = jax.grad(loss, has_aux=True)(moved)
    return info.elbo, jax.tree.leaves(gradient)


def check_mean_over_batches(model, minibatches, family, method, values, size):
    """The mean over all batches of a round is what all units give together.

    Args:
        values: unit inputs (N, R) of all units, as the inference function reads them.
    """
    level = minibatches.maker.level
    with register(model) as slot:
        set_layout(slot.index, level.globals_index(model.dim), level.index.T)
        alone = Terms(jnp.ones(()), jnp.zeros(0, dtype=jnp.int64), jnp.zeros(0))
        everyone = jnp.arange(level.num_units), jnp.asarray(values, dtype=jnp.float32), jnp.ones(())
        whole = minibatches.whole_family(family)
        elbo, expected = gradient_of(whole, alone, jnp.asarray(slot.index), *everyone)
    found = []
    with minibatches.batches(minibatches.unit_inputs(method)) as batches:
        batches.chunk(0, 1000)
        shards = batches.shards
        terms, units, slots, which = batches.chunk(0, len(shards))
        assert len(shards) == -(-level.num_units // size)
        assert sorted(np.concatenate([shard.units for shard in shards])) == list(range(level.num_units))
        for slot, number in zip(slots[: len(shards)], which[: len(shards)], strict=True):
            found.append(gradient_of(family, terms, slot, *(part[number] for part in units)))
    elbos, gradients = zip(*found, strict=True)
    # Networks are in single precision, and sums in another order.
    assert np.mean(elbos) == pytest.approx(float(elbo), rel=1e-6)
    for leaf, parts in zip(expected, zip(*gradients, strict=True), strict=True):
        of_leaf = np.array(parts, dtype=np.float64)
        scale = np.abs(of_leaf).max(initial=1e-9)
        np.testing.assert_allclose(of_leaf.mean(axis=0), np.asarray(leaf), atol=1e-5 * scale)
