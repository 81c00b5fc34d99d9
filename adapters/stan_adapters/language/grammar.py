"""The parser of Stan programs, from `stan.lark`.

Building its tables takes a fifth of a second, more where a collector has much to walk over. The installation does it
once, by running this file as a program:

    python grammar.py parser_tables.py

What that wrote is used as long as it fits the grammar and the parser's library; otherwise tables are built here.
"""

from __future__ import annotations

import functools
import hashlib
import io
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import lark

_GRAMMAR = Path(__file__).with_name("stan.lark")
_OPTIONS: dict[str, Any] = {
    "parser": "lalr",
    "lexer": "contextual",
    "start": ["program", "expression", "pieces", "statements"],
    "propagate_positions": True,
    "maybe_placeholders": True,
}
_WRITTEN = '''"""Tables of the parser of Stan programs: written when the package is installed."""

ORIGIN = {origin!r}
TABLES = {tables!r}
'''


@functools.cache
def stan_parser() -> lark.Lark:
    """The parser, made once per process."""
    return tabulated_parser() or built_parser()


def built_parser() -> lark.Lark:
    """The parser, its tables built from the grammar."""
    return lark.Lark(_GRAMMAR.read_text(encoding="utf-8"), **_OPTIONS)


def tabulated_parser() -> lark.Lark | None:
    """The parser from the tables that came with the installation; None without them, or where they are of others."""
    try:
        written = import_module(".parser_tables", __package__)
    except ImportError:
        return None
    if _origin() != written.ORIGIN:
        return None
    return lark.Lark.load(io.BytesIO(written.TABLES))


def _origin() -> str:
    """What tables depend on: the grammar, how it is read, the library and the Python that runs it."""
    ours = hashlib.sha256(_GRAMMAR.read_bytes() + repr(_OPTIONS).encode()).hexdigest()
    return f"{ours} {lark.__version__} {sys.version_info.major}.{sys.version_info.minor}"


def write_tables(file: Path) -> None:
    """Write the module of tables."""
    tables = io.BytesIO()
    built_parser().save(tables)
    file.write_text(_WRITTEN.format(origin=_origin(), tables=tables.getvalue()), encoding="utf-8")


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
