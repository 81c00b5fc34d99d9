"""Whether a prebuilt library is of the program that it is used for.

Names, sizes and order of what it returns are compared with the program's declarations, constraints and density with
stanli's (`density_check`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stan_adapters.data.layout import declared_shape
from stan_adapters.data.stan_data import StanData
from stan_adapters.engine.columns import Output
from stan_adapters.engine.density_check import Difference, NotCompared, compare_with_stanli
from stan_adapters.engine.instances import Instance, close_all
from stan_adapters.errors import EngineError, notify_once
from stan_adapters.language.program import Declaration, Program

_passed: set[tuple[str, int, str]] = set()


def check_library(instance: Instance, program: Program, data: StanData, data_json: str, seed: int) -> None:
    """Refuse a library of another program, and close its handle. Once for a library and a program in a process.

    Raises:
        EngineError: names, sizes or order of parameters and outputs, constraints, densities or outputs differ; the
            message says what. Where stanli can't take the program, an `EngineNotice` says that they were not compared.
    """
    path, handle = instance.abi.path, instance.handles[0]
    key = str(path), path.stat().st_mtime_ns, program.digest
    if key in _passed:
        return
    built_as = instance.abi.name(handle)
    try:
        _check_names(instance, program, data)
        compare_with_stanli(instance, program, data_json, seed)
    except Difference as difference:
        close_all([instance])
        raise EngineError(
            f"the library {path} (compiled as {built_as}) is of another program than {program.name}: {difference}. "
            "Build it from this program, or leave the engine to avistan: --engine auto."
        ) from None
    except NotCompared as reason:
        notify_once(
            f"whether the density of {path.name} (compiled as {built_as}) is that of {program.name} could not be "
            f"checked, only names and sizes: {reason}"
        )
    _passed.add(key)


def _check_names(instance: Instance, program: Program, data: StanData) -> None:
    parameters = instance.outputs(False, False)
    _compare_names("parameter", program.parameters, parameters, data)
    rest = instance.outputs(True, True)[len(parameters) :]
    _compare_names("output", (*program.transformed_parameters, *program.generated_quantities), rest, data)


def _compare_names(
    what: str, declared: Sequence[Declaration], outputs: Sequence[Output], data: StanData
) -> None:
    theirs = [name for output in outputs if (name := _variable(output))]
    shapes = {d.name: declared_shape(d.type, data) for d in declared}
    ours = [name for name, shape in shapes.items() if shape is None or 0 not in shape]
    if missing := [name for name in ours if name not in theirs and shapes[name] is not None]:
        raise Difference(f"it has no {what} {_listed(missing)}")
    if extra := [name for name in theirs if name not in ours]:
        raise Difference(f"its {what} {_listed(extra)} is not declared in the program")
    for output in outputs:
        shape = shapes[_variable(output)]
        if ":" not in output.name and shape is not None and output.shape != shape:
            raise Difference(f"its {what} `{output.name}` has shape {output.shape}, declared is {shape}")
    order = list(dict.fromkeys(theirs))
    if order != [name for name in ours if name in order]:
        raise Difference(f"its {what}s have the order {_listed(order)}, declared is {_listed(ours)}")


def _variable(output: Output) -> str:
    """The declared name behind `t`, `t:1` or `t.2:1`."""
    return output.name.partition(":")[0].partition(".")[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))
