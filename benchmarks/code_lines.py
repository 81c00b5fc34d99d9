"""Lines of code of the plugin and the adapters, without docstrings, comments and blank lines.

    python benchmarks/code_lines.py [REV ...]

One row for each revision of this repository, and one for the files as they are now. A line counts that holds a token
of Python, or anything but white space and comments in C++; a statement over several lines counts as so many.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NATIVE = (".cpp", ".h")
LAYOUT_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class CodeLines:
    """Lines of code of a folder, by language."""

    python: int
    native: int

    @property
    def total(self) -> int:
        return self.python + self.native


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revisions", nargs="*", metavar="REV", help="a revision of this repository")
    revisions: list[str | None] = [*parser.parse_args().revisions, None]
    print(f"{'revision':<20}{'folder':<10}{'Python':>8}{'native':>8}{'total':>8}{'ratio':>8}")
    for folder in ("plugin", "adapters"):
        first: int | None = None
        for revision in revisions:
            lines = count(folder, revision)
            first = first or lines.total
            print(
                f"{revision or 'working tree':<20}{folder:<10}{lines.python:>8}{lines.native:>8}"
                f"{lines.total:>8}{lines.total / first:>8.3f}"
            )


def count(folder: str, revision: str | None) -> CodeLines:
    """Lines of code in a folder of a revision; None: of the working tree, files that git ignores left out."""
    python = native = 0
    for name, text in sources(folder, revision):
        if name.endswith(".py"):
            python += python_lines(text)
        else:
            native += native_lines(text)
    return CodeLines(python, native)


def sources(folder: str, revision: str | None) -> Iterator[tuple[str, str]]:
    if revision is None:
        listed = git("ls-files", "--cached", "--others", "--exclude-standard", folder)
    else:
        listed = git("ls-tree", "-r", "--name-only", revision, folder)
    for name in listed.splitlines():
        if not name.endswith((".py", *NATIVE)):
            continue
        if revision is not None:
            yield name, git("show", f"{revision}:{name}")
        elif (ROOT / name).exists():
            yield name, (ROOT / name).read_text()


def python_lines(text: str) -> int:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT_TOKENS:
            lines.update(range(token.start[0], token.end[0] + 1))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines)


def native_lines(text: str) -> int:
    without = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return sum(1 for line in without.splitlines() if re.sub(r"//.*", "", line).strip())


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main()
