"""A comparison as text: results, cost, accuracy, repeats, and what a reader must know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avistan.comparison.references import Reference
from avistan.comparison.rows import Row
from avistan.runtime.text import plain

_NAME = 22
Line = tuple[str, str]  # a name, or a heading with nothing beside it, and the cells


def as_text(
    rows: Sequence[Row],
    *,
    head: str,
    seeds: Sequence[int],
    reference: Reference | None = None,
    reference_failure: str = "",
) -> str:
    """The whole comparison as aligned columns under headings, and notes in words.

    Args:
        head: the first line.
        seeds: of the rows and of their repeats.
        reference_failure: why a reference that was asked for is missing.
    """
    tables = [_results(rows), _cost(rows), _repeats(rows, seeds), _accuracy(rows, reference)]
    width = max([_NAME, *(len(row.method) + 1 for row in rows)])
    texts = [[name.ljust(width) + cells if cells else name for name, cells in table] for table in tables]
    notes = [f"{row.method}: {row.reason}" for row in rows if row.reason]
    notes += [note for note in (reference_failure, reference and reference.caveat) if note]
    return "\n\n".join("\n".join(block) for block in [[head], *texts, notes] if block)


def _line(name: str, cells: Sequence[tuple[str, int]]) -> Line:
    return name, "".join(f"{text:>{width}}" for text, width in cells).rstrip()


def _results(rows: Sequence[Row]) -> list[Line]:
    widths = (16, 13, 8, 13, 9, 8, 9)
    titles = ("outcome", "ELBO", "+-", "gap to F-VI", "+-", "k-hat", "params")
    lines = [_line("method", list(zip(titles, widths, strict=True)))]
    for row in rows:
        params = row.cost and row.cost.variational_parameters
        cells = (
            row.outcome,
            plain(row.elbo, 2),
            plain(row.elbo_se, 2),
            plain(row.gap_to_fvi, 3),
            plain(row.gap_se, 3),
            plain(row.khat, 2),
            "-" if params is None else str(params),
        )
        lines.append(_line(row.method, list(zip(cells, widths, strict=True))))
    return lines


def _cost(rows: Sequence[Row]) -> list[Line]:
    widths = (9, 11, 10, 10, 10, 10, 10, 10, 10)
    above = ("", "", "seconds", "", "", "to 1 nat", "", "to 0.1 %", "")
    titles = ("steps", "gradients", "compile", "fit", "evaluate", "steps", "seconds", "steps", "seconds")
    lines = [_line("", list(zip(above, widths, strict=True)))]
    lines.append(_line("method", list(zip(titles, widths, strict=True))))
    for row in rows:
        cost = row.cost
        if cost is None:
            continue
        reached = []
        for when in (row.within_nat, row.within_per_mille):
            reached += ["-", "-"] if when is None else [str(when.steps), plain(when.seconds, 2)]
        cells = (
            "-" if cost.steps is None else str(cost.steps),
            "-" if cost.gradient_evaluations is None else str(cost.gradient_evaluations),
            plain(cost.seconds_compile, 2),
            plain(cost.seconds, 2),
            plain(cost.seconds_evaluate, 2),
            *reached,
        )
        lines.append(_line(row.method, list(zip(cells, widths, strict=True))))
    return lines if len(lines) > 2 else []


def _repeats(rows: Sequence[Row], seeds: Sequence[int]) -> list[Line]:
    if len(seeds) < 2:
        return []
    widths = (9, 13, 13, 13, 13, 13, 13)
    titles = ("failed", "ELBO median", "min", "max", "gap median", "min", "max")
    lines: list[Line] = [(f"over {len(seeds)} seeds, {seeds[0]} to {seeds[-1]}:", "")]
    lines.append(_line("method", list(zip(titles, widths, strict=True))))
    for row in rows:
        every = (row, *row.repeats)
        cells = [str(sum(r.failed for r in every))]
        for values in ([r.elbo for r in every], [r.gap_to_fvi for r in every]):
            there = [v for v in values if v is not None]
            digits = 2 if values[0] is row.elbo else 3
            cells += [plain(f(there), digits) for f in (_median, min, max)] if there else ["-", "-", "-"]
        lines.append(_line(row.method, list(zip(cells, widths, strict=True))))
    return lines


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _accuracy(rows: Sequence[Row], reference: Reference | None) -> list[Line]:
    measured = [(row.method, row.accuracy) for row in rows if row.accuracy is not None]
    if reference is None or not measured:
        return []
    chains, draws, _ = reference.theta.shape
    widths = (12, 12, 14, 12)
    took = f"{reference.seconds:.1f} s, " if np.isfinite(reference.seconds) else ""
    head = f"against {reference.name} ({took}{chains} x {draws} draws, largest R-hat "
    lines = [
        (f"{head}{reference.max_rhat:.3f}):", ""),
        _line("", [("mean error, sds", 24), ("sd ratio", 26)]),
        _line("method", list(zip(("globals", "locals", "globals", "locals"), widths, strict=True))),
    ]
    for method, a in measured:
        values = (a.mean_error_globals, a.mean_error_locals, a.sd_ratio_globals, a.sd_ratio_locals)
        cells = [(plain(v, 3), w) for v, w in zip(values, widths, strict=True)]
        lines.append(_line(method, cells))
    return lines
