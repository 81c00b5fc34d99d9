"""From a method's name to a fit: the method, its level, the start that all fits of one seed share, and training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from avistan.fitting.budget import check_method
from avistan.fitting.fitted import Fitted, Origin, fit_method
from avistan.fitting.method_choice import level_for, needs_whole, others_beside, readable, resolve
from avistan.fitting.options import FitOptions
from avistan.fitting.shard_preparation import prepare_large
from avistan.runtime.progress import begin_stage
from avistan.runtime.progress_bars import bars, quiet, shown
from avistan.runtime.threads import one_blas_thread
from avistan.runtime.types import StrPath
from avistan.start.preparation import Preparation, prepare
from avistan.training.checkpoints import Checkpoint
from avistan.training.fingerprint import describe_fit
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import StructureError
from stan_adapters.levels.levels import Level
from stan_adapters.shards.shard import minibatches_pay
from stan_adapters.structure.structure import Structure
from stan_adapters.unit_data import Slicing

_MOST = 4  # starts that are kept, the latest: of seeds, and of what else they depend on


class SharedStarts:
    """Starts of the fits of one bound program, made when they are first asked for.

    Args:
        slicing: how the data of some units of a level are written; None where minibatches can't serve.
    """

    def __init__(self, bound: BoundModel, slicing: Callable[[Level], Slicing | None]) -> None:
        self._bound, self._slicing = bound, slicing
        self.kept: dict[tuple[Any, ...], tuple[Preparation, float]] = {}

    def origin(
        self, method: str, structure: Structure, seed: int, options: FitOptions, *, family: str | None
    ) -> Origin:
        """What a fit by a method's name, or by "auto", is trained from.

        Args:
            family: whether it may grow beyond the method's own: "auto", "fixed" or None, as in `Model.fit`.

        Raises:
            MethodError: no such method, or it can't serve the program.
            FitError: it would take more memory than there is, or more than a month.
        """
        grow = (family or ("auto" if method == "auto" else "fixed")) == "auto"
        chosen, reason = resolve(method, structure, self._bound.dim, grow=grow)
        level = level_for(chosen, structure)
        check_method(self._bound, level, chosen, options)
        preparation, seconds = self.prepared(
            level,
            structure,
            seed,
            options,
            whole=needs_whole([] if method == "auto" else [chosen], options),
            long_fit=chosen.second is not None,
        )
        chosen, reason = readable(preparation, chosen, reason, asked=method)
        return Origin(preparation=preparation, method=chosen, grow=grow, reason=reason, seconds=seconds)

    def fit(
        self,
        method: str,
        structure: Structure,
        seed: int,
        options: FitOptions,
        *,
        family: str | None,
        chains: int,
        checkpoint: StrPath | None,
        resume: bool,
        show_progress: bool | None,
    ) -> Fitted:
        """A fit by a method's name, or by "auto"; arguments as in `Model.fit`."""
        origin = self.origin(method, structure, seed, options, family=family)
        with contextlib.ExitStack() as stack:
            saves = None
            if checkpoint is not None:
                level, name = origin.preparation.level, origin.method.name
                described = describe_fit(self._bound, level, method=name, options=asdict(options), seed=seed)
                asked = {"family": family or "", "chains": chains}
                saves = stack.enter_context(Checkpoint(checkpoint, {**described, **asked}, resume=resume))
            progress = stack.enter_context(bars() if shown(show_progress) else quiet())
            return fit_method(
                origin.preparation,
                origin.method,
                options,
                reason=origin.reason,
                seconds_prepare=origin.seconds,
                progress=progress(origin.method.name),
                checkpoint=saves,
                chains=chains,
                grow=origin.grow,
                certificate=structure.certificate,
            )

    @one_blas_thread
    def prepared(
        self,
        level: Level | None,
        structure: Structure,
        seed: int,
        options: FitOptions,
        *,
        whole: bool,
        long_fit: bool,
    ) -> tuple[Preparation, float]:
        """The start on a level and the seconds it took.

        Args:
            whole: steps must see all units: no minibatches.
            long_fit: a longer quick fit belongs to the start too.
        """
        others = others_beside(structure, level)
        key = (
            None if level is None else (level.name, level.latents),
            tuple(other.latents for other in others),
            whole,
            seed,
            options.num_references,
            options.max_rank,
        )
        if key not in self.kept:
            started = time.perf_counter()
            made = self._made(level, structure, others, seed, options, whole=whole)
            self.kept[key] = made, time.perf_counter() - started
            while len(self.kept) > _MOST:
                del self.kept[next(iter(self.kept))]
        preparation, seconds = self.kept[key]
        if long_fit and preparation.others and not preparation.has_long_fit:
            started = time.perf_counter()
            with contextlib.suppress(StructureError):  # what has no signatures says so when it reads them
                _ = preparation.long_fit
            self.kept[key] = preparation, seconds + time.perf_counter() - started
        return self.kept[key]

    def _made(
        self,
        level: Level | None,
        structure: Structure,
        others: tuple[Level, ...],
        seed: int,
        options: FitOptions,
        *,
        whole: bool,
    ) -> Preparation:
        begin_stage("start: a quick fit of all parameters", next="training")
        counts: dict[str, Any] = {"num_references": options.num_references, "max_rank": options.max_rank}
        slicing = None if whole or level is None else self._slicing(level)
        if level is not None and slicing is not None and minibatches_pay(slicing, self._bound.data):
            return prepare_large(self._bound, level, slicing, others=others, seed=seed, **counts)
        chosen = structure.chosen
        separable = chosen is not None and chosen.separable and level == chosen.level
        made = prepare(self._bound, level, others=others, seed=seed, separable=separable, **counts)
        _ = made.quick  # what it takes belongs to the preparation
        return made
