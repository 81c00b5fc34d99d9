"""Preparing very many units: the quick fit of one shard serves all; two amortized levels begin with rounds."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from avistan.family.family import Family, mean_and_sd
from avistan.family.method import Method, parse_method
from avistan.objective.elbo import tabulated
from avistan.runtime.deadline import out_of_time
from avistan.runtime.device import on_device
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import begin_stage
from avistan.runtime.streams import Stream, generator, stream_key
from avistan.runtime.threads import one_blas_thread
from avistan.runtime.types import FloatArray
from avistan.start.preparation import Preparation, once, prepare
from avistan.start.quick_fit import QuickFit, quick_fit
from avistan.start.unit_inputs import UnitInput
from avistan.training.loop import NO_SLOT, TrainingOptions, train
from avistan.training.shards import Minibatches
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import IndexArray
from stan_adapters.errors import StructureError
from stan_adapters.levels.levels import Level
from stan_adapters.shards.base import make_base
from stan_adapters.shards.pool import DEFAULT_BUDGET
from stan_adapters.shards.shard import ShardMaker, batch_size
from stan_adapters.unit_data import Slicing

_SAMPLE = 20_000  # units whose scores fit the transform of the signatures
_ONE_LEVEL = parse_method("avi")
_TWO_LEVELS = parse_method("avi:levels")
_ROUND_STEPS, _MOST_ROUNDS = 1000, 6  # of training before signatures of two levels are read
_STILL = 0.3  # sds (root mean square) by which a round moves the second level's means when rounds end
_SETTLING = 1 << 20  # separates random numbers and shards of those rounds from those of training


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LargePreparation(Preparation):
    """The preparation of a level that is trained on minibatches.

    Its quick fit, which tables start from, is that of one shard, carried over to all units by the function of their
    signatures that starts there: a quick fit of all would cost more than the training that it saves. Its globals are
    in doubt, because a shard knows them with sds that are so much wider than those of the whole.
    """

    minibatches: Minibatches

    def _quick_fit(self) -> QuickFit:
        try:
            family, _ = self.minibatches.start_family(_ONE_LEVEL)
            return self._of_all(family, self.unit_input(_ONE_LEVEL)[1])
        except StructureError:  # no signatures: what `auto` then says, and tables need none
            return quick_fit(self.model, seed=self.quick_seed, scattered=self.scattered)

    def _continued(self) -> QuickFit:
        return self._own_long_fit()

    def minibatches_of(self, method: Method) -> Minibatches:
        """Minibatches for a method: with two amortized levels they start at the long fit.

        Raises:
            MethodError, StructureError: there is no second level, or its units have no signatures.
        """
        if method.second is None:
            return self.minibatches
        # The preparation of the shard shares what is read of all data here.
        self.second_input(self.second_level(method))
        return self._two_level_minibatches()

    def _two_level_minibatches(self) -> Minibatches:
        return once(
            self._own,
            "two levels",
            lambda: self._starting(self._own_long_fit(), self.long_fit, self._second_inputs),
        )

    def _own_long_fit(self) -> QuickFit:
        return once(self._own, "long fit", self._trained_in_rounds)

    @one_blas_thread
    @in_float64
    def _trained_in_rounds(self) -> QuickFit:
        """Where training of two levels begins from this start.

        The quick fit of a shard knows the second level's latents from few of their data, far from their posterior
        means, and signatures read there miss what units meet. So both levels are trained for some steps, after a
        training of the first alone, and again with signatures read around where that went, until the second level's
        means stay where they are.
        """
        second = self.second_level(_TWO_LEVELS)
        fit = self._trained(self.minibatches, _ONE_LEVEL, 0)
        for number in range(1, _MOST_ROUNDS + 1):
            inputs: dict[Hashable, FloatArray] = {second.latents: self._second_signatures(second, fit)}
            begun = self._starting(fit, fit, inputs, globals_in_doubt=self.globals_in_doubt)
            before, fit = fit, self._trained(begun, _TWO_LEVELS, number)
            moved = ((fit.mean - before.mean) / fit.sd)[second.index]
            if np.sqrt(np.mean(moved**2)) < _STILL or out_of_time():
                break
        return fit

    def _starting(
        self,
        fit: QuickFit,
        around: QuickFit,
        second_inputs: dict[Hashable, FloatArray],
        *,
        globals_in_doubt: float = 1.0,
    ) -> Minibatches:
        """Minibatches for two levels that start at a fit of all units, with signatures around one."""
        start = self.minibatches.start

        def placed(level: Level) -> Level:
            place = np.searchsorted(self.globals_index, level.index)
            return replace(level, index=start.globals_index[place])

        begun = replace(
            start,
            others=tuple(placed(level) for level in self.others),
            globals_in_doubt=globals_in_doubt,
            _own={"quick": self._in_shard(fit)},
            _shared={"long fit": self._in_shard(around)},
            _second_inputs=second_inputs,
        )
        return replace(self.minibatches, start=begun, of_all=True)

    def in_shard(self, point: FloatArray) -> FloatArray:
        """A point (D,) of all units, for those of the shard that training starts with."""
        return np.asarray(point[self._in_whole])

    @property
    def _in_whole(self) -> IndexArray:
        """Where the shard's parameters are among all."""
        start = self.minibatches.start
        in_whole = np.empty(start.model.dim, dtype=np.int64)
        in_whole[start.globals_index] = self.globals_index
        in_whole[start.index] = self.index[self.minibatches.units]
        return in_whole

    def _in_shard(self, fit: QuickFit) -> QuickFit:
        return replace(fit, mean=self.in_shard(fit.mean), sd=self.in_shard(fit.sd))

    def _trained(self, minibatches: Minibatches, method: Method, number: int) -> QuickFit:
        """What some steps on minibatches of the method's family end with."""
        begin_stage(f"a start for two levels, round {number}", next="training")
        family, inputs = minibatches.start_family(method)
        options = minibatches.training(TrainingOptions(steps=_ROUND_STEPS))
        key = stream_key(jax.random.key(self.quick_seed), Stream.SHARD_ROUNDS, number)
        of_all = minibatches.unit_inputs(method)
        with minibatches.batches(of_all, _SETTLING + number) as batches:
            family, _ = train(family, inputs, NO_SLOT, options, key, batches=batches)
        return self._of_all(family, of_all)

    def _of_all(self, family: Family, inputs: FloatArray) -> QuickFit:
        """Means and sds of the globals and of all units, whose inputs are (N, R), in a factorized family of a shard."""
        read = on_device(inputs, np.float32)
        found = mean_and_sd(tabulated(self.minibatches.whole_family(family), read), read)
        mean, sd = (np.asarray(part, dtype=np.float64) for part in found)
        return replace(self.minibatches.start.quick, mean=mean, sd=sd)

    def started_at(self, fit: QuickFit) -> LargePreparation:
        """As of `Preparation`, with a quick fit of all units."""
        begun = replace(self.minibatches.start.started_at(self._in_shard(fit)), globals_in_doubt=1.0)
        minibatches = replace(self.minibatches, start=begun, of_all=True)
        return replace(
            self,
            minibatches=minibatches,
            globals_in_doubt=1.0,
            _own={"quick": fit},
            _shared={},
            _second_inputs={},
        )

    def restarted(self, number: int) -> LargePreparation:
        """As of `Preparation`."""
        start = self.minibatches.start.restarted(number)
        again = replace(self.minibatches, start=start)
        return replace(self, minibatches=again, quick_seed=start.quick_seed, scattered=True, _own={})

    def _signature(self, neighbours: int, long_fit: bool) -> tuple[UnitInput, FloatArray]:
        """The inputs of all units, from what the shards read."""
        shards = self._two_level_minibatches() if long_fit else self.minibatches
        given = shards.start.signature(neighbours, long_fit=long_fit)
        return given, given(self.model, self.index, self.globals_index)


def prepare_large(
    model: BoundModel,
    level: Level,
    slicing: Slicing,
    *,
    seed: int,
    num_references: int,
    max_rank: int,
    others: tuple[Level, ...] = (),
    size: int | None = None,
    memory_budget: int = DEFAULT_BUDGET,
) -> LargePreparation:
    """The preparation of a level on minibatches of its units, with the quick fit of one of them.

    Args:
        others: further levels that can be amortized too; every shard has all of their units.
        size: most units in a shard; by default `batch_size`.

    Raises:
        StartError: no point of finite density to start from.
        StructureError: the units' log densities do not add up to the whole.
        AvistanError: the program refuses the data of some units.
    """
    maker, size = ShardMaker(model, level, slicing), size or batch_size(slicing, model.data)
    units = generator(seed, Stream.SHARD_PREPARATION).permutation(level.num_units)
    few, many = maker(units[:size]), maker(units[: max(size, _SAMPLE)])
    given: dict[str, Any] = {"seed": seed, "num_references": num_references, "max_rank": max_rank}
    start = prepare(few.model, replace(level, index=few.index), sample=many, **given)
    base = make_base(maker, start.quick.mean[start.index].mean(axis=0), seed=seed)
    minibatches = Minibatches(
        maker=maker,
        start=start,
        units=few.units,
        base=base,
        size=size,
        seed=seed,
        memory_budget=memory_budget,
    )
    return LargePreparation(
        model=model,
        level=level,
        index=level.index,
        globals_index=level.globals_index(model.dim),
        quick_seed=seed,
        others=others,
        globals_in_doubt=math.sqrt(level.num_units / size),
        minibatches=minibatches,
        separable=True,
        **given,
    )
