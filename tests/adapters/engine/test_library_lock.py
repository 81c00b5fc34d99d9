"""Libraries built without STAN_THREADS: what avistan may do with one autodiff stack."""

import os
import threading

import numpy as np
import pytest

from fake_engine import Toy, overlaps
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine.library_lock import ONE_AT_A_TIME, LibraryLock, is_thread_safe
from stan_adapters.errors import EngineNotice
from stan_adapters.language.program import Program

CODE = "data { int N; real sd; } parameters { vector[N] z; } model { z ~ normal(0, sd); }"
NORMALS = """
std::string toy_density(const Data& data, const double* q, bool, double* lp, double* gradient) {
  const double sd = data.number("sd");
  *lp = 0;
  for (int i = 0; i < D; ++i) {
    *lp -= q[i] * q[i] / (2 * sd * sd);
    gradient[i] = -q[i] / (sd * sd);
  }
  return "";
}
"""
ONE_STACK = Toy(density=NORMALS, names=("z.1", "z.2", "z.3"), name="mine_model", threads=False, spin=50)
DATA = {"N": 3, "sd": 5.0}


def bind(path) -> BoundModel:
    program = Program.from_code(CODE, name="mine")
    return BoundModel(program, read_data(program, DATA), engine=str(path))


def test_the_info_text_says_whether_threads_may_call_at_once():
    assert is_thread_safe("Stan C++ Defines:\n\tSTAN_THREADS=true\n")
    assert not is_thread_safe("Stan C++ Defines:\n\tSTAN_THREADS=false\n\tSTAN_MPI=true\n")
    assert not is_thread_safe("a library that says nothing")


def test_the_lock_takes_the_other_mutex_once_however_deep_it_is_nested():
    lock, taken = LibraryLock(), []
    lock.share(lambda: taken.append("acquire"), lambda: taken.append("release"))
    with lock, lock:
        assert taken == ["acquire"]
    assert taken == ["acquire", "release"]


def test_a_mutex_that_is_shared_within_the_lock_is_taken_from_the_next_time_on():
    lock, taken = LibraryLock(), []
    with lock:
        lock.share(lambda: taken.append("acquire"), lambda: taken.append("release"))
    assert taken == []
    with pytest.raises(RuntimeError), lock:
        raise RuntimeError
    assert taken == ["acquire", "release"]


def test_it_is_called_from_one_thread_at_a_time(toy_library, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    path = toy_library(ONE_STACK, tmp_path / "mine_model.so")
    with pytest.warns(EngineNotice, match="without STAN_THREADS"):
        model = bind(path)
    assert model.exclusive is ONE_AT_A_TIME
    assert len(model.handles(4)) == 1
    points = np.random.default_rng(1).normal(size=(64, 3))

    def evaluate() -> None:
        lp, gradient = model.log_density_gradient(points)
        np.testing.assert_allclose(lp, -(points**2).sum(1) / 50)
        np.testing.assert_allclose(gradient, -points / 25)

    def bind_and_draw() -> None:
        with bind(path) as other:
            other.constrain(points)
            other.unconstrain_draws({"z": points})

    threads = [threading.Thread(target=work) for work in (evaluate, bind_and_draw) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted, calls = overlaps(path)
    assert counted == 0
    assert calls > 3 * (64 + 64 + 64)


def test_the_toy_sees_overlaps_where_threads_are_allowed(toy_library, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    toy = Toy(density=NORMALS, names=ONE_STACK.names, name="mine_model", threads=True, spin=300)
    path = toy_library(toy, tmp_path / "mine_model.so")
    model = bind(path)
    assert model.exclusive is None
    for _ in range(5):
        model.log_density_gradient(np.zeros((64, 3)))
    assert overlaps(path)[0] > 0


def test_the_user_is_told_once_and_how_to_build_another(toy_library, tmp_path, recwarn):
    path = toy_library(ONE_STACK, tmp_path / "mine_model.so")
    bind(path)
    bind(path)
    notices = [str(w.message) for w in recwarn if issubclass(w.category, EngineNotice)]
    assert len(notices) == 1
    assert "one thread at a time" in notices[0]
    assert "make_args=['STAN_THREADS=true']" in notices[0]
