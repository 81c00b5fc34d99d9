"""Log densities and gradients of programs of one statement each, against those of Stan itself: README.md tells more."""

import importlib.metadata
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine.engines import COMPILED_ENGINE_HINT
from stan_adapters.errors import UnsupportedError
from stan_adapters.language.program import Program

HERE = Path(__file__).parent
CASES = {f"{c['group']}-{c['number']}": c for c in json.loads((HERE / "stan_2_39.json").read_text())["cases"]}
GROUPS = {
    group: [c for c in CASES.values() if c["group"] == group]
    for group in {c["group"] for c in CASES.values()}
}
DIFFERENCES = {
    (row["engine"], version, case): row["gradient"]
    for row in tomllib.loads((HERE / "differences.toml").read_text())["difference"]
    for version in row["versions"]
    for case in row["cases"]
}
GRADIENT, LOG_DENSITY = 1e-8, 1e-9  # relative, to max(1, |value|)


def bind(code: str, data: dict, engine: str) -> BoundModel:
    program = Program.from_code(code, name="one_statement")
    return BoundModel(program, read_data(program, data), engine=engine)


def errors(model: BoundModel, case: dict) -> tuple[float, float]:
    """How far log densities, up to one constant, and gradients are from Stan's, in the worst place."""
    points = np.array(case["points"])[:, : model.dim]
    found = [model.log_density_gradient(point) for point in points]
    gradients, truth = np.array([gradient for _, gradient in found]), np.array(case["gradient"])
    log_densities = np.array(case["log_density"])
    constants = np.array([value for value, _ in found]) - log_densities
    scale = max(1.0, np.abs(log_densities).max())
    return float(np.ptp(constants) / scale), float(
        np.max(np.abs(gradients - truth) / np.maximum(1, np.abs(truth)))
    )


@pytest.mark.parametrize("name", CASES)
def test_stanli_agrees_with_stan_or_refuses(name):
    case, version = CASES[name], importlib.metadata.version("stanli")
    refusal = ""
    try:
        model = bind(case["program"], case["data"], "stanli")
    except UnsupportedError as error:
        refusal = str(error)
    if refusal:
        assert case["stanli_0_24"] != "ok", f"refused now: {refusal}"
        assert COMPILED_ENGINE_HINT in refusal
        assert "these data" not in refusal  # which are right
        return
    log_density, gradient = errors(model, case)
    model.close()
    known = DIFFERENCES.get(("stanli", version, name))
    assert log_density < LOG_DENSITY
    assert gradient < (known or GRADIENT)
    assert known is None or gradient > GRADIENT, "differences.toml lists a difference that is no longer there"


def all_statements(cases: list[dict]) -> str:
    """One program for a group of statements, which differ in nothing else: the integer `which` chooses."""
    first = f"{{ {cases[0]['statement']} }}"
    choices = [f"if (which == {i}) {{ {case['statement']} }}" for i, case in enumerate(cases)]
    code = cases[0]["program"].replace(first, "\n else ".join(choices))
    if "\ndata {" in f"\n{code}":
        return code.replace("data {", "data {\n int which;", 1)
    return code.replace("parameters {", "data { int which; }\nparameters {", 1)


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(GROUPS))
def test_a_compiled_engine_agrees_with_stan(bridgestan_home, group):
    cases = GROUPS[group]
    code, wrong = all_statements(cases), []
    for which, case in enumerate(cases):
        model = bind(code, {**case["data"], "which": which}, "bridgestan")
        log_density, gradient = errors(model, case)
        model.close()
        if not (log_density < LOG_DENSITY and gradient < GRADIENT):
            wrong.append((case["statement"], log_density, gradient))
    assert not wrong
