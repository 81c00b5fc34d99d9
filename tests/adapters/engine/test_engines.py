"""Engines: which library a program becomes, and what a user reads when a part of one is missing."""

import builtins
import sys
from pathlib import Path

import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine.engines import load
from stan_adapters.errors import EngineError, EngineNotice, UnsupportedError
from stan_adapters.language.program import Program

NORMAL = "parameters { real z; } model { z ~ std_normal(); }"


def program(code: str = NORMAL) -> Program:
    return Program.from_code(code, name="mine")


def bind(code: str, data: dict | None = None, engine: str = "auto") -> BoundModel:
    written = program(code)
    return BoundModel(written, read_data(written, data), engine=engine)


def without_import(monkeypatch, name: str) -> None:
    plain = builtins.__import__

    def importer(module, *arguments, **options):
        if module.partition(".")[0] == name:
            raise ImportError(f"no module named {name}")
        return plain(module, *arguments, **options)

    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", importer)


# ---- names and missing parts


@pytest.mark.parametrize("engine", ["auto", "stanli"])
def test_stanli_is_the_default(engine):
    assert load(program(), engine).engine == "stanli"


def test_an_unknown_engine_is_an_error_that_lists_the_known_ones():
    with pytest.raises(
        EngineError, match=r"unknown engine 'stan': choose 'auto', 'stanli', 'bridgestan' or the path"
    ):
        load(program(), "stan")


def test_a_library_that_is_not_there_is_an_error_with_its_path(tmp_path):
    with pytest.raises(EngineError, match=r"no library at .*gone_model\.so\. .*bridgestan\.compile_model"):
        load(program(), str(tmp_path / "gone_model.so"))


def test_a_library_that_bridgestan_did_not_build_is_an_error(tmp_path):
    path = tmp_path / "other_model.so"
    path.write_text("no library")
    with pytest.raises(EngineError, match=r"other_model\.so is not a BridgeStan model library"):
        load(program(), str(path))


def test_without_stanli_the_error_says_how_to_install_it(monkeypatch):
    without_import(monkeypatch, "stanli")
    with pytest.raises(EngineError, match="pip install stanli"):
        load(program(), "stanli")


# ---- what Stan's compiler rejects, and what stanli can't run


def test_a_compile_error_shows_the_file_the_line_and_the_text(tmp_path):
    path = tmp_path / "broken.stan"
    path.write_text("parameters {\n  real z;\n}\nmodel {\n  z ~ normall(0, 1);\n}\n")
    with pytest.raises(EngineError, match=r"broken\.stan', line 5|broken\.stan, line 5") as caught:
        load(Program.from_file(path))
    assert "z ~ normall(0, 1)" in str(caught.value)
    assert "normall" in str(caught.value)


def test_a_compile_error_after_an_include_says_how_lines_count(tmp_path):
    (tmp_path / "inner.stan").write_text("real z;\nreal y;\n")
    path = tmp_path / "outer.stan"
    path.write_text("parameters {\n#include inner.stan\n}\nmodel { z ~ normall(0, 1); }\n")
    with pytest.raises(EngineError, match=r"outer\.stan(?s:.*)after #include is expanded"):
        load(Program.from_file(path))


def test_auto_goes_on_to_bridgestan_where_stanli_can_not(monkeypatch):
    monkeypatch.setattr("stan_adapters.engine.instances.bridgestan_sources", lambda: Path("/sources"))
    asked = []

    def refuse(written, engine="auto"):
        asked.append((engine, bool(written.generated_quantities)))
        raise UnsupportedError("not here.\nA hint.") if engine == "auto" else EngineError("stop")

    monkeypatch.setattr("stan_adapters.engine.instances.load", refuse)
    with (
        pytest.warns(EngineNotice, match=r"^going on with the compiled engine, bridgestan: not here\.$"),
        pytest.raises(EngineError, match=r"^stop\nIt was tried because not here\.$"),
    ):
        bind(NORMAL + " generated quantities { real w = z; }")
    assert asked == [("auto", False), ("bridgestan", True)]  # compiled once, for densities and draws
