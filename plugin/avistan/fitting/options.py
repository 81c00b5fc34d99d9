"""What can be chosen of a fit: one frozen record, saved with every result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avistan.objective.gradient import Estimator
from avistan.runtime.errors import FitError, MethodError
from avistan.runtime.limits import check_numbers
from avistan.training.loop import TrainingOptions
from stan_adapters.files.names import did_you_mean

_NUMBERS = ("steps", "draws_per_step", "learning_rate", "num_references", "max_rank", "elbo_draws")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """Options of a fit.

    Attributes:
        steps: of Adam, and of units' own rows by natural gradient. None, the default, ends training when it no longer
            pays (`stopping.StoppingRule`); a number trains that long, the learning rate falling along a cosine, and
            half as long for each richer family.
        draws_per_step: Stan gradients a step, the budget that all methods of a comparison share; on minibatches of
            units a quarter of it, because the noise is then mostly that of the units, and so for `fvi` and `constant`
            of thousands of units where the number of steps is not given (`unit_rows`).
        learning_rate: of free parameters, on the standardized scale; see `optimizer`.
        estimator: "path" or "entropy", see `gradient.neg_elbo`.
        num_references: K, gradients that make a signature.
        max_rank: most components of a signature that the inference function reads.
        elbo_draws: draws of the final ELBO estimate, in antithetic pairs; fewer where a draw has very many numbers.

    Raises:
        FitError: a value out of range.

    Example:
        >>> avi.FitOptions(steps=4000).draws_per_step
        8
    """

    steps: int | None = None
    draws_per_step: int = 8
    learning_rate: float = 0.02
    estimator: Estimator = "path"
    num_references: int = 24
    max_rank: int = 16
    elbo_draws: int = 2000

    def __post_init__(self) -> None:
        for name in _NUMBERS[1:]:
            if getattr(self, name) is None:
                raise FitError(f"{name}=None: leave it out for its default.")
        check_numbers(**{name: getattr(self, name) for name in _NUMBERS})
        if self.estimator not in ("path", "entropy"):
            raise FitError(f"estimator={self.estimator!r}: choose 'path' or 'entropy'.")

    @property
    def training(self) -> TrainingOptions:
        """The part that training reads."""
        return TrainingOptions(
            steps=self.steps,
            draws_per_step=self.draws_per_step,
            learning_rate=self.learning_rate,
            estimator=self.estimator,
        )


def make_options(options: Mapping[str, Any]) -> FitOptions:
    """`FitOptions` of keyword arguments.

    Raises:
        MethodError: an option that does not exist, with the nearest one.
        FitError: a value out of range.
    """
    known = list(FitOptions.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise MethodError(
                f"fit has no option {name!r}.{did_you_mean(name, known)} Options: {', '.join(known)}."
            )
    return FitOptions(**options)
