"""The parser's tables that come with the installation are those of the grammar."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from lark.exceptions import UnexpectedInput

from stan_adapters.language import grammar

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = sorted([*ROOT.glob("tests/structure/*.stan"), *ROOT.glob("stan_models/*/*.stan")])


@pytest.fixture(scope="module")
def parsers():
    tabulated = grammar.tabulated_parser()
    assert tabulated is not None, "run `make` again: the installation's tables are of another grammar"
    return tabulated, grammar.built_parser()


def test_tables_read_programs_as_the_grammar_does(parsers):
    assert len(PROGRAMS) > 50
    for program in PROGRAMS:
        text = program.read_text(encoding="utf-8")
        one, other = (parser.parse(text, start="program") for parser in parsers)
        assert one == other, program.name


@pytest.mark.parametrize("text", ["data { int N;", "data { int N }", "parameters { real<lower=> x; }"])
def test_tables_expect_what_the_grammar_expects(parsers, text):
    expected = []
    for parser in parsers:
        with pytest.raises(UnexpectedInput) as caught:
            parser.parse(text, start="program")
        expected.append((caught.value.interactive_parser.accepts(), caught.value.pos_in_stream))
    assert expected[0] == expected[1]


@pytest.mark.parametrize("change", ["another grammar", "another library"])
def test_tables_of_something_else_are_not_used(monkeypatch, tmp_path, change):
    if change == "another grammar":
        other = tmp_path / "stan.lark"
        other.write_text(grammar._GRAMMAR.read_text(encoding="utf-8") + "\n// changed\n", encoding="utf-8")
        monkeypatch.setattr(grammar, "_GRAMMAR", other)
    else:
        monkeypatch.setattr(grammar.lark, "__version__", "0.0")
    assert grammar.tabulated_parser() is None


def test_without_tables_the_parser_is_built(monkeypatch):
    def missing(name, package=None):
        raise ImportError(name)

    monkeypatch.setattr(grammar, "import_module", missing)
    assert grammar.tabulated_parser() is None
    grammar.stan_parser.cache_clear()
    try:
        assert grammar.stan_parser().parse("model {}", start="program").data == "program"
    finally:
        grammar.stan_parser.cache_clear()


def test_written_tables_are_a_module(tmp_path):
    written = tmp_path / "parser_tables.py"
    subprocess.run([sys.executable, grammar.__file__, str(written)], check=True)
    made = runpy.run_path(str(written))
    assert made["ORIGIN"] == grammar._origin()
    assert made["TABLES"]
