"""CmdStan's algorithms on a bound model's program and data, through cmdstanpy.

Draws come back on the bound model's unconstrained scale, ELBOs with the bound model's constant.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import LogRecord
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import CmdStanError, notify_once
from stan_adapters.language.program import StrPath
from stan_adapters.samplers.stanli import SamplerDraws

_SIGNIFICANT_DIGITS = 18  # doubles survive the way through text
_EXACT_SCALES_UP_TO = 3900  # coordinates: beyond, as many draws as their scales need no longer fit in memory
_NEVER = 1e-12  # a relative change of the ELBO below which none stays
_LEAST_DRAWS = 1000
_POINTS = 3  # where the executable is compared with the model
_SAME_DENSITY = 1e-9  # of the log density: rounding of both, and of the way through the constrained scale
_SAME_GRADIENT = 1e-6  # of its largest component
_SOLVED = 1e-6  # residual of the linear equations of the scales

_ADAPTATION = re.compile(r"^Iteration:\s+(\d+) / \d+ .*\(Adaptation\)", re.M)
_DOUBTS = re.compile(r"^(?:Informational Message: )?(.*may not.*have converged.*)$", re.M)
_PARETO = re.compile(r"^(Pareto k value .*)$", re.M)
_CAUSE = re.compile(r"^.*(?:Exception:|Log probability evaluates to|Gradient evaluated at).*$", re.M)
_FAILURE = re.compile(r"^.*(?:fail|error|maximum amount).*$", re.M | re.I)
_CONFIGURATION = re.compile(r"\A.*?^num_threads = .*?$", re.M | re.S)


@dataclass(frozen=True, kw_only=True, eq=False)
class Advi:
    """A mean-field ADVI fit.

    Attributes:
        theta: (S, D) draws of the approximation.
        mean_field: its exact mean and sd (D,), where they could be found.
        elbo, elbo_se: an unbiased estimate from the draws in nats, where `mean_field` is None.
        trace: (K, 3) iterations, seconds, and CmdStan's ELBO estimates of 100 draws in nats.
        gradient_evaluations: of adaptation and ascent together.
        seconds: of the run, its start and its output's reading included.
        caveat: CmdStan's own doubts about convergence; empty if none.
    """

    theta: FloatArray
    mean_field: tuple[FloatArray, FloatArray] | None
    elbo: float | None
    elbo_se: float | None
    trace: FloatArray
    gradient_evaluations: int
    seconds: float
    caveat: str


class CmdStan:
    """CmdStan on a bound model's program (without its generated quantities) and data; a context manager.

    Entering compiles the program, or takes `exe_file`, and compares its log density with the model's.

    Args:
        exe_file: an executable that CmdStan made of the same program; it needs no CmdStan installation.

    Attributes:
        seconds_compile: 0 with an executable.
        same_scale: whether CmdStan's unconstrained scale is the model's: versions of Stan transform simplexes, and
            what is made of them, differently.

    Raises:
        CmdStanError: on entering: there is no CmdStan, it can't compile the program, the executable is of another
            program, or the program has no parameters or tuple or complex ones.
    """

    def __init__(self, model: BoundModel, *, exe_file: StrPath | None = None) -> None:
        self.model = model
        self.exe_file = exe_file
        self.seconds_compile = 0.0
        self.same_scale = False
        self._name = model.program.name
        self._client: Any = None

    def __enter__(self) -> Self:
        parameters = self.model.program.parameters
        odd = [d.name for d in parameters if d.type.is_tuple or d.type.is_complex]
        if odd or not self.model.dim:
            what = f"tuple or complex parameters: {', '.join(odd)}" if odd else "no parameters"
            raise CmdStanError(f"CmdStan can't approximate {self._name}: it has {what}.")
        self._folder = tempfile.TemporaryDirectory(prefix="avistan-")
        try:
            self._data = Path(self._folder.name, "data.json")
            self._data.write_text(self.model.data.to_json())
            self._client = self._compiled() if self.exe_file is None else self._given(self.exe_file)
            self.same_scale = self._check()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = None
        self._folder.cleanup()

    def advi(self, *, seed: int, iterations: int | None = None) -> Advi:
        """Mean-field ADVI with CmdStan's defaults: one draw a gradient, at most 10000 iterations.

        With `iterations` it takes all of these: its rule for ending early may end far from the optimum.

        CmdStan writes the mean of the approximation and draws with the log density log_g of their standard normals,
        but no scales. They follow from the draws: sum_d w_d (theta_sd - mean_d)^2 = -2 log_g_s is linear in the
        precisions w. A model of more than 3900 coordinates has its ELBO estimated from 1000 draws instead.

        Source: Kucukelbir et al., JMLR 2017.

        Raises:
            CmdStanError: ADVI failed, with CmdStan's reason.
        """
        dim = self.model.dim
        exact = self.same_scale and dim <= _EXACT_SCALES_UP_TO
        num_draws = max(_LEAST_DRAWS, dim + 100) if exact else _LEAST_DRAWS
        fit, folder, seconds = self._run(
            "variational",
            seed=seed,
            algorithm="meanfield",
            grad_samples=1,
            draws=num_draws,
            require_converged=False,
            save_diagnostics=True,
            **({} if iterations is None else {"iter": iterations, "tol_rel_obj": _NEVER}),
        )
        rows = np.vstack([fit.variational_params_np, fit.variational_sample])
        points = self._unconstrained(fit.metadata, rows)
        mean, theta = points[0], points[1:]
        log_p, log_g = (
            fit.variational_sample[:, fit.column_names.index(name)] for name in ("log_p__", "log_g__")
        )
        shift = self._constant(theta, log_p)
        sd = exact_scales(theta, mean, log_g) if exact else None
        elbo, elbo_se = None, None
        if sd is None and self.same_scale:
            elbo, elbo_se = elbo_of_draws(theta, mean, log_p + shift, log_g)
        console = _read(folder, "*.txt")
        adaptation = max((int(number) for number in _ADAPTATION.findall(console)), default=0)
        trace = np.loadtxt(next(folder.glob("*diagnostic*.csv")), delimiter=",", comments="#", ndmin=2)
        doubts = (
            []
            if self.same_scale
            else ["its unconstrained scale is not the model's, so its ELBO is not known."]
        )
        return Advi(
            theta=theta,
            mean_field=None if sd is None else (mean, sd),
            elbo=elbo,
            elbo_se=elbo_se,
            trace=trace + np.array([0.0, 0.0, shift]),
            gradient_evaluations=adaptation + int(trace[-1, 0]),
            seconds=seconds,
            caveat=" ".join(_DOUBTS.findall(console) + doubts),
        )

    def pathfinder(self, *, seed: int) -> SamplerDraws:
        """Multi-path Pathfinder with CmdStan's defaults: 1000 draws (S, D), importance resampled from 4 paths.

        Source: Zhang, Carpenter, Gelman & Vehtari, JMLR 2022.

        Raises:
            CmdStanError: no path succeeded, with CmdStan's reason.
        """
        fit, folder, seconds = self._run("pathfinder", seed=seed)
        return SamplerDraws(
            theta=self._unconstrained(fit.metadata, fit.draws()),
            seconds=seconds,
            caveat=" ".join(_PARETO.findall(_read(folder, "*.txt"))),
        )

    def nuts(self, *, seed: int, chains: int = 4, warmup: int = 1000, draws: int = 1000) -> SamplerDraws:
        """NUTS draws (C, S, D).

        Source: Hoffman & Gelman, JMLR 2014; Betancourt, arXiv 1701.02434.

        Raises:
            CmdStanError: a chain failed, with CmdStan's reason.
        """
        fit, _, seconds = self._run(
            "sample", seed=seed, chains=chains, iter_warmup=warmup, iter_sampling=draws, show_progress=False
        )
        by_chain = np.moveaxis(fit.draws(), 1, 0)
        theta = self._unconstrained(fit.metadata, by_chain.reshape(chains * draws, -1))
        return SamplerDraws(
            theta=theta.reshape(chains, draws, self.model.dim),
            seconds=seconds,
            divergences=int(np.sum(fit.divergences)),
        )

    # -- inside -------------------------------------------------------------------------------------------------

    def _given(self, exe_file: StrPath) -> Any:
        import cmdstanpy

        if not Path(exe_file).is_file():
            raise CmdStanError(f"there is no CmdStan executable {exe_file}.")
        with _listening():
            return cmdstanpy.CmdStanModel(
                exe_file=exe_file
            )  # without stan_file nothing is ever compiled again

    def _compiled(self) -> Any:
        import cmdstanpy

        with _listening():
            try:
                cmdstanpy.cmdstan_path()
            except ValueError as error:
                raise CmdStanError(
                    f"there is no CmdStan installation to compile {self._name}: set CMDSTAN to its folder, run "
                    "`cmdstanpy.install_cmdstan()`, or give an executable that CmdStan made of this program."
                ) from error
            source = Path(self._folder.name, "program.stan")
            source.write_text(self.model.program.without_generated_quantities().source)
            notify_once(
                f"compiling {self._name} with CmdStan, which takes a minute or more and is not kept. To do it once, "
                "compile the program yourself and give the executable (cmdstan_exe=, --cmdstan-exe)."
            )
            started = time.perf_counter()
            try:
                client = cmdstanpy.CmdStanModel(stan_file=source)
            except (ValueError, RuntimeError, OSError) as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                raise CmdStanError(
                    f"CmdStan can't compile {self._name}. Its last words: " + "\n".join(lines[-8:])
                ) from error
        self.seconds_compile = time.perf_counter() - started
        return client

    def _check(self) -> bool:
        """Compare log densities and gradients at random points; returns whether the gradients agree.

        Raises:
            CmdStanError: the log densities differ by more than a constant.
        """
        points, ours, gradients = self._usable_points()
        values, _ = self.model.constrain(points, transformed_parameters=False, generated_quantities=False)
        theirs = np.empty((len(points), 1 + self.model.dim))
        for s, row in enumerate(theirs):
            at = {name: draws[s] for name, draws in values.items()}
            with _listening() as heard:
                try:
                    frame = self._client.log_prob(at, data=str(self._data), sig_figs=_SIGNIFICANT_DIGITS)
                except (RuntimeError, ValueError, OSError) as error:
                    said = "\n".join(heard).partition("stdout:")[2].replace("\nstderr:", "\n")
                    reason = _reason(said) or str(error)
                    raise CmdStanError(
                        f"the CmdStan executable {self._client.exe_file} does not take the parameters or the data "
                        f"of {self._name}: {reason}"
                    ) from error
            if frame.shape[1] != len(row):
                raise CmdStanError(
                    f"the CmdStan executable {self._client.exe_file} is of another program than {self._name}: it "
                    f"has {frame.shape[1] - 1} unconstrained parameters, expected {self.model.dim}."
                )
            row[:] = frame.to_numpy()[0]
        difference = theirs[:, 0] - ours
        scale = max(1.0, float(np.abs(theirs[:, 0]).max()), float(np.abs(ours).max()))
        if not np.ptp(difference) <= _SAME_DENSITY * scale:
            raise CmdStanError(
                f"the CmdStan executable {self._client.exe_file} is of another program than {self._name}, or of "
                f"other data: at {len(points)} random points their log densities differ by "
                f"{', '.join(f'{d:.6g}' for d in difference)}, where one constant is expected. Give the executable "
                "of this program, or none to compile one."
            )
        largest = np.abs(gradients).max(axis=1, keepdims=True)
        return bool((np.abs(theirs[:, 1:] - gradients) <= _SAME_GRADIENT * largest).all())

    def _usable_points(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Random unconstrained points where the model's density is finite, as far out as there are any."""
        rng = np.random.default_rng(1)
        for width in (1.0, 0.3, 0.1, 0.01):
            points = rng.normal(scale=width, size=(20, self.model.dim))
            lp, gradients = self.model.log_density_gradient(points)
            kept = np.flatnonzero(np.isfinite(lp))[:_POINTS]
            if len(kept) == _POINTS:
                return points[kept], lp[kept], gradients[kept]
        raise CmdStanError(
            f"{self._name} has no finite log density at random points near 0, so CmdStan can't start either: "
            f"{self.model.why_rejected(points[0])}"
        )

    def _run(self, method: str, **arguments: Any) -> tuple[Any, Path, float]:
        """A method of the client: its fit, the folder of its files, and the seconds it took."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        started = time.perf_counter()
        with _listening():
            try:
                fit = getattr(self._client, method)(
                    data=str(self._data), output_dir=str(folder), sig_figs=_SIGNIFICANT_DIGITS, **arguments
                )
            except (RuntimeError, ValueError, OSError) as error:
                reason = _reason(_read(folder, "*.txt")) or str(error)
                raise CmdStanError(f"CmdStan's {method} failed on {self._name}: {reason}") from error
        return fit, folder, time.perf_counter() - started

    def _unconstrained(self, metadata: Any, rows: FloatArray) -> FloatArray:
        """Unconstrained points (S, D) of rows of a CSV file."""
        shapes = {c.name: c.shape for c in self.model.layout.containers if 0 not in c.shape}
        draws = {
            name: np.asarray(metadata.stan_vars[name].extract_reshape(rows)).reshape(len(rows), *shape)
            for name, shape in shapes.items()
        }
        return self.model.unconstrain_draws(draws)

    def _constant(self, theta: FloatArray, log_p: FloatArray) -> float:
        """What the model's log density has more than CmdStan's.

        Raises:
            CmdStanError: it is no constant.
        """
        lp, _ = self.model.log_density_gradient(theta)
        finite = np.isfinite(lp) & np.isfinite(log_p)
        difference = (lp - log_p)[finite]
        if not finite.any() or np.ptp(difference) > 1e-6 * max(1.0, float(np.abs(log_p[finite]).max())):
            raise CmdStanError(
                f"CmdStan's log density of {self._name} is not the model's plus a constant at the draws of ADVI: "
                "its ELBO can't be compared."
            )
        return float(np.median(difference))


def exact_scales(theta: FloatArray, mean: FloatArray, log_g: FloatArray) -> FloatArray | None:
    """Sds (D,) of a mean-field Gaussian, from S > D draws theta (S, D) and log_g = -|e|^2 / 2 (S,) of their normals e.

    Returns: None where the equations have no accurate positive solution.
    """
    from scipy.linalg import solve_triangular

    squares = (theta - mean) ** 2
    size = squares.mean(axis=0)
    if not (size > 0).all():
        return None
    system = np.column_stack([squares / size, -2 * log_g])
    triangle = np.linalg.qr(system, mode="r")
    residual = abs(triangle[-1, -1]) / np.linalg.norm(system[:, -1])
    relative_precision = solve_triangular(triangle[:-1, :-1], triangle[:-1, -1])
    if not (residual < _SOLVED and (relative_precision > 0).all()):
        return None
    return np.asarray(np.sqrt(size / relative_precision))


def elbo_of_draws(
    theta: FloatArray, mean: FloatArray, log_p: FloatArray, log_g: FloatArray
) -> tuple[float, float]:
    """An unbiased ELBO in nats and its standard error, of a mean-field Gaussian whose scales are not known.

    The mean of log_p (S,) over draws theta (S, D) plus the entropy of the scales s_d^2 = mean (theta_sd - mean_d)^2,
    whose logarithms are too small by (log(S/2) - digamma(S/2)) / 2 on average. To first order the noise of the entropy
    is that of -log_g (S,), so both parts together vary like log_p - log_g, and the remainder has variance D / (2 S^2).
    """
    from scipy.special import digamma

    num_draws, dim = theta.shape
    log_sd = 0.5 * np.log(((theta - mean) ** 2).mean(axis=0))
    bias = 0.5 * (digamma(num_draws / 2) - np.log(num_draws / 2))
    entropy = float(log_sd.sum()) - dim * bias + 0.5 * dim * (1 + np.log(2 * np.pi))
    variance = np.var(log_p - log_g, ddof=1) / num_draws + dim / (2 * num_draws**2)
    return float(log_p.mean() + entropy), float(np.sqrt(variance))


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Keep cmdstanpy's messages from the terminal; they are in the list."""
    heard: list[str] = []

    def keep(record: LogRecord) -> bool:
        heard.append(record.getMessage())
        return False

    from cmdstanpy.utils import get_logger  # imported where CmdStan is asked for: the others start faster

    logger = get_logger()
    logger.addFilter(keep)
    try:
        yield heard
    finally:
        logger.removeFilter(keep)


def _read(folder: Path, pattern: str) -> str:
    return "\n".join(file.read_text(errors="replace") for file in sorted(folder.glob(pattern)))


def _reason(console: str) -> str:
    """CmdStan's own words on why it failed: what failed, and the last cause it named. Empty if it said nothing."""
    said = _CONFIGURATION.sub("", console)
    cause, failure = _CAUSE.findall(said)[-1:], _FAILURE.findall(said)[:1]
    words = [line.strip().removeprefix("Exception: ") for line in dict.fromkeys(failure + cause)]
    return " ".join(words)
