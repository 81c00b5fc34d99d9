"""Is a posterior that the diagnosis passes the right one? Default fits of a bank of programs against references.

    python benchmarks/gate_accuracy.py --programs DIR --references FILE [--only NAME,...] [--no-nuts] [--output FILE]

DIR holds a folder for each posterior, with one .stan and one .json file, or NAME.stan beside NAME.json; FILE is JSON
`{"posteriors": {NAME: {"beta[2]": [mean, sd, 5 %, 50 %, 95 %], ...}}}`, as `make_references.py` writes it.
`posteriordb_bank.py` lays a clone of posteriordb out like this.

Each posterior is fitted by `Model.fit(seed=)` in a process of its own; what `fit.posterior()` hands out is compared
with the reference, and with what `fit.diagnose()` says. Only globals count: variables that are no unit's (where there
are none, all parameters).

mean, sd ratio: of the worst global: |error| of its mean in the reference's sds, and its sd over the reference's;
    between quantiles of 5 and 95 % instead where tails leave an sd open (Monte Carlo error above 5 %).
log sd: mean |log sd ratio| of the globals.
verdict: passed or refused, and `bad` where a global is beyond 0.2 sds, or 0.85 to 1.18 in sd, by more than 3 Monte
    Carlo standard errors of both sides. Passed and bad is a false accept, refused and not bad a false refusal.
fit, corr., diag.: CPU seconds of the fit, of its first `posterior()`, which makes the correction, and of `diagnose()`;
    NUTS: of stanli's NUTS, 4 chains of 1000 + 1000, with its worst R-hat and fewest effective draws of a global.
    Processes' children count. A first run compiles what later ones find in avistan's cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from _posteriors import (
    Distance,
    Moments,
    Posterior,
    distances,
    mean_log_ratio,
    read_bank,
    read_references,
    worst,
)
from _processes import asked

LIMIT = 900.0  # wall seconds of a posterior's process
DRAWS = 4000  # that are compared, unless 1000 take long
NUTS = ("1000", "1000")  # warm-up and draws of each chain
SIGNIFICANT = 1.01  # R-hat from which on NUTS is said not to mix
HEADER = (
    f"{'posterior':<48}{'globals':>8}{'mean':>7}{'sd ratio':>9}{'log sd':>8}  {'verdict':<34}"
    f"{'fit':>8}{'corr.':>8}{'diag.':>8}{'NUTS':>8}  remarks"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A posterior's fit, judged; `passed` is None where there was no verdict, with the reason in `trouble`."""

    name: str
    passed: bool | None = None
    outcome: str = ""
    found: tuple[Distance, ...] = ()
    trouble: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    nuts_seconds: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def worst(self) -> Distance | None:
        return worst(self.found) if self.found else None

    @property
    def bad(self) -> bool:
        return any(distance.bad for distance in self.found)

    @property
    def verdict(self) -> str:
        if self.passed is None:
            return "none"
        said = "passed" if self.passed else f"refused: {self.outcome}"
        return f"{said}, bad" if self.bad else said

    @property
    def log_ratio(self) -> float:
        return mean_log_ratio(self.found) if self.found else math.nan

    @property
    def check_seconds(self) -> float:
        return self.seconds.get("posterior", 0.0) + self.seconds.get("diagnosis", 0.0)


def main() -> None:
    arguments = parse_arguments()
    try:
        bank, references = read_bank(arguments.programs), read_references(arguments.references)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    names = [name for name in references if name in bank]
    if arguments.only:
        names = arguments.only.split(",")
        unknown = [name for name in names if name not in bank or name not in references]
        if unknown:
            sys.exit(f"{', '.join(unknown)}: not in both {arguments.programs} and {arguments.references}")
    with contextlib.ExitStack() as stack:
        outputs = [sys.stdout]
        if arguments.output:
            outputs.append(stack.enter_context(open(arguments.output, "w")))
        tell(HEADER, outputs)
        rows = []
        for name in names:
            rows.append(measure(bank[name], references[name], arguments))
            tell(line(rows[-1]), outputs)
        tell("\n".join(["", *summary(rows)]), outputs)
    if arguments.json:
        arguments.json.write_text(json.dumps([stored(row) for row in rows], indent=1))


def measure(posterior: Posterior, truth: dict[str, Moments], arguments: argparse.Namespace) -> Row:
    answer = asked(
        "_judged_fit.py",
        posterior.program,
        posterior.data,
        list(truth),
        str(arguments.seed),
        str(DRAWS),
        limit=arguments.limit,
    )
    row = judged(posterior.name, answer, truth)
    if arguments.no_nuts:
        return row
    return with_nuts(row, posterior, [distance.variable for distance in row.found] or list(truth), arguments)


def judged(name: str, answer: dict[str, Any], truth: dict[str, Moments]) -> Row:
    """The row of what `_judged_fit.py` answered."""
    own = {label: Moments.read(numbers) for label, numbers in answer.get("moments", {}).items()}
    remarks = [answer.get("correction", "") or answer.get("family", "")]
    if answer.get("missing"):
        remarks.append(f"not in the posterior: {', '.join(answer['missing'][:3])}")
    if answer["trouble"]:
        remarks.append(f"after {answer.get('done', 'nothing')}: {answer['trouble']}")
    return Row(
        name=name,
        passed=answer.get("passed"),
        outcome=answer.get("outcome", ""),
        found=tuple(distances(own, truth)),
        trouble=answer["trouble"],
        seconds=answer.get("seconds", {}),
        remarks=tuple(filter(None, remarks)),
    )


def with_nuts(row: Row, posterior: Posterior, labels: list[str], arguments: argparse.Namespace) -> Row:
    answer = asked(
        "_nuts_run.py", posterior.program, posterior.data, labels, "1", *NUTS, limit=arguments.limit
    )
    if answer["trouble"]:
        return replace(row, remarks=(*row.remarks, f"NUTS: {answer['trouble']}"))
    variables = [found for found in answer["variables"].values() if not found["constant"]]
    rhat = max((found["rhat"] for found in variables), default=math.nan)
    ess = min((found["ess"] for found in variables), default=math.nan)
    mixes = "" if rhat < SIGNIFICANT else ", does not mix"
    said = f"NUTS R-hat {rhat:.3f}, ESS {ess:.0f}{mixes}"
    return replace(row, nuts_seconds=answer["seconds"]["nuts"], remarks=(*row.remarks, said))


# ---- Text --------------------------------------------------------------------------------------------------


def line(row: Row) -> str:
    parts = [row.seconds.get(part) for part in ("fit", "posterior", "diagnosis")]
    seconds = "".join("       -" if part is None else f"{part:>8.1f}" for part in [*parts, row.nuts_seconds])
    worst_one = row.worst
    if worst_one is None:
        numbers = f"{'-':>8}{'-':>7}{'-':>9}{'-':>8}"
    else:
        numbers = f"{len(row.found):>8}{worst_one.mean:>7.2f}{math.exp(worst_one.log_ratio):>9.2f}{row.log_ratio:>8.3f}"
    named = [worst_one.variable] if worst_one is not None else []
    return f"{row.name:<48}{numbers}  {row.verdict:<34}{seconds}  {'; '.join([*named, *row.remarks])}"


def summary(rows: list[Row]) -> list[str]:
    passed = [row for row in rows if row.passed]
    refused = [row for row in rows if row.passed is False]
    untold = [row for row in rows if row.passed is None]
    accepts = [row for row in passed if row.bad]
    refusals = [row for row in refused if not row.bad]
    lines = [
        f"{len(rows)} posteriors",
        f"passed            {len(passed)} ({share(passed, rows)})",
        f"bad among passed  {len(accepts)}{listed(accepts)}",
        f"refused           {len(refused)}, of them {len(refusals)} within the limits: false refusals "
        f"{share(refusals, rows)} of all{listed(refusals)}",
        f"no verdict        {len(untold)}{listed(untold)}",
    ]
    for said, some in (("of those that passed", passed), ("of all", [row for row in rows if row.found])):
        if some := [row for row in some if row.found]:
            lines.append(
                f"mean |log sd ratio| of globals {said}: {np.mean([row.log_ratio for row in some]):.3f}"
            )
    told = [row for row in rows if row.passed is not None]
    if told:
        fit, checks = (
            sum(values)
            for values in zip(*((row.seconds["fit"], row.check_seconds) for row in told), strict=True)
        )
        ratios = [row.check_seconds / max(row.seconds["fit"], 1e-3) for row in told]
        lines.append(
            f"CPU seconds: fits {fit:.0f}, correction and diagnosis {checks:.0f}; their ratio has the median "
            f"{np.median(ratios):.2f} and is {max(ratios):.2f} at most"
        )
    sampled = [row for row in told if row.nuts_seconds is not None]
    if sampled:
        ratios = [
            (row.seconds["fit"] + row.check_seconds) / max(row.nuts_seconds or 0.0, 1e-3) for row in sampled
        ]
        lines.append(
            f"CPU seconds over those of NUTS: median {np.median(ratios):.2f}, {max(ratios):.2f} at most"
        )
    for row in accepts:
        lines += ["", f"{row.name}, passed:"]
        lines += [f"  {distance}" for distance in row.found if distance.bad]
    return lines


def share(some: list[Row], of: list[Row]) -> str:
    return f"{100 * len(some) / max(len(of), 1):.0f} %"


def listed(rows: list[Row]) -> str:
    return f": {', '.join(row.name for row in rows)}" if rows else ""


def stored(row: Row) -> dict[str, Any]:
    """A row as JSON."""
    return {
        "name": row.name,
        "passed": row.passed,
        "outcome": row.outcome,
        "bad": row.bad,
        "trouble": row.trouble,
        "remarks": row.remarks,
        "seconds": row.seconds,
        "nuts_seconds": row.nuts_seconds,
        "variables": {
            d.variable: [d.mean, d.mean_se, d.log_ratio, d.log_ratio_se, d.excess] for d in row.found
        },
    }


def tell(text: str, outputs: Iterable[TextIO]) -> None:
    for output in outputs:
        print(text, file=output, flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", type=Path, required=True, help="the bank's folder")
    parser.add_argument("--references", type=Path, required=True, help="JSON with their moments")
    parser.add_argument("--only", help="names of posteriors, separated by commas")
    parser.add_argument("--no-nuts", action="store_true", help="without NUTS beside them")
    parser.add_argument("--seed", type=int, default=1, help="of the fits")
    parser.add_argument("--limit", type=float, default=LIMIT, help="wall seconds of a process")
    parser.add_argument("--output", type=Path, help="also write the text there")
    parser.add_argument("--json", type=Path, help="also write every number there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
