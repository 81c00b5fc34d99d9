"""What simulation-based calibration found: ranks of true values, and whether they are uniform."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import arviz_base
import numpy as np
import numpy.typing as npt
import xarray as xr

from avistan.calibration.uniformity import Envelope, Shape, envelope
from avistan.fitting.options import FitOptions
from avistan.runtime.types import FloatArray, IntArray

_CAUSES = (
    "A failure lies in the program, in the simulator or in the approximation: a mean-field approximation is too narrow "
    "wherever parameters depend on each other. `avistan compare --reference nuts` measures the approximation alone."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """One scalar and the ranks of its true values.

    Attributes:
        name: such as `z[3]`, counted from 1.
        variable: the parameter it belongs to.
        truth: (R,) what the simulator drew.
        ranks: (R,) how many of the L posterior draws are below it; ties are broken at random.
        p_value: of the ranks' uniformity, for this entry alone; see `uniformity.p_value`.
        passed: whether its ECDF stays within the envelope that all entries share.
        shape: the plainest departure from uniformity; None where it passed.
    """

    name: str
    variable: str
    truth: FloatArray
    ranks: IntArray
    p_value: float
    passed: bool
    shape: Shape | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Ranks of true values among the draws of refits. Prints as a table; `to_json` is what `avistan sbc` prints.

    Attributes:
        num_simulations: R, refits that count.
        num_draws: L, of each refit.
        probability: of all entries lying within their envelopes, if they are all uniform.
        failures: why a refit does not count, one sentence each.
        not_simulated: parameters that the simulator does not give.

    Example:
        >>> calibration["mu"].ranks.shape, calibration.passed == (not calibration.failing)
        ((10,), True)
    """

    program: str
    simulator: str
    method: str
    reason: str
    num_simulations: int
    num_draws: int
    seed: int
    probability: float
    entries: tuple[Entry, ...]
    failures: tuple[str, ...]
    not_simulated: tuple[str, ...]
    seconds: float
    options: FitOptions = field(repr=False)

    @property
    def passed(self) -> bool:
        return all(entry.passed for entry in self.entries)

    @property
    def failing(self) -> tuple[str, ...]:
        """Names of the entries whose ranks are not uniform."""
        return tuple(entry.name for entry in self.entries if not entry.passed)

    @property
    def envelope(self) -> Envelope:
        """What the ECDF of each entry must stay within: simultaneous over its edges, and, by Bonferroni, entries."""
        each = 1 - (1 - self.probability) / len(self.entries)
        return envelope(self.num_simulations, self.num_draws, each)

    def __getitem__(self, name: str) -> Entry:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def to_datatree(self) -> xr.DataTree:
        """Groups `prior_sbc` (ranks as shares, which `arviz_plots.plot_ecdf_pit` reads), `ranks` and `prior`.

        Example:
            >>> calibration.to_datatree()["ranks"]["mu"].shape
            (1, 10)
        """
        variables: dict[str, list[Entry]] = {}
        for entry in self.entries:
            variables.setdefault(entry.variable, []).append(entry)
        groups: dict[str, dict[str, npt.NDArray[Any]]] = {"prior_sbc": {}, "ranks": {}, "prior": {}}
        dims, coords = {}, {}
        for name, entries in variables.items():
            scalar = len(entries) == 1 and entries[0].name == name
            ranks, truth = (
                np.stack([getattr(entry, part) for entry in entries], axis=-1)[None]
                for part in ("ranks", "truth")
            )
            if scalar:
                ranks, truth = ranks[..., 0], truth[..., 0]
            else:
                dims[name] = [f"{name}_entry"]
                coords[f"{name}_entry"] = [entry.name for entry in entries]
            groups["prior_sbc"][name] = (ranks + 0.5) / (self.num_draws + 1)
            groups["ranks"][name] = ranks
            groups["prior"][name] = truth
        tree = arviz_base.from_dict(groups, coords=coords, dims=dims)
        tree.attrs |= {
            "inference_library": "avistan",
            "program": self.program,
            "simulator": self.simulator,
            "method": self.method,
            "seed": self.seed,
            "draws": self.num_draws,
            "probability": self.probability,
            "passed": self.passed,
        }
        return tree

    def to_json(self) -> dict[str, Any]:
        """What `avistan sbc --json` prints.

        Example:
            >>> calibration.to_json()["simulations"]
            10
        """
        return {
            "program": self.program,
            "simulator": self.simulator,
            "method": self.method,
            "reason": self.reason,
            "passed": self.passed,
            "simulations": self.num_simulations,
            "failed_refits": list(self.failures),
            "draws": self.num_draws,
            "seed": self.seed,
            "probability": self.probability,
            "seconds": self.seconds,
            "not_simulated": list(self.not_simulated),
            "entries": [
                {
                    "name": entry.name,
                    "passed": entry.passed,
                    "p_value": entry.p_value,
                    "mean_rank": float(entry.ranks.mean() / self.num_draws),
                    "shape": entry.shape and str(entry.shape),
                    "ranks": entry.ranks.tolist(),
                }
                for entry in self.entries
            ],
        }

    def __str__(self) -> str:
        width = max(len("parameter"), *(len(entry.name) for entry in self.entries)) + 2
        verdict = "calibrated" if self.passed else f"NOT calibrated: {', '.join(self.failing)}"
        lines = [
            f"{self.program} fitted by {self.method} to {self.num_simulations} data sets of {self.simulator}, "
            f"{self.num_draws} draws each, seed {self.seed}: {verdict}",
            "",
            f"{'parameter':<{width}}{'mean rank':>10}{'p-value':>10}  ranks",
        ]
        lines += [
            f"{entry.name:<{width}}{entry.ranks.mean() / self.num_draws:>10.3f}{entry.p_value:>10.2g}  "
            f"{f'{entry.shape}: {entry.shape.meaning}' if entry.shape else 'uniform'}"
            for entry in self.entries
        ]
        notes = [] if self.passed else [_CAUSES]
        if self.reason:
            notes.append(self.reason)
        if self.not_simulated:
            notes.append(
                f"Not ranked, because the simulator does not give it: {', '.join(self.not_simulated)}."
            )
        if self.failures:
            notes.append(
                f"{len(self.failures)} refits failed and do not count; the first: {self.failures[0]}"
            )
        return "\n".join([*lines, *([""] if notes else []), *notes])
