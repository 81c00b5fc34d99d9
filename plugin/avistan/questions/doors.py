"""The doors to questions about units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from avistan.drawn_fit import DrawnFit

if TYPE_CHECKING:  # what not every fit needs takes long to load: whoever needs it loads it
    import pandas as pd
    from matplotlib.figure import Figure

    from avistan.questions.contrasts import Contrast
    from avistan.questions.shrinkage import Shrinkage


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedFit(DrawnFit):
    """A fitted posterior, its draws, and what these say of units; attributes as in `Fitted`."""

    def rank_units(
        self,
        name: str | None = None,
        *,
        entry: int | str | None = None,
        top: int | None = None,
        largest: bool = True,
    ) -> pd.DataFrame:
        """Units by their expected ranks, with the probabilities of being the best and of being among the top.

        Args:
            name: a variable of units; default the level's first latent.
            entry: which of a unit's numbers, where it has several: further indices, counted from 1, as 2 or "2,1".
            top: k of the column `top_k`; default a tenth of the units.
            largest: whether rank 1 is the largest.

        Returns: a row for each unit, counted from 1: `mean`, `sd`, `rank`, its 5 % and 95 % quantiles, `best`, `top_k`.

        Raises:
            FitError: no such variable, entry or number, or no units.

        Example:
            >>> fit.rank_units("theta", top=3).columns.tolist()
            ['mean', 'sd', 'rank', 'rank_q5', 'rank_q95', 'best', 'top_3']
        """
        from avistan.questions.ranking import rank

        return rank(self._units(name, entry)[1], top=top, largest=largest, quantiles=(0.05, 0.95))

    def contrast(
        self,
        weights: Mapping[int, float] | Sequence[int],
        name: str | None = None,
        *,
        entry: int | str | None = None,
    ) -> Contrast:
        """The posterior of a weighted sum of units, or of the difference of two; prints as a sentence.

        Args:
            weights: {unit: weight}, or two units: the first minus the second. Units count from 1.
            name, entry: as in `rank_units`.

        Raises:
            FitError: no such unit, variable or entry.

        Example:
            >>> fit.contrast((1, 3), "theta").draws.shape
            (1000,)
        """
        from avistan.questions.contrasts import contrast

        return contrast(*self._units(name, entry), weights)

    def shrinkage(self, name: str | None = None, *, entry: int | str | None = None) -> Shrinkage:
        """How far the units are drawn towards their population, in all and one by one; prints as a sentence.

        Args:
            name, entry: as in `rank_units`.

        Raises:
            FitError: no such variable or entry, or fewer than two units.

        Example:
            >>> 0 < fit.shrinkage("theta_raw").pooling < 1
            True
        """
        from avistan.questions.shrinkage import shrinkage

        return shrinkage(*self._units(name, entry))

    def plot_units(self, name: str | None = None, *, entry: int | str | None = None) -> Figure:
        """A caterpillar plot: units in the order of their means, with 50 % and 90 % intervals.

        Args:
            name, entry: as in `rank_units`.

        Raises:
            FitError: no such variable or entry, or no units.

        Example:
            >>> fit.plot_units("theta").savefig(folder / "units.png")
        """
        from avistan.questions.figures import caterpillar

        called, draws = self._units(name, entry)
        return caterpillar(called, self._level_name(), draws)

    def plot_shrinkage(self, name: str | None = None, *, entry: int | str | None = None) -> Figure:
        """Posterior sds of units, in sds of their population, against their means.

        Args:
            name, entry: as in `rank_units`.

        Raises:
            FitError: as `shrinkage`.

        Example:
            >>> fit.plot_shrinkage("theta").savefig(folder / "shrinkage.png")
        """
        from avistan.questions.figures import shrinkage_plot

        return shrinkage_plot(self.shrinkage(name, entry=entry), self._level_name())

    def _units(self, name: str | None, entry: int | str | None) -> tuple[str, npt.NDArray[np.float64]]:
        from avistan.posterior.unit_entries import draws_of_units

        return draws_of_units(self, self._default_draws(), name, entry)

    def _level_name(self) -> str:
        return "" if self.level is None else self.level.name
