"""Markov chains for the latents of all units at once, the globals held fixed.

Given the globals units do not meet, so one gradient of the whole model moves the chain of every unit a leapfrog step,
and each unit accepts its own move: the change of its own density is the line integral of its scores.
"""

from __future__ import annotations

import numpy as np

from stan_adapters.engine.abi import FloatArray
from stan_adapters.units.conditional_density import Modes, Rng, UnitDensity, solve_lower, solve_upper

_LEAPFROG_STEPS = 5
_STEP = 0.35  # of a leapfrog step in conditional sds at first: five make a quarter turn of a Gaussian
_TARGET = 0.85  # share of accepted moves that the steps are tuned to


def sample_units(
    density: UnitDensity, theta: FloatArray, modes: Modes, rng: Rng, *, draws: int = 100, warmup: int = 40
) -> tuple[FloatArray, FloatArray]:
    """Hamiltonian Monte Carlo draws of p(z_n | theta) for all units, from their conditional modes.

    Args:
        theta: globals (S, G), one chain for each and for each unit; `modes` are those at theta.
        draws: after `warmup`, in which each chain tunes its step.

    Returns: draws (K, S, N, d), and the share of accepted moves (S, N).

    Source: Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo 2011.
    """
    shape = modes.z.shape
    z = modes.z + solve_upper(modes.chol, rng.standard_normal(shape))
    _, score = density.scores(theta, z)
    log_step = np.full(shape[:2], np.log(_STEP))
    kept = np.empty((draws, *shape))
    accepted = np.zeros(shape[:2])
    for number in range(warmup + draws):
        momentum = rng.standard_normal(
            shape
        )  # in coordinates in which the curvature at the mode is the identity
        step = (np.exp(log_step) * rng.uniform(0.8, 1.2, shape[:2]))[..., None]
        at, moving, slope = z, momentum.copy(), score
        usable = np.ones(shape[0], dtype=bool)
        for _ in range(_LEAPFROG_STEPS):
            moving = moving + 0.5 * step * solve_lower(modes.chol, slope)
            at = at + solve_upper(modes.chol, step * moving)
            lp, slope = density.scores(theta, at)
            usable &= np.isfinite(lp)
            moving = moving + 0.5 * step * solve_lower(modes.chol, slope)
        change = density.differences(theta, z, at) + 0.5 * (momentum**2 - moving**2).sum(axis=2)
        change = np.where(usable[:, None] & np.isfinite(change), change, -np.inf)
        move = np.log(rng.random(shape[:2])) < change
        z, score = np.where(move[..., None], at, z), np.where(move[..., None], slope, score)
        if number < warmup:
            chance = np.exp(np.minimum(change, 0.0))
            log_step = log_step + (chance - _TARGET) / np.sqrt(number + 1)
        else:
            kept[number - warmup] = z
            accepted += move
    return kept, accepted / draws
