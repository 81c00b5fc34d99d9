"""Notebooks run from top to bottom, at a small size, and are stored without output."""

import ast
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

SHORTER = {
    r"^steps = \d+": "steps = 200",
    'reference="nuts"': 'reference="nuts", reference_options={"warmup": 100, "draws": 100, "chains": 2}',
}


def code_cells(notebook: Path) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_it_imports_and_asks_of_modules_is_there(notebook):
    namespace: dict[str, object] = {}
    for cell in code_cells(notebook):
        tree = ast.parse("".join(cell["source"]))
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), notebook.name, "exec"), namespace)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = namespace.get(node.value.id)
                assert not isinstance(owner, ModuleType) or hasattr(owner, node.attr), ast.unparse(node)


@pytest.mark.parametrize(
    "notebook",
    [pytest.param(path, marks=[pytest.mark.slow] if number else []) for number, path in enumerate(NOTEBOOKS)],
    ids=lambda path: path.stem,
)
def test_every_cell_runs_in_order(notebook, capsys):
    namespace: dict[str, object] = {}
    for cell in code_cells(notebook):
        source = "".join(cell["source"])
        for long, short in SHORTER.items():
            source = re.sub(long, short, source, flags=re.MULTILINE)
        exec(compile(source, f"{notebook.name}:{cell['id']}", "exec"), namespace)
    assert namespace["steps"] == 200
    assert "closable" in capsys.readouterr().out


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_output(notebook):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells(notebook))


def test_there_are_notebooks():
    assert NOTEBOOKS
