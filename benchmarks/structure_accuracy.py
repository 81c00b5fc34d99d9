"""How often does inspection agree with a reader? Runs it over a labelled collection of Stan programs.

    python benchmarks/structure_accuracy.py --labels labels.json --programs DIR [--only WORD] [--seed 1] [--json FILE]
                                            [--unit-data]

DIR holds checkouts of stan-dev/posteriordb and stan-dev/example-models in subfolders of those names, or is one of
them. A label is an object with `id` ("repository:..."), `model` and `data` (paths in that repository), `class`,
`alt_classes` and `levels`; labels without a data file are skipped and counted. A verdict is right when it is the
label's or one of its alternatives; the chosen latents are right when they are those of an independent level (or of
its part that is independent alone).

With --unit-data only the labels with an independent level are run, and of the level that is found two things more are
counted: whether the data of some of its units can be written (slicing, verified), and which of the entries that the
label says belong to a unit, its index and its lengths included, `inspect` does not name.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import DataWarning, read_data
from stan_adapters.errors import AvistanError
from stan_adapters.language.program import Program
from stan_adapters.structure.structure import Structure, inspect_structure, with_unit_data
from stan_adapters.unit_data import Slicing

VERDICTS = {
    "simple": "closable",
    "expanded": "closable",
    "coupled": "not-closable",
    "none": "nothing-to-amortize",
}
FAILED = "error"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One label against what inspection said."""

    id: str
    expected: tuple[str, ...]
    expected_latents: tuple[tuple[str, ...], ...]
    verdict: str
    latents: tuple[str, ...] = ()
    units: int = 0
    candidates: tuple[str, ...] = ()
    reason: str = ""
    evaluations: int = 0
    budget: float = 0.0
    seconds_bind: float = 0.0
    seconds_inspect: float = 0.0
    statistics: dict[str, float] = field(default_factory=dict)
    sliced: bool = False
    not_sliced: str = ""  # why
    inputs_missing: tuple[str, ...] = ()
    bindings: int = 0

    @property
    def verdict_right(self) -> bool:
        return self.verdict in self.expected

    @property
    def latents_right(self) -> bool:
        return self.verdict != "closable" or self.latents in self.expected_latents

    @property
    def right(self) -> bool:
        return self.verdict_right and self.latents_right

    @property
    def false_closable(self) -> bool:
        """Called closable where no reader would: the error that must not happen."""
        return self.verdict == "closable" and not self.verdict_right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--only", default="", help="only the labels whose id contains this word")
    parser.add_argument("--seed", type=int, default=1, help="of the probe points")
    parser.add_argument("--json", type=Path, help="also write every row there")
    parser.add_argument(
        "--unit-data", action="store_true", help="slicing and data inputs of closable programs"
    )
    arguments = parser.parse_args()
    labels = [label for label in json.loads(arguments.labels.read_text()) if arguments.only in label["id"]]
    if arguments.unit_data:
        labels = [label for label in labels if any(independent_latents(label))]
    rows, skipped = [], []
    for label in labels:
        files = find_files(arguments.programs, label)
        if files is None:
            skipped.append(label["id"])
            continue
        row = judge(label, *files, seed=arguments.seed, unit_data=arguments.unit_data)
        rows.append(row)
        told = f"{'sliced' if row.sliced else 'whole':<8}" if arguments.unit_data else ""
        mark = "ok   " if row.right else "WRONG"
        print(f"{mark} {told}{row.verdict:<20}{row.evaluations:>5} {row.id}", flush=True)
    print()
    if arguments.unit_data:
        print("\n".join(unit_data_summary(rows)))
    print("\n".join(summary(rows, skipped)))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def find_files(programs: Path, label: dict[str, Any]) -> tuple[Path, Path] | None:
    """The program and its data; None where either is missing."""
    repository = label["id"].partition(":")[0]
    folder = programs / repository if (programs / repository).is_dir() else programs
    if label["data"] is None:
        return None
    model, data = folder / label["model"], folder / label["data"]
    return (model, data) if model.is_file() and data.is_file() else None


def judge(label: dict[str, Any], model: Path, data: Path, *, seed: int = 1, unit_data: bool = False) -> Row:
    expected = tuple(VERDICTS[name] for name in (label["class"], *label["alt_classes"]))
    facts: dict[str, Any] = {
        "id": label["id"],
        "expected": expected,
        "expected_latents": tuple(independent_latents(label)),
    }
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            program = Program.from_file(model)
            bound = BoundModel(program, read_data(program, read_values(data)))
        with bound:
            bind = time.perf_counter() - start
            structure = inspect_structure(bound, seed=seed)
            if unit_data:
                structure = with_unit_data(bound, structure, seed=seed)
                facts |= read_unit_data(label, structure)
    except AvistanError as error:
        return Row(**facts, verdict=FAILED, reason=f"{type(error).__name__}: {error}")
    return Row(
        **facts,
        **read_structure(structure),
        seconds_bind=bind,
        seconds_inspect=time.perf_counter() - start - bind,
    )


def read_structure(structure: Structure) -> dict[str, Any]:
    level = structure.level
    closable = structure.verdict == "closable" and level is not None
    largest = max((c.level.num_units for c in structure.candidates), default=1)
    return {
        "verdict": str(structure.verdict),
        "latents": tuple(sorted(level.latents)) if closable else (),
        "units": level.num_units if closable else 0,
        "candidates": tuple(
            f"{c.level.name}[{c.level.num_units}] {','.join(c.level.latents)}{' separable' if c.separable else ''}"
            for c in structure.candidates
        ),
        "reason": structure.reason,
        "evaluations": structure.evaluations,
        "budget": 4 * float(np.log2(max(largest, 2))) + 60,
        "statistics": {probe.probe: probe.statistic for probe in structure.certificate},
    }


def read_unit_data(label: dict[str, Any], structure: Structure) -> dict[str, Any]:
    if structure.slicing is None or structure.level is None:
        return {"not_sliced": structure.reason}
    levels = [one for one in label["levels"] if set(structure.level.latents) <= set(one["latents"])]
    wanted: list[str] = []
    for level in levels[:1]:
        index = level["index"] or []
        wanted += [*level["unit_data"], *([index] if isinstance(index, str) else index)]
    named = () if structure.feeds is None else structure.feeds.names
    return {
        "sliced": isinstance(structure.slicing, Slicing),
        "not_sliced": "" if isinstance(structure.slicing, Slicing) else structure.slicing.reason,
        "inputs_missing": tuple(name for name in wanted if name not in named),
        "bindings": structure.bindings,
    }


def unit_data_summary(rows: list[Row]) -> list[str]:
    whole, missing = [row for row in rows if not row.sliced], [row for row in rows if row.inputs_missing]
    return [
        f"slicing verified {len(rows) - len(whole)} of {len(rows)}; inputs that miss an entry {len(missing)}; "
        f"bindings at most {max((row.bindings for row in rows), default=0)}",
        *(f"  not sliced {row.id}: {row.not_sliced[:300]}" for row in whole),
        *(f"  not named  {row.id}: {', '.join(row.inputs_missing)}" for row in missing),
        "",
    ]


def independent_latents(label: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for level in label["levels"]:
        if level["conditionally_independent"]:
            yield tuple(sorted(level["latents"]))
        if level.get("independent_alone"):
            yield tuple(sorted(level["independent_alone"]))


def summary(rows: list[Row], skipped: list[str]) -> list[str]:
    lines = [f"{len(rows)} programs, {len(skipped)} labels skipped for want of data", ""]
    names = [*dict.fromkeys(VERDICTS.values()), FAILED]
    table = Counter((row.expected[0], row.verdict) for row in rows)
    lines.append(f"{'expected, first choice':<24}" + "".join(f"{name:>22}" for name in names))
    for expected in names[:-1]:
        lines.append(f"{expected:<24}" + "".join(f"{table[expected, name]:>22}" for name in names))
    wrong = [row for row in rows if not row.right]
    count = max(1, len(rows))
    verdicts = sum(row.verdict_right for row in rows)
    lines += [
        "",
        f"verdict right             {verdicts} of {len(rows)} ({100 * verdicts / count:.1f} %)",
        f"verdict and latents right {len(rows) - len(wrong)} of {len(rows)} ({100 - 100 * len(wrong) / count:.1f} %)",
        f"closable by mistake       {sum(row.false_closable for row in rows)}",
        f"over the gradient budget  {sum(row.evaluations > row.budget for row in rows)} (4 log2 N + 60)",
    ]
    for name, values in (
        ("gradient evaluations", [row.evaluations for row in rows]),
        ("seconds to bind", [row.seconds_bind for row in rows]),
        ("seconds to inspect", [row.seconds_inspect for row in rows]),
    ):
        if values:
            middle, tail = np.median(values), np.quantile(values, 0.9)
            lines.append(f"{name:<26}median {middle:.3g}, 90 % below {tail:.3g}, most {max(values):.3g}")
    for row in wrong:
        lines += [
            "",
            f"{row.id}: {row.verdict}, expected {' or '.join(row.expected)}",
            f"  latents     {row.latents or '-'}, expected one of {row.expected_latents or '-'}",
            f"  candidates  {'; '.join(row.candidates) or '-'}",
            f"  reason      {row.reason[:400]}",
        ]
    return lines


# ---- Data files --------------------------------------------------------------------------------------------


def read_values(file: Path) -> dict[str, Any]:
    """The entries of a JSON file, a zipped one, or an R dump."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            return dict(json.loads(archive.read(archive.namelist()[0])))
    if file.suffix == ".R":
        return read_r_dump(file.read_text())
    return dict(json.loads(file.read_text()))


_ASSIGNMENT = re.compile(r"^\s*[\"'`]?([A-Za-z.][\w.]*)[\"'`]?\s*(?:<-|=)\s*", re.MULTILINE)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)L?")


def read_r_dump(text: str) -> dict[str, Any]:
    """Numbers, vectors and arrays of R's `dump`: `c(...)`, `a:b`, `structure(c(...), .Dim = c(...))`."""
    text = re.sub(r"#.*", "", text)
    starts = list(_ASSIGNMENT.finditer(text))
    starts = [m for m in starts if text.count("(", 0, m.start()) == text.count(")", 0, m.start())]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    return {m[1]: _r_value(text[m.end() : end]) for m, end in zip(starts, ends, strict=True)}


def _r_value(text: str) -> Any:
    body, _, dims = text.partition(".Dim")
    values = _r_numbers(body)
    if dims:
        return np.array(values).reshape([int(n) for n in _r_numbers(dims)], order="F").tolist()
    is_scalar = "(" not in body and ":" not in body
    return values[0] if is_scalar and values else values


def _r_numbers(text: str) -> list[float]:
    values: list[float] = []
    if "integer(0)" in text or "numeric(0)" in text or "double(0)" in text:
        return values
    for part in re.split(r"[,()]", text):
        numbers = _NUMBER.findall(part)
        if ":" in part and len(numbers) == 2:
            first, last = (int(number.rstrip("L")) for number in numbers)
            values += list(range(first, last + 1)) if last >= first else list(range(first, last - 1, -1))
        elif numbers and re.fullmatch(r"\s*" + _NUMBER.pattern + r"\s*;?\s*", part):
            number = numbers[0].rstrip("L")
            values.append(int(number) if re.fullmatch(r"[-+]?\d+", number) else float(number))
    return values


if __name__ == "__main__":
    main()
