"""Streams of random numbers: each purpose has its own, so that no two parts of one fit share numbers by accident.

Every stream follows from the seed of a fit and its member of `Stream`; further numbers, such as those of chains and
stages, separate streams of one purpose. Numbers are fixed once given, and no number is given twice.
"""

from __future__ import annotations

import enum
import operator

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from avistan.runtime.types import Rng


class Stream(enum.IntEnum):
    """Purposes of random numbers."""

    RANKING = 1, "draws that calibration ranks, and ties among them"
    NETWORK = 2, "initial weights of inference networks"
    ELBO = 3, "draws of the ELBO that a fit reports; common to all methods of one seed"
    FITTED_UNITS = 4, "posterior draws of a fit"
    NEW_UNITS = 5, "posterior draws of new units"
    SHARD_PREPARATION = 6, "units on which a fit by shards is prepared"
    SHARD = 7, "units of each shard"
    MEASURED_UNITS = 8, "units of the shards on which training compares families"
    SECOND_NETWORK = 9, "initial weights of the network of a second level"
    CONDITIONAL_START = 10, "points at which curvature starts conditional factors"
    STARTS_OF_CHAINS = 11, "scatter of the starts of further chains"
    STOPPING = 12, "draws on which the stopping rule compares ELBOs"
    TRAINING = 13, "normals of the steps of training; a number for each stage"
    SIGNATURES = 15, "reference points of signatures"
    SECOND_SIGNATURES = 16, "reference points of the signatures of a second level"
    RESTARTS = 17, "seeds of the quick fits of further chains"
    SHARD_ROUNDS = 18, "rounds on shards before units of two levels are read"
    NATURAL_GRADIENT = 20, "draws of natural-gradient steps of the globals"
    SEPARABILITY = 21, "points at which units are probed for independence before their marginals are taken"
    MIXTURE = 24, "choice of chains for a mixture of all"
    GENERATED_QUANTITIES = 25, "Stan's own random numbers in generated quantities"
    UNIT_DISTANCE = 26, "fitted units that new ones are compared with"
    WARM_START = 27, "draws that initial values and the metric of NUTS are taken from"
    CHECKED_ENTRIES = 28, "points at which a prediction finds what belongs to its units"
    CHECKED_QUANTITIES = 29, "points at which a prediction finds quantities that depend on all units"
    WITNESS = 30, "draws whose log weights recognize a saved fit"
    REFINEMENT = 31, "steps that refine units without amortization"
    SIMULATIONS = 32, "seeds of the fits of simulated data sets"
    PATHFINDER = 33, "resampling of Pathfinder's paths"
    CONTINUATION = 34, "steps of a diagnosis that continue training"
    SCATTERED_STARTS = 41, "random starts of a diagnosis"
    CHAINS_AGREEMENT = 42, "draws whose R-hat compares chains"
    GLOBAL_WEIGHTS = 51, "draws of the globals whose weights a diagnosis judges"
    GLOBAL_MOMENTS = 56, "draws for the means and sds of the globals in q"
    PATHS = 57, "draws that compare points on quasi-Newton paths"
    FIXED_DRAWS = 58, "fixed draws on which a quick fit is improved"
    QUICK_FIT = 59, "start and steps of a quick fit"
    CURVATURE_PROBES = 60, "directions that probe the curvature of many coordinates at once"
    DIRECTIONS = 61, "directions of the globals before training"
    LOW_RANK = 64, "first factors of low-rank globals"
    CURVES = 65, "random features of curves along which units depend on the globals"
    CORRECTION = 67, "draws of the globals from which their posterior is corrected"
    CORRECTED_UNITS = 68, "draws of the units given corrected globals"
    CHAINS_OF_CORRECTION = 69, "Markov chains of a correction"
    LINES = 70, "lines along which the latents of units are integrated out, where they are many"
    REFINEMENT_GAIN = 66, "draws on which the gain of a refinement is measured"

    def __new__(cls, number: int, purpose: str) -> Stream:
        """A stream by its number and what it is for."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.__doc__ = purpose
        return member


def generator(seed: int, stream: Stream, *numbers: int) -> Rng:
    """The generator of a stream, always the same for the same arguments.

    Args:
        numbers: separate streams of one purpose.
    """
    return np.random.default_rng(_entropy(seed, stream, numbers))


def derived_seeds(seed: int, stream: Stream, *numbers: int, count: int = 1) -> list[int]:
    """Seeds from 0 to 2^31 - 1 derived from one, for what takes a seed of its own."""
    state = np.random.SeedSequence(_entropy(seed, stream, numbers)).generate_state(count)
    return [int(word) >> 1 for word in state]


def stream_key(key: PRNGKeyArray, stream: Stream, *numbers: int) -> PRNGKeyArray:
    """The key of a stream, derived from another key; `numbers` separate streams of one purpose."""
    for number in (stream, *numbers):
        key = jax.random.fold_in(key, int(number))
    return key


def _entropy(seed: int, stream: Stream, numbers: tuple[int, ...]) -> list[int]:
    return [operator.index(seed), int(stream), *map(operator.index, numbers)]
