"""Engines: which library a program becomes, and what a user reads when a part of one is missing."""

import builtins
import sys
from pathlib import Path

import bridgestan
import numpy as np
import pytest

from stan_adapters import engines
from stan_adapters.binding import BoundModel
from stan_adapters.data import read_data
from stan_adapters.engines import load
from stan_adapters.errors import EngineError, UnsupportedError
from stan_adapters.program import Program

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


# ---- what stanli refuses


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


UNSUPPORTED = {
    "a function that stanli lacks": (
        "data { int N; } parameters { real z; } model { target += determinant(diag_matrix(rep_vector(exp(z), N))); }",
        {"N": 2},
        "unsupported function determinant",
    ),
    "no rows of an integer outcome": (
        "data { int N; array[N] int y; } parameters { real z; } model { for (n in 1:N) y[n] ~ poisson_log(z); }",
        {"N": 0, "y": []},
        r"guard the statement with `if \(N > 0\)`",
    ),
    "rows assigned to an integer array": (
        "data { int N; array[N, 2] int y; }"
        "transformed data { array[N, 2] int w; for (n in 1:N) w[n] = y[n]; }"
        "parameters { vector[2] z; } model { for (n in 1:N) z[w[n, 1]] ~ normal(0, 1); }",
        {"N": 2, "y": [[1, 2], [2, 1]]},
        "no value of the data",
    ),
}


@pytest.mark.parametrize(("code", "data", "words"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_what_stanli_does_not_know_names_the_compiled_engine(code, data, words, monkeypatch):
    monkeypatch.setattr("stan_adapters.instances.bridgestan_sources", lambda: None)
    with pytest.raises(UnsupportedError, match=words) as caught:
        bind(code, data)
    assert 'engine="bridgestan"' in str(caught.value)
    assert "mine" in str(caught.value)


def test_data_that_break_a_bound_are_no_reason_to_change_the_engine():
    code = """
    data { int N; } transformed data { if (N > 2) reject("N is too large: ", N); }
    parameters { real z; } model { z ~ std_normal(); }"""
    with pytest.raises(EngineError, match="N is too large: 3") as caught:
        bind(code, {"N": 3})
    assert not isinstance(caught.value, UnsupportedError)


def test_an_index_outside_what_it_indexes_is_no_reason_to_change_the_engine():
    code = """
    data { int N; array[N] int g; vector[N] y; }
    parameters { vector[3] z; } model { z ~ std_normal(); y ~ normal(z[g], 1); }"""
    with pytest.raises(EngineError, match="Stan counts from 1") as caught:
        bind(code, {"N": 2, "g": [0, 1], "y": [0.0, 1.0]})
    assert not isinstance(caught.value, UnsupportedError)


def test_auto_goes_on_to_bridgestan_where_stanli_can_not(monkeypatch):
    monkeypatch.setattr("stan_adapters.instances.bridgestan_sources", lambda: Path("/sources"))
    asked = []

    def refuse(written, engine="auto"):
        asked.append(engine)
        raise UnsupportedError("not here") if engine == "auto" else EngineError("stop")

    monkeypatch.setattr("stan_adapters.instances.load", refuse)
    with pytest.raises(EngineError, match="stop"):
        bind(NORMAL)
    assert asked == ["auto", "bridgestan"]


# ---- compiled BridgeStan, without compiling


@pytest.fixture
def sources(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "bridgestan"
    (folder / "make").mkdir(parents=True)
    (folder / "Makefile").write_text("all:\n")
    monkeypatch.setenv("BRIDGESTAN", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_without_sources_the_error_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("BRIDGESTAN", str(tmp_path))
    monkeypatch.setattr("bridgestan.download.CURRENT_BRIDGESTAN", tmp_path / "none")
    assert engines.bridgestan_sources() is None
    with pytest.raises(EngineError, match=r"set BRIDGESTAN to their folder.*get_bridgestan_path\(\)"):
        load(program(), "bridgestan")


def test_without_a_compiler_the_error_names_it(sources, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EngineError, match="'no-such-compiler' is not on the PATH"):
        load(program(), "bridgestan")


def test_the_build_key_names_what_can_change_the_library(sources, tmp_path):
    other = tmp_path / "other-compiler"
    other.write_text("#!/bin/sh\necho another compiler 1.0\n")
    other.chmod(0o755)

    def key(
        code: str = NORMAL, flags: tuple[str, ...] = ("STAN_THREADS=true",), compiler: str = "c++"
    ) -> str:
        return engines._build_key(program(code), flags, sources, compiler)

    first = key()
    assert key() == first
    changed = [key(NORMAL + " "), key(flags=("STAN_THREADS=true", "O=0")), key(compiler=str(other))]
    (sources / "make" / "local").write_text("CXXFLAGS += -march=native\n")
    assert len({first, *changed, key()}) == 5


def test_the_marker_is_written_after_the_build_and_a_broken_build_is_done_again(sources, monkeypatch):
    built = []

    def compile_model(stan_file, *, make_args):
        folder = Path(stan_file).parent
        built.append(make_args)
        assert not (folder / "complete").exists()
        assert Path(stan_file).read_text() == NORMAL
        if len(built) == 1:
            raise RuntimeError("killed")
        (folder / "program_model.so").write_text("")

    monkeypatch.setattr(bridgestan, "compile_model", compile_model)
    monkeypatch.setattr(engines, "_abi", lambda path: path)
    with pytest.raises(EngineError, match="BridgeStan could not compile mine:\nkilled"):
        load(program(), "bridgestan")
    first, second = load(program(), "bridgestan"), load(program(), "bridgestan")
    assert first.abi == second.abi
    assert first.abi.with_name("complete").read_text() == "mine"
    assert built == [["STAN_THREADS=true"]] * 2


# ---- compiled BridgeStan, for real


@pytest.fixture
def compiled(bridgestan_home, tmp_path, monkeypatch) -> BoundModel:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = """
    data { int N; vector[N] x; }
    parameters { real theta; vector<lower=0>[N] z; }
    model { z ~ normal(theta, 1); x ~ normal(z, 1); }
    generated quantities { real noise = normal_rng(0, 1); }"""
    return bind(code, {"N": 3, "x": [1, 2, 3]}, engine="bridgestan")


def test_a_compiled_program_agrees_with_stanli_and_serves_as_a_prebuilt_one(compiled):
    other = BoundModel(compiled.program, compiled.data, engine="stanli")
    prebuilt = BoundModel(compiled.program, compiled.data, engine=str(compiled._density.abi.path))
    theta = np.random.default_rng(0).normal(size=(5, 4))
    (lp, gradient), (same, same_gradient) = (
        compiled.log_density_gradient(theta),
        prebuilt.log_density_gradient(theta),
    )
    np.testing.assert_array_equal(lp, same)
    np.testing.assert_array_equal(gradient, same_gradient)
    expected, expected_gradient = other.log_density_gradient(theta)
    np.testing.assert_allclose(np.diff(lp), np.diff(expected), rtol=1e-10)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10)
    assert compiled.engine == "bridgestan"
    assert prebuilt.engine == "program_model.so"
    assert compiled.constrain(theta)[0]["noise"].shape == (5,)
