"""What choices take of memory and time for a bound program: what would never end is refused before it begins.

Estimates are the least that the work takes, so that nothing is refused that could be done: the arrays that must be
there at once, and the gradients that must be taken.
"""

from __future__ import annotations

import os
import time

import numpy as np

from avistan.family.method import DEFAULT_RANK, Method
from avistan.fitting.options import FitOptions
from avistan.runtime.errors import MethodError
from avistan.runtime.limits import check_memory, check_time
from avistan.start.unit_inputs import unit_columns
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.levels.levels import Level
from stan_adapters.units.signature import MOST_FITTED

_DOUBLE, _SINGLE = 8, 4
_FEWEST_STEPS = 250  # of training whose length is not given
_MINIBATCH = 10_000  # parameters of a step, where units may be taken some at a time
_POINT = 4  # arrays of all draws of a step: normals, points, gradients, those of the parameters
_WEIGHT = (
    6  # arrays of a network's weights: they, their gradient, Adam's two moments, their mean, what is best
)
_DRAW = 2  # arrays of a sampler's draws: of its chains and joined
_SCORES = 3  # arrays of scores: raw, scaled, the matrix of their covariance beside
_OPERATIONS = 1e11  # in a second, of products of matrices
_POINTS_TIMED, _NUMBERS_TIMED = 256, 1 << 16  # at which gradients are timed
_TIMED = 40_000  # gradients from which their time is asked for: fewer end within a month at a minute each


def check_training(model: BoundModel, options: FitOptions, *, chains: int = 1) -> None:
    """That training and the final estimate can be done, whatever the level and the method.

    Raises:
        FitError: an option would take more memory than there is, or more than a month.
    """
    if not model.dim:  # said elsewhere
        return
    rows = min(model.dim, _MINIBATCH)
    check_memory(
        f"draws_per_step={options.draws_per_step} of {model.dim} parameters",
        _POINT * _DOUBLE * options.draws_per_step * rows / (1 if rows == model.dim else 4),
        "Give fewer draws: 8 serve most programs.",
    )
    check_memory(
        f"steps={options.steps}",
        2 * _DOUBLE * (options.steps or 0) * chains,
        "Leave steps out: training ends when it no longer pays.",
    )
    check_memory(f"elbo_draws={options.elbo_draws}", 3 * _DOUBLE * options.elbo_draws * chains, "Give fewer.")
    steps = options.steps or _FEWEST_STEPS
    gradients = steps * options.draws_per_step * chains * rows / model.dim
    seconds = seconds_of_gradients(model, gradients)
    named = f"steps={options.steps}, " if options.steps else ""
    check_time(
        f"Training with {named}draws_per_step={options.draws_per_step} and chains={chains}",
        seconds,
        "Give less, or leave them out.",
    )
    estimates = min(options.elbo_draws, max(20, 5_000_000 // model.dim)) * chains
    check_time(
        f"An ELBO of elbo_draws={options.elbo_draws}", seconds_of_gradients(model, estimates), "Give fewer."
    )


def check_method(model: BoundModel, level: Level | None, method: Method, options: FitOptions) -> None:
    """That a method's family and inputs can be held and trained.

    Raises:
        FitError: it would take more memory than there is, or more than a month.
        MethodError: neighbours or rows that are further away than any unit.
    """
    if level is None:
        return
    units, block = level.index.shape
    num_globals = model.dim - level.index.size
    if method.neighbours >= units:
        raise MethodError(
            f"{method.name}: {level.name} has {units} units, so none has {method.neighbours} to a side. Give fewer."
        )
    if method.data:
        unit_columns(model.data, method.data, units)
    if method.rank > max(num_globals, DEFAULT_RANK):
        raise MethodError(
            f"{method.name}: no rank is above {num_globals}, the number of globals. Give a smaller one, or :full-rank."
        )
    for name, offsets in method.data:
        rows = len(np.atleast_1d(np.asarray(model.data[name]))) if name in model.data else 0
        far = [offset for offset in offsets if rows and abs(offset) >= rows]
        if far:
            raise MethodError(
                f"{method.name}: {name} has {rows} rows, so no unit has one {far[0]:+d} rows from its own. Give "
                "offsets nearby, such as -1 and 1."
            )
    if method.amortized and not method.data:
        fitted = min(units, MOST_FITTED)
        columns = options.num_references * block
        check_memory(
            f"num_references={options.num_references} of {units} units",
            _DOUBLE * _SCORES * (fitted * columns + columns**2),
            "Give fewer: 24 serve most programs.",
        )
        gradients = options.num_references
        check_time(f"num_references={gradients}", seconds_of_gradients(model, gradients), "Give fewer.")
    if method.amortized:
        components = min(options.max_rank, options.num_references * block)
        check_memory(
            f"{method.name} of {units} units",
            _DOUBLE * units * (2 * method.neighbours + 1) * (1 if method.data else min(components, 2)),
            "Give fewer neighbours.",
        )
    if method.function == "mlp":
        seen = min(units, _MINIBATCH)
        check_memory(
            f"A network of width {method.size} ({method.name})",
            _SINGLE * (_WEIGHT * method.size**2 + 2 * seen * method.size),
            "Give a smaller one: 64 serves most programs.",
        )
        steps = options.steps or _FEWEST_STEPS
        check_time(
            f"Training a network of width {method.size} ({method.name})",
            6 * steps * seen * method.size**2 / _OPERATIONS,
            "Give a smaller one: 64 serves most programs.",
        )
    if method.rank:
        check_memory(
            f"{method.name}: {method.rank} directions of {num_globals} globals",
            2 * _WEIGHT * _DOUBLE * num_globals * method.rank,
            "Give fewer.",
        )


def check_sampling(model: BoundModel, *, chains: int = 4, warmup: int = 1000, draws: int = 1000) -> None:
    """That a reference's draws can be held, and sampled within a month.

    Raises:
        FitError: they can't, with what they would take.
    """
    of = f"A reference of {chains} chains with warmup={warmup} and draws={draws}"
    check_memory(of, _DRAW * _DOUBLE * chains * draws * model.dim, "Give fewer draws.")
    check_time(of, seconds_of_gradients(model, chains * (warmup + draws)), "Give fewer.")


def seconds_of_gradients(model: BoundModel, count: int | float) -> float:
    """How long so many gradients take at least, all processors at work; 0 where that is clearly not long."""
    if count < _TIMED:
        return 0.0
    points = np.zeros((max(1, min(_POINTS_TIMED, _NUMBERS_TIMED // model.dim)), model.dim))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.log_density_gradient(points)
        seconds.append((time.perf_counter() - start) / len(points))
    return count * min(seconds) / (os.cpu_count() or 1)
