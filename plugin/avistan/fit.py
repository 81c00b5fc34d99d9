"""The result of a fit: draws, ELBO, outcome, new units; saved and loaded as a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from avistan.fitting.fitted import Fitted
from avistan.questions.doors import AskedFit
from avistan.runtime.errors import FitError
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import ProgressCallback, reporting
from avistan.saved import parts as saving
from avistan.start.preparation import once
from stan_adapters.sources import DataSource

if TYPE_CHECKING:  # what not every fit needs takes long to load: whoever needs it loads it
    import xarray as xr

    from avistan.diagnosis.improvement import Improvement
    from avistan.diagnosis.verdict import Diagnosis


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit(AskedFit):
    """A fitted posterior, and what can be asked of it; attributes as in `Fitted`. What takes long is kept.

    Example:
        >>> fit.level.name, fit.outcome in avi.FitOutcome, fit.inputs.shape[0]
        ('J', True, 8)
    """

    @classmethod
    def of(cls, fitted: Fitted) -> Fit:
        """The doors of a record.

        Example:
            >>> avi.Fit.of(fit).elbo == fit.elbo
            True
        """
        return cls(**{part.name: getattr(fitted, part.name) for part in fields(Fitted)})

    # -- trust --------------------------------------------------------------------------------------------------

    def keep_chains(self, numbers: Sequence[int]) -> Fit:
        """The fit with only some of its restarts, numbered from 0: what ended in a worse optimum can be dropped.

        Raises:
            FitError: no such restart, or none at all.

        Example:
            >>> len(fit.keep_chains([0]).chains)
            1
        """
        known = range(len(self.chains))
        if not isinstance(numbers, Sequence) or not numbers or any(number not in known for number in numbers):
            raise FitError(f"keep_chains({numbers!r}): give a list of the restarts 0 to {known[-1]}.")
        return replace(self, chains=tuple(self.chains[number] for number in numbers))

    def diagnose(
        self,
        *,
        nuts: bool = False,
        seed: int | None = None,
        progress_callback: ProgressCallback | None = None,
    ) -> Diagnosis:
        """Whether the draws that `posterior` gives can be trusted, which variables hold, what to do; prints as a table.

        A diagnosis is kept; its numbers of single units become a group of `posterior`, its verdict attributes.

        Args:
            nuts: also sample all parameters by NUTS, and compare; as slow as that is.
            seed: of the checks; default the fit's.
            progress_callback: as of `Model.fit`.

        Source: k-hat as a diagnosis, Yao, Vehtari, Simpson & Gelman, "Yes, but did it work?", ICML 2018.

        Example:
            >>> diagnosis = fit.diagnose()
            >>> [check.name for check in diagnosis.checks if check.passed is False]  # doctest: +ELLIPSIS
            [...]
        """
        from avistan.diagnosis.checks import diagnose

        with reporting(progress_callback):
            diagnosis = once(
                self._kept, f"diagnosis {seed} {nuts}", lambda: diagnose(self, seed=seed, nuts=nuts)
            )
        self._kept["diagnosis"] = diagnosis
        return diagnosis

    def marked(self, diagnosis: Diagnosis) -> None:
        """Keep a diagnosis that was read: draws are marked by it, as by one that was made.

        Example:
            >>> fit.marked(fit.diagnose())
        """
        self._kept["diagnosis"] = diagnosis

    def improve(self) -> Improvement[Fit]:
        """Go on from the better optimum that `diagnose` found: the same method, trained from there and diagnosed again.

        At most two trainings. The result holds the better fit and its diagnosis; where no better optimum was found,
        this fit and its own.

        Example:
            >>> improvement = fit.improve()
            >>> improvement.fit.elbo >= fit.elbo
            True
        """
        from avistan.diagnosis.improvement import Improvement, improve

        made = improve(self, self.diagnose())
        better = self if made.fit is self else Fit.of(made.fit)
        if better is not self:
            better._kept.update({"diagnosis": made.diagnosis, "diagnosis None False": made.diagnosis})
        return Improvement(fit=better, diagnosis=made.diagnosis, rounds=made.rounds)

    def refine(
        self, units: Sequence[int] | npt.NDArray[np.integer] | None = None, *, steps: int = 300
    ) -> Fit:
        """The fit with chosen units refined without the inference function (F-VI from the amortized start).

        Args:
            units: numbers counted from 0, as in ArviZ's coordinates (a diagnosis and Stan count from 1: their unit n is
                n - 1 here); None refines all.
            steps: Adam steps, with the globals held.

        Raises:
            FitError: no separable level, or no such unit.

        Source: semi-amortized inference, Kim, Wiseman, Miller, Sontag & Rush, ICML 2018, with the globals held.

        Example:
            >>> refined = fit.refine(units=[0, 3], steps=20)
            >>> refined.method.name == fit.method.name
            True
        """
        from avistan.posterior.refine_locals import refine

        return replace(self, chains=refine(self, units, steps=steps))

    # -- new units ----------------------------------------------------------------------------------------------

    def predict(
        self, data: DataSource, draws: int = 1000, *, seed: int | None = None, **datatree: Any
    ) -> xr.DataTree:
        """Posterior of units never seen, from their own data and the fitted globals; nothing is trained.

        Args:
            data: of the same program, with the new units in place of the fitted ones.
            datatree: `coords`, `dims`, `log_likelihood`, `posterior_predictive`, `log_prior`, as in `posterior`.

        Returns: a DataTree: `posterior` has draws of the globals and of the new units, `predictions` of the new units
            alone, `unit_diagnostics` their distance from the fitted ones (1 is typical of those among themselves).

        Raises:
            FitError: the method has free factors of the fitted units, or the new data change the globals.

        Warns:
            NewUnitsWarning: units are unlike those that were fitted, with how many, which is worst and how far.

        Source: Margossian & Blei, "Amortized variational inference: when and why?", UAI 2024.

        Example:
            >>> new = fit.predict({"J": 2, "y": [3.0, 9.0], "sigma": [10.0, 12.0]}, 100)
            >>> new["predictions"]["theta"].shape
            (1, 100, 2)
        """
        from avistan.posterior.predict import predict, read_fitted_units

        if self.level is not None:
            self.level.refuse_other_data()
        fitted = partial(once, self._kept, "fitted units", lambda: read_fitted_units(self))
        return predict(self, data, draws, seed, fitted=fitted, **datatree)

    # -- storage ------------------------------------------------------------------------------------------------

    @in_float64
    def save(self, path: str | os.PathLike[str], *, asked: Mapping[str, Any] | None = None) -> None:
        """Write the fit, its program and its data to a folder, which `avistan.load` reads back.

        Args:
            asked: plain JSON to keep with the fit, such as how it was asked for; `saved.folder.read_asked` returns it.

        Raises:
            FitError: the path holds something else or can't be written.

        Example:
            >>> fit.save(folder / "fit")
            >>> (folder / "fit" / "fit.json").is_file()
            True
        """
        saving.write(self, path, asked)


@in_float64
def load(path: str | os.PathLike[str], *, engine: str | None = None) -> Fit:
    """Read a fit that `Fit.save` wrote; its program and data come with it.

    A folder is data: nothing in it runs, and each file must be what was saved.

    Args:
        engine: as in `Model`; by default the one that the fit was made with, unless that was a prebuilt library, which
            only the caller may name.

    Raises:
        FitError: the folder is no saved fit, was changed or damaged (with the file's name), was written by another
            format, or needs an engine to be named.

    Warns:
        ChangedFileWarning: draws or a diagnosis that lie with the fit were changed.

    Example:
        >>> fit.save(folder / "fit")
        >>> avi.load(folder / "fit").elbo == fit.elbo
        True
    """
    return Fit.of(saving.read(path, engine))
