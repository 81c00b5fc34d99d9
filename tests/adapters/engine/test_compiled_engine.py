"""Compiled BridgeStan: what a build needs, what names it, what is kept, and what the user hears of it."""

import fcntl
import os
import threading
import warnings
from pathlib import Path

import bridgestan
import numpy as np
import pytest

from fake_engine import Toy
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine import compiled_engine
from stan_adapters.engine.compiled_engine import (
    FLAGS,
    _users_file,
    bridgestan_sources,
    build_key,
    compiled_library,
)
from stan_adapters.engine.engines import load
from stan_adapters.errors import EngineError, EngineNotice
from stan_adapters.files import cache_folder
from stan_adapters.language.program import Program

NORMAL = "parameters { real z; } model { z ~ std_normal(); }"
TOY = Toy(
    density="""
std::string toy_density(const Data&, const double* q, bool, double* lp, double* gradient) {
  if (q[0] > 9) return "Exception: z is too large (in 'WHERE', line 1, column 31 to column 49)";
  *lp = -q[0] * q[0] / 2;
  gradient[0] = -q[0];
  return "";
}
""",
    names=("z",),
)


def program(code: str = NORMAL) -> Program:
    return Program.from_code(code, name="mine")


@pytest.fixture
def sources(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "bridgestan"
    (folder / "make").mkdir(parents=True)
    (folder / "src").mkdir()
    (folder / "Makefile").write_text("all:\n")
    (folder / "src" / "version.hpp").write_text("#define BRIDGESTAN_MINOR 9\n")
    monkeypatch.setenv("BRIDGESTAN", str(folder))
    monkeypatch.setenv("AVISTAN_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def compiles(sources, monkeypatch) -> list[Path]:
    """BridgeStan's compiler replaced by one that writes a file; the programs that it was given."""
    compiled: list[Path] = []

    def compile_model(stan_file, *, make_args):
        assert make_args == list(FLAGS)
        assert not stan_file.with_name("complete").exists()
        compiled.append(stan_file)
        stan_file.with_name("program_model.so").write_text("a library")

    monkeypatch.setattr(bridgestan, "compile_model", compile_model)
    return compiled


# ---- What is needed


def test_without_sources_the_error_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("BRIDGESTAN", str(tmp_path))
    assert bridgestan_sources() is None
    with pytest.raises(EngineError, match=r"set BRIDGESTAN to their folder.*where no Makefile is") as caught:
        load(program(), "bridgestan")
    assert "get_bridgestan_path()" in str(caught.value)


def test_a_wrong_folder_is_not_replaced_by_another_that_bridgestan_would_not_use(monkeypatch, tmp_path):
    (tmp_path / "Makefile").write_text("all:\n")
    monkeypatch.setattr("bridgestan.download.CURRENT_BRIDGESTAN", tmp_path)
    monkeypatch.delenv("BRIDGESTAN", raising=False)
    assert bridgestan_sources() == tmp_path
    monkeypatch.setenv("BRIDGESTAN", str(tmp_path / "none"))
    assert bridgestan_sources() is None


@pytest.mark.parametrize(("variable", "what"), [("CXX", "a C\\+\\+ compiler"), ("MAKE", "make")])
def test_without_a_tool_the_error_names_it(sources, monkeypatch, variable, what):
    monkeypatch.setenv(variable, "no-such-tool")
    with pytest.raises(EngineError, match=f"needs {what}, and 'no-such-tool' is not on the PATH"):
        load(program(), "bridgestan")


# ---- What names a build


def test_the_build_key_names_what_can_change_the_library(sources, tmp_path, monkeypatch):
    other = tmp_path / "other-compiler"
    other.write_text("#!/bin/sh\necho another compiler 1.0\n")
    other.chmod(0o755)

    def key(code: str = NORMAL, flags: tuple[str, ...] = FLAGS, compiler: str = "c++") -> str:
        return build_key(program(code), flags, sources, compiler)

    first = key()
    assert key() == first
    changed = [key(NORMAL + " "), key(flags=(*FLAGS, "O=0")), key(compiler=f"{other} -m64")]
    for file, text in {
        "make/local": "CXXFLAGS += -march=native\n",
        "src/version.hpp": "#define BRIDGESTAN_MINOR 10\n",
        "Makefile": "STANC3_VERSION ?= v2.40.0\n",
    }.items():
        (sources / file).write_text(text)
        changed.append(key())
    monkeypatch.setenv("CXXFLAGS", "-O1")
    changed.append(key())
    assert len({first, *changed}) == 1 + len(changed)


# ---- What is kept, and where


def test_a_compilation_is_announced_with_its_place_and_happens_once(compiles, tmp_path):
    with pytest.warns(
        EngineNotice, match=r"compiling mine with BridgeStan, which takes minutes and happens once"
    ) as told:
        first = compiled_library(program())
    assert str(first.parent) in str(told[0].message)
    assert first.is_relative_to(tmp_path / "cache" / "bridgestan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled_library(program()) == first
    assert len(compiles) == 1


@pytest.mark.filterwarnings("ignore::stan_adapters.errors.EngineNotice")
def test_the_marker_is_written_after_the_build_and_a_broken_build_is_done_again(compiles, monkeypatch):
    works = bridgestan.compile_model

    def broken(stan_file, *, make_args):
        raise RuntimeError(f"Error in '{stan_file}', line 3")

    monkeypatch.setattr(bridgestan, "compile_model", broken)
    with pytest.raises(EngineError, match=r"could not compile mine:\nError in 'mine\.stan', line 3"):
        compiled_library(program())
    monkeypatch.setattr(bridgestan, "compile_model", works)
    library = compiled_library(program())
    assert library.with_name("complete").read_text() == "mine"
    library.unlink()
    assert compiled_library(program()).is_file()
    assert len(compiles) == 2


def test_a_folder_that_can_not_be_written_is_an_error_that_names_the_setting(compiles, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVISTAN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"can't be kept in .*Choose another folder by AVISTAN_CACHE_DIR"):
        compiled_library(program())


@pytest.mark.filterwarnings("ignore::stan_adapters.errors.EngineNotice")
def test_without_a_cache_a_build_lives_as_long_as_the_process(compiles, tmp_path, monkeypatch):
    monkeypatch.setenv("AVISTAN_NO_CACHE", "1")
    library = compiled_library(program())
    assert compiled_library(program()) == library
    assert len(compiles) == 1
    assert not library.is_relative_to(tmp_path / "cache")
    cache_folder._of_this_process().cleanup()
    cache_folder._of_this_process.cache_clear()
    assert not library.exists()


def test_waiting_for_another_process_that_compiles_is_said(compiles, tmp_path):
    key = build_key(program(), FLAGS, bridgestan_sources(), compiled_engine._compiler())
    lock = tmp_path / "cache" / "bridgestan" / f"{key}.lock"
    lock.parent.mkdir(parents=True)
    holder = os.open(lock, os.O_CREAT | os.O_WRONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    told: list[str] = []

    def show(message, *rest, **more) -> None:
        told.append(str(message))
        if told[-1].startswith("another process"):
            os.close(holder)  # the other is done

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        compiled_library(program())
    assert told[0] == "another process is compiling mine: waiting for it, which can take minutes."
    assert len(compiles) == 1


def test_messages_about_a_program_that_includes_others_say_how_lines_count(tmp_path):
    (tmp_path / "inner.stan").write_text("real z;\n")
    file = tmp_path / "outer.stan"
    file.write_text("parameters {\n#include inner.stan\n}\nmodel { z ~ std_normal(); }\n")
    assert _users_file(Program.from_file(file)) == f"{file} with its #include lines expanded"
    assert _users_file(program()) == "mine.stan"


def test_messages_name_the_users_file(sources, toy_library, tmp_path, monkeypatch):
    def compile_model(stan_file, *, make_args):
        density = TOY.density.replace("WHERE", str(stan_file))
        toy_library(Toy(density=density, names=TOY.names), stan_file.with_name("program_model.so"))

    monkeypatch.setattr(bridgestan, "compile_model", compile_model)
    file = tmp_path / "mine.stan"
    file.write_text(NORMAL)
    written = Program.from_file(file)
    with pytest.warns(EngineNotice, match="compiling mine"):
        model = BoundModel(written, read_data(written, {}), engine="bridgestan")
    assert model.engine == "bridgestan"
    assert f"in '{file}', line 1" in model.why_rejected(np.array([10.0]))


# ---- For real


@pytest.fixture
def compiled(bridgestan_home, tmp_path, monkeypatch) -> BoundModel:
    monkeypatch.setenv("AVISTAN_CACHE_DIR", str(tmp_path))
    code = """
    data { int N; vector[N] x; }
    parameters { real theta; vector<lower=0>[N] z; simplex[3] p; }
    model { z ~ normal(theta, 1); x ~ normal(z, 1); if (theta > 9) reject("too large"); }
    generated quantities { real noise = normal_rng(0, 1); }"""
    written = program(code)
    with pytest.warns(EngineNotice, match="compiling mine"):
        return BoundModel(written, read_data(written, {"N": 3, "x": [1, 2, 3]}), engine="bridgestan")


def test_a_compiled_program_agrees_with_stanli_and_serves_as_a_prebuilt_one(compiled):
    other = BoundModel(compiled.program, compiled.data, engine="stanli")
    prebuilt = BoundModel(compiled.program, compiled.data, engine=str(compiled._density.abi.path))
    theta = np.random.default_rng(0).normal(size=(5, 6))
    theta[:, 4:] = 0  # the middle of the simplex, whose transform differs between versions of Stan
    (lp, gradient), (same, same_gradient) = (
        compiled.log_density_gradient(theta),
        prebuilt.log_density_gradient(theta),
    )
    np.testing.assert_array_equal(lp, same)
    np.testing.assert_array_equal(gradient, same_gradient)
    expected, expected_gradient = other.log_density_gradient(theta)
    np.testing.assert_allclose(np.diff(lp), np.diff(expected), rtol=1e-10)
    np.testing.assert_allclose(gradient[:, :4], expected_gradient[:, :4], rtol=1e-10)
    assert compiled.engine == "bridgestan"
    assert compiled.exclusive is None
    assert prebuilt.engine == "program_model.so"
    assert compiled.constrain(theta)[0]["noise"].shape == (5,)
    assert "in 'mine.stan', line 4" in compiled.why_rejected(np.array([10.0, 0, 0, 0, 0, 0]))


def test_a_compiled_program_without_threads_is_called_by_one_at_a_time(bridgestan_home, tmp_path):
    file = tmp_path / "mine.stan"
    file.write_text("parameters { vector[3] z; } model { z ~ std_normal(); }")
    path = bridgestan.compile_model(file, make_args=["STAN_THREADS="])  # whatever make/local says
    written = Program.from_file(file)
    with pytest.warns(EngineNotice, match="one thread at a time"):
        model = BoundModel(written, read_data(written, {}), engine=str(path))
    points = np.random.default_rng(0).normal(size=(2000, 3))
    threads = [threading.Thread(target=model.log_density_gradient, args=(points,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lp, _ = model.log_density_gradient(points)
    np.testing.assert_allclose(lp, -(points**2).sum(1) / 2)


def test_a_compiled_program_of_another_prior_is_refused(bridgestan_home, tmp_path):
    code = "parameters { real mu; vector[3] z; } model { mu ~ normal(0, SD); z ~ normal(mu, 1); }"
    file = tmp_path / "mine.stan"
    file.write_text(code.replace("SD", "50"))
    path = bridgestan.compile_model(file, make_args=list(FLAGS))
    written = program(code.replace("SD", "5"))
    with pytest.raises(EngineError, match=r"of another program than mine.*`mu` \("):
        BoundModel(written, read_data(written, {}), engine=str(path))
