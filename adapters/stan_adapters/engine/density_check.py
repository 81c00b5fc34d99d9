"""Whether two engines run the same program: a library beside stanli, at the same constrained points, on the same data.

Two engines of one program differ by one constant, once the Jacobian of the constraints is left out: versions of Stan
transform simplexes and their like differently. All other parameters have one transform, so that their unconstrained
values agree, and so do transformed parameters and what is generated without random numbers.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stan_adapters.engine.abi import FloatArray
from stan_adapters.engine.engines import load
from stan_adapters.engine.instances import Instance, close_all
from stan_adapters.errors import BindingError, EngineError
from stan_adapters.language.program import Program

# Of the random points: far ones tell densities apart, near ones are finite.
_WIDTHS = (2.0, 1.0, 0.3, 0.1, 0.01)
_POINTS_PER_WIDTH, _LEAST = 4, 3
_MANY = 100_000  # coordinates, from which on one point of each width is enough
_MOST_VALUES = 5_000_000  # of outputs that are compared
_SAME_DENSITY = 1e-9  # of the log density: rounding of both, and of the way through the constrained scale
_SAME_VALUE = 1e-6  # of a value: inverse transforms lose digits, and solvers have tolerances
_VARYING = {  # with Stan's version, or only up to a factor
    "simplex",
    "sum_to_zero_vector",
    "sum_to_zero_matrix",
    "row_stochastic_matrix",
    "column_stochastic_matrix",
    "unit_vector",
}
_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|"[^"\n]*"', re.S)
_PARAMETERS = re.compile(r"(?<!transformed)\s+parameters\s*\{")
_RANDOM = re.compile(r"\w_rng\s*\(")

Rows = npt.NDArray[np.bool_]


class Difference(Exception):
    """What of a library differs from the program, as the end of a sentence."""


class NotCompared(Exception):
    """Why a library could not be compared, as a sentence."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Points:
    """Unconstrained points (S, D) of the same constrained parameters: the library's and stanli's."""

    theirs: FloatArray
    ours: FloatArray


def compare_with_stanli(library: Instance, program: Program, data_json: str, seed: int) -> None:
    """Compare a library with what stanli makes of the program. Only its names and sizes are known to agree.

    Raises:
        Difference: it is of another program.
        NotCompared: it can't be said.
    """
    if any(d.type.is_tuple or d.type.is_complex for d in program.parameters):
        raise NotCompared("it has tuple or complex parameters, which stanli does not know.")
    if _RANDOM.search(_masked(_up_to_parameters(program.source))):
        raise NotCompared("its transformed data may draw random numbers, which differ between engines.")
    if not library.abi.unconstrained_dim(library.handles[0]):
        raise NotCompared("it has no parameters.")
    opened: list[Instance] = []

    def open_in_stanli(part: Program, *, outputs: bool = False) -> Instance:
        made = load(part, "stanli")
        opened.append(Instance(made, made.construct(data_json, seed, outputs=outputs)))
        return opened[-1]

    try:
        stanli = open_in_stanli(program.without_generated_quantities())
        points = _points(library, stanli, program, seed)
        bare = None
        if not np.allclose(points.theirs, points.ours, rtol=_SAME_VALUE, atol=_SAME_VALUE):
            text = _up_to_parameters(program.source) + "\nmodel {}\n"
            bare = open_in_stanli(Program.from_source(text, program.name))
        _compare_densities(library, stanli, bare, points)
        if not _RANDOM.search(_masked(program.source)):
            with contextlib.suppress(EngineError):  # stanli may lack a function in generated quantities
                stanli = open_in_stanli(program, outputs=True)
        _compare_outputs(library, stanli, points, seed)
    except (EngineError, BindingError) as error:
        raise NotCompared(str(error).partition("\n")[0]) from error
    finally:
        close_all(opened)


def _points(library: Instance, stanli: Instance, program: Program, seed: int) -> _Points:
    """Random points of the library that stanli can have too, with the constraints compared."""
    dim = library.abi.unconstrained_dim(library.handles[0])
    if (expected := stanli.abi.unconstrained_dim(stanli.handles[0])) != dim:
        raise Difference(f"it has {dim} unconstrained coordinates, the program {expected}")
    rng = np.random.default_rng(1)
    count = _POINTS_PER_WIDTH if dim <= _MANY else 1
    theirs = np.concatenate([rng.normal(scale=width, size=(count, dim)) for width in _WIDTHS])
    columns = _constrained(library, theirs, seed, transformed=False, generated=False)
    ours = np.full_like(theirs, np.nan)
    for row in np.flatnonzero(np.isfinite(columns).all(axis=1)):
        with contextlib.suppress(BindingError):  # outside the support: the constraints differ, or rounding
            ours[row] = stanli.abi.unconstrain(stanli.handles[0], columns[row : row + 1], dim)[0]
    kept = np.isfinite(ours).all(axis=1)
    theirs, ours = np.ascontiguousarray(theirs[kept]), np.ascontiguousarray(ours[kept])
    if len(theirs) < _LEAST:
        raise Difference("at random points its parameters lie outside the program's constraints")
    bases = {declaration.name: declaration.type.base for declaration in program.parameters}
    for d, name in enumerate(library.abi.unconstrained_names(library.handles[0])):
        fixed = bases.get(name.partition(".")[0]) not in _VARYING
        if fixed and not (same := _close(theirs[:, d], ours[:, d])).all():
            s = int(np.flatnonzero(~same)[0])
            raise Difference(
                f"its constraints on `{name}` are others: where it has the unconstrained value {theirs[s, d]:.6g}, the "
                f"program has {ours[s, d]:.6g}"
            )
    return _Points(theirs=theirs, ours=ours)


def _compare_densities(library: Instance, stanli: Instance, bare: Instance | None, points: _Points) -> None:
    """Log densities of the constrained parameters.

    stanli's are those of the program minus the log Jacobian, which is the library's where both have the same points,
    and else the density of `bare`, a program of the parameters alone.
    """
    their_lp, _ = _density(library, points.theirs, jacobian=False)
    our_lp, our_gradient = _density(stanli, points.ours)
    with_jacobian, their_gradient = _density(library, points.theirs)
    if bare is None:
        jacobian = np.where(np.isfinite(their_lp), with_jacobian, np.nan) - np.nan_to_num(
            their_lp, neginf=0.0
        )
    else:
        jacobian, _ = _density(bare, points.ours)
    both = np.isfinite(their_lp) & np.isfinite(our_lp) & np.isfinite(jacobian)
    if both.sum() < _LEAST:
        raise NotCompared("there are too few random points where both densities are finite.")
    theirs, ours = their_lp[both], our_lp[both] - jacobian[both]
    difference, size = theirs - ours, np.maximum(1.0, np.maximum(np.abs(theirs), np.abs(ours)))
    nearest = int(size.argmin())
    if (np.abs(difference - difference[nearest]) <= _SAME_DENSITY * (size + size[nearest])).all():
        return
    apart = ", ".join(f"{value:.6g}" for value in difference[:4])
    same = _close(points.theirs, points.ours).all(axis=0)  # coordinates that both transform alike
    where = _along(library, np.where(same, their_gradient - our_gradient, 0.0)[both], their_gradient[both])
    raise Difference(
        f"with the same data their log densities at random points differ by {apart} and so on, where one constant is "
        f"expected{where}"
    )


def _along(library: Instance, difference: FloatArray, theirs: FloatArray) -> str:
    """The coordinates whose gradients (S, D) differ most, as the end of a sentence."""
    names = library.abi.unconstrained_names(library.handles[0])
    most = np.abs(difference).max(axis=0)
    told = []
    for d in [d for d in np.argsort(-most)[:3] if most[d] > max(1e-3 * most.max(), 1e-12)]:
        s = int(np.abs(difference[:, d]).argmax())
        ours = theirs[s, d] - difference[s, d]
        told.append(f"`{names[d]}` ({theirs[s, d]:.6g} in the library, {ours:.6g} in stanli)")
    return f"; the gradients differ most along {', '.join(told)}" if told else ""


def _compare_outputs(library: Instance, stanli: Instance, points: _Points, seed: int) -> None:
    """Transformed parameters, and generated quantities where `stanli` has them."""
    generated = bool(stanli.library.program.generated_quantities)
    names = stanli.abi.names(stanli.handles[0], transformed_parameters=True, generated_quantities=generated)
    first = len(stanli.abi.names(stanli.handles[0]))
    if len(names) == first:
        return
    rows = slice(0, max(1, _MOST_VALUES // len(names)))
    theirs = _constrained(library, points.theirs[rows], seed, transformed=True, generated=generated)
    ours = _constrained(stanli, points.ours[rows], seed, transformed=True, generated=generated)
    if theirs.shape != ours.shape:
        return
    both = np.isfinite(theirs).all(axis=1) & np.isfinite(ours).all(axis=1)
    wrong = ~_close(theirs[both], ours[both])
    wrong[:, :first] = False
    if wrong.any():
        s, column = (int(i) for i in np.argwhere(wrong)[0])
        raise Difference(
            f"at the same parameters its `{names[column]}` is {theirs[both][s, column]:.6g}, where the program has "
            f"{ours[both][s, column]:.6g}"
        )


def _close(one: FloatArray, other: FloatArray) -> Rows:
    return np.asarray(np.isclose(one, other, rtol=_SAME_VALUE, atol=_SAME_VALUE))


def _density(
    instance: Instance, theta: FloatArray, *, jacobian: bool = True
) -> tuple[FloatArray, FloatArray]:
    lp, gradient = np.empty(len(theta)), np.empty_like(theta)
    instance.abi.log_density_gradient(instance.handles[0], theta, lp, gradient, jacobian=jacobian)
    return lp, gradient


def _constrained(
    instance: Instance, theta: FloatArray, seed: int, *, transformed: bool, generated: bool
) -> FloatArray:
    """Constrained values (S, P), NaN in rows that fail."""
    options = {"transformed_parameters": transformed, "generated_quantities": generated}
    out = np.empty((len(theta), len(instance.abi.names(instance.handles[0], **options))))
    instance.abi.constrain(
        instance.handles[0],
        theta,
        out,
        transformed_parameters=transformed,
        generated_quantities=generated,
        seed=seed,
    )
    return out


# ---- Text --------------------------------------------------------------------------------------------------


def _masked(source: str) -> str:
    """The same length, comments and strings blank."""
    return _TEXT.sub(lambda found: " " * len(found.group()), source)


def _up_to_parameters(source: str) -> str:
    """The blocks before transformed parameters."""
    masked = _masked(source)
    found = _PARAMETERS.search(f" {masked}")
    if found is None:
        return source
    depth, at = 1, found.end() - 1
    while depth:
        depth += {"{": 1, "}": -1}.get(masked[at], 0)
        at += 1
    return source[:at]
