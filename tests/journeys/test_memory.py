"""One process that fits again and again: what a fit made goes with it."""

import gc
from collections import Counter

import avistan as avi
from avistan.density import slots
from avistan.start.preparation import Preparation
from programs import bundled
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.engine.instances import Instance

OPTIONS = {"method": "avi", "steps": 5, "elbo_draws": 400}
KINDS = (Preparation, BoundModel, Instance, avi.Model, avi.Fit, slots.Slot)


def living():
    """Objects of ours by kind, and slots that are open."""
    gc.collect()
    found = Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, KINDS))
    return found | {"open slots": len(slots._records), "retired": len(slots._retired)}


def test_fits_of_many_seeds_leave_few_preparations_behind():
    model = bundled("eight_schools")
    for seed in range(8):
        fit = model.fit(seed=seed, **OPTIONS)
    assert len(model._starts.kept) <= 4
    assert fit.seed == 7


def test_models_that_were_fitted_and_forgotten_are_gone():
    bundled("eight_schools").fit(**OPTIONS)
    before = living()
    for seed in range(4):
        bundled("eight_schools").fit(seed=seed, **OPTIONS)
    assert living() == before
