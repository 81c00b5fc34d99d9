"""A loaded library with data: raw handles, how they are made, and what the columns of its output mean."""

from __future__ import annotations

from stan_adapters.engine.abi import Abi
from stan_adapters.engine.columns import Output, parse_names
from stan_adapters.engine.engines import Library, bridgestan_sources, load
from stan_adapters.errors import EngineError, UnsupportedError, notify_once
from stan_adapters.language.program import Program


class Instance:
    """A library with data. `handles` has at least one entry until `close_all`."""

    def __init__(self, library: Library, handle: int) -> None:
        self.library = library
        self.handles = [handle]
        self._outputs: dict[tuple[bool, bool], tuple[Output, ...]] = {}

    @property
    def abi(self) -> Abi:
        return self.library.abi

    def outputs(self, transformed_parameters: bool, generated_quantities: bool) -> tuple[Output, ...]:
        key = (transformed_parameters, generated_quantities)
        if key not in self._outputs:
            names = self.abi.names(
                self.handles[0],
                transformed_parameters=transformed_parameters,
                generated_quantities=generated_quantities,
            )
            self._outputs[key] = parse_names(names)
        return self._outputs[key]


def close_all(instances: list[Instance]) -> None:
    """Free every handle, each exactly once."""
    for instance in instances:
        while instance.handles:
            instance.abi.destruct(instance.handles.pop())


def construct(
    program: Program, engine: str, data_json: str, seed: int, *, outputs: bool, whole: Program | None = None
) -> Instance:
    """A bound library; `auto` goes on to compiled BridgeStan where stanli can't take the program.

    Args:
        whole: what to compile then, if not `program`: a program with its generated quantities is compiled once for all.
    """
    try:
        library = load(program, engine)
        return Instance(library, library.construct(data_json, seed, outputs=outputs))
    except UnsupportedError as error:
        if engine != "auto" or bridgestan_sources() is None:
            raise
        reason = str(error).partition("\n")[0]
    notify_once(f"going on with the compiled engine, bridgestan: {reason}")
    try:
        library = load(whole or program, "bridgestan")
        return Instance(library, library.construct(data_json, seed, outputs=outputs))
    except EngineError as error:
        raise EngineError(f"{error}\nIt was tried because {reason}") from error
