"""The posterior that a fit hands out by default: corrected where that can be had, else q's own draws, and which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from avistan.correction.correct import Correction, Way, correct
from avistan.correction.drawing import UnitDraws, corrected_rows, prepare_units
from avistan.fitting.chains import Chain
from avistan.fitting.fitted import Fitted
from avistan.posterior.draws import Batch, batch_size, completed, draw_batches
from avistan.runtime.limits import check_seed
from avistan.runtime.streams import Stream
from avistan.start.preparation import once


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    """How the globals were corrected, and how units are drawn given them (None where all are drawn together)."""

    correction: Correction
    units: UnitDraws | None

    @property
    def is_q(self) -> bool:
        """Whether q's own draws are handed out."""
        return self.correction.way is Way.none

    def attributes(self) -> dict[str, Any]:
        """What a DataTree says of it."""
        found = self.correction
        effective = found.effective[np.isfinite(found.effective)]
        told: dict[str, Any] = {"correction": found.way.value, "correction_reliable": int(found.reliable)}
        if not self.is_q and effective.size:
            told["effective_draws"] = float(effective.min())
        if np.isfinite(found.khat):
            told["khat"] = found.khat
        if found.reason:
            told["correction_reason"] = found.reason
        return told

    def __str__(self) -> str:
        """How the draws were had, in a sentence."""
        found = self.correction
        if self.is_q:
            return f"The draws are those of q, not corrected. {found.reason}".strip()
        what = "all parameters" if found.whole else "the globals, the units integrated out,"
        worth = np.nanmin(found.effective, initial=np.inf)
        effective = "" if np.isinf(worth) else f", worth {worth:.0f} independent draws"
        units = ""
        if self.units is not None:
            units = " Units are drawn from their conditional densities given these."
        return f"Draws of {what} by {found.way.value}{effective}.{units}"


_made: WeakKeyDictionary[Chain, dict[int, Corrected]] = WeakKeyDictionary()


def corrected(fit: Fitted, seed: int | None = None) -> Corrected:
    """The correction of a fit, and what draws of its units take; made once, and kept as long as the fit's best restart.

    Args:
        seed: None takes the fit's.
    """
    given = check_seed(fit.seed if seed is None else seed)

    def make() -> Corrected:
        correction = correct(fit, seed=given)
        return Corrected(correction, prepare_units(fit, correction, given))

    return once(_made.setdefault(fit.best, {}), given, make)


def num_chains(fit: Fitted, made: Corrected | None) -> int:
    """Chains of the posterior: Markov chains, or one, where it is corrected; else a chain for each restart."""
    return len(fit.chains) if made is None or made.is_q else len(made.correction.theta)


@contextmanager
def posterior_batches(
    fit: Fitted, made: Corrected | None, draws: int, seed: int | None
) -> Iterator[Iterator[Batch]]:
    """Draws of a fit, a batch at a time.

    Args:
        made: None gives q's own draws.
        draws: of each chain.
    """
    given = fit.seed if seed is None else seed
    if made is None or made.is_q:
        chains = [(chain.family, chain.inputs) for chain in fit.chains]
        yield draw_batches(fit.model, chains, draws, seed=given, purpose=Stream.FITTED_UNITS)
        return
    in_all, size = draws * num_chains(fit, made), batch_size(fit.model)
    with corrected_rows(fit, made.correction, made.units, in_all, given, size) as rows:
        parts = ((chain, start, points, None) for chain, start, points in rows)
        yield completed(fit.model, parts, in_all, draws, given)
