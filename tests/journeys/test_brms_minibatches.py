"""Programs in brms's layout train on minibatches of their units."""

import jax
import numpy as np
import pytest

from avistan.family.method import parse_method
from avistan.fitting.shard_preparation import prepare_large
from avistan.training.loop import NO_SLOT
from avistan.training.optimizer import learning_rates
from avistan.training.steps import Training
from batch_gradients import check_mean_over_batches
from brms_cases import CASES, bind
from pairs import disturbed
from stan_adapters.structure.structure import inspect_structure, with_unit_data

METHOD = parse_method("avi:mlp(8)")
QUICK = "one_grouping"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == QUICK else [pytest.mark.slow]) for name in CASES]
)
def test_steps_on_minibatches_are_steps_on_the_whole_and_improve_it(name):
    with bind(CASES[name]) as model:
        structure = with_unit_data(model, inspect_structure(model))
        small = prepare_large(
            model, structure.level, structure.slicing, seed=1, num_references=8, max_rank=6, size=7
        ).minibatches
        inputs = small.unit_inputs(METHOD)
        family, start_inputs = small.start_family(METHOD)
        check_mean_over_batches(model, small, disturbed(family, size=0.02), METHOD, inputs, 7)
        with small.batches(inputs) as batches:
            training = Training(
                disturbed(family, size=0.1),
                start_inputs,
                NO_SLOT,
                jax.random.key(3),
                draws=4,
                batches=batches,
            )
            _, chunk = training.run(training.start(), learning_rates(0.02, 250))
        assert np.isfinite(chunk.elbo).all()
        assert chunk.elbo[-50:].mean() > chunk.elbo[:10].mean()
