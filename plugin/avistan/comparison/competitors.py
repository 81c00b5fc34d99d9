"""Competitors from outside: CmdStan's ADVI and Pathfinder, Pathfinder through stanli; and references by name."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from avistan.comparison.elbo_curves import Curve
from avistan.comparison.references import Reference, nuts, reference_from
from avistan.foreign.cmdstanpy_fits import is_cmdstanpy
from avistan.foreign.sources import FORMATS, is_object, is_there
from avistan.objective.psis import pareto_smoothed
from avistan.runtime.errors import AvistanError, CompetitorError, MethodError
from avistan.runtime.limits import check_path, whole_number
from avistan.runtime.progress import begin_stage
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray, StrPath
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import CmdStanError, EngineError
from stan_adapters.files.names import did_you_mean
from stan_adapters.samplers.cmdstan import CmdStan
from stan_adapters.samplers.stanli import Paths, pathfinder_paths

REFERENCES = ("nuts", "cmdstan-nuts")
SAMPLER_OPTIONS = ("chains", "warmup", "draws")
COMPETITORS = ("cmdstan-advi", "cmdstan-pathfinder", "pathfinder")
_WAYS_OUT = {
    "nuts": "\nWays out: the reference cmdstan-nuts, which samples the program compiled by CmdStan, or files of draws "
    "made elsewhere."
}
_RELIABLE_KHAT = 0.7  # Vehtari et al., JMLR 2024


def check_reference(given: object) -> None:
    """That a reference is draws, or the name of a reference or a file.

    Raises:
        MethodError: it is none of these.
    """
    if given is None or isinstance(given, Reference) or is_object(given) or is_cmdstanpy(given):
        return
    if isinstance(given, str) and given in REFERENCES:
        return
    if not isinstance(given, str | os.PathLike | list | tuple) or given in ([], ()):
        raise MethodError(
            f"the reference is a {type(given).__name__}, expected {', '.join(REFERENCES)}, {FORMATS}, a DataTree, a "
            "fit of cmdstanpy or a Reference."
        )
    for each in given if isinstance(given, list | tuple) else [given]:
        if each in REFERENCES:
            raise MethodError(f"{each} is a reference of its own: give it, or files of draws, not both.")
        if each == "" or not is_there(each):
            name = os.fspath(each) if isinstance(each, str | os.PathLike) else repr(each)
            hint = did_you_mean(name, REFERENCES)
            raise MethodError(
                f"unknown reference {name!r}, and no such file.{hint} References: {', '.join(REFERENCES)}, or "
                f"{FORMATS}."
            )


def check_executable(path: StrPath | None) -> None:
    """That a program compiled by CmdStan is there, if one is named.

    Raises:
        CompetitorError: it is not.
    """
    if path is None:
        return
    check_path("cmdstan_exe", path)
    if not os.access(path, os.X_OK):
        seen = "can't be run" if os.path.exists(path) else "is not there"
        raise CompetitorError(f"{path}, given as the program compiled by CmdStan, {seen}.")


def sampler_options(options: Mapping[str, Any], reference: object) -> dict[str, int]:
    """The options of a reference that is sampled here: chains, warmup, draws.

    Raises:
        CompetitorError: another option, with the nearest one, or options of no such reference.
        FitError: a number out of range.
    """
    if not isinstance(options, Mapping):
        raise CompetitorError(f"reference_options={options!r}: give a dict, such as {{'draws': 500}}.")
    if options and not (isinstance(reference, str) and reference in REFERENCES):
        raise CompetitorError(
            f"{', '.join(map(str, options))} of the reference: options are for the references {', '.join(REFERENCES)}. "
            "Name one of them (reference=, --reference)."
        )
    for name in options:
        if name not in SAMPLER_OPTIONS:
            hint = did_you_mean(str(name), SAMPLER_OPTIONS)
            raise CompetitorError(
                f"a reference has no option {name!r}.{hint} Options: {', '.join(SAMPLER_OPTIONS)}."
            )
    return {
        name: whole_number(f"{name} of the reference", value, f"reference_{name}")
        for name, value in options.items()
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class OutsideDraws:
    """A competitor's approximate posterior, on the unconstrained scale.

    Attributes:
        theta: (S, D) draws, in no particular order.
        mean_field: exact mean and sd (D,) where it is a mean-field Gaussian.
        elbo, elbo_se: an unbiased estimate in nats, with the bound model's constant, where there is one and no
            `mean_field`.
        trace: ELBO along the fit, where the method reports one.
        seconds: without `seconds_compile`.
        seconds_compile: of the program; one compilation serves every method of an `External`.
        caveat: the method's own doubts about its result; empty if none.
    """

    name: str
    theta: FloatArray
    mean_field: tuple[FloatArray, FloatArray] | None = None
    elbo: float | None = None
    elbo_se: float | None = None
    trace: Curve | None = None
    steps: int | None = None
    gradient_evaluations: int | None = None
    seconds: float
    seconds_compile: float = 0.0
    caveat: str = ""


class External:
    """Competitors and references from outside for one bound model; a context manager.

    CmdStan is set up when something first needs it, once for all: a failure to do so is the answer to every later call.

    Args:
        cmdstan_exe: an executable that CmdStan made of the same program; None compiles one with an installed CmdStan.
    """

    def __init__(self, model: BoundModel, *, cmdstan_exe: StrPath | None = None) -> None:
        self.model = model
        self.cmdstan_exe = cmdstan_exe
        self._opened: CmdStan | AvistanError | None = None
        self._stack = ExitStack()

    def __enter__(self) -> External:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = None
        self._stack.close()

    def approximate(self, name: str, *, seed: int, iterations: int | None = None) -> OutsideDraws:
        """Run a competitor.

        Args:
            iterations: of CmdStan's ADVI, see `CmdStan.advi`.

        Raises:
            CompetitorError: there is no such competitor, or it has no such choice.
            CmdStanError, EngineError: it failed, with its reason.
        """
        if iterations is not None and name != "cmdstan-advi":
            raise CompetitorError(f"{name!r} has no iterations to set: iterations= is for cmdstan-advi.")
        begin_stage(f"running {name}")
        if name == "cmdstan-advi":
            return self._advi(seed, iterations)
        if name == "cmdstan-pathfinder":
            cmdstan = self._cmdstan()
            draws = cmdstan.pathfinder(seed=seed)
            return OutsideDraws(
                name=name,
                theta=draws.theta,
                seconds=draws.seconds,
                seconds_compile=cmdstan.seconds_compile,
                caveat=draws.caveat,
            )
        if name == "pathfinder":
            return self._pathfinder(seed)
        raise CompetitorError(f"unknown competitor {name!r}. Competitors: {', '.join(COMPETITORS)}.")

    def reference(self, source: Any, *, seed: int, **options: Any) -> Reference:
        """A reference by name, or of draws that were made elsewhere.

        Args:
            source: a name of `REFERENCES`, or as in `reference_from`.
            options: for NUTS: chains, warmup, draws.

        Raises:
            CompetitorError: no such reference, or see `reference_from`.
            CmdStanError, EngineError: the sampler failed, with its reason.
        """
        begin_stage(f"reference {source}" if isinstance(source, str) else "reference")
        if isinstance(source, str) and source == "nuts":
            return nuts(self.model, seed=seed, **options)
        if isinstance(source, str) and source == "cmdstan-nuts":
            return Reference.of("cmdstan-nuts", self._cmdstan().nuts(seed=seed, **options))
        if options:
            raise CompetitorError(
                f"{', '.join(options)}: options are for the references {', '.join(REFERENCES)}."
            )
        return reference_from(source, self.model)

    def reference_or_reason(self, source: Any, *, seed: int, **options: Any) -> tuple[Reference | None, str]:
        """The same, or None and the reason where a sampler fails: what else was computed need not go with it.

        Raises:
            CompetitorError: see `reference`.
        """
        try:
            return self.reference(source, seed=seed, **options), ""
        except (EngineError, CmdStanError) as error:
            return None, f"the reference {source} is missing: {error}{_WAYS_OUT.get(str(source), '')}"

    # -- inside -------------------------------------------------------------------------------------------------

    def _cmdstan(self) -> CmdStan:
        if self._opened is None:
            try:
                self._opened = self._stack.enter_context(CmdStan(self.model, exe_file=self.cmdstan_exe))
            except AvistanError as error:
                self._opened = error
        if isinstance(self._opened, AvistanError):
            raise self._opened
        return self._opened

    def _advi(self, seed: int, iterations: int | None) -> OutsideDraws:
        cmdstan = self._cmdstan()
        fit = cmdstan.advi(seed=seed, iterations=iterations)
        steps, seconds, elbo = fit.trace.T
        return OutsideDraws(
            name="cmdstan-advi",
            theta=fit.theta,
            mean_field=fit.mean_field,
            elbo=fit.elbo,
            elbo_se=fit.elbo_se,
            trace=Curve(steps=steps, seconds=seconds, elbo=elbo),
            steps=int(steps[-1]),
            gradient_evaluations=fit.gradient_evaluations,
            seconds=fit.seconds,
            seconds_compile=cmdstan.seconds_compile,
            caveat=fit.caveat,
        )

    def _pathfinder(self, seed: int) -> OutsideDraws:
        started = time.perf_counter()
        paths = pathfinder_paths(self.model, seed=seed)
        theta, khat = resample(paths, draws=1000, seed=seed)
        remarks = (
            [f"{len(paths.failures)} of its paths failed: {paths.failures[0]}"] if paths.failures else []
        )
        if not khat <= _RELIABLE_KHAT:
            remarks.append(f"its draws' importance weights are unreliable: their k-hat is {khat:.2f}.")
        return OutsideDraws(
            name="pathfinder",
            theta=theta,
            seconds=time.perf_counter() - started,
            caveat=" ".join(remarks),
        )


def resample(paths: Paths, *, draws: int, seed: int) -> tuple[FloatArray, float]:
    """Multi-path Pathfinder: draws (S, D) of all paths together, by Pareto smoothed importance resampling.

    Returns: the draws, and the k-hat of their weights.

    Source: Zhang, Carpenter, Gelman & Vehtari, JMLR 2022, algorithm 2.

    Raises:
        CompetitorError: no draw has a finite weight.
    """
    log_weights = (paths.log_p - paths.log_q).ravel()
    if not np.isfinite(log_weights).any():
        raise CompetitorError("Stan rejects every draw of Pathfinder: its approximations miss the posterior.")
    smoothed, khat = pareto_smoothed(log_weights)
    chosen = generator(seed, Stream.PATHFINDER).choice(log_weights.size, size=draws, p=np.exp(smoothed))
    return paths.theta.reshape(-1, paths.theta.shape[-1])[chosen], khat
