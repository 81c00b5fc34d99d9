"""Whether new units have the same scores by themselves as beside fitted ones, and these the same beside the new.

This needs no guess of what a program computes from all units, only data of both that can be joined.
"""

from __future__ import annotations

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.data.stan_data import StanData
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import AvistanError
from stan_adapters.levels.levels import Level, make_level
from stan_adapters.unit_data.checks import MAX_UNITS, TOLERANCE
from stan_adapters.unit_data.joining import join
from stan_adapters.unit_data.parts import rebind
from stan_adapters.unit_data.plan import Plan
from stan_adapters.unit_data.rules import OWNERS
from stan_adapters.unit_data.trials import relative_change


def entries_that_matter_together(
    model: BoundModel,
    level: Level,
    plan: Plan,
    new: StanData,
    theta: FloatArray,
    rng: np.random.Generator,
) -> tuple[str, ...] | None:
    """Entries by whose new values fitted and new units change each other's scores, at latents that stay.

    Args:
        plan: whose the data of the fitted units are. Of many units a sample is joined with the new ones.
        theta: (P, D) points of the model. The units are independent given the globals.

    Returns: None where there is no change, or where these data can't be joined or compared; an empty tuple where
        their values do not explain the change.
    """
    try:
        some = np.sort(rng.permutation(level.num_units)[:MAX_UNITS])
        joined = join([plan.subset(some), new], level=level.name)
        pair = _Pair(model, level, some, theta, rng)
        if not pair.differ(new, joined):
            return None
        usual = {}
        for declaration in model.program.data:
            owner = plan.owner(declaration.name)
            if owner is None or plan.rules[declaration.name].role in OWNERS:
                continue
            value, old = np.asarray(new[declaration.name]), np.asarray(model.data[declaration.name])
            known = old.take(rng.integers(old.shape[owner[0]], size=value.shape[owner[0]]), owner[0])
            if known.shape == value.shape:
                usual[declaration.name] = known

        def explain(names: list[str]) -> bool:
            """Whether there is no change where fitted values stand in the place of new ones."""
            changed = new.replace(**{name: usual[name] for name in names})
            return not pair.differ(changed, join([plan.subset(some), changed], level=level.name))

        names = [name for name in usual if explain([name])]
        return tuple(names or (usual if explain(list(usual)) else ()))
    except AvistanError:
        return None


class _Pair:
    """Fitted units at given points, and new ones at latents of fitted ones."""

    def __init__(
        self,
        model: BoundModel,
        level: Level,
        some: IndexArray,
        theta: FloatArray,
        rng: np.random.Generator,
    ) -> None:
        self.model, self.level, self.theta, self.seed = model, level, theta, int(rng.integers(1 << 31))
        self.globals = theta[:, level.globals_index(model.dim)]
        self.fitted = theta[:, level.index[some]]
        _, gradient = model.log_density_gradient(theta)
        self.scores = gradient[:, level.index[some]]

    def differ(self, new: StanData, joined: StanData) -> bool:
        """Raises AvistanError: data that can't be bound."""
        count = self.fitted.shape[1]
        with rebind(self.model, new) as one, rebind(self.model, joined) as both:
            index = make_level(one.layout, self.level.name, self.level.members).index
            chosen = np.random.default_rng(self.seed).integers(self.level.num_units, size=len(index))
            latents = self.theta[:, self.level.index[chosen]]
            alone = self._scores(one, latents)
            together = self._scores(both, np.concatenate([self.fitted, latents], axis=1))
        if alone is None or together is None:
            return False
        finite = np.isfinite(alone).all(axis=(1, 2)) & np.isfinite(together).all(axis=(1, 2))
        finite &= np.abs(alone).sum(axis=(1, 2)) > 0
        finite &= np.abs(together).sum(axis=(1, 2)) > 0
        if not finite.any():
            return False
        of_fitted = relative_change(self.scores[finite], together[finite][:, :count])
        of_new = relative_change(alone[finite], together[finite][:, count:])
        return bool((of_fitted > TOLERANCE).any() or (of_new > TOLERANCE).any())

    def _scores(self, model: BoundModel, latents: FloatArray) -> FloatArray | None:
        """Scores of all units (P, M, d), or None where the model has other parameters."""
        level = make_level(model.layout, self.level.name, self.level.members)
        others = level.globals_index(model.dim)
        if level.index.shape != latents.shape[1:] or len(others) != self.globals.shape[1]:
            return None
        theta = np.zeros((len(latents), model.dim))
        theta[:, others], theta[:, level.index] = self.globals, latents
        _, gradient = model.log_density_gradient(theta)
        return np.asarray(gradient[:, level.index])
