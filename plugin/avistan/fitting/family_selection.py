"""Forward selection: a fit starts with the factorized family and adds structure while the ELBO pays for it.

A richer family starts where the poorer one stands, its new parameters at zero, so that growing loses nothing: exactly,
but for heavy tails, which begin within 1e-4 nats a latent of the Gaussian (`family.student`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from avistan.family.family import Family
from avistan.family.functions import MLP, Constant, LocalNu, Polynomial, Table
from avistan.family.globals import GlobalGaussian, LevelGlobals, start_globals
from avistan.family.locals import LocalGaussian, local_form
from avistan.family.method import Method, parse_method
from avistan.objective.elbo import Evaluation, gap
from avistan.runtime.device import on_device
from avistan.training.stopping import tolerance

MAX_FULL_RANK = 500  # globals with a full covariance
# Parameters for which low-rank families, trained by XLA, take on flows, and scales.
MAX_BENT, MAX_SCALED = 200, 1000
MAX_CURVED = (
    600  # parameters for which curves of the globals are tried: their training takes a minimum of steps
)
MAX_HEAVY = 600  # parameters for which units' factors with heavy tails are tried
MAX_TRIED = 5000  # parameters for which all stages are tried, whatever the ones before brought
_RISK = 0.05  # of saying that nothing is left
_WORTH = 0.2  # nats that a richer family must bring, and
_ERRORS = 3.0  # standard errors that they must exceed


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthStep:
    """A family that was tried: its method's name, its ELBO, and what it gained on the one before, nats."""

    method: str
    elbo: float
    elbo_se: float
    gain: float
    gain_se: float
    kept: bool

    @property
    def in_doubt(self) -> bool:
        """Whether more draws might show that the family is worth it."""
        return not self.kept and self.gain + _ERRORS * self.gain_se > _WORTH


def stages(
    method: Method, block: int, num_globals: int, *, num_units: int = 0, by_path: bool = False
) -> list[Method]:
    """The families to try after a method's own, each richer than the one before: first all correlations, then shapes,
    which are units whose scales depend on the globals too, through curves where parameters are few, and flows. Two
    amortized levels stay independent of each other.

    Units that are coupled along their axis (`method.coupling`) first become a Markov chain: without that the globals
    are fitted to units that can't move together. How far the units of a chain spread depends on the globals, the scale
    of a walk's steps above all, so a chain's scales depend on them too.

    Args:
        block: latents of a unit; 0 without a level.
        num_units: of the level.
        by_path: only families that minibatches serve: none of low rank.
    """
    found = []
    if method.coupling and method.local != "banded":
        method = _with(method, "banded" if method.coupling == 1 else f"banded({method.coupling})")
        found.append(method)
    follows = block > 0 and num_globals > 0
    correlated = method
    if block > 1 and method.local == "diagonal":
        correlated = _with(correlated, "full")
    if num_globals > 1 and method.globals == "mean-field" and method.second is None:
        if num_globals <= MAX_FULL_RANK:
            correlated = _with(correlated, "full-rank")
        elif not by_path:
            correlated = _with(correlated, "low-rank")
    if follows and correlated.conditional == "none" and not method.reach:
        correlated = _with(correlated, "conditional")
    if correlated not in (method, *found):
        found.append(correlated)
    dim, low_rank, shaped = num_globals + block * num_units, correlated.globals == "low-rank", correlated
    if follows and method.reach:
        shaped = _with(shaped, "conditional(mean+scale)")
    elif follows and correlated.conditional == "mean" and (not low_rank or dim <= MAX_SCALED):
        shaped = _with(shaped, f"conditional({'curved' if dim <= MAX_CURVED else 'mean+scale'})")
    if not method.reach and method.second is None and (not low_rank or dim <= MAX_BENT):
        shaped = _with(shaped, "flow")
    if shaped != correlated:
        found.append(shaped)
    if block > 0 and not method.reach and method.second is None and dim <= MAX_HEAVY:
        found.append(_with(shaped, "student"))
    return found


def worth_trying(method: Method, tried: Sequence[GrowthStep], dim: int, evaluation: Evaluation) -> bool:
    """Whether a stage may pay after what was tried: of many parameters the shapes (scales that depend on the globals,
    curves and flows) are left alone where no correlation paid and little is left, by the weights of the family so far.
    """
    if dim <= MAX_TRIED or not has_shapes(method) or not tried or any(step.kept for step in tried):
        return True
    return _left(evaluation) > tolerance(evaluation.elbo, dim)


def leaves_nothing(evaluation: Evaluation) -> bool:
    """Whether surely no richer family can bring what it would have to.

    Few draws tell a variance badly: what counts is the end of its confidence interval, with a degree of freedom for
    each antithetic pair, whose two log weights are about equal where the posterior is symmetric.
    """
    from scipy.special import gammaincinv  # here, because it takes a while to load

    freedom = max(1, int(evaluation.accepted.sum()) // 2 - 1)
    most = _left(evaluation) * freedom / (2 * float(gammaincinv(0.5 * freedom, _RISK)))
    return most < _WORTH


def _left(evaluation: Evaluation) -> float:
    """Nats that a family may lack: near the posterior the divergence that is left is half the variance of the log
    weights, which are constant at the posterior itself. Infinite where no draws tell.
    """
    kept = evaluation.log_weights[evaluation.accepted]
    return 0.5 * float(kept.var(ddof=1)) if kept.size > 1 else np.inf


def has_shapes(method: Method) -> bool:
    """Whether scales depend on the globals, or curves are used, or a flow (a chain of units needs scales anyway)."""
    scaled = method.conditional in ("mean+scale", "curved")
    return (scaled or method.flow or method.student) and not method.reach


def without_shapes(method: Method) -> Method:
    """The Gaussian method that one with a flow or curves starts from: units may depend on the globals,
    their scales don't.
    """
    parts = ["conditional" if part.startswith("conditional") else part for part in method.name.split(":")]
    return _of_parts(method, [part for part in parts if part not in ("flow", "student")])


def _with(method: Method, part: str) -> Method:
    """The method with a part that its name then carries; itself if it has it already."""
    word = part.partition("(")[0]
    others = [own for own in method.name.split(":") if own.partition("(")[0] != word]
    richer = _of_parts(method, [*others, part])
    return method if replace(richer, name=method.name) == method else richer


def _of_parts(method: Method, parts: Sequence[str]) -> Method:
    """The method of a name's parts, which may take up the same coupling."""
    return replace(parse_method(":".join(parts)), coupling=method.coupling)


def judge_step(method: Method, evaluation: Evaluation, before: Evaluation) -> GrowthStep:
    """What a richer family bought, on the draws that both share; a gain whose error is unknown is none."""
    value, se = gap(before, evaluation)
    kept = bool(np.isfinite([value, se]).all()) and value > max(_WORTH, _ERRORS * se)
    return GrowthStep(
        method=method.name,
        elbo=evaluation.elbo,
        elbo_se=evaluation.elbo_se,
        gain=value,
        gain_se=se,
        kept=kept,
    )


def grown(family: Family, method: Method) -> Family:
    """The family of a richer method that is equal to the given one."""
    factor = _grown_globals(family.globals, method)
    old, (new, directions, curve) = family.local, local_form(method, family.local.block, factor)
    function = family.inference
    if isinstance(function, Table | Constant):
        function = type(function)(_padded(function.nu, old, new))
    elif isinstance(function, Polynomial):
        function = replace(function, coefficients=_widened(function.coefficients, old, new), sizes=new.sizes)
    elif isinstance(function, MLP):
        weights, bias = function.layers[-1]
        function = replace(
            function,
            layers=(*function.layers[:-1], (_widened(weights, old, new), _widened(bias, old, new))),
            linear=None if function.linear is None else _widened(function.linear, old, new),
            start=_widened(function.start, old, new),
            sizes=new.sizes,
        )
    return Family(factor, function, new, family.frame, family.placement, directions, curve)


def reframed(family: Family) -> Family:
    """The same family with its globals standardized by their own means and sds.

    What the globals' sds were before, of a quick fit or of few of the units, may be much wider: to a richer family,
    whose correlations are free, the noise of training would be far too large on that scale.
    """
    factor, frame = family.globals, family.frame
    if not isinstance(factor, GlobalGaussian):
        return family
    sd, below = np.exp(np.asarray(factor.log_sd)), np.asarray(factor.below)
    if len(below):
        below = below / sd[np.tril_indices(factor.size, -1)[0]]
    nothing = on_device(np.zeros(factor.size))
    center = np.asarray(frame.global_center) + np.asarray(frame.global_scale) * np.asarray(factor.loc)
    return replace(
        family,
        globals=replace(factor, loc=nothing, log_sd=nothing, below=on_device(below)),
        frame=replace(
            frame,
            global_center=on_device(center),
            global_scale=on_device(np.asarray(frame.global_scale) * sd),
            global_log_scale=on_device(np.asarray(frame.global_log_scale) + np.asarray(factor.log_sd)),
        ),
    )


def _grown_globals(factor: GlobalGaussian | LevelGlobals, method: Method) -> GlobalGaussian | LevelGlobals:
    if isinstance(factor, LevelGlobals):
        return factor
    richer = start_globals(method.globals, factor.size, method.rank, flow=method.flow)
    below = factor.below if factor.kind == method.globals else richer.below
    warp = richer.warp if factor.warp is None else factor.warp
    return replace(richer, loc=factor.loc, log_sd=factor.log_sd, below=below, warp=warp)


def _padded(nu: Sequence[Any], old: LocalGaussian, new: LocalGaussian) -> LocalNu:
    """Parameters of units (parts, N) with zeros for what is new: rows, and columns of rates."""
    parts = []
    for part, (rows, columns), shape in zip(nu, old.shapes, new.shapes, strict=True):
        units = part.shape[1]
        wide = np.zeros((*shape, units), dtype=part.dtype)
        wide[:rows, :columns] = np.asarray(part).reshape(rows, columns, units)
        parts.append(on_device(wide.reshape(np.prod(shape), units)))
    return LocalNu(*parts)


def _widened(values: Float[Array, "*T P"], old: LocalGaussian, new: LocalGaussian) -> Float[Array, "*T Q"]:
    """Columns of outputs, part by part, with zero columns for what is new."""
    outputs = np.atleast_2d(np.asarray(values)).T
    wide = np.concatenate(_padded(np.split(outputs, np.cumsum(old.sizes)[:-1]), old, new))
    return on_device(wide.T if values.ndim == 2 else wide[:, 0])
