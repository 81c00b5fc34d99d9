"""Whether a prebuilt library is of the program that it is used for.

A library says what its parameters are called, and has a density. Names, sizes and order are compared with the program's
declarations, the density with that of stanli at the same constrained points and with the same data. Two engines of one
program differ by one constant, once the Jacobian of the constraints is left out: versions of Stan transform some types
differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .abi import FloatArray
from .data import StanData
from .engines import Library, load
from .errors import BindingError, EngineError, notify_once
from .instances import Instance, close_all
from .layout import declared_shape
from .outputs import Output
from .program import Declaration, Program

_WIDTHS = (
    2.0,
    1.0,
    0.3,
    0.1,
    0.01,
)  # of the random points; far ones tell densities apart, near ones are finite
_POINTS_PER_WIDTH, _LEAST = 4, 3
_MANY = 100_000  # coordinates, from which on one point of each width is enough
_SAME_DENSITY = 1e-8  # of the log density: rounding of both, and of the way through the constrained scale
_SAME_POINT = 1e-8
_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"[^"\n]*"', re.S)
_PARAMETERS = re.compile(r"(?<!transformed)\s+parameters\s*\{")
_RANDOM_DATA = re.compile(r"\w_rng\s*\(")
_passed: set[tuple[str, int, str]] = set()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Points:
    """Where both densities are finite: unconstrained points (S, D), log densities (S,) of the constrained parameters.

    `gradients` (2, S, D) of both with the Jacobian, where both have the same unconstrained scale.
    """

    theirs: FloatArray
    ours: FloatArray
    gradients: FloatArray | None


def check_library(instance: Instance, program: Program, data: StanData, data_json: str, seed: int) -> None:
    """Refuse a library of another program. Once for a library and a program in a process.

    Raises:
        EngineError: parameters have other names, sizes or another order, or the densities differ by more than a
            constant; the message says what differs. Where stanli can't take the program, an `EngineNotice` says that
            densities were not compared.
    """
    path = instance.abi.path
    key = str(path), path.stat().st_mtime_ns, program.digest
    if key in _passed:
        return
    try:
        _check_names(instance, program, data)
        unknown = _check_density(instance, program, data_json, seed)
    except BaseException:
        close_all([instance])
        raise
    if unknown:
        built_as = instance.abi.name(instance.handles[0])
        notify_once(
            f"whether the density of {path.name} (compiled as {built_as}) is that of {program.name} could not be "
            f"checked, only names and sizes: {unknown}"
        )
    _passed.add(key)


# ---- Names and sizes ---------------------------------------------------------------------------------------


def _check_names(instance: Instance, program: Program, data: StanData) -> None:
    parameters = instance.outputs(False, False)
    _compare_names(instance, program, data, "parameter", program.parameters, parameters)
    rest = instance.outputs(True, True)[len(parameters) :]
    declared = (*program.transformed_parameters, *program.generated_quantities)
    _compare_names(instance, program, data, "output", declared, rest)


def _compare_names(
    instance: Instance,
    program: Program,
    data: StanData,
    what: str,
    declared: Sequence[Declaration],
    outputs: Sequence[Output],
) -> None:
    theirs = {_variable(output): output.shape for output in outputs}
    shapes = {d.name: declared_shape(d.type, data) for d in declared}
    ours = [name for name, shape in shapes.items() if shape is None or 0 not in shape]
    if missing := [name for name in ours if name not in theirs and shapes[name] is not None]:
        raise _other(instance, program, f"it has no {what} {_listed(missing)}")
    if extra := [name for name in theirs if name not in ours]:
        raise _other(instance, program, f"its {what} {_listed(extra)} is not declared in the program")
    for output in outputs:
        shape = shapes[_variable(output)]
        if ":" not in output.name and shape is not None and output.shape != shape:
            raise _other(
                instance, program, f"its {what} `{output.name}` has shape {output.shape}, declared is {shape}"
            )
    if list(theirs) != [name for name in ours if name in theirs]:
        raise _other(
            instance, program, f"its {what}s have the order {_listed(theirs)}, declared is {_listed(ours)}"
        )


def _variable(output: Output) -> str:
    """The declared name behind `t`, `t:1` or `t.2:1`."""
    return output.name.partition(":")[0].partition(".")[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _other(instance: Instance, program: Program, what: str) -> EngineError:
    built_as = instance.abi.name(instance.handles[0])
    return EngineError(
        f"the library {instance.abi.path} (compiled as {built_as}) is of another program than {program.name}: {what}. "
        "Build it from this program, or leave the engine to avistan: --engine auto."
    )


# ---- Densities ---------------------------------------------------------------------------------------------


def _check_density(instance: Instance, program: Program, data_json: str, seed: int) -> str:
    """Compare densities. Returns: why they can't be compared, or the empty string."""
    stanli_program = program.without_generated_quantities()
    if any(d.type.is_tuple or d.type.is_complex for d in program.parameters):
        return "it has tuple or complex parameters, which stanli does not know."
    if _RANDOM_DATA.search(_without_comments(_up_to_parameters(stanli_program.source))):
        return "its transformed data may draw random numbers, which differ between engines."
    if not instance.abi.unconstrained_dim(instance.handles[0]):
        return "it has no parameters."
    opened: list[Instance] = []
    try:
        ours = _opened(load(stanli_program, "stanli"), data_json, seed, opened)
        points = _compared(instance, ours, stanli_program, data_json, seed, opened)
    except (EngineError, BindingError) as error:
        return f"{str(error).partition(chr(10))[0]}"
    finally:
        close_all(opened)
    if points is None:
        return "there are too few random points where both densities are finite."
    difference = points.theirs - points.ours
    size = np.maximum(1.0, np.maximum(np.abs(points.theirs), np.abs(points.ours)))
    nearest = int(size.argmin())
    if (np.abs(difference - difference[nearest]) <= _SAME_DENSITY * (size + size[nearest])).all():
        return ""
    apart = ", ".join(f"{value:.6g}" for value in difference[:4])
    raise _other(
        instance,
        program,
        f"with the same data their log densities at random points differ by {apart} and so on, where one constant is "
        f"expected{_where_gradients_differ(instance, points)}",
    )


def _opened(library: Library, data_json: str, seed: int, opened: list[Instance]) -> Instance:
    opened.append(Instance(library, library.construct(data_json, seed, outputs=False)))
    return opened[-1]


def _compared(
    theirs: Instance, ours: Instance, program: Program, data_json: str, seed: int, opened: list[Instance]
) -> _Points | None:
    """Both densities at random points; None where too few are finite."""
    dim = theirs.abi.unconstrained_dim(theirs.handles[0])
    rng = np.random.default_rng(1)
    count = _POINTS_PER_WIDTH if dim <= _MANY else 1
    theta = np.concatenate([rng.normal(scale=width, size=(count, dim)) for width in _WIDTHS])
    columns = np.full((len(theta), len(theirs.abi.names(theirs.handles[0]))), np.nan)
    theirs.abi.constrain(
        theirs.handles[0], theta, columns, transformed_parameters=False, generated_quantities=False, seed=seed
    )
    usable = np.isfinite(columns).all(axis=1)
    theta, columns = np.ascontiguousarray(theta[usable]), columns[usable]
    moved = ours.abi.unconstrain(ours.handles[0], columns, dim)
    finite = np.isfinite(moved).all(axis=1)
    theta, moved = np.ascontiguousarray(theta[finite]), np.ascontiguousarray(moved[finite])
    their_lp, _ = _density(theirs, theta, jacobian=False)
    our_lp, our_gradient = _density(ours, moved)
    if np.allclose(theta, moved, rtol=_SAME_POINT, atol=_SAME_POINT):
        same_scale, their_gradient = _density(theirs, theta)
        jacobian = np.where(np.isfinite(their_lp), same_scale, np.nan) - np.nan_to_num(their_lp, neginf=0.0)
        gradients = np.stack([their_gradient, our_gradient])
    else:  # the Jacobian of the other transform is what a program of its parameters alone has as its density
        bare = Program.from_code(_up_to_parameters(program.source) + "\nmodel {}\n", name=program.name)
        jacobian, _ = _density(_opened(load(bare, "stanli"), data_json, seed, opened), moved)
        gradients = None
    both = np.isfinite(their_lp) & np.isfinite(our_lp) & np.isfinite(jacobian)
    if both.sum() < _LEAST:
        return None
    return _Points(
        theirs=their_lp[both],
        ours=our_lp[both] - jacobian[both],
        gradients=None if gradients is None else gradients[:, both],
    )


def _density(
    instance: Instance, theta: FloatArray, *, jacobian: bool = True
) -> tuple[FloatArray, FloatArray]:
    lp, gradient = np.empty(len(theta)), np.empty_like(theta)
    instance.abi.log_density_gradient(instance.handles[0], theta, lp, gradient, jacobian=jacobian)
    return lp, gradient


def _where_gradients_differ(instance: Instance, points: _Points) -> str:
    """The coordinates whose gradients differ most, as the end of a sentence."""
    if points.gradients is None:
        return ""
    theirs, ours = points.gradients
    apart = np.abs(theirs - ours).max(axis=0)
    names = instance.abi.unconstrained_names(instance.handles[0])
    worst = [d for d in np.argsort(-apart)[:3] if apart[d] > 1e-3 * apart.max()]
    told = []
    for d in worst:
        s = int(np.abs(theirs[:, d] - ours[:, d]).argmax())
        told.append(f"`{names[d]}` ({theirs[s, d]:.6g} in the library, {ours[s, d]:.6g} in stanli)")
    return f"; the gradients differ most along {', '.join(told)}" if told else ""


# ---- Text --------------------------------------------------------------------------------------------------


def _up_to_parameters(source: str) -> str:
    """The blocks before transformed parameters."""
    masked = _CODE.sub(lambda found: " " * len(found.group()), source)
    found = _PARAMETERS.search(f" {masked}")
    if found is None:
        return source
    depth, at = 1, found.end() - 1
    while depth:
        depth += {"{": 1, "}": -1}.get(masked[at], 0)
        at += 1
    return source[:at]


def _without_comments(source: str) -> str:
    return _CODE.sub(" ", source)
