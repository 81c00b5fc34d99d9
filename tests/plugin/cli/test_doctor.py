"""`avistan doctor`, with what it looks for there or missing."""

import json

import pytest
from typer.testing import CliRunner

from avistan.cli import doctor as module
from avistan.cli.app import app
from avistan.cli.doctor import examine
from avistan.density import handler


def found():
    return {finding.name: finding for finding in examine()}


def test_it_says_what_is_there():
    said = CliRunner().invoke(app, ["doctor"])
    assert said.exit_code == 0
    assert "Programs can be fitted here." in said.stdout
    told = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert told["well"] is True
    names = {finding["name"] for finding in told["findings"]}
    assert names == {
        "versions",
        "stanli",
        "handler",
        "threads",
        "memory",
        "cache",
        "bridgestan",
        "cmdstan",
        "tables",
    }


@pytest.mark.parametrize(
    ("variable", "value", "name", "words"),
    [
        ("AVISTAN_NO_NATIVE", "1", "handler", "slower. Unset it"),
        ("AVISTAN_NO_CACHE", "1", "cache", "switched off by AVISTAN_NO_CACHE"),
        ("AVISTAN_CACHE_DIR", "/proc/none", "cache", "can't be written"),
        ("BRIDGESTAN", "/nowhere", "bridgestan", "set BRIDGESTAN to their folder"),
        ("CXX", "no-such-compiler", "bridgestan", "the compiler no-such-compiler"),
        ("MAKE", "no-such-make", "bridgestan", "apt install make"),
        ("CMDSTAN", "/nowhere", "cmdstan", "install_cmdstan"),
    ],
)
def test_what_is_missing_is_said_with_the_way_to_it(monkeypatch, variable, value, name, words):
    monkeypatch.setenv(variable, value)
    finding = found()[name]
    assert not finding.present
    assert not finding.needed
    assert words in finding.found


def test_where_nothing_can_be_fitted_the_answer_is_no(monkeypatch):
    monkeypatch.setenv("AVISTAN_NUM_THREADS", "many")
    said = CliRunner().invoke(app, ["doctor"])
    assert said.exit_code == 3
    assert "MISSING  threads" in said.stdout
    assert "give a positive number of threads" in said.stdout


def test_a_broken_library_is_a_finding_and_no_error(monkeypatch):
    monkeypatch.setattr(module, "_tables", lambda: 1 / 0)
    assert "ZeroDivisionError" in found()["tables"].found


def test_a_handler_that_was_not_built_is_said(monkeypatch):
    monkeypatch.setattr(handler, "library", lambda: None)
    assert "Install a C++17 compiler" in found()["handler"].found


def test_parquet_needs_its_extra(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert "avistan[tables]" in found()["tables"].found
