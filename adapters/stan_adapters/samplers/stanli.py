"""stanli's own algorithms on a bound model's program and data: NUTS and single-path Pathfinder."""

from __future__ import annotations

import ctypes
import re
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.engine.abi import FloatArray
from stan_adapters.engine.stanli_programs import stanli_mir
from stan_adapters.errors import EngineError

# Versions of stanli's C ABI in which stanli_run_pathfinder has the arguments below.
_KNOWN_ABI = (1, 2)
_DOUBLES = ctypes.POINTER(ctypes.c_double)
_PATHFINDER = ctypes.CFUNCTYPE(
    ctypes.c_int,  # 0 on success
    ctypes.c_void_p,  # model
    ctypes.c_uint32,  # seed
    ctypes.c_int,  # chain id: the stream of random numbers
    ctypes.c_int,  # draws
    _DOUBLES,  # unconstrained draws
    _DOUBLES,  # log densities of the model
    _DOUBLES,  # log densities of the approximation
    _DOUBLES,  # 4 numbers of summary
    ctypes.c_void_p,  # callback
    ctypes.c_void_p,  # and its argument
    ctypes.c_char_p,  # message
    ctypes.c_size_t,  # and its length
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplerDraws:
    """Unconstrained draws (S, D) or, of a sampler, (C, S, D).

    Attributes:
        seconds: of the whole run.
        caveat: the algorithm's own doubts about them; empty if none.
    """

    theta: FloatArray
    seconds: float
    divergences: int = 0
    caveat: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Paths:
    """Draws of P single-path Pathfinder approximations.

    Attributes:
        theta: (P, S, D) unconstrained draws.
        log_p: (P, S) log densities of the model in nats, up to a constant that all share.
        log_q: (P, S) log densities of the approximation that the draw comes from, likewise.
        failures: reasons of the paths that failed, which are not among the P.
    """

    theta: FloatArray
    log_p: FloatArray
    log_q: FloatArray
    failures: tuple[str, ...]
    seconds: float


def nuts(
    model: BoundModel,
    *,
    seed: int,
    chains: int = 4,
    warmup: int = 1000,
    draws: int = 1000,
    inits: FloatArray | None = None,
    inverse_metric: FloatArray | None = None,
    target_acceptance: float = 0.8,
) -> SamplerDraws:
    """NUTS draws (C, S, D) by stanli's sampler, whose settings are CmdStan's.

    Args:
        inits: (C, D) unconstrained starting points; by default random, as Stan has them.
        inverse_metric: that adaptation begins with, variances (D,) or a covariance (D, D), which is then a dense one.

    Source: Hoffman & Gelman, JMLR 2014; Betancourt, arXiv 1701.02434.

    Raises:
        EngineError: stanli is missing or can't sample the program, with its reason.
    """
    started = time.perf_counter()
    given: dict[str, Any] = {"delta": target_acceptance}
    if inits is not None:
        given["inits"] = inits
    if inverse_metric is not None:
        given |= {
            "inv_metric": inverse_metric,
            "metric": "diag_e" if inverse_metric.ndim == 1 else "dense_e",
        }
    try:
        fit = _stanli(model, seed).sample(
            chains=chains, seed=seed, warmup=warmup, samples=draws, refresh=0, **given
        )
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"stanli's NUTS failed on {model.program.name}: {error}") from error
    seconds = time.perf_counter() - started
    flat = {
        c.name: np.asarray(fit[c.name]).reshape(chains * draws, *c.shape)
        for c in model.layout.containers
        if 0 not in c.shape
    }
    theta = model.unconstrain_draws(flat) if flat else np.empty((chains * draws, 0))
    return SamplerDraws(
        theta=theta.reshape(chains, draws, model.dim),
        seconds=seconds,
        divergences=int(np.sum(fit.divergences)),
    )


def pathfinder_paths(model: BoundModel, *, seed: int, paths: int = 4, draws: int = 1000) -> Paths:
    """Single-path Pathfinder, several times from random starts, with Stan's default settings.

    stanli offers no multi-path Pathfinder: Stan 2.40's, it says, reads past the end of an array.

    Source: Zhang, Carpenter, Gelman & Vehtari, JMLR 2022, algorithm 1.

    Raises:
        EngineError: stanli is missing or has another C ABI, or no path succeeded, with stanli's reason.
    """
    started = time.perf_counter()
    try:
        interpreted = _stanli(model, seed)
    except RuntimeError as error:
        raise EngineError(f"stanli's Pathfinder failed on {model.program.name}: {error}") from error
    run = _pathfinder()
    message, summary = ctypes.create_string_buffer(4096), np.empty(4)
    kept, failures = [], []
    for path in range(1, paths + 1):
        theta, log_p, log_q = np.empty((draws, model.dim)), np.empty(draws), np.empty(draws)
        at = [array.ctypes.data_as(_DOUBLES) for array in (theta, log_p, log_q, summary)]
        if run(interpreted._m, seed, path, draws, *at, None, None, message, len(message)):
            said = re.sub(r"Path \[\d+\] :", "", message.value.decode(errors="replace"))
            failures.append(" ".join(said.split()))
        else:
            kept.append((theta, log_p, log_q))
    if not kept:
        raise EngineError(f"stanli's Pathfinder failed on {model.program.name}: {failures[0]}")
    theta, log_p, log_q = (np.stack(arrays) for arrays in zip(*kept, strict=True))
    return Paths(
        theta=theta,
        log_p=log_p,
        log_q=log_q,
        failures=tuple(failures),
        seconds=time.perf_counter() - started,
    )


def _stanli(model: BoundModel, seed: int) -> Any:
    """The program without its generated quantities and the data, as a `stanli.Model`."""
    try:
        import stanli
    except ImportError as error:
        raise EngineError(
            "NUTS and Pathfinder without CmdStan need stanli: run `pip install stanli`."
        ) from error
    program = model.program.without_generated_quantities()
    return stanli.Model(mir=stanli_mir(program), data=model.data.to_json(), seed=seed)


def _pathfinder() -> Any:
    """stanli's single-path Pathfinder, which its Python package does not wrap."""
    import stanli

    library = stanli._lib
    version = library.stanli_abi_version()
    if version not in _KNOWN_ABI:
        raise EngineError(
            f"Pathfinder through stanli {stanli.__version__} is not known to work: its C ABI has version {version}, "
            f"known are {' and '.join(map(str, _KNOWN_ABI))}. Use cmdstan-pathfinder, or another stanli."
        )
    return _PATHFINDER(("stanli_run_pathfinder", library))
