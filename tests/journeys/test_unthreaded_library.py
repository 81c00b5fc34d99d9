"""A library built without STAN_THREADS in a fit: whoever calls it, no two calls overlap."""

import json
import threading

import jax
import numpy as np
import pytest

import avistan as avi
from avistan.cli import app as cli
from avistan.density import handler
from avistan.density.backend import native_available
from avistan.density.log_density import log_density
from avistan.density.slots import register
from density_models import use_backend
from fake_engine import Toy, overlaps
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program

CODE = """
data { int N; vector[N] x; }
parameters { real theta; vector[N] z; }
model { theta ~ std_normal(); z ~ normal(theta, 1); x ~ normal(z, 1); }"""
N = 12
DATA = {"N": N, "x": [0.0] * N}
TOY = Toy(
    density="""
std::string toy_density(const Data&, const double* q, bool, double* lp, double* gradient) {
  const double theta = q[0];
  *lp = -theta * theta / 2;
  gradient[0] = -theta;
  for (int i = 1; i < D; ++i) {
    *lp -= (q[i] - theta) * (q[i] - theta) / 2 + q[i] * q[i] / 2;
    gradient[0] += q[i] - theta;
    gradient[i] = theta - 2 * q[i];
  }
  return "";
}
""",
    names=("theta", *(f"z.{n + 1}" for n in range(N))),
    name="mine_model",
    threads=False,
    spin=5,
)
pytestmark = pytest.mark.filterwarnings("ignore:.*built without STAN_THREADS")


@pytest.fixture
def library(toy_library, tmp_path):
    return toy_library(TOY, tmp_path / "mine_model.so")


@pytest.mark.parametrize("backend", ["native", "callback"])
def test_no_two_calls_overlap_whoever_makes_them(library, backend, monkeypatch):
    if backend == "native" and not native_available():
        pytest.skip("the compiled handler is not available")
    monkeypatch.setenv("AVISTAN_NUM_THREADS", "4")
    program = Program.from_code(CODE, name="mine")
    data = read_data(program, DATA)
    models = [BoundModel(program, data, engine=str(library)) for _ in range(2)]
    points = np.random.default_rng(0).normal(size=(32, N + 1))
    expected, _ = BoundModel(program, data, engine="stanli").log_density_gradient(points)
    with use_backend(backend), register(models[0]) as one, register(models[1]) as two:
        run = jax.jit(lambda slot, theta: log_density(slot, theta)[0])
        with jax.enable_x64(True):
            run(one.index, points)
        wrong: list[str] = []

        def through_jax(slot) -> None:
            with jax.enable_x64(True):
                for _ in range(10):
                    if not np.allclose(np.asarray(run(slot.index, points)), expected):
                        wrong.append(backend)

        def through_python() -> None:
            for _ in range(10):
                lp, _ = models[0].log_density_gradient(points)
                BoundModel(program, data, engine=str(library)).constrain(points)
                if not np.allclose(lp, expected):
                    wrong.append("python")

        threads = [threading.Thread(target=through_jax, args=(slot,)) for slot in (one, two)]
        threads += [threading.Thread(target=through_python) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert overlaps(library)[0] == 0


def test_the_handler_waits_for_code_that_holds_its_mutex(library):
    if not native_available():
        pytest.skip("the compiled handler is not available")
    program = Program.from_code(CODE, name="mine")
    model = BoundModel(program, read_data(program, DATA), engine=str(library))
    lp: list[float] = []
    with use_backend("native"), register(model) as slot:
        run = jax.jit(lambda theta: log_density(slot, theta)[0])

        def evaluate() -> None:
            with jax.enable_x64(True):
                lp.append(float(run(np.zeros(N + 1))))

        evaluate()  # compiles: from here on nothing but the mutex makes it wait
        lp.clear()
        handler.acquire_exclusive()
        waiting = threading.Thread(target=evaluate)
        waiting.start()
        waiting.join(1.0)
        held = not lp
        handler.release_exclusive()
        waiting.join()
    assert held
    assert lp == [0.0]


def test_a_handler_without_the_mutex_is_refused(monkeypatch):
    monkeypatch.setattr(handler, "_required", object)
    with pytest.raises(RuntimeError, match="built from other sources than this avistan: install again"):
        handler.acquire_exclusive()


def test_a_fit_runs_and_says_which_engine_it_rests_on(library):
    model = avi.Model(stan_code=CODE, data=DATA, engine=str(library))
    fit = model.fit(method="fvi", steps=100, draws_per_step=4, elbo_draws=40)
    assert ", engine mine_model.so: ELBO" in str(fit)
    assert fit.posterior(10, resample="none").attrs["engine"] == "mine_model.so"
    assert overlaps(library)[0] == 0


def test_the_command_line_says_once_that_one_thread_is_used(library, tmp_path, capsys):
    (tmp_path / "mine.stan").write_text(CODE)
    (tmp_path / "data.json").write_text(json.dumps(DATA))
    with pytest.raises(SystemExit):
        cli.app(
            ["inspect", str(tmp_path / "mine.stan"), str(tmp_path / "data.json"), "--engine", str(library)]
        )
    heard = capsys.readouterr()
    assert heard.err.count("one thread at a time") == 1
    assert heard.err.startswith("note: ")
    assert "engine mine_model.so" in heard.out
