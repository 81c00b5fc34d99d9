"""Programs that stanli lacks, run by a library written by hand; and an installation without the compiled handler."""

import json

import bridgestan
import numpy as np
import pytest

import avistan as avi
from avistan.calibration.simulator import simulate
from avistan.density import backend, handler
from avistan.report.sentences import findings
from fake_engine import Toy
from stan_adapters import errors
from stan_adapters.errors import EngineNotice
from stan_adapters.language.program import Program

pytestmark = pytest.mark.filterwarnings("ignore:whether the density of")
N = 5
DENSITY = """
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
"""
DATA = {"N": N, "x": [0.0] * N}
SMALL = {"steps": 60, "draws_per_step": 4, "elbo_draws": 40}


def test_a_reference_that_stanli_can_not_sample_is_missing_with_the_ways_out(toy_library, tmp_path):
    code = """
    data { int N; vector[N] x; }
    parameters { real theta; vector[N] z; }
    model {
      theta ~ std_normal(); z ~ normal(theta, 1); x ~ normal(z, 1);
      target += log(determinant([[1 + 0 * theta]]));
    }"""
    names = ("theta", *(f"z.{n + 1}" for n in range(N)))
    path = toy_library(Toy(density=DENSITY, names=names), tmp_path / "mine_model.so")
    model = avi.Model(stan_code=code, data=DATA, engine=str(path))
    comparison = model.compare(["fvi"], reference="nuts", seed=1, **SMALL)
    assert comparison.reference is None
    assert not comparison["fvi"].failed
    for text in (
        str(comparison),
        " ".join(finding.text for finding in findings(comparison)),
        json.dumps(comparison.to_json()),
    ):
        assert "the reference nuts is missing: stanli's NUTS failed on model: " in text
        assert "unsupported function determinant" in text
        assert "cmdstan-nuts" in text
        assert "draws made elsewhere" in " ".join(text.split())
    assert comparison.to_json()["reference"] is None
    with pytest.raises(avi.AvistanError, match="unknown reference"):
        model.compare(["fvi"], reference=tmp_path / "gone.nc", seed=1, **SMALL)


def test_auto_goes_on_to_the_compiled_engine_and_says_so_everywhere(toy_library, tmp_path, monkeypatch):
    code = """
    functions { tuple(real, real) twice(real x) { return (x, 2 * x); } }
    data { int N; vector[N] x; }
    parameters { real theta; vector[N] z; }
    model {
      real a; real b; (a, b) = twice(theta);
      a ~ std_normal(); z ~ normal(b - a, 1); x ~ normal(z, 1);
    }"""
    (tmp_path / "Makefile").write_text("all:\n")
    monkeypatch.setenv("BRIDGESTAN", str(tmp_path))
    monkeypatch.setenv("AVISTAN_CACHE_DIR", str(tmp_path / "cache"))
    compiled = []

    def compile_model(stan_file, *, make_args):
        compiled.append(stan_file)
        names = ("theta", *(f"z.{n + 1}" for n in range(N)))
        toy_library(Toy(density=DENSITY, names=names), stan_file.with_name("program_model.so"))

    monkeypatch.setattr(bridgestan, "compile_model", compile_model)
    monkeypatch.setattr(errors, "_told", set())
    with pytest.warns(EngineNotice) as notices:
        model = avi.Model(stan_code=code, data=DATA)
    told = [str(notice.message) for notice in notices]
    assert told[0].startswith("going on with the compiled engine, bridgestan: stanli can't run model: ")
    assert "it lacks tuples" in told[0]
    assert told[1].startswith(
        "compiling model with BridgeStan, which takes minutes and happens once: it is kept in "
    )
    structure = model.inspect()
    assert "engine bridgestan" in str(structure)
    assert structure.to_json()["engine"] == "bridgestan"
    fit = model.fit(method="avi:polynomial(1)", **SMALL)
    assert "engine bridgestan" in str(fit)
    assert fit.posterior(10, resample="none").attrs["engine"] == "bridgestan"
    fit.save(tmp_path / "fit")
    assert avi.load(tmp_path / "fit").model.engine == "bridgestan"
    assert len(compiled) == 1


def test_components_of_tuples_are_explained_where_they_appear(toy_library, tmp_path):
    code = """
    data { int N; vector[N] x; }
    parameters { tuple(real, vector[N]) pop; }
    model { pop.1 ~ std_normal(); pop.2 ~ normal(pop.1, 1); x ~ normal(pop.2, 1); }"""
    names = ("pop:1", *(f"pop:2.{n + 1}" for n in range(N)))
    path = toy_library(Toy(density=DENSITY, names=names), tmp_path / "mine_model.so")
    model = avi.Model(stan_code=code, data=DATA, engine=str(path))
    structure = model.inspect()
    assert "`pop:1` among an engine's names is the first component of pop" in structure.reason
    assert (structure.verdict, structure.level.latents) == ("closable", ("pop.2",))
    fit = model.fit(method="avi", **SMALL)
    fit.save(tmp_path / "fit")
    np.testing.assert_array_equal(
        avi.load(tmp_path / "fit", engine=str(path)).level.index[:, 0], np.arange(N) + 1
    )
    posterior = fit.posterior(20, resample="none")["posterior"]
    assert posterior["pop:1"].attrs["description"] == "component 1 of the tuple pop"
    assert posterior["pop:2"].attrs["description"] == "component 2 of the tuple pop"
    assert posterior["pop:2"].shape == (1, 20, N)


def test_an_installation_without_the_handler_says_so_once(monkeypatch):
    monkeypatch.setattr(handler, "_load", lambda: None)
    monkeypatch.delenv("AVISTAN_NO_NATIVE", raising=False)
    monkeypatch.setattr(errors, "_told", set())
    with pytest.warns(
        EngineNotice, match=r"without its compiled handler.*Install a C\+\+17 compiler and reinstall"
    ):
        assert backend.backend() == "callback"
    assert backend.backend() == "callback"  # a second notice would be an error


def test_callbacks_that_were_chosen_are_quiet(monkeypatch):
    monkeypatch.setattr(handler, "_load", lambda: None)
    monkeypatch.setattr(errors, "_told", set())
    monkeypatch.setenv("AVISTAN_NO_NATIVE", "1")
    monkeypatch.setattr(handler, "notify_once", lambda message: pytest.fail(message))
    assert backend.backend() == "callback"


def test_a_simulator_is_not_run_by_the_library_of_the_program_to_fit(toy_library, tmp_path):
    names = ("theta", *(f"z.{n + 1}" for n in range(N)))
    path = toy_library(Toy(density=DENSITY, names=names), tmp_path / "mine_model.so")
    program = Program.from_code(
        "data { int N; vector[N] x; } parameters { real theta; vector[N] z; }"
        "model { theta ~ std_normal(); z ~ normal(theta, 1); x ~ normal(z, 1); }"
    )
    simulator = Program.from_code(
        "data { int N; } generated quantities { real theta = normal_rng(0, 1); vector[N] x;"
        "for (n in 1:N) x[n] = normal_rng(theta, sqrt(2)); }",
        name="simulator",
    )
    simulated = simulate(program, simulator, {"N": N}, 3, seed=1, engine=str(path))
    assert simulated.drawn["x"].shape == (3, N)
