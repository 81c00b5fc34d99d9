"""One process that fits again and again: what a fit made goes with it."""

import gc
from collections import Counter

import avistan as avi
from avistan.density import slots
from avistan.objective import elbo as evaluation
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


def numbers_kept():
    return sum(normals.size for normals in evaluation._kept.values())


def test_fits_of_many_seeds_leave_no_normals_and_few_preparations_behind():
    model = bundled("eight_schools")
    for seed in range(8):
        fit = model.fit(seed=seed, **OPTIONS)
        assert numbers_kept() == 0
    assert len(model._starts.kept) <= 4
    assert fit.seed == 7


def test_models_that_were_fitted_and_forgotten_are_gone():
    bundled("eight_schools").fit(**OPTIONS)
    before = living()
    for seed in range(4):
        bundled("eight_schools").fit(seed=seed, **OPTIONS)
    assert living() == before


def test_the_methods_of_a_comparison_share_their_normals(monkeypatch):
    """Those of the final estimates are made once, whatever the number of methods."""
    made = Counter()

    def counted(words, numbers):
        made[words, numbers.shape] += 1
        return original(words, numbers)

    original = evaluation.normals_at
    monkeypatch.setattr(evaluation, "normals_at", counted)
    comparison = bundled("eight_schools").compare(["fvi", "constant"], steps=5, elbo_draws=400)
    assert len(comparison.rows) == 2
    assert max(made.values()) == 1
    assert numbers_kept() == 0
