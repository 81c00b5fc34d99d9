"""A program in which chosen transformed data are data, with the values that the whole data gave them.

It is the same density on the whole data, which is tested: log densities and gradients agree to rounding. What it says
of a part of the data is not: those who cut the data test that (`unit_data`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from lark.exceptions import UnexpectedInput

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import StanData
from stan_adapters.derived.values import Array, ComputedData
from stan_adapters.engine.abi import FloatArray
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Program
from stan_adapters.rewriting.computed_data import with_computed_data, with_number_as_data

TOLERANCE = 1e-10  # relative difference that rounding explains


@dataclass(frozen=True, slots=True, eq=False)
class Derivation:
    """Attributes:

    original: the program that it comes from.
    program: the same with the transformed data, or a number of the text, `names` declared as data.
    values: those of `names`, from the whole data.
    statistic: the largest relative difference between the two programs on the whole data.
    """

    original: Program
    program: Program
    values: Mapping[str, Array]
    statistic: float

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    def data(self, data: StanData, values: Mapping[str, Array] | None = None) -> StanData:
        """Data of the original program as data of this one: with the values from the whole data, or with others.

        Raises DataError: the values do not fit the data, such as numbers of rows that are not there.
        """
        if data.program is self.program:
            return data
        return _with_values(self.program, data, self.values if values is None else values)


def derive(model: BoundModel, computed: ComputedData, whole: Mapping[str, Array], names: Collection[str],
           theta: FloatArray) -> tuple[Derivation, BoundModel]:  # fmt: skip
    """The program with the named transformed data as data, proven equal, and bound to the whole data.

    Args:
        model: the program bound to the whole data.
        computed: evaluates its transformed data, or those of the same program with more of them named.
        whole: what `computed` gives for these.
        theta: (P, D) points of finite density.

    Raises:
        StructureError: it is another density, or other parameters; AvistanError: it can't be bound.
    """
    try:
        program = with_computed_data(computed.program, names)
    except UnexpectedInput as error:
        raise StructureError(f"the statements of {model.program.name} can't be read: {error}") from None
    declared = {d.name for d in program.data}
    return _proven(model, program, {name: value for name, value in whole.items() if name in declared}, theta)


def derive_with_number(model: BoundModel, number: str, theta: FloatArray) -> tuple[Derivation, BoundModel]:
    """The program with a whole number of its text as data, proven equal, and bound to the whole data.

    Raises as `derive`.
    """
    try:
        program, name = with_number_as_data(model.program, number)
    except UnexpectedInput as error:
        raise StructureError(f"the statements of {model.program.name} can't be read: {error}") from None
    return _proven(model, program, {name: np.array(int(number))}, theta)


def _proven(
    model: BoundModel, program: Program, values: Mapping[str, Array], theta: FloatArray
) -> tuple[Derivation, BoundModel]:
    data = _with_values(program, model.data, values)
    bound = BoundModel(program, data, engine=model.engine, seed=model.seed)
    try:
        statistic = _difference(model, bound, theta)
        if not statistic <= TOLERANCE:
            raise StructureError(
                f"with {', '.join(values)} as data, {program.name} is another density (relative difference "
                f"{statistic:.1g})."
            )
    except BaseException:
        bound.close()
        raise
    return Derivation(model.program, program, values, statistic), bound


def _with_values(program: Program, data: StanData, values: Mapping[str, Array]) -> StanData:
    given = StanData(program, data.entries, data.source, data.labels)
    return given.replace(**{name: np.array(value) for name, value in values.items()})


def _difference(model: BoundModel, other: BoundModel, theta: FloatArray) -> float:
    if other.dim != model.dim:
        return np.inf
    (lp, gradient), (other_lp, other_gradient) = (m.log_density_gradient(theta) for m in (model, other))
    if not np.array_equal(np.isfinite(lp), np.isfinite(other_lp)) or not np.isfinite(lp).any():
        return np.inf
    kept = np.isfinite(lp)
    lp, gradient, other_lp, other_gradient = lp[kept], gradient[kept], other_lp[kept], other_gradient[kept]
    worst = (np.abs(lp - other_lp) / (1.0 + np.abs(lp))).max()
    size = np.abs(gradient) + np.abs(other_gradient)
    gap = np.abs(gradient - other_gradient) / (size + size.mean(axis=1, keepdims=True) + 1e-300)
    return float(max(worst, gap.max(initial=0.0)))
