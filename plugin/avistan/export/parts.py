"""Draws as they go out: the program's variables a part at a time, from a fit or from what lies beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from avistan.fitting.fitted import Fitted
from avistan.posterior.corrected import corrected, num_chains, posterior_batches
from avistan.posterior.draws import warn_of_rejected
from avistan.posterior.fit_datatree import attributes
from avistan.posterior.summaries import check_draws_there
from avistan.runtime.limits import whole_number
from avistan.runtime.progress import begin_stage, report_step
from avistan.runtime.types import FloatArray
from stan_adapters.bound.bound_model import BoundModel

_GROUPS = ("posterior", "log_likelihood", "log_prior", "posterior_predictive")
_NUMBERS_AT_ONCE = 2**22  # 32 MiB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Consecutive draws of one chain: variables, each (S, *shape), and the log density (S,), nats."""

    chain: int
    start: int
    values: Mapping[str, npt.NDArray[Any]]
    lp: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Outgoing:
    """Draws on their way out.

    Attributes:
        chains, each: how many chains, and draws of each.
        shapes: of the variables, in the program's order.
        is_complex: names of those that are.
        attrs: what a DataTree of them says.
        parts: all draws, chain after chain; can be taken once.
    """

    program: str
    chains: int
    each: int
    shapes: Mapping[str, tuple[int, ...]]
    is_complex: frozenset[str] = frozenset()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    parts: Iterable[Part]

    @property
    def numbers(self) -> int:
        """Of one draw."""
        return sum(prod(shape) * (1 + (name in self.is_complex)) for name, shape in self.shapes.items())


@contextmanager
def of_fit(fit: Fitted, draws: int, seed: int | None, marks: Mapping[str, Any]) -> Iterator[Outgoing]:
    """Draws of a fit as `Fit.posterior` gives them by default.

    Args:
        draws: of all Markov chains together; of q, from each restart.
        marks: what a diagnosis says of them.
    """
    made = corrected(fit, seed)
    chains = num_chains(fit, made)
    each = whole_number("draws", draws) if made.is_q else max(1, whole_number("draws", draws) // chains)
    rejected = 0
    with posterior_batches(fit, made, each, seed) as batches:
        first = next(batches)

        def parts() -> Iterator[Part]:
            nonlocal rejected
            batch: Any = first
            while batch is not None:
                rejected += batch.num_rejected
                yield Part(chain=batch.chain, start=batch.start, values=batch.values, lp=batch.lp)
                batch = next(batches, None)

        yield Outgoing(
            program=fit.model.program.name,
            chains=chains,
            each=each,
            shapes={name: value.shape[1:] for name, value in first.values.items()},
            is_complex=frozenset(name for name, value in first.values.items() if value.dtype.kind == "c"),
            attrs={**attributes(fit, draws, seed, made), **marks},
            parts=parts(),
        )
    warn_of_rejected(rejected, each * chains, fit.model.program.name, stacklevel=5)


def of_tree(tree: xr.DataTree, model: BoundModel) -> Outgoing:
    """Draws of a DataTree that a fit of the model made, perhaps in a file that is read as needed.

    Raises:
        FitError: it has no group `posterior`.
    """
    check_draws_there(tree)
    found: dict[str, xr.DataArray] = {}
    for group in _GROUPS:
        if group in tree.children:
            found |= {str(name): value for name, value in tree[group].data_vars.items()}
    program = model.program
    blocks = (program.parameters, program.transformed_parameters, program.generated_quantities)
    declared = [variable.name for block in blocks for variable in block]
    place = {name: number for number, name in enumerate(declared)}
    ordered = sorted(found, key=lambda name: place.get(name.partition(":")[0].partition(".")[0], len(place)))
    variables = {name: _whole(found[name].transpose("chain", "draw", ...)) for name in ordered}
    first = next(iter(variables.values()))
    return Outgoing(
        program=program.name,
        chains=first.shape[0],
        each=first.shape[1],
        shapes={name: value.shape[2:] for name, value in variables.items()},
        is_complex=frozenset(name for name, value in variables.items() if value.dtype.kind == "c"),
        attrs={str(name): value for name, value in tree.attrs.items()},
        parts=_parts_of_tree(variables, tree["sample_stats"]["lp"].transpose("chain", "draw")),
    )


def _whole(value: xr.DataArray) -> xr.DataArray:
    """Complex numbers, which netCDF files have as a last dimension `part`, put together."""
    if value.dims[-1] != "part":
        return value
    return value.isel(part=0, drop=True) + 1j * value.isel(part=1, drop=True)


def _parts_of_tree(variables: Mapping[str, xr.DataArray], lp: xr.DataArray) -> Iterator[Part]:
    begin_stage("draws of the posterior")
    chains, each = lp.shape
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, sum(prod(value.shape[2:]) for value in variables.values())))
    for chain in range(chains):
        for start in range(0, each, at_once):
            taken = slice(start, start + at_once)
            values = {name: np.asarray(value[chain, taken]) for name, value in variables.items()}
            yield Part(chain=chain, start=start, values=values, lp=np.asarray(lp[chain, taken]))
            report_step(chain * each + min(each, start + at_once), chains * each)
