"""A fit as a record: what was trained, how, and what it reached. Everything that comes after training reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from avistan.family.family import Family, num_variational_parameters
from avistan.family.method import Method
from avistan.fitting.chains import Chain, best_of, run_chains
from avistan.fitting.family_selection import GrowthStep
from avistan.fitting.options import FitOptions
from avistan.fitting.outcome import FitOutcome
from avistan.objective.elbo import Evaluation
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import Progress
from avistan.runtime.text import with_error
from avistan.runtime.threads import one_blas_thread
from avistan.start.preparation import Preparation
from avistan.start.unit_inputs import UnitInput
from avistan.training.checkpoints import Checkpoint
from avistan.training.loop import Trace
from avistan.training.stopping import Ending
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.levels.levels import Level
from stan_adapters.levels.probes import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of a fit. `prepare` (quick fit, signatures) is shared by all methods of a comparison."""

    prepare: float
    compile: float
    train: float
    evaluate: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """What a fit is trained from.

    Attributes:
        preparation: the shared start.
        method: before it grew.
        grow: whether it might grow.
        reason: for the method, in a sentence.
        seconds: that the preparation took.
    """

    preparation: Preparation
    method: Method
    grow: bool
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A fitted variational posterior.

    Attributes:
        model: the bound model; stays open as long as the fit is used.
        level: the amortized level, None where every parameter is global.
        method: of all chains; where the family grew, the one that it ended with.
        reason: why this method was used, in a sentence.
        unit_input: what the inference function reads.
        second: the second amortized level, None where there is one level at most.
        chains: independent restarts. What a fit says of itself (`elbo`, `trace`, `outcome`) is of the best one.
        certificate: the probes that the level passed.
        origin: what the fit was trained from; None if it was loaded.
    """

    model: BoundModel
    level: Level | None
    method: Method
    options: FitOptions
    seed: int
    reason: str
    unit_input: UnitInput | None = field(repr=False)
    chains: tuple[Chain, ...]
    timing: Timing
    certificate: tuple[Probe, ...] = field(default=(), repr=False)
    second: Level | None = None
    origin: Origin | None = field(default=None, repr=False)

    @property
    def best(self) -> Chain:
        """The chain with the largest ELBO."""
        return self.chains[best_of(self.chains)]

    @property
    def family(self) -> Family:
        """q of the best chain."""
        return self.best.family

    @property
    def inputs(self) -> npt.NDArray[np.float64]:
        """Unit inputs (N, R)."""
        return self.best.inputs

    @property
    def trace(self) -> Trace:
        """ELBO (nats) and rejected draws of every step of the best chain."""
        return self.best.trace

    @property
    def evaluation(self) -> Evaluation:
        """The draws' log weights (nats) behind `elbo`."""
        return self.best.evaluation

    @property
    def growth(self) -> tuple[GrowthStep, ...]:
        """The richer families that were tried, and what each bought."""
        return self.chains[0].growth

    @property
    def elbo(self) -> float:
        """Evidence lower bound in nats, up to the program's constant; larger is better."""
        return self.evaluation.elbo

    @property
    def elbo_se(self) -> float:
        """Standard error of `elbo` in nats."""
        return self.evaluation.elbo_se

    @property
    def outcome(self) -> FitOutcome:
        """How training ended, with advice as its value."""
        return self.best.outcome

    @property
    def num_variational_parameters(self) -> int:
        """Numbers that training moved."""
        return num_variational_parameters(self.family)

    @property
    def gradient_evaluations(self) -> int:
        """Stan gradients of training, all chains together."""
        return sum(chain.gradient_evaluations for chain in self.chains)

    def __str__(self) -> str:
        levels = [level for level in (self.level, self.second) if level is not None]
        of = ", " * bool(levels) + " and ".join(
            f"{level.num_units} units of {level.name}" for level in levels
        )
        reason = f" {self.reason}" if self.reason else ""
        advice = f"\n{self.outcome.value}" if self.outcome.value else ""
        start = self.timing.prepare + self.timing.compile
        steps = len(self.trace.elbo)
        ended = f"{self.outcome.name} after {steps} steps"
        if self.outcome is FitOutcome.settled and self.trace.ended is Ending.given:
            ended = f"after the {steps} steps asked for"
        restarts = ""
        if len(self.chains) > 1:
            elbos = ", ".join(f"{chain.evaluation.elbo:.2f}" for chain in self.chains)
            restarts = f"\nELBOs of {len(self.chains)} restarts: {elbos}."
        grown = "".join(
            f"\n{step.method}: {with_error(step.gain, step.gain_se, sign=True)}, {'kept' if step.kept else 'not kept'}."
            for step in self.growth
        )
        return (
            f"{self.method.name} fit of {self.model.program.name}{of}, engine {self.model.engine}: "
            f"ELBO {with_error(self.elbo, self.elbo_se)}, {ended}, "
            f"{self.timing.train:.1f} s (+ {start:.1f} s start).{reason}{advice}{restarts}{grown}"
        )


@one_blas_thread
@in_float64
def fit_method(
    preparation: Preparation,
    method: Method,
    options: FitOptions,
    *,
    chains: int = 1,
    grow: bool = False,
    reason: str = "",
    certificate: Sequence[Probe] = (),
    seconds_prepare: float = 0.0,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train and evaluate one method; training is saved to `checkpoint` and continued from it.

    Methods that share a preparation and a seed share every random number of training and evaluation.

    Args:
        chains: independent restarts.
        grow: try richer families too, and keep what pays.
    """
    ended, made = run_chains(
        preparation, method, options, chains=chains, grow=grow, progress=progress, checkpoint=checkpoint
    )
    unit_input, _ = preparation.unit_input(method)
    return Fitted(
        model=preparation.model,
        level=preparation.level,
        method=ended,
        options=options,
        seed=preparation.seed,
        reason=reason,
        unit_input=unit_input,
        chains=made,
        timing=Timing(
            prepare=seconds_prepare,
            compile=sum(chain.seconds_compile for chain in made),
            train=sum(chain.seconds_train for chain in made),
            evaluate=sum(chain.seconds_evaluate for chain in made),
        ),
        certificate=tuple(certificate),
        second=None if ended.second is None else preparation.second_level(ended),
        origin=Origin(preparation=preparation, method=method, grow=grow),
    )
