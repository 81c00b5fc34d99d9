"""Arguments that can't be meant, given to every call of the Python API: prints what each is answered, as JSON.

In a process of its own, because tests check annotated types before the functions themselves can.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np

import avistan as avi
import avistan.fitting.shared_start
from stan_adapters.data.stan_data import DataWarning

SCHOOLS = avi.models_root() / "eight_schools"
PROGRAM = SCHOOLS / "eight_schools.stan"
SIMULATOR = """
data { int J; vector[J] sigma; }
generated quantities {
  real mu = normal_rng(0, 5);
  real tau = abs(cauchy_rng(0, 5));
  array[J] real y = normal_rng(rep_vector(mu, J), sigma);
}"""
NO_NUMBERS = [0, -1, 1.5, "10", None, True, float("nan"), [5], 10**12]
NO_SEEDS = [-1, 2**32, 1.5, "1", True, float("nan"), [1]]
NO_PATHS = [3, ["a"], "a\0b"]

OF_MODEL = {
    "stan_file": [None, 3, b"p.stan", ["p.stan"], "", "gone.stan", "."],
    "stan_code": ["model {}", 3],  # beside stan_file
    "data": [3, "gone.json", [], [None], np.zeros(2), "{}", {"J": 1}, {1: 2}],
    "engine": [None, 3, "", "stanly", Path("gone_model.so")],
    "include_paths": [3, None, ["gone"], [3]],
    "level": [3, "", ["J"]],
    "slicing": ["y", ["row"], {"y": 3}, {"y": "nope"}, {"nope": "row"}, {1: "row"}],
}
OF_FIT = {
    "method": ["", None, 3, "avi:", ["avi"], b"avi", "avi:full:full"],
    "seed": [*NO_SEEDS, None],
    "level": ["", 3, ["J"], "nope"],
    "family": ["x", 3, True, ["auto"]],
    "chains": NO_NUMBERS,
    "checkpoint": [*NO_PATHS, "/dev/null/x", "file"],
    "resume": [True],
    "steps": [0, 1.5, "5", True, 2**63, float("nan"), [5]],
    "draws_per_step": NO_NUMBERS,
    "learning_rate": [None, "x", 0, -0.0, float("inf"), float("nan"), True, [1], 1j],
    "estimator": [None, "x", 3, []],
    "num_references": NO_NUMBERS,
    "max_rank": NO_NUMBERS,
    "elbo_draws": [*NO_NUMBERS, 1],
    "max_seconds": [0, -1, "x", True, float("nan"), []],
    "progress_callback": [3, "x"],
    "stepz": [3],
}
OF_COMPARE = {
    "methods": [
        "avi",
        None,
        3,
        [],
        [3],
        [None],
        ["avi", "avi"],
        ["avi", "avi:mlp(64)"],
        {"avi"},
        ["avi", ""],
    ],
    "reference": ["", 3, "nuts2", ["nuts"], {"a": 1}, np.zeros(3), Path("gone.nc"), Path("file"), True],
    "repeats": NO_NUMBERS,
    "cmdstan_exe": ["gone", 3, "file"],
    "reference_options": [3, "x", {"draws": 10}, ["draws"]],
    "seed": [-1, None],
    "level": ["nope", 3],
    "steps": [0],
}
OF_POSTERIOR = {
    "draws": NO_NUMBERS,
    "seed": NO_SEEDS,
    "resample": ["x", 3, True, [], None, "psis"],
    "coords": [3, "x", {"J": 3}, {"J": [1, 2]}],
    "dims": [3, {"theta": 3}, {"theta": "a"}, {"theta": ["a", "b"]}],
    "log_likelihood": [3, "nope", ["nope"], {"a": "nope"}, [3]],
    "posterior_predictive": [3, "nope"],
    "log_prior": [3, "nope"],
    "unit_diagnostics": [3, {"a": 3}, {"a": np.zeros(3)}],
}
OF_PREDICT = {
    "data": [
        None,
        3,
        "gone.json",
        {},
        [],
        {"J": 1, "y": [np.nan], "sigma": [1.0]},
        {"J": 2, "y": [1.0], "sigma": [1.0]},
    ],
    "draws": NO_NUMBERS,
    "seed": NO_SEEDS,
}
OF_SBC = {
    "simulator": [None, 3, "gone.stan", PROGRAM],
    "data": [3, "gone.json", {}],
    "simulations": [*NO_NUMBERS, 9],
    "draws": [*NO_NUMBERS, 8],
    "seed": [-1, None, 1.5],
    "entries": NO_NUMBERS,
    "probability": [0, 1, "x", None, float("nan")],
    "method": ["", None, 3],
    "engine": [None, 3, "nope"],
    "progress": [3],
    "steps": [0],
}


class Begun(Exception):
    """Work has begun that the argument should have prevented."""


def _never(*_, **__):
    raise Begun


def main() -> None:
    answers: dict[str, list[str]] = {}

    def ask(of, call, choices):
        for name, values in choices.items():
            for value in values:
                try:
                    answer = "accepted", str(call(name, value))[:80]
                except avi.AvistanError as error:
                    answer = "refused", str(error)
                except BaseException as error:
                    answer = "raised", f"{type(error).__name__}: {error}"
                key = f"{of}({name}={value!r})"
                answers[key[:100]] = list(answer)

    warnings.simplefilter("ignore", DataWarning)
    Path("file").write_text("x")
    Path("simulator.stan").write_text(SIMULATOR)
    data = dict(avi.Model(PROGRAM, data=SCHOOLS / "data.json").data)
    model = avi.Model(PROGRAM, data=data)
    fit = model.fit(method="avi", steps=20, elbo_draws=20)
    start = fit.warm_start(chains=2)
    avistan.fitting.shared_start.SharedStarts.prepared = _never
    given = {"stan_file": PROGRAM, "data": data}
    ask("Model", lambda name, value: avi.Model(**(given | {name: value})), OF_MODEL)
    ask(
        "inspect",
        lambda name, value: model.inspect(**{name: value}),
        {"seed": NO_SEEDS, "level": ["", 3, "nope"]},
    )
    ask("fit", lambda name, value: model.fit(**{name: value}), OF_FIT)
    ask("compare", lambda name, value: model.compare(**{name: value}), OF_COMPARE)
    options = {
        "reference_options": [{"draws": 0}, {"dra": 10}, {"draws": "10"}, {"chains": 10**9}, {"warmup": None}]
    }
    ask("compare, nuts", lambda name, value: model.compare(reference="nuts", **{name: value}), options)
    ask("posterior", lambda name, value: fit.posterior(**({"draws": 5} | {name: value})), OF_POSTERIOR)
    ask("write_posterior", lambda name, value: fit.write_posterior("w.zarr", value), {"draws": NO_NUMBERS})
    ask("write_posterior", lambda name, value: fit.write_posterior(value, 5), {"path": NO_PATHS})
    ask(
        "write_posterior",
        lambda name, value: fit.write_posterior("w.zarr", 5, **{name: value}),
        {"resample": ["elbo", "psis", None]},
    )
    ask("unconstrained_draws", lambda name, value: fit.unconstrained_draws(value), {"draws": NO_NUMBERS})
    ask(
        "create_inits",
        lambda name, value: fit.create_inits(**{name: value}),
        {"seed": NO_SEEDS, "chains": NO_NUMBERS},
    )
    new = {"data": data, "draws": 5}
    ask("predict", lambda name, value: fit.predict(**(new | {name: value})), OF_PREDICT)
    ask("diagnose", lambda name, value: fit.diagnose(seed=value), {"seed": NO_SEEDS})
    units = {"units": [3, "x", [], [99], [-1], [1.5], ["a"], [[0]], [True]]}
    ask("refine", lambda name, value: fit.refine(value, steps=2), units)
    ask("refine", lambda name, value: fit.refine([0], steps=value), {"steps": NO_NUMBERS})
    ask(
        "keep_chains",
        lambda name, value: fit.keep_chains(value),
        {"numbers": [3, [], [5], ["a"], [1.5], None, [-1]]},
    )
    ask(
        "warm_start",
        lambda name, value: fit.warm_start(**{name: value}),
        {"chains": NO_NUMBERS, "seed": NO_SEEDS},
    )
    for way in ("cmdstan", "stanli", "nutpie"):
        ask(way, lambda name, value, way=way: getattr(start, way)(value), {"warmup": NO_NUMBERS})
    ask("write", lambda name, value: start.write(value), {"folder": NO_PATHS})
    ask("save", lambda name, value: fit.save(value), {"path": [*NO_PATHS, "", "file", "/dev/null"]})
    ask("load", lambda name, value: avi.load(value), {"path": [*NO_PATHS, "", "file", "gone"]})
    ask(
        "stan_variable", lambda name, value: fit.stan_variable(value), {"name": ["nope", 3, None, "theta[1]"]}
    )
    simulated = {"simulator": "simulator.stan", "data": {"J": 8, "sigma": data["sigma"]}, "simulations": 10}
    ask("calibrate", lambda name, value: avi.calibrate(PROGRAM, **(simulated | {name: value})), OF_SBC)
    json.dump(answers, sys.stdout)


main()
