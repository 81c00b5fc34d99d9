"""A comparison's tables: captions, columns with their units, and cells as they are read, on a page or a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avistan.comparison.references import Reference
from avistan.comparison.rows import Row
from avistan.runtime.text import (
    DASH,
    TIMES,
    count,
    decimals,
    fixed,
    plain,
    plus_minus,
    seconds,
    several,
)

WIDTH = 110


@dataclass(frozen=True, slots=True)
class Column:
    """`group` stands above columns that belong together; `unit` follows the title."""

    title: str
    unit: str = ""
    group: str = ""
    is_text: bool = False

    @property
    def label(self) -> str:
        """The whole of it, for a card."""
        return ", ".join(part for part in (f"{self.group} {self.title}".strip(), self.unit) if part)


@dataclass(frozen=True, slots=True)
class Line:
    """A table's row; `mark` is the series that stands beside its name."""

    name: str
    cells: tuple[str, ...]
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class ReportTable:
    name: str
    caption: str
    head: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings above neighbouring columns, with how many they span; empty where no column has one."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(name for name, _ in spans) else []


def results(rows: Sequence[Row]) -> ReportTable:
    elbo_digits = max((decimals(row.elbo_se, 1) for row in rows if row.elbo_se), default=2)
    gap_digits = max((decimals(row.gap_se, 1) for row in rows if row.gap_se), default=2)
    lines = []
    for number, row in enumerate(rows):
        cells = (
            row.outcome.replace("_", " "),
            plus_minus(row.elbo, row.elbo_se, elbo_digits),
            "0" if row.gap_se == 0 else plus_minus(row.gap_to_fvi, row.gap_se, gap_digits),
            fixed(row.khat, 2),
            count(None if row.cost is None else row.cost.variational_parameters),
        )
        lines.append(Line(row.method, cells, None if row.failed else number))
    columns = (
        Column("outcome", is_text=True),
        Column("ELBO", "nats"),
        Column("gap to F-VI", "nats"),
        Column("k-hat"),
        Column("variational parameters"),
    )
    notes = [
        "Larger ELBOs are better; they leave out the program's constant. The gap is F-VI's ELBO minus the method's, "
        "from the draws that both share where both densities are known. ± is one standard error."
    ]
    notes += [f"{row.method} failed: {row.reason}" for row in rows if row.failed]
    return ReportTable("results", "What each method reached", "method", columns, tuple(lines), tuple(notes))


def cost(rows: Sequence[Row], seconds_prepare: float) -> ReportTable | None:
    lines = []
    for number, row in enumerate(rows):
        if (cost := row.cost) is None:
            continue
        nat, per_mille = row.within_nat, row.within_per_mille
        cells = (
            count(cost.steps),
            count(cost.gradient_evaluations),
            seconds(cost.seconds_compile),
            seconds(cost.seconds),
            seconds(cost.seconds_evaluate),
            count(nat.steps if nat else None),
            seconds(nat.seconds if nat else None),
            count(per_mille.steps if per_mille else None),
            seconds(per_mille.seconds if per_mille else None),
        )
        lines.append(Line(row.method, cells, number))
    if not lines:
        return None
    columns = (
        Column("steps"),
        Column("gradients"),
        Column("compile", "s"),
        Column("train", "s"),
        Column("evaluate", "s"),
        Column("steps", group="to 1 nat"),
        Column("time", "s", "to 1 nat"),
        Column("steps", group="to 0.1 %"),
        Column("time", "s", "to 0.1 %"),
    )
    note = (
        "To 1 nat and to 0.1 %: until training first came so near to the best ELBO of all methods, read from the "
        f"smoothed trace. The start that avistan's own methods share took {seconds(seconds_prepare)} s more."
    )
    return ReportTable("cost", "What it cost", "method", columns, tuple(lines), (note,))


def accuracy(rows: Sequence[Row], reference: Reference | None) -> ReportTable | None:
    lines = []
    for number, row in enumerate(rows):
        if (found := row.accuracy) is None:
            continue
        values = (
            found.mean_error_globals,
            found.mean_error_locals,
            found.sd_ratio_globals,
            found.sd_ratio_locals,
        )
        lines.append(Line(row.method, tuple(fixed(value, 3) for value in values), number))
    if reference is None or not lines:
        return None
    chains, draws, _ = reference.theta.shape
    columns = (
        Column("globals", "sds", "mean error"),
        Column("latents", "sds", "mean error"),
        Column("globals", "", "sd ratio"),
        Column("latents", "", "sd ratio"),
    )
    diverged = "an unknown number of divergent transitions"
    if reference.divergences is not None:
        diverged = several(reference.divergences, "divergent transition")
    took = f", {seconds(reference.seconds)} s" if np.isfinite(reference.seconds) else ""
    note = (
        f"Averages over unconstrained parameters: errors of means in the reference's sds, and sds over its sds. "
        f"{reference.called}: {chains} {TIMES} {draws} draws{took}, "
        f"largest R-hat {fixed(reference.max_rhat, 3)}, smallest effective sample size {fixed(reference.min_ess, 0)}, "
        f"{diverged}."
    )
    caption = f"Against {reference.called}"
    return ReportTable("accuracy", caption, "method", columns, tuple(lines), (note,))


def repeats(rows: Sequence[Row], seeds: Sequence[int]) -> ReportTable | None:
    if len(seeds) < 2:
        return None
    lines = []
    for number, row in enumerate(rows):
        every = (row, *row.repeats)
        elbos = [r.elbo for r in every if r.elbo is not None]
        gaps = [r.gap_to_fvi for r in every if r.gap_to_fvi is not None]
        times = [r.cost.seconds for r in every if r.cost is not None]
        cells = (
            count(sum(r.failed for r in every)),
            *_spread(elbos, 2),
            *_spread(gaps, 3),
            seconds(float(np.median(times)) if times else None),
        )
        lines.append(Line(row.method, cells, None if row.failed else number))
    columns = (
        Column("failed"),
        Column("median", "nats", "ELBO"),
        Column("smallest", "nats", "ELBO"),
        Column("largest", "nats", "ELBO"),
        Column("median", "nats", "gap"),
        Column("smallest", "nats", "gap"),
        Column("largest", "nats", "gap"),
        Column("median", "s", "train"),
    )
    caption = f"Over {several(len(seeds), 'seed')}, {seeds[0]} to {seeds[-1]}"
    return ReportTable("repeats", caption, "method", columns, tuple(lines))


def _spread(values: Sequence[float], digits: int) -> tuple[str, str, str]:
    if not values:
        return (DASH, DASH, DASH)
    return fixed(float(np.median(values)), digits), fixed(min(values), digits), fixed(max(values), digits)


# ---- On a terminal -----------------------------------------------------------------------------------------


def as_text(tables: Sequence[ReportTable]) -> str:
    """Tables one below the other, in ASCII: aligned columns under headings, and their notes."""
    names = max(len(line.name) for table in tables for line in (Line(table.head, ()), *table.lines))
    return plain("\n\n".join(_block(table, names) for table in tables))


def _block(table: ReportTable, names: int) -> str:
    """A table as text; `names` is the width of its first column."""
    titles = [f"{column.title}, {column.unit}" if column.unit else column.title for column in table.columns]
    rows = [(table.head, titles), *((line.name, line.cells) for line in table.lines)]
    widths = [2 + max(map(len, cells)) for cells in zip(*(cells for _, cells in rows), strict=True)]
    lines = [name.ljust(names) + "".join(map(str.rjust, cells, widths)) for name, cells in rows]
    above, at = " " * names, 0
    for group, span in table.groups:
        above += group.rjust(sum(widths[at : at + span]))
        at += span
    notes = [line for note in table.notes for line in textwrap.wrap(note, WIDTH)]
    return "\n".join([f"{table.caption}:", *([above] if table.groups else []), *lines, *notes])
