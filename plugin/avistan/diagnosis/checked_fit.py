"""What the checks of a diagnosis look at: a fit, its best chain, q, and the densities of its units."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from avistan.correction.approximation import Approximation, approximation
from avistan.correction.separable import unit_density
from avistan.diagnosis.verdict import Variable
from avistan.fitting.chains import Chain
from avistan.fitting.fitted import Fitted
from avistan.fitting.shard_preparation import LargePreparation
from avistan.posterior.corrected import Corrected, corrected
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray, Rng
from avistan.start.quick_fit import QuickFit
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.units.conditional_density import UnitDensity

NO_UNITS = "Not run: the fit has no level of separable units."
_NAMED = 3  # worst units that a finding names


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A model with its units' densities (None without separable ones), and where q's centre is in it."""

    model: BoundModel
    density: UnitDensity | None
    center: FloatArray


@dataclass(kw_only=True, eq=False)
class CheckedFit:
    """One fit under diagnosis. What several checks need is made when the first of them asks for it.

    Attributes:
        seed: of the checks' random numbers.
        units: numbers of single units that checks found, (N,) by name.
        variables: verdicts on the globals.
        corrected: whether the draws are known not to be q's own.
        better_start: a quick fit in a better optimum, if a check found one.
    """

    fit: Fitted
    seed: int
    units: dict[str, FloatArray] = field(default_factory=dict)
    variables: tuple[Variable, ...] = ()
    corrected: bool = False
    better_start: QuickFit | None = None

    @property
    def chain(self) -> Chain:
        """The restart with the largest ELBO."""
        return self.fit.best

    @cached_property
    def q(self) -> Approximation:
        """Of the best chain."""
        return approximation(self.chain.family, self.chain.inputs)

    @cached_property
    def made(self) -> Corrected:
        """What the fit hands out."""
        return corrected(self.fit)

    @cached_property
    def density(self) -> UnitDensity | None:
        """Of the fit's units; None without a level of separable ones."""
        return unit_density(self.fit)

    @cached_property
    def sample(self) -> Sample:
        """What modes are looked for in: all data, or those of some units where a shard of them is at hand."""
        origin = self.fit.origin
        if origin is None or not isinstance(origin.preparation, LargePreparation):
            return Sample(self.fit.model, self.density, self.q.center)
        shard = origin.preparation.minibatches.start
        center = origin.preparation.in_shard(self.q.center)
        return Sample(shard.model, UnitDensity(shard.model, shard.index, shard.globals_index), center)

    def rng(self, stream: Stream) -> Rng:
        """Random numbers of one check, whatever the other checks take."""
        return generator(self.seed, stream)

    def worst(self, values: FloatArray) -> str:
        """The units with the largest values (N,), as a clause; they count from 1, as in Stan."""
        level = self.fit.level
        assert level is not None
        order = [unit for unit in np.argsort(-values)[:_NAMED] if np.isfinite(values[unit])]
        named = ", ".join(f"{level.name} {unit + 1} ({values[unit]:.2f})" for unit in order)
        return f"; worst, counted from 1: {named}" if named else ""
