"""Small programs and bundled examples that several test modules bind."""

import runpy

import avistan as avi
from avistan.cli.examples import models_root
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program

NORMALS = """
data { int<lower=0> D; vector[D] mean; vector<lower=0>[D] sd; }
parameters { vector[D] x; }
model { x ~ normal(mean, sd); }
"""
REJECTS = """
data { int<lower=0> N; vector[N] y; real limit; }
parameters { real mu; vector[N] z; }
model {
  for (n in 1:N) if (z[n] > limit) reject("z is ", z[n]);
  mu ~ std_normal();
  z ~ normal(mu, 1);
  y ~ normal(z, 1);
}
"""


def bind(code: str, data: dict) -> BoundModel:
    program = Program.from_code(code)
    return BoundModel(program, read_data(program, data))


def simulator(name: str):
    """The `simulate` function of a bundled example."""
    return runpy.run_path(str(models_root() / name / "simulate.py"))["simulate"]


def bundled(name: str, data: object = "data.json", *, program: str | None = None) -> avi.Model:
    """A bundled example (or another program of its folder) with its own data, or with others."""
    folder = models_root() / name
    return avi.Model(
        folder / f"{program or name}.stan", data=folder / data if isinstance(data, str) else data
    )
