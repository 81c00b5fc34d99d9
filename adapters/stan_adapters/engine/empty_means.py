"""What ends a process in stanli 0.24: the mean of an empty entry of the data, outside the block `transformed data`."""

from __future__ import annotations

import functools
import re

import numpy as np
from lark.exceptions import UnexpectedInput

from stan_adapters.data.stan_data import StanData
from stan_adapters.errors import EngineError
from stan_adapters.language.program import Program
from stan_adapters.language.statements import Statements, expressions

_RUN = frozenset({"transformed parameters", "model", "generated quantities"})


def refuse_empty_means(program: Program, data: StanData) -> None:
    """Raises EngineError where stanli would end the process."""
    if not re.search(r"\bmean\s*\(", program.source):
        return
    for name in sorted(_averaged(program.source)):
        value = data.entries.get(name)
        if isinstance(value, np.ndarray) and value.ndim and not value.size:
            raise EngineError(
                f"{program.name} takes the mean of `{name}`, which has no entries in these data. Stan gives NaN for it."
            )


@functools.lru_cache(maxsize=64)
def _averaged(source: str) -> frozenset[str]:
    """The names in what `mean` is called with where a density or its output is computed."""
    try:
        statements = Statements.read(source)
    except UnexpectedInput:  # not what Stan's compiler accepts: it will say so
        return frozenset()
    return frozenset(
        str(part.children[0])
        for site in statements.sites
        if statements.blocks(site) & _RUN
        for node in expressions(site.node.children)
        if node.data == "call" and node.children[0] == "mean"
        for part in node.iter_subtrees()
        if part.data == "name"
    )
