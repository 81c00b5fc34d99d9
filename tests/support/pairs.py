"""A program with pairs of latents, and families of every form for it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from avistan.family.family import Family, trainable
from avistan.family.method import parse_method
from avistan.fitting.family_selection import grown
from avistan.start.preparation import prepare, start_family
from stan_adapters.levels.levels import candidate_levels

# Two correlated latents a unit, in an array of vectors, three globals, and units that differ.
PAIRS = """
data { int N; matrix[N, 2] y; vector[N] x; }
parameters { vector[2] mu; real<lower=0> tau; array[N] vector[2] z; }
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  for (n in 1:N) {
    z[n] ~ normal(mu, tau);
    y[n, 1] ~ normal(z[n, 1] + x[n] * z[n, 2], 0.5);
    y[n, 2] ~ normal(square(z[n, 1]) - z[n, 2], 1);
  }
}
"""
FAMILIES = [
    "",
    ":full",
    ":full-rank",
    ":conditional",
    ":full:full-rank:conditional",
    ":conditional(mean+scale)",
    ":full:full-rank:conditional(mean+scale)",
    ":flow",
    ":full:full-rank:flow",
    ":full:full-rank:conditional(mean+scale):flow",
    ":conditional(curved)",
    ":full:full-rank:conditional(curved):flow",
]


def disturbed(family: Family, seed=0, size=0.2) -> Family:
    """The family with all trainable numbers moved a little, so that none is special."""
    rng = np.random.default_rng(seed)
    moved, fixed = eqx.partition(family, trainable(family))
    moved = jax.tree.map(lambda p: p + jnp.asarray(rng.normal(0, size, p.shape), dtype=p.dtype), moved)
    return eqx.combine(moved, fixed)


def family_of(model, name, function="avi:mlp(8)", size=0.2):
    level = max(candidate_levels(model.layout), key=lambda level: level.num_units)
    preparation = prepare(model, level, seed=1, num_references=6, max_rank=4)
    family, inputs = start_family(preparation, parse_method(function))
    if "curved" in name:  # many directions together would take scales to where single precision ends
        size *= 0.1
    return disturbed(grown(family, parse_method(function + name)), size=size), inputs
