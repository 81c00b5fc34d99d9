"""A tree of parameters and the vector that holds them are the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from avistan.training.vectors import Layout


def test_a_vector_gives_back_every_leaf_in_its_shape_and_type_within_a_program_and_outside():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        tree = {
            "single": jnp.asarray(rng.normal(size=(2, 3)), dtype=jnp.float32),
            "double": (jnp.asarray(rng.normal(size=4)), jnp.zeros((0, 5))),
        }
        layout = Layout.of(tree)
        vector = layout.vector(tree)
        assert vector.shape == (10,)
        for back in (layout.tree(vector), jax.jit(layout.tree)(vector)):
            assert jax.tree.structure(back) == jax.tree.structure(tree)
            for leaf, original in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
                assert leaf.dtype == original.dtype
                np.testing.assert_array_equal(leaf, original)
