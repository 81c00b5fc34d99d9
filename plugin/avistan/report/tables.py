"""The report's tables of a program's structure; those of the methods are `comparison.tables`."""

from __future__ import annotations

from avistan.comparison.results import Comparison
from avistan.comparison.tables import Column, Line, ReportTable
from avistan.runtime.text import count, several, small
from stan_adapters.unit_data import Slicing, SlicingRefusal


def certificate(comparison: Comparison) -> ReportTable | None:
    structure = comparison.structure
    lines = [
        Line(
            probe.probe,
            (
                "yes" if probe.holds else "no",
                small(probe.statistic),
                small(probe.tolerance),
                count(probe.evaluations),
            ),
        )
        for probe in structure.certificate
    ]
    if not lines:
        return None
    columns = (
        Column("holds", is_text=True),
        Column("statistic"),
        Column("tolerance"),
        Column("gradients"),
    )
    note = (
        "Largest relative change at random points of what should not change. Strong evidence and no proof; "
        f"{several(structure.evaluations, 'gradient')} in all."
    )
    return ReportTable("certificate", "Certificate", "probe", columns, tuple(lines), (note,))


def levels(comparison: Comparison) -> ReportTable | None:
    structure = comparison.structure
    lines = [
        Line(
            candidate.level.name,
            (
                ", ".join(candidate.level.latents),
                count(candidate.level.num_units),
                count(candidate.level.block),
                "separable" if candidate.separable else f"coupled: {candidate.described_shape}",
                "yes" if candidate is structure.chosen else "",
            ),
        )
        for candidate in structure.candidates
    ]
    if not lines:
        return None
    columns = (
        Column("latents", is_text=True),
        Column("units"),
        Column("latents a unit"),
        Column("given the rest", is_text=True),
        Column("chosen", is_text=True),
    )
    notes = []
    if structure.globals and structure.chosen is not None:
        notes.append(f"Globals: {', '.join(structure.globals)}.")
    if isinstance(structure.slicing, Slicing):
        rules = ", ".join(f"{name} {rule}" for name, rule in structure.slicing.rules.items())
        notes.append(f"Data of some units alone: verified, {rules}.")
    elif isinstance(structure.slicing, SlicingRefusal):
        notes.append(f"Data of some units alone: refused. {structure.slicing.reason}")
    return ReportTable("levels", "Levels", "level", columns, tuple(lines), tuple(notes))
