"""The bundled examples: where they are, their files and what they are."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SENTENCE_END = re.compile(r"(?<=[.:])\s")


def models_root() -> Path:
    """The folder of the bundled examples, one subfolder each: in a checkout, or in an installed package.

    Raises:
        FileNotFoundError: the installation is incomplete.

    Example:
        >>> (avi.models_root() / "eight_schools" / "data.json").is_file()
        True
    """
    here = Path(__file__).resolve().parents[1]
    checkout = here.parents[1]
    for folder in (checkout / "stan_models", here / "_models"):
        if folder.is_dir() and (folder.name == "_models" or (checkout / "pyproject.toml").is_file()):
            return folder
    raise FileNotFoundError(f"the example models are not next to {here}: reinstall avistan.")


@dataclass(frozen=True, slots=True)
class Example:
    """One folder of the bundled models; its own program and data come first among the files."""

    name: str
    about: str
    files: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "about": self.about, "files": [str(file) for file in self.files]}


def examples(root: Path) -> list[Example]:
    """All examples below the folder `root`."""
    folders = sorted(folder for folder in root.iterdir() if (folder / f"{folder.name}.stan").is_file())
    return [Example(folder.name, _first_sentence(folder / "README.md"), _files(folder)) for folder in folders]


def as_table(chosen: Sequence[Example]) -> str:
    """Names and what they are, in lines that fit the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table("example", "program", "what it is", box=None, pad_edge=False, header_style="bold")
    for example in chosen:
        table.add_row(example.name, example.files[0].name, example.about)
    printed = io.StringIO()
    Console(file=printed, width=shutil.get_terminal_size((120, 24)).columns).print(table)
    lines = (line.rstrip() for line in printed.getvalue().splitlines())
    return "\n".join([*lines, "", "`avistan models NAME` prints where the files of an example are."])


def _files(folder: Path) -> tuple[Path, ...]:
    first = [folder / f"{folder.name}.stan", folder / "data.json"]
    rest = sorted(file for file in folder.iterdir() if file.is_file() and file not in first)
    return (*(file for file in first if file.is_file()), *rest)


def _first_sentence(readme: Path) -> str:
    paragraphs = readme.read_text(encoding="utf-8").split("\n\n") if readme.is_file() else []
    text = next((" ".join(part.split()) for part in paragraphs if not part.startswith("#")), "")
    return _SENTENCE_END.split(text)[0].rstrip(":")
