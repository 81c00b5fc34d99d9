"""The C ABI of one library: loading, messages, printing, ownership."""

import ctypes.util
import threading
from pathlib import Path

import numpy as np
import pytest

from stan_adapters.engine.abi import Abi
from stan_adapters.engine.engines import Library, load
from stan_adapters.errors import EngineError
from stan_adapters.language.program import Program

PRINTS = """
data { int N; }
transformed data { print("bound with ", N); }
parameters { vector[N] z; }
model { print("evaluated"); if (z[1] > 1) reject("z is ", z[1]); z ~ std_normal(); }
generated quantities { real noise = normal_rng(0, 1); }"""


@pytest.fixture
def library() -> Library:
    return load(Program.from_code(PRINTS))


@pytest.fixture
def handle(library):
    handle = library.construct('{"N": 2}', 1)
    yield handle
    library.abi.destruct(handle)


def test_a_file_that_is_no_library_is_an_error_that_says_how_to_build_one(tmp_path):
    path = tmp_path / "model.so"
    path.write_text("no ELF")
    with pytest.raises(EngineError, match=r"not a BridgeStan model library.*bridgestan\.compile_model"):
        Abi(path)


def test_a_library_without_the_functions_is_an_error():
    libm = ctypes.util.find_library("m")
    with pytest.raises(EngineError, match=r"not a BridgeStan model library: .*bs_model_construct"):
        Abi(Path(libm))


def test_the_library_says_its_version_and_addresses(library):
    assert library.abi.version.count(".") == 2
    assert library.abi.address("bs_log_density_gradient") != library.abi.address("bs_free_error_msg") != 0


def test_a_gradient_and_its_rejections_fill_the_callers_arrays(library, handle):
    theta = np.array([[0.5, -0.5], [2.0, 0.0], [1.0, 1.0]])
    lp, gradient = np.empty(3), np.full((3, 2), np.nan)
    message = library.abi.log_density_gradient(handle, theta, lp, gradient)
    assert "z is 2" in message
    assert lp.tolist() == [-0.25, -np.inf, -1.0]
    assert gradient.tolist() == [[-0.5, 0.5], [0.0, 0.0], [-1.0, -1.0]]


def test_a_point_that_is_not_finite_counts_as_rejected(library, handle):
    lp, gradient = np.empty(1), np.empty((1, 2))
    message = library.abi.log_density_gradient(handle, np.array([[np.nan, 0.0]]), lp, gradient)
    assert message
    assert (lp[0], gradient[0].tolist()) == (-np.inf, [0.0, 0.0])


def test_what_stan_prints_goes_to_the_log_and_not_to_standard_output(library, handle, capfd, caplog):
    caplog.set_level("INFO", logger="stan_adapters.program_output")
    library.abi.log_density_gradient(handle, np.zeros((1, 2)), np.empty(1), np.empty((1, 2)))
    assert "evaluated" in caplog.messages
    assert capfd.readouterr().out == ""


def test_what_stan_prints_while_binding_is_returned_to_the_thread_that_binds(library):
    printed = {}

    def bind(count: int) -> None:
        handle, printed[count] = library.abi.construct(b'{"N": %d, %s}' % (count, library.manifest), 1)
        library.abi.destruct(handle)

    threads = [threading.Thread(target=bind, args=(count,)) for count in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"bound with {count}" in text for count, text in printed.items())
    assert len(printed) == 8


def test_a_refusal_carries_stans_words(library):
    with pytest.raises(EngineError, match="N"):
        library.abi.construct(b'{"N": "three", %s}' % library.manifest, 1)


def test_constraining_is_seeded_and_marks_failed_rows():
    code = """
    parameters { real z; }
    generated quantities { if (z > 1) reject("too large"); real noise = normal_rng(0, 1); }"""
    library = load(Program.from_code(code))
    handle = library.construct("{}", 1)
    out = np.empty((3, 2))
    theta = np.array([[0.0], [2.0], [0.5]])
    options = {"transformed_parameters": True, "generated_quantities": True}
    failed, message = library.abi.constrain(handle, theta, out, seed=4, **options)
    assert (failed, "too large" in message) == (1, True)
    assert np.isnan(out[1]).all()
    again = np.empty_like(out)
    library.abi.constrain(handle, theta, again, seed=4, **options)
    np.testing.assert_array_equal(out, again)
    library.abi.constrain(handle, theta, again, seed=5, **options)
    assert out[0, 1] != again[0, 1]
    library.abi.destruct(handle)


def test_names_and_dimensions_come_from_the_library(library, handle):
    assert library.abi.unconstrained_dim(handle) == 2
    assert library.abi.names(handle) == ["z.1", "z.2"]
    assert library.abi.names(handle, generated_quantities=True) == ["z.1", "z.2", "noise"]
    assert "STAN_THREADS=true" in library.abi.info(handle)


def test_an_empty_program_has_no_names():
    library = load(
        Program.from_code("data { int N; } parameters { vector[N] z; } model { z ~ std_normal(); }")
    )
    handle = library.construct('{"N": 0}', 1)
    assert library.abi.names(handle) == []
    library.abi.destruct(handle)
