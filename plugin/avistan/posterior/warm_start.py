"""Starts of MCMC chains from a fit: points, an inverse metric, and what each sampler wants to be told.

A mean-field fit is too narrow in parameters that depend on each other, above all in globals that all units inform. So
variances and starting points come from its linear response: the curvature of the log density averaged over draws of the
fit. Units are separable, so one pair of gradients gives a column of the curvature for all units at once.
Source: Giordano, Broderick & Jordan, "Covariances, robustness, and variational Bayes", JMLR 2018.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avistan.correction.separable import is_separable
from avistan.files.outputs import whole_folder
from avistan.fitting.fitted import Fitted
from avistan.posterior.draws import unconstrained_draws
from avistan.posterior.linear_response import Response, linear_response
from avistan.runtime.errors import FitError
from avistan.runtime.limits import check_path, check_seed, whole_number
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray, StrPath
from avistan.start.preparation import split
from stan_adapters.bound.bound_model import BoundModel

_SPREAD_DRAWS = 2000  # of the fit, for its means and sds
_CURVATURE_DRAWS = 8
_MOST_GLOBALS = 500  # columns of the curvature; beyond them the fit's own variances serve
_TRIES = 20  # for a start of finite density

# Stan's three phases of warm-up (step size, metric, step size) for chains that start in the typical set.
_WARMUP, _PHASES = 100, (20, 50, 30)
# stanli adapts the metric only in 150 iterations or more, and its phases can't be chosen.
_STANLI_WARMUP = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class WarmStart:
    """Where chains start, and the scale of each parameter.

    Attributes:
        theta: (C, D) starting points on the unconstrained scale, in Stan's order.
        inits: the same points for Stan's `init`: constrained values of all parameters by name, one dict a chain.
        inverse_metric: (D,) variances on the unconstrained scale.
        response: whether points and variances carry the linear response; otherwise they are the fit's own.
        gradient_evaluations: what they took.

    Example:
        >>> start = fit.warm_start(chains=2)
        >>> start.chains, sorted(start.inits[0])
        (2, ['mu', 'tau', 'theta_raw'])
    """

    theta: FloatArray
    inits: tuple[dict[str, npt.NDArray[Any]], ...]
    inverse_metric: FloatArray
    seed: int
    response: bool
    gradient_evaluations: int

    @property
    def chains(self) -> int:
        return len(self.theta)

    def cmdstan(self, warmup: int = _WARMUP) -> dict[str, Any]:
        """Arguments of `cmdstanpy.CmdStanModel.sample`: starts, metric, and the phases of a short warm-up.

        CmdStan estimates the metric anew in the middle phase. Its unconstrained scale must be that of the fit's engine:
        versions of Stan transform simplexes and sum-to-zero vectors differently.

        Example:
            >>> start.cmdstan()["iter_warmup"]  # CmdStanModel(...).sample(data=..., **start.cmdstan())
            100
        """
        whole_number("warmup", warmup)
        phases = [max(1, round(warmup * part / _WARMUP)) for part in _PHASES]
        return {
            "chains": self.chains,
            "seed": self.seed,
            "inits": [{name: value.tolist() for name, value in init.items()} for init in self.inits],
            "metric": "diag_e",
            "inv_metric": {"inv_metric": self.inverse_metric.tolist()},
            "iter_warmup": sum(phases),
            "adapt_init_phase": phases[0],
            "adapt_metric_window": phases[1],
            "adapt_step_size": phases[2],
        }

    def stanli(self, warmup: int = _STANLI_WARMUP) -> dict[str, Any]:
        """Arguments of `stanli.Model.sample`. Below 150 iterations of warm-up only the step size is adapted.

        Example:
            >>> start.stanli()["warmup"]
            50
        """
        whole_number("warmup", warmup)
        return {
            "chains": self.chains,
            "seed": self.seed,
            "inits": self.theta,
            "metric": "diag_e",
            "inv_metric": self.inverse_metric,
            "warmup": warmup,
        }

    def nutpie(self, warmup: int = _WARMUP) -> dict[str, Any]:
        """Arguments of `nutpie.sample`: the mean of the starts, around which it jitters.

        It takes no metric and adapts its own. Where it samples a program that `nutpie.compile_stan_model` compiled, it
        does not use the mean either (nutpie 0.16); `nutpie_point` serves `make_initial_point_fn` of its other models.

        Example:
            >>> start.nutpie()["init_mean"].shape
            (10,)
        """
        whole_number("warmup", warmup)
        return {
            "chains": self.chains,
            "seed": self.seed,
            "init_mean": self.theta.mean(axis=0),
            "tune": warmup,
        }

    def nutpie_point(self, seed: int) -> FloatArray:
        """One of the starting points: `make_initial_point_fn` of `nutpie.compiled_pyfunc.from_pyfunc`.

        Example:
            >>> start.nutpie_point(seed=3).shape
            (10,)
        """
        return np.asarray(self.theta[seed % self.chains])

    def write(self, folder: StrPath) -> None:
        """Write CmdStan's JSON files, whole or not at all: inits_1.json and on, metric.json.

        For `sample init=inits_1.json algorithm=hmc metric=diag_e metric_file=metric.json` of a CmdStan program.

        Raises:
            FitError: the folder holds other files or can't be written.

        Example:
            >>> start.write(folder / "start")
            >>> sorted(path.name for path in (folder / "start").iterdir())
            ['inits_1.json', 'inits_2.json', 'metric.json']
        """
        check_path("folder", folder)
        names = [f"inits_{chain + 1}.json" for chain in range(self.chains)]
        older = [p.name for p in Path(folder).glob("inits_*.json")] if Path(folder).is_dir() else []
        with whole_folder(folder, {*names, *older, "metric.json"}) as place:
            for name, init in zip(names, self.inits, strict=True):
                values = {parameter: value.tolist() for parameter, value in init.items()}
                (place / name).write_text(json.dumps(values, allow_nan=False) + "\n")
            metric = {"inv_metric": self.inverse_metric.tolist()}
            (place / "metric.json").write_text(json.dumps(metric, allow_nan=False) + "\n")


def warm_start(fit: Fitted, *, chains: int = 4, seed: int | None = None) -> WarmStart:
    """Starts of `chains` MCMC chains, and an inverse metric, from a fit.

    Raises:
        FitError: `chains` is not positive, the fit is unusable, or no start of finite density was found.
    """
    whole_number("chains", chains)
    given = check_seed(fit.seed if seed is None else seed)
    draws, _ = unconstrained_draws(fit, _SPREAD_DRAWS, seed=given)
    mean, sd = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    if not np.isfinite(mean).all() or not (sd > 0).all():
        raise FitError("the fit has no finite means and sds: look at its outcome, and try another seed.")
    level = fit.level if fit.level is not None and is_separable(fit.model, fit.level, fit.seed) else None
    index, globals_index = split(fit.model, level)
    evaluations = 0
    gaussian = None
    if len(globals_index) <= _MOST_GLOBALS:
        points = draws[:_CURVATURE_DRAWS]
        gaussian = linear_response(fit.model, points, mean, sd, index, globals_index)
        evaluations = 2 * len(points) * (len(globals_index) + index.shape[1])
    rng = generator(given, Stream.WARM_START)
    theta, tried = _starts(fit.model, gaussian, draws, chains, rng)
    values, _ = fit.model.constrain(theta, transformed_parameters=False, generated_quantities=False)
    unwritable = [name for name, drawn in values.items() if ":" in name or drawn.dtype.kind == "c"]
    if unwritable:
        raise FitError(f"{', '.join(unwritable)}: complex and tuple parameters have no starting values.")
    return WarmStart(
        theta=theta,
        inits=tuple(
            {name: np.asarray(drawn[chain]) for name, drawn in values.items()} for chain in range(chains)
        ),
        inverse_metric=sd**2 if gaussian is None else gaussian.variance(),
        seed=given,
        response=gaussian is not None,
        gradient_evaluations=evaluations + tried,
    )


def _starts(
    model: BoundModel, gaussian: Response | None, draws: FloatArray, chains: int, rng: np.random.Generator
) -> tuple[FloatArray, int]:
    """Points (C, D) of finite density and the gradients that finding them took."""
    starts: list[FloatArray] = []
    tried = 0
    for chain in range(chains):
        for attempt in range(_TRIES):
            wide = gaussian is not None and attempt < _TRIES // 2
            point = gaussian.draw(rng) if gaussian is not None and wide else draws[rng.integers(len(draws))]
            tried += 1
            if np.isfinite(model.log_density_gradient(point)[0]):
                starts.append(point)
                break
        else:
            raise FitError(
                f"no start of finite density for chain {chain + 1} in {_TRIES} draws of the fit: "
                f"{model.why_rejected(draws[0]) or 'no reason given'}."
            )
    return np.array(starts), tried
