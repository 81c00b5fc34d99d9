"""docs/architecture.md names every folder in its order, and every module of every folder."""

import re
from pathlib import Path

import pytest

from test_layers import ORDER, PACKAGES

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "architecture.md").read_text()
HEADINGS = {"stan_adapters": "adapters/stan_adapters", "avistan": "plugin/avistan"}


def section(package: str) -> str:
    _, _, rest = TEXT.partition(f"\n## {HEADINGS[package]}\n")
    return rest.partition("\n## ")[0]


def names(table: str) -> list[str]:
    """The first cells of a table."""
    return [name.rstrip("/") for name in re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_of_folders_has_all_in_their_order(package):
    folders, *_ = section(package).split("\n### ")
    assert names(folders) == [name for name in ORDER[package] if not name.startswith("__")]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_a_line_in_the_table_of_its_folder(package):
    told = {part.partition("\n")[0]: names(part) for part in section(package).split("\n### ")[1:]}
    there = {
        folder.name: {
            path.stem
            for path in folder.iterdir()
            if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem != "__init__"
        }
        for folder in PACKAGES[package].iterdir()
        if (folder / "__init__.py").exists()
    }
    assert {folder: sorted(modules) for folder, modules in told.items()} == {
        folder: sorted(modules) for folder, modules in there.items()
    }
