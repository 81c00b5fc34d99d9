"""Run what README.md says and put what it prints in place of what stands there: the Python block and `make demo`.

    python docs/readme.py [--check]

With `--check` nothing is written, and the exit status is 1 where a line differs other than in seconds.
"""

from __future__ import annotations

import argparse
import difflib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = re.compile(r"\d+\.\d+(?= s\b)|(?<=\s)\d+\.\d\d(?=\s|$)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check: bool = parser.parse_args().check
    before = README.read_text()
    after = with_outputs(before)
    if not check:
        README.write_text(after)
        return
    old, new = (SECONDS.sub("#", text).splitlines() for text in (before, after))
    lines = list(difflib.unified_diff(old, new, "README.md", "what it prints", lineterm=""))
    sys.stdout.write("\n".join(lines) + "\n" * bool(lines))
    sys.exit(bool(lines))


def with_outputs(text: str) -> str:
    """README with the outputs of its Python block and of the demonstration's second and third step."""
    (code, *_), (_, first, table, persons, *_) = (
        [block for block in FENCED.finditer(text) if block[1] == "python"],
        list(FENCED.finditer(text)),
    )
    shown = said("-c", code[2])
    demo = re.split(r"\n(?:\d\. .*|Written to .*)\n(?:   .*\n)*\n", said("-m", "avistan.cli.demo"))
    new = {first: shown, table: demo[2], persons: demo[3]}
    for block, output in sorted(new.items(), key=lambda pair: -pair[0].start()):
        text = f"{text[: block.start(2)]}{output.strip()}\n{text[block.end(2) :]}"
    return text


def said(*arguments: str) -> str:
    """What a Python process prints on standard output, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=folder, check=True, text=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main()
