"""Parameters drawn from the prior and data drawn from them, by a Stan program's generated quantities.

A simulator declares there parameters and data of the fitted program under the fitted program's own names, or those
names with an underscore after them (`theta_`, `y_`: rstan's convention), which lets a program carry its simulator in
its own generated quantities.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avistan.runtime.errors import AvistanError
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import DataWarning, RawData, read_data, read_values
from stan_adapters.engine.engines import is_library_path
from stan_adapters.language.program import Declaration, Program


class SimulatorError(AvistanError):
    """The simulator can't serve the program."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Simulated:
    """R draws from the prior and the data simulated from each.

    Attributes:
        truth: drawn parameters by name, each (R, *declared shape).
        drawn: simulated data entries by name, each (R, *declared shape).
        fixed: data entries that all data sets share.
        missing: parameters that the simulator does not give.
    """

    truth: Mapping[str, npt.NDArray[Any]]
    drawn: Mapping[str, npt.NDArray[Any]]
    fixed: Mapping[str, Any]
    missing: tuple[str, ...]

    def data_sets(self) -> Iterator[dict[str, Any]]:
        """Whole data of the fitted program, one simulation after the other."""
        count = len(next(iter(self.drawn.values())))
        for number in range(count):
            yield {**self.fixed, **{name: values[number] for name, values in self.drawn.items()}}


def simulate(
    program: Program, simulator: Program, data: RawData, count: int, *, seed: int, engine: str = "auto"
) -> Simulated:
    """Run a simulator `count` times.

    Args:
        program: the one to be fitted.
        data: what the simulator does not draw, such as sizes and covariates.

    Raises:
        SimulatorError: it gives no parameter or no data of the program, or fails for a draw from the prior.
        DataError: data that the simulator needs are missing or wrong.
    """
    quantities = [d.name for d in simulator.generated_quantities]
    given = read_values(data)
    parameters = _source_of(program.parameters, quantities)
    entries = _source_of(program.data, quantities)
    for what, names, found in (
        ("parameter", program.parameters, parameters),
        ("data entry", program.data, entries),
    ):
        if not found:
            wanted = ", ".join(f"`{d}`" for d in names)
            advice = (
                f"declare there, under the same names or with an underscore after them, some of {wanted}."
                if wanted
                else f"{program.name} declares none: is it the program to fit, and not the simulator?"
            )
            raise SimulatorError(
                f"{simulator.name} simulates no {what} of {program.name}. Its generated quantities are "
                f"{', '.join(quantities) or 'none'}; {advice}"
            )
    _warn_about_unknown(given, program, simulator)
    declared = {d.name for d in simulator.data}
    needed = read_data(simulator, {name: value for name, value in given.items() if name in declared})
    if is_library_path(engine) and simulator.source != program.source:
        engine = "auto"  # the library is of the program to fit
    with BoundModel(simulator, needed, engine=engine, seed=seed) as model:
        # A simulator inside the fitted program has parameters; what it draws does not depend on them.
        anywhere = np.zeros((count, model.dim))
        values, failed = model.constrain(anywhere, transformed_parameters=False, seed=seed)
    if failed:
        raise SimulatorError(
            f"Stan rejected {failed} of {count} simulations of {simulator.name}: its generated quantities must "
            "succeed for every draw from the prior."
        )
    lost = [name for name in (*parameters.values(), *entries.values()) if name not in values]
    if lost:
        raise SimulatorError(f"{simulator.name}: {', '.join(lost)} is a tuple, which can't be simulated.")
    return Simulated(
        truth={name: values[quantity] for name, quantity in parameters.items()},
        drawn={name: values[quantity] for name, quantity in entries.items()},
        fixed={d.name: given[d.name] for d in program.data if d.name in given},
        missing=tuple(d.name for d in program.parameters if d.name not in parameters),
    )


def _warn_about_unknown(given: Mapping[str, Any], program: Program, simulator: Program) -> None:
    known = {d.name for d in (*program.data, *simulator.data)}
    if unknown := [name for name in given if name not in known]:
        warnings.warn(
            f"data entries that neither {program.name} nor {simulator.name} declares are not used: "
            f"{', '.join(unknown)}.",
            DataWarning,
            stacklevel=4,
        )


def _source_of(declarations: Sequence[Declaration], quantities: Sequence[str]) -> dict[str, str]:
    """The generated quantity that gives each declared variable, for those that have one."""
    found = {}
    for declaration in declarations:
        for quantity in (declaration.name, f"{declaration.name}_"):
            if quantity in quantities:
                found[declaration.name] = quantity
                break
    return found
