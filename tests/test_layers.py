"""The house stays in order: who may import whom, and how large a room is, read from the sources.

Imports inside functions and under TYPE_CHECKING count.
"""

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"stan_adapters": ROOT / "adapters" / "stan_adapters", "avistan": ROOT / "plugin" / "avistan"}
TESTS = {"stan_adapters": "adapters", "avistan": "plugin"}
FORBIDDEN = {
    "stan_adapters": {"jax", "jaxlib", "equinox", "optax", "jaxtyping", "avistan"},
    "avistan": {"lark"},
}


# Folders and root modules in their order: each imports only what stands above it, or its own folder.
ORDER = {
    "stan_adapters": [
        "errors",
        "files",
        "language",
        "data",
        "rewriting",
        "engine",
        "bound",
        "derived",
        "samplers",
        "levels",
        "unit_data",
        "new_units",
        "structure",
        "units",
        "shards",
        "sources",
    ],
    "avistan": [
        "runtime",
        "files",
        "pictures",
        "foreign",
        "density",
        "family",
        "objective",
        "start",
        "training",
        "fitting",
        "correction",
        "posterior",
        "export",
        "drawn_fit",
        "questions",
        "diagnosis",
        "saved",
        "fit",
        "comparison",
        "model",
        "calibration",
        "report",
        "cli",
        "__main__",
    ],
}
MOST_LINES, MOST_MODULES = 450, 15
ROOT_MODULES = {"stan_adapters": {"errors", "sources"}, "avistan": {"drawn_fit", "fit", "model", "__main__"}}


def module_name(package: str, path: Path) -> str:
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


@functools.cache
def modules(package: str) -> dict[str, Path]:
    return {module_name(package, path): path for path in sorted(PACKAGES[package].rglob("*.py"))}


@functools.cache
def imported_names(name: str, path: Path) -> frozenset[str]:
    return frozenset(_imported_names(name, path))


def _imported_names(name: str, path: Path) -> Iterator[str]:
    """Absolute dotted names that a module imports: `from a import b` gives a and a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def import_graph(package: str) -> dict[str, set[str]]:
    known = modules(package)
    graph = {}
    for name, path in known.items():
        targets = imported_names(name, path) & set(known)
        graph[name] = targets - {name}
        if path.name != "__init__.py":  # `from . import sibling` runs the package first, and waits for nobody
            graph[name] -= {package}
    return graph


def floor(package: str, name: str) -> int:
    """The place of a module's folder in the order; the package itself, which only offers names, comes last."""
    own = name.split(".")[1:2]
    return ORDER[package].index(own[0]) if own else len(ORDER[package])


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for target in sorted(graph[node]):
            if cycle := visit(target, [*path, node]):
                return cycle
        done.add(node)
        return None

    return next((cycle for node in sorted(graph) if (cycle := visit(node, []))), None)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_does_not_import_what_belongs_to_the_other(package):
    offences = [
        f"{name} imports {imported}"
        for name, path in modules(package).items()
        for imported in imported_names(name, path)
        if imported.split(".")[0] in FORBIDDEN[package]
    ]
    assert not offences


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_of_a_package_do_not_import_in_circles(package):
    assert find_cycle(import_graph(package)) is None


@pytest.mark.parametrize("package", PACKAGES)
def test_the_order_names_every_folder_and_every_module_at_the_root(package):
    there = {name.split(".")[1] for name in modules(package) if name != package}
    assert there == set(ORDER[package])
    assert {
        name.split(".")[1]
        for name in modules(package)
        if name.count(".") == 1 and not is_folder(package, name)
    } == (ROOT_MODULES[package])


def is_folder(package: str, name: str) -> bool:
    return modules(package)[name].name == "__init__.py"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_imports_only_folders_above_it_under_type_checking_too(package):
    known = modules(package)
    back = [
        f"{name} imports {imported}"
        for name, path in known.items()
        if name != package
        for imported in imported_names(name, path) & set(known) - {package}
        if floor(package, imported) > floor(package, name)
    ]
    assert not back


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_longer_than_a_reader_keeps_in_mind(package):
    lines = {name: len(path.read_text().splitlines()) for name, path in modules(package).items()}
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_holds_more_modules_than_a_reader_keeps_in_mind(package):
    folders = Counter(name.rpartition(".")[0] for name in modules(package) if not is_folder(package, name))
    assert not {name: count for name, count in folders.items() if count > MOST_MODULES}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tests_of_a_module_have_its_name_and_lie_in_its_folder(package):
    tests = ROOT / "tests" / TESTS[package]
    ours = {
        path.relative_to(tests).with_name(path.name.removeprefix("test_"))
        for path in tests.rglob("test_*.py")
    }
    theirs = {path.relative_to(PACKAGES[package]) for path in modules(package).values()}
    assert sorted(map(str, ours - theirs)) == []


def test_the_cycle_finder_finds_a_cycle():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_imports_are_read_inside_functions_and_relative_ones_resolved(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("from . import x\nfrom ..up import y\ndef f():\n    import jax.numpy as jnp\n")
    names = set(imported_names("package.inner.module", path))
    assert {"package.inner.x", "package.up.y", "jax.numpy"} <= names


# ---- docs/architecture.md: two tables for each package

HEADINGS = {"stan_adapters": "adapters/stan_adapters", "avistan": "plugin/avistan"}


def architecture(package: str) -> list[str]:
    """The parts of a package's section: the table of folders, then one for each folder."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.partition(f"\n## {HEADINGS[package]}\n")[2].partition("\n## ")[0]
    return section.split("\n### ")


def told(table: str) -> list[str]:
    """The first cells of a table."""
    return [name.rstrip("/") for name in re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_architecture_has_all_folders_in_their_order(package):
    assert told(architecture(package)[0]) == [name for name in ORDER[package] if name != "__main__"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_architecture_has_a_line_for_every_module(package):
    there: dict[str, set[str]] = {}
    for name in modules(package):
        parts = name.split(".")[1:]
        if len(parts) == 2 and parts[1] != "parser_tables":  # made by the installation
            there.setdefault(parts[0], set()).add(parts[1])
    documented = {part.partition("\n")[0]: set(told(part)) for part in architecture(package)[1:]}
    assert documented == there
