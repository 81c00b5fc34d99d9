"""Draws as posteriordb keeps them: a list of chains, each a list of numbers by name, as JSON, zipped or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from avistan.foreign.tables import dotted, to_tree
from avistan.runtime.errors import CompetitorError
from avistan.runtime.text import shortened
from stan_adapters.files.text_files import UnreadableFile, read_text


def read_json(path: Path, wanted: Sequence[str], name: str) -> xr.DataTree:
    """Draws in a file.

    Raises:
        CompetitorError: it holds something else, with what.
    """
    try:
        content = json.loads(read_text(path))
    except (UnreadableFile, OSError, ValueError, RecursionError) as error:
        raise CompetitorError(f"can't read the reference {path}: {shortened(str(error), 200)}") from error
    return tree_of_chains(content, wanted, name)


def tree_of_chains(chains: Any, wanted: Sequence[str], name: str) -> xr.DataTree:
    """Draws as a list of chains, {"theta[1]": numbers}.

    Raises:
        CompetitorError: something else.
    """
    expected = 'expected a list of chains, each with numbers by name, as in posteriordb: [{"mu": [0.1, ...]}]'
    if isinstance(chains, dict) and all(not isinstance(value, dict) for value in chains.values()):
        raise CompetitorError(
            f"the reference {name} is one JSON object ({shortened(', '.join(map(str, chains)), 80)}), which looks like "
            f"data of a program; {expected}."
        )
    if not isinstance(chains, list) or not chains or not all(isinstance(c, dict) and c for c in chains):
        raise CompetitorError(f"the reference {name} is a {type(chains).__name__}; {expected}.")
    columns = list(chains[0])
    if any(set(chain) != set(columns) for chain in chains):
        raise CompetitorError(f"the chains of the reference {name} hold different variables.")
    try:
        values = np.array([[chain[column] for column in columns] for chain in chains], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CompetitorError(
            f"the chains of the reference {name} hold no numbers, or different numbers of draws; {expected}."
        ) from error
    if values.ndim != 3:
        raise CompetitorError(f"the reference {name} holds single numbers by name; {expected}.")
    names = [dotted(column) for column in columns]
    return to_tree(names, values.transpose(0, 2, 1), wanted, name, attrs={"method": name})
